/**
 * Time and memory of a simulation against its number of clients: the scenario `thousand-clients`, each number in a process of its own. With `--paired` also the same trainings
 * as a plain loop in PyTorch (bench/peers/pytorch_federation.py), in turns: ours with secure aggregation, ours without, PyTorch with one thread, PyTorch with two. The loop sends no
 * messages and has no cryptography and no noise.
 *
 *     npx tsx bench/simulations/scale.ts [--clients 10,100,1000] [--rounds 5] [--workers 2]
 *         [--paired 100 --repetitions 3 --python path/to/python --contestants secure,sealed,torch1,torch2]
 */
import { execFile, fork } from 'node:child_process';
import { once } from 'node:events';
import { cpus, loadavg } from 'node:os';
import { rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { openWorkerPool } from '../../shared/compute/worker-pool.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { spread } from '../../simulations/measure/statistics.ts';
import { runSimulation } from '../../simulations/run-simulation.ts';
import { workload, writePeerWorkload, type WorkloadOptions } from './workload.ts';

const { values: flags } = parseArgs({
  options: {
    clients: { type: 'string', default: '10,100,1000' },
    rounds: { type: 'string', default: '5' },
    workers: { type: 'string', default: '2' },
    paired: { type: 'string', default: '' },
    repetitions: { type: 'string', default: '3' },
    python: { type: 'string', default: 'python3' },
    contestants: { type: 'string', default: 'secure,sealed,torch1,torch2' },
    child: { type: 'string' },
  },
});

/** Elapsed seconds by what the federation did. */
interface Parts {
  /** Everything before the first round: keys, connections, opening of models. */
  start: number;
  /** Trainings of clients: before the first stage of a round is over, and after the last round. */
  training: number;
  /** The four later stages of secure aggregation, at clients and coordinator. */
  secureAggregation: number;
  /** From the last message of a round until its teacher has learned: unmasking, or opening and averaging. */
  coordinator: number;
}

interface Run {
  readonly seconds: number;
  readonly processorSeconds: number;
  readonly peakMiB: number;
  readonly accuracy: number | null;
  readonly contributions: readonly number[];
  readonly records: number;
  readonly parts: Parts;
}

interface PeerRun extends Pick<Run, 'seconds' | 'processorSeconds' | 'peakMiB' | 'accuracy'> {
  readonly steps: number;
}

async function simulate(options: WorkloadOptions): Promise<Run> {
  const { scenario, data } = await workload(options);
  const started = performance.now();
  const processorStarted = process.cpuUsage();
  const pool = await openWorkerPool({ workers: Number(flags.workers), engine: 'auto' });
  const parts: Parts = { start: 0, training: 0, secureAggregation: 0, coordinator: 0 };
  let [since, doing]: [number, keyof Parts] = [started, 'start'];
  const becomes = (next: keyof Parts, at = performance.now()) => {
    parts[doing] += (at - since) / 1000;
    [since, doing] = [at, next];
  };
  let lastMessage = 0;
  const result = await runSimulation({
    scenario,
    data,
    engine: pool,
    random: (party) => new InsecureSeededRandom(deriveSeed(scenario.task.seed, 'insecure', party)),
    events: {
      emit: ({ party, event, stage }) => {
        if (party !== 'coordinator') return;
        if (event === 'contribution') lastMessage = performance.now();
        else if (event === 'round-opened') becomes('training');
        else if (event === 'stage-opened' && stage === 'shareKeys') becomes('secureAggregation');
        else if (event === 'round-aggregated') {
          becomes('coordinator', lastMessage);
          becomes('training');
        }
      },
    },
  });
  becomes('training');
  const { user, system } = process.cpuUsage(processorStarted);
  await pool.dispose();
  const failed = result.clients.filter(({ error }) => error !== undefined);
  if (failed.length > 0) throw new Error(`${failed[0]!.name} failed: ${failed[0]!.error!.message}`);
  return {
    seconds: (performance.now() - started) / 1000,
    processorSeconds: (user + system) / 1e6,
    peakMiB: process.resourceUsage().maxRSS / 1024,
    accuracy: result.rounds.at(-1)?.teacherAccuracy ?? null,
    contributions: result.rounds.map(({ contributions }) => contributions),
    records: result.clients[0]!.privateRecords,
    parts,
  };
}

/** In a process of its own, so that memory and compiled code are nobody else's. */
async function simulateApart(options: WorkloadOptions): Promise<Run> {
  const child = fork(new URL(import.meta.url).pathname, [...process.argv.slice(2), '--child', JSON.stringify(options)], { execArgv: process.execArgv });
  const [run] = (await Promise.race([once(child, 'message'), once(child, 'exit').then(([code]) => Promise.reject(new Error(`${options.clients} clients: exit status ${String(code)}`)))])) as [Run];
  return run;
}

async function pytorch(file: string, threads: number): Promise<PeerRun> {
  const script = new URL('../peers/pytorch_federation.py', import.meta.url).pathname;
  const { stdout } = await promisify(execFile)(flags.python, [script, file, String(threads)], { env: { ...process.env, OMP_WAIT_POLICY: 'PASSIVE' } });
  return JSON.parse(stdout) as PeerRun;
}

const percent = (accuracy: number | null) => (accuracy === null ? 'n/a' : `${(100 * accuracy).toFixed(1)} %`);
const numbers = (text: string) => text.split(',').filter((part) => part !== '').map(Number);

async function table(): Promise<void> {
  console.log('| clients | records each | rounds | seconds | processor seconds | peak resident set | teacher | contributions by round | start, s | training, s | secure aggregation, s | coordinator, s |');
  console.log('| ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |');
  for (const clients of numbers(flags.clients)) {
    const { seconds, processorSeconds, peakMiB, accuracy, contributions, records, parts } = await simulateApart({ clients, rounds: Number(flags.rounds), isSecure: true });
    const cells = [clients, records, flags.rounds, seconds.toFixed(1), processorSeconds.toFixed(1), `${peakMiB.toFixed(0)} MiB`, percent(accuracy), contributions.join(', '), ...[parts.start, parts.training, parts.secureAggregation, parts.coordinator].map((part) => part.toFixed(1))];
    console.log(`| ${cells.join(' | ')} |`);
  }
}

async function paired(clients: number, repetitions: number): Promise<void> {
  const rounds = Number(flags.rounds);
  const { scenario, data } = await workload({ clients, rounds, isSecure: true });
  const file = writePeerWorkload(scenario, data);
  const known: Readonly<Record<string, readonly [string, () => Promise<Run | PeerRun>]>> = {
    secure: ['ours, secure aggregation', () => simulateApart({ clients, rounds, isSecure: true })],
    sealed: ['ours, without', () => simulateApart({ clients, rounds, isSecure: false })],
    torch1: ['PyTorch loop, 1 thread', () => pytorch(file, 1)],
    torch2: ['PyTorch loop, 2 threads', () => pytorch(file, 2)],
  };
  const names = flags.contestants.split(',');
  const contestants = names.map((name) => known[name]!);
  const runs: (Run | PeerRun)[][] = contestants.map(() => []);
  const loads: number[] = [];
  for (let repetition = 0; repetition < repetitions; repetition++) {
    for (const [i, [, run]] of contestants.entries()) {
      loads.push(loadavg()[0]!);
      const result = await run();
      runs[i]!.push(result);
      console.log(`${names[i]!}: ${result.seconds.toFixed(1)} s, ${result.processorSeconds.toFixed(1)} s of processors`);
    }
  }
  rmSync(dirname(file), { recursive: true });
  const steps = runs.flat().find((run): run is PeerRun => 'steps' in run)?.steps;
  console.log(`\n${clients} clients, ${rounds} rounds,${steps === undefined ? '' : ` ${steps} training steps,`} ${repetitions} times in turns, load ${loads.map((load) => load.toFixed(1)).join(' ')}\n`);
  console.log('| | seconds (quartiles) | processor seconds | peak resident set | teacher | its time / ours with secure aggregation | its time / ours without |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |');
  for (const [i, [name]] of contestants.entries()) {
    const of = runs[i]!;
    const time = spread(of.map(({ seconds }) => seconds));
    const ratios = ['secure', 'sealed'].map((to) => {
      const other = runs[names.indexOf(to)];
      if (other === undefined) return '';
      const ratio = spread(of.map(({ seconds }, repetition) => seconds / other[repetition]!.seconds));
      return `${ratio.median.toFixed(2)} (${ratio.quartiles.map((value) => value.toFixed(2)).join(' to ')})`;
    });
    const cells = [name, `${time.median.toFixed(1)} (${time.quartiles.map((value) => value.toFixed(1)).join(' to ')})`, spread(of.map(({ processorSeconds }) => processorSeconds)).median.toFixed(1), `${Math.max(...of.map(({ peakMiB }) => peakMiB)).toFixed(0)} MiB`, percent(of[0]!.accuracy), ...ratios];
    console.log(`| ${cells.join(' | ')} |`);
  }
}

if (flags.child !== undefined) {
  const run = await simulate(JSON.parse(flags.child) as WorkloadOptions);
  process.send!(run);
  process.disconnect();
} else {
  const [{ model: cpu = 'unknown processor' } = {}] = cpus();
  console.log(`${cpu}, ${cpus().length} cores, Node ${process.versions.node}, ${flags.workers} workers, load ${loadavg()[0]!.toFixed(1)}, seed 1\n`);
  if (numbers(flags.clients).length > 0) await table();
  for (const clients of numbers(flags.paired)) await paired(clients, Number(flags.repetitions));
}
