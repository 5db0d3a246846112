/**
 * Rényi divergences of the Gaussian mechanism on a random batch: Poisson sampling at integer and fractional orders, exact, and
 * sampling without replacement, as a bound. `sigma` is the noise multiplier, `q` the sampling probability.
 *
 * Exact means: up to float64 rounding, which `ROUNDING` covers on the safe side (the golden tests compare with 50-digit values
 * to 1e-9). Nothing here knows whether batches really were drawn so: shuffled or fixed batches that are accounted as Poisson
 * are a known error (Chua et al. 2024), and only the training code and its tests can exclude it.
 */
import { LogSum, log1pExp, logBinomial, logExpm1 } from './log-space.ts';

/** Relative margin for the rounding of sums whose exponents reach 10^4. */
const ROUNDING = 1 + 2 ** -36;
/** Below this noise multiplier the quadrature for fractional orders would need more than about 15,000 points. */
const SMALLEST_QUADRATURE_SIGMA = 0.05;
/** Largest order with the exact terms for sampling without replacement; above, their simpler bounds. */
const LARGEST_EXACT_DIFFERENCE = 256;
/** Beyond this many standard deviations a normal density is below 1e-31 of its peak. */
const TAIL = 12;

/**
 * RDP of the Poisson-subsampled Gaussian for every order (> 1), add or remove one record.
 *
 * With `r = 1 - q + q e^((2x - 1) / (2 sigma^2))`, `x ~ N(0, sigma^2)`, the larger of the two directions is
 * `1/(a-1) ln E[r^a]` (Mironov, Talwar & Zhang 2019, arXiv:1908.10530, Thm 5 and Cor 7).
 */
export function poissonSampledGaussianRdp(q: number, sigma: number, orders: readonly number[]): readonly number[] {
  if (q === 0) return orders.map(() => 0);
  if (sigma === 0) return orders.map(() => Infinity);
  if (q === 1) return orders.map((order) => order / (2 * sigma ** 2));
  const fractional = orders.filter((order) => !Number.isInteger(order));
  const quadrature = fractional.length > 0 && sigma >= SMALLEST_QUADRATURE_SIGMA ? new LossQuadrature(q, sigma, Math.max(...fractional)) : undefined;
  return orders.map((order) => {
    if (Number.isInteger(order)) return (integerLogMoment(q, sigma, order) / (order - 1)) * ROUNDING;
    if (quadrature) return (quadrature.logMoment(order) / (order - 1)) * ROUNDING;
    return interpolate(order, (integer) => integerLogMoment(q, sigma, integer)) * ROUNDING;
  });
}

/**
 * RDP of the Poisson-subsampled Gaussian when one record is replaced by any other; `sigma` as above, for a record that is there or not.
 *
 * Taking the record away and adding the other one are two steps of at most `r`, the curve above, which covers both directions. The weak triangle
 * inequality (Mironov 2017, Prop. 11), `D_a(P||Q) <= (a - 1/p)/(a - 1) D_pa(P||R) + D_p'(a - 1/p)(R||Q)` with `1/p + 1/p' = 1`, gives for `p = (2a - 1)/a`
 * `2a/(2a - 1) r(2a - 1) + r(2a)`: for q = 1 that is `4a / (2 sigma^2)`, what twice the sensitivity costs. An upper bound for q < 1.
 */
export function replacedRecordRdp(q: number, sigma: number, orders: readonly number[]): readonly number[] {
  const removed = poissonSampledGaussianRdp(q, sigma, orders.map((order) => 2 * order - 1));
  const added = poissonSampledGaussianRdp(q, sigma, orders.map((order) => 2 * order));
  return orders.map((order, i) => ((2 * order) / (2 * order - 1)) * removed[i]! + added[i]!);
}

