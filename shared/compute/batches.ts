/**
 * Seeded batches, cut in JavaScript: on the wasm back end `tf.slice` of a large tensor copies all of it first.
 */
import { deriveSeed, SeededGenerator } from '../datasets/seeded-generator.ts';
import { exampleSize, type Examples, type Matrix } from '../types/matrix.ts';

/** Which examples come next: passes over all of them, each in a new order. */
export class Shuffler {
  readonly #generator: SeededGenerator;
  readonly #count: number;
  #order: Uint32Array;
  #next = 0;

  /** `label` keeps the streams of one seed apart. `count` >= 1. */
  constructor(count: number, seed: number, label: string) {
    this.#generator = new SeededGenerator(deriveSeed(seed, 'shuffle', label));
    this.#count = count;
    this.#order = this.#generator.permutation(count);
  }

  /** The next `size` positions, or fewer at the end of a pass. */
  withinPass(size: number): Uint32Array {
    if (this.#next === this.#count) this.#reshuffle();
    const end = Math.min(this.#next + size, this.#count);
    const positions = this.#order.slice(this.#next, end);
    this.#next = end;
    return positions;
  }

  /** The next `size` positions, going on into further passes: always full batches. */
  acrossPasses(size: number): Uint32Array {
    const positions = new Uint32Array(size);
    let filled = 0;
    while (filled < size) {
      const part = this.withinPass(size - filled);
      positions.set(part, filled);
      filled += part.length;
    }
    return positions;
  }

  #reshuffle(): void {
    this.#order = this.#generator.permutation(this.#count);
    this.#next = 0;
  }
}

/** The values of the examples at these positions, one after the other. */
export function gatherExamples({ values, shape }: Examples, positions: Uint32Array): Float32Array {
  return gather(values, exampleSize(shape), positions);
}

/** The values of the rows at these positions, one after the other. */
export function gatherRows({ values, columns }: Matrix, positions: Uint32Array): Float32Array {
  return gather(values, columns, positions);
}

function gather(values: Float32Array, size: number, positions: Uint32Array): Float32Array {
  const result = new Float32Array(positions.length * size);
  for (let i = 0; i < positions.length; i++) {
    const start = positions[i]! * size;
    result.set(values.subarray(start, start + size), i * size);
  }
  return result;
}

/** One row a label, 1 in the label's column: [positions x numClasses]. */
export function oneHotRows(labels: Int32Array, positions: Uint32Array, numClasses: number): Float32Array {
  const result = new Float32Array(positions.length * numClasses);
  for (let i = 0; i < positions.length; i++) result[i * numClasses + labels[positions[i]!]!] = 1;
  return result;
}

/** The weights of the examples at these positions; 1 where there are none. */
export function rowWeights(weights: Float32Array | undefined, positions: Uint32Array): Float32Array {
  return Float32Array.from(positions, (position) => weights?.[position] ?? 1);
}
