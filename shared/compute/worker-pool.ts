/**
 * A `ComputeEngine` on several threads, for many models: a simulated federation has a hundred clients and a machine has a few
 * cores. One call runs at a time in each thread; calls of different models overlap, those of one model follow each other.
 *
 * - A thread takes first what waits for a model that it has, or for an architecture that it has compiled; with nothing of that kind it
 *   takes over what waits longest for another one. Who computes changes when something is computed, never what: each engine
 *   inside has one thread, and a model's weights travel with it bit for bit.
 * - The pool has every model's weights, as of its last finished call. What a thread holds is a copy, and the least recently used ones
 *   are let go when they have too many bytes together.
 * - Data sets lie in memory that all threads share (`shared-arrays.ts`).
 * - When a thread dies, its call is made once more in a fresh one from the weights before it; when that dies too, the call fails with the
 *   name of its model. Crashes of native code take the whole process with them and are not survived.
 *
 * An idle pool does not keep the process alive, a running call does.
 */
import { FederationError } from '../errors.ts';
import type { Examples, Matrix } from '../types/matrix.ts';
import type { ComputeEngine, FitOptions, FitReport, ModelSource, ModelSummary, OpenModel, PrivateFitOptions, PrivateFitReport, SavedModel, TrainingData } from './engine.ts';
import type { EnginePreference } from './select-engine.ts';
import { SharedArrays, SpareArrays } from './shared-arrays.ts';
import { carryData, carryExamples, carryFitOptions, carryPrivateFitOptions } from './worker-arguments.ts';
import { type CallOptions, WorkerCalls, workerFailed } from './worker-calls.ts';
import type { EpochProgress, ModelHandle, StepProgress } from './worker-messages.ts';

export interface WorkerPoolOptions {
  /** Threads, >= 1. */
  readonly workers: number;
  readonly engine: EnginePreference;
  /** Bytes of data sets that are kept in shared memory for the next call; default 1 GiB. */
  readonly dataLimitBytes?: number;
  /** Bytes of weights that each thread keeps for the next call; default 256 MiB. */
  readonly weightLimitBytes?: number;
  /** Arrays of fewer bytes are not shared but copied; default 16 KiB. */
  readonly leastSharedBytes?: number;
  /** The script that the threads run; default: `engine-worker` beside this file. */
  readonly entry?: URL;
}

export interface WorkerPool extends ComputeEngine {
  readonly workers: number;
  /** The same pool, whose errors about models opened through it also name this owner, e.g. `client-3`. Disposing it leaves the pool. */
  ownedBy(owner: string): ComputeEngine;
  statistics(): WorkerPoolStatistics;
}

export function isWorkerPool(engine: ComputeEngine): engine is WorkerPool {
  return engine instanceof Pool;
}

/** Since the pool was opened, but for what says otherwise. */
export interface WorkerPoolStatistics {
  readonly workers: readonly {
    readonly calls: number;
    /** Models whose weights the thread has now. */
    readonly residentModels: number;
    readonly residentBytes: number;
  }[];
  /** Times that a model's weights went to a thread which did not have them. */
  readonly restores: number;
  readonly evictions: number;
  /** Threads started instead of ones that died. */
  readonly replacements: number;
  /** Of data sets, in shared memory now. */
  readonly dataBytes: number;
}

