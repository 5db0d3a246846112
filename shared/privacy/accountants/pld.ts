/**
 * The PLD accountant: privacy losses add up under composition, so their distributions convolve (Sommer, Meiser & Mohammadi 2019;
 * Koskela, Jälkö & Honkela 2020). Near the exact epsilon, where RDP is 5 to 10 % above it.
 *
 * Upper bound, from pessimistic grids (`privacy-loss.ts`), in both directions, of which the larger epsilon counts. The convolution is
 * one FFT of exponentially tilted distributions: the tilt moves the part that decides delta to where float64 is accurate, so that
 * delta 1e-30 is no harder than 1e-5. What the window cuts off is bounded (Chernoff) and added to delta, and so is the rounding
 * error of the transform; that estimate is worked out by hand, not by interval arithmetic.
 *
 * Refuses events for which no dominating pair is known: sums of discrete Gaussians, Skellam, zCDP, sampling without replacement,
 * discrete Gaussians in several coordinates.
 */
import type { Delta, Epsilon } from '../../types/units.ts';
import type { AccountedRelation, DpEvent, SingleEvent } from '../dp-event.ts';
import type { PrivacyAccountant, Unsupported } from './accountant.ts';
import { checkDelta, findUnsupported, flattenEvent, refuseUnsupported } from './accountant.ts';
import { MAX_FFT_LENGTH, fft, fftError } from './fft.ts';
import { roundUp } from './numerics.ts';
import type { GridLoss, LossDistribution, LossPoints } from './privacy-loss.ts';
import { eventLoss, gaussianLoss } from './privacy-loss.ts';

/** The grid that dp_accounting uses by default; finer where the losses are small, coarser where the range would not fit. */
const DEFAULT_STEP = 1e-4;
/** At least this many steps to the standard deviation of one event's loss: below, the rounding to the grid would be felt. */
const STEPS_PER_DEVIATION = 64;
/** And at most this many, so that a wide distribution does not take a grid that nobody needs. */
const MOST_STEPS_PER_DEVIATION = 2 ** 14;
/** Longest grid of one event, and longest window. */
const MAX_CELLS = 2 ** 20;
/** Tilted mass outside the window, `e^-46 = 1e-20`. */
const LOG_OUTSIDE = -46;

interface Counted<T> {
  readonly loss: T;
  readonly count: number;
}

export class PldAccountant implements PrivacyAccountant {
  readonly name = 'pld';
  readonly version = 1;
  readonly neighboringRelation: AccountedRelation;
  readonly #step: number;
  /** Events that are not Gaussian, with their counts, by their JSON. */
  readonly #counts: ReadonlyMap<string, { readonly event: SingleEvent; readonly count: number }>;
  /** Of all Gaussians together. `Infinity`: something left without noise. */
  readonly #muSquared: number;

  /** `step`: the largest grid step that is used unless the range of losses is too large for it. */
  constructor(neighboringRelation: AccountedRelation, step = DEFAULT_STEP, counts: ReadonlyMap<string, { readonly event: SingleEvent; readonly count: number }> = new Map(), muSquared = 0) {
    if (!(step > 0)) throw new RangeError(`"step" expected a number > 0, got ${step}`);
    this.neighboringRelation = neighboringRelation;
    this.#step = step;
    this.#counts = counts;
    this.#muSquared = muSquared;
  }

  check(event: DpEvent): Unsupported | undefined {
    return findUnsupported(event, this.name, (part) => eventLoss(part, this.neighboringRelation) !== undefined);
  }

