/**
 * The demo over several seeds, as a table: `npm run build && npx tsx bench/demo-seeds.ts [SEED ...]` (default 1 2 3). Each run is the whole demo, with its processes.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunReport } from '../simulations/report/report-data.ts';
import { mean, meanAndSpread } from '../simulations/spread.ts';

const seeds = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [1, 2, 3];
const reports = seeds.map((seed) => {
  const directory = mkdtempSync(join(tmpdir(), 'fedstill-demo-'));
  try {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['dist/simulations/main.js', 'demo', '--seed', String(seed), '--run', join(directory, 'run'), '--json'], { encoding: 'utf8', maxBuffer: 2 ** 26 });
    if (status !== 0) throw new Error(`the demo with seed ${seed} ended with status ${status}: ${stderr}`);
    return JSON.parse(stdout) as RunReport;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

const percent = (share: number | null) => (share === null ? '' : (100 * share).toFixed(1));
const localOnly = (report: RunReport) => mean(report.clients.map((client) => client.localOnly));
const federated = (report: RunReport) => mean(report.clients.map((client) => client.federated));
const rows: [string, (report: RunReport) => number | null][] = [
  ['local training only, mean of the clients', localOnly],
  ['after federation, mean of the clients', federated],
  ['gain', (report) => federated(report) - localOnly(report)],
  ['teacher', (report) => report.teacher.final],
  ['one model on all records (bound)', (report) => report.centralized.accuracy],
  ...(reports[0]?.noisy ?? []).flatMap(({ epsilon, mechanism }, index): [string, (report: RunReport) => number | null][] => {
    const name = mechanism === 'votes' ? `votes of shards in a secure sum, ε = ${epsilon} for a record` : `local Gaussian noise, ε = ${epsilon} for a client`;
    return [
      [`after federation, ${name}`, (report) => mean(report.noisy[index]!.federated)],
      [`its teacher`, (report) => report.noisy[index]!.teacher],
    ];
  }),
];
console.log(`| test accuracy, % | ${seeds.map((seed) => `seed ${seed}`).join(' | ')} | mean ± sd over seeds |`);
console.log(`| --- | ${seeds.map(() => '---:').join(' | ')} | ---: |`);
for (const [name, value] of rows) {
  const values = reports.map(value);
  const known = values.filter((share): share is number => share !== null);
  console.log(`| ${name} | ${values.map(percent).join(' | ')} | ${meanAndSpread(known).replace('+-', '±').replace(' %', '')} |`);
}
const { engine, node } = reports[0]!.machine;
console.log(`\n${cpus().length} x ${cpus()[0]?.model}, Node ${node}, engine ${engine}; ${reports[0]!.clients.length} clients, ${reports[0]!.task.testExamples} test images.`);
