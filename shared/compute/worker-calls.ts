/** Calls to the thread of `engine-worker.ts`: one reply for each, an end for all of them when the thread ends. */
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { type Transferable, Worker } from 'node:worker_threads';
import { FederationError, unreachable } from '../errors.ts';
import type { EpochProgress, FromWorker, MethodCall, MethodName, StepProgress, ToWorker, WorkerMethods, WorkerProblem } from './worker-messages.ts';

export interface CallOptions {
  readonly transfer?: readonly Transferable[];
  readonly signal?: AbortSignal | undefined;
  readonly onEpoch?: ((progress: EpochProgress) => void) | undefined;
  readonly onStep?: ((progress: StepProgress) => void) | undefined;
  /** Shared memory for the weights that a training leaves. */
  readonly weights?: Uint8Array | undefined;
  /** Called when they are there, before the call ends. */
  readonly onWeights?: () => void;
}

interface PendingCall {
  readonly resolve: (result: never) => void;
  readonly reject: (reason: unknown) => void;
  readonly signal: AbortSignal | undefined;
  readonly onEpoch: ((progress: EpochProgress) => void) | undefined;
  readonly onStep: ((progress: StepProgress) => void) | undefined;
  readonly onWeights: (() => void) | undefined;
  /** What a callback threw: the call is being canceled because of it. */
  thrown?: { readonly error: unknown };
}

/** One worker. It does not keep the process alive while it is idle; a running call does. */
export class WorkerCalls {
  readonly #worker: Worker;
  readonly #pending = new Map<number, PendingCall>();
  #lastId = 0;
  /** Why no call can be made any more. */
  #failure: FederationError | undefined;

  /** `entry`: the script that the thread runs; default: `engine-worker` beside this file. */
  constructor(entry: URL = defaultEntry()) {
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

  call<M extends MethodName>(method: M, args: WorkerMethods[M]['args'], { transfer = [], signal, onEpoch, onStep, weights, onWeights }: CallOptions = {}): Promise<WorkerMethods[M]['result']> {
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
        onStep,
        onWeights,
      });
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#worker.ref();
      try {
        this.#post({ kind: 'call', id, call: { method, args } as MethodCall, listens: onEpoch !== undefined || onStep !== undefined, weights }, transfer);
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
        if (message.wroteWeights === true) pending.onWeights?.();
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
        this.#tell(message.id, pending, () => pending.onEpoch?.(message.progress));
        break;
      case 'step':
        this.#tell(message.id, pending, () => pending.onStep?.(message.progress));
        break;
      default:
        unreachable(message);
    }
  }

  #tell(id: number, pending: PendingCall, callback: () => void): void {
    if (pending.thrown !== undefined) return;
    try {
      callback();
    } catch (error) {
      pending.thrown = { error };
      this.#post({ kind: 'cancel', id });
    }
  }

  /** Ends every call that waits and every later one with this error. The first failure is the one that is told. */
  #fail(failure: FederationError): void {
    this.#failure ??= failure;
    for (const pending of [...this.#pending.values()]) pending.reject(this.#failure);
  }
}

/** Beside a TypeScript source lies a TypeScript worker, beside compiled code a compiled one. */
function defaultEntry(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './engine-worker.ts' : './engine-worker.js', import.meta.url);
}

/**
 * Of a worker's heap at first, in MiB. V8 otherwise lowers the size at which it collects the whole heap after every small collection that finds
 * little alive, as between training steps, and counts weights and batches, which lie outside the heap, into it: with a hundred models open it collected
 * everything every few trainings, on all cores (Node 20). Heaps take no more than they need for this, and collect all the same when they reach it.
 */
const initialHeapMiB = 256;

function spawn(entry: URL): Worker {
  // Only heaps that are made later read it. `resourceLimits` has no such limit, and a worker's `execArgv` takes no flags of V8.
  setFlagsFromString(`--initial-old-space-size=${initialHeapMiB}`);
  if (!entry.pathname.endsWith('.ts')) return new Worker(entry, { execArgv: [] });
  // From sources, as in tests. Node 20 runs no TypeScript, and `--import tsx` does nothing outside the main thread
  // (tsx 4.23), so the thread registers tsx itself before it loads the entry.
  const tsx = new URL('./api/index.mjs', pathToFileURL(createRequire(import.meta.url).resolve('tsx/esm')));
  const bootstrap = `import(${JSON.stringify(tsx.href)}).then(({ register }) => { register(); return import(${JSON.stringify(entry.href)}); })`;
  return new Worker(bootstrap, { eval: true, execArgv: [] });
}

export function workerFailed(message: string, cause?: unknown): FederationError {
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
