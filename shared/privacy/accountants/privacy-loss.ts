/**
 * The privacy loss distribution of one event: how `ln(P/Q)` is distributed under P, for a pair (P, Q) that dominates every pair of
 * neighbors (Zhu, Dong & Wang 2022, Def. 7), and its pessimistic version on a grid.
 *
 * Pessimistic, "connect the dots" (Doroshenko, Ghazi, Kamath, Kumar & Manurangsi 2022): a loss between two grid points is split
 * between them so that both `P` and `Q = E_P[e^-loss]` keep their mass. The hockey-stick divergence is then exact at grid points and
 * an upper bound between them. Integrals are by Gauss-Legendre on pieces small enough that the relative error is below 1e-14,
 * which a margin covers; mass beyond the truncation counts as infinite loss (above) or is moved up (below).
 */
import type { AccountedRelation, SingleEvent } from '../dp-event.ts';
import { gaussianParts, pureEpsilon, threePointLoss } from './equivalents.ts';
import type { ThreePointLoss } from './equivalents.ts';

/** Points (loss, probability under P), or quadrature nodes with their weight. */
export interface LossPoints {
  readonly losses: Float64Array;
  readonly masses: Float64Array;
  /** Probability of infinite loss, an upper bound. */
  readonly infinityMass: number;
}

/** Probability `masses[i]` at loss `(first + i) * step`. */
export interface GridLoss {
  readonly step: number;
  readonly first: number;
  readonly masses: Float64Array;
  readonly infinityMass: number;
}

/** A privacy loss distribution that can be put on any grid. */
export interface LossDistribution {
  /** Largest finite loss; `Infinity` when it is unbounded. */
  readonly maxLoss: number;
  /** For estimates (moments, ranges): not pessimistic. */
  points(tailMass: number): LossPoints;
  /** Pessimistic; `tailMass` bounds what is truncated on each side. */
  onGrid(step: number, tailMass: number): GridLoss;
}

/** What an event is for the PLD accountant. Gaussians are kept apart: all of a run are one Gaussian with the sum of `mu^2`. */
export type EventLoss =
  | { readonly kind: 'infinite' }
  | { readonly kind: 'gaussian'; readonly muSquared: number }
  /** One distribution for P against Q and one for Q against P; the same object when they are equal. */
  | { readonly kind: 'pair'; readonly forward: LossDistribution; readonly backward: LossDistribution };

/** Most points of a discrete mechanism. */
const MAX_ATOMS = 2 ** 21;
/** Covers quadrature and rounding errors of one mass. */
const MASS_MARGIN = 1 + 2 ** -46;

/** The loss of `event`, or undefined where no dominating pair is known (for this relation). */
export function eventLoss(event: SingleEvent, relation: AccountedRelation): EventLoss | undefined {
  const gaussians = gaussianParts(event, relation);
  if (gaussians) return { kind: 'gaussian', muSquared: gaussians.reduce((sum, part) => sum + (part.count === 0 ? 0 : part.count / part.noiseMultiplier ** 2), 0) };
  switch (event.kind) {
    case 'nonPrivate':
      return { kind: 'infinite' };
    case 'laplace':
      return pureLoss(event, relation);
    case 'continuousLaplace':
      // One coordinate: exact. More: only its epsilon is used (a sum over coordinates is not known to be dominated by one).
      if (event.noiseMultiplier === 0) return infinite;
      return event.dimension === 1 ? symmetric(subsampledLaplace(1, event.noiseMultiplier, 'remove')) : pureLoss(event, relation);
    case 'discreteLaplace':
      return event.dimension === 1 && event.l1Sensitivity <= MAX_ATOMS ? discreteLaplaceLoss(event.scale, event.l1Sensitivity) : pureLoss(event, relation);
    case 'discreteGaussian':
      return discreteGaussianLoss(event);
    case 'randomizedResponse':
    case 'subsetSelection':
    case 'unaryEncoding': {
      const loss = threePointLoss(event, relation);
      return loss && threePoints(loss);
    }
    case 'poissonSampled':
      return relation === 'addOrRemoveRecord' ? sampledLoss(event) : undefined;
    case 'distributedDiscreteGaussian':
    case 'skellam':
    case 'zcdp':
    case 'sampledWithoutReplacement':
    case 'privateTraining':
    case 'gaussian':
    case 'gnMax':
    case 'confidentGnMax':
      return undefined;
  }
}

