/**
 * Checks that every engine makes on what it is given, before any tensor exists. Importing this loads no tensor library.
 */
import { FederationError } from '../errors.ts';
import { exampleSize, type Examples } from '../types/matrix.ts';
import type { DistillationLoss, FitOptions, LearningRateSchedule, ModelSummary, PrivateFitOptions, SavedModel, TrainingData } from './engine.ts';

/** Throws `model-invalid` unless the model takes such examples and tells that many classes apart. */
export function checkModelFits(summary: ModelSummary, expected: { readonly exampleShape: readonly number[]; readonly numClasses: number }): void {
  if (!sameShape(summary.exampleShape, expected.exampleShape)) {
    throw new FederationError('model-invalid', `The model ${summary.name} takes examples of another shape than the task's.`, {
      field: 'model.inputShape',
      expected: `[${expected.exampleShape.join(', ')}]`,
      got: `[${summary.exampleShape.join(', ')}]`,
      next: 'Use a model whose input layer has the shape of one example of the task.',
    });
  }
  if (summary.numClasses !== expected.numClasses) {
    throw new FederationError('model-invalid', `The model ${summary.name} has another number of outputs than the task has classes.`, {
      field: 'model.outputShape',
      expected: `${expected.numClasses} output units`,
      got: `${summary.numClasses} output units`,
      next: 'Use a model with one output unit for each class of the task.',
    });
  }
}

/** Throws `data-invalid` unless these are examples that the model takes. */
export function checkExamples(summary: ModelSummary, examples: Examples, field: string): void {
  if (!sameShape(examples.shape, summary.exampleShape)) {
    throw invalid('data-invalid', field, `The examples do not have the shape that the model ${summary.name} takes.`, `[${summary.exampleShape.join(', ')}]`, `[${examples.shape.join(', ')}]`);
  }
  const length = examples.count * exampleSize(examples.shape);
  if (examples.values.length !== length) {
    throw invalid('data-invalid', `${field}.values`, 'The examples do not have as many values as their count and shape say.', `${length} values`, `${examples.values.length} values`);
  }
}

/** Throws `data-invalid` or `config-invalid` for anything that `fit` can't work with. */
export function checkFit(summary: ModelSummary, data: TrainingData, options: FitOptions): void {
  if (data.hard === undefined && data.soft === undefined) {
    throw invalid('data-invalid', 'data', 'There is nothing to train on.', 'hard examples, soft examples or both', 'neither');
  }
  if (data.hard !== undefined) checkLabelled(summary, data.hard, 'hard');
  if (data.soft !== undefined) checkSoft(summary, data.soft, options.loss);
  checkOptions(summary, options);
}

/** Throws `data-invalid` or `config-invalid` for anything that `fitPrivately` can't work with. */
export function checkPrivateFit(summary: ModelSummary, data: TrainingData, options: PrivateFitOptions): void {
  if ((data.hard === undefined) === (data.soft === undefined)) {
    throw invalid('data-invalid', 'data', 'Private training takes one kind of private examples.', 'hard examples or soft examples', data.hard === undefined ? 'neither' : 'both', 'Distil on public examples in a fit of its own: that costs no privacy.');
  }
  const { steps, samplingRate, clippingNorm, noiseMultiplier, expectedBatchSize, microBatchSize } = options;
  if (data.hard !== undefined) checkLabelled(summary, data.hard, 'hard');
  if (data.soft !== undefined) checkSoft(summary, data.soft, options.loss);
  checkCommonOptions(options);
  check(Number.isInteger(steps) && steps >= 0, 'steps', 'an integer >= 0', steps);
  check(samplingRate > 0 && samplingRate <= 1, 'samplingRate', 'a number in (0, 1]', samplingRate);
  check(clippingNorm > 0 && clippingNorm < Infinity, 'clippingNorm', 'a finite number > 0', clippingNorm);
  check(noiseMultiplier >= 0 && noiseMultiplier < Infinity, 'noiseMultiplier', 'a finite number >= 0', noiseMultiplier);
  if (expectedBatchSize !== undefined) check(expectedBatchSize > 0 && expectedBatchSize < Infinity, 'expectedBatchSize', 'a finite number > 0', expectedBatchSize);
  if (microBatchSize !== undefined) check(Number.isInteger(microBatchSize) && microBatchSize >= 1, 'microBatchSize', 'an integer >= 1', microBatchSize);
}

