/** What a worker engine and its worker say to each other: one reply for each request, and progress in between. */
import type { ProblemCode } from '../errors.ts';
import type { Examples, Matrix } from '../types/matrix.ts';
import type { FitOptions, FitReport, ModelSource, ModelSummary, PrivateFitOptions, PrivateFitReport, SavedModel, TrainingData } from './engine.ts';
import type { EnginePreference } from './select-engine.ts';

/** A model inside the worker. */
export type ModelHandle = number;

/** Fit options without what cannot be copied to another thread. */
export type CopyableFitOptions = Omit<FitOptions, 'signal' | 'onEpoch'>;
/** `key`: 256 fresh bits that the worker expands, instead of the source that they came from. */
export type CopyablePrivateFitOptions = Omit<PrivateFitOptions, 'signal' | 'onStep' | 'random'> & { readonly key: Uint8Array };
export type EpochProgress = Parameters<NonNullable<FitOptions['onEpoch']>>[0];
export type StepProgress = Parameters<NonNullable<PrivateFitOptions['onStep']>>[0];

/** What can be asked of the worker: arguments and result of each method. */
export interface WorkerMethods {
  start: { args: { preference: EnginePreference }; result: { name: string; reason: string } };
  open: { args: { source: ModelSource; seed: number }; result: { model: ModelHandle; summary: ModelSummary } };
  fit: { args: { model: ModelHandle; data: TrainingData; options: CopyableFitOptions }; result: FitReport };
  fitPrivately: { args: { model: ModelHandle; data: TrainingData; options: CopyablePrivateFitOptions }; result: PrivateFitReport };
  predict: { args: { model: ModelHandle; examples: Examples }; result: Matrix };
  save: { args: { model: ModelHandle }; result: SavedModel };
  load: { args: { model: ModelHandle; saved: SavedModel }; result: null };
  close: { args: { model: ModelHandle }; result: null };
}

export type MethodName = keyof WorkerMethods;
export type MethodCall = { [M in MethodName]: { readonly method: M; readonly args: WorkerMethods[M]['args'] } }[MethodName];
export type MethodResult = WorkerMethods[MethodName]['result'];

export type ToWorker =
  | {
      readonly kind: 'call';
      readonly id: number;
      readonly call: MethodCall;
      /** Whether anybody hears of progress. */
      readonly listens: boolean;
      /** Shared memory for the weights that a training leaves, as `save` gives them; written when the training has ended well, before the reply. */
      readonly weights?: Uint8Array | undefined;
    }
  | { readonly kind: 'cancel'; readonly id: number };

export type FromWorker =
  /** `wroteWeights`: to where the call has room for them. */
  | { readonly kind: 'result'; readonly id: number; readonly result: MethodResult; readonly wroteWeights?: boolean }
  | { readonly kind: 'error'; readonly id: number; readonly problem: WorkerProblem }
  /** The call stopped because of a `cancel`. */
  | { readonly kind: 'canceled'; readonly id: number }
  | { readonly kind: 'epoch'; readonly id: number; readonly progress: EpochProgress }
  | { readonly kind: 'step'; readonly id: number; readonly progress: StepProgress };

/** A FederationError as plain data. */
export interface WorkerProblem {
  readonly code: ProblemCode;
  readonly message: string;
  readonly field: string | undefined;
  readonly expected: string | undefined;
  readonly got: string | undefined;
  readonly next: string | undefined;
  /** Where in the worker it was thrown; for logs only. */
  readonly stack: string | undefined;
}
