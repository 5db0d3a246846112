/**
 * The compute engine on eager TF.js: every operation is dispatched as it is written. Slower than a compiled graph, but it
 * runs any LayersModel, and it is what other engines are compared with.
 *
 * Choices that `engine.ts` leaves open: Adam has beta1 0.9, beta2 0.999 and epsilon 1e-7; reported losses leave out the
 * L2 penalty; with both kinds of data, hard batches are always full and go round as often as needed; losses and
 * constraints that a user's layers carry (`kernelRegularizer`) are not used, and their GaussianNoise, GaussianDropout
 * and AlphaDropout layers draw noise that is not seeded.
 */
import type { Optimizer, Scalar, Tensor, Tensor2D, Variable } from '@tensorflow/tfjs';
import { deriveSeed, SeededGenerator } from '../datasets/seeded-generator.ts';
import { accuracy } from '../distillation/evaluation.ts';
import { FederationError, unreachable } from '../errors.ts';
import type { Examples, Matrix } from '../types/matrix.ts';
import { exampleSize } from '../types/matrix.ts';
import { type BackendName, explainBackendError, loadBackend, tf, useBackend } from './backend.ts';
import { gatherExamples, gatherRows, oneHotRows, Shuffler } from './batches.ts';
import { checkExamples, checkFit } from './checks.ts';
import type { ComputeEngine, FitOptions, FitReport, ModelSource, ModelSummary, OpenModel, OptimizerSpec, SavedModel, TrainingData } from './engine.ts';
import { forward, kernelVariableNames, type LoadedModel, loadModel, loadWeights, saveWeights, trainableVariables } from './layers-model.ts';
import { crossEntropy, softTargets } from './losses.ts';

/** Examples in one forward pass of `predict`. */
const predictBatchSize = 256;
/** Training gives way to timers and sockets after this many milliseconds. */
const yieldIntervalMs = 20;

/** Starts an engine on this back end. Throws `engine-unavailable` when the machine does not have it. */
export async function createTfjsEngine(backend: BackendName, reason?: string): Promise<ComputeEngine> {
  const report = await loadBackend(backend);
  if (!report.available) {
    throw new FederationError('engine-unavailable', `The engine ${backend} is not available: ${report.reason}.`, { field: 'engine', expected: 'an available engine', got: backend, next: 'Choose the engine auto, or run "fedstill doctor" to see what this machine has.' });
  }
  return new TfjsEngine(backend, reason ?? report.reason);
}

class TfjsEngine implements ComputeEngine {
  readonly name: BackendName;
  readonly reason: string;
  readonly #models = new Set<TfjsModel>();

  constructor(name: BackendName, reason: string) {
    this.name = name;
    this.reason = reason;
  }

