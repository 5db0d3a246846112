/**
 * The arithmetic under the accountants: the scaled complementary error function, the privacy profile of the Gaussian
 * mechanism in log space, and its two inverses.
 *
 * One-sided on purpose: `gaussianLogDelta` returns an upper bound (its rounding error, estimated below, is added), and
 * the inverses return the end of the bisection bracket at which the bound was *checked*. The error estimates are worked
 * out by hand and compared with 50-digit values in the tests; this is not interval arithmetic.
 */
import type { Epsilon } from '../../types/units.ts';

/** Relative spacing bound of float64 rounding (half an ulp). */
const UNIT_ROUNDOFF = 2 ** -53;
/** Relative error bound of `erfcx` for x >= 0; measured below 2e-15 (test/shared/privacy/accountants/numerics.test.ts). */
const ERFCX_ERROR = 1e-14;
/** One factor `(1 + 2^-50)` covers the rounding of a few float64 operations. */
const SLACK = 2 ** -50;

/** Somewhat above a non-negative `x`: covers the rounding errors of up to four float64 operations. */
export function roundUp(x: number): number {
  return x * (1 + SLACK);
}

/** Somewhat below a non-negative `x`: covers the rounding errors of up to four float64 operations. */
export function roundDown(x: number): number {
  return x * (1 - SLACK);
}

