/**
 * Trains a student on public examples whose labels were guessed: first on the surest, then in rounds on those of which it has become sure
 * itself, each time on freshly distorted copies. Labels are taken from predictions on distorted copies too, so that a label is one that
 * survives distortion. The mask by confidence and the two views are FixMatch's (Sohn et al. 2020), the rounds are self-training with
 * pseudo-labels (Lee 2013); the first labels stay a second opinion in every round, which keeps a student from following its own mistakes.
 *
 * Post-processing: no private record is seen. The student learns nothing about a record that the labels do not tell.
 */
import type { ComputeEngine, FitReport, ModelSource, OpenModel } from '../compute/engine.ts';
import { deriveSeed, SeededGenerator } from '../datasets/seeded-generator.ts';
import { FederationError } from '../errors.ts';
import { selectExamples, type Examples, type Matrix } from '../types/matrix.ts';
import { augment, canAugment, defaultAugmentation, type AugmentationRanges } from './augmentation.ts';
import { agreement, confidentRows, pseudoLabelsOf, surestRows, type PseudoLabels } from './pseudo-labels.ts';
import { softmax } from './temperature.ts';

/** Declared constants: found on splits of MNIST's training set, never on what is being labelled. */
export interface SemiSupervisedOptions {
  /** Share of the examples in the first training, those with the surest labels, in (0, 1]. */
  readonly firstShare: number;
  /** Passes of the first training. */
  readonly firstPasses: number;
  /** Rounds of new labels and more training, >= 0. */
  readonly rounds: number;
  /** Passes of each round. */
  readonly passes: number;
  /** An example is trained on in a round when its label is at least this sure. */
  readonly confidence: number;
  /** Distorted copies whose predictions are averaged for a label, >= 1. */
  readonly views: number;
  readonly batchSize: number;
  /** Adam's, at the start of the first training; it falls to 0 along half a cosine in each training. Rounds start at three quarters of it. */
  readonly learningRate: number;
  /** For images; other examples are trained on as they are. */
  readonly augmentation: AugmentationRanges;
}

export const defaultSemiSupervised: SemiSupervisedOptions = {
  firstShare: 0.9,
  firstPasses: 16,
  rounds: 3,
  passes: 8,
  confidence: 0.9,
  views: 4,
  batchSize: 64,
  learningRate: 0.002,
  augmentation: defaultAugmentation,
};

/** Shares of the uniform distribution mixed into each opinion before they are multiplied: a graph of neighbors is the less certain one. */
const studentDoubt = 0.1;
const graphDoubt = 0.3;
/** Passes for which distorted copies are in memory at a time. */
const passesAtATime = 2;

export interface SemiSupervisedTask {
  readonly engine: ComputeEngine;
  readonly source: ModelSource;
  /** Public; not labelled. */
  readonly examples: Examples;
  /** What is believed of them so far, e.g. `spreadVotes`. */
  readonly labels: PseudoLabels;
  readonly options?: Partial<SemiSupervisedOptions>;
  /** Of weights, shuffles and distortions: an integer in [0, 2^32). */
  readonly seed: number;
  readonly signal?: AbortSignal;
  /** Called after each training; `round` 0 is the first. */
  readonly onRound?: (progress: { readonly round: number; readonly examples: number; readonly model: OpenModel }) => void | Promise<void>;
}

export interface SemiSupervisedStudent {
  readonly model: OpenModel;
  /** The last labels: the student's and the first ones in agreement, for every example. */
  readonly labels: PseudoLabels;
  /** Examples trained on, in the first training and in each round. */
  readonly trainedOn: readonly number[];
}

/** Opens a new model and trains it. Throws `signal.reason` when aborted. The caller disposes of the model. */
export async function trainSemiSupervised(task: SemiSupervisedTask): Promise<SemiSupervisedStudent> {
  const { engine, source, examples, labels: first, seed, signal } = task;
  const options = { ...defaultSemiSupervised, ...task.options };
  checkOptions(options);
  if (first.labels.length !== examples.count) {
    throw new FederationError('data-invalid', 'Every public example needs a first label.', { field: 'labels', expected: `${examples.count} rows`, got: String(first.labels.length) });
  }
  const model = await engine.open(source, deriveSeed(seed, 'student'));
  try {
    const trainedOn: number[] = [];
    const train = async (round: number, labels: PseudoLabels, rows: Uint32Array, passes: number, learningRate: number): Promise<void> => {
      // Nobody is sure of anything: there is nothing to train on, which a later round may change.
      if (rows.length > 0) await fitPasses(model, { examples, labels, rows, passes, learningRate, options, seed: deriveSeed(seed, 'training', round), signal });
      trainedOn.push(rows.length);
      await task.onRound?.({ round, examples: rows.length, model });
    };
    const current = async (round: number): Promise<PseudoLabels> =>
      agreement({ labels: await ownLabels(model, examples, options, deriveSeed(seed, 'views', round), signal), doubt: studentDoubt }, { labels: first, doubt: graphDoubt });
    await train(0, first, surestRows(first, options.firstShare), options.firstPasses, options.learningRate);
    for (let round = 1; round <= options.rounds; round++) {
      const labels = await current(round);
      await train(round, labels, confidentRows(labels, options.confidence), options.passes, 0.75 * options.learningRate);
    }
    return { model, labels: await current(options.rounds + 1), trainedOn };
  } catch (error) {
    await model.dispose();
    throw error;
  }
}

