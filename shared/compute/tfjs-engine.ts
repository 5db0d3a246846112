/**
 * The compute engine on eager TF.js: every operation is dispatched as it is written. Slower than a compiled graph, but it
 * runs any LayersModel, and it is what other engines are compared with.
 *
 * Choices that `engine.ts` leaves open: Adam has beta1 0.9, beta2 0.999 and epsilon 1e-7; reported losses leave out the
 * L2 penalty; with both kinds of data, hard batches are always full and go round as often as needed; losses and
 * constraints that a user's layers carry (`kernelRegularizer`) are not used, and their GaussianNoise, GaussianDropout
 * and AlphaDropout layers draw noise that is not seeded.
 */
import type { Scalar, Variable } from '@tensorflow/tfjs';
import { accuracy } from '../distillation/evaluation.ts';
import { FederationError } from '../errors.ts';
import type { Examples, Matrix } from '../types/matrix.ts';
import { exampleSize } from '../types/matrix.ts';
import { type BackendName, explainBackendError, loadBackend, tf, useBackend } from './backend.ts';
import { checkExamples, checkFit, checkPrivateFit } from './checks.ts';
import type { ComputeEngine, FitOptions, FitReport, ModelSource, ModelSummary, OpenModel, PrivateFitOptions, PrivateFitReport, SavedModel, TrainingData } from './engine.ts';
import { areFinite, checkNoMixing, diverged, forward, type LoadedModel, loadModel, loadWeights, requireTrainable, saveWeights } from './layers-model.ts';
import { trainingEvent } from './private-steps.ts';
import { SeededDropout } from './seeded-dropout.ts';
import { type LossTerm, lossTerms } from './tfjs-loss-terms.ts';
import { EagerOptimizer, type Gradients } from './tfjs-optimizer.ts';
import { PrivateTraining } from './tfjs-private-training.ts';

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

  async fitPrivately(data: TrainingData, options: PrivateFitOptions): Promise<PrivateFitReport> {
    this.#assertOpen();
    checkPrivateFit(this.summary, data, options);
    checkNoMixing(this.#model);
    options.signal?.throwIfAborted();
    const pace = new Pace();
    const training = this.#synchronously(() => new PrivateTraining(this.#model, data, options));
    try {
      while (training.steps < options.steps) {
        training.startStep();
        while (this.#synchronously(() => training.addNextExample())) {
          await pace.yieldIfDue();
          options.signal?.throwIfAborted();
        }
        this.#synchronously(() => training.finishStep());
        await pace.yieldIfDue();
        options.onStep?.({ step: training.steps, steps: options.steps });
        options.signal?.throwIfAborted();
      }
    } finally {
      this.#synchronously(() => training.dispose());
    }
    return { steps: training.steps, event: trainingEvent(options) };
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
  /** Examples in one pass: of the soft ones when there are any. */
  readonly epochLength: number;
  readonly #model: LoadedModel;
  readonly #options: FitOptions;
  readonly #variables: Variable[];
  readonly #optimizer: EagerOptimizer;
  readonly #dropout: SeededDropout;
  /** The parts of the loss; the first one decides how long a pass is. */
  readonly #terms: readonly LossTerm[];

  constructor(model: LoadedModel, data: TrainingData, options: FitOptions) {
    this.#model = model;
    this.#options = options;
    this.#variables = requireTrainable(model);
    this.#terms = lossTerms(data, options, model.summary.numClasses);
    this.epochLength = (data.soft ?? data.hard)!.examples.count;
    this.#dropout = new SeededDropout(model, options.seed);
    this.#optimizer = new EagerOptimizer(model, this.#variables, options, options.epochs * Math.ceil(this.epochLength / options.batchSize));
  }

  get steps(): number {
    return this.#optimizer.steps;
  }

  /** One batch of each kind, one update of the weights. */
  step(): { readonly loss: number; readonly rows: number } {
    const batches = this.#terms.map((term) => ({ weight: term.weight, batch: term.next(this.#options.batchSize) }));
    const { value, grads } = tf.variableGrads(() => {
      const losses = batches.map(({ weight, batch }) => {
        this.#dropout.reseed();
        const logits = forward(this.#model, tf.tensor(batch.examples, [batch.rows, ...this.#model.summary.exampleShape]), true);
        return tf.mul<Scalar>(batch.loss(logits), weight);
      });
      return tf.addN<Scalar>(losses);
    }, this.#variables);
    const loss = batches.reduce((sum, { weight, batch }) => sum + weight * batch.constant, value.dataSync()[0]!);
    if (!Number.isFinite(loss)) throw diverged(this.#model, this.#options, this.steps);
    this.#optimizer.apply(this.#clip(this.#optimizer.penalize(grads)));
    return { loss, rows: batches[0]!.batch.rows };
  }

  /** Throws when the last update left a weight that is not a number, which no later loss would have shown. */
  checkWeights(): void {
    if (!areFinite(this.#variables)) throw diverged(this.#model, this.#options, this.steps);
  }

  dispose(): void {
    this.#dropout.restore();
    this.#optimizer.dispose();
  }

  /** Scales the gradient, all parts taken as one vector, down to the largest norm allowed. */
  #clip(gradients: Gradients): Gradients {
    const { gradientClipNorm } = this.#options;
    if (gradientClipNorm === undefined) return gradients;
    const norm = Math.sqrt(Object.values(gradients).reduce((sum, gradient) => sum + tf.sum(tf.square(gradient)).dataSync()[0]!, 0));
    if (!(norm > gradientClipNorm)) return gradients;
    return Object.fromEntries(Object.entries(gradients).map(([name, gradient]) => [name, tf.mul(gradient, gradientClipNorm / norm)]));
  }
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
