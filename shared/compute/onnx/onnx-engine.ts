/**
 * The compute engine on ONNX Runtime: TF.js's own gradients, traced once for each architecture, loss and batch size, and run
 * as a graph; the optimizer is one pass over flat vectors in WebAssembly. Same batches, dropout and losses as the eager
 * engine (`tfjs-engine.ts`), whose choices hold here too; results differ by rounding only.
 *
 * A model with an operation that no graph has is opened on the fastest eager engine instead, with one line of warning.
 * Training runs on the caller's thread between turns of its event loop; long trainings belong into `worker-engine.ts`.
 */
import { accuracy } from '../../distillation/evaluation.ts';
import { FederationError } from '../../errors.ts';
import type { Examples, Matrix } from '../../types/matrix.ts';
import { exampleSize } from '../../types/matrix.ts';
import { backendNames, loadBackend, tf, useBackend } from '../backend.ts';
import { checkExamples, checkFit, checkPrivateFit } from '../checks.ts';
import type { ComputeEngine, FitOptions, FitReport, ModelSource, ModelSummary, OpenModel, PrivateFitOptions, PrivateFitReport, SavedModel, TrainingData } from '../engine.ts';
import { checkNoMixing, diverged, type LoadedModel, loadModel, requireTrainable } from '../layers-model.ts';
import { trainingEvent } from '../private-steps.ts';
import { createTfjsEngine } from '../tfjs-engine.ts';
import { Architecture, architectureKey } from './architecture.ts';
import { ArenaPool } from './arena.ts';
import { names } from './compile.ts';
import { lossTerms } from './loss-terms.ts';
import { PrivateTraining } from './private-training.ts';
import { type OrtTensors, probeOnnxRuntime, type RuntimeName, type Session } from './runtime.ts';
import { allFinite, Training } from './training.ts';

export interface OnnxEngineOptions {
  /** What runs the graphs; the engine has its name. Default: `onnx`. */
  readonly runtime?: RuntimeName;
  /** Told once for each model architecture that is not computed here, with the reason. Default: a warning of the process. */
  readonly onFallback?: (line: string) => void;
}

/** Rows of the two prediction graphs: for a few examples and for many. */
const fewRows = 32;
const manyRows = 256;
/** Architectures without an open model that stay compiled. */
const idleArchitectures = 8;
/** Where models are built and saved weights are read; computes nothing. */
const buildingBackend = 'tfjs-cpu';

/** Starts the engine. Throws `engine-unavailable` when ONNX Runtime is not installed. */
export async function createOnnxEngine(reason?: string, options: OnnxEngineOptions = {}): Promise<ComputeEngine> {
  const { runtime = 'onnx' } = options;
  const report = await probeOnnxRuntime(runtime);
  if (!report.available) {
    throw new FederationError('engine-unavailable', `The engine ${runtime} is not available: ${report.reason}.`, { field: 'engine', expected: 'an available engine', got: runtime, next: 'Choose the engine auto, or run "fedstill doctor" to see what this machine has.' });
  }
  await loadBackend(buildingBackend);
  return new OnnxEngine(runtime, reason ?? report.reason, options.onFallback ?? ((line) => process.emitWarning(line)));
}

class OnnxEngine implements ComputeEngine {
  readonly name: RuntimeName;
  readonly reason: string;
  readonly #onFallback: (line: string) => void;
  readonly #arenas = new ArenaPool();
  readonly #models = new Set<OnnxModel>();
  /** Least recently used first. */
  readonly #architectures = new Map<string, { readonly architecture: Architecture; readonly unsupported: Promise<string | undefined> }>();
  readonly #fallenBack = new Set<string>();
  #eager: Promise<ComputeEngine> | undefined;

  constructor(name: RuntimeName, reason: string, onFallback: (line: string) => void) {
    this.name = name;
    this.reason = reason;
    this.#onFallback = onFallback;
  }

