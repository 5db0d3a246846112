/**
 * A `ComputeEngine` in a thread of its own: training blocks the thread it runs on for milliseconds at a time, which
 * sockets and heartbeats should not have to wait for. Data is copied to the thread and back.
 *
 * An idle engine does not keep the process alive, a running call does.
 */
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { type Transferable, Worker } from 'node:worker_threads';
import { FederationError, unreachable } from '../errors.ts';
import type { Examples, Matrix } from '../types/matrix.ts';
import type { ComputeEngine, FitOptions, FitReport, ModelSource, ModelSummary, OpenModel, SavedModel, TrainingData } from './engine.ts';
import type { EnginePreference } from './select-engine.ts';
import type { EpochProgress, FromWorker, MethodCall, MethodName, ModelHandle, ToWorker, WorkerMethods, WorkerProblem } from './worker-messages.ts';

export interface WorkerEngineOptions {
  /** The script that the thread runs; default: `engine-worker` beside this file. */
  readonly entry?: URL;
}

/** Starts a worker thread with an engine of this preference in it. Throws `engine-unavailable`, or `worker-failed` when the thread does not start. */
export async function startWorkerEngine(preference: EnginePreference, options: WorkerEngineOptions = {}): Promise<ComputeEngine> {
  const calls = new WorkerCalls(options.entry ?? defaultEntry());
  try {
    const { name, reason } = await calls.call('start', { preference });
    return new WorkerEngine(name, reason, calls);
  } catch (error) {
    await calls.terminate();
    throw error;
  }
}

/** Beside a TypeScript source lies a TypeScript worker, beside compiled code a compiled one. */
function defaultEntry(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './engine-worker.ts' : './engine-worker.js', import.meta.url);
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

  async fit(data: TrainingData, { signal, onEpoch, ...options }: FitOptions): Promise<FitReport> {
    const { earlyStopping, ...rest } = options;
    const copies = new Copies();
    const copiedData: TrainingData = {
      ...(data.hard === undefined ? {} : { hard: { examples: copies.examples(data.hard.examples), labels: copies.array(data.hard.labels) } }),
      ...(data.soft === undefined ? {} : { soft: { ...data.soft, examples: copies.examples(data.soft.examples), targets: { ...data.soft.targets, values: copies.array(data.soft.targets.values) } } }),
    };
    const copiedOptions = {
      ...rest,
      ...(earlyStopping === undefined
        ? {}
        : {
            earlyStopping: {
              patience: earlyStopping.patience,
              validation: { examples: copies.examples(earlyStopping.validation.examples), labels: copies.array(earlyStopping.validation.labels) },
            },
          }),
    };
    return this.#calls.call('fit', { model: this.#handle, data: copiedData, options: copiedOptions }, { transfer: copies.buffers, signal, onEpoch });
  }

  async predict(examples: Examples): Promise<Matrix> {
    const copies = new Copies();
    return this.#calls.call('predict', { model: this.#handle, examples: copies.examples(examples) }, { transfer: copies.buffers });
  }

  async save(): Promise<SavedModel> {
    return this.#calls.call('save', { model: this.#handle });
  }

  async load(saved: SavedModel): Promise<void> {
    const copies = new Copies();
    await this.#calls.call('load', { model: this.#handle, saved: { ...saved, weights: copies.array(saved.weights) } }, { transfer: copies.buffers });
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    // The models of a worker that is gone are gone with it.
    if (this.#calls.alive) await this.#calls.call('close', { model: this.#handle });
  }
}

/**
 * Copies of the caller's arrays that move to the worker. Posting the arrays themselves would copy all of the buffer
 * under a view: the whole dataset for a few of its examples.
 */
class Copies {
  readonly buffers: ArrayBuffer[] = [];

  array<T extends Float32Array | Int32Array | Uint8Array>(array: T): T {
    const copy = array.slice() as T;
    this.buffers.push(copy.buffer as ArrayBuffer);
    return copy;
  }

  examples(examples: Examples): Examples {
    return { count: examples.count, shape: [...examples.shape], values: this.array(examples.values) };
  }
}

interface CallOptions {
  readonly transfer?: readonly Transferable[];
  readonly signal?: AbortSignal | undefined;
  readonly onEpoch?: ((progress: EpochProgress) => void) | undefined;
}

interface PendingCall {
  readonly resolve: (result: never) => void;
  readonly reject: (reason: unknown) => void;
  readonly signal: AbortSignal | undefined;
  readonly onEpoch: ((progress: EpochProgress) => void) | undefined;
  /** What `onEpoch` threw: the call is being canceled because of it. */
  thrown?: { readonly error: unknown };
}

