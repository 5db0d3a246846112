/** The thread behind `worker-engine.ts`: one engine, its models by handle, one reply for each call. */
import { type MessagePort, parentPort, type Transferable } from 'node:worker_threads';
import { FederationError, unreachable } from '../errors.ts';
import type { ComputeEngine, OpenModel } from './engine.ts';
import { keyStream } from './key-stream.ts';
import { selectEngine } from './select-engine.ts';
import type { EpochProgress, FromWorker, MethodCall, MethodResult, ModelHandle, StepProgress, ToWorker, WorkerProblem } from './worker-messages.ts';

let engine: ComputeEngine | undefined;
const models = new Map<ModelHandle, OpenModel>();
const running = new Map<number, AbortController>();
let lastHandle = 0;

const port = parentPort;
if (port === null) throw new FederationError('internal', 'engine-worker.ts is the entry of a worker thread, not of a process.');
port.on('message', (message: ToWorker) => {
  if (message.kind === 'cancel') running.get(message.id)?.abort();
  else void answer(port, message);
});

async function answer(replies: MessagePort, { id, call, listens, weights }: Extract<ToWorker, { readonly kind: 'call' }>): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  const reply = (message: FromWorker, transfer: readonly Transferable[] = []) => replies.postMessage(message, transfer);
  try {
    const result = await perform(call, controller.signal, {
      onEpoch: listens ? (progress) => reply({ kind: 'epoch', id, progress }) : undefined,
      onStep: listens ? (progress) => reply({ kind: 'step', id, progress }) : undefined,
    });
    if (weights !== undefined && (call.method === 'fit' || call.method === 'fitPrivately')) {
      weights.set((await opened(call.args.model).save()).weights);
      reply({ kind: 'result', id, result, wroteWeights: true });
    } else reply({ kind: 'result', id, result }, ownedBuffers(result));
  } catch (error) {
    reply(controller.signal.aborted && error === controller.signal.reason ? { kind: 'canceled', id } : { kind: 'error', id, problem: toWorkerProblem(error) });
  } finally {
    running.delete(id);
  }
}

interface Listeners {
  readonly onEpoch: ((progress: EpochProgress) => void) | undefined;
  readonly onStep: ((progress: StepProgress) => void) | undefined;
}

async function perform({ method, args }: MethodCall, signal: AbortSignal, { onEpoch, onStep }: Listeners): Promise<MethodResult> {
  switch (method) {
    case 'start': {
      engine = await selectEngine(args.preference);
      return { name: engine.name, reason: engine.reason };
    }
    case 'open': {
      if (engine === undefined) throw new FederationError('internal', 'The compute worker was asked for a model before it was started.');
      const model = await engine.open(args.source, args.seed);
      models.set(++lastHandle, model);
      return { model: lastHandle, summary: model.summary };
    }
    case 'fit':
      return opened(args.model).fit(args.data, { ...args.options, signal, ...(onEpoch === undefined ? {} : { onEpoch }) });
    case 'fitPrivately': {
      const model = opened(args.model);
      if (model.fitPrivately === undefined) throw withoutPrivateGradients(model);
      const { key, ...options } = args.options;
      return model.fitPrivately(args.data, { ...options, random: keyStream(key), signal, ...(onStep === undefined ? {} : { onStep }) });
    }
    case 'predict':
      return opened(args.model).predict(args.examples);
    case 'save':
      return opened(args.model).save();
    case 'load':
      await opened(args.model).load(args.saved);
      return null;
    case 'close':
      await opened(args.model).dispose();
      models.delete(args.model);
      return null;
    default:
      return unreachable(method);
  }
}

function opened(handle: ModelHandle): OpenModel {
  const model = models.get(handle);
  if (model === undefined) throw new FederationError('internal', 'The model was used after its disposal.');
  return model;
}

function withoutPrivateGradients({ summary }: OpenModel): FederationError {
  return new FederationError('engine-unavailable', `The engine ${engine?.name ?? ''} cannot train ${summary.name} with private gradients.`, { field: 'engine', expected: 'an engine with private gradients', got: engine?.name ?? '', next: 'Choose the engine onnx.' });
}

/** Buffers that were made for this result alone, so that they can move instead of being copied. */
function ownedBuffers(result: MethodResult): ArrayBuffer[] {
  if (result === null) return [];
  const array = 'values' in result ? result.values : 'weights' in result ? result.weights : undefined;
  return array !== undefined && array.byteLength === array.buffer.byteLength ? [array.buffer as ArrayBuffer] : [];
}

function toWorkerProblem(error: unknown): WorkerProblem {
  const problem = error instanceof FederationError ? error : new FederationError('internal', `The compute worker failed: ${error instanceof Error ? error.message : String(error)}`);
  const { code, message, field, expected, got, next } = problem;
  return { code, message, field, expected, got, next, stack: error instanceof Error ? error.stack : undefined };
}