  async open(source: ModelSource, seed: number): Promise<OpenModel> {
    useBackend(this.name);
    const model: TfjsModel = new TfjsModel(await loadModel(source, seed), this.name, () => this.#models.delete(model));
    this.#models.add(model);
    return model;
  }

  async dispose(): Promise<void> {
    for (const model of this.#models) await model.dispose();
  }
}

class TfjsModel implements OpenModel {
  readonly #model: LoadedModel;
  readonly #backend: BackendName;
  readonly #onDispose: () => void;
  #disposed = false;

  constructor(model: LoadedModel, backend: BackendName, onDispose: () => void) {
    this.#model = model;
    this.#backend = backend;
    this.#onDispose = onDispose;
  }

  get summary(): ModelSummary {
    return this.#model.summary;
  }

  async fit(data: TrainingData, options: FitOptions): Promise<FitReport> {
    this.#assertOpen();
    checkFit(this.summary, data, options);
    options.signal?.throwIfAborted();
    const { signal, earlyStopping } = options;
    const pace = new Pace();
    const training = this.#synchronously(() => new Training(this.#model, data, options));
    let epochsRun = 0;
    let meanLoss = 0;
    let best: { readonly accuracy: number; readonly epoch: number; readonly weights: SavedModel } | undefined;
    try {
      while (epochsRun < options.epochs) {
        let lossSum = 0;
        for (let seen = 0; seen < training.epochLength; ) {
          const step = this.#synchronously(() => training.step());
          lossSum += step.loss * step.rows;
          seen += step.rows;
          await pace.yieldIfDue();
          signal?.throwIfAborted();
        }
        epochsRun++;
        meanLoss = lossSum / training.epochLength;
        options.onEpoch?.({ epoch: epochsRun, epochs: options.epochs, meanLoss });
        if (earlyStopping !== undefined) {
          const { examples, labels } = earlyStopping.validation;
          const reached = accuracy(await this.predict(examples), labels);
          if (best === undefined || reached > best.accuracy) best = { accuracy: reached, epoch: epochsRun, weights: await this.save() };
          else if (epochsRun - best.epoch >= earlyStopping.patience) break;
          signal?.throwIfAborted();
        }
      }
    } finally {
      this.#synchronously(() => training.dispose());
    }
    if (best !== undefined && best.epoch < epochsRun) await this.load(best.weights);
    this.#synchronously(() => training.checkWeights());
    return { epochsRun, steps: training.steps, finalLoss: meanLoss };
  }

  async predict(examples: Examples): Promise<Matrix> {
    this.#assertOpen();
    checkExamples(this.summary, examples, 'examples');
    const { numClasses } = this.summary;
    const size = exampleSize(examples.shape);
    const pace = new Pace();
    const values = new Float32Array(examples.count * numClasses);
    for (let start = 0; start < examples.count; start += predictBatchSize) {
      const end = Math.min(start + predictBatchSize, examples.count);
      this.#synchronously(() => {
        const batch = tf.tensor(examples.values.subarray(start * size, end * size), [end - start, ...examples.shape]);
        values.set(forward(this.#model, batch, false).dataSync(), start * numClasses);
      });
      await pace.yieldIfDue();
    }
    return { rows: examples.count, columns: numClasses, values };
  }

  async save(): Promise<SavedModel> {
    this.#assertOpen();
    return this.#synchronously(() => ({ topology: structuredClone(this.#model.topology), ...saveWeights(this.#model.network) }));
  }

  async load(saved: SavedModel): Promise<void> {
    this.#assertOpen();
    this.#synchronously(() => loadWeights(this.#model.network, saved));
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#model.network.dispose();
    this.#onDispose();
  }

  /** Runs `work` on this engine's back end, frees every tensor that it made, and explains what the back end lacks. */
  #synchronously<T>(work: () => T): T {
    useBackend(this.#backend);
    tf.engine().startScope();
    try {
      return work();
    } catch (error) {
      throw explainBackendError(error, this.#backend);
    } finally {
      tf.engine().endScope();
    }
  }

  #assertOpen(): void {
    if (this.#disposed) throw new FederationError('internal', `The model ${this.summary.name} was used after its disposal.`);
  }
}

/** One call of `fit`: the batches, the optimizer and the step. Every method runs inside a tensor scope. */
class Training {
  steps = 0;
  /** Examples in one pass: of the soft ones when there are any. */
  readonly epochLength: number;
  readonly #model: LoadedModel;
  readonly #options: FitOptions;
  readonly #variables: Variable[];
  readonly #kernels: ReadonlySet<string>;
  readonly #optimizer: Optimizer;
  readonly #dropout: SeededDropout;
  /** The parts of the loss; the first one decides how long a pass is. */
  readonly #terms: readonly LossTerm[];

  constructor(model: LoadedModel, data: TrainingData, options: FitOptions) {
    this.#model = model;
    this.#options = options;
    this.#variables = trainableVariables(model.network);
    if (this.#variables.length === 0) {
      throw new FederationError('model-invalid', `Every layer of the model ${model.summary.name} is frozen, so it cannot be trained.`, { field: 'model.trainable', expected: 'at least one trainable weight', got: 'none' });
    }
    this.#kernels = kernelVariableNames(model.network);
    this.#terms = lossTerms(data, options, model.summary.numClasses);
    this.epochLength = (data.soft ?? data.hard)!.examples.count;
    this.#dropout = new SeededDropout(model, options.seed);
    this.#optimizer = createOptimizer(options.optimizer);
  }

  /** One batch of each kind, one update of the weights. */
  step(): { readonly loss: number; readonly rows: number } {
    const batches = this.#terms.map((term) => term.next(this.#options.batchSize));
    const { value, grads } = tf.variableGrads(() => {
      const losses = batches.map((batch) => {
        this.#dropout.reseed();
        const logits = forward(this.#model, tf.tensor(batch.examples, [batch.rows, ...this.#model.summary.exampleShape]), true);
        return tf.mul<Scalar>(batch.loss(logits), batch.weight);
      });
      return tf.addN<Scalar>(losses);
    }, this.#variables);
    const loss = batches.reduce((sum, batch) => sum + batch.weight * batch.constant, value.dataSync()[0]!);
    if (!Number.isFinite(loss)) throw this.#diverged();
    this.#optimizer.applyGradients(this.#clip(this.#penalize(grads)));
    this.steps++;
    return { loss, rows: batches[0]!.rows };
  }

  /** Throws when the last update left a weight that is not a number, which no later loss would have shown. */
  checkWeights(): void {
    if (this.#variables.some((variable) => !variable.dataSync().every(Number.isFinite))) throw this.#diverged();
  }

  dispose(): void {
    this.#dropout.restore();
    this.#optimizer.dispose();
  }

  /** Adds the gradient of (l2 / 2) * sum(kernel^2), which is l2 * kernel. */
  #penalize(gradients: Record<string, Tensor>): Record<string, Tensor> {
    const { l2 = 0 } = this.#options;
    if (l2 === 0) return gradients;
    for (const variable of this.#variables) {
      const gradient = gradients[variable.name];
      if (gradient !== undefined && this.#kernels.has(variable.name)) gradients[variable.name] = tf.add(gradient, tf.mul(variable, l2));
    }
    return gradients;
  }

  /** Scales the gradient, all parts taken as one vector, down to the largest norm allowed. */
  #clip(gradients: Record<string, Tensor>): Record<string, Tensor> {
    const { gradientClipNorm } = this.#options;
    if (gradientClipNorm === undefined) return gradients;
    const norm = Math.sqrt(Object.values(gradients).reduce((sum, gradient) => sum + tf.sum(tf.square(gradient)).dataSync()[0]!, 0));
    if (!(norm > gradientClipNorm)) return gradients;
    return Object.fromEntries(Object.entries(gradients).map(([name, gradient]) => [name, tf.mul(gradient, gradientClipNorm / norm)]));
  }

  #diverged(): FederationError {
    const { learningRate } = this.#options.optimizer;
    return new FederationError('model-invalid', `Training of ${this.#model.summary.name} diverged: its loss or a weight is no longer a finite number after step ${this.steps + 1}.`, {
      field: 'optimizer.learningRate',
      expected: 'a learning rate with which the loss stays finite',
      got: String(learningRate),
      next: `Lower the learning rate, e.g. to ${learningRate / 10}, and check that the examples are scaled to about [0, 1].`,
    });
  }
}

/** A summand of the loss with the examples that it is computed on. */
interface LossTerm {
  next(batchSize: number): Batch;
}

interface Batch {
  readonly rows: number;
  /** rows examples, one after the other */
  readonly examples: Float32Array;
  /** Factor of `loss` and `constant` in the whole loss. */
  readonly weight: number;
  readonly loss: (logits: Tensor2D) => Scalar;
  /** The part of the loss that does not depend on the model. */
  readonly constant: number;
}

function lossTerms({ hard, soft }: TrainingData, { loss, seed }: FitOptions, numClasses: number): LossTerm[] {
  const terms: LossTerm[] = [];
  const softWeight = hard === undefined ? 1 : 1 - loss.alpha;
  const hardWeight = soft === undefined ? 1 : loss.alpha;
  if (soft !== undefined) {
    const targets = softTargets(soft.targets, soft.targetKind, loss);
    const shuffler = new Shuffler(soft.examples.count, seed, 'soft');
    terms.push({
      next(batchSize) {
        const positions = shuffler.withinPass(batchSize);
        const rows = positions.length;
        const target = tf.tensor2d(gatherRows(targets.matrix, positions), [rows, numClasses]);
        let constant = 0;
        for (const position of positions) constant += targets.constants[position]! / rows;
        return { rows, examples: gatherExamples(soft.examples, positions), weight: softWeight, loss: (logits) => targets.distance(logits, target), constant };
      },
    });
  }
  // A summand with weight 0 would cost a forward and a backward pass for nothing.
  if (hard !== undefined && hardWeight > 0) {
    const shuffler = new Shuffler(hard.examples.count, seed, 'hard');
    terms.push({
      next(batchSize) {
        const positions = soft === undefined ? shuffler.withinPass(batchSize) : shuffler.acrossPasses(batchSize);
        const rows = positions.length;
        const target = tf.tensor2d(oneHotRows(hard.labels, positions, numClasses), [rows, numClasses]);
        return { rows, examples: gatherExamples(hard.examples, positions), weight: hardWeight, loss: (logits) => crossEntropy(logits, target), constant: 0 };
      },
    });
  }
  return terms;
}

function createOptimizer(spec: OptimizerSpec): Optimizer {
  switch (spec.kind) {
    case 'adam':
      return tf.train.adam(spec.learningRate);
    case 'sgd':
      return spec.momentum === undefined || spec.momentum === 0 ? tf.train.sgd(spec.learningRate) : createMomentum(spec.learningRate, spec.momentum);
    default:
      return unreachable(spec);
  }
}

function createMomentum(learningRate: number, momentum: number): Optimizer {
  const optimizer = tf.train.momentum(learningRate, momentum);
  // TF.js makes this scalar without keeping it, so the scope that we are in would free it before the first step.
  tf.keep((optimizer as unknown as { m: Scalar }).m);
  const dispose = optimizer.dispose.bind(optimizer);
  optimizer.dispose = () => {
    dispose();
    // The scalar of the plain SGD it extends, which its own dispose forgets.
    (optimizer as unknown as { c: Scalar }).c.dispose();
  };
  return optimizer;
}

/** A layer that has layers, wraps one, or drops out; what we need of TF.js's classes, some of which are not exported. */
interface MaybeDropout {
  getClassName(): string;
  readonly layers?: readonly MaybeDropout[];
  readonly layer?: MaybeDropout;
  seed?: number | undefined;
}

/**
 * Gives the model's dropout layers a new seed before every forward pass. With a fixed seed TF.js would drop the same
 * units in each step, and without one other units in each run.
 */
class SeededDropout {
  readonly #generator: SeededGenerator;
  readonly #layers: readonly MaybeDropout[];
  readonly #originalSeeds: readonly (number | undefined)[];

  constructor({ network }: LoadedModel, seed: number) {
    this.#generator = new SeededGenerator(deriveSeed(seed, 'dropout'));
    this.#layers = dropoutLayers(network);
    this.#originalSeeds = this.#layers.map((layer) => layer.seed);
  }

  reseed(): void {
    for (const layer of this.#layers) layer.seed = this.#generator.uint32();
  }

  restore(): void {
    this.#layers.forEach((layer, i) => (layer.seed = this.#originalSeeds[i]));
  }
}

function dropoutLayers(layer: MaybeDropout): MaybeDropout[] {
  const inner = [...(layer.layers ?? []), ...(layer.layer === undefined ? [] : [layer.layer])];
  const isDropout = layer.getClassName() === 'Dropout' || layer.getClassName() === 'SpatialDropout1D';
  return [...(isDropout ? [layer] : []), ...inner.flatMap(dropoutLayers)];
}

/** Lets the event loop run now and then: timers, sockets and abort signals of the caller's thread. */
class Pace {
  #last = performance.now();

  async yieldIfDue(): Promise<void> {
    if (performance.now() - this.#last < yieldIntervalMs) return;
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#last = performance.now();
  }
}
