/**
 * Uniform integers and exact coin flips from a `RandomSource`: integer arithmetic only, no floats, no approximation.
 *
 * Not constant time: rejection loops take as long as they take, and what they took depends on the outcome.
 */
import type { RandomSource } from '../../ports/random-source.ts';

/** Bytes read from the source at a time; one system call an outcome would dominate. */
const BLOCK_BYTES = 4096;
const WORD_RANGE = 2 ** 32;

export class UniformBits {
  readonly #random: RandomSource;
  #block: DataView = new DataView(new ArrayBuffer(0));
  #offset = 0;
  #bits = 0;
  #bitsLeft = 0;

  constructor(random: RandomSource) {
    this.#random = random;
  }

  /** Uniform in [0, 2^32). */
  word(): number {
    if (this.#offset + 4 > this.#block.byteLength) {
      const bytes = this.#random.bytes(BLOCK_BYTES);
      this.#block = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      this.#offset = 0;
    }
    const word = this.#block.getUint32(this.#offset, true);
    this.#offset += 4;
    return word;
  }

  /** True with probability 1/2. */
  bit(): boolean {
    if (this.#bitsLeft === 0) {
      this.#bits = this.word();
      this.#bitsLeft = 32;
    }
    const bit = (this.#bits & 1) === 1;
    this.#bits >>>= 1;
    this.#bitsLeft--;
    return bit;
  }

  /** Uniform in [0, bound), 1 <= bound <= 2^32. Rejection: no modulo bias. */
  below(bound: number): number {
    if (bound === 1) return 0;
    const limit = WORD_RANGE - (WORD_RANGE % bound);
    let word = this.word();
    while (word >= limit) word = this.word();
    return word % bound;
  }

  /** True with probability exp(-numerator/denominator), 0 <= numerator <= denominator < 2^32 (Canonne, Kamath & Steinke 2020, Alg. 1). */
  bernoulliExp(numerator: number, denominator: number): boolean {
    let k = 1;
    // Bernoulli(gamma / k) as Bernoulli(gamma) and Bernoulli(1 / k), which keeps the integers small.
    while (this.below(denominator) < numerator && this.below(k) === 0) k++;
    return k % 2 === 1;
  }
}
