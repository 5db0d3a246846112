/**
 * Client-steps a second of a worker pool with one worker and with two: 100 clients of mixed architectures, each with records of its own, train a
 * pass in every round. Both pools live in processes of their own and take turns, so that a machine that slows down slows down both. Prints each
 * pool's median with quartiles, the median of the paired ratios, and each process's largest resident set. Processor time is also given for the main thread
 * alone, which hands out the work: what the workers must wait for, however many there are (from Linux's /proc; elsewhere `n/a`).
 *
 *     npx tsx bench/compute/pool.ts [--clients 100] [--records 320] [--batch 32] [--rounds 7] [--engine auto] [--workers 1,2]
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import type { FitOptions } from '../../shared/compute/engine.ts';
import type { EnginePreference } from '../../shared/compute/select-engine.ts';
import { openWorkerPool } from '../../shared/compute/worker-pool.ts';
import { exampleShape, gaussianExamples, numClasses } from '../../simulations/measure/models.ts';
import { spread } from '../../simulations/measure/statistics.ts';

const { values: flags } = parseArgs({
  options: {
    clients: { type: 'string', default: '100' },
    records: { type: 'string', default: '320' },
    batch: { type: 'string', default: '32' },
    rounds: { type: 'string', default: '7' },
    engine: { type: 'string', default: 'auto' },
    workers: { type: 'string', default: '1,2' },
    child: { type: 'string' },
  },
});

const architectures = ['mlp-small', 'mlp-medium', 'cnn-small', 'mlp-large', 'cnn-wide'];

interface RoundTime {
  readonly stepsPerSecond: number;
  /** Processor seconds of the whole process over elapsed seconds: how much of the machine it got. */
  readonly cores: number;
  /** Processor milliseconds of one client-step, all threads: what stays the same when others are busy too. */
  readonly processorMs: number;
  /** Of these, the main thread's; NaN where the system does not say. */
  readonly mainMs: number;
  readonly peakMiB: number;
}

/** Processor milliseconds of the main thread so far, NaN where the system does not say. */
function mainThreadMs(): number {
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6;
  } catch {
    return NaN;
  }
}

/** One pool: a round for each message. */
async function serveRounds(workers: number): Promise<void> {
  const pool = await openWorkerPool({ workers, engine: flags.engine as EnginePreference });
  const records = Number(flags.records);
  const clients = await Promise.all(
    Array.from({ length: Number(flags.clients) }, async (_, i) => ({
      model: await pool.ownedBy(`client-${i + 1}`).open({ kind: 'zoo', name: architectures[i % architectures.length]!, exampleShape, numClasses }, i),
      hard: { examples: gaussianExamples(records, i), labels: Int32Array.from({ length: records }, (_, record) => record % numClasses) },
    })),
  );
  let round = 0;
  const train = async (): Promise<RoundTime> => {
    const options: FitOptions = { epochs: 1, batchSize: Number(flags.batch), seed: ++round, loss: { distance: 'kl', temperature: 2, alpha: 0 }, optimizer: { kind: 'adam', learningRate: 0.001 } };
    const [start, processorStart, mainStart] = [performance.now(), process.cpuUsage(), mainThreadMs()];
    const reports = await Promise.all(clients.map(({ model, hard }) => model.fit({ hard }, options)));
    const elapsed = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(processorStart);
    const steps = reports.reduce((sum, report) => sum + report.steps, 0);
    return { stepsPerSecond: steps / elapsed, cores: (user + system) / 1e6 / elapsed, processorMs: (user + system) / 1000 / steps, mainMs: (mainThreadMs() - mainStart) / steps, peakMiB: process.resourceUsage().maxRSS / 1024 };
  };
  await train();
  await train(); // models have settled where they are computed
  process.on('message', () => void train().then((time) => process.send!(time)));
  process.send!('ready');
}

async function main(): Promise<void> {
  const counts = flags.workers.split(',').map(Number);
  const pools = counts.map((workers) => fork(new URL(import.meta.url).pathname, [...process.argv.slice(2), '--child', String(workers)], { execArgv: process.execArgv }));
  for (const pool of pools) await once(pool, 'message');
  const times: RoundTime[][] = counts.map(() => []);
  const loads: number[] = [];
  for (let round = 0; round < Number(flags.rounds); round++) {
    loads.push(loadavg()[0]!);
    for (const [i, pool] of pools.entries()) {
      pool.send('round');
      times[i]!.push(((await once(pool, 'message')) as [RoundTime])[0]);
    }
  }
  for (const pool of pools) pool.kill();
  const [{ model: cpu = 'unknown processor' } = {}] = cpus();
  console.log(`${cpu}, ${cpus().length} cores, Node ${process.versions.node}, engine ${flags.engine}, load ${loads.map((load) => load.toFixed(1)).join(' ')}`);
  console.log(`${flags.clients} clients (${architectures.join(', ')}), ${flags.records} records each, batches of ${flags.batch}, Adam; ${flags.rounds} rounds in turns\n`);
  console.log('| workers | client-steps a second (quartiles) | to one worker (quartiles) | processor seconds a second | processor ms a client-step | of these the main thread | peak resident set |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: |');
  for (const [i, series] of times.entries()) {
    const steps = spread(series.map(({ stepsPerSecond }) => stepsPerSecond));
    const ratio = spread(series.map(({ stepsPerSecond }, round) => stepsPerSecond / times[0]![round]!.stepsPerSecond));
    const mainMs = Number.isNaN(series[0]!.mainMs) ? 'n/a' : spread(series.map((time) => time.mainMs)).median.toFixed(3);
    const show = (value: number) => value.toFixed(0);
    console.log(
      `| ${counts[i]} | ${show(steps.median)} (${steps.quartiles.map(show).join(' to ')}) | ${ratio.median.toFixed(2)} (${ratio.quartiles.map((value) => value.toFixed(2)).join(' to ')}) | ${spread(series.map(({ cores }) => cores)).median.toFixed(2)} | ${spread(series.map(({ processorMs }) => processorMs)).median.toFixed(2)} | ${mainMs} | ${Math.max(...series.map(({ peakMiB }) => peakMiB)).toFixed(0)} MiB |`,
    );
  }
}

await (flags.child === undefined ? main() : serveRounds(Number(flags.child)));