  async open(source: ModelSource, seed: number): Promise<OpenModel> {
    useBackend(buildingBackend);
    const loaded = await loadModel(source, seed);
    const key = architectureKey(loaded);
    if (this.#fallenBack.has(key)) {
      loaded.network.dispose();
      return (await this.#eagerEngine()).open(source, seed);
    }
    const known = this.#architectures.get(key);
    const architecture = known?.architecture ?? new Architecture(loaded, this.name);
    const entry = known ?? { architecture, unsupported: architecture.check(fewRows) };
    this.#architectures.delete(key);
    this.#architectures.set(key, entry);
    architecture.users++;
    const vector = architecture.readWeights(loaded.network);
    if (architecture.model !== loaded) loaded.network.dispose();
    const unsupported = await entry.unsupported;
    if (unsupported !== undefined) return this.#openEagerly(key, loaded, unsupported, source, seed);
    const model: OnnxModel = new OnnxModel(architecture, loaded, vector, this.#arenas, async () => {
      this.#models.delete(model);
      architecture.users--;
      await this.#dropIdle();
    });
    this.#models.add(model);
    return model;
  }

  async dispose(): Promise<void> {
    for (const model of this.#models) await model.dispose();
    const architectures = [...this.#architectures.values()];
    this.#architectures.clear();
    for (const { architecture } of architectures) await architecture.dispose();
    await (await this.#eager)?.dispose();
  }

  async #openEagerly(key: string, { summary }: LoadedModel, unsupported: string, source: ModelSource, seed: number): Promise<OpenModel> {
    const eager = await this.#eagerEngine();
    if (!this.#fallenBack.has(key)) {
      this.#fallenBack.add(key);
      const entry = this.#architectures.get(key);
      this.#architectures.delete(key);
      await entry?.architecture.dispose();
      this.#onFallback(`The model ${summary.name} is computed by ${eager.name} instead of ${this.name}: ${unsupported}.`);
    }
    return eager.open(source, seed);
  }

  /** The fastest engine that runs any model. */
  async #eagerEngine(): Promise<ComputeEngine> {
    this.#eager ??= (async () => {
      for (const name of backendNames) if ((await loadBackend(name)).available) return createTfjsEngine(name);
      return createTfjsEngine(buildingBackend);
    })();
    return this.#eager;
  }

  async #dropIdle(): Promise<void> {
    const idle = [...this.#architectures].filter(([, { architecture }]) => architecture.users === 0);
    for (const [key, { architecture }] of idle.slice(0, Math.max(idle.length - idleArchitectures, 0))) {
      this.#architectures.delete(key);
      await architecture.dispose();
    }
  }
}

class OnnxModel implements OpenModel {
  readonly summary: ModelSummary;
  readonly #architecture: Architecture;
  readonly #topology: unknown;
  readonly #arenas: ArenaPool;
  readonly #onDispose: () => Promise<void>;
  /** All weights, laid out as the architecture says. */
  #vector: Float32Array;
  #disposed = false;

  constructor(architecture: Architecture, { summary, topology }: LoadedModel, vector: Float32Array, arenas: ArenaPool, onDispose: () => Promise<void>) {
    this.summary = summary;
    this.#architecture = architecture;
    this.#topology = topology;
    this.#vector = vector;
    this.#arenas = arenas;
    this.#onDispose = onDispose;
  }

