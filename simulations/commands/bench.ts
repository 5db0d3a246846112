/** `fedstill bench`: how fast this machine computes. */
import { cpus, loadavg } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { enginePreferences, probeEngines, selectEngine, type EnginePreference } from '../../shared/compute/select-engine.ts';
import { FederationError } from '../../shared/errors.ts';
import { packageVersion } from '../../shared/node/version.ts';
import { compare, type Contestant, engineContestant, type Result, threeDigits, type Work, type WorkKind } from '../measure/compute-bench.ts';
import { type BenchModel, benchModels } from '../measure/models.ts';

interface ComputeOptions {
  readonly engines?: string[];
  readonly models: string[];
  readonly batches: number[];
  readonly predict: number;
  readonly rounds: number;
  readonly budgetMs: number;
  readonly json: boolean;
}

/** In plain JavaScript a step of a convolutional model takes seconds: only when asked for. */
const slowEngine = 'tfjs-cpu';

export function benchCommand(): Command {
  return new Command('bench').description('measure how fast this machine computes').addCommand(computeCommand());
}

function computeCommand(): Command {
  return new Command('compute')
    .description('time of a training step, and of a prediction, on each engine')
    .option('--engines <names>', `engines, e.g. onnx,tfjs-wasm (default: all that work here but ${slowEngine})`, list)
    .addOption(new Option('--models <names>', 'models: MLP, CNN and those of the zoo').argParser(list).default(['MLP', 'CNN'], 'MLP,CNN'))
    .addOption(new Option('--batches <sizes>', 'batch sizes of the training steps').argParser((text) => list(text).map(wholeNumber)).default([32, 256], '32,256'))
    .option('--predict <rows>', 'rows of the prediction', wholeNumber, 10_000)
    .option('--rounds <n>', 'rounds, in which the engines take turns', wholeNumber, 5)
    .option('--budget-ms <ms>', 'milliseconds of one engine in one round, about', wholeNumber, 200)
    .option('--json', 'one JSON object instead of a table', false)
    .action(benchCompute);
}

async function benchCompute({ engines, models, batches, predict, rounds, budgetMs, json }: ComputeOptions): Promise<void> {
  const chosen = chooseModels(models);
  const names = engines ?? (await probeEngines()).filter(({ name, available }) => available && name !== slowEngine).map(({ name }) => name);
  const contestants: Contestant[] = [];
  for (const name of names) {
    if (!enginePreferences.includes(name as EnginePreference)) throw new FederationError('engine-unavailable', `There is no engine ${name}.`, { field: 'engines', expected: enginePreferences.join(', '), got: name });
    contestants.push(engineContestant(await selectEngine(name as EnginePreference)));
  }
  const machine = { processor: cpus()[0]?.model ?? 'unknown', cores: cpus().length, node: process.versions.node, load: loadavg()[0]! };
  if (!json) {
    process.stdout.write(`${machine.processor}, ${machine.cores} cores with a load of ${machine.load.toFixed(1)}, Node ${machine.node}; one thread, examples of 28x28, 10 classes\n`);
    process.stdout.write(`medians and quartiles of ${rounds} rounds, in which the engines took turns; Adam on cross-entropy\n\n${row(columns)}\n`);
  }
  const results: Result[] = [];
  try {
    for (const model of chosen) {
      const works: readonly { kind: WorkKind; batch: number }[] = [...batches.map((batch) => ({ kind: 'train' as const, batch })), { kind: 'predict', batch: predict }];
      for (const work of works) {
        const measured = await compare({ ...work, model }, contestants, { rounds, budgetMs });
        results.push(...measured);
        if (!json) for (const result of measured) process.stdout.write(`${row(cells(result))}\n`);
      }
    }
  } finally {
    for (const contestant of contestants) await contestant.dispose();
  }
  if (json) process.stdout.write(`${JSON.stringify({ version: packageVersion, machine, rounds, results: results.map(plain) })}\n`);
}

const columns = ['work', 'model', 'engine', 'ms', 'quartiles', 'per second', 'to first'] as const;
const widths = [14, 20, 12, 9, 18, 11, 9] as const;

function cells({ work, contestant, elapsed: { median, quartiles }, elapsedRatio }: Result): readonly string[] {
  return [describe(work), work.model.name, contestant, threeDigits(median), quartiles.map(threeDigits).join(' to '), perSecond(work, median).toLocaleString('en-US', { maximumFractionDigits: 0 }), `x ${threeDigits(elapsedRatio.median)}`];
}

/** Text to the left, numbers to the right. */
function row(texts: readonly string[]): string {
  return texts.map((text, i) => (i < 3 ? text.padEnd(widths[i]!) : text.padStart(widths[i]!))).join('').trimEnd();
}

function describe({ kind, batch }: Work): string {
  return kind === 'predict' ? `${batch} rows` : `step of ${batch}`;
}

/** Steps, or rows of a prediction. */
function perSecond({ kind, batch }: Work, milliseconds: number): number {
  return ((kind === 'predict' ? batch : 1) * 1000) / milliseconds;
}

/** `stepsPerSecond` of a training, `rowsPerSecond` of a prediction; times in milliseconds. */
function plain({ work, contestant, elapsed, processor, elapsedRatio }: Result): object {
  const rate = perSecond(work, elapsed.median);
  return { work: work.kind, model: work.model.name, batch: work.batch, engine: contestant, milliseconds: elapsed, processorMilliseconds: processor, toFirst: elapsedRatio, ...(work.kind === 'predict' ? { rowsPerSecond: rate } : { stepsPerSecond: rate }) };
}

function chooseModels(names: readonly string[]): readonly BenchModel[] {
  const known = benchModels();
  return names.map((name) => {
    const model = known.find((candidate) => candidate.name === name);
    if (model === undefined) throw new FederationError('config-invalid', `There is no model ${name} to measure.`, { field: 'models', expected: known.map((candidate) => candidate.name).join(', '), got: name });
    return model;
  });
}

function list(text: string): string[] {
  return text.split(',').map((name) => name.trim());
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a whole number of at least 1');
  return value;
}