/** `N(mu, 1)` against `N(0, 1)`: loss `mu x - mu^2/2`, the same in both directions. */
export function gaussianLoss(mu: number): LossDistribution {
  return subsampledGaussian(1, mu, 'remove');
}

const free: EventLoss = { kind: 'gaussian', muSquared: 0 };
const infinite: EventLoss = { kind: 'infinite' };

function symmetric(loss: LossDistribution): EventLoss {
  return { kind: 'pair', forward: loss, backward: loss };
}

/** Randomized response with the same epsilon dominates every (epsilon, 0)-DP mechanism (Kairouz, Oh & Viswanath 2015, Thm 2.4). */
function pureLoss(event: SingleEvent, relation: AccountedRelation): EventLoss {
  const epsilon = pureEpsilon(event, relation)!;
  return epsilon === Infinity ? infinite : threePoints({ epsilon, top: 1 / (1 + Math.exp(-epsilon)) });
}

function threePoints({ epsilon, top }: ThreePointLoss): EventLoss {
  if (epsilon === 0) return free;
  const bottom = top * Math.exp(-epsilon);
  return symmetric(atoms([epsilon, 0, -epsilon], [top, Math.max(0, 1 - top - bottom), bottom]));
}

/** `P[x = j] ~ e^(-|j| / b)` against its shift by `k`: losses `k/b` for `j <= 0`, `(k - 2j)/b`, `-k/b` for `j >= k`. */
function discreteLaplaceLoss(scale: number, shift: number): EventLoss {
  if (shift === 0) return free;
  if (scale === 0 || !Number.isFinite(shift / scale)) return infinite;
  const end = 1 / (1 + Math.exp(-1 / scale)); // sum over j <= 0 of tanh(1/2b) e^(j/b)
  const losses = [shift / scale];
  const masses = [end];
  for (let j = 1; j < shift; j++) {
    losses.push((shift - 2 * j) / scale);
    masses.push(Math.tanh(1 / (2 * scale)) * Math.exp(-j / scale));
  }
  losses.push(-shift / scale);
  masses.push(end * Math.exp(-shift / scale));
  return symmetric(atoms(losses, masses));
}

/**
 * `P[x = j] ~ e^(-j^2 / (2 sigma^2))` against its shift by an integer `k`: loss `(k^2 - 2jk) / (2 sigma^2)`. One coordinate only: in
 * several, the worst direction of the shift is not known.
 */
function discreteGaussianLoss(event: { readonly sigma: number; readonly l2Sensitivity: number; readonly dimension: number }): EventLoss | undefined {
  const { sigma, l2Sensitivity: shift, dimension } = event;
  if (shift === 0) return free;
  if (sigma === 0) return infinite;
  if (dimension !== 1 || !Number.isInteger(shift) || sigma > MAX_ATOMS / 128) return undefined;
  return symmetric({
    maxLoss: Infinity,
    points: (tailMass) => discreteGaussianPoints(sigma, shift, tailMass),
    onGrid: (step, tailMass) => connectTheDots(discreteGaussianPoints(sigma, shift, tailMass), step),
  });
}

