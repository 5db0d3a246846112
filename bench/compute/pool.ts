/**
 * Client-steps a second of a worker pool with one worker and with two: 100 clients of mixed architectures, each with records of its own, train a
 * pass in every round. Both pools live in processes of their own and take turns, so that a machine that slows down slows down both. Prints each
 * pool's median with quartiles, the median of the paired ratios, and each process's largest resident set. Processor time is also given for the main thread
 * alone, which hands out the work: what the workers must wait for, however many there are (from Linux's /proc; elsewhere `n/a`).
 *
 * Below the pools, what this machine gives without any: processes that share nothing, each with an engine in its main thread and its part of the same clients, one after the other in
 * a loop. Two of those over one are as much as two workers could be over one.
 *
 *     npx tsx bench/compute/pool.ts [--clients 100] [--records 320] [--batch 32] [--rounds 7] [--engine auto] [--workers 1,2] [--processes 1,2]
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import type { ComputeEngine, FitOptions, FitReport, TrainingData } from '../../shared/compute/engine.ts';
import { type EnginePreference, selectEngine } from '../../shared/compute/select-engine.ts';
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
    processes: { type: 'string', default: '1,2' },
    /** Of a process that this one starts: its workers, or none; and its part of the clients. */
    child: { type: 'string' },
    part: { type: 'string', default: '0/1' },
  },
});

/** What the pool's workers start with (`worker-calls.ts`). */
const workerHeap = ['--initial-old-space-size=256'];
const architectures = ['mlp-small', 'mlp-medium', 'cnn-small', 'mlp-large', 'cnn-wide'];

interface RoundTime {
  readonly steps: number;
  readonly seconds: number;
  /** Processor seconds, all threads. */
  readonly processor: number;
  /** Of these, the main thread's; NaN where the system does not say. */
  readonly main: number;
  readonly peakMiB: number;
}

/** Processor seconds of the main thread so far, NaN where the system does not say. */
function mainThreadSeconds(): number {
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e9;
  } catch {
    return NaN;
  }
}

/** One process: a round for each message. `workers`: of its pool; 0 for an engine in this thread. */
async function serveRounds(workers: number): Promise<void> {
  const engine = flags.engine as EnginePreference;
  const pool = workers === 0 ? undefined : await openWorkerPool({ workers, engine });
  const alone = pool === undefined ? await selectEngine(engine) : undefined;
  const engineOf = (client: number): ComputeEngine => pool?.ownedBy(`client-${client + 1}`) ?? alone!;
  const records = Number(flags.records);
  const [part, parts] = flags.part.split('/').map(Number) as [number, number];
  const own = Array.from({ length: Number(flags.clients) }, (_, client) => client).filter((client) => client % parts === part);
  const clients = await inTurnOrAtOnce(own, async (client) => {
    // Whoever shares the work with another has each architecture as often.
    const architecture = architectures[Math.floor(client / parts) % architectures.length]!;
    const hard = { examples: gaussianExamples(records, client), labels: Int32Array.from({ length: records }, (_, record) => record % numClasses) };
    return { model: await engineOf(client).open({ kind: 'zoo', name: architecture, exampleShape, numClasses }, client), data: { hard } satisfies TrainingData };
  }, pool === undefined);
  let round = 0;
  const train = async (): Promise<RoundTime> => {
    const options: FitOptions = { epochs: 1, batchSize: Number(flags.batch), seed: ++round, loss: { distance: 'kl', temperature: 2, alpha: 0 }, optimizer: { kind: 'adam', learningRate: 0.001 } };
    const [start, processorStart, mainStart] = [performance.now(), process.cpuUsage(), mainThreadSeconds()];
    const reports = await inTurnOrAtOnce(clients, ({ model, data }): Promise<FitReport> => model.fit(data, options), pool === undefined);
    const seconds = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(processorStart);
    return { steps: reports.reduce((sum, report) => sum + report.steps, 0), seconds, processor: (user + system) / 1e6, main: mainThreadSeconds() - mainStart, peakMiB: process.resourceUsage().maxRSS / 1024 };
  };
  await train();
  await train(); // models have settled where they are computed
  process.on('message', () => void train().then((time) => process.send!(time)));
  process.send!('ready');
}

