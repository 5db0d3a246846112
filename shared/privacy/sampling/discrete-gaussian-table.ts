/**
 * The discrete Gaussian `P[k] ~ exp(-k^2 / (2 sigma^2))` by inversion: one uniform 127-bit integer is looked up in a table of tail
 * probabilities, one more bit is the sign. Every sample takes exactly 128 random bits, and a fixed number of comparisons unless the leading
 * 53 bits tie with an entry (probability below table size * 2^-53 a sample).
 *
 * NOT exact, unlike `discrete-gaussian.ts`: whoever samples from a table must add `tableSamplerDelta` to delta (docs/sampling.md). Which
 * entries a search reads depends on the sample, so caches may still tell something about it.
 */
import type { RandomSource } from '../../ports/random-source.ts';
import { roundUp } from '../accountants/numerics.ts';
import type { RationalSigma } from './discrete-gaussian.ts';
import { UniformBits } from './uniform-bits.ts';

/** Largest sigma with a table: its 13.5 sigma entries take 33 MB, and a second and about 150 MB to build. Above, sample exactly. */
export const MAX_TABLE_SIGMA = 100_000;
/** Smallest sigma with a table: below, the exponent 1 / (2 sigma^2) leaves the range for which the error bounds below are worked out. */
export const MIN_TABLE_SIGMA = 1 / 4;

/** Bits of the uniform integer that is looked up. */
const BITS = 127;
const LEADING_BITS = 53;
const REST_BITS = BITS - LEADING_BITS;
/** Fixed-point precision of the weights, in bits after the point. */
const PRECISION = 256n;
/** Magnitudes in the table: all below `27 sigma / 2`. Beyond lies at most `2 exp(-13.5^2 / 2) < 2^-130` (Canonne, Kamath & Steinke 2020, Fact 20). */
const TAIL_SIGMAS = { numerator: 27, denominator: 2 } as const;

export interface DiscreteGaussianTable {
  readonly sigma: RationalSigma;
  /** Magnitudes that occur: 0 to `size`. Entry m speaks for `P[|X| > m]`, m < size. */
  readonly size: number;
  /** The 53 leading bits of `floor(2^127 P[|X| > m])`, followed by zeros up to a length of a power of two less one. Never ascending. */
  readonly leading: Float64Array;
  /** The 74 remaining bits of entry m: 10, 32 and 32 of them in words 3m to 3m + 2. */
  readonly rest: Uint32Array;
  /** At least the total variation distance between one sample and the discrete Gaussian. */
  readonly totalVariation: number;
}

/**
 * Upper bound of the total variation distance between the law of a table with magnitudes up to `size` and the discrete Gaussian: `(size + 2) 2^-128`.
 *
 * (i) Each entry is the integer part of 2^127 times a tail of the computed law, so each probability moves by less than 2^-127, all of them by less than
 * `(size + 1) 2^-127` and half of that counts. (ii) The computed law is made of weights `v <= w = exp(-m^2 / (2 sigma^2))`, normalized exactly.
 * Normalizing a part of a measure moves it by at most the missing share of the mass: here what lies beyond `size`, below 2^-130, and what rounding took off.
 * (iii) Rounding: all products are cut off at u = 2^-256, and for factors in [0, 1] with deficits a, b a product has a deficit of at most a + b + u. Let x have deficit
 * c u (`expOfMinus`: c <= 2). By induction x^(2m+1) has at most `(2c + 2)(m + 1) u` and w_m at most `(2c + 3)(m + 1)^2 u`; the sum over both signs is below
 * `2 (2c + 3) (size + 1)^3 u < 2^70 u = 2^-186` for `size < 2^21`. Both missing shares are together below 2^-128.
 */
function totalVariationBound(size: number): number {
  return roundUp((size + 2) * 2 ** -128);
}

/** Whether `discreteGaussianTable` takes this sigma. */
export function hasDiscreteGaussianTable(sigma: number | RationalSigma): boolean {
  const { numerator, denominator } = rational(sigma);
  return Number.isInteger(numerator) && Number.isInteger(denominator) && denominator >= 1 && denominator <= 64 && numerator >= MIN_TABLE_SIGMA * denominator && numerator <= MAX_TABLE_SIGMA * denominator;
}

/** The table of a sigma in [1/4, 100,000]: an integer, or a fraction with a denominator of at most 64. About a microsecond an entry; keep it, and sample often. */
export function discreteGaussianTable(sigma: number | RationalSigma): DiscreteGaussianTable {
  const { numerator, denominator } = rational(sigma);
  if (!hasDiscreteGaussianTable(sigma)) {
    throw new RangeError(`"sigma" expected an integer or a fraction with a denominator of at most 64, in [${MIN_TABLE_SIGMA}, ${MAX_TABLE_SIGMA}], got ${numerator}/${denominator}: sample it exactly`);
  }
  const size = Math.ceil((TAIL_SIGMAS.numerator * numerator) / (TAIL_SIGMAS.denominator * denominator)) - 1;
  const weights = descendingWeights(numerator, denominator, size);
  const length = 2 ** Math.ceil(Math.log2(size + 1)) - 1;
  const leading = new Float64Array(length);
  const rest = new Uint32Array(3 * size);
  // Both signs of every magnitude but 0 count; sums of integers, so exact.
  let total = weights[0]!;
  for (let m = 1; m <= size; m++) total += 2n * weights[m]!;
  let tail = 0n;
  for (let m = size - 1; m >= 0; m--) {
    tail += 2n * weights[m + 1]!;
    const entry = (tail << BigInt(BITS)) / total;
    leading[m] = Number(entry >> BigInt(REST_BITS));
    rest[3 * m] = Number((entry >> 64n) & 0x3ffn);
    rest[3 * m + 1] = Number((entry >> 32n) & 0xffffffffn);
    rest[3 * m + 2] = Number(entry & 0xffffffffn);
  }
  return { sigma: { numerator, denominator }, size, leading, rest, totalVariation: totalVariationBound(size) };
}

