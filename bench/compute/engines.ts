/**
 * Time of a training step on each engine, measured in turns: one round runs every engine once, so that a machine that slows
 * down for a while slows down all of them. Prints a table with medians of elapsed time (with quartiles) and of processor time,
 * and the median over the rounds of the ratio to the first engine. The ratio is that of processor time: every contestant has
 * one thread, and on a shared machine elapsed time also counts what others do.
 *
 *     npx tsx bench/compute/engines.ts [--engines onnx,tfjs-wasm] [--models MLP,CNN,...] [--batches 32,256] [--rounds 7] [--budget-ms 400] [--pytorch python]
 *
 * `--pytorch`: a Python with PyTorch in it; `bench/peers/pytorch.py` then takes part in every round for MLP and CNN, on one thread.
 */
import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import type { ComputeEngine, FitOptions, OpenModel, TrainingData } from '../../shared/compute/engine.ts';
import { type EnginePreference, enginePreferences, selectEngine } from '../../shared/compute/select-engine.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { FederationError } from '../../shared/errors.ts';
import { type Examples, exampleSize } from '../../shared/types/matrix.ts';
import { type BenchModel, benchModels, exampleShape, numClasses } from './models.ts';
import { spread } from './statistics.ts';

const { values: flags } = parseArgs({
  options: {
    engines: { type: 'string', default: 'onnx,tfjs-wasm' },
    models: { type: 'string' },
    batches: { type: 'string', default: '32,256' },
    rounds: { type: 'string', default: '7' },
    'budget-ms': { type: 'string', default: '400' },
    pytorch: { type: 'string' },
  },
});

/** Milliseconds of one step. */
interface StepTime {
  readonly elapsed: number;
  readonly processor: number;
}

/** Measures a step over about the time that one contestant has in a round. */
interface Contestant {
  readonly name: string;
  /** Undefined when this contestant has no such model. */
  readonly prepare: (model: BenchModel, batchSize: number) => Promise<Measurement | undefined>;
  readonly dispose: () => Promise<void>;
}

interface Measurement {
  readonly run: () => Promise<StepTime>;
  readonly dispose: () => Promise<void>;
}

const exampleCount = 2048;
const examples = randomExamples(exampleCount);
const data: TrainingData = { hard: { examples, labels: Int32Array.from({ length: exampleCount }, (_, i) => i % numClasses) } };

function randomExamples(count: number): Examples {
  const generator = new SeededGenerator(1);
  return { count, shape: exampleShape, values: Float32Array.from({ length: count * exampleSize(exampleShape) }, () => generator.gaussian()) };
}

/** An engine in this thread, trained with Adam on one epoch of as many examples as the steps need. */
function engineContestant(engine: ComputeEngine, budgetMs: number): Contestant {
  return {
    name: engine.name,
    prepare: async ({ source }, batchSize) => {
      const model = await engine.open(source, 1);
      await timedSteps(model, batchSize, 2);
      const { elapsed: warmUp } = await timedSteps(model, batchSize, 4);
      const steps = Math.max(1, Math.min(Math.floor(budgetMs / Math.max(warmUp, 0.01)), 4000));
      return { run: () => timedSteps(model, batchSize, steps), dispose: () => model.dispose() };
    },
    dispose: () => engine.dispose(),
  };
}

/** Milliseconds a step, with everything that `fit` does: shuffling, cutting batches, the optimizer. */
async function timedSteps(model: OpenModel, batchSize: number, steps: number): Promise<StepTime> {
  const stepsInPass = exampleCount / batchSize;
  const epochs = Math.max(1, Math.floor(steps / stepsInPass));
  const options: FitOptions = { epochs, batchSize, seed: 1, loss: { distance: 'kl', temperature: 2, alpha: 0 }, optimizer: { kind: 'adam', learningRate: 0.001 } };
  const part = steps < stepsInPass ? firstExamples(steps * batchSize) : data;
  const [start, processorStart] = [performance.now(), process.cpuUsage()];
  const report = await model.fit(part, options);
  const { user, system } = process.cpuUsage(processorStart);
  return { elapsed: (performance.now() - start) / report.steps, processor: (user + system) / 1000 / report.steps };
}

