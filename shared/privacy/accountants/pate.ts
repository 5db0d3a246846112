/**
 * Formulas for votes with Gaussian noise: GNMax and Confident-GNMax of Papernot et al. 2018, *Scalable private learning with PATE*
 * (arXiv:1802.08908). Data-independent bounds, data-dependent ones, and the sensitivity of the latter.
 *
 * The data-dependent values are themselves private: they are computed from the true votes, and hold only against somebody who
 * sees nothing but the winning label. `pate-data-dependent.ts` keeps both conditions; nothing else should call these functions.
 */
import { log1mExp, logAddExp } from './log-space.ts';
import { logNormalCdf } from './numerics.ts';

/** Prop. 8: a client's vote moves two counts, so the L2 sensitivity is sqrt 2. */
export function gnMaxRdp(sigma: number, order: number): number {
  return order / sigma ** 2;
}

/** The largest count moves by at most one: sensitivity 1 (sec. 4.1). */
export function thresholdRdp(sigma: number, order: number): number {
  return gnMaxRdp(Math.SQRT2 * sigma, order);
}

/** Upper bound of `ln Pr[the noisy winner is not the true one]`, by a union bound (Prop. 7). */
export function gnMaxLogFailure(votes: readonly number[], sigma: number): number {
  const top = votes.reduce((best, count, index) => (count > votes[best]! ? index : best), 0);
  let sum = -Infinity;
  for (const [index, count] of votes.entries()) if (index !== top) sum = logAddExp(sum, logNormalCdf(-(votes[top]! - count) / (Math.SQRT2 * sigma)));
  return Math.min(sum, Math.log1p(-1 / votes.length));
}

/** `ln Pr[the largest count plus noise reaches the threshold]`. */
export function thresholdLogAnswered(threshold: number, sigma: number, votes: readonly number[]): number {
  return logNormalCdf((Math.max(...votes) - threshold) / sigma);
}

/** Thm 6 with the orders of Prop. 10, or the data-independent bound where that is smaller or the conditions fail. */
export function gnMaxDataDependentRdp(logFailure: number, sigma: number, order: number): number {
  const independent = gnMaxRdp(sigma, order);
  if (logFailure === -Infinity) return 0;
  const mu2 = sigma * Math.sqrt(-logFailure);
  const mu1 = mu2 + 1;
  if (!(mu1 > order && mu2 > 1) || !isWithinTheorem(logFailure, sigma, mu1, mu2)) return independent;
  return Math.min(independent, unconditionalBound(logFailure, sigma, order));
}

/** The same for the threshold test, whose rarer outcome has this probability. */
export function thresholdDataDependentRdp(logAnswered: number, sigma: number, order: number): number {
  return gnMaxDataDependentRdp(Math.min(logAnswered, log1mExp(logAnswered)), Math.SQRT2 * sigma, order);
}

/** `q <= e^((mu2 - 1) e2) / (mu1/(mu1-1) * mu2/(mu2-1))^mu2`, and A of Thm 6 positive; `e2 = mu2 / sigma^2`. */
function isWithinTheorem(logFailure: number, sigma: number, mu1: number, mu2: number): boolean {
  const e2 = mu2 / sigma ** 2;
  return logFailure <= (mu2 - 1) * e2 - mu2 * (Math.log1p(1 / (mu1 - 1)) + Math.log1p(1 / (mu2 - 1))) && -logFailure > e2;
}

/** `1/(a-1) ln[(1-q) A^(a-1) + q B^(a-1)]` of Thm 6, whatever its conditions. */
function unconditionalBound(logFailure: number, sigma: number, order: number): number {
  const mu2 = sigma * Math.sqrt(-logFailure);
  const mu1 = mu2 + 1;
  const e1 = mu1 / sigma ** 2;
  const e2 = mu2 / sigma ** 2;
  const logSuccess = log1mExp(logFailure);
  const logA = logSuccess - log1mExp((logFailure + e2) * (1 - 1 / mu2));
  const logB = e1 - logFailure / (mu1 - 1);
  return logAddExp(logSuccess + (order - 1) * logA, logFailure + (order - 1) * logB) / (order - 1);
}

