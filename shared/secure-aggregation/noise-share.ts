/**
 * Each client's share of the noise in a secure sum, and the proof that the sum fits the ring. Only noise of honest clients counts: a corrupt one
 * adds none, or knows its own. With everybody present the sum therefore has more noise than it needs.
 */
import { FederationError } from '../errors.ts';
import type { RandomSource } from '../ports/random-source.ts';
import { MIN_SHARE_SIGMA } from '../privacy/release.ts';
import { MAX_SIGMA, sampleDiscreteGaussians } from '../privacy/sampling/discrete-gaussian.ts';
import type { DiscreteGaussianTable } from '../privacy/sampling/discrete-gaussian-table.ts';
import { discreteGaussianTable, hasDiscreteGaussianTable, sampleDiscreteGaussianTable, tableSamplerDelta } from '../privacy/sampling/discrete-gaussian-table.ts';

/** Discrete Gaussians are subgaussian with variance proxy sigma^2 (Canonne, Kamath & Steinke 2020, Fact 20): beyond 12 sigma with probability below 2 exp(-72) < 2^-102. */
const TAIL_SIGMAS = 12;
/** A quotient of floats may be this much (relative) too small. */
const ROUNDING_SLACK = 2 ** -40;

export interface NoiseShareRequest {
  /** Standard deviation of the honest noise in the sum over its L2 sensitivity. */
  readonly noiseMultiplier: number;
  /** L2 sensitivity of one client's integer matrix, in grid steps. */
  readonly l2Sensitivity: number;
  /** Fewest clients whose inputs are summed. */
  readonly minSurvivors: number;
  /** Of them, as many may add no noise. */
  readonly maxCorrupt: number;
}

/** Standard deviation of one client's noise in grid steps, rounded up: h of them give at least `noiseMultiplier * l2Sensitivity`. */
export function noiseShareSigma({ noiseMultiplier, l2Sensitivity, minSurvivors, maxCorrupt }: NoiseShareRequest): number {
  const honest = minSurvivors - maxCorrupt;
  if (!(noiseMultiplier > 0) || !(l2Sensitivity > 0) || !Number.isInteger(honest) || honest < 1) {
    throw new FederationError('config-invalid', 'the noise of a secure sum is not usable', { field: 'secureAggregation', expected: 'positive noise and sensitivity, minSurvivors > maxCorrupt', got: `${noiseMultiplier}, ${l2Sensitivity}, ${honest}`, next: 'Correct the privacy section of the task.' });
  }
  const sigma = Math.ceil(((noiseMultiplier * l2Sensitivity) / Math.sqrt(honest)) * (1 + ROUNDING_SLACK));
  if (sigma < MIN_SHARE_SIGMA || sigma >= MAX_SIGMA) {
    throw new FederationError('config-invalid', 'the noise of one client does not fit the grid', { field: 'gridStep', expected: `a standard deviation in [${MIN_SHARE_SIGMA}, ${MAX_SIGMA}) grid steps`, got: String(sigma), next: sigma < MIN_SHARE_SIGMA ? 'Use a finer grid.' : 'Use a coarser grid.' });
  }
  return sigma;
}

export interface SumBounds {
  /** Most clients in a sum. */
  readonly clients: number;
  /** Largest magnitude of a coordinate of one client before noise, in grid steps. */
  readonly maxAbsolute: number;
  /** Of one client's noise; 0 for none. */
  readonly sigma: number;
}

/** Largest magnitude of a coordinate of the sum of honest inputs, but for a probability below 2^-100. */
export function maxAbsoluteSum({ clients, maxAbsolute, sigma }: SumBounds): number {
  return clients * maxAbsolute + TAIL_SIGMAS * Math.sqrt(clients) * sigma;
}

/** Throws `config-invalid` unless the sum of honest inputs fits [-2^31, 2^31). A wrap would cost accuracy, never privacy. */
export function checkSumFits(bounds: SumBounds): void {
  const largest = maxAbsoluteSum(bounds);
  if (!(largest * (1 + ROUNDING_SLACK) < 2 ** 31)) {
    throw new FederationError('config-invalid', 'a sum of noised predictions would not fit 32-bit integers', { field: 'gridStep', expected: 'clients * maxAbsolute + 12 sqrt(clients) sigma < 2^31', got: largest.toExponential(3), next: 'Use a coarser grid, or fewer clients.' });
  }
}

/** How noise is drawn: exactly, or from a table, which costs `noiseSamplingDelta` (docs/sampling.md). */
export type NoiseSampler = { readonly sampler: 'exact' } | { readonly sampler: 'table'; readonly table: DiscreteGaussianTable };

const EXACT: NoiseSampler = { sampler: 'exact' };

/** `exact` also where a table would be too large. A table is worth its time from about as many samples on as it has entries (13.5 sigma), so keep it between rounds. */
export function noiseSampler(sampler: NoiseSampler['sampler'], sigma: number): NoiseSampler {
  return sampler === 'table' && hasDiscreteGaussianTable(sigma) ? { sampler, table: discreteGaussianTable(sigma) } : EXACT;
}

/** One client's noise: fresh for every contribution. */
export function noiseShare(dimension: number, sigma: number, random: RandomSource, sampling: NoiseSampler = EXACT): Int32Array {
  if (sampling.sampler === 'exact') return sampleDiscreteGaussians(dimension, sigma, random);
  const { numerator, denominator } = sampling.table.sigma;
  if (numerator !== sigma * denominator) throw new RangeError(`"sampling" expected the table of sigma ${sigma}, got that of ${numerator}/${denominator}`);
  return sampleDiscreteGaussianTable(dimension, sampling.table, random);
}

export interface NoiseSamplingRequest {
  /** Of the guarantee that is claimed. */
  readonly epsilon: number;
  /** Coordinates of one contribution. */
  readonly dimension: number;
  /** Most clients whose noise is in one sum. */
  readonly clients: number;
  /** Sums that the guarantee covers. */
  readonly releases: number;
}

/** What to add to delta for how the noise was drawn: 0 when exact. */
export function noiseSamplingDelta(sampling: NoiseSampler, { epsilon, dimension, clients, releases }: NoiseSamplingRequest): number {
  return sampling.sampler === 'exact' ? 0 : tableSamplerDelta(epsilon, dimension * clients * releases, sampling.table);
}