/** Remote calls to one worker. */
class WorkerCalls {
  readonly #worker: Worker;
  readonly #pending = new Map<number, PendingCall>();
  #lastId = 0;
  /** Why no call can be made any more. */
  #failure: FederationError | undefined;

  constructor(entry: URL) {
    this.#worker = spawn(entry);
    this.#worker.on('message', (message: FromWorker) => this.#receive(message));
    this.#worker.on('error', (error) => this.#fail(workerFailed(`The compute worker crashed: ${describe(error)}`, error)));
    this.#worker.on('messageerror', (error) => this.#fail(workerFailed(`A message of the compute worker could not be read: ${error.message}`, error)));
    this.#worker.on('exit', (code) => this.#fail(workerFailed(`The compute worker ended by itself with exit code ${code}.`)));
    this.#worker.unref();
  }

  get alive(): boolean {
    return this.#failure === undefined;
  }

  call<M extends MethodName>(method: M, args: WorkerMethods[M]['args'], { transfer = [], signal, onEpoch }: CallOptions = {}): Promise<WorkerMethods[M]['result']> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#failure !== undefined) throw this.#failure;
      const id = ++this.#lastId;
      const onAbort = () => this.#post({ kind: 'cancel', id });
      const settle = () => {
        signal?.removeEventListener('abort', onAbort);
        this.#pending.delete(id);
        if (this.#pending.size === 0) this.#worker.unref();
      };
      this.#pending.set(id, {
        resolve: (result) => {
          settle();
          resolve(result);
        },
        reject: (reason) => {
          settle();
          // Whatever a caller gave its AbortSignal as the reason is what it gets.
          // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors
          reject(reason);
        },
        signal,
        onEpoch,
      });
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#worker.ref();
      try {
        this.#post({ kind: 'call', id, call: { method, args } as MethodCall }, transfer);
      } catch (error) {
        // Something in the arguments that no other thread can have, e.g. a function in a topology.
        this.#pending.get(id)?.reject(error);
      }
    });
  }

  async terminate(): Promise<void> {
    this.#fail(workerFailed('The compute engine was disposed.'));
    await this.#worker.terminate();
  }

  #post(message: ToWorker, transfer: readonly Transferable[] = []): void {
    this.#worker.postMessage(message, transfer);
  }

  #receive(message: FromWorker): void {
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return;
    switch (message.kind) {
      case 'result':
        if (pending.thrown !== undefined) pending.reject(pending.thrown.error);
        else pending.resolve(message.result as never);
        break;
      case 'error':
        pending.reject(fromWorkerProblem(message.problem));
        break;
      case 'canceled':
        pending.reject(pending.thrown === undefined ? pending.signal?.reason : pending.thrown.error);
        break;
      case 'epoch':
        if (pending.thrown !== undefined) break;
        try {
          pending.onEpoch?.(message.progress);
        } catch (error) {
          pending.thrown = { error };
          this.#post({ kind: 'cancel', id: message.id });
        }
        break;
      default:
        unreachable(message);
    }
  }

  /** Ends every call that waits and every later one with this error. The first failure is the one that is told. */
  #fail(failure: FederationError): void {
    this.#failure ??= failure;
    for (const pending of [...this.#pending.values()]) pending.reject(this.#failure);
  }
}

function spawn(entry: URL): Worker {
  if (!entry.pathname.endsWith('.ts')) return new Worker(entry, { execArgv: [] });
  // From sources, as in tests. Node 20 runs no TypeScript, and `--import tsx` does nothing outside the main thread
  // (tsx 4.23), so the thread registers tsx itself before it loads the entry.
  const tsx = new URL('./api/index.mjs', pathToFileURL(createRequire(import.meta.url).resolve('tsx/esm')));
  const bootstrap = `import(${JSON.stringify(tsx.href)}).then(({ register }) => { register(); return import(${JSON.stringify(entry.href)}); })`;
  return new Worker(bootstrap, { eval: true, execArgv: [] });
}

function workerFailed(message: string, cause?: unknown): FederationError {
  return new FederationError('worker-failed', message, { next: 'Start the engine again; if it fails again, choose another engine or a smaller model.', ...(cause === undefined ? {} : { cause }) });
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function fromWorkerProblem({ code, message, field, expected, got, next, stack }: WorkerProblem): FederationError {
  const given = { field, expected, got, next };
  const init = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  return new FederationError(code, message, { ...init, cause: stack });
}
