/**
 * Sums, differences and binomial coefficients of numbers that are given by their logarithm, so that neither `e^5000` nor
 * `e^-5000` leaves the range of a float64.
 *
 * Ordinary float64 accuracy: callers that promise an upper bound add their own margin.
 */

/** `ln(e^a + e^b)`. */
export function logAddExp(a: number, b: number): number {
  const high = Math.max(a, b);
  if (high === -Infinity || high === Infinity) return high;
  return high + Math.log1p(Math.exp(Math.min(a, b) - high));
}

/** `ln(1 + e^a)`, accurate also when the sum is 1 up to rounding. */
export function log1pExp(a: number): number {
  return a > 0 ? a + Math.log1p(Math.exp(-a)) : Math.log1p(Math.exp(a));
}

/** `ln(1 - e^a)` for `a <= 0`. */
export function log1mExp(a: number): number {
  if (!(a <= 0)) throw new RangeError(`"a" expected a number <= 0, got ${a}`);
  return a > -Math.LN2 ? Math.log(-Math.expm1(a)) : Math.log1p(-Math.exp(a));
}

/** `ln(e^a - 1)` for `a >= 0`. */
export function logExpm1(a: number): number {
  return a > 30 ? a + Math.log1p(-Math.exp(-a)) : Math.log(Math.expm1(a));
}

/** Sums numbers given by their logarithms, without overflow, in one pass. */
export class LogSum {
  #high = -Infinity;
  #scaled = 0;

  add(logTerm: number): void {
    if (logTerm === -Infinity) return;
    if (logTerm <= this.#high) {
      this.#scaled += Math.exp(logTerm - this.#high);
    } else {
      this.#scaled = this.#scaled * Math.exp(this.#high - logTerm) + 1;
      this.#high = logTerm;
    }
  }

  /** `ln` of the sum; `-Infinity` for no terms. */
  get log(): number {
    return this.#high === -Infinity ? -Infinity : this.#high + Math.log(this.#scaled);
  }
}

/** `ln Gamma(x)` for `x > 0`, relative error below 1e-14 (absolute near the zeros at 1 and 2). */
export function logGamma(x: number): number {
  if (!(x > 0)) throw new RangeError(`"x" expected a number > 0, got ${x}`);
  let shift = 0;
  let y = x;
  for (; y < 16; y++) shift += Math.log(y);
  // Stirling's series (DLMF 5.11.1); the first term left out is below 1e-17 for y >= 16.
  const inverse = 1 / y;
  const square = inverse * inverse;
  const series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square * (1 / 1188 - (square * 691) / 360_360)))));
  return (y - 0.5) * Math.log(y) - y + 0.5 * Math.log(2 * Math.PI) + series - shift;
}

/** `ln` of `n` choose `k`, for `0 <= k <= n`. */
export function logBinomial(n: number, k: number): number {
  if (k === 0 || k === n) return 0;
  return logGamma(n + 1) - logGamma(k + 1) - logGamma(n - k + 1);
}
