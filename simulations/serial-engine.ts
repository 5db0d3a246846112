/**
 * A compute engine for virtual time: calls of all clients run one after the other in the order in which they were made, time stands still while
 * one computes, and afterwards as much virtual time passes as the device that is simulated would have taken.
 */
import type { ComputeEngine, FitOptions, FitReport, ModelSource, OpenModel, SavedModel, TrainingData } from '../shared/compute/engine.ts';
import { sleep } from '../shared/ports/clock.ts';
import type { Examples, Matrix } from '../shared/types/matrix.ts';
import type { VirtualClock } from './network/virtual-clock.ts';

/** What a simulated device takes. */
export interface DeviceSpeed {
  /** Virtual milliseconds of one training step. */
  readonly stepMs: number;
}

/** Shared by all engines of one simulation: who computes now. */
export class ComputeQueue {
  #tail: Promise<unknown> = Promise.resolve();
  readonly #clock: VirtualClock;

  constructor(clock: VirtualClock) {
    this.#clock = clock;
  }

  run<T>(work: () => Promise<T>): Promise<T> {
    return this.#clock.hold(() => {
      const result = this.#tail.then(work);
      this.#tail = result.catch(() => undefined);
      return result;
    });
  }
}

/** The same engine, seen from one simulated device. Disposing it leaves the engine, which others use too. */
export function serialEngine(engine: ComputeEngine, queue: ComputeQueue, clock: VirtualClock, speed: DeviceSpeed): ComputeEngine {
  return {
    name: engine.name,
    reason: engine.reason,
    open: async (source: ModelSource, seed: number) => new SerialModel(await queue.run(() => engine.open(source, seed)), queue, clock, speed),
    dispose: () => Promise.resolve(),
  };
}

class SerialModel implements OpenModel {
  readonly #model: OpenModel;
  readonly #queue: ComputeQueue;
  readonly #clock: VirtualClock;
  readonly #speed: DeviceSpeed;

  constructor(model: OpenModel, queue: ComputeQueue, clock: VirtualClock, speed: DeviceSpeed) {
    this.#model = model;
    this.#queue = queue;
    this.#clock = clock;
    this.#speed = speed;
  }

  get summary() {
    return this.#model.summary;
  }

  async fit(data: TrainingData, options: FitOptions): Promise<FitReport> {
    const report = await this.#queue.run(() => this.#model.fit(data, options));
    await sleep(this.#clock, report.steps * this.#speed.stepMs, options.signal);
    return report;
  }

  predict(examples: Examples): Promise<Matrix> {
    return this.#queue.run(() => this.#model.predict(examples));
  }

  save(): Promise<SavedModel> {
    return this.#queue.run(() => this.#model.save());
  }

  load(saved: SavedModel): Promise<void> {
    return this.#queue.run(() => this.#model.load(saved));
  }

  dispose(): Promise<void> {
    return this.#queue.run(() => this.#model.dispose());
  }
}
