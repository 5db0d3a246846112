/** `fedstill serve` as a process: what it prints, how it stops, what it leaves. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const main = fileURLToPath(new URL('../../simulations/main.ts', import.meta.url));
const task = `
task: smoke
data: {numClasses: 3, exampleShape: [4]}
transferSet: {source: synthetic, size: 30, seed: 5}
teacher: {kind: consensus}
schedule: {rounds: 2, minClients: 2, quorum: 2}
admission: {mode: token}
`;

let folder: string;
const children: ChildProcess[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fedstill-serve-'));
  await writeFile(join(folder, 'task.yaml'), task);
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

interface Running {
  readonly child: ChildProcess;
  /** Standard output and standard error so far. */
  output(): { out: string; err: string };
  /** Resolves with the status once the process has ended. */
  readonly ended: Promise<number | null>;
}

function fedstill(...args: string[]): Running {
  const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), main, ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  let out = '';
  let err = '';
  child.stdout.on('data', (data: Buffer) => (out += data.toString()));
  child.stderr.on('data', (data: Buffer) => (err += data.toString()));
  return { child, output: () => ({ out, err }), ended: once(child, 'close').then(([status]) => status as number | null) };
}

/** The line of this event, once it is printed. */
async function eventLine(running: Running, event: string): Promise<Record<string, unknown>> {
  const find = () =>
    running
      .output()
      .out.split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .find((line) => line['event'] === event);
  await expect.poll(find, { timeout: 40_000 }).toBeDefined();
  return find()!;
}

it('serves, stops at a signal with the way to go on, and goes on as the same coordinator, also after a kill', { timeout: 120_000 }, async () => {
  const first = fedstill('serve', '--task', 'task.yaml', '--port', '0', '--json');
  const started = await eventLine(first, 'listening');
  expect(started).toMatchObject({ task: 'smoke', trustMode: 'sealed', run: 'runs/smoke', joinUrl: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/join\/[a-z2-7]{26}$/) as string });
  await expect.poll(async () => (await fetch(`${String(started['origin'])}/readyz`)).status, { timeout: 10_000 }).toBe(200);
  expect(await (await fetch(String(started['joinUrl']))).text()).toContain(`fedstill join ${String(started['joinUrl'])}`);

  const second = fedstill('serve', '--task', 'task.yaml', '--port', '0');
  expect(await second.ended).toBe(2);
  expect(second.output().err).toMatch(/process \d+ on .* has it[\s\S]*state-locked/);
  const { port } = new URL(String(started['origin']));
  const third = fedstill('serve', '--task', 'task.yaml', '--run', 'other', '--port', port);
  expect(await third.ended).toBe(2);
  expect(third.output().err).toContain('port-unavailable');

  first.child.kill('SIGTERM');
  expect(await first.ended).toBe(143);
  expect(await eventLine(first, 'stopped')).toEqual({ event: 'stopped', resume: 'fedstill resume runs/smoke' });
  expect(first.output().err).toBe('');

  const resumed = fedstill('resume', 'runs/smoke', '--json');
  expect(await eventLine(resumed, 'listening')).toEqual(started);
  resumed.child.kill('SIGKILL');
  await resumed.ended;

  const again = fedstill('resume', 'runs/smoke');
  await expect.poll(() => again.output().out, { timeout: 40_000 }).toContain(`fedstill join ${String(started['joinUrl'])}`);
  again.child.kill('SIGINT');
  expect(await again.ended).toBe(130);
  expect(again.output().out).toContain('fedstill resume runs/smoke');
});

it('says what is wrong with its arguments and files, with exit status 2', { timeout: 120_000 }, async () => {
  await writeFile(join(folder, 'wrong.yaml'), 'task: Smoke\n');
  const cases: [string[], RegExp][] = [
    [['--task', 'missing.yaml'], /file-unreadable/],
    [['--task', 'wrong.yaml'], /config-invalid/],
    [['--task', 'task.yaml', '--port', '70000'], /from 0 to 65535/],
    [['--task', 'task.yaml', '--tls-cert', 'x.pem'], /--tls-key/],
    [['--task', 'task.yaml', '--public-url', 'https://host/path'], /without a path/],
    [['--task', 'task.yaml', '--tls-cert', 'x.pem', '--tls-key', 'y.pem'], /x\.pem cannot be read/],
  ];
  const runs = cases.map(([args, message]) => ({ running: fedstill('serve', '--run', join(folder, `run-${args.join('').length}`), ...args), message }));
  for (const { running, message } of runs) {
    expect(await running.ended).toBe(2);
    expect(running.output().err).toMatch(message);
  }
});
