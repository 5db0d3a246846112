/**
 * Poisson batches: each record is in a batch with the same probability, independently of all others and of other batches. That, and
 * not shuffling, is what privacy amplification by subsampling is proven for (docs/privacy-model.md), so it must be exact.
 */
import type { RandomSource } from '../ports/random-source.ts';
import { RandomWords } from './random-words.ts';

const digitRange = 2 ** 16;

export class PoissonBatches {
  readonly #words: RandomWords;
  readonly #count: number;
  readonly #rate: number;
  #spare = -1;

  /** `rate`: in (0, 1], taken as the exact binary fraction that it is. */
  constructor(count: number, rate: number, random: RandomSource) {
    this.#words = new RandomWords(random);
    this.#count = count;
    this.#rate = rate;
  }

  /** Positions of the records of the next batch, rising; there may be none. */
  next(): Uint32Array<ArrayBuffer> {
    const positions = new Uint32Array(this.#count);
    const first = Math.floor(this.#rate * digitRange);
    let size = 0;
    for (let position = 0; position < this.#count; position++) {
      const digit = this.#digit();
      if (digit < first || (digit === first && this.#isBelowRest())) positions[size++] = position;
    }
    return positions.slice(0, size);
  }

  /** Compares further digits of a uniform number with those of the rate until they differ: exact, without a number of many bits for each record. */
  #isBelowRest(): boolean {
    let rest = this.#rate;
    for (;;) {
      rest = rest * digitRange - Math.floor(rest * digitRange);
      if (rest === 0) return false;
      const [digit, expected] = [this.#digit(), Math.floor(rest * digitRange)];
      if (digit !== expected) return digit < expected;
    }
  }

  /** Uniform in [0, 2^16): half a word. */
  #digit(): number {
    if (this.#spare >= 0) {
      const digit = this.#spare;
      this.#spare = -1;
      return digit;
    }
    const word = this.#words.next();
    this.#spare = word >>> 16;
    return word & 0xffff;
  }
}
