/** `fedstill trust`: how far a teacher and its students can be trusted, measured on labelled examples that none of them was trained on. */
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { enginePreferences, type EnginePreference } from '../../shared/compute/select-engine.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { FederationError } from '../../shared/errors.ts';
import { loadDataSource, readDataArgument } from '../../shared/node/data-source.ts';
import { freeRunDirectory } from '../../shared/node/run-folder.ts';
import { formatCommand, printLine, readFailure } from '../../shared/node/terminal.ts';
import { packageVersion } from '../../shared/node/version.ts';
import { selectLabelled, type OutputKind } from '../../shared/types/matrix.ts';
import type { TrustReport } from '../report/trust-data.ts';
import { renderTrustPage } from '../report/trust-page.ts';
import { renderTrustTable } from '../report/trust-table.ts';
import { findModel, findModelsOfRun, type FoundModel } from '../trust/find-models.ts';
import { measureTrust, summarizeModel, type TestData } from '../trust/measure.ts';
import { interruptible } from './interruptible.ts';

export interface TrustOptions {
  readonly run?: string;
  readonly teacher?: string;
  readonly data?: string;
  readonly examples: number;
  readonly inputRange?: readonly [number, number];
  readonly baseline: boolean;
  readonly modelOutput: OutputKind | 'auto';
  readonly epsilons: readonly number[];
  readonly pgdSteps: number;
  readonly bins: number;
  readonly pictures: number;
  readonly seed: number;
  readonly engine: EnginePreference;
  readonly out?: string;
  readonly json: boolean;
}

function wholeNumber(lowest: number, highest: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === '' || !Number.isInteger(value) || value < lowest || value > highest) throw new InvalidArgumentError(`expected a whole number from ${lowest} to ${highest}`);
    return value;
  };
}

function parseEpsilons(text: string): number[] {
  const values = text.split(',').map((part) => (part.trim() === '' ? NaN : Number(part)));
  if (values.length > 20 || !values.every((value, i) => value > 0 && value <= 1 && (i === 0 || value > values[i - 1]!))) throw new InvalidArgumentError('expected at most 20 rising numbers above 0 and up to 1, e.g. 0.05,0.1');
  return values;
}

function parseRange(text: string): readonly [number, number] {
  const [low, high, ...rest] = text.split(',').map((part) => (part.trim() === '' ? NaN : Number(part)));
  if (rest.length > 0 || !Number.isFinite(low) || !Number.isFinite(high) || low! >= high!) throw new InvalidArgumentError('expected the smallest and the largest value of an input, e.g. 0,1');
  return [low!, high!];
}

export function trustCommand(): Command {
  return new Command('trust')
    .description('calibration, fairness over classes, fidelity, explanations, robustness and cost of a teacher and its students')
    .argument('[models...]', 'students: folders with model.json, run folders of serve, state folders of join')
    .option('--run <dir>', 'take the teacher and all students of this run (npm start, serve)')
    .option('--teacher <model>', 'what the students are compared with; named as they are (default: the teacher of --run)')
    .option('--data <source>', 'labelled examples that no model was trained on: mnist, fashion-mnist, IDX folder, FILE.csv#LABELCOLUMN, FILE.yaml (docs/data.md), synthetic:SIZE:SEED; the test split unless mnist:train is asked for (default with --run: its data/test)')
    .option('--examples <n>', 'how many of them, drawn by the seed', wholeNumber(1, 1_000_000), 500)
    .option('--input-range <low,high>', 'what an input can be; an epsilon is a share of it (default: 0,1 where that holds all inputs, else their smallest and largest)', parseRange)
    .option('--baseline', 'also the students that never distilled, of a run whose clients joined with --baseline', false)
    .addOption(new Option('--model-output <kind>', 'what the last layer of a model gives; auto = probabilities after a softmax, else logits').choices(['auto', 'logits', 'probabilities']).default('auto'))
    .addOption(new Option('--epsilons <shares>', 'sizes of the attacks, as shares of the input range').argParser(parseEpsilons).default([0.01, 0.02, 0.05, 0.1, 0.2], '0.01,0.02,0.05,0.1,0.2'))
    .option('--pgd-steps <n>', 'steps of the stronger attack', wholeNumber(1, 1000), 10)
    .option('--bins <n>', 'bins of the reliability diagram', wholeNumber(2, 100), 15)
    .option('--pictures <n>', 'examples that are shown with their saliency maps; 0 keeps every example out of the report', wholeNumber(0, 50), 6)
    .option('--seed <n>', 'draws examples and attack starts', wholeNumber(0, 0xffff_ffff), 1)
    .addOption(new Option('--engine <name>', 'compute engine whose latency is measured').choices([...enginePreferences]).default('auto'))
    .option('--out <dir>', 'folder for trust.html and trust.json (default: RUN/trust, or runs/trust-<number>)')
    .option('--json', 'the report as one JSON object instead of the table', false)
    .action(trust);
}