/** Independent samples. */
export function sampleDiscreteGaussianTable(count: number, table: DiscreteGaussianTable, random: RandomSource): Int32Array {
  const { size, leading, rest } = table;
  const bits = new UniformBits(random);
  const samples = new Int32Array(count);
  const firstStep = (leading.length + 1) / 2;
  for (let i = 0; i < count; i++) {
    const [first, second, third, fourth] = [bits.word(), bits.word(), bits.word(), bits.word()];
    const uniform = first * 2 ** 21 + (second >>> 11);
    // How many leading parts are above the uniform's: they never ascend.
    let magnitude = 0;
    for (let step = firstStep; step >= 1; step /= 2) if (leading[magnitude + step - 1]! > uniform) magnitude += step;
    // The entries whose leading part ties come next; their remaining 74 bits decide.
    while (magnitude < size && leading[magnitude] === uniform && isAbove(rest, 3 * magnitude, second, third, fourth)) magnitude++;
    samples[i] = (fourth & 1) === 1 ? -magnitude : magnitude;
  }
  return samples;
}

/** Whether the entry's remaining bits, from `offset` on, are above the uniform's: 11 bits of `second`, 32 of `third`, 31 of `fourth`, cut as the entry's are. */
function isAbove(rest: Uint32Array, offset: number, second: number, third: number, fourth: number): boolean {
  // 74 bits s10..s0 t31..t0 f31..f1, regrouped as 10 + 32 + 32.
  const high = (second >>> 1) & 0x3ff;
  const middle = ((second << 31) | (third >>> 1)) >>> 0;
  const low = ((third << 31) | (fourth >>> 1)) >>> 0;
  if (rest[offset] !== high) return rest[offset]! > high;
  if (rest[offset + 1] !== middle) return rest[offset + 1]! > middle;
  return rest[offset + 2]! > low;
}

/**
 * What sampling from tables adds to delta: `(1 + e^epsilon) * samples * totalVariation`, rounded up. `samples`: all of them that one guarantee covers, that is
 * coordinates * releases * clients whose noise is counted.
 *
 * For outcomes E of the sampled mechanism M' and the exact one M, which differ by at most t = samples * totalVariation:
 * `P'[E] <= P[E] + t <= e^epsilon Q[E] + delta + t <= e^epsilon Q'[E] + delta + (1 + e^epsilon) t`.
 */
export function tableSamplerDelta(epsilon: number, samples: number, { totalVariation }: Pick<DiscreteGaussianTable, 'totalVariation'>): number {
  if (!(epsilon >= 0)) throw new RangeError(`"epsilon" expected a number >= 0, got ${epsilon}`);
  if (!Number.isSafeInteger(samples) || samples < 0) throw new RangeError(`"samples" expected an integer >= 0, got ${samples}`);
  if (samples === 0) return 0;
  return Math.min(1, roundUp(roundUp(1 + Math.exp(epsilon)) * samples * totalVariation));
}

function rational(sigma: number | RationalSigma): RationalSigma {
  return typeof sigma === 'number' ? { numerator: sigma, denominator: 1 } : sigma;
}

/** `exp(-m^2 / (2 sigma^2))` for m = 0..size in units of 2^-256, each cut off: `w_{m+1} = w_m x^(2m+1)`, `x = exp(-1 / (2 sigma^2))`. */
function descendingWeights(numerator: number, denominator: number, size: number): bigint[] {
  const x = expOfMinus(BigInt(denominator) ** 2n, 2n * BigInt(numerator) ** 2n);
  const square = (x * x) >> PRECISION;
  const weights = [1n << PRECISION];
  let power = x;
  for (let m = 0; m < size; m++) {
    weights.push((weights[m]! * power) >> PRECISION);
    power = (power * square) >> PRECISION;
  }
  return weights;
}

/**
 * `exp(-numerator / denominator)` for a ratio of at most 8, in units of u = 2^-256, at most 2 u too small. `exp(+ratio)` is a sum of positive terms; 64 more bits hold
 * the rounding of fewer than 200 of them, and the result is rounded down once.
 */
function expOfMinus(numerator: bigint, denominator: bigint): bigint {
  const guard = 64n;
  const one = 1n << (PRECISION + guard);
  // Each term is cut off, so the sum is too small by less than 200 e^8 < 2^20 units; the terms left out are below one unit altogether.
  let sum = one;
  let term = one;
  for (let n = 1n; term > 0n; n++) {
    term = (term * numerator) / (denominator * n);
    sum += term;
  }
  // An upper bound of the sum gives a lower bound of its inverse.
  return (one << PRECISION) / (sum + (1n << 20n));
}
