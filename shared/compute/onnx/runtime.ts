/**
 * The doors to ONNX Runtime: its native package for Node and the one in WebAssembly, both optional. Loads them, or says in one line why it can't. No other file imports
 * them. Their types are written out here as far as they are used, so that the project compiles without them.
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

/** By the names of the engines that use them. */
export type RuntimeName = 'onnx' | 'onnx-web';

interface OrtSession {
  run(inputs: OrtTensors, outputs: OrtTensors | readonly string[]): Promise<OrtTensors>;
  release(): Promise<void>;
}

interface Ort {
  readonly env: { readonly versions?: { readonly node?: string; readonly web?: string; readonly common?: string }; readonly wasm?: { numThreads?: number } };
  readonly Tensor: new (type: 'float32', data: Float32Array, dims: readonly number[]) => OrtTensor;
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<OrtSession> };
}

/** What a runtime needs to be known of. */
interface Package {
  readonly name: string;
  /** What it computes with. */
  readonly code: string;
  readonly executionProvider: string;
  /** Whether results must be copied to where they are wanted: it ignores arrays that it is given for them. */
  readonly copiesOutputs: boolean;
  /** What someone reads who does not have it. */
  readonly missing: string;
}

const packages: Readonly<Record<RuntimeName, Package>> = {
  onnx: { name: 'onnxruntime-node', code: 'native code', executionProvider: 'cpu', copiesOutputs: false, missing: 'the optional package onnxruntime-node is not installed' },
  'onnx-web': {
    name: 'onnxruntime-web',
    code: 'WebAssembly',
    executionProvider: 'wasm',
    copiesOutputs: true,
    missing: 'the optional package onnxruntime-web is not installed; for platforms without onnxruntime-node, "npm install onnxruntime-web@1.30.0" adds it (139 MB)',
  },
};

/**
 * One thread: a pool of threads of its own spins while it waits, and several sessions would fight for the cores. `extended`:
 * the further layout changes pay off only when weights are constants, and here they are inputs.
 */
const sessionOptions = { intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: 'sequential', graphOptimizationLevel: 'extended', logSeverityLevel: 3 };

interface Loaded {
  readonly ort?: Ort;
  readonly report: BackendReport;
}

const loading = new Map<RuntimeName, Promise<Loaded>>();

/** Gets ONNX Runtime ready, once; never throws when it isn't there. */
export async function probeOnnxRuntime(runtime: RuntimeName = 'onnx'): Promise<BackendReport> {
  return (await load(runtime)).report;
}

/** A graph ready to run. Throws what ONNX Runtime says when it refuses the graph. */
export async function createSession(model: Uint8Array, runtime: RuntimeName = 'onnx'): Promise<Session> {
  const { ort, report } = await load(runtime);
  const { name, executionProvider, copiesOutputs } = packages[runtime];
  if (ort === undefined) {
    throw new FederationError('engine-unavailable', `The engine ${runtime} is not available: ${report.reason}.`, { field: 'engine', expected: 'an available engine', got: runtime, next: `Install ${name} 1.30.0, or choose the engine auto.` });
  }
  return new Session(ort, await ort.InferenceSession.create(model, { ...sessionOptions, executionProviders: [executionProvider] }), copiesOutputs);
}

export class Session {
  readonly #ort: Ort;
  readonly #session: OrtSession;
  readonly #copiesOutputs: boolean;

  constructor(ort: Ort, session: OrtSession, copiesOutputs: boolean) {
    this.#ort = ort;
    this.#session = session;
    this.#copiesOutputs = copiesOutputs;
  }

  /** `data` must have as many elements as the shape says, and must not be in a SharedArrayBuffer. */
  tensor(data: Float32Array, shape: readonly number[]): OrtTensor {
    return new this.#ort.Tensor('float32', data, shape);
  }

  /** Reads `inputs` and writes into the arrays of `outputs`; other work of this thread may come first. */
  async run(inputs: OrtTensors, outputs: OrtTensors): Promise<void> {
    if (!this.#copiesOutputs) {
      await this.#session.run(inputs, outputs);
      return;
    }
    const results = await this.#session.run(inputs, Object.keys(outputs));
    for (const [name, { data }] of Object.entries(outputs)) data.set(results[name]!.data);
    // Its promise needs no turn of the event loop: a signal or a timer would wait for the end of the training.
    await new Promise<void>((resolve) => setImmediate(resolve));
  }

  async release(): Promise<void> {
    await this.#session.release();
  }
}

async function load(runtime: RuntimeName): Promise<Loaded> {
  const known = loading.get(runtime) ?? loadOnce(packages[runtime]);
  loading.set(runtime, known);
  return known;
}

async function loadOnce({ name, code, missing }: Package): Promise<Loaded> {
  try {
    // A variable, so that neither TypeScript nor a bundler insists on the optional package.
    const module = (await import(name)) as Ort & { readonly default?: Ort };
    const ort = module.default ?? module;
    // More would be workers of its own, which spin while they wait.
    if (ort.env.wasm !== undefined) ort.env.wasm.numThreads = 1;
    const version = ort.env.versions?.node ?? ort.env.versions?.web ?? ort.env.versions?.common ?? '';
    return { ort, report: { available: true, reason: `gradient graphs of TF.js models in ONNX Runtime ${version} (${code}), optimizers in WebAssembly` } };
  } catch (error) {
    return { report: { available: false, reason: unavailableReason(error, name, missing) } };
  }
}

function unavailableReason(error: unknown, name: string, missing: string): string {
  const message = (error instanceof Error ? error.message : String(error)).split('\n')[0]!.trim();
  const { code } = error as { readonly code?: unknown };
  if (message.includes('onnxruntime_binding.node')) return `onnxruntime-node has no binary for ${process.platform} on ${process.arch}`;
  // As Node says it, and as Vite does of an optional peer.
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND' || message.startsWith(`Could not resolve "${name}"`)) return missing;
  return `${name} does not load: ${message}`;
}
