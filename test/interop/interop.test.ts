// A client written from docs/protocol.md alone (independent-client.mjs) against the real coordinator, and beside the real client.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

type Line = Readonly<Record<string, unknown>>;
interface Running {
  readonly lines: Line[];
  /** The first line with this event. */
  readonly line: (event: string) => Promise<Line>;
  readonly exit: Promise<number | null>;
  /** What it printed, for the message of a failed expectation. */
  readonly output: () => string;
}

const here = fileURLToPath(new URL('.', import.meta.url));
const fedstill = fileURLToPath(new URL('../../dist/simulations/main.js', import.meta.url));
const client = join(here, 'independent-client.mjs');

let folder = '';
let children: ChildProcess[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fedstill-interop-'));
});
afterEach(async () => {
  for (const child of children) if (child.exitCode === null) child.kill('SIGKILL');
  children = [];
  await rm(folder, { recursive: true, force: true });
});

function start(...args: string[]): Running {
  const child = spawn(process.execPath, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  const lines: Line[] = [];
  const waiting: { event: string; resolve: (line: Line) => void; reject: (error: Error) => void }[] = [];
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  createInterface({ input: child.stdout }).on('line', (text) => {
    const line = JSON.parse(text) as Line;
    lines.push(line);
    waiting.filter((w) => w.event === line['event']).forEach((w) => w.resolve(line));
  });
  const output = (): string => `${args.join(' ')}\n${lines.map((line) => JSON.stringify(line)).join('\n')}\n${errors}`;
  const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
  void exit.then(() => waiting.forEach((w) => w.reject(new Error(`ended without ${w.event}: ${output()}`))));
  const line = (event: string): Promise<Line> =>
    new Promise((resolve, reject) => {
      const found = lines.find((l) => l['event'] === event);
      if (found !== undefined) resolve(found);
      else waiting.push({ event, resolve, reject });
    });
  return { lines, line, exit, output };
}

const task = (name: string, extra: string): string => `task: ${name}
data: { numClasses: 3, exampleShape: [4] }
transferSet: { source: synthetic, size: 40 }
${extra}`;

async function serve(yaml: string): Promise<Running & { url: string; tokenFile: unknown }> {
  await writeFile(join(folder, 'task.yaml'), yaml);
  const running = start(fedstill, 'serve', '--task', join(folder, 'task.yaml'), '--run', join(folder, 'run'), '--port', '0', '--json');
  const { joinUrl, tokenFile } = await running.line('listening');
  return { ...running, url: String(joinUrl), tokenFile };
}

const of = (running: Running, event: string): Line[] => running.lines.filter((line) => line['event'] === event);

/** Accepted in both rounds, told the reason, ended well. */
async function expectWhole(running: Running): Promise<void> {
  expect(await running.exit, running.output()).toBe(0);
  expect(of(running, 'accepted').map((line) => line['round']), running.output()).toEqual([1, 2]);
  expect(of(running, 'finished')).toMatchObject([{ reason: 'rounds-done', rounds: 2 }]);
}
async function expectServed(coordinator: Running): Promise<void> {
  expect(await coordinator.exit, coordinator.output()).toBe(0);
  expect(of(coordinator, 'round-released').map((line) => line['contributions'])).toEqual([2, 2]);
  expect(of(coordinator, 'problem-sent').filter((line) => line['code'] !== 'token-refused')).toEqual([]);
}

describe('a client written from docs/protocol.md alone', () => {
  it('reproduces the golden vectors', async () => {
    const run = start(join(here, 'golden-vectors.mjs'));
    expect(await run.exit, run.output()).toBe(0);
    expect(run.lines.length).toBeGreaterThan(50);
    expect(run.lines.filter((line) => line['ok'] !== true)).toEqual([]);
  });

  it('joins by token, sends float16, and resumes after a lost connection and after a crash', { timeout: 120_000 }, async () => {
    const coordinator = await serve(task('interop-token', `teacher: { kind: consensus }
aggregation: { encoding: float16 }
schedule: { rounds: 2, minClients: 2, quorum: 2, roundDeadlineSeconds: 100 }
admission: { mode: token }
`));
    const token = (await readFile(String(coordinator.tokenFile), 'utf8')).trim();

    const stranger = start(client, coordinator.url, '--token', `${token}x`);
    expect(await stranger.exit).toBe(4);
    expect(of(stranger, 'failed')).toMatchObject([{ code: 'token-refused' }]);

    const dropping = start(client, coordinator.url, '--token', token, '--seed', '1', '--chunk', '50', '--drop-after', '2');
    const resuming = [client, coordinator.url, '--token', token, '--seed', '2', '--chunk', '60', '--state', join(folder, 'state')];
    expect(await start(...resuming, '--crash-after', '3').exit).toBe(9);
    const resumed = start(...resuming);

    await expectWhole(dropping);
    expect(of(dropping, 'accepted')[0]).toMatchObject({ resumedAt: 100, duplicate: false });
    await expectWhole(resumed);
    expect(of(resumed, 'accepted')[0]).toMatchObject({ resumedAt: 180, duplicate: false });
    await expectServed(coordinator);
  });

  it.each([
    ['one bit both ways', 'aggregation: { aggregator: majorityVote, encoding: bits1 }\ndistillation: { labelEncoding: bits1 }'],
    ['a cache, of which it remembers nothing', 'distillation: { cache: { rounds: 5 } }'],
    ['some rows', 'distillation: { sharing: { minConfidence: 0.5 } }'],
  ])('takes part in a task with %s', { timeout: 120_000 }, async (_, extra) => {
    const coordinator = await serve(task('interop-algorithms', `${extra}
teacher: { kind: consensus }
schedule: { rounds: 2, minClients: 2, quorum: 2, roundDeadlineSeconds: 100, transferBatch: 15 }
`));
    const clients = [start(client, coordinator.url, '--seed', '1'), start(client, coordinator.url, '--seed', '2')];
    for (const running of clients) await expectWhole(running);
    await expectServed(coordinator);
  });

  it.each([
    ['gaussian noise on logits', 'privacy: { mechanism: gaussian, epsilon: 50 }\naggregation: { aggregator: meanLogits }', 'logits'],
    ['Laplace noise on probabilities', 'privacy: { mechanism: laplace, epsilon: 500 }', 'probabilities'],
  ])('adds %s', { timeout: 120_000 }, async (_, extra, outputKind) => {
    const coordinator = await serve(task('interop-noise', `${extra}
teacher: { kind: learner, model: softmax-regression, epochs: 1 }
schedule: { rounds: 2, minClients: 2, quorum: 2, roundDeadlineSeconds: 100, transferBatch: 15 }
`));
    const clients = [start(client, coordinator.url, '--seed', '1'), start(client, coordinator.url, '--seed', '2')];
    for (const running of clients) {
      await expectWhole(running);
      expect(of(running, 'round')).toMatchObject([{ outputKind, labels: null }, { outputKind, labels: 'logits' }]);
      // The second round's labels, and those of the end.
      expect(of(running, 'distilled')).toMatchObject([{ rows: 15 }, { rows: 40 }]);
    }
    await expectServed(coordinator);
  });

  it('federates with the real client, both in uint8', { timeout: 120_000 }, async () => {
    const coordinator = await serve(task('interop-mixed', `student: { pretrainEpochs: 1, digestEpochs: 1 }
teacher: { kind: consensus }
aggregation: { encoding: uint8 }
schedule: { rounds: 2, minClients: 2, quorum: 2, roundDeadlineSeconds: 100, transferBatch: 15 }
`));
    const independent = start(client, coordinator.url, '--seed', '1');
    const real = start(
      fedstill, 'join', coordinator.url, '--data', 'synthetic:200:1', '--model', 'mlp-small', '--allow', 'none', '--state', join(folder, 'real'), '--json',
    );
    await expectWhole(independent);
    expect(await real.exit, real.output()).toBe(0);
    await expectServed(coordinator);
    expect(of(coordinator, 'contribution').map((line) => line['bytes'])).toEqual(Array(4).fill(of(independent, 'accepted')[0]?.['bytes']));
  });

  it('meets the documented refusals, and is accepted after them', { timeout: 120_000 }, async () => {
    const coordinator = await serve(task('interop-refusals', `teacher: { kind: consensus }
schedule: { rounds: 2, minClients: 3, quorum: 2, roundDeadlineSeconds: 100, transferBatch: 15 }
`));
    const checks = start(join(here, 'negative-checks.mjs'), coordinator.url);
    expect(await checks.exit, checks.output()).toBe(0);
    expect(checks.lines.length).toBeGreaterThan(50);
    expect(checks.lines.filter((line) => line['got'] !== line['expected'])).toEqual([]);
    expect(await coordinator.exit, coordinator.output()).toBe(0);
    expect(of(coordinator, 'client-declined')).toHaveLength(2);
  });
});