/** Measures, prints, and leaves `trust.html` and `trust.json`. */
async function trust(students: readonly string[], options: TrustOptions): Promise<void> {
  const say = (line: string) => process.stderr.write(`${line}\n`);
  const models = await gatherModels(students, options);
  const data = await loadTestData(models[0]!, options);
  const out = options.out ?? (options.run === undefined ? freeRunDirectory('trust') : join(options.run, 'trust'));
  await makeOut(out); // before the work, not after it
  const stop = interruptible();
  try {
    say(`${models.length} ${models.length === 1 ? 'model' : 'models'}, ${data.examples.count} of ${data.available} examples of ${data.source}`);
    const measured = await measureTrust(models, data, options, { say, signal: stop.signal });
    const report: TrustReport = { format: 'fedstill-trust/1', createdAt: new Date().toISOString(), version: packageVersion, command: commandLine(students, options), ...measured };
    await writeOut(join(out, 'trust.json'), `${JSON.stringify(report)}\n`);
    await writeOut(join(out, 'trust.html'), renderTrustPage(report));
    if (options.json) printLine(JSON.stringify(report));
    else {
      process.stdout.write(renderTrustTable(report, process.stdout.columns ?? 100));
      if (report.pictures.length > 0) printLine(`The report shows ${report.pictures.length} of the examples; --pictures 0 leaves them out.`);
      printLine(`Report: ${join(out, 'trust.html')} (opens in any browser, needs no network); data: ${join(out, 'trust.json')}`);
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    say('Stopped. Nothing was written; run the same command again.');
    process.exitCode = stop.exitStatus();
  } finally {
    stop.release();
  }
}

/** The teacher first; every name once. */
async function gatherModels(students: readonly string[], { run, teacher, baseline }: TrustOptions): Promise<FoundModel[]> {
  if (students.length === 0 && run === undefined && teacher === undefined) {
    throw new FederationError('usage-invalid', 'No model is named.', { field: 'models', expected: 'at least one model, or --run', got: 'nothing', next: 'Try `fedstill trust --run runs/demo-1` after `npm start`; all options: fedstill trust --help' });
  }
  const ofRun = run === undefined ? [] : await findModelsOfRun(run, { withBaselines: baseline });
  const found = [
    ...(teacher === undefined ? ofRun.filter(({ role }) => role === 'teacher') : [await findModel(teacher, 'teacher', '--teacher')]),
    ...ofRun.filter(({ role }) => role !== 'teacher'),
  ];
  for (const path of students) found.push(await findModel(path, 'student', 'models'));
  const seen = new Map<string, number>();
  return found.map((model) => {
    const count = (seen.get(model.name) ?? 0) + 1;
    seen.set(model.name, count);
    return count === 1 ? model : { ...model, name: `${model.name} (${count})` };
  });
}

async function loadTestData(first: FoundModel, { data, run, examples, seed, modelOutput, inputRange }: TrustOptions): Promise<TestData> {
  const ofRun = run === undefined ? undefined : join(run, 'data', 'test');
  const source = data ?? (ofRun !== undefined && existsSync(ofRun) ? ofRun : undefined);
  if (source === undefined) throw new FederationError('usage-invalid', 'There is nothing to measure the models on.', { field: '--data', expected: 'labelled examples that no model was trained on', got: 'nothing', next: 'Name them, e.g. --data mnist or --data path/to/folder; all options: fedstill trust --help' });
  const { exampleShape, numClasses } = await summarizeModel(first, modelOutput);
  const parsed = await readDataArgument(source);
  const isSplitNamed = /:(train|test)$|\.ya?ml$/i.test(source);
  const asked = 'split' in parsed && !isSplitNamed ? { ...parsed, split: 'test' as const } : parsed;
  const all = await loadDataSource(asked, { baseDir: process.cwd(), exampleShape, numClasses, needLabels: true });
  if (all.examples.count === 0) throw new FederationError('data-invalid', `${source} holds no examples.`, { field: '--data', expected: 'at least one example', got: 'none', next: 'Name other data.' });
  const available = all.examples.count;
  const positions = available <= examples ? Uint32Array.from({ length: available }, (_, i) => i) : new SeededGenerator(seed).permutation(available).slice(0, examples).sort();
  const chosen = selectLabelled({ examples: all.examples, labels: all.labels!, numClasses }, positions);
  const name = asked.source === 'mnist' || asked.source === 'fashion-mnist' ? `${asked.source}:${asked.split}` : source;
  return { ...chosen, source: name, positions, available, inputRange: rangeOf(all.examples.values, inputRange) };
}

/** Throws `usage-invalid` when the named range does not hold all inputs: an attack would begin with a jump. */
function rangeOf(values: Float32Array, named: readonly [number, number] | undefined): TestData['inputRange'] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (named !== undefined) {
    if (low >= named[0] && high <= named[1]) return { low: named[0], high: named[1] };
    throw new FederationError('usage-invalid', 'Some inputs are outside the named range.', { field: '--input-range', expected: `a range that holds ${low} to ${high}`, got: named.join(','), next: 'Widen it, or leave the option out.' });
  }
  return low >= 0 && high <= 1 ? { low: 0, high: 1 } : { low, high };
}