/** `ln q0`: above it the data-dependent bound is no better than the independent one (App. B.4). */
export function gnMaxLogCrossover(sigma: number, order: number): number {
  const gain = (logFailure: number) => unconditionalBound(logFailure, sigma, order) - gnMaxRdp(sigma, order);
  // Below this the conditions of Thm 6 hold: mu2 >= 1 + 1/sigma-ish, mu1 >= order, A positive.
  let high = Math.min(-((1 + 1 / sigma) ** 2), -(((order - 0.99) / sigma) ** 2), -1 / sigma ** 2);
  if (gain(high) < 0) return high;
  let low = 2 * high;
  while (gain(low) > 0) {
    if (low < -1e6) throw new RangeError(`no crossover for sigma ${sigma} and order ${order}`);
    low *= 1.5;
  }
  for (let step = 0; step < 200 && high - low > Math.abs(low) * 1e-15; step++) {
    const middle = (low + high) / 2;
    if (gain(middle) > 0) high = middle;
    else low = middle;
  }
  return low;
}

/** `ln` of the failure bound after one vote was moved for the winner (`-1`) or against it (`+1`): `B_L`, `B_U` of Prop. 13. */
function shiftFailure(logFailure: number, sigma: number, classes: number, direction: 1 | -1): number {
  const others = Math.log(classes - 1);
  return Math.min(0, others + logNormalCdf(normalQuantile(logFailure - others) + (direction * Math.SQRT2) / sigma));
}

