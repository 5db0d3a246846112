/**
 * A compute engine without computing: weights are a few numbers that each fit changes in a way that depends on its seed, its data and the weights before it. The
 * same steps in the same order give the same weights, a step left out or made twice gives others.
 */
import { divergenceField } from '../../shared/compute/checks.ts';
import type { ComputeEngine, FitOptions, FitReport, ModelSource, ModelSummary, OpenModel, PrivateFitOptions, PrivateFitReport, SavedModel, TrainingData } from '../../shared/compute/engine.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { FederationError } from '../../shared/errors.ts';
import type { Examples, Matrix } from '../../shared/types/matrix.ts';

export class FakeEngine implements ComputeEngine {
  readonly name = 'fake';
  readonly reason = 'a test';
  /** Every fit that was started: its seed, its epochs and whether it distilled. */
  readonly fits: { readonly seed: number; readonly epochs: number; readonly isSoft: boolean; readonly options: FitOptions; readonly data: TrainingData }[] = [];
  /** Every private fit that was started. */
  readonly privateFits: { readonly options: PrivateFitOptions; readonly data: TrainingData }[] = [];
  openModels = 0;
  /** Every training on private records ends without finite weights. */
  divergesOnRecords = false;
  /** Fits wait for this, or until they are aborted. */
  gate: Promise<void> = Promise.resolve();

  async open(source: ModelSource, seed: number): Promise<OpenModel> {
    if (source.kind !== 'zoo') throw new Error('the fake engine has only zoo models');
    this.openModels++;
    return new FakeModel(this, { name: source.name, parameterCount: source.numClasses, weightBytes: 4 * source.numClasses, exampleShape: source.exampleShape, numClasses: source.numClasses }, seed);
  }

  async dispose(): Promise<void> {}
}

class FakeModel implements OpenModel {
  readonly summary: ModelSummary;
  readonly #engine: FakeEngine;
  #weights: Float32Array;

  constructor(engine: FakeEngine, summary: ModelSummary, seed: number) {
    this.#engine = engine;
    this.summary = summary;
    const generator = new SeededGenerator(seed);
    this.#weights = Float32Array.from({ length: summary.numClasses }, () => generator.uniform());
  }

  async fit(data: TrainingData, options: FitOptions): Promise<FitReport> {
    this.#engine.fits.push({ seed: options.seed, epochs: options.epochs, isSoft: data.soft !== undefined, options, data });
    if (data.hard !== undefined) this.#divergeIfTold();
    const sum = (values: ArrayLike<number> = []) => Array.from(values).reduce((total, value) => total + value, 0);
    const content = sum(data.hard?.examples.values) + 2 * sum(data.soft?.targets.values) + 3 * sum(data.soft?.examples.values);
    for (let epoch = 0; epoch < options.epochs; epoch++) {
      await abortableGate(this.#engine.gate, options.signal);
      const generator = new SeededGenerator(options.seed);
      this.#weights = this.#weights.map((weight) => 0.9 * weight + generator.uniform() + 1e-3 * content);
    }
    return { epochsRun: options.epochs, steps: options.epochs, finalLoss: 1 };
  }

  async fitPrivately(data: TrainingData, options: PrivateFitOptions): Promise<PrivateFitReport> {
    this.#engine.privateFits.push({ data, options });
    this.#divergeIfTold();
    const { steps, samplingRate, noiseMultiplier } = options;
    for (let step = 0; step < steps; step++) {
      await abortableGate(this.#engine.gate, options.signal);
      this.#weights = this.#weights.map((weight) => 0.9 * weight + options.random.bytes(1)[0]! / 255);
    }
    return { steps, event: { kind: 'selfComposed', event: { kind: 'poissonSampled', samplingProbability: samplingRate, event: { kind: 'gaussian', noiseMultiplier } }, count: steps } };
  }

  #divergeIfTold(): void {
    if (!this.#engine.divergesOnRecords) return;
    this.#weights = this.#weights.map(() => NaN);
    throw new FederationError('model-invalid', 'Training diverged.', { field: divergenceField });
  }

  async predict(examples: Examples): Promise<Matrix> {
    const columns = this.summary.numClasses;
    const size = examples.values.length / examples.count;
    const values = Float32Array.from({ length: examples.count * columns }, (_, i) => this.#weights[i % columns]! + examples.values[Math.floor(i / columns) * size]!);
    return { rows: examples.count, columns, values };
  }

  async save(): Promise<SavedModel> {
    const weights = new Uint8Array(this.#weights.slice().buffer);
    return { topology: { fake: true }, weightSpecs: [{ name: 'weights', shape: [this.#weights.length], dtype: 'float32' }], weights };
  }

  async load(saved: SavedModel): Promise<void> {
    this.#weights = new Float32Array(saved.weights.slice().buffer);
  }

  async dispose(): Promise<void> {
    this.#engine.openModels--;
  }
}

async function abortableGate(gate: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => reject(signal?.reason as Error);
    signal?.addEventListener('abort', onAbort, { once: true });
    void gate.then(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
  });
}
