/** `fedstill experiment` as real processes: what a kill loses, and what it does not. */
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it, onTestFinished } from 'vitest';
import { tinyScenario } from '../simulations/experiment/tiny-scenario.ts';
import { fedstill, type Event, type Fedstill } from './support/processes.ts';

const grid = `
experiment: tiny
scenario: tiny.yaml
seeds: [1, 2]
vary:
  grid:
    task.student.digestEpochs: [1, 3]
    task.distillation.temperature: [1, 3]
`;
const pair = 'experiment: pair\nscenario: tiny.yaml\nseeds: [1, 2]\n';
const engine = ['--engine', 'tfjs'];

async function folderWith(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'fedstill-experiment-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return folder;
}

/** Whether a process is there and not merely waiting to be reaped. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : '';
  return !/\) Z /.test(stat);
}

async function untilGone(pids: readonly number[]): Promise<void> {
  while (pids.some(isAlive)) await delay(20);
}

/** Attempts that were begun for each point. */
async function attemptsIn(run: string): Promise<Map<string, number>> {
  const lines = (await readFile(join(run, 'timings.jsonl'), 'utf8')).split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as { event: string; point: string });
  const counts = new Map<string, number>();
  for (const { event, point } of lines) if (event === 'attempt') counts.set(point, (counts.get(point) ?? 0) + 1);
  return counts;
}

const startedPids = (running: Fedstill) => running.events.filter(({ event }) => event === 'point-started').map(({ pid }) => pid as number);
const isOf = (index: number) => (event: Event) => event['index'] === index;

it('repeats nothing that was finished when the experiment was killed, and leaves the same results byte for byte', { timeout: 180_000 }, async () => {
  const cwd = await folderWith({ 'tiny.yaml': tinyScenario, 'sweep.yaml': grid });
  const whole = fedstill(['experiment', 'sweep.yaml', '--run', 'whole', '--workers', '2', ...engine], { cwd });
  expect(await whole.ended).toBe(0);
  expect(whole.out).toContain('Mean ± sample standard deviation over seeds');

  const cut = fedstill(['experiment', 'sweep.yaml', '--run', 'cut', '--workers', '2', '--json', ...engine], { cwd });
  await cut.when('three points are done and another one has begun', () => (cut.events.filter(({ event }) => event === 'point-done').length >= 3 && cut.events.at(-1)!.event === 'point-started' ? true : undefined));
  await cut.kill();
  // Nobody tells the points' processes but the channel that is gone.
  await untilGone(startedPids(cut));
  const finished = (await readdir(join(cwd, 'cut', 'points'))).filter((point) => existsSync(join(cwd, 'cut', 'points', point, 'result.json')));
  expect(finished.length).toBeGreaterThanOrEqual(3);
  expect(finished.length).toBeLessThan(8);
  const begun = await attemptsIn(join(cwd, 'cut'));

  // What became of the sweep's file since does not matter.
  await writeFile(join(cwd, 'sweep.yaml'), 'experiment: another\n');
  const resumed = fedstill(['resume', 'cut', '--json'], { cwd });
  expect(await resumed.ended).toBe(0);
  expect(resumed.events.find(({ event }) => event === 'experiment-started')).toMatchObject({ points: 8, found: finished.length, pending: 8 - finished.length });
  for (const [point, count] of await attemptsIn(join(cwd, 'cut'))) expect(count, point).toBe(finished.includes(point) || !begun.has(point) ? 1 : 2);
  for (const name of ['results.jsonl', 'results.csv']) expect(await readFile(join(cwd, 'cut', name), 'utf8'), name).toBe(await readFile(join(cwd, 'whole', name), 'utf8'));
  expect((await readFile(join(cwd, 'cut', 'results.jsonl'), 'utf8')).trimEnd().split('\n')).toHaveLength(8);

  // Finished now: there is nothing left to run.
  const again = fedstill(['resume', 'cut'], { cwd });
  expect(await again.ended).toBe(0);
  expect(again.err).toContain('8 have a result, 0 to run');
  const listed = fedstill(['ls', '--runs', '.', '--json'], { cwd });
  expect(await listed.ended).toBe(0);
  expect(listed.out).toMatch(/"directory":"cut","kind":"experiment","state":"done: points-done".*"points":8/);
});

it('starts a point once more whose process was killed, reports it when that is killed too, and goes on', { timeout: 120_000 }, async () => {
  const cwd = await folderWith({ 'tiny.yaml': tinyScenario, 'sweep.yaml': pair });
  const running = fedstill(['experiment', 'sweep.yaml', '--run', 'run', '--workers', '1', '--json', ...engine], { cwd });
  const first = await running.event('point-started', isOf(0));
  process.kill(first['pid'] as number, 'SIGKILL');
  expect(await running.event('point-died', isOf(0))).toMatchObject({ attempt: 1, how: 'SIGKILL' });
  const second = await running.event('point-started', (event) => event['attempt'] === 2);
  expect(second['index']).toBe(0);
  process.kill(second['pid'] as number, 'SIGKILL');
  expect(await running.event('point-failed')).toMatchObject({ index: 0, code: 'worker-failed', message: expect.stringContaining('SIGKILL') as string });
  await running.event('point-done', isOf(1));
  expect(await running.ended).toBe(4);
  const lines = (await readFile(join(cwd, 'run', 'results.jsonl'), 'utf8')).trimEnd().split('\n').map((line) => JSON.parse(line) as object);
  expect(lines).toEqual([expect.objectContaining({ index: 0, error: expect.objectContaining({ code: 'worker-failed' }) as object }), expect.objectContaining({ index: 1, outcome: expect.anything() as object })]);

  const resumed = fedstill(['resume', 'run'], { cwd });
  expect(await resumed.ended).toBe(0);
  expect([...(await attemptsIn(join(cwd, 'run'))).values()].sort()).toEqual([1, 3]);
});

it('ends with its points on Ctrl-C, says how to go on, and keeps others out of its folder until then', { timeout: 120_000 }, async () => {
  const cwd = await folderWith({ 'tiny.yaml': tinyScenario, 'sweep.yaml': grid });
  const running = fedstill(['experiment', 'sweep.yaml', '--run', 'run', '--workers', '2', '--json', ...engine], { cwd });
  await running.event('point-started', isOf(1));
  const other = fedstill(['experiment', 'sweep.yaml', '--run', 'run', ...engine], { cwd });
  expect(await other.ended).toBe(2);
  expect(other.err).toContain('state-locked');
  await running.event('point-done');
  running.signalGroup('SIGINT');
  expect(await running.ended).toBe(130);
  expect(running.err).toContain('fedstill resume run');
  await untilGone(startedPids(running));
  expect(JSON.parse(await readFile(join(cwd, 'run', 'run.json'), 'utf8'))).toMatchObject({ kind: 'experiment', state: 'running' });
});

it('lists the points of a dry run, and runs and writes nothing', { timeout: 60_000 }, async () => {
  const cwd = await folderWith({ 'tiny.yaml': tinyScenario, 'sweep.yaml': grid });
  const dry = fedstill(['experiment', 'sweep.yaml', '--dry-run', ...engine], { cwd });
  expect(await dry.ended).toBe(0);
  expect(dry.out).toMatch(/ 0 {2}[0-9a-f]{16} {2}digestEpochs = 1, temperature = 1, seed 1\n/);
  expect(dry.out).toContain('tiny: 8 points; nothing was run.');
  expect(await readdir(cwd)).toEqual(['sweep.yaml', 'tiny.yaml']);
});
