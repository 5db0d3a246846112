/**
 * A `ComputeEngine` in a thread of its own: training blocks the thread it runs on for milliseconds at a time, which
 * sockets and heartbeats should not have to wait for. Data is copied to the thread and back. For many models and several
 * threads there is `worker-pool.ts`.
 *
 * An idle engine does not keep the process alive, a running call does.
 */
import type { Examples, Matrix } from '../types/matrix.ts';
import type { ComputeEngine, FitOptions, FitReport, ModelSource, ModelSummary, OpenModel, PrivateFitOptions, PrivateFitReport, SavedModel, TrainingData } from './engine.ts';
import type { EnginePreference } from './select-engine.ts';
import { carryData, carryExamples, carryFitOptions, carryPrivateFitOptions, Copies } from './worker-arguments.ts';
import { WorkerCalls } from './worker-calls.ts';
import type { ModelHandle } from './worker-messages.ts';

export interface WorkerEngineOptions {
  /** The script that the thread runs; default: `engine-worker` beside this file. */
  readonly entry?: URL;
}

/** Starts a worker thread with an engine of this preference in it. Throws `engine-unavailable`, or `worker-failed` when the thread does not start. */
export async function startWorkerEngine(preference: EnginePreference, options: WorkerEngineOptions = {}): Promise<ComputeEngine> {
  const calls = new WorkerCalls(options.entry);
  try {
    const { name, reason } = await calls.call('start', { preference });
    return new WorkerEngine(name, reason, calls);
  } catch (error) {
    await calls.terminate();
    throw error;
  }
}

class WorkerEngine implements ComputeEngine {
  readonly name: string;
  readonly reason: string;
  readonly #calls: WorkerCalls;

  constructor(name: string, reason: string, calls: WorkerCalls) {
    this.name = name;
    this.reason = reason;
    this.#calls = calls;
  }

  async open(source: ModelSource, seed: number): Promise<OpenModel> {
    const { model, summary } = await this.#calls.call('open', { source, seed });
    return new WorkerModel(model, summary, this.#calls);
  }

  async dispose(): Promise<void> {
    await this.#calls.terminate();
  }
}

class WorkerModel implements OpenModel {
  readonly summary: ModelSummary;
  readonly #handle: ModelHandle;
  readonly #calls: WorkerCalls;
  #disposed = false;

  constructor(handle: ModelHandle, summary: ModelSummary, calls: WorkerCalls) {
    this.#handle = handle;
    this.summary = summary;
    this.#calls = calls;
  }

  async fit(data: TrainingData, options: FitOptions): Promise<FitReport> {
    const { carry, buffers } = new Copies();
    const { signal, onEpoch } = options;
    return this.#calls.call('fit', { model: this.#handle, data: carryData(data, carry), options: carryFitOptions(options, carry) }, { transfer: buffers, signal, onEpoch });
  }

  async fitPrivately(data: TrainingData, options: PrivateFitOptions): Promise<PrivateFitReport> {
    const { carry, buffers } = new Copies();
    const { signal, onStep } = options;
    return this.#calls.call('fitPrivately', { model: this.#handle, data: carryData(data, carry), options: carryPrivateFitOptions(options) }, { transfer: buffers, signal, onStep });
  }

  async predict(examples: Examples): Promise<Matrix> {
    const { carry, buffers } = new Copies();
    return this.#calls.call('predict', { model: this.#handle, examples: carryExamples(examples, carry) }, { transfer: buffers });
  }

  async save(): Promise<SavedModel> {
    return this.#calls.call('save', { model: this.#handle });
  }

  async load(saved: SavedModel): Promise<void> {
    const { carry, buffers } = new Copies();
    await this.#calls.call('load', { model: this.#handle, saved: { ...saved, weights: carry(saved.weights) } }, { transfer: buffers });
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    // The models of a worker that is gone are gone with it.
    if (this.#calls.alive) await this.#calls.call('close', { model: this.#handle });
  }
}
