/**
 * What one event costs in Rényi differential privacy (Mironov 2017), order by order. Each formula is exact for the event, or an
 * upper bound and says so. Orders are > 1.
 */
import type { AccountedRelation, SingleEvent } from '../dp-event.ts';
import { gaussianParts, threePointLoss } from './equivalents.ts';
import type { ThreePointLoss } from './equivalents.ts';
import { log1pExp, logExpm1 } from './log-space.ts';
import { interpolate, poissonSampledGaussianRdp, replacedRecordRdp, sampledWithoutReplacementGaussianRdp } from './subsampled-gaussian.ts';

/** The RDP of `event` at each order; undefined where no bound is known (for this relation). */
export function rdpCurve(event: SingleEvent, relation: AccountedRelation, orders: readonly number[]): readonly number[] | undefined {
  const gaussians = gaussianParts(event, relation);
  if (gaussians) {
    const perOrder = gaussians.reduce((sum, part) => sum + (part.count === 0 ? 0 : part.count / (2 * part.noiseMultiplier ** 2)), 0);
    return orders.map((order) => order * perOrder);
  }
  switch (event.kind) {
    case 'nonPrivate':
      return orders.map(() => Infinity);
    case 'zcdp':
      return orders.map((order) => order * event.rho);
    case 'discreteGaussian': {
      // As the continuous one (Canonne, Kamath & Steinke 2020, Prop. 5), in any dimension.
      const rho = event.l2Sensitivity === 0 ? 0 : event.l2Sensitivity ** 2 / (2 * event.sigma ** 2);
      return orders.map((order) => order * rho);
    }
    case 'distributedDiscreteGaussian': {
      const distance = discreteGaussianSumDistance(event.sigma, event.shares);
      return orders.map((order) => distributedDiscreteGaussianRdp(event, order, distance));
    }
    case 'skellam':
      return orders.map((order) => skellamRdp(event, order));
    case 'laplace': {
      // Continuous or discrete, so only its epsilon is known: no (epsilon, 0)-DP mechanism costs more than randomized response
      // with that epsilon (Kairouz, Oh & Viswanath 2015).
      const epsilon = 1 / event.noiseMultiplier;
      return orders.map((order) => threePointRdp({ epsilon, top: 1 / (1 + Math.exp(-epsilon)) }, order));
    }
    case 'continuousLaplace':
      return orders.map((order) => laplaceRdp(1 / event.noiseMultiplier, order));
    case 'discreteLaplace':
      return orders.map((order) => discreteLaplaceRdp(event.scale, event.l1Sensitivity, order));
    case 'randomizedResponse':
    case 'subsetSelection':
    case 'unaryEncoding': {
      const loss = threePointLoss(event, relation);
      return loss && orders.map((order) => threePointRdp(loss, order));
    }
    case 'poissonSampled':
      if (relation !== 'addOrRemoveRecord' || event.event.kind !== 'gaussian') return undefined;
      return poissonSampledGaussianRdp(event.samplingProbability, event.event.noiseMultiplier, orders);
    case 'privateTraining': {
      const { samplingProbability, noiseMultiplier, steps } = event;
      if (relation !== 'addOrRemoveRecord' && relation !== 'replaceRecord') return undefined;
      if (steps === 0) return orders.map(() => 0);
      const curve = relation === 'replaceRecord' ? replacedRecordRdp(samplingProbability, noiseMultiplier, orders) : poissonSampledGaussianRdp(samplingProbability, noiseMultiplier, orders);
      return curve.map((step) => steps * step);
    }
    case 'sampledWithoutReplacement':
      if (relation !== 'replaceRecord') return undefined;
      return sampledWithoutReplacementGaussianRdp(event.sampleSize / event.datasetSize, event.event.noiseMultiplier, orders);
    case 'gaussian':
    case 'gnMax':
    case 'confidentGnMax':
      return undefined; // answered above
  }
}

/** `1/(a-1) ln(1 + A (e^((a-1) epsilon) - 1) (1 - e^(-a epsilon)))`: the moments of a three-point loss, factored so that nothing cancels. */
export function threePointRdp({ epsilon, top }: ThreePointLoss, order: number): number {
  if (epsilon === 0) return 0;
  if (!Number.isFinite(epsilon)) return Infinity;
  const logExcess = Math.log(top) + logExpm1((order - 1) * epsilon) + Math.log(-Math.expm1(-order * epsilon));
  return Math.min(epsilon, log1pExp(logExcess) / (order - 1));
}

/**
 * Mironov 2017, Prop. 6, with `t = Delta_1 / b`: `1/(a-1) ln[a/(2a-1) e^((a-1)t) + (a-1)/(2a-1) e^(-at)]`. For one coordinate it is
 * exact. For several coordinates with `sum t_i <= t` it is an upper bound: the curve is a log-sum-exp of linear functions of t, so
 * convex, and 0 at 0, hence superadditive: `sum R(t_i) <= R(sum t_i)`.
 */
