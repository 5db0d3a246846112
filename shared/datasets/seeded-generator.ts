/**
 * Repeatable randomness for what only trains or splits: partitions, synthetic data, cohorts, shuffles. The same seed
 * gives the same numbers on every machine with the same JavaScript engine family.
 *
 * Not for keys, nonces, masks or noise: whoever sees a few outputs can compute all others. Those take a `RandomSource`.
 *
 * Sources: Blackman & Vigna 2021, "Scrambled linear pseudorandom number generators" (xoshiro128** 1.1,
 * https://prng.di.unimi.it/xoshiro128starstar.c); Steele, Lea & Flood 2014 (SplitMix64, which that page recommends for
 * filling the state); Marsaglia & Tsang 2000, "A simple method for generating gamma variables".
 */
import { sha256 } from '@noble/hashes/sha2.js';
import { utf8ToBytes } from '@noble/hashes/utils.js';

const MASK_64 = 0xffff_ffff_ffff_ffffn;
const TWO_32 = 0x1_0000_0000;

/** The first `count` outputs of SplitMix64 (unsigned 64-bit) from this 64-bit state. */
export function splitMix64(state: bigint, count: number): bigint[] {
  const outputs: bigint[] = [];
  for (let i = 0; i < count; i++) {
    state = (state + 0x9e37_79b9_7f4a_7c15n) & MASK_64;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n) & MASK_64;
    z = ((z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn) & MASK_64;
    outputs.push(z ^ (z >> 31n));
  }
  return outputs;
}

/**
 * An independent seed for a purpose: an integer in [0, 2^32).
 *
 * Defined as the first four bytes, little-endian, of SHA-256 over the UTF-8 JSON array `[seed, ...labels]`, so that
 * `(1, 'a', 'b')`, `(1, 'ab')` and `(1, '1')` against `(1, 1)` all differ and any language can compute it.
 *
 * @example deriveSeed(task.seed, 'cohort', round)
 */
export function deriveSeed(seed: number, ...labels: readonly (string | number)[]): number {
  checkSeed(seed);
  for (const [i, label] of labels.entries()) {
    if (typeof label === 'number' && !Number.isSafeInteger(label)) {
      throw new RangeError(`"labels[${i}]" expected a string or a safe integer, got ${label}`);
    }
  }
  const digest = sha256(utf8ToBytes(JSON.stringify([seed, ...labels])));
  return new DataView(digest.buffer, digest.byteOffset).getUint32(0, true);
}

function checkSeed(seed: number): void {
  if (!Number.isInteger(seed) || seed < 0 || seed >= TWO_32) {
    throw new RangeError(`"seed" expected an integer in [0, 2^32), got ${seed}`);
  }
}

