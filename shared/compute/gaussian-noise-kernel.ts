/**
 * The part of gaussian-noise.ts that is the same for nearly every number: two at a time in WebAssembly (gaussian-noise.wat), or where that
 * does not start the same operations in JavaScript, so that both give the same bits.
 */
import { gaussianNoiseWasm } from './gaussian-noise-wasm.ts';
import { wasm, type WasmMemory } from './web-assembly.ts';

/** Numbers of one call at most. */
export const blockNumbers = 4096;

/** Where the memory has its arrays, in bytes; gaussian-noise.wat has the same numbers. */
const offsets = { limits: 0, widths: 1024, words: 4096, sums: 20_480, undecided: 36_864 };

export interface NoiseKernel {
  /** Of each layer: places of a word that are nearer to zero than this lie under the curve, whatever the bits after them. */
  readonly limits: Int32Array;
  /** Of each layer: what one place of a word is wide, in standard deviations. */
  readonly widths: Float64Array;
  /** Random bits: the lowest 8 choose the layer, the others are a signed place in it. */
  readonly words: Int32Array;
  readonly sums: Float32Array;
  /** Positions of the sums that their words do not decide, rising. */
  readonly undecided: Int32Array;
  /**
   * Replaces the first `count` sums by `floor(sum * cells + x * noiseCells + 0.5) * scale`, x being what the word gives. Where x is not sure to be under the
   * curve, or bits after those of the word could change the result, the position is undecided and its sum is lost. Returns how many are.
   */
  release(count: number, cells: number, noiseCells: number, scale: number): number;
}

/** Over a memory of its own. */
export function noiseKernel(): NoiseKernel {
  return wasmNoiseKernel() ?? javascriptNoiseKernel();
}

export function wasmNoiseKernel(): NoiseKernel | undefined {
  const memory = new wasm.Memory({ initial: 1 });
  try {
    const { exports } = new wasm.Instance(new wasm.Module(gaussianNoiseWasm), { noise: { memory } });
    return { ...arraysOf(memory), release: exports['release'] as NoiseKernel['release'] };
  } catch {
    return undefined;
  }
}

export function javascriptNoiseKernel(): NoiseKernel {
  const arrays = arraysOf(new wasm.Memory({ initial: 1 }));
  const { limits, widths, words, sums, undecided } = arrays;
  return {
    ...arrays,
    release(count, cells, noiseCells, scale) {
      let found = 0;
      for (let i = 0; i < count; i++) {
        const layer = words[i]! & 0xff;
        const place = words[i]! >> 8;
        const sum = sums[i]! * cells;
        const first = Math.floor(sum + place * widths[layer]! * noiseCells + 0.5);
        const last = Math.floor(sum + (place + 1) * widths[layer]! * noiseCells + 0.5);
        if (first !== last || Math.abs(place) >= limits[layer]!) undecided[found++] = i;
        sums[i] = first * scale;
      }
      return found;
    },
  };
}

function arraysOf({ buffer }: WasmMemory): Omit<NoiseKernel, 'release'> {
  return {
    limits: new Int32Array(buffer, offsets.limits, 256),
    widths: new Float64Array(buffer, offsets.widths, 256),
    words: new Int32Array(buffer, offsets.words, blockNumbers),
    sums: new Float32Array(buffer, offsets.sums, blockNumbers),
    undecided: new Int32Array(buffer, offsets.undecided, blockNumbers),
  };
}