function firstExamples(count: number): TrainingData {
  const { hard } = data;
  return { hard: { examples: { ...examples, count, values: examples.values.subarray(0, count * exampleSize(exampleShape)) }, labels: hard!.labels.subarray(0, count) } };
}

/** PyTorch in a process of its own for each measurement: its threads do not disturb the others between. */
function pytorchContestant(python: string): Contestant {
  return {
    name: 'pytorch',
    prepare: async ({ name }, batchSize) => (name === 'MLP' || name === 'CNN' ? { run: async () => pytorchStep(python, name, batchSize), dispose: async () => {} } : undefined),
    dispose: async () => {},
  };
}

function pytorchStep(python: string, model: string, batchSize: number): StepTime {
  const script = new URL('../peers/pytorch.py', import.meta.url).pathname;
  const { stdout, stderr, status } = spawnSync(python, [script, model, String(batchSize)], { encoding: 'utf8' });
  if (status !== 0) throw new FederationError('internal', `bench/peers/pytorch.py failed: ${stderr.trim().split('\n').at(-1)}`);
  const [elapsed, processor] = stdout.trim().split(' ').map(Number);
  return { elapsed: elapsed!, processor: processor! };
}

async function main(): Promise<void> {
  const rounds = Number(flags.rounds);
  const contestants: Contestant[] = [];
  for (const name of flags.engines.split(',')) {
    if (!enginePreferences.includes(name as EnginePreference)) throw new FederationError('engine-unavailable', `There is no engine ${name}.`, { field: 'engines', expected: enginePreferences.join(', '), got: name });
    contestants.push(engineContestant(await selectEngine(name as EnginePreference), Number(flags['budget-ms'])));
  }
  if (flags.pytorch !== undefined) contestants.push(pytorchContestant(flags.pytorch));
  const [{ model: cpu = 'unknown processor' } = {}] = cpus();
  console.log(`${cpu}, ${cpus().length} cores, Node ${process.versions.node}, 1 thread; Adam, cross-entropy, 28x28x1, 10 classes; ${rounds} rounds in turns`);
  const [first, ...others] = contestants.map(({ name }) => name);
  const columns = ['model', 'batch', ...contestants.map(({ name }) => `${name}: ms a step (quartiles), processor ms`), ...others.map((name) => `${name} / ${first}`)];
  console.log(`\n${row(columns)}\n${row(columns.map((_, i) => (i === 0 ? '---' : '---:')))}`);
  const wanted = flags.models?.split(',');
  for (const model of await benchModels()) {
    if (wanted !== undefined && !wanted.includes(model.name)) continue;
    for (const batchSize of flags.batches.split(',').map(Number)) await measure(model, batchSize, contestants, rounds);
  }
  for (const contestant of contestants) await contestant.dispose();
}

async function measure(model: BenchModel, batchSize: number, contestants: readonly Contestant[], rounds: number): Promise<void> {
  const measurements: (Measurement | undefined)[] = [];
  for (const contestant of contestants) measurements.push(await contestant.prepare(model, batchSize));
  const times: StepTime[][] = contestants.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, measurement] of measurements.entries()) if (measurement !== undefined) times[i]!.push(await measurement.run());
  }
  for (const measurement of measurements) await measurement?.dispose();
  const [first, ...others] = times;
  // The ratio of each round, then the median: a round that was slow as a whole counts as much as any.
  const ratios = others.map((series) => (series.length === 0 ? '-' : spread(series.map(({ processor }, round) => processor / first![round]!.processor)).median.toFixed(1)));
  console.log(row([model.name, String(batchSize), ...times.map((series) => (series.length === 0 ? '-' : cell(series))), ...ratios]));
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}

function cell(series: readonly StepTime[]): string {
  const { median, quartiles } = spread(series.map(({ elapsed }) => elapsed));
  return `${show(median)} (${quartiles.map(show).join(' to ')}), ${show(spread(series.map(({ processor }) => processor)).median)}`;
}

function show(milliseconds: number): string {
  return milliseconds.toFixed(milliseconds < 10 ? 2 : 1);
}

await main();