/**
 * `(a - 1) rdp(a)` is convex in `a` and 0 at 1 (van Erven & Harremoes 2014, Cor 2), so between integer orders the chord is an
 * upper bound: also when its ends are upper bounds themselves (Wang, Balle & Kasiviswanathan 2019, Cor 10).
 */
export function interpolate(order: number, logMoment: (integerOrder: number) => number): number {
  const low = Math.floor(order);
  const high = Math.ceil(order);
  if (low === high) return logMoment(order) / (order - 1);
  const atLow = low === 1 ? 0 : logMoment(low);
  return ((high - order) * atLow + (order - low) * logMoment(high)) / (order - 1);
}

/**
 * `ln E[r^a]` for an integer order: `ln sum_k C(a,k) (1-q)^(a-k) q^k e^(k(k-1)/(2 sigma^2))` (ibid., sec. 3.3). The terms of
 * `e^0` sum to 1, so `sum_k ... (e^(k(k-1)/(2 sigma^2)) - 1)` is the moment minus 1, with positive terms only: no cancellation,
 * however small q or large sigma.
 */
function integerLogMoment(q: number, sigma: number, order: number): number {
  const logQ = Math.log(q);
  const log1mQ = Math.log1p(-q);
  const sum = new LogSum();
  for (let k = 2; k <= order; k++) sum.add(logBinomial(order, k) + k * logQ + (order - k) * log1mQ + logExpm1((k * (k - 1)) / (2 * sigma ** 2)));
  return log1pExp(sum.log);
}

/**
 * `ln E[r^a]` for any order, by the trapezoidal rule. Because `E[r] = 1`, it is `ln(1 + E[g])` with
 * `g = r^a - 1 - a (r - 1) >= 0`: again positive terms only. The integrand is analytic for `|Im x| < pi sigma^2`, where the rule
 * converges like `e^(-2 pi * width / step)` (Trefethen & Weideman 2014, Thm 5.1): with these steps the error is below e^-45.
 */
class LossQuadrature {
  readonly #step: number;
  /** `ln r` at every point. */
  readonly #logRatio: Float64Array;
  /** Points, in standard deviations. */
  readonly #points: Float64Array;
  readonly #sigma: number;