function checkLabelled(summary: ModelSummary, { examples, labels, weights }: NonNullable<TrainingData['hard']>, field: string): void {
  checkNotEmpty(examples, field);
  checkExamples(summary, examples, field);
  if (labels.length !== examples.count) throw invalid('data-invalid', `${field}.labels`, 'There must be one label for each example.', `${examples.count} labels`, `${labels.length} labels`);
  const outside = labels.find((label) => label < 0 || label >= summary.numClasses);
  if (outside !== undefined) throw invalid('data-invalid', `${field}.labels`, 'A label is outside the classes of the model.', `integers in [0, ${summary.numClasses})`, String(outside));
  checkWeights(examples, weights, field);
}

function checkWeights({ count }: Examples, weights: Float32Array | undefined, field: string): void {
  if (weights === undefined) return;
  if (weights.length !== count) throw invalid('data-invalid', `${field}.weights`, 'There must be one weight for each example.', `${count} weights`, `${weights.length} weights`);
  const unusable = weights.find((weight) => !(weight >= 0 && weight < Infinity));
  if (unusable !== undefined) throw invalid('data-invalid', `${field}.weights`, 'A weight of an example cannot be used.', 'finite numbers >= 0', String(unusable));
}

function checkSoft(summary: ModelSummary, { examples, targets, targetKind, weights }: NonNullable<TrainingData['soft']>, loss: DistillationLoss): void {
  checkNotEmpty(examples, 'soft');
  checkExamples(summary, examples, 'soft');
  if (targets.rows !== examples.count || targets.columns !== summary.numClasses || targets.values.length !== targets.rows * targets.columns) {
    throw invalid('data-invalid', 'soft.targets', 'The targets must have one row for each example and one column for each class.', `[${examples.count} x ${summary.numClasses}]`, `[${targets.rows} x ${targets.columns}]`);
  }
  const lowest = targetKind === 'probabilities' ? 0 : -Infinity;
  const unusable = targets.values.find((value) => !Number.isFinite(value) || value < lowest);
  if (unusable !== undefined) {
    throw invalid('data-invalid', 'soft.targets', `The targets hold a value that cannot be one of ${targetKind}.`, targetKind === 'probabilities' ? 'finite numbers >= 0' : 'finite numbers', String(unusable));
  }
  if (loss.distance === 'logitMae' && targetKind !== 'logits') {
    throw invalid('config-invalid', 'loss.distance', 'The logitMae loss compares logits, but the targets are probabilities.', 'targets that are logits', targetKind, 'Use the kl loss, or an aggregator that gives logits.');
  }
  checkWeights(examples, weights, 'soft');
}

function checkOptions(summary: ModelSummary, options: FitOptions): void {
  const { earlyStopping } = options;
  checkCommonOptions(options);
  check(Number.isInteger(options.epochs) && options.epochs >= 0, 'epochs', 'an integer >= 0', options.epochs);
  check(Number.isInteger(options.batchSize) && options.batchSize >= 1, 'batchSize', 'an integer >= 1', options.batchSize);
  if (options.weightDecay !== undefined) check(options.weightDecay >= 0 && options.weightDecay < Infinity, 'weightDecay', 'a finite number >= 0', options.weightDecay);
  if (options.gradientClipNorm !== undefined) check(options.gradientClipNorm > 0, 'gradientClipNorm', 'a number > 0', options.gradientClipNorm);
  if (earlyStopping !== undefined) {
    check(Number.isInteger(earlyStopping.patience) && earlyStopping.patience >= 1, 'earlyStopping.patience', 'an integer >= 1', earlyStopping.patience);
    checkLabelled(summary, earlyStopping.validation, 'earlyStopping.validation');
  }
}