interface Training {
  readonly examples: Examples;
  readonly labels: PseudoLabels;
  readonly rows: Uint32Array;
  readonly passes: number;
  readonly learningRate: number;
  readonly options: SemiSupervisedOptions;
  readonly seed: number;
  readonly signal: AbortSignal | undefined;
}

/** Passes over distorted copies, new ones in each, a few passes at a time. */
async function fitPasses(model: OpenModel, { examples, labels, rows, passes, learningRate, options, seed, signal }: Training): Promise<FitReport | undefined> {
  let report: FitReport | undefined;
  for (let done = 0; done < passes; ) {
    signal?.throwIfAborted();
    const now = Math.min(passesAtATime, passes - done);
    const repeated = Uint32Array.from({ length: now * rows.length }, (_, at) => rows[at % rows.length]!);
    const copies = augment(selectExamples(examples, repeated), options.augmentation, new SeededGenerator(deriveSeed(seed, 'distortions', done)));
    report = await model.fit(
      { hard: { examples: copies, labels: Int32Array.from(repeated, (row) => labels.labels[row]!) } },
      {
        epochs: 1,
        batchSize: options.batchSize,
        loss: { distance: 'kl', temperature: 1, alpha: 1 },
        optimizer: { kind: 'adam', learningRate: (learningRate * (1 + Math.cos((Math.PI * done) / passes))) / 2 },
        seed: deriveSeed(seed, 'fit', done),
        ...(signal === undefined ? {} : { signal }),
      },
    );
    done += now;
  }
  return report;
}

/** The student's own opinion: the mean of its probabilities on distorted copies. */
async function ownLabels(model: OpenModel, examples: Examples, { views, augmentation }: SemiSupervisedOptions, seed: number, signal: AbortSignal | undefined): Promise<PseudoLabels> {
  let sum: Matrix | undefined;
  // Undistorted examples look the same in every view.
  const count = canAugment(examples.shape) ? views : 1;
  for (let view = 0; view < count; view++) {
    signal?.throwIfAborted();
    const probabilities = softmax(await model.predict(augment(examples, augmentation, new SeededGenerator(deriveSeed(seed, view)))));
    const before: Matrix | undefined = sum;
    sum = before === undefined ? probabilities : { ...probabilities, values: probabilities.values.map((value, at) => value + before.values[at]!) };
  }
  return pseudoLabelsOf(sum!);
}

function checkOptions({ firstShare, firstPasses, rounds, passes, confidence, views, batchSize, learningRate }: SemiSupervisedOptions): void {
  const wholeNumber = (value: number, least: number) => Number.isInteger(value) && value >= least;
  const wrong = [
    ...(firstShare > 0 && firstShare <= 1 ? [] : [['firstShare', 'a number in (0, 1]', firstShare] as const]),
    ...(wholeNumber(firstPasses, 1) ? [] : [['firstPasses', 'an integer >= 1', firstPasses] as const]),
    ...(wholeNumber(rounds, 0) ? [] : [['rounds', 'an integer >= 0', rounds] as const]),
    ...(wholeNumber(passes, 1) ? [] : [['passes', 'an integer >= 1', passes] as const]),
    ...(confidence >= 0 && confidence <= 1 ? [] : [['confidence', 'a number in [0, 1]', confidence] as const]),
    ...(wholeNumber(views, 1) ? [] : [['views', 'an integer >= 1', views] as const]),
    ...(wholeNumber(batchSize, 1) ? [] : [['batchSize', 'an integer >= 1', batchSize] as const]),
    ...(learningRate > 0 && learningRate < Infinity ? [] : [['learningRate', 'a finite number > 0', learningRate] as const]),
  ];
  const [first] = wrong;
  if (first === undefined) return;
  const [field, expected, got] = first;
  throw new FederationError('config-invalid', `The setting ${field} of semi-supervised training is out of range.`, { field, expected, got: String(got), next: `Set ${field} to ${expected}.` });
}