function rotateLeft(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

/** xoshiro128** with the draws that training and splitting need. */
export class SeededGenerator {
  readonly #state: Uint32Array;
  /** The second value of the last polar draw, if it was not given out yet. */
  #spareGaussian: number | undefined;

  /** `seed`: an integer in [0, 2^32). */
  constructor(seed: number) {
    checkSeed(seed);
    const [low, high] = splitMix64(BigInt(seed), 2) as [bigint, bigint];
    // Four 32-bit words, little-endian, as rand_xoshiro's `seed_from_u64` fills them. Two SplitMix64 outputs in a row
    // are never both zero, so this is never the forbidden all-zero state.
    this.#state = Uint32Array.of(Number(low & 0xffff_ffffn), Number(low >> 32n), Number(high & 0xffff_ffffn), Number(high >> 32n));
  }

  /** A generator that continues from this state (four 32-bit words, not all zero). */
  static fromState(words: readonly [number, number, number, number]): SeededGenerator {
    if (words.every((word) => word >>> 0 === 0)) throw new RangeError('"words" expected four 32-bit words that are not all zero');
    const generator = new SeededGenerator(0);
    generator.#state.set(words);
    return generator;
  }

  /** A uniformly random integer in [0, 2^32). */
  uint32(): number {
    const s = this.#state;
    const s1 = s[1]!;
    const result = Math.imul(rotateLeft(Math.imul(s1, 5), 7), 9) >>> 0;
    s[2] = s[2]! ^ s[0]!;
    s[3] = s[3]! ^ s1;
    s[1] = s1 ^ s[2];
    s[0] = s[0]! ^ s[3];
    s[2] = s[2] ^ (s1 << 9);
    s[3] = rotateLeft(s[3], 11);
    return result;
  }

  /** A uniformly random multiple of 2^-53 in [0, 1). */
  uniform(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return (high * 0x400_0000 + low) / 0x20_0000_0000_0000;
  }

  /** A uniformly random integer in [0, bound), without modulo bias. `bound`: an integer in [1, 2^32]. */
  integer(bound: number): number {
    if (!Number.isInteger(bound) || bound < 1 || bound > TWO_32) {
      throw new RangeError(`"bound" expected an integer in [1, 2^32], got ${bound}`);
    }
    const limit = TWO_32 - (TWO_32 % bound);
    for (;;) {
      const word = this.uint32();
      if (word < limit) return word % bound;
    }
  }

  /** A draw from the standard normal distribution (Marsaglia's polar method). */
  gaussian(): number {
    if (this.#spareGaussian !== undefined) {
      const spare = this.#spareGaussian;
      this.#spareGaussian = undefined;
      return spare;
    }
    for (;;) {
      const u = 2 * this.uniform() - 1;
      const v = 2 * this.uniform() - 1;
      const s = u * u + v * v;
      if (s >= 1 || s === 0) continue;
      const factor = Math.sqrt((-2 * Math.log(s)) / s);
      this.#spareGaussian = v * factor;
      return u * factor;
    }
  }

  /** A draw from Gamma(shape, scale 1). `shape` > 0. Draws for a tiny shape may underflow to 0. */
  gamma(shape: number): number {
    return Math.exp(this.#logGamma(shape));
  }

  /**
   * A draw from the symmetric Dirichlet distribution: `length` proportions that sum to 1 (up to rounding).
   * `alpha` > 0: the smaller, the more one entry takes everything.
   */
  dirichlet(alpha: number, length: number): Float64Array {
    if (!Number.isInteger(length) || length < 1) throw new RangeError(`"length" expected an integer >= 1, got ${length}`);
    // In logarithms: for alpha below about 0.002 plain gamma draws underflow, and all of them may be 0.
    const draws = Float64Array.from({ length }, () => this.#logGamma(alpha));
    const largest = draws.reduce((a, b) => Math.max(a, b));
    let sum = 0;
    for (let i = 0; i < length; i++) sum += draws[i] = Math.exp(draws[i]! - largest);
    return draws.map((draw) => draw / sum);
  }

  /** Shuffles in place (Fisher-Yates): every order is equally likely. Returns the same array. */
  shuffle(indices: Uint32Array): Uint32Array {
    for (let i = indices.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const swapped = indices[i]!;
      indices[i] = indices[j]!;
      indices[j] = swapped;
    }
    return indices;
  }

  /** The integers 0 to `length - 1` in random order. */
  permutation(length: number): Uint32Array {
    return this.shuffle(Uint32Array.from({ length }, (_, i) => i));
  }

  /** The logarithm of a Gamma(shape, 1) draw. */
  #logGamma(shape: number): number {
    if (!(shape > 0) || !Number.isFinite(shape)) throw new RangeError(`"shape" expected a finite number > 0, got ${shape}`);
    if (shape < 1) {
      // Marsaglia & Tsang 2000, sec. 6: Gamma(a) = Gamma(a + 1) * U^(1/a), with U in (0, 1].
      return this.#logGamma(shape + 1) + Math.log(1 - this.uniform()) / shape;
    }
    const d = shape - 1 / 3;
    const c = 1 / Math.sqrt(9 * d);
    for (;;) {
      const x = this.gaussian();
      const cubeRoot = 1 + c * x;
      if (cubeRoot <= 0) continue;
      const v = cubeRoot ** 3;
      const u = 1 - this.uniform();
      if (Math.log(u) < 0.5 * x * x + d * (1 - v + Math.log(v))) return Math.log(d) + Math.log(v);
    }
  }
}
