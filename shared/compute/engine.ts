/**
 * The seam between federated distillation and whatever does the arithmetic. Types only: importing this file loads no
 * tensor library. Every implementation passes `test/contracts/compute-engine.ts`.
 *
 * A hyper-parameter's unit or shape is in its doc line; everything that trains is seeded, so the same calls in the
 * same order give the same weights on the same engine and machine type.
 */
import type { RandomSource } from '../ports/random-source.ts';
import type { DpEvent } from '../privacy/dp-event.ts';
import type { Examples, Matrix, OutputKind } from '../types/matrix.ts';

/** Where a model's architecture comes from. */
export type ModelSource =
  | {
      readonly kind: 'zoo';
      /** A name from `models/zoo.ts`, e.g. `mlp-small`. */
      readonly name: string;
      /** Shape of one example, e.g. [28, 28, 1]. */
      readonly exampleShape: readonly number[];
      readonly numClasses: number;
      /** Dropout rate in [0, 1) before the output layer and between hidden layers; default 0. */
      readonly dropout?: number;
    }
  | {
      /** A user's own model: the bytes of a saved TF.js LayersModel whose last layer gives logits or a softmax. */
      readonly kind: 'layersModel';
      readonly artifacts: SavedModel;
      /** What the model's output is; a softmax output is turned into log-probabilities, which serve as logits. */
      readonly outputKind: OutputKind;
    };

/** A model's architecture and weights as plain data: what is written to a checkpoint or a LayersModel folder. */
export interface SavedModel {
  /** Keras-style topology JSON, as in TF.js `model.json`'s `modelTopology`. */
  readonly topology: unknown;
  /** One entry a weight, in order. */
  readonly weightSpecs: readonly { readonly name: string; readonly shape: readonly number[]; readonly dtype: 'float32' | 'int32' }[];
  /** All weights one after the other, little-endian. */
  readonly weights: Uint8Array;
}

export interface ModelSummary {
  readonly name: string;
  /** Number of trainable scalars. */
  readonly parameterCount: number;
  /** Bytes of all weights as float32: what one upload of a weight-sharing method would move. */
  readonly weightBytes: number;
  readonly exampleShape: readonly number[];
  readonly numClasses: number;
}

/**
 * What a fit is for.
 * - `hard`: private examples with labels (cross-entropy, "local training").
 * - `soft`: transfer examples with a teacher's targets ("distil").
 * With both, each step takes one batch of each and minimises `alpha * CE + (1 - alpha) * distillation`.
 */
export interface TrainingData {
  readonly hard?: {
    readonly examples: Examples;
    /** length = examples.count */
    readonly labels: Int32Array;
    /**
     * Factor of each example's loss, >= 0, length = examples.count; default 1. A batch's loss is the sum of its weighted losses over its
     * number of examples, not over the sum of its weights: a weight means the same in every batch.
     */
    readonly weights?: Float32Array;
  };
  readonly soft?: {
    readonly examples: Examples;
    /** [examples.count x numClasses] */
    readonly targets: Matrix;
    /** `probabilities` must already be at the temperature of the loss; `logits` are softened by the loss. */
    readonly targetKind: OutputKind;
    /** As those of `hard`. */
    readonly weights?: Float32Array;
  };
}

/**
 * - `kl`: T^2 * KL(softmax(target / T) || softmax(student / T)) (Hinton et al. 2015, sec. 2), for logits targets;
 *   for probability targets q: T^2 * KL(q || softmax(student / T)).
 * - `logitMae`: mean absolute error between target logits and student logits (FedMD, Li & Wang 2019).
 */
export interface DistillationLoss {
  readonly distance: 'kl' | 'logitMae';
  /** Softmax divisor T > 0; ignored by `logitMae`. */
  readonly temperature: number;
  /** Weight of the hard-label cross-entropy in [0, 1] when both kinds of data are given; ignored otherwise. */
  readonly alpha: number;
}

export type OptimizerSpec =
  | { readonly kind: 'sgd'; readonly learningRate: number; /** in [0, 1); default 0 */ readonly momentum?: number }
  | { readonly kind: 'adam'; readonly learningRate: number };

/**
 * The learning rate of each update as a factor of the optimizer's, in steps since the fit began:
 * - `constant`: 1.
 * - `stepDecay`: `factor ^ floor(t / everySteps)`.
 * - `cosine`: from 1 down to `finalFraction` along half a cosine over what is left of the fit after the warm-up
 *   (Loshchilov & Hutter 2017, without restarts).
 *
 * `warmupSteps` (default 0) come first and rise linearly: `(t + 1) / warmupSteps`. The others count their steps after them.
 */
export type LearningRateSchedule = { readonly warmupSteps?: number } & (
  | { readonly kind: 'constant' }
  | { readonly kind: 'stepDecay'; /** in (0, 1] */ readonly factor: number; readonly everySteps: number }
  | { readonly kind: 'cosine'; /** in [0, 1]; default 0 */ readonly finalFraction?: number }
);