  async fit(data: TrainingData, options: FitOptions): Promise<FitReport> {
    this.#assertOpen();
    checkFit(this.summary, data, options);
    options.signal?.throwIfAborted();
    requireTrainable(this.#architecture.model);
    const { layout } = this.#architecture;
    const arena = this.#arenas.acquire(layout.trainableLength);
    const training = new Training({
      terms: lossTerms(data, options),
      options,
      layout,
      vector: this.#vector,
      arena,
      classes: this.summary.numClasses,
      mixesExamples: this.#architecture.mixesExamples,
      compile: (plan) => this.#architecture.step(plan),
    });
    try {
      return await this.#run(training, options);
    } finally {
      training.release();
      this.#arenas.release(arena);
    }
  }

  async fitPrivately(data: TrainingData, options: PrivateFitOptions): Promise<PrivateFitReport> {
    this.#assertOpen();
    checkPrivateFit(this.summary, data, options);
    checkNoMixing(this.#architecture.model);
    options.signal?.throwIfAborted();
    requireTrainable(this.#architecture.model);
    const arena = this.#arenas.acquire(this.#architecture.layout.trainableLength);
    const training = await PrivateTraining.start(this.#architecture, data, options, this.#vector, arena, this.summary.numClasses);
    try {
      while (training.steps < options.steps) {
        await training.step();
        if (!training.isFinite()) throw diverged(this, options, training.steps);
        options.onStep?.({ step: training.steps, steps: options.steps });
        options.signal?.throwIfAborted();
      }
    } finally {
      training.writeWeights();
      training.release();
      this.#arenas.release(arena);
    }
    return { steps: training.steps, event: trainingEvent(options) };
  }

  async #run(training: Training, options: FitOptions): Promise<FitReport> {
    const { signal, earlyStopping } = options;
    const { epochLength } = training;
    let epochsRun = 0;
    let meanLoss = 0;
    let best: { readonly accuracy: number; readonly epoch: number; readonly vector: Float32Array } | undefined;
    try {
      while (epochsRun < options.epochs) {
        let lossSum = 0;
        for (let seen = 0; seen < epochLength; ) {
          // The event loop has its turn before each step.
          const { loss, rows } = await training.step();
          if (!Number.isFinite(loss)) throw diverged(this, options, training.steps);
          lossSum += loss * rows;
          seen += rows;
          signal?.throwIfAborted();
        }
        epochsRun++;
        meanLoss = lossSum / epochLength;
        training.writeWeights();
        options.onEpoch?.({ epoch: epochsRun, epochs: options.epochs, meanLoss });
        if (earlyStopping !== undefined) {
          const { examples, labels } = earlyStopping.validation;
          const reached = accuracy(await this.predict(examples), labels);
          if (best === undefined || reached > best.accuracy) best = { accuracy: reached, epoch: epochsRun, vector: this.#vector.slice() };
          else if (epochsRun - best.epoch >= earlyStopping.patience) break;
          signal?.throwIfAborted();
        }
      }
    } finally {
      // However it ends, the model has the weights that it was trained to.
      training.writeWeights();
    }
    const restored = best !== undefined && best.epoch < epochsRun ? best.vector : undefined;
    if (restored !== undefined) this.#vector.set(restored);
    if (!(restored === undefined ? training.isFinite() : allFinite(restored))) throw diverged(this, options, training.steps);
    return { epochsRun, steps: training.steps, finalLoss: meanLoss };
  }

  async predict(examples: Examples): Promise<Matrix> {
    this.#assertOpen();
    checkExamples(this.summary, examples, 'examples');
    const { numClasses } = this.summary;
    const values = new Float32Array(examples.count * numClasses);
    for (let start = 0; start < examples.count; ) {
      const size = exampleSize(examples.shape);
      const lease = await this.#architecture.prediction(examples.count - start > fewRows ? manyRows : fewRows);
      const { rows } = lease.compiled.traced;
      const end = Math.min(start + rows, examples.count);
      try {
        const logits = await this.#predictBatch(lease.compiled.session, examples.values.subarray(start * size, end * size), rows);
        values.set(logits.subarray(0, (end - start) * numClasses), start * numClasses);
      } finally {
        lease.release();
      }
      start = end;
    }
    return { rows: examples.count, columns: numClasses, values };
  }

  /** Logits [rows x classes] of at most `rows` examples; what is computed for missing ones is of no use. */
  async #predictBatch(session: Session, examples: Float32Array, rows: number): Promise<Float32Array> {
    const { exampleShape, numClasses } = this.summary;
    const length = rows * exampleSize(exampleShape);
    // ONNX Runtime takes no shared memory.
    const isUsable = examples.length === length && !(examples.buffer instanceof SharedArrayBuffer);
    const batch = isUsable ? examples : new Float32Array(length);
    if (!isUsable) batch.set(examples);
    const inputs: OrtTensors = { [names.examples]: session.tensor(batch, [rows, ...exampleShape]) };
    for (const { index, offset, length: weightLength, shape } of this.#architecture.layout.places) {
      inputs[names.weight(index)] = session.tensor(this.#vector.subarray(offset, offset + weightLength), shape);
    }
    const logits = new Float32Array(rows * numClasses);
    await session.run(inputs, { [names.logits]: session.tensor(logits, [rows, numClasses]) });
    return logits;
  }

  async save(): Promise<SavedModel> {
    this.#assertOpen();
    return { topology: structuredClone(this.#topology), ...this.#architecture.saved(this.#vector) };
  }

  async load(saved: SavedModel): Promise<void> {
    this.#assertOpen();
    useBackend(buildingBackend);
    tf.engine().startScope();
    try {
      this.#vector = this.#architecture.vectorOf(saved);
    } finally {
      tf.engine().endScope();
    }
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#onDispose();
  }

  #assertOpen(): void {
    if (this.#disposed) throw new FederationError('internal', `The model ${this.summary.name} was used after its disposal.`);
  }
}
