/**
 * Accuracy and bytes of published algorithms by the real protocol, as the table of docs/algorithms-on-the-wire.md: runs the sweep (or goes on with it), then prints.
 * `npx tsx bench/algorithms/on-the-wire.ts [RUN_FOLDER]`, after `npm run build`; default folder: runs/algorithms-on-the-wire.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isSuccess, parseResults, type PointSuccess } from '../../simulations/experiment/result.ts';
import { mean, standardDeviation } from '../../simulations/spread.ts';

const sweep = 'simulations/experiments/algorithms-on-the-wire.yaml';
const folder = process.argv[2] ?? 'runs/algorithms-on-the-wire';
const { status } = spawnSync(process.execPath, ['dist/simulations/main.js', 'experiment', sweep, '--run', folder], { stdio: ['ignore', 'ignore', 'inherit'] });
if (status !== 0) throw new Error(`the experiment ended with status ${String(status)}`);

const byCase = new Map<string, PointSuccess[]>();
for (const result of parseResults(readFileSync(join(folder, 'results.jsonl'), 'utf8'))) {
  if (!isSuccess(result)) throw new Error(`${String(result.case)}, seed ${result.seed}: ${result.error.message}`);
  byCase.set(result.case!, [...(byCase.get(result.case!) ?? []), result]);
}

console.log('| algorithm | students\' accuracy | kB up | kB down |\n| --- | --- | --- | --- |');
for (const [label, results] of byCase) {
  const accuracies = results.map(({ outcome }) => mean(outcome.clients.map(({ accuracy }) => accuracy!)));
  // Of one client in one round; the transfer set, which comes once and before the first round, is not in it.
  const perRound = (bytes: (outcome: PointSuccess['outcome']) => number) => mean(results.map(({ outcome }) => bytes(outcome) / outcome.clients.length / (outcome.rounds.length - 1) / 1000));
  const up = perRound(({ bytesUp, rounds }) => bytesUp - rounds[0]!.bytesUp);
  const down = perRound(({ bytesDown, rounds }) => bytesDown - rounds[0]!.bytesDown);
  const kilobytes = (value: number) => (Number.isFinite(value) && value > 0 ? value.toFixed(1) : '0');
  console.log(`| ${label} | ${(100 * mean(accuracies)).toFixed(1)} ± ${(100 * standardDeviation(accuracies)).toFixed(1)} % | ${kilobytes(up)} | ${kilobytes(down)} |`);
}
