/**
 * A compute engine for virtual time. A computation begins in real time when its client asks for it, and its result is seen when as much virtual
 * time has passed as the device that is simulated would have taken: meanwhile other clients ask for theirs, and on a worker pool they are computed
 * at the same time. Results are waited for in the order of virtual time, so the threads' real speed changes nothing that happens.
 */
import type { ComputeEngine, FitOptions, FitReport, ModelSource, OpenModel, PrivateFitOptions, PrivateFitReport, SavedModel, TrainingData } from '../shared/compute/engine.ts';
import { drawKey, keyStream } from '../shared/compute/key-stream.ts';
import { isWorkerPool } from '../shared/compute/worker-pool.ts';
import { FederationError } from '../shared/errors.ts';
import { sleep } from '../shared/ports/clock.ts';
import type { Examples, Matrix } from '../shared/types/matrix.ts';
import type { VirtualClock } from './network/virtual-clock.ts';

/** What a simulated device takes. */
export interface DeviceSpeed {
  /** Virtual milliseconds of one training step. */
  readonly stepMs: number;
}

/** The engine that the devices of one simulation share. */
export class SharedEngine {
  readonly clock: VirtualClock;
  /** Ends computations when the whole simulation is given up. */
  readonly signal: AbortSignal | undefined;
  readonly #engine: ComputeEngine;
  readonly #remember: (engine: ComputeEngine) => ComputeEngine;
  #tail: Promise<unknown> = Promise.resolve();

  /** `remember` sees every device's engine before the device does, e.g. to answer from a journal. */
  constructor(engine: ComputeEngine, clock: VirtualClock, signal: AbortSignal | undefined, remember: (engine: ComputeEngine) => ComputeEngine = (own) => own) {
    this.#engine = engine;
    this.#remember = remember;
    this.clock = clock;
    this.signal = signal;
  }

  /** The engine seen from one device. Disposing it leaves the engine, which others use too. */
  device(owner: string, speed: DeviceSpeed): ComputeEngine {
    const { name, reason } = this.#engine;
    const engine = this.#remember(isWorkerPool(this.#engine) ? this.#engine.ownedBy(owner) : this.#engine);
    return { name, reason, open: async (source: ModelSource, seed: number) => new DeviceModel(this, await this.spend(0, () => engine.open(source, seed)), speed), dispose: () => Promise.resolve() };
  }

  /** Begins `work` now and gives its result `virtualMs` later. */
  async spend<T>(virtualMs: number, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const result = this.#begin(work);
    result.catch(() => undefined); // told when its time has come
    await sleep(this.clock, virtualMs, signal);
    return this.clock.hold(() => result);
  }

  /** A pool has turns of its own; other engines compute one thing at a time, in the order in which they were asked. */
  #begin<T>(work: () => Promise<T>): Promise<T> {
    if (isWorkerPool(this.#engine)) return work();
    const result = this.#tail.then(work);
    this.#tail = result.catch(() => undefined);
    return result;
  }
}

class DeviceModel implements OpenModel {
  readonly #shared: SharedEngine;
  readonly #model: OpenModel;
  readonly #stepMs: number;

  constructor(shared: SharedEngine, model: OpenModel, { stepMs }: DeviceSpeed) {
    this.#shared = shared;
    this.#model = model;
    this.#stepMs = stepMs;
  }

  get summary() {
    return this.#model.summary;
  }

  async fit(data: TrainingData, { signal, onEpoch, ...options }: FitOptions): Promise<FitReport> {
    signal?.throwIfAborted();
    const leastSteps = plannedSteps(data, options);
    const epochs: Parameters<NonNullable<FitOptions['onEpoch']>>[0][] = [];
    // A client that loses interest meanwhile does not stop the computation: where it would stop depends on real time.
    const train = () => this.#model.fit(data, { ...options, ...this.#untilGivenUp(), onEpoch: (progress) => epochs.push(progress) });
    const report = await this.#shared.spend(leastSteps * this.#stepMs, train, signal);
    await sleep(this.#shared.clock, (report.steps - leastSteps) * this.#stepMs, signal);
    for (const progress of epochs) onEpoch?.(progress);
    return report;
  }

  async fitPrivately(data: TrainingData, { signal, onStep, random, ...options }: PrivateFitOptions): Promise<PrivateFitReport> {
    signal?.throwIfAborted();
    const model = this.#model;
    if (model.fitPrivately === undefined) throw new FederationError('engine-unavailable', 'This engine has no private gradients.', { field: 'engine', expected: 'an engine with private gradients', next: 'Choose the engine onnx.' });
    const steps: Parameters<NonNullable<PrivateFitOptions['onStep']>>[0][] = [];
    // The client draws from its own source at the same virtual time; this computation takes what it needs at once.
    const stream = keyStream(drawKey(random));
    const train = () => model.fitPrivately!(data, { ...options, ...this.#untilGivenUp(), random: stream, onStep: (progress) => steps.push(progress) });
    const report = await this.#shared.spend(options.steps * this.#stepMs, train, signal);
    for (const progress of steps) onStep?.(progress);
    return report;
  }

  predict(examples: Examples): Promise<Matrix> {
    return this.#shared.spend(0, () => this.#model.predict(examples));
  }

  save(): Promise<SavedModel> {
    return this.#shared.spend(0, () => this.#model.save());
  }

  load(saved: SavedModel): Promise<void> {
    return this.#shared.spend(0, () => this.#model.load(saved));
  }

  dispose(): Promise<void> {
    return this.#shared.spend(0, () => this.#model.dispose());
  }

  #untilGivenUp() {
    const { signal } = this.#shared;
    return signal === undefined ? {} : { signal };
  }
}

/** Steps that a fit surely makes: all of them, unless it may stop early. */
function plannedSteps({ soft, hard }: TrainingData, { epochs, batchSize, earlyStopping }: FitOptions): number {
  const examples = (soft ?? hard)?.examples.count ?? 0;
  const passes = earlyStopping === undefined ? epochs : Math.min(epochs, earlyStopping.patience + 1);
  // Unusable numbers are refused by the engine.
  return Math.max(0, passes * Math.ceil(examples / batchSize) || 0);
}