/** The x with `ln Phi(x) = logProbability`, to float64 accuracy. */
export function normalQuantile(logProbability: number): number {
  if (!(logProbability <= 0)) throw new RangeError(`"logProbability" expected a number <= 0, got ${logProbability}`);
  if (logProbability === 0) return Infinity;
  if (logProbability > -Math.LN2) return -normalQuantile(log1mExp(logProbability));
  // Phi(-z) <= e^(-z^2/2)/2: the quantile is above -sqrt(-2 ln(2p)); and below 0.
  let low = -Math.sqrt(-2 * (logProbability + Math.LN2)) - 1;
  let high = 0;
  for (let step = 0; step < 200 && high - low > 4e-16 * Math.max(1, -low); step++) {
    const middle = (low + high) / 2;
    if (logNormalCdf(middle) < logProbability) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** The crossover and its neighbor, for one (sigma, order, classes): they take a root search, so they are computed once. */
interface Region {
  readonly logQ0: number;
  readonly logQ1: number;
}

function regionOf(sigma: number, order: number, classes: number): Region {
  const logQ0 = gnMaxLogCrossover(sigma, order);
  return { logQ0, logQ1: shiftFailure(logQ0, sigma, classes, -1) };
}

/** The data-dependent bound as a function of the failure probability only. */
function rdpOfFailure(logFailure: number, sigma: number, order: number, region: Region): number {
  // A hair below the crossover counts as on it: one vote from q1 leads to q0 exactly, but for rounding, and there the bound may jump up.
  return logFailure >= region.logQ0 * (1 + 1e-9) ? gnMaxRdp(sigma, order) : unconditionalBound(logFailure, sigma, order);
}

/** Algorithm 3: upper bound of the local sensitivity at this failure probability. */
function localSensitivity(logFailure: number, sigma: number, order: number, classes: number, region: Region): number {
  const at = region.logQ1 <= logFailure && logFailure <= region.logQ0 ? region.logQ1 : logFailure;
  const here = rdpOfFailure(at, sigma, order, region);
  const worse = rdpOfFailure(shiftFailure(at, sigma, classes, 1), sigma, order, region);
  const better = rdpOfFailure(shiftFailure(at, sigma, classes, -1), sigma, order, region);
  return Math.max(worse - here, here - better);
}

/** Algorithms 4 and 5: bounds of the local sensitivity at distance 0, 1, ..., clients - 1 from these votes. */
export function gnMaxLocalSensitivities(votes: readonly number[], clients: number, sigma: number, order: number): Float64Array {
  const classes = votes.length;
  const region = regionOf(sigma, order, classes);
  const result = new Float64Array(clients).fill(localSensitivity(region.logQ1, sigma, order, classes, region));
  let logFailure = gnMaxLogFailure(votes, sigma);
  if (region.logQ1 <= logFailure && logFailure <= region.logQ0) return result;

  const sorted = [...votes].sort((a, b) => b - a);
  const isTowardWinner = logFailure > region.logQ0;
  result[0] = localSensitivity(logFailure, sigma, order, classes, region);
  for (let distance = 1; distance < clients; distance++) {
    if (isTowardWinner ? !(logFailure > region.logQ0 && sorted[1]! > 0) : !(logFailure < region.logQ1)) break;
    const step = isTowardWinner ? 1 : -1;
    sorted[0]! += step;
    sorted[1]! -= step;
    if (isTowardWinner) sorted.splice(1, sorted.length - 1, ...sorted.slice(1).sort((a, b) => b - a));
    logFailure = gnMaxLogFailure(sorted, sigma);
    result[distance] = localSensitivity(logFailure, sigma, order, classes, region);
  }
  return result;
}

/** The same for the threshold test, which depends on the largest count only: all counts are within reach. */
export function thresholdLocalSensitivities(votes: readonly number[], clients: number, threshold: number, sigma: number, order: number): Float64Array {
  const rdp = Float64Array.from({ length: clients + 1 }, (_, count) => thresholdDataDependentRdp(logNormalCdf((count - threshold) / sigma), sigma, order));
  const at = (count: number) => Math.max(count > 0 ? Math.abs(rdp[count - 1]! - rdp[count]!) : 0, count < clients ? Math.abs(rdp[count + 1]! - rdp[count]!) : 0);
  const largest = Math.round(Math.max(...votes));
  return Float64Array.from({ length: clients }, (_, distance) =>
    distance >= Math.max(largest, clients - largest) ? 0 : Math.max(largest + distance <= clients ? at(largest + distance) : 0, largest - distance >= 0 ? at(largest - distance) : 0),
  );
}

/** `max_d e^(-beta d) LS(d)` (Nissim, Raskhodnikova & Smith 2007, Def. 2.2). */
export function smoothSensitivity(beta: number, localSensitivities: ArrayLike<number>): number {
  let best = 0;
  for (let distance = 0; distance < localSensitivities.length; distance++) best = Math.max(best, Math.exp(-beta * distance) * localSensitivities[distance]!);
  return best;
}

/** Thm 23: what it costs to release a value plus `smoothSensitivity * N(0, sigma^2)`. For `1 < order < 1/(2 beta)`. */
export function smoothReleaseRdp(beta: number, sigma: number, order: number): number {
  if (!(beta >= 0 && order > 1 && 2 * order * beta < 1)) throw new RangeError(`expected 1 < order < 1/(2 beta), got order ${order} and beta ${beta}`);
  return (order * Math.exp(2 * beta)) / sigma ** 2 + (order * beta - 0.5 * Math.log1p(-2 * order * beta)) / (order - 1);
}

/**
 * Conditions C5 and C6 (App. B.4.2), under which the bounds above are upper bounds of the local sensitivity: the data-dependent RDP
 * rises with q on (0, q0), and so does its growth under one moved vote on (0, q1). Checked at `points` values, like the reference
 * code checks them numerically; not a proof.
 */
export function smoothConditionsHold(sigma: number, order: number, classes: number, points = 400): { readonly rises: boolean; readonly growthRises: boolean } {
  const region = regionOf(sigma, order, classes);
  const bound = (logFailure: number) => unconditionalBound(logFailure, sigma, order);
  const growth = (logFailure: number) => bound(Math.min(shiftFailure(logFailure, sigma, classes, 1), region.logQ0)) - bound(logFailure);
  return { rises: isRising(bound, region.logQ0, points), growthRises: isRising(growth, region.logQ1, points) };
}

function isRising(value: (logFailure: number) => number, highest: number, points: number): boolean {
  let previous = -Infinity;
  for (let index = 0; index <= points; index++) {
    const next = value(highest - (points - index) * (Math.min(60, -highest * 10) / points));
    if (next < previous * (1 - 1e-12)) return false;
    previous = next;
  }
  return true;
}