async function inTurnOrAtOnce<T, R>(items: readonly T[], work: (item: T) => Promise<R>, isInTurn: boolean): Promise<R[]> {
  if (!isInTurn) return Promise.all(items.map(work));
  const results: R[] = [];
  for (const item of items) results.push(await work(item));
  return results;
}

interface Contestant {
  readonly title: string;
  /** What it is compared with: the first of its kind. */
  readonly first: number;
  readonly processes: readonly ChildProcess[];
  readonly rounds: RoundTime[];
}

/** All of a contestant's processes at once: their steps in the time that the slowest took. */
async function oneRound(processes: readonly ChildProcess[]): Promise<RoundTime> {
  const answers = processes.map(async (child) => ((await once(child, 'message')) as [RoundTime])[0]);
  for (const child of processes) child.send('round');
  const times = await Promise.all(answers);
  const sum = (part: keyof RoundTime) => times.reduce((total, time) => total + time[part], 0);
  return { steps: sum('steps'), seconds: Math.max(...times.map(({ seconds }) => seconds)), processor: sum('processor'), main: sum('main'), peakMiB: sum('peakMiB') };
}

async function main(): Promise<void> {
  const start = (child: string[], execArgv: string[] = []) => fork(new URL(import.meta.url).pathname, [...process.argv.slice(2), ...child], { execArgv: [...process.execArgv, ...execArgv] });
  const counts = (list: string) => list.split(',').filter((count) => count !== '').map(Number);
  const pools = counts(flags.workers).map((workers): Contestant => ({ title: `a pool, workers: ${workers}`, first: 0, processes: [start(['--child', String(workers)])], rounds: [] }));
  const alone = counts(flags.processes).map((processes): Contestant => ({ title: `no pool, processes: ${processes}`, first: pools.length, processes: Array.from({ length: processes }, (_, part) => start(['--child', '0', '--part', `${part}/${processes}`], workerHeap)), rounds: [] }));
  const contestants = [...pools, ...alone];
  await Promise.all(contestants.flatMap(({ processes }) => processes.map((child) => once(child, 'message'))));
  const loads: number[] = [];
  for (let round = 0; round < Number(flags.rounds); round++) {
    loads.push(loadavg()[0]!);
    for (const { processes, rounds } of contestants) rounds.push(await oneRound(processes));
  }
  for (const { processes } of contestants) for (const child of processes) child.kill();
  const [{ model: cpu = 'unknown processor' } = {}] = cpus();
  console.log(`${cpu}, ${cpus().length} cores, Node ${process.versions.node}, engine ${flags.engine}, load ${loads.map((load) => load.toFixed(1)).join(' ')}`);
  console.log(`${flags.clients} clients (${architectures.join(', ')}), ${flags.records} records each, batches of ${flags.batch}, Adam; ${flags.rounds} rounds in turns\n`);
  console.log('| what computes | client-steps a second (quartiles) | to the first of its kind (quartiles) | processor seconds a second | processor ms a client-step | of these the main thread | peak resident set |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |');
  for (const { title, first, processes, rounds } of contestants) {
    const rate = ({ steps, seconds }: RoundTime) => steps / seconds;
    const steps = spread(rounds.map(rate));
    const ratio = spread(rounds.map((time, round) => rate(time) / rate(contestants[first]!.rounds[round]!)));
    const median = (part: (time: RoundTime) => number) => spread(rounds.map(part)).median;
    const mainMs = median((time) => (1000 * time.main) / time.steps);
    const show = (value: number) => value.toFixed(0);
    const cells = [
      title,
      `${show(steps.median)} (${steps.quartiles.map(show).join(' to ')})`,
      `${ratio.median.toFixed(2)} (${ratio.quartiles.map((value) => value.toFixed(2)).join(' to ')})`,
      median((time) => time.processor / time.seconds).toFixed(2),
      median((time) => (1000 * time.processor) / time.steps).toFixed(2),
      Number.isNaN(mainMs) ? 'n/a' : mainMs.toFixed(3),
      `${show(Math.max(...rounds.map(({ peakMiB }) => peakMiB)))} MiB${processes.length > 1 ? ' together' : ''}`,
    ];
    console.log(`| ${cells.join(' | ')} |`);
  }
}

await (flags.child === undefined ? main() : serveRounds(Number(flags.child)));
