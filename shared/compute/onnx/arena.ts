/**
 * Flat parameters, gradients, their sums and moments of one training in one `WebAssembly.Memory`: ONNX Runtime reads and writes views of
 * it in place, and the optimizer passes over it once. A model holds an arena only while it trains, so the number of
 * memories is that of trainings under way, not that of models.
 */
import { type OptimizedVectors, type VectorKernels, vectorKernels } from './optimizers.ts';
import { wasm, type WasmMemory } from '../web-assembly.ts';

const pageBytes = 65_536;
/** Every vector starts at a multiple of a cache line. */
export const alignmentFloats = 16;
/** Idle arenas kept for the next training. */
const idleArenas = 2;

export class Arena implements OptimizedVectors {
  readonly kernels: VectorKernels;
  /** How many floats a vector can have. */
  readonly capacity: number;
  readonly parameters = 0;
  readonly gradients: number;
  readonly firstMoments: number;
  readonly secondMoments: number;
  /** Where gradients of the parts of a batch are added up. */
  readonly sums: number;
  readonly #memory: WasmMemory;
  #length = 0;

  constructor(floats: number) {
    this.capacity = aligned(floats);
    const bytes = 4 * this.capacity;
    this.gradients = bytes;
    this.firstMoments = 2 * bytes;
    this.secondMoments = 3 * bytes;
    this.sums = 4 * bytes;
    this.#memory = new wasm.Memory({ initial: Math.max(Math.ceil((5 * bytes) / pageBytes), 1) });
    this.kernels = vectorKernels(this.#memory);
  }

  /** Bytes in use of each vector. */
  get length(): number {
    return this.#length;
  }

  /** Starts a training: these parameters, everything else zero. */
  reset(parameters: Float32Array): void {
    this.#length = 4 * aligned(parameters.length);
    for (const offset of [this.parameters, this.gradients, this.firstMoments, this.secondMoments]) this.view(offset, this.#length / 4).fill(0);
    this.view(this.parameters, parameters.length).set(parameters);
  }

  /** Copies all of a vector. */
  copy(target: number, source: number): void {
    this.view(target, this.#length / 4).set(this.view(source, this.#length / 4));
  }

  /** `floats` elements from a byte offset. */
  view(byteOffset: number, floats: number): Float32Array {
    return new Float32Array(this.#memory.buffer, byteOffset, floats);
  }
}

/** Arenas between two trainings. */
export class ArenaPool {
  readonly #idle: Arena[] = [];

  acquire(floats: number): Arena {
    const fitting = this.#idle.findIndex((arena) => arena.capacity >= floats);
    return fitting < 0 ? new Arena(floats) : this.#idle.splice(fitting, 1)[0]!;
  }

  release(arena: Arena): void {
    this.#idle.push(arena);
    // The largest serve most models.
    this.#idle.sort((a, b) => b.capacity - a.capacity).splice(idleArenas);
  }
}

export function aligned(floats: number): number {
  return Math.ceil(floats / alignmentFloats) * alignmentFloats;
}
