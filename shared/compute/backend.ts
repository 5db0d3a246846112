/**
 * The door to TF.js: loads a back end, or says in one line why it can't. Besides `models/` and `wasm-kernels.ts` no file
 * imports TF.js for itself. Nothing is fetched: the wasm binaries are those of the installed package.
 *
 * TF.js keeps one current back end per process (thread), so `useBackend` comes before each piece of synchronous work.
 */
import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import { FederationError } from '../errors.ts';
import { installWasmKernels } from './wasm-kernels.ts';

export { tf };

export type BackendName = 'tfjs-node' | 'tfjs-wasm' | 'tfjs-cpu';

export interface BackendReport {
  readonly available: boolean;
  /** One sentence: what it is, or why it isn't there. */
  readonly reason: string;
}

/** All back ends, fastest first. */
export const backendNames: readonly BackendName[] = ['tfjs-node', 'tfjs-wasm', 'tfjs-cpu'];

/** The names under which TF.js registers them. */
const registryNames: Record<BackendName, string> = { 'tfjs-node': 'tensorflow', 'tfjs-wasm': 'wasm', 'tfjs-cpu': 'cpu' };

const loaders: Record<BackendName, () => Promise<BackendReport>> = { 'tfjs-node': loadNode, 'tfjs-wasm': loadWasm, 'tfjs-cpu': loadCpu };
const reports = new Map<BackendName, Promise<BackendReport>>();

// The plain back end prints an advertisement for tfjs-node on first use unless in production mode.
tf.enableProdMode();

/** Gets a back end ready, once; never throws for one that isn't there. */
export function loadBackend(name: BackendName): Promise<BackendReport> {
  let report = reports.get(name);
  if (report === undefined) {
    report = loaders[name]();
    reports.set(name, report);
  }
  return report;
}

/** Makes a loaded back end the current one. */
export function useBackend(name: BackendName): void {
  // Synchronous for a back end that is initialized already; the promise then says nothing new.
  if (tf.getBackend() !== registryNames[name]) void tf.setBackend(registryNames[name]);
}

async function loadNode(): Promise<BackendReport> {
  const major = Number(process.versions.node.split('.')[0]);
  if (major >= 23) {
    return { available: false, reason: `@tensorflow/tfjs-node 4.22.0 uses a function that Node ${major} no longer has (it needs Node 22 or older)` };
  }
  // Keeps libtensorflow's start-up notes off the terminal.
  process.env['TF_CPP_MIN_LOG_LEVEL'] ??= '2';
  // A variable, so that neither TypeScript nor a bundler insists on the optional package.
  const optionalPackage = '@tensorflow/tfjs-node';
  try {
    await import(optionalPackage);
    return await activate('tfjs-node', 'TensorFlow in native code (@tensorflow/tfjs-node)');
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (code === 'ERR_MODULE_NOT_FOUND') return { available: false, reason: 'the optional package @tensorflow/tfjs-node is not installed' };
    // Its install script downloads the binary, which not every network lets it do; the package's message is a page long.
    if (firstLine(error).includes('tfjs_binding.node')) return { available: false, reason: '@tensorflow/tfjs-node is installed without its native binary' };
    return { available: false, reason: `@tensorflow/tfjs-node does not load: ${firstLine(error)}` };
  }
}

async function loadWasm(): Promise<BackendReport> {
  try {
    const packageFolder = dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm/package.json'));
    setWasmPaths(join(packageFolder, 'dist') + sep);
    const report = await withoutNewProcessListeners(() => activate('tfjs-wasm', 'TF.js on WebAssembly with SIMD where the machine has it'));
    if (report.available) installWasmKernels();
    return report;
  } catch (error) {
    return { available: false, reason: `TF.js's WebAssembly back end does not load: ${firstLine(error)}` };
  }
}

/**
 * Emscripten's start-up code listens to the process's uncaught exceptions only to throw them again, from its own
 * minified source, all of which Node then prints before the real error. Takes those listeners off again.
 */
async function withoutNewProcessListeners<T>(work: () => Promise<T>): Promise<T> {
  const events = ['uncaughtException', 'unhandledRejection'];
  const before = events.map((event) => new Set(process.listeners(event as NodeJS.Signals)));
  const result = await work();
  events.forEach((event, i) => {
    for (const listener of process.listeners(event as NodeJS.Signals)) {
      const rethrows = /throw (ex|reason)\b/.test(listener.toString());
      if (rethrows && !before[i]!.has(listener)) process.removeListener(event, listener);
    }
  });
  return result;
}

async function loadCpu(): Promise<BackendReport> {
  return activate('tfjs-cpu', 'TF.js in plain JavaScript: works everywhere, slow');
}

async function activate(name: BackendName, description: string): Promise<BackendReport> {
  const initialized = await tf.setBackend(registryNames[name]);
  return initialized ? { available: true, reason: description } : { available: false, reason: `TF.js could not initialize its ${registryNames[name]} back end` };
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : JSON.stringify(error)).split('\n')[0]!.trim();
}

/** A back end's error as one that names what to do, when it is one of those that a user can do something about. */
export function explainBackendError(error: unknown, name: BackendName): unknown {
  const missing = error instanceof Error ? /Kernel '(\w+)' not registered for backend/.exec(error.message)?.[1] : undefined;
  if (missing === undefined) return error;
  return new FederationError('engine-unavailable', `The model needs the operation ${missing}, which the engine ${name} does not have.`, {
    field: 'engine',
    expected: `an engine with ${missing}`,
    got: name,
    next: 'Choose the engine tfjs-node, or tfjs-cpu (slow), or another model.',
    cause: error,
  });
}
