/**
 * The rounded Gaussian: `round(N(0, sigma^2))` for an integer `sigma`, sampled EXACTLY from uniform bits.
 *
 * Karney, "Sampling exactly from the normal distribution" (ACM TOMS 42(1), 2016), Algorithm N: `|N| / sigma = k + x` with
 * an integer `k` and a fraction `x` whose digits are drawn only when a comparison needs them. Only comparisons of digits
 * and small uniform integers occur: no exp, no log, no float, no truncated tail, no table. Given ideal bits the total
 * variation distance to the rounded Gaussian is therefore 0, and no delta is charged for sampling.
 *
 * Our one change: the first digit of every uniform has base `sigma`, the later ones base 2^32 (a mixed-radix expansion
 * compares lexicographically just as well). With `x = (j + u) / sigma`, `sigma (k + x) = (sigma k + j) + u`, so rounding is
 * one look at the leading bit of `u`.
 *
 * Not constant time: how long a sample takes depends on its value. Do not expose timings per coordinate.
 */
import type { RandomSource } from '../../ports/random-source.ts';
import { UniformBits } from './uniform-bits.ts';

/** Half of the base 2^32 of a tail digit. */
const HALF = 2 ** 31;

/** A uniform real in [0, 1) of which only the digits drawn so far exist: `(lead + 0.tail) / base`. */
interface LazyUniform {
  /** First digit, in [0, base). */
  readonly lead: number;
  /** Further digits in base 2^32; undefined before the first is needed. */
  tail: number[] | undefined;
}

/**
 * Independent samples of `round(N(0, sigmaGrid^2))`. Beyond +-2^31 (more than 12 sigma, see `release.ts`) they wrap modulo
 * 2^32, as does the sum that they are added to.
 */
export function sampleRoundedGaussians(count: number, sigmaGrid: number, random: RandomSource): Int32Array {
  if (!Number.isInteger(sigmaGrid) || sigmaGrid < 1 || sigmaGrid >= HALF) {
    throw new RangeError(`"sigmaGrid" expected an integer in [1, 2^31), got ${sigmaGrid}`);
  }
  const bits = new UniformBits(random);
  const samples = new Int32Array(count);
  for (let i = 0; i < count; i++) samples[i] = sampleOne(sigmaGrid, bits);
  return samples;
}

/** Karney 2016, Algorithm N: (k, x) has density proportional to exp(-k/2) exp(-k(k-1)/2) exp(-x(2k+x)/2) = exp(-(k+x)^2/2). */
function sampleOne(sigma: number, bits: UniformBits): number {
  for (;;) {
    // N1: k with probability proportional to exp(-k/2).
    let k = 0;
    while (bits.bernoulliExp(1, 2)) k++;
    // N2: accept k with probability exp(-k(k-1)/2).
    if (!repeat(k * (k - 1), () => bits.bernoulliExp(1, 2))) continue;
    // N3, N4: a fraction x, accepted with probability exp(-x(2k+x)/2), as k+1 trials of B.
    const x = drawLazy(sigma, bits);
    if (!repeat(k + 1, () => trialB(k, x, sigma, bits))) continue;
    // N5-N7, with rounding: |N| = (sigma k + j) + u, and ties have probability 0. Unseen digits of x are still uniform.
    const magnitude = sigma * k + x.lead + (tailDigit(x, 0, bits) >= HALF ? 1 : 0);
    return bits.bit() ? magnitude : -magnitude;
  }
}

/**
 * Karney 2016, Algorithm B: true with probability exp(-x(2k+x)/(2k+2)). Von Neumann: a run `x > z1 > z2 > ...` in which
 * every step also passes a coin of probability p = (2k+x)/(2k+2) has length >= n with probability (px)^n / n!, hence even
 * length with probability exp(-px).
 */
function trialB(k: number, x: LazyUniform, sigma: number, bits: UniformBits): boolean {
  let previous = x;
  let isEven = true;
  for (;;) {
    const next = drawLazy(sigma, bits);
    if (!isLess(next, previous, bits)) return isEven;
    // p = (2k+x)/(2k+2): of 2k+2 equal slices 2k pass, one passes with probability x, one fails.
    const slice = bits.below(2 * k + 2);
    if (slice === 2 * k + 1) return isEven;
    if (slice === 2 * k && !isLess(drawLazy(sigma, bits), x, bits)) return isEven;
    previous = next;
    isEven = !isEven;
  }
}

function drawLazy(base: number, bits: UniformBits): LazyUniform {
  return { lead: bits.below(base), tail: undefined };
}

/** a < b, drawing digits until they differ (with probability 1 they do). */
function isLess(a: LazyUniform, b: LazyUniform, bits: UniformBits): boolean {
  if (a.lead !== b.lead) return a.lead < b.lead;
  for (let i = 0; ; i++) {
    const digitOfA = tailDigit(a, i, bits);
    const digitOfB = tailDigit(b, i, bits);
    if (digitOfA !== digitOfB) return digitOfA < digitOfB;
  }
}

/** The tail's digit `i`, drawn now when nobody has looked at it; digits are looked at in order. */
function tailDigit(uniform: LazyUniform, i: number, bits: UniformBits): number {
  const tail = (uniform.tail ??= []);
  return (tail[i] ??= bits.word());
}

/** Whether `trial` succeeds `times` times in a row. */
function repeat(times: number, trial: () => boolean): boolean {
  for (let i = 0; i < times; i++) if (!trial()) return false;
  return true;
}