function discreteGaussianPoints(sigma: number, shift: number, tailMass: number): LossPoints {
  // A discrete Gaussian has at most the tails of the continuous one, one step further out (Canonne et al. 2020, Prop. 25).
  const reach = Math.ceil(sigma * tailDeviations(tailMass)) + 1;
  const losses = new Float64Array(2 * reach + 1);
  const masses = new Float64Array(2 * reach + 1);
  let total = 0;
  for (let index = 0; index <= 2 * reach; index++) {
    const j = index - reach;
    losses[index] = (shift * (shift - 2 * j)) / (2 * sigma * sigma);
    masses[index] = Math.exp(-(j * j) / (2 * sigma * sigma));
    total += masses[index]!;
  }
  for (let index = 0; index <= 2 * reach; index++) masses[index]! *= MASS_MARGIN / total;
  return { losses, masses, infinityMass: tailMass };
}

function sampledLoss(event: Extract<SingleEvent, { kind: 'poissonSampled' }>): EventLoss {
  const { samplingProbability: q, event: inner } = event;
  if (q === 0) return free;
  if (inner.noiseMultiplier === 0) return infinite;
  if (inner.kind === 'gaussian') {
    if (q === 1) return { kind: 'gaussian', muSquared: 1 / inner.noiseMultiplier ** 2 };
    const mu = 1 / inner.noiseMultiplier;
    // Zhu, Dong & Wang 2022, Thm 11: adding and removing are dominated by the two orders of (mixture, N(0, 1)).
    return { kind: 'pair', forward: subsampledGaussian(q, mu, 'remove'), backward: subsampledGaussian(q, mu, 'add') };
  }
  return { kind: 'pair', forward: subsampledLaplace(q, inner.noiseMultiplier, 'remove'), backward: subsampledLaplace(q, inner.noiseMultiplier, 'add') };
}

type Direction = 'add' | 'remove';

/** `ln(1 - q + q e^s)`. */
function logMixture(q: number, s: number): number {
  if (q === 1) return s;
  return s < 30 ? Math.log1p(q * Math.expm1(s)) : s + Math.log(q) + Math.log1p(((1 - q) / q) * Math.exp(-s));
}

/** The `s` with `logMixture(q, s) = value`; `-Infinity` where there is none. */
function invertMixture(q: number, value: number): number {
  if (q === 1) return value;
  if (value > 30) return value - Math.log(q) + Math.log1p(-(1 - q) * Math.exp(-value));
  const ratio = Math.expm1(value) / q;
  return ratio <= -1 ? -Infinity : Math.log1p(ratio);
}

/** A continuous part with loss increasing in x, and atoms. */
interface ContinuousLoss {
  readonly from: number;
  readonly to: number;
  density(x: number): number;
  loss(x: number): number;
  /** The x with this loss; below `from` or above `to` outside the range. */
  inverse(loss: number): number;
  /** Width of a piece at x on which five points integrate the density to full precision. */
  pieceWidth(x: number): number;
  /** Largest slope of the loss: within a piece of a cell it may rise by at most 1/2. */
  readonly maxSlope: number;
  readonly atoms: ReadonlyArray<readonly [loss: number, mass: number]>;
}

/**
 * Mixture `(1-q) N(0,1) + q N(mu,1)` against `N(0,1)` (`remove`), and the reverse (`add`). With `s = mu x - mu^2/2` the ratio of the
 * densities is `1 - q + q e^s`. For `add`, x stands for `-x`, so that the loss increases.
 */
function subsampledGaussian(q: number, mu: number, direction: Direction): LossDistribution {
  const isRemove = direction === 'remove';
  const s = (x: number) => (isRemove ? mu * x : -mu * x) - (mu * mu) / 2;
  const loss = (x: number) => (isRemove ? logMixture(q, s(x)) : -logMixture(q, s(x)));
  const inverse = (value: number) => {
    const target = invertMixture(q, isRemove ? value : -value) + (mu * mu) / 2;
    return isRemove ? target / mu : -target / mu;
  };
  const scale = 1 / Math.sqrt(2 * Math.PI);
  const density = isRemove
    ? (x: number) => scale * ((q === 1 ? 0 : (1 - q) * Math.exp((-x * x) / 2)) + q * Math.exp(-((x - mu) ** 2) / 2))
    : (x: number) => scale * Math.exp((-x * x) / 2);
  const center = q === 1 ? mu : 0;
  return continuous(
    (tailMass) => {
      const reach = tailDeviations(tailMass);
      return {
        from: center - reach,
        to: (isRemove ? mu : 0) + reach,
        density,
        loss,
        inverse,
        pieceWidth: (x) => 0.25 / (1 + Math.min(Math.abs(x), Math.abs(x - mu)) / 2),
        maxSlope: mu,
        atoms: [],
      };
    },
    isRemove || q === 1 ? Infinity : -Math.log1p(-q),
  );
}