/** `exp(x^2) * erfc(x)` for `x >= 0`. Never underflows. */
export function erfcx(x: number): number {
  if (!(x >= 0)) throw new RangeError(`"x" expected a number >= 0, got ${x}`);
  if (x < 1) {
    // erf(x) = 2/sqrt(pi) exp(-x^2) sum 2^n x^(2n+1) / (1*3*...*(2n+1)) (DLMF 7.6.2): all terms positive, no cancellation.
    let term = x;
    let sum = x;
    for (let n = 1; term > sum * UNIT_ROUNDOFF; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return Math.exp(x * x) - (2 / Math.sqrt(Math.PI)) * sum;
  }
  // Continued fraction (DLMF 7.9.2), from the tail. The error after n terms is about exp(-2x sqrt(2n)): n = 200/x^2 gives exp(-40).
  const terms = Math.ceil(200 / (x * x)) + 8;
  let fraction = x;
  for (let n = terms; n >= 1; n--) fraction = x + n / 2 / fraction;
  return 1 / (fraction * Math.sqrt(Math.PI));
}

/** `ln Phi(x)`, Phi the standard normal distribution function. Finite for every finite `x`. */
export function logNormalCdf(x: number): number {
  const scaled = Math.abs(x) / Math.SQRT2;
  if (x <= 0) return Math.log(erfcx(scaled) / 2) - (x * x) / 2;
  return Math.log1p(-Math.exp(-(x * x) / 2) * (erfcx(scaled) / 2));
}

/**
 * Upper bound of `ln delta(epsilon)` for the Gaussian mechanism with `mu = Delta_2 / sigma > 0`, `epsilon >= 0`.
 *
 * Balle & Wang 2018, Thm 8: `delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)`. With
 * `t1 = epsilon/mu - mu/2`, `t2 = t1 + mu` we have `t2^2/2 - t1^2/2 = epsilon`, so for `t1 >= 0`
 * `delta = exp(-t1^2/2) (erfcx(t1/sqrt2) - erfcx(t2/sqrt2)) / 2`: the huge `e^epsilon` and the tiny tail have cancelled
 * on paper, and only the difference of two moderate numbers is left to the machine.
 */
export function gaussianLogDelta(epsilon: number, mu: number): number {
  if (!(epsilon >= 0) || !(mu > 0)) throw new RangeError(`expected epsilon >= 0 and mu > 0, got ${epsilon} and ${mu}`);
  if (!Number.isFinite(mu)) return 0;
  const ratio = epsilon / mu;
  if (!Number.isFinite(ratio)) return -Infinity;
  const t1 = ratio - mu / 2;
  const t2 = ratio + mu / 2;
  // t1 and t2 carry an absolute error of at most this much each.
  const argumentError = 4 * UNIT_ROUNDOFF * t2;
  // exp(-t1^2/2) and erfcx(t1) move together: d/dt ln(exp(-t^2/2) erfcx(t/sqrt2)) >= -(t + 1) for t >= 0.
  const exponentError = (Math.abs(t1) + 1) * argumentError + UNIT_ROUNDOFF * t1 * t1;
  if (t1 >= 0) {
    const near = erfcx(t1 / Math.SQRT2);
    // |erfcx'| <= 1.13 erfcx on x >= 0, and both arguments may be off by argumentError.
    const differenceError = near * (2 * ERFCX_ERROR + 3 * argumentError);
    const difference = near - erfcx(t2 / Math.SQRT2) + differenceError;
    return Math.min(0, Math.log(difference / 2) - (t1 * t1) / 2 + exponentError + 4 * UNIT_ROUNDOFF);
  }
  const tail = Math.exp(-(t1 * t1) / 2);
  const delta = 1 - (tail / 2) * (erfcx(-t1 / Math.SQRT2) + erfcx(t2 / Math.SQRT2));
  return Math.min(0, Math.log(Math.max(0, delta) + tail * (2 * ERFCX_ERROR + 3 * argumentError + exponentError) + 4 * UNIT_ROUNDOFF));
}

/**
 * Upper bound of the smallest epsilon with `delta(epsilon) <= delta` for the Gaussian mechanism with
 * `mu = Delta_2 / sigma`. `mu = 0`: 0. `mu = Infinity` or `delta = 0`: Infinity.
 */
export function gaussianEpsilon(delta: number, mu: number): Epsilon {
  if (mu === 0) return 0 as Epsilon;
  if (!(delta > 0) || !Number.isFinite(mu * mu)) return Infinity as Epsilon;
  const target = Math.log(delta) * (1 + SLACK); // ln delta < 0: a little lower, so the answer is a little higher
  const isEnough = (epsilon: number) => gaussianLogDelta(epsilon, mu) <= target;
  if (isEnough(0)) return 0 as Epsilon;
  // rho = mu^2/2 zCDP gives delta at rho + 2 sqrt(rho ln 1/delta) (Bun & Steinke 2016, Prop. 1.3): a bracket up to rounding.
  let enough = (mu * mu) / 2 + mu * Math.sqrt(-2 * Math.log(delta));
  while (!isEnough(enough)) {
    enough *= 1.5;
    if (!Number.isFinite(enough)) return Infinity as Epsilon;
  }
  return smallestEnough(0, enough, isEnough) as Epsilon;
}

/**
 * Smallest noise multiplier `sigma / Delta_2` for which one Gaussian release is (epsilon, delta)-DP, rounded up: by
 * construction `gaussianEpsilon(delta, 1 / answer) <= epsilon`. `epsilon > 0`, `delta` in (0, 1).
 */
export function calibrateNoiseMultiplier(epsilon: number, delta: number): number {
  if (!(epsilon > 0) || !(delta > 0 && delta < 1)) throw new RangeError(`expected epsilon > 0 and delta in (0, 1), got ${epsilon} and ${delta}`);
  const isEnough = (noiseMultiplier: number) => gaussianEpsilon(delta, 1 / noiseMultiplier) <= epsilon;
  let enough = 1;
  while (!isEnough(enough)) enough *= 2;
  let tooSmall = enough / 2;
  while (isEnough(tooSmall)) {
    enough = tooSmall;
    tooSmall /= 2;
  }
  return smallestEnough(tooSmall, enough, isEnough);
}

/** Bisection between `tooSmall` and `enough`; the answer was checked with `isEnough` (or is the given `enough`). */
function smallestEnough(tooSmall: number, enough: number, isEnough: (x: number) => boolean): number {
  for (let step = 0; step < 200 && enough - tooSmall > enough * 1e-14; step++) {
    const middle = tooSmall + (enough - tooSmall) / 2;
    if (isEnough(middle)) enough = middle;
    else tooSmall = middle;
  }
  return enough;
}