/** What training with and without privacy has in common. */
function checkCommonOptions({ loss, optimizer, learningRateSchedule, l2, seed }: Pick<FitOptions, 'loss' | 'optimizer' | 'learningRateSchedule' | 'l2' | 'seed'>): void {
  check(loss.temperature > 0 && loss.temperature < Infinity, 'loss.temperature', 'a finite number > 0', loss.temperature);
  check(loss.alpha >= 0 && loss.alpha <= 1, 'loss.alpha', 'a number in [0, 1]', loss.alpha);
  check(optimizer.learningRate > 0 && optimizer.learningRate < Infinity, 'optimizer.learningRate', 'a finite number > 0', optimizer.learningRate);
  if (optimizer.kind === 'sgd' && optimizer.momentum !== undefined) check(optimizer.momentum >= 0 && optimizer.momentum < 1, 'optimizer.momentum', 'a number in [0, 1)', optimizer.momentum);
  if (learningRateSchedule !== undefined) checkSchedule(learningRateSchedule);
  if (l2 !== undefined) check(l2 >= 0 && l2 < Infinity, 'l2', 'a finite number >= 0', l2);
  check(Number.isInteger(seed) && seed >= 0 && seed <= 0xffff_ffff, 'seed', 'an integer in [0, 2^32)', seed);
}

function checkSchedule(schedule: LearningRateSchedule): void {
  const { warmupSteps } = schedule;
  if (warmupSteps !== undefined) check(Number.isInteger(warmupSteps) && warmupSteps >= 0, 'learningRateSchedule.warmupSteps', 'an integer >= 0', warmupSteps);
  if (schedule.kind === 'stepDecay') {
    check(schedule.factor > 0 && schedule.factor <= 1, 'learningRateSchedule.factor', 'a number in (0, 1]', schedule.factor);
    check(Number.isInteger(schedule.everySteps) && schedule.everySteps >= 1, 'learningRateSchedule.everySteps', 'an integer >= 1', schedule.everySteps);
  }
  if (schedule.kind === 'cosine' && schedule.finalFraction !== undefined) check(schedule.finalFraction >= 0 && schedule.finalFraction <= 1, 'learningRateSchedule.finalFraction', 'a number in [0, 1]', schedule.finalFraction);
}

/** The field that an engine names when a loss or a weight is no finite number any more. */
export const divergenceField = 'optimizer.learningRate';

/** Whether training failed because of what the records did to it, not because the model or an option was wrong. */
export function isDivergence(error: unknown): error is FederationError {
  return error instanceof FederationError && error.code === 'model-invalid' && error.field === divergenceField;
}

/** Throws `model-invalid` unless the weights have exactly the bytes that their specifications say. */
export function checkSavedModel(saved: SavedModel): void {
  if (typeof saved.topology !== 'object' || saved.topology === null) {
    throw invalid('model-invalid', 'model.topology', 'The saved model has no topology.', 'a JSON object', typeof saved.topology);
  }
  let bytes = 0;
  for (const spec of saved.weightSpecs) {
    // Checked although the type says so: it may have been read from a file.
    const dtype: string = spec.dtype;
    if (dtype !== 'float32' && dtype !== 'int32') throw invalid('model-invalid', `model.weights.${spec.name}`, 'A weight of the saved model has a type that is not supported.', 'float32 or int32', dtype);
    bytes += 4 * exampleSize(spec.shape);
  }
  if (saved.weights.byteLength !== bytes) {
    throw invalid('model-invalid', 'model.weights', 'The saved model does not have as many bytes of weights as it says.', `${bytes} bytes`, `${saved.weights.byteLength} bytes`);
  }
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((side, axis) => side === b[axis]);
}

function checkNotEmpty(examples: Examples, field: string): void {
  if (!Number.isInteger(examples.count) || examples.count < 1) throw invalid('data-invalid', field, 'There are no examples to train on.', 'at least 1 example', String(examples.count));
}

function check(holds: boolean, field: string, expected: string, got: number): void {
  if (!holds) throw invalid('config-invalid', field, `The training option ${field} is out of range.`, expected, String(got), `Set ${field} to ${expected}.`);
}

function invalid(code: 'config-invalid' | 'data-invalid' | 'model-invalid', field: string, message: string, expected: string, got: string, next?: string): FederationError {
  return new FederationError(code, message, { field, expected, got, ...(next === undefined ? {} : { next }) });
}
