/** 32-bit words of a CSPRNG, read from it in large blocks: a call of the source for each number would cost more than the number. */
import type { RandomSource } from '../ports/random-source.ts';

const blockWords = 4096;

export class RandomWords {
  readonly #random: RandomSource;
  #block: Int32Array = new Int32Array(0);
  #next = 0;

  constructor(random: RandomSource) {
    this.#random = random;
  }

  /** Uniform in [0, 2^32). */
  next(): number {
    if (this.#next === this.#block.length) this.#refill();
    return this.#block[this.#next++]! >>> 0;
  }

  /** So many words, signed, that nothing else gets. */
  fresh(count: number): Int32Array {
    const bytes = this.#random.bytes(4 * count);
    // A view needs an address that is a multiple of 4.
    const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
    return new Int32Array(aligned.buffer, aligned.byteOffset, count);
  }

  #refill(): void {
    this.#block = this.fresh(blockWords);
    this.#next = 0;
  }
}