/** Starts the threads. Throws `engine-unavailable`, or `worker-failed` when a thread does not start. */
export async function openWorkerPool({ workers, engine, dataLimitBytes = 2 ** 30, weightLimitBytes = 2 ** 28, leastSharedBytes = 2 ** 14, entry }: WorkerPoolOptions): Promise<WorkerPool> {
  if (!Number.isInteger(workers) || workers < 1) {
    throw new FederationError('config-invalid', 'A pool needs at least one worker.', { field: 'workers', expected: 'an integer >= 1', got: String(workers), next: 'Set workers to the number of cores, or leave it out.' });
  }
  const outcomes = await Promise.allSettled(Array.from({ length: workers }, () => startThread(engine, entry)));
  const threads = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  const failed = outcomes.find((outcome) => outcome.status === 'rejected');
  const [first] = threads;
  if (failed === undefined && threads.every(({ name }) => name === first!.name)) {
    return new Pool(threads, { dataLimitBytes, weightLimitBytes, leastSharedBytes, entry });
  }
  await Promise.all(threads.map(({ calls }) => calls.terminate()));
  throw failed?.reason ?? workerFailed(`The threads of one pool chose different engines: ${threads.map(({ name }) => name).join(', ')}.`);
}

interface Thread {
  readonly calls: WorkerCalls;
  readonly name: string;
  readonly reason: string;
}

async function startThread(preference: EnginePreference, entry: URL | undefined): Promise<Thread> {
  const calls = new WorkerCalls(entry);
  try {
    return { calls, ...(await calls.call('start', { preference })) };
  } catch (error) {
    await calls.terminate();
    throw error;
  }
}

/** A place for a thread; the thread may be replaced. */
interface Slot {
  calls: WorkerCalls;
  current: Task | undefined;
  readonly residents: Map<PoolModel, Resident>;
  residentBytes: number;
  /** Architectures that this thread has computed. */
  readonly compiled: Set<string>;
  finishedCalls: number;
}

interface Resident {
  readonly handle: ModelHandle;
  readonly bytes: number;
}

interface Task {
  readonly architecture: string;
  /** Undefined for the opening of a model. */
  readonly model: PoolModel | undefined;
  /** What an error calls it, e.g. `training of mlp-small`. */
  readonly what: string;
  readonly signal: AbortSignal | undefined;
  readonly run: (slot: Slot) => Promise<void>;
  readonly fail: (reason: unknown) => void;
  /** Threads that died of it. */
  deaths: number;
}

interface PoolLimits {
  readonly dataLimitBytes: number;
  readonly weightLimitBytes: number;
  readonly leastSharedBytes: number;
  readonly entry: URL | undefined;
}

/** Threads that one call may kill before it is given up. */
const maxDeaths = 2;

class Pool implements WorkerPool {
  readonly name: string;
  readonly reason: string;
  readonly data: SharedArrays;
  /** Room for weights, which trainings swap for that of the weights before them: new arrays for each made the main thread collect garbage, which workers wait for. */
  readonly spareWeights = new SpareArrays();
  readonly #slots: readonly Slot[];
  readonly #limits: PoolLimits;
  #waiting: Task[] = [];
  #disposed = false;
  #restores = 0;
  #evictions = 0;
  #replacements = 0;

  constructor(threads: readonly Thread[], limits: PoolLimits) {
    const [{ name, reason }] = threads as readonly [Thread, ...Thread[]];
    this.name = name;
    this.reason = `${reason}; ${threads.length === 1 ? 'one worker thread' : `${threads.length} worker threads`}`;
    this.#limits = limits;
    this.data = new SharedArrays({ limitBytes: limits.dataLimitBytes, leastBytes: limits.leastSharedBytes });
    this.#slots = threads.map(({ calls }) => ({ calls, current: undefined, residents: new Map(), residentBytes: 0, compiled: new Set(), finishedCalls: 0 }));
  }

  get workers(): number {
    return this.#slots.length;
  }

  open(source: ModelSource, seed: number): Promise<OpenModel> {
    return this.openFor(undefined, source, seed);
  }

  ownedBy(owner: string): ComputeEngine {
    return { name: this.name, reason: this.reason, open: (source, seed) => this.openFor(owner, source, seed), dispose: () => Promise.resolve() };
  }