export interface FitOptions {
  /** Passes over the soft examples when there are any, else over the hard ones. */
  readonly epochs: number;
  /** Examples per step (of each kind when there are both). */
  readonly batchSize: number;
  readonly loss: DistillationLoss;
  readonly optimizer: OptimizerSpec;
  /** Default: `constant` without a warm-up. */
  readonly learningRateSchedule?: LearningRateSchedule;
  /** Weight of the penalty (l2 / 2) * sum(kernel^2); biases are not penalised. Default 0. */
  readonly l2?: number;
  /**
   * Adds `weightDecay * w` to the gradient of every trainable weight w, biases included, before the optimizer sees it and before clipping: what PyTorch's
   * optimizers do with their `weight_decay` (not AdamW's decoupled decay). Default 0.
   */
  readonly weightDecay?: number;
  /** Clips the whole gradient to this L2 norm; default: no clipping. This is not private gradient clipping. */
  readonly gradientClipNorm?: number;
  /** Seed of shuffling and dropout: an integer in [0, 2^32). */
  readonly seed: number;
  /** Stops when the validation accuracy has not risen for `patience` epochs, and restores the best weights. */
  readonly earlyStopping?: {
    readonly patience: number;
    readonly validation: { readonly examples: Examples; readonly labels: Int32Array };
  };
  readonly signal?: AbortSignal;
  /** Called after each epoch. */
  readonly onEpoch?: (progress: { readonly epoch: number; readonly epochs: number; readonly meanLoss: number }) => void;
}

export interface FitReport {
  readonly epochsRun: number;
  readonly steps: number;
  /** Mean loss over the last epoch. */
  readonly finalLoss: number;
}

/**
 * Differentially private SGD (Abadi et al. 2016). Each step draws a Poisson batch (every record by itself with probability
 * `samplingRate`; it may be empty), scales the gradient of each of its records, all trainable weights taken as one vector,
 * down to the L2 norm `clippingNorm`, adds them up, adds Gaussian noise of standard deviation `noiseMultiplier * clippingNorm` to
 * every element of the sum, divides by `expectedBatchSize` and hands that to the optimizer.
 */
export interface PrivateFitOptions {
  /** Noised updates, the empty batches among them. */
  readonly steps: number;
  /** Probability in (0, 1] with which a record is in a batch. */
  readonly samplingRate: number;
  /** Largest L2 norm of what one record adds to a step's sum, > 0. */
  readonly clippingNorm: number;
  /** Standard deviation of the noise as a multiple of `clippingNorm`, >= 0. With 0 nothing is protected, and the report's event says so. */
  readonly noiseMultiplier: number;
  /**
   * What every noised sum is divided by, > 0; default `samplingRate` times the number of records. Never the size of a batch, which is
   * private; who keeps the number of records itself secret gives a public number here.
   */
  readonly expectedBatchSize?: number;
  readonly loss: DistillationLoss;
  readonly optimizer: OptimizerSpec;
  readonly learningRateSchedule?: LearningRateSchedule;
  /** As in `FitOptions`. Its gradient depends on weights alone and is added after the noise. */
  readonly l2?: number;
  /**
   * Records whose gradients an engine computes at a time, an integer >= 1; default: the engine's choice. A larger batch is computed in
   * parts and never cut short; nothing that leaves depends on this but by rounding.
   */
  readonly microBatchSize?: number;
  /** Seed of dropout, which protects nobody: an integer in [0, 2^32). */
  readonly seed: number;
  /** Where batches and noise come from: the system's CSPRNG, but in tests. */
  readonly random: RandomSource;
  readonly signal?: AbortSignal;
  /** Called after each step. Of what it learned on private records nothing is told. */
  readonly onStep?: (progress: { readonly step: number; readonly steps: number }) => void;
}

/** Holds nothing that was computed from the records without noise: no loss, no batch sizes. */
export interface PrivateFitReport {
  readonly steps: number;
  /** What an accountant charges the records for all steps, under `addOrRemoveRecord`. */
  readonly event: DpEvent;
}

/** One model with its weights and optimizer state. Calls on one model are made one at a time. */
export interface OpenModel {
  readonly summary: ModelSummary;
  /** Trains in place. The optimizer's moments start at zero in each call. Throws `signal.reason` when aborted. */
  fit(data: TrainingData, options: FitOptions): Promise<FitReport>;
  /**
   * Trains in place on private records: on `hard` or on `soft`, not on both (distil on public examples in a `fit` of its own, which costs no
   * privacy). Throws `model-invalid` for a layer that mixes the examples of a batch. When it throws during training, some
   * steps have happened: charge all of them, or throw the weights away.
   */
  fitPrivately?(data: TrainingData, options: PrivateFitOptions): Promise<PrivateFitReport>;
  /** Logits [examples.count x numClasses], computed in inference mode. */
  predict(examples: Examples): Promise<Matrix>;
  save(): Promise<SavedModel>;
  /** Replaces the weights; the shapes must be those of this model. */
  load(saved: SavedModel): Promise<void>;
  dispose(): Promise<void>;
}

export interface ComputeEngine {
  /** E.g. `tfjs-wasm`. */
  readonly name: string;
  /** Why this engine was chosen, in one sentence. */
  readonly reason: string;
  /** Opens a model with weights drawn from `seed` (zoo) or as saved (layersModel). */
  open(source: ModelSource, seed: number): Promise<OpenModel>;
  dispose(): Promise<void>;
}
