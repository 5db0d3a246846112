/**
 * Shamir's secret sharing, byte by byte over GF(2^8) = GF(2)[x] / (x^8 + x^4 + x^3 + x + 1), the field of AES: any `threshold` shares give the
 * secret, fewer say nothing about it. At most 255 shares, at the positions 1, 2, 3, ...
 *
 * A share is not verifiable by itself: whoever combines shares must check the result against a commitment. Which position a share has is public;
 * secret bytes are multiplied without tables or branches on their value (four at a time in one word), so cache timing says nothing about them.
 */
import { bytesOf, wordsOf } from '../crypto/provider.ts';
import type { RandomSource } from '../ports/random-source.ts';

/** GF(2^8) has 255 positions besides that of the secret. */
export const MAX_SHARES = 255;

/** Four field elements times x. */
function double(word: number): number {
  const carries = (word >>> 7) & 0x01010101;
  return ((word & 0x7f7f7f7f) << 1) ^ (carries * 0x1b);
}

/** Four secret field elements times one public one; branches on the public one only. */
function multiplyWord(word: number, scalar: number): number {
  let product = 0;
  for (let bits = scalar, power = word; bits !== 0; bits >>>= 1, power = double(power)) if ((bits & 1) === 1) product ^= power;
  return product;
}

/** Product in GF(2^8) of two elements, the second public. */
export function multiply(a: number, b: number): number {
  return multiplyWord(a, b) & 255;
}

/** Powers of the generator 3, twice around, and their logarithms: for public values only, since a lookup's timing depends on what is looked up. */
const powers = new Uint8Array(510);
const logarithms = new Uint8Array(256);
for (let i = 0, power = 1; i < 255; i++, power = multiply(power, 3)) {
  powers[i] = powers[i + 255] = power;
  logarithms[power] = i;
}

/** Product of two public elements. */
export function multiplyElements(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : powers[logarithms[a]! + logarithms[b]!]!;
}

/** Quotient of two public elements, the second not 0. */
export function divideElements(a: number, b: number): number {
  return a === 0 ? 0 : powers[logarithms[a]! + 255 - logarithms[b]!]!;
}

/** `count` shares of a secret whose length is a multiple of 4; share i has position i + 1. Uses `(threshold - 1) * secret.length` random bytes. */
export function splitSecret(secret: Uint8Array, threshold: number, count: number, random: RandomSource): Uint8Array[] {
  if (!Number.isInteger(count) || count < 1 || count > MAX_SHARES) throw new RangeError(`"count" expected an integer in [1, ${MAX_SHARES}], got ${count}`);
  if (!Number.isInteger(threshold) || threshold < 1 || threshold > count) throw new RangeError(`"threshold" expected an integer in [1, ${count}], got ${threshold}`);
  if (secret.length === 0 || secret.length % 4 !== 0) throw new RangeError(`"secret" expected a positive multiple of 4 bytes, got ${secret.length}`);
  const width = secret.length / 4;
  // Coefficients from the highest to the constant, the secret. All uniform, zero included: a highest coefficient that may not be zero would leak.
  const coefficients = new Uint32Array(threshold * width);
  coefficients.set(wordsOf(random.bytes(4 * (threshold - 1) * width)).subarray(0, (threshold - 1) * width));
  coefficients.set(wordsOf(Uint8Array.from(secret)), (threshold - 1) * width);
  return Array.from({ length: count }, (_, i) => {
    const share = new Uint32Array(width);
    for (let row = 0; row < threshold; row++) {
      for (let column = 0; column < width; column++) share[column] = multiplyWord(share[column]!, i + 1) ^ coefficients[row * width + column]!;
    }
    return bytesOf(share);
  });
}

/** The weights with which shares at these positions add up to the value at `at` (0: the secret). Positions must be distinct and in [1, 255]. */
export function lagrangeWeights(positions: readonly number[], at = 0): number[] {
  if (new Set(positions).size !== positions.length || positions.some((position) => !Number.isInteger(position) || position < 1 || position > MAX_SHARES)) {
    throw new RangeError('"positions" expected distinct integers in [1, 255]');
  }
  return positions.map((own) => {
    let numerator = 1;
    let denominator = 1;
    for (const other of positions) {
      if (other === own) continue;
      numerator = multiplyElements(numerator, other ^ at);
      denominator = multiplyElements(denominator, other ^ own);
    }
    return divideElements(numerator, denominator);
  });
}

/** Sum of the shares with these weights. */
export function combineShares(shares: readonly Uint8Array[], weights: readonly number[]): Uint8Array {
  const first = shares[0];
  if (first === undefined || shares.length !== weights.length || shares.some((share) => share.length !== first.length)) throw new RangeError('"shares" expected as many as weights, all of one length');
  const sum = new Uint32Array(first.length >> 2);
  shares.forEach((share, i) => {
    const words = wordsOf(Uint8Array.from(share));
    for (let column = 0; column < sum.length; column++) sum[column]! ^= multiplyWord(words[column]!, weights[i]!);
  });
  return bytesOf(sum);
}