  openFor(owner: string | undefined, source: ModelSource, seed: number): Promise<OpenModel> {
    const architecture = architectureOf(source);
    const what = `opening ${source.kind === 'zoo' ? source.name : 'a saved model'}${owner === undefined ? '' : ` of ${owner}`}`;
    return this.submit({ architecture, model: undefined, what, signal: undefined }, async (slot) => {
      const { model: handle, summary } = await slot.calls.call('open', { source, seed });
      const saved = await slot.calls.call('save', { model: handle });
      const model = new PoolModel(this, { owner, source, seed, architecture, summary }, saved);
      this.#keep(slot, model, handle);
      return model;
    });
  }

  /** Runs `work` in a thread when its turn has come. */
  submit<T>(task: Pick<Task, 'architecture' | 'model' | 'what' | 'signal'>, work: (slot: Slot) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      task.signal?.throwIfAborted();
      if (this.#disposed) throw workerFailed('The compute engine was disposed.');
      const onAbort = () => {
        // A call under way hears of the signal itself.
        if (!this.#waiting.includes(queued)) return;
        this.#waiting = this.#waiting.filter((other) => other !== queued);
        queued.fail(task.signal?.reason);
      };
      const settle = () => task.signal?.removeEventListener('abort', onAbort);
      const queued: Task = {
        ...task,
        deaths: 0,
        run: async (slot) => {
          const result = await work(slot);
          settle();
          resolve(result);
        },
        fail: (reason) => {
          settle();
          // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors
          reject(reason);
        },
      };
      task.signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.push(queued);
      this.#dispatch();
    });
  }