/** `(1-q) Lap(0, b) + q Lap(1, b)` against `Lap(0, b)`, and the reverse: two atoms where the loss is constant, a density between. */
function subsampledLaplace(q: number, b: number, direction: Direction): LossDistribution {
  const isRemove = direction === 'remove';
  const low = logMixture(q, -1 / b);
  const high = logMixture(q, 1 / b);
  // Mass of x < 0 and of x > 1 under Lap(0) and Lap(1).
  const near = 0.5;
  const far = 0.5 * Math.exp(-1 / b);
  const source: ContinuousLoss = isRemove
    ? {
        from: 0,
        to: 1,
        density: (x) => ((1 - q) * Math.exp(-x / b) + q * Math.exp((x - 1) / b)) / (2 * b),
        loss: (x) => logMixture(q, (2 * x - 1) / b),
        inverse: (value) => (b * invertMixture(q, value) + 1) / 2,
        pieceWidth: () => 0.2 * b,
        maxSlope: 2 / b,
        atoms: [
          [low, (1 - q) * near + q * far],
          [high, (1 - q) * far + q * near],
        ],
      }
    : {
        from: -1,
        to: 0,
        density: (x) => Math.exp(x / b) / (2 * b),
        loss: (x) => -logMixture(q, (-2 * x - 1) / b),
        inverse: (value) => -(b * invertMixture(q, -value) + 1) / 2,
        pieceWidth: () => 0.2 * b,
        maxSlope: 2 / b,
        atoms: [
          [-high, far],
          [-low, near],
        ],
      };
  return continuous((tailMass) => ({ ...source, tailMass }), isRemove ? high : -low, 0);
}

/** Gauss-Legendre with five points on [-1, 1]. */
const NODES = [-0.906_179_845_938_664, -0.538_469_310_105_683_1, 0, 0.538_469_310_105_683_1, 0.906_179_845_938_664] as const;
const WEIGHTS = [0.236_926_885_056_189_08, 0.478_628_670_499_366_47, 0.568_888_888_888_888_9, 0.478_628_670_499_366_47, 0.236_926_885_056_189_08] as const;

function continuous(at: (tailMass: number) => ContinuousLoss, maxLoss: number, truncation = 1): LossDistribution {
  return {
    maxLoss,
    points: (tailMass) => {
      const source = at(tailMass);
      const losses = source.atoms.map(([loss]) => loss);
      const masses = source.atoms.map(([, mass]) => mass);
      integrate(source, source.from, source.to, Infinity, (x, mass) => {
        if (mass === 0) return;
        losses.push(source.loss(x));
        masses.push(mass);
      });
      return { losses: Float64Array.from(losses), masses: Float64Array.from(masses), infinityMass: truncation * tailMass };
    },
    onGrid: (step, tailMass) => continuousOnGrid(at(tailMass), step, truncation * tailMass),
  };
}

