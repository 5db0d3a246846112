/**
 * The door to ONNX Runtime for Node, an optional package: loads it, or says in one line why it can't. No other file imports
 * it. Its types are written out here as far as they are used, so that the project compiles without it.
 *
 * A run blocks its thread, and runs of one process do not overlap within a thread: long trainings belong into workers.
 */
import { FederationError } from '../../errors.ts';
import type { BackendReport } from '../backend.ts';

/** A view of an array with a shape: the runtime reads and writes the array in place. */
export interface OrtTensor {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

export type OrtTensors = Record<string, OrtTensor>;

interface OrtSession {
  run(inputs: OrtTensors, outputs: OrtTensors): Promise<OrtTensors>;
  release(): Promise<void>;
}

interface Ort {
  readonly env: { readonly versions?: { readonly node?: string; readonly common?: string } };
  readonly Tensor: new (type: 'float32', data: Float32Array, dims: readonly number[]) => OrtTensor;
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<OrtSession> };
}

/**
 * One thread: a pool of threads of its own spins while it waits, and several sessions would fight for the cores. `extended`:
 * the further layout changes pay off only when weights are constants, and here they are inputs.
 */
const sessionOptions = { intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: 'sequential', graphOptimizationLevel: 'extended', logSeverityLevel: 3 };

let loading: Promise<{ readonly ort?: Ort; readonly report: BackendReport }> | undefined;

/** Gets ONNX Runtime ready, once; never throws when it isn't there. */
export async function probeOnnxRuntime(): Promise<BackendReport> {
  return (await load()).report;
}

/** A graph ready to run. Throws what ONNX Runtime says when it refuses the graph. */
export async function createSession(model: Uint8Array): Promise<Session> {
  const { ort, report } = await load();
  if (ort === undefined) {
    throw new FederationError('engine-unavailable', `The engine onnx is not available: ${report.reason}.`, { field: 'engine', expected: 'an available engine', got: 'onnx', next: 'Install onnxruntime-node 1.30.0, or choose the engine auto.' });
  }
  return new Session(ort, await ort.InferenceSession.create(model, sessionOptions));
}

export class Session {
  readonly #ort: Ort;
  readonly #session: OrtSession;

  constructor(ort: Ort, session: OrtSession) {
    this.#ort = ort;
    this.#session = session;
  }

  /** `data` must have as many elements as the shape says, and must not be in a SharedArrayBuffer. */
  tensor(data: Float32Array, shape: readonly number[]): OrtTensor {
    return new this.#ort.Tensor('float32', data, shape);
  }

  /** Reads `inputs` and writes into the arrays of `outputs`; other work of this thread may come first. */
  async run(inputs: OrtTensors, outputs: OrtTensors): Promise<void> {
    await this.#session.run(inputs, outputs);
  }

  async release(): Promise<void> {
    await this.#session.release();
  }
}

async function load(): Promise<{ readonly ort?: Ort; readonly report: BackendReport }> {
  loading ??= loadOnce();
  return loading;
}

async function loadOnce(): Promise<{ readonly ort?: Ort; readonly report: BackendReport }> {
  // A variable, so that neither TypeScript nor a bundler insists on the optional package.
  const optionalPackage = 'onnxruntime-node';
  try {
    const module = (await import(optionalPackage)) as Ort & { readonly default?: Ort };
    const ort = module.default ?? module;
    const version = ort.env.versions?.node ?? ort.env.versions?.common ?? '';
    return { ort, report: { available: true, reason: `gradient graphs of TF.js models in ONNX Runtime ${version} (native code), optimizers in WebAssembly` } };
  } catch (error) {
    return { report: { available: false, reason: unavailableReason(error) } };
  }
}

function unavailableReason(error: unknown): string {
  const message = (error instanceof Error ? error.message : String(error)).split('\n')[0]!.trim();
  const { code } = error as { readonly code?: unknown };
  if (message.includes('onnxruntime_binding.node')) return `onnxruntime-node has no binary for ${process.platform} on ${process.arch}`;
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') return 'the optional package onnxruntime-node is not installed';
  return `onnxruntime-node does not load: ${message}`;
}