async function makeOut(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true }).catch((error: unknown) => {
    throw cannotWrite(directory, error);
  });
}

async function writeOut(path: string, text: string): Promise<void> {
  await writeFile(path, text).catch((error: unknown) => {
    throw cannotWrite(path, error);
  });
}

function cannotWrite(path: string, error: unknown): FederationError {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOSPC' || code === 'EDQUOT') return new FederationError('disk-full', `There is no space left for ${path}.`, { field: '--out', next: 'Free some space and try again.', cause: error });
  return new FederationError('file-unreadable', `${path} cannot be written.`, { field: '--out', expected: 'a folder that can be written', got: code === 'EEXIST' ? 'a file of this name' : readFailure(error), next: 'Name another folder with --out.', cause: error });
}

/** What repeats the report, without what does not change it. */
function commandLine(students: readonly string[], { run, teacher, data, examples, inputRange, baseline, modelOutput, epsilons, pgdSteps, bins, pictures, seed }: TrustOptions): string {
  const flag = (name: string, value: string | undefined) => (value === undefined ? [] : [`--${name}`, value]);
  return formatCommand([
    ...['fedstill', 'trust', ...students, ...flag('run', run), ...flag('teacher', teacher), ...flag('data', data), '--examples', String(examples), ...flag('input-range', inputRange?.join(','))],
    ...(baseline ? ['--baseline'] : []),
    ...(modelOutput === 'auto' ? [] : ['--model-output', modelOutput]),
    ...['--epsilons', epsilons.join(','), '--pgd-steps', String(pgdSteps), '--bins', String(bins), '--pictures', String(pictures), '--seed', String(seed)],
  ]);
}