  compose(event: DpEvent, count = 1): PldAccountant {
    refuseUnsupported(this.check(event));
    const counts = new Map(this.#counts);
    let muSquared = this.#muSquared;
    for (const part of flattenEvent(event, count)) {
      const loss = eventLoss(part.event, this.neighboringRelation)!;
      if (loss.kind === 'infinite') muSquared = Infinity;
      else if (loss.kind === 'gaussian') muSquared = roundUp(muSquared + part.count * loss.muSquared);
      else {
        const key = JSON.stringify(part.event);
        counts.set(key, { event: part.event, count: (counts.get(key)?.count ?? 0) + part.count });
      }
    }
    return new PldAccountant(this.neighboringRelation, this.#step, counts, muSquared);
  }

  epsilon(delta: Delta): Epsilon {
    checkDelta(delta);
    if (!Number.isFinite(this.#muSquared)) return Infinity as Epsilon;
    const parts = [...this.#counts.values()].map(({ event, count }) => ({ loss: eventLoss(event, this.neighboringRelation)!, count }));
    const directions = (['forward', 'backward'] as const).map((direction) => {
      const losses = parts.flatMap(({ loss, count }): Counted<LossDistribution>[] => (loss.kind === 'pair' ? [{ loss: loss[direction], count }] : []));
      return this.#muSquared === 0 ? losses : [...losses, { loss: gaussianLoss(Math.sqrt(this.#muSquared)), count: 1 }];
    });
    const [forward, backward] = [directions[0]!, directions[1]!];
    const first = composedEpsilon(forward, delta, this.#step);
    // The same distributions in both directions need one pass.
    if (forward.every((part, index) => part.loss === backward[index]?.loss || parts.length === 0)) return first;
    return Math.max(first, composedEpsilon(backward, delta, this.#step)) as Epsilon;
  }
}

/** The smallest epsilon, rounded up, at which the hockey-stick divergence of the composition is at most `delta`. */
function composedEpsilon(parts: readonly Counted<LossDistribution>[], delta: number, largestStep: number): Epsilon {
  if (parts.length === 0) return 0 as Epsilon;
  const highest = parts.reduce((sum, { loss, count }) => sum + count * loss.maxLoss, 0);
  if (delta === 0) return Math.max(0, roundUp(highest)) as Epsilon;
  const total = parts.reduce((sum, part) => sum + part.count, 0);
  const tailMass = Math.max(Number.MIN_VALUE * 2 ** 60, (delta * 1e-12) / total);
  const estimate = parts.map(({ loss, count }) => ({ loss: loss.points(tailMass), count }));
  const plan = planGrid(estimate, delta, largestStep);
  const grids = parts.map(({ loss, count }) => ({ loss: loss.onGrid(plan.step, tailMass), count }));
  const epsilon = convolvedEpsilon(grids, plan, delta);
  // No loss exceeds the sum of the largest ones.
  return Math.min(epsilon, Math.max(0, roundUp(highest))) as Epsilon;
}

interface GridPlan {
  readonly step: number;
  readonly tilt: number;
  /** Losses between which the tilted composition lies, except for `e^LOG_OUTSIDE`. */
  readonly low: number;
  readonly high: number;
  /** The order of the Chernoff bound beyond `high`. */
  readonly highOrder: number;
}

/** Chooses tilt, window and step from the moments of the undiscretised losses. Affects tightness and time, never validity. */
function planGrid(parts: readonly Counted<LossPoints>[], delta: number, largestStep: number): GridPlan {
  const logDelta = Math.log(delta);
  let range = Number.MIN_VALUE;
  let deviation = Infinity;
  let variance = 0;
  let most = 0;
  let least = 0;
  for (const { loss, count } of parts) {
    const part = describe(loss);
    range = Math.max(range, part.high - part.low, Math.abs(part.mean));
    if (part.variance > 0) deviation = Math.min(deviation, Math.sqrt(part.variance));
    variance += count * part.variance;
    most += count * part.high;
    least += count * part.low;
  }
  const logMoment = (order: number) => parts.reduce((sum, { loss, count }) => sum + count * logMgf(loss, order), 0);

  // The tilt whose RDP order a = tilt + 1 gives the best epsilon at delta (rdp.ts): its mean is near the epsilon we look for.
  const span = [Math.log(1e-6 / range), Math.log(1e3 / Math.max(Math.sqrt(variance), 1e-9 * range))] as const;
  const tilt = Math.exp(argmin((logOrder) => (logMoment(Math.exp(logOrder)) - logDelta - Math.log1p(Math.exp(logOrder))) / Math.exp(logOrder) - Math.log1p(Math.exp(-logOrder)), ...span));
  const atTilt = logMoment(tilt);
  const upper = (logOrder: number) => (logMoment(tilt + Math.exp(logOrder)) - atTilt - LOG_OUTSIDE) / Math.exp(logOrder);
  const lower = (logOrder: number) => (logMoment(tilt - Math.exp(logOrder)) - atTilt - LOG_OUTSIDE) / Math.exp(logOrder);
  const highLog = argmin(upper, ...span);
  const lowLog = argmin(lower, ...span);
  const high = Math.min(upper(highLog), most);
  const low = Math.max(Math.min(-lower(lowLog), high), least);

  let step = largestStep;
  const widest = () => Math.max(high - low, range) / step;
  while (step > deviation / STEPS_PER_DEVIATION && widest() < MAX_CELLS / 8) step /= 2;
  while (step < deviation / MOST_STEPS_PER_DEVIATION && Number.isFinite(deviation)) step *= 2;
  while (widest() > MAX_CELLS) step *= 2;
  return { step, tilt, low, high, highOrder: tilt + Math.exp(highLog) };
}

function describe(points: LossPoints): { readonly mean: number; readonly variance: number; readonly low: number; readonly high: number } {
  let mass = 0;
  let mean = 0;
  let low = Infinity;
  let high = -Infinity;
  for (let index = 0; index < points.losses.length; index++) {
    const loss = points.losses[index]!;
    mass += points.masses[index]!;
    mean += points.masses[index]! * loss;
    low = Math.min(low, loss);
    high = Math.max(high, loss);
  }
  mean /= mass;
  let variance = 0;
  for (let index = 0; index < points.losses.length; index++) variance += points.masses[index]! * (points.losses[index]! - mean) ** 2;
  return { mean, variance: variance / mass, low, high };
}

/** `ln E[e^(order * loss)]` over the finite losses. */
function logMgf(points: LossPoints, order: number): number {
  let top = -Infinity;
  for (let index = 0; index < points.losses.length; index++) if (points.masses[index]! > 0) top = Math.max(top, order * points.losses[index]!);
  let sum = 0;
  // Points without mass may lie above the top: infinity times 0 is no number.
  for (let index = 0; index < points.losses.length; index++) if (points.masses[index]! > 0) sum += points.masses[index]! * Math.exp(order * points.losses[index]! - top);
  return top + Math.log(sum);
}

/** `ln sum_i masses_i e^(order * loss_i)` on a grid. */
function gridLogMgf(grid: GridLoss, order: number): number {
  let top = -Infinity;
  const slope = order * grid.step;
  for (let index = 0; index < grid.masses.length; index++) if (grid.masses[index]! > 0) top = Math.max(top, slope * (grid.first + index));
  let sum = 0;
  for (let index = 0; index < grid.masses.length; index++) if (grid.masses[index]! > 0) sum += grid.masses[index]! * Math.exp(slope * (grid.first + index) - top);
  return top + Math.log(sum);
}

function convolvedEpsilon(parts: readonly Counted<GridLoss>[], plan: GridPlan, delta: number): number {
  const { step, tilt } = plan;
  // The grids end where all losses are largest: nothing is above that, and a window that nearly gets there goes all the way.
  const last = parts.reduce((sum, { loss, count }) => sum + count * (loss.first + loss.masses.length - 1), 0);
  const nearTop = Math.ceil(plan.high / step) + 2 * parts.length + 2;
  const top = last - nearTop < MAX_CELLS / 8 ? last : nearTop;
  const needed = top - Math.floor(plan.low / step) + 2 * parts.length + 4;
  const length = Math.min(MAX_FFT_LENGTH, 2 ** Math.ceil(Math.log2(Math.max(16, needed))));
  const bottom = top - length + 1;

  // Product of the transforms of the tilted distributions, each to the power of its count.
  // Real distributions have X_(n-j) = conj(X_j): half of it is enough.
  const half = length / 2;
  const logMagnitude = new Float64Array(half + 1);
  const phase = new Float64Array(half + 1);
  const relativeError = new Float64Array(half + 1);
  const unit = fftError(length);
  let logTotal = 0;
  let highTail = 0;
  let logFinite = 0;
  for (const { loss: grid, count } of parts) {
    const logNormalization = gridLogMgf(grid, tilt);
    const real = new Float64Array(length);
    const imaginary = new Float64Array(length);
    for (let index = 0; index < grid.masses.length; index++) {
      const mass = grid.masses[index]!;
      if (mass === 0) continue;
      const cell = grid.first + index;
      // Circular: only sums modulo the length matter, because the window has that length.
      real[((cell % length) + length) % length]! += mass * Math.exp(tilt * step * cell - logNormalization);
    }
    fft(real, imaginary);
    for (let j = 0; j <= half; j++) {
      const magnitude = Math.sqrt(real[j]! ** 2 + imaginary[j]! ** 2);
      logMagnitude[j]! += count * Math.log(magnitude);
      phase[j]! += count * Math.atan2(imaginary[j]!, real[j]!);
      // An error of `unit` in a factor of this magnitude, `count` times; and one of 2^-52 in the angle.
      relativeError[j]! += count * (unit / Math.max(magnitude, 1e-300) + 4 * 2 ** -52);
    }
    logTotal += count * logNormalization;
    highTail += count * gridLogMgf(grid, plan.highOrder);
    logFinite += count * Math.log1p(-Math.min(1, grid.infinityMass));
  }
  const real = new Float64Array(length);
  const imaginary = new Float64Array(length);
  let sumOfMagnitudes = 0;
  let sumOfErrors = 0;
  for (let j = 0; j <= half; j++) {
    const magnitude = Math.exp(logMagnitude[j]!);
    if (magnitude === 0) continue;
    const isPaired = j > 0 && j < half;
    real[j] = magnitude * Math.cos(phase[j]!);
    imaginary[j] = isPaired ? magnitude * Math.sin(phase[j]!) : 0;
    if (isPaired) {
      real[length - j] = real[j]!;
      imaginary[length - j] = -imaginary[j]!;
    }
    sumOfMagnitudes += (isPaired ? 2 : 1) * magnitude;
    sumOfErrors += (isPaired ? 2 : 1) * Math.min(1, magnitude * Math.min(relativeError[j]!, 1e300));
  }
  fft(real, imaginary, true);
  const pointError = (sumOfErrors + unit * sumOfMagnitudes) / length;

  // Infinite losses, and the finite ones above the window: P[L >= (top + 1) step] <= E[e^(order (L - (top + 1) step))].
  const aboveWindow = top >= last ? 0 : Math.exp(Math.min(0, highTail - plan.highOrder * (top + 1) * step));
  const lost = -Math.expm1(logFinite) + aboveWindow;
  if (!(lost < delta)) return Infinity;

  // delta(l_i) = lost + sum_{k > i} out_k (1 - e^(l_i - l_k)), from the top down, in units of delta.
  const logDelta = Math.log(delta);
  let upper = lost / delta;
  let lower = 0;
  for (let cell = top; cell >= bottom; cell--) {
    if (upper - lower > 1) {
      // Crossed between this cell and the one above: solve upper - lower e^(epsilon - l_i) = 1.
      return Math.max(0, cell * step + Math.log((upper - 1) / lower)) + 2 ** -48 * Math.abs(cell * step);
    }
    if (cell <= 0) return 0;
    const tilted = Math.max(0, real[((cell % length) + length) % length]!) + pointError;
    const mass = tilted * Math.exp(logTotal - tilt * cell * step - logDelta);
    lower = (lower + mass) * Math.exp(-step);
    upper += mass;
  }
  return bottom * step;
}

/** Where a function with one minimum in [low, high] is smallest, by golden section: within the interval's 1e-3. */
function argmin(value: (x: number) => number, low: number, high: number): number {
  const ratio = (Math.sqrt(5) - 1) / 2;
  let left = high - ratio * (high - low);
  let right = low + ratio * (high - low);
  let atLeft = value(left);
  let atRight = value(right);
  for (let step = 0; step < 30; step++) {
    // A value that overflowed is on the side of too large orders.
    if (atLeft <= atRight || Number.isNaN(atRight)) {
      high = right;
      [right, atRight] = [left, atLeft];
      left = high - ratio * (high - low);
      atLeft = value(left);
    } else {
      low = left;
      [left, atLeft] = [right, atRight];
      right = low + ratio * (high - low);
      atRight = value(right);
    }
  }
  return (low + high) / 2;
}