export function laplaceRdp(t: number, order: number): number {
  if (t === 0) return 0;
  if (!Number.isFinite(t)) return Infinity;
  const a = order;
  if (a * t < 0.5) {
    // sum_{n >= 2} ((a-1)^(n-1) + (-1)^n a^(n-1)) t^n / n!, times a(a-1)/(2a-1): the moment minus 1 without its cancelling linear terms.
    let up = t;
    let down = -t;
    let sum = 0;
    for (let n = 2; n < 40; n++) {
      up *= ((a - 1) * t) / n;
      down *= (-a * t) / n;
      sum += up + down;
      if (Math.abs(down) < sum * 2 ** -56) break;
    }
    return Math.log1p((sum * a * (a - 1)) / (2 * a - 1)) / (a - 1);
  }
  return t + Math.log1p(((a - 1) * Math.expm1((1 - 2 * a) * t)) / (2 * a - 1)) / (a - 1);
}

/**
 * Exact for one coordinate, by summing `P^a Q^(1-a)` over the three ranges of a discrete Laplace and its shift by k:
 * `1/(a-1) ln[A e^((a-1)t) + B e^(-at)]`, `t = k/b`, with `A + B = 1`, `A, B > 0`. An upper bound for several coordinates by the
 * argument of `laplaceRdp`.
 */
export function discreteLaplaceRdp(scale: number, shift: number, order: number): number {
  if (shift === 0) return 0;
  const t = shift / scale;
  if (!Number.isFinite(t)) return Infinity;
  const a = order;
  const normalization = Math.tanh(1 / (2 * scale));
  const right = 1 / Math.expm1((2 * a - 1) / scale); // r / (1 - r), r = e^(-(2a-1)/b)
  const high = normalization * (-1 / Math.expm1(-1 / scale) + right);
  const low = Math.max(0, 1 - high);
  const logUp = Math.log(high) + (a - 1) * t;
  // Directly when large, and from expm1 when small; the added margin covers the cancellation of the linear terms.
  if (logUp > 1) return Math.min(t, (logUp + Math.log1p((low / high) * Math.exp((1 - 2 * a) * t))) / (a - 1));
  const excess = high * Math.expm1((a - 1) * t) + low * Math.expm1(-a * t) + 8 * 2 ** -53 * a * t;
  return Math.min(t, Math.log1p(Math.max(0, excess)) / (a - 1));
}

export interface DistributedDiscreteGaussian {
  readonly sigma: number;
  readonly shares: number;
  readonly l2Sensitivity: number;
  readonly l1Sensitivity: number;
  readonly dimension: number;
}

/**
 * How far a sum of `shares` discrete Gaussians is from one discrete Gaussian: `10 sum_{k=1}^{h-1} e^(-2 pi^2 sigma^2 k/(k+1))`
 * (Kairouz, Liu & Steinke 2021, arXiv:2102.06387). Below 1e-35 from sigma = 3 on.
 */
export function discreteGaussianSumDistance(sigma: number, shares: number): number {
  let sum = 0;
  for (let k = 1; k < shares; k++) sum += Math.exp((-2 * Math.PI ** 2 * sigma ** 2 * k) / (k + 1));
  return 10 * sum;
}

/** The smallest of the three bounds, `tau` the distance above, of Kairouz, Liu & Steinke 2021, as in the authors' code, for every order. */
export function distributedDiscreteGaussianRdp(event: DistributedDiscreteGaussian, order: number, tau: number): number {
  const { sigma, shares, l2Sensitivity: l2, l1Sensitivity: l1, dimension } = event;
  if (l2 === 0) return 0;
  if (sigma === 0) return Infinity;
  const centralStddev = Math.sqrt(shares) * sigma;
  const ratio = l2 / centralStddev;
  return Math.min(
    (order / 2) * ratio ** 2 + tau * dimension,
    (order / 2) * (ratio ** 2 + (2 * l1 * tau) / centralStddev + tau ** 2 * dimension),
    (order / 2) * (ratio + tau * Math.sqrt(dimension)) ** 2,
  );
}

/**
 * Agarwal, Kairouz & Liu 2021 (arXiv:2110.04995), as in the authors' code, in grid steps: for integer orders
 * `a D2^2/(2 mu) + min{((2a-1) D2^2 + 6 D1) / (4 mu^2), 3 D1/(2 mu)}`; in between, the chord.
 */
export function skellamRdp(event: { readonly variance: number; readonly l2Sensitivity: number; readonly l1Sensitivity: number }, order: number): number {
  const { variance: mu, l2Sensitivity: l2, l1Sensitivity: l1 } = event;
  if (l2 === 0 && l1 === 0) return 0;
  if (mu === 0) return Infinity;
  return interpolate(order, (a) => (a - 1) * ((a * l2 ** 2) / (2 * mu) + Math.min(((2 * a - 1) * l2 ** 2 + 6 * l1) / (4 * mu ** 2), (3 * l1) / (2 * mu))));
}
