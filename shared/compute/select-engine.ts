/**
 * Picks the engine that this machine can run. Importing this file loads no tensor library; choosing does.
 */
import type { BackendName } from './backend.ts';
import type { ComputeEngine } from './engine.ts';
import { FederationError } from '../errors.ts';
import type { RuntimeName } from './onnx/runtime.ts';

/** `auto`: the fastest engine of any kind; `tfjs`: the fastest of TF.js's back ends; otherwise that one or an error. */
export type EnginePreference = 'auto' | 'onnx' | 'onnx-web' | 'tfjs' | 'tfjs-node' | 'tfjs-wasm' | 'tfjs-cpu';

export const enginePreferences: readonly EnginePreference[] = ['auto', 'onnx', 'onnx-web', 'tfjs', 'tfjs-node', 'tfjs-wasm', 'tfjs-cpu'];

export interface EngineProbe {
  readonly name: string;
  readonly available: boolean;
  /** What it is, or why it isn't there: one sentence without a full stop. */
  readonly reason: string;
}

/** One way to compute. Another kind of engine is one more entry of `candidates`. */
interface Candidate {
  readonly name: string;
  /** The preferences besides its own name that may choose it. */
  readonly groups: readonly EnginePreference[];
  readonly probe: () => Promise<EngineProbe>;
  readonly create: (reason: string) => Promise<ComputeEngine>;
}

/** Fastest first. */
const candidates: readonly Candidate[] = [onnx('onnx'), onnx('onnx-web'), tfjs('tfjs-node'), tfjs('tfjs-wasm'), tfjs('tfjs-cpu')];

function onnx(name: RuntimeName): Candidate {
  return {
    name,
    groups: ['auto'],
    probe: async () => ({ name, ...(await (await import('./onnx/runtime.ts')).probeOnnxRuntime(name)) }),
    create: async (reason) => (await import('./onnx/onnx-engine.ts')).createOnnxEngine(reason, { runtime: name }),
  };
}

function tfjs(name: BackendName): Candidate {
  return {
    name,
    groups: ['auto', 'tfjs'],
    probe: async () => ({ name, ...(await (await import('./backend.ts')).loadBackend(name)) }),
    create: async (reason) => (await import('./tfjs-engine.ts')).createTfjsEngine(name, reason),
  };
}

/**
 * The first engine of the preference that works; its `reason` also says why faster ones were passed over. Throws
 * `engine-unavailable` when none does.
 */
export async function selectEngine(preference: EnginePreference): Promise<ComputeEngine> {
  const passedOver: string[] = [];
  for (const candidate of candidates) {
    if (candidate.name !== preference && !candidate.groups.includes(preference)) continue;
    const { available, reason } = await candidate.probe();
    if (available) return candidate.create([reason, ...passedOver].join('; '));
    passedOver.push(`not ${candidate.name}: ${reason}`);
  }
  throw new FederationError('engine-unavailable', `No engine for "${preference}" works on this machine: ${passedOver.join('; ') || 'there is none of that name'}.`, {
    field: 'engine',
    expected: enginePreferences.join(', '),
    got: preference,
    next: 'Choose the engine auto, or run "fedstill doctor" to see what this machine has.',
  });
}

/** Every engine, fastest first, and whether it works here: for `fedstill doctor`. */
export async function probeEngines(): Promise<readonly EngineProbe[]> {
  const probes: EngineProbe[] = [];
  // One after the other: loading two back ends at a time would race for TF.js's one current back end.
  for (const candidate of candidates) probes.push(await candidate.probe());
  return probes;
}