function continuousOnGrid(source: ContinuousLoss, step: number, tailMass: number): GridLoss {
  const lowest = Math.min(source.loss(source.from), ...source.atoms.map(([loss]) => loss));
  const highest = Math.max(source.loss(source.to), ...source.atoms.map(([loss]) => loss));
  const first = Math.floor(lowest / step) - 1;
  const masses = new Float64Array(Math.ceil(highest / step) - first + 3);
  const split = -1 / Math.expm1(-step);
  let x = source.from;
  for (let cell = Math.floor(source.loss(x) / step); x < source.to; cell++) {
    const floor = cell * step;
    // Rounding may put x a little beyond the end of its cell: the cell is then empty.
    const end = Math.max(x, Math.min(source.to, source.inverse((cell + 1) * step)));
    let total = 0;
    let up = 0;
    integrate(source, x, end, 0.5 / source.maxSlope, (point, mass) => {
      total += mass;
      up += mass * -Math.expm1(floor - source.loss(point));
    });
    addSplit(masses, first, cell, total, up * split);
    x = end;
    if (cell - first >= masses.length - 2) break;
  }
  for (const [loss, mass] of source.atoms) addAtom(masses, first, loss, mass, step);
  // What was truncated below has losses below the first cell: it is moved up to it.
  if (tailMass > 0) masses[Math.max(0, Math.floor(source.loss(source.from) / step) - first)]! += tailMass;
  return { step, first, masses, infinityMass: tailMass };
}

/** Calls `visit` with the points of a quadrature of `density` over [from, to], in pieces of at most `widest`. */
function integrate(source: ContinuousLoss, from: number, to: number, widest: number, visit: (x: number, mass: number) => void): void {
  let left = from;
  while (left < to) {
    const right = Math.min(to, left + Math.min(widest, source.pieceWidth(left)));
    // So small a rest that adding the width changes nothing.
    if (!(right > left)) return;
    const half = (right - left) / 2;
    const middle = left + half;
    for (let index = 0; index < 5; index++) {
      const x = middle + half * NODES[index]!;
      visit(x, half * WEIGHTS[index]! * source.density(x));
    }
    left = right;
  }
}

function atoms(losses: readonly number[], masses: readonly number[]): LossDistribution {
  const points: LossPoints = { losses: Float64Array.from(losses), masses: Float64Array.from(masses), infinityMass: 0 };
  return {
    maxLoss: losses.reduce((highest, loss) => Math.max(highest, loss), -Infinity),
    points: () => points,
    onGrid: (step) => connectTheDots(points, step),
  };
}

function connectTheDots(points: LossPoints, step: number): GridLoss {
  let lowest = Infinity;
  let highest = -Infinity;
  for (const loss of points.losses) {
    lowest = Math.min(lowest, loss);
    highest = Math.max(highest, loss);
  }
  const first = Math.floor(lowest / step) - 1;
  const masses = new Float64Array(Math.ceil(highest / step) - first + 3);
  for (const [index, loss] of points.losses.entries()) addAtom(masses, first, loss, points.masses[index]!, step);
  return { step, first, masses, infinityMass: points.infinityMass };
}

function addAtom(masses: Float64Array, first: number, loss: number, mass: number, step: number): void {
  const cell = Math.floor(loss / step);
  addSplit(masses, first, cell, mass, (mass * Math.expm1(cell * step - loss)) / Math.expm1(-step));
}

/** Puts `up` of `total` at the upper end of a cell and the rest at its lower end; both and the split are rounded up. */
function addSplit(masses: Float64Array, first: number, cell: number, total: number, up: number): void {
  // `up` came from `loss - cell * step`, whose rounding error, in steps, is at most this.
  const rounding = (Math.abs(cell) + 2) * 2 ** -51;
  const upper = Math.min(total, Math.max(0, up) + total * rounding);
  masses[cell - first]! += (total - upper) * MASS_MARGIN;
  masses[cell - first + 1]! += upper * MASS_MARGIN;
}

/** A number of standard deviations beyond which a normal variable has probability below `tailMass` (Mills: `Phi(-z) <= e^(-z^2/2)/2`). */
export function tailDeviations(tailMass: number): number {
  return Math.sqrt(2 * Math.max(1, -Math.log(2 * tailMass)));
}