  /** The model in this thread, with the weights of its last finished call. */
  async handleOf(slot: Slot, model: PoolModel): Promise<ModelHandle> {
    const resident = slot.residents.get(model);
    if (resident !== undefined) {
      slot.residents.delete(model);
      slot.residents.set(model, resident);
      return resident.handle;
    }
    for (const other of this.#slots) if (other !== slot) this.#close(other, model);
    const { source, seed } = model.origin;
    this.#restores++;
    if (source.kind === 'layersModel') {
      const { model: handle } = await slot.calls.call('open', { source: { ...source, artifacts: model.saved }, seed });
      return this.#keep(slot, model, handle);
    }
    const { model: handle } = await slot.calls.call('open', { source, seed });
    const weights = model.saved.weights.slice();
    await slot.calls.call('load', { model: handle, saved: { ...model.saved, weights } }, { transfer: [weights.buffer] });
    return this.#keep(slot, model, handle);
  }

  /** Lets go of what threads hold for a model. */
  forget(model: PoolModel): void {
    for (const slot of this.#slots) this.#close(slot, model);
  }

  statistics(): WorkerPoolStatistics {
    return {
      workers: this.#slots.map(({ finishedCalls, residents, residentBytes }) => ({ calls: finishedCalls, residentModels: residents.size, residentBytes })),
      restores: this.#restores,
      evictions: this.#evictions,
      replacements: this.#replacements,
      dataBytes: this.data.bytes,
    };
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const task of waiting) task.fail(workerFailed('The compute engine was disposed.'));
    this.data.clear();
    await Promise.all(this.#slots.map(({ calls }) => calls.terminate()));
  }

  /** Gives every idle thread something to do. */
  #dispatch(): void {
    for (const slot of this.#slots) {
      if (slot.current !== undefined) continue;
      const task = this.#choose(slot);
      if (task === undefined) continue;
      this.#waiting = this.#waiting.filter((other) => other !== task);
      slot.current = task;
      void this.#perform(slot, task);
    }
  }

  /** What an idle thread does next: what costs the least to begin, then what came first. */
  #choose(slot: Slot): Task | undefined {
    let best: Task | undefined;
    let least = Infinity;
    for (const task of this.#waiting) {
      const cost = costOfBeginning(slot, task);
      if (cost >= least || this.#slots.some((other) => other !== slot && other.current === undefined && costOfBeginning(other, task) < cost)) continue;
      [best, least] = [task, cost];
      if (cost === 0) break;
    }
    return best;
  }

  async #perform(slot: Slot, task: Task): Promise<void> {
    try {
      slot.compiled.add(task.architecture);
      await task.run(slot);
    } catch (error) {
      if (slot.calls.alive || this.#disposed) task.fail(error);
      else await this.#replace(slot, task, error);
    }
    slot.finishedCalls++;
    slot.current = undefined;
    this.#dispatch();
  }

  /** Starts another thread where one died, and has its call made again. */
  async #replace(slot: Slot, task: Task, error: unknown): Promise<void> {
    task.deaths++;
    for (const model of slot.residents.keys()) model.isResident = false;
    slot.residents.clear();
    slot.residentBytes = 0;
    slot.compiled.clear();
    this.#replacements++;
    try {
      slot.calls = (await startThread(this.name as EnginePreference, this.#limits.entry)).calls;
      if (this.#disposed) await slot.calls.terminate();
    } catch (startError) {
      task.fail(startError);
      return;
    }
    const why = error instanceof Error ? error.message : String(error);
    if (task.deaths >= maxDeaths) task.fail(workerFailed(`Two compute workers died while ${task.what}: ${why}`, error));
    else if (task.signal?.aborted) task.fail(task.signal.reason);
    else if (this.#disposed) task.fail(workerFailed('The compute engine was disposed.'));
    else this.#waiting.unshift(task);
  }

  #keep(slot: Slot, model: PoolModel, handle: ModelHandle): ModelHandle {
    const bytes = model.saved.weights.byteLength;
    slot.residents.set(model, { handle, bytes });
    model.isResident = true;
    slot.residentBytes += bytes;
    for (const oldest of slot.residents.keys()) {
      if (slot.residentBytes <= this.#limits.weightLimitBytes || oldest === model) break;
      this.#evictions++;
      this.#close(slot, oldest);
    }
    return handle;
  }

  #close(slot: Slot, model: PoolModel): void {
    const resident = slot.residents.get(model);
    if (resident === undefined) return;
    slot.residents.delete(model);
    model.isResident = false;
    slot.residentBytes -= resident.bytes;
    // A thread that dies meanwhile has no model left to close.
    if (slot.calls.alive) void slot.calls.call('close', { model: resident.handle }).catch(() => undefined);
  }
}

interface ModelOrigin {
  readonly owner: string | undefined;
  readonly source: ModelSource;
  readonly seed: number;
  readonly architecture: string;
  readonly summary: ModelSummary;
}

class PoolModel implements OpenModel {
  readonly summary: ModelSummary;
  readonly origin: ModelOrigin;
  /** As of the last finished call. */
  saved: SavedModel;
  /** Whether a thread has these weights; then one thread does. */
  isResident = false;
  readonly #pool: Pool;
  readonly #name: string;
  /** Calls of one model follow each other. */
  #tail: Promise<unknown> = Promise.resolve();
  #disposed = false;

  constructor(pool: Pool, origin: ModelOrigin, saved: SavedModel) {
    this.#pool = pool;
    this.origin = origin;
    this.summary = origin.summary;
    this.saved = saved;
    this.#name = origin.owner === undefined ? origin.summary.name : `${origin.summary.name} of ${origin.owner}`;
  }

  fit(data: TrainingData, options: FitOptions): Promise<FitReport> {
    const { signal, onEpoch } = options;
    const once = newerThan(0);
    return this.#submit(`training ${this.#name}`, signal, async (slot, handle) => {
      const { carry } = this.#pool.data;
      const args = { model: handle, data: carryData(data, carry), options: carryFitOptions(options, carry) };
      const told = onEpoch && ((progress: EpochProgress) => once(progress.epoch, () => onEpoch(progress)));
      return this.#thenSave(slot, handle, (room) => slot.calls.call('fit', args, { signal, onEpoch: told, ...room }));
    });
  }

  fitPrivately(data: TrainingData, options: PrivateFitOptions): Promise<PrivateFitReport> {
    const { signal, onStep } = options;
    const once = newerThan(0);
    // Made here, once: a repetition after a crash draws the same batches and the same noise.
    const portable = carryPrivateFitOptions(options);
    return this.#submit(`training ${this.#name} privately`, signal, async (slot, handle) => {
      const args = { model: handle, data: carryData(data, this.#pool.data.carry), options: portable };
      const told = onStep && ((progress: StepProgress) => once(progress.step, () => onStep(progress)));
      return this.#thenSave(slot, handle, (room) => slot.calls.call('fitPrivately', args, { signal, onStep: told, ...room }));
    });
  }

  predict(examples: Examples): Promise<Matrix> {
    return this.#submit(`predicting with ${this.#name}`, undefined, (slot, handle) => slot.calls.call('predict', { model: handle, examples: carryExamples(examples, this.#pool.data.carry) }));
  }

  save(): Promise<SavedModel> {
    return this.#inTurn(async () => ({ topology: structuredClone(this.saved.topology), weightSpecs: this.saved.weightSpecs, weights: this.saved.weights.slice() }));
  }

  load(saved: SavedModel): Promise<void> {
    return this.#submit(`loading weights into ${this.#name}`, undefined, async (slot, handle) => {
      const weights = saved.weights.slice();
      await this.#thenSave(slot, handle, () => slot.calls.call('load', { model: handle, saved: { ...saved, weights } }, { transfer: [weights.buffer] }));
    });
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#tail.catch(() => undefined);
    this.#pool.forget(this);
  }

  /**
   * However a training ends, the model has the weights that it was trained to. One that ends well has written them to shared memory; after any other they are asked for. Those
   * before it stay until then, for a repetition.
   */
  async #thenSave<T>(slot: Slot, handle: ModelHandle, call: (room: Pick<CallOptions, 'weights' | 'onWeights'>) => Promise<T>): Promise<T> {
    const spare = this.#pool.spareWeights;
    const weights = spare.take(this.saved.weights.byteLength);
    let isWritten = false;
    try {
      return await call({ weights, onWeights: () => (isWritten = true) });
    } finally {
      const before = this.saved.weights;
      if (isWritten) this.saved = { ...this.saved, weights };
      else if (slot.calls.alive) this.saved = await slot.calls.call('save', { model: handle });
      // A thread that has died, or not written, writes no more.
      spare.give(isWritten ? before : weights);
    }
  }

  #submit<T>(what: string, signal: AbortSignal | undefined, work: (slot: Slot, handle: ModelHandle) => Promise<T>): Promise<T> {
    return this.#inTurn(() => this.#pool.submit({ architecture: this.origin.architecture, model: this, what, signal }, async (slot) => work(slot, await this.#pool.handleOf(slot, this))));
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#disposed) return Promise.reject(new FederationError('internal', `The model ${this.summary.name} was used after its disposal.`));
    const result = this.#tail.then(work);
    this.#tail = result.catch(() => undefined);
    return result;
  }
}

/** In no unit: 0 when the thread has the model, then an unknown model, then one to be taken away from another thread; a compilation is dearest. */
function costOfBeginning({ residents, compiled }: Slot, { model, architecture }: Task): number {
  if (model !== undefined && residents.has(model)) return 0;
  return (model?.isResident === true ? 2 : 1) + (compiled.has(architecture) ? 0 : 2);
}

/** Calls back only for numbers above all before: a call that is made again tells nothing twice. */
function newerThan(start: number): (position: number, callback: () => void) => void {
  let last = start;
  return (position, callback) => {
    if (position <= last) return;
    last = position;
    callback();
  };
}

/** The same text for sources of one architecture; two texts for one architecture would cost a compilation and nothing else. */
function architectureOf(source: ModelSource): string {
  return source.kind === 'zoo' ? JSON.stringify([source.name, source.exampleShape, source.numClasses, source.dropout ?? 0]) : `${source.outputKind}${JSON.stringify(source.artifacts.topology)}`;
}