  constructor(q: number, sigma: number, largestOrder: number) {
    this.#sigma = sigma;
    this.#step = Math.min(0.4, 0.35 * sigma);
    const count = Math.ceil((largestOrder / sigma + 2 * TAIL) / this.#step) + 1;
    this.#points = Float64Array.from({ length: count }, (_, index) => -TAIL + index * this.#step);
    this.#logRatio = this.#points.map((y) => {
      const s = y / sigma - 1 / (2 * sigma ** 2);
      // ln(1 - q + q e^s), from whichever side does not overflow.
      return s < 30 ? Math.log1p(q * Math.expm1(s)) : s + Math.log(q) + Math.log1p(((1 - q) / q) * Math.exp(-s));
    });
  }

  logMoment(order: number): number {
    const sum = new LogSum();
    const end = Math.min(this.#points.length, Math.ceil((order / this.#sigma + 2 * TAIL) / this.#step) + 1);
    for (let index = 0; index < end; index++) {
      const y = this.#points[index]!;
      sum.add(logConvexRemainder(this.#logRatio[index]!, order) - (y * y) / 2);
    }
    return log1pExp(sum.log + Math.log(this.#step) - 0.5 * Math.log(2 * Math.PI));
  }
}

/** `ln(e^(at) - 1 - a (e^t - 1))` for `a > 1`: the remainder of a convex function above its tangent. */
function logConvexRemainder(t: number, a: number): number {
  if (t === 0) return -Infinity;
  const product = a * t;
  if (Math.abs(product) < 1) {
    // sum_{n >= 2} (a^n - a) t^n / n!; direct evaluation would cancel.
    let power = product;
    let linear = product;
    let sum = 0;
    for (let n = 2; n < 40; n++) {
      power *= product / n;
      linear *= t / n;
      sum += power - linear;
      if (Math.abs(power) < Math.abs(sum) * 2 ** -56) break;
    }
    return Math.log(sum);
  }
  if (product > 0) return product + Math.log1p((a - 1) * Math.exp(-product) - a * Math.exp(t - product));
  return Math.log(Math.expm1(product) - a * Math.expm1(t));
}

/**
 * RDP of the Gaussian mechanism on a batch drawn without replacement, replace one record: Wang, Balle & Kasiviswanathan 2019
 * (arXiv:1808.00087), Thm 27, an upper bound:
 * `1 + q^2 C(a,2) min{4 (e^R(2) - 1), 2 e^R(2)} + sum_{j >= 3} q^j C(a,j) min{4 sqrt(B_lo B_hi), 2 e^((j-1) R(j))}`, with
 * `R(j) = j / (2 sigma^2)`, `B_l` the l-th forward difference of `e^((i-1) R(i))` at 0, and `lo`, `hi` the even numbers around j.
 */
export function sampledWithoutReplacementGaussianRdp(q: number, sigma: number, orders: readonly number[]): readonly number[] {
  if (sigma === 0) return orders.map(() => (q === 0 ? 0 : Infinity));
  if (q === 0) return orders.map(() => 0);
  if (q === 1) return orders.map((order) => order / (2 * sigma ** 2));
  const differences = new Map<number, number>();
  const difference = (order: number) => {
    const known = differences.get(order);
    if (known !== undefined) return known;
    const value = logEvenDifference(order, sigma);
    differences.set(order, value);
    return value;
  };
  const moments = new Map<number, number>();
  const logMoment = (order: number) => {
    const known = moments.get(order);
    if (known !== undefined) return known;
    const value = withoutReplacementLogMoment(q, sigma, order, difference);
    moments.set(order, value);
    return value;
  };
  return orders.map((order) => interpolate(order, logMoment) * ROUNDING);
}

function withoutReplacementLogMoment(q: number, sigma: number, order: number, difference: (order: number) => number): number {
  const logQ = Math.log(q);
  const two = 1 / sigma ** 2; // R(2)
  const sum = new LogSum();
  sum.add(2 * logQ + logBinomial(order, 2) + Math.min(Math.log(4) + logExpm1(two), Math.LN2 + two));
  for (let j = 3; j <= order; j++) {
    let bound = Math.LN2 + (j * (j - 1)) / (2 * sigma ** 2);
    if (order <= LARGEST_EXACT_DIFFERENCE) {
      const low = 2 * Math.floor(j / 2);
      const high = 2 * Math.ceil(j / 2);
      bound = Math.min(bound, Math.log(4) + (difference(low) + difference(high)) / 2);
    }
    sum.add(j * logQ + logBinomial(order, j) + bound);
  }
  return log1pExp(sum.log);
}

/**
 * `ln B_l` for even `l`: `B_l = sum_i (-1)^(l-i) C(l,i) e^(i(i-1)/(2 sigma^2)) = E[(e^s - 1)^l]`, `s = y/sigma - 1/(2 sigma^2)`,
 * `y ~ N(0,1)`. As an expectation it has positive terms only, where the alternating sum would cancel.
 */
function logEvenDifference(l: number, sigma: number): number {
  if (sigma < 0.1) return Infinity;
  const step = 0.2;
  const low = -Math.sqrt(l) - TAIL;
  const high = Math.max(l / sigma, Math.sqrt(l)) + TAIL;
  const sum = new LogSum();
  for (let index = 0, y = low; y <= high; index++, y = low + index * step) {
    const s = y / sigma - 1 / (2 * sigma ** 2);
    const logMagnitude = s > 0 ? logExpm1(s) : Math.log(-Math.expm1(s));
    sum.add(l * logMagnitude - (y * y) / 2);
  }
  return sum.log + Math.log(step) - 0.5 * Math.log(2 * Math.PI);
}
