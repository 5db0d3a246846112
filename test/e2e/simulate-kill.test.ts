/** `fedstill simulate` under SIGKILL: it goes on from what was computed, and leaves the same bytes. */
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { tinyScenario } from '../simulations/experiment/tiny-scenario.ts';
import { fedstill } from './support/processes.ts';

it('goes on after a kill with what was computed, and leaves the files of a run that nobody killed', { timeout: 120_000 }, async () => {
  const cwd = await mkdtemp(join(tmpdir(), 'fedstill-simulate-'));
  onTestFinished(() => rm(cwd, { recursive: true, force: true }));
  await writeFile(join(cwd, 'tiny.yaml'), tinyScenario.replace('rounds: 2', 'rounds: 6'));
  const args = ['simulate', 'tiny.yaml', '--engine', 'tfjs', '--workers', '2'];

  const whole = fedstill([...args, '--run', 'whole'], { cwd });
  expect(await whole.ended).toBe(0);

  const cut = fedstill([...args, '--run', 'cut', '--json'], { cwd });
  await cut.event('round-released', ({ round }) => round === 3);
  await cut.kill();
  expect(JSON.parse(await readFile(join(cwd, 'cut', 'run.json'), 'utf8'))).toMatchObject({ state: 'running' });
  expect((await stat(join(cwd, 'cut', 'computations'))).size).toBeGreaterThan(0);

  const resumed = fedstill(['resume', 'cut'], { cwd });
  expect(await resumed.ended).toBe(0);
  // Four clients and as many local-only students pretrained and went through rounds, the teacher learned: all of that is known.
  const known = Number(/Goes on: (\d+) computations/.exec(resumed.out)?.[1]);
  expect(known).toBeGreaterThan(20);
  for (const name of ['metrics.jsonl', 'events.jsonl', 'privacy.json']) expect(await readFile(join(cwd, 'cut', name), 'utf8'), name).toBe(await readFile(join(cwd, 'whole', name), 'utf8'));
  expect(existsSync(join(cwd, 'cut', 'computations'))).toBe(false);
});
