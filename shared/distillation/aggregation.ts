/**
 * Contributions to a consensus. Each aggregator exists in two forms: over the contributions themselves, and over their
 * sum alone (`consensusFromSum`), because under secure aggregation nobody has more than the sum.
 *
 * The order of the contributions makes no difference, not even in the last bit: `sumContributions` rounds every value
 * to one common grid first, so that the additions are exact. A caller that forms a sum another way has to add in a
 * fixed order, e.g. by client id.
 *
 * Nothing here protects anyone: clipping and noise are applied before, on the client.
 */
import { FederationError, unreachable } from '../errors.ts';
import type { Matrix, OutputKind } from '../types/matrix.ts';
import { softmax } from './temperature.ts';

export type Aggregator = 'meanLogits' | 'meanProbabilities' | 'meanVotes' | 'entropyReduction';

export interface Consensus {
  /** [public examples x classes] */
  readonly consensus: Matrix;
  readonly kind: OutputKind;
}

export interface AggregationOptions {
  readonly aggregator: Aggregator;
  /** Softmax divisor of `entropyReduction`, > 0. Ignored by the others. */
  readonly eraTemperature: number;
  /**
   * The probabilities carry noise: mean rows are projected onto the simplex before use. This is post-processing of a
   * released value and costs no privacy. Logits need no projection.
   */
  readonly noised: boolean;
}

/** What the matrices that an aggregator takes must hold. */
export function contributionKind(aggregator: Aggregator): OutputKind {
  return aggregator === 'meanLogits' ? 'logits' : 'probabilities';
}

/** Mean of the clients' logits (FedMD: Li & Wang 2019, algorithm 1). */
export function meanLogits(contributions: readonly Matrix[]): Consensus {
  return aggregate(contributions, { aggregator: 'meanLogits', eraTemperature: 1, noised: false });
}

/** Mean of the clients' class probabilities; its rows sum to 1 when those of the contributions do. */
export function meanProbabilities(contributions: readonly Matrix[]): Consensus {
  return aggregate(contributions, { aggregator: 'meanProbabilities', eraTemperature: 1, noised: false });
}

/**
 * Entropy reduction aggregation: `softmax(mean probabilities / T_era)` (DS-FL: Itahara et al. 2021, eq. 14). A lower
 * temperature gives a lower entropy. Probabilities (not their logarithms) enter the softmax, so a row that is nearly
 * one-hot is flattened a little: with 10 classes and T_era = 0.1 the largest possible value is 0.9996.
 */
export function entropyReduction(contributions: readonly Matrix[], eraTemperature: number): Consensus {
  return aggregate(contributions, { aggregator: 'entropyReduction', eraTemperature, noised: false });
}

/** The consensus of these contributions: of one shape, at least one. */
export function aggregate(contributions: readonly Matrix[], options: AggregationOptions): Consensus {
  const sum = sumContributions(contributions);
  const { rows, columns } = contributions[0]!;
  return consensusFromSum({ rows, columns, sum }, contributions.length, options);
}

/**
 * The consensus when only the sum of `count` contributions is known.
 * `sum.sum` is row-major, length rows * columns.
 */
export function consensusFromSum(
  sum: { readonly rows: number; readonly columns: number; readonly sum: Float64Array },
  count: number,
  options: AggregationOptions,
): Consensus {
  if (!Number.isInteger(count) || count < 1) {
    throw new FederationError('data-invalid', 'A consensus needs at least one contribution.', { field: 'count', expected: 'an integer >= 1', got: String(count) });
  }
  if (sum.sum.length !== sum.rows * sum.columns) {
    throw new FederationError('data-invalid', 'The sum does not have the length that its shape says.', {
      field: 'sum',
      expected: `${sum.rows * sum.columns} values`,
      got: `${sum.sum.length} values`,
    });
  }
  const mean: Matrix = { rows: sum.rows, columns: sum.columns, values: Float32Array.from(sum.sum, (value) => value / count) };
  switch (options.aggregator) {
    case 'meanLogits':
      return { consensus: mean, kind: 'logits' };
    case 'meanProbabilities':
      return { consensus: options.noised ? projectRowsToSimplex(mean) : mean, kind: 'probabilities' };
    // As they are, negative ones too: who spreads them over many examples lets their noise cancel first.
    case 'meanVotes':
      return { consensus: mean, kind: 'probabilities' };
    case 'entropyReduction':
      return { consensus: softmax(options.noised ? projectRowsToSimplex(mean) : mean, options.eraTemperature), kind: 'probabilities' };
    default:
      return unreachable(options.aggregator satisfies never);
  }
}

/**
 * The sum of the contributions in float64, row-major, the same bits for every order of the contributions.
 *
 * With n values of magnitude at most m, all are rounded to multiples of g = 2^ceil(log2(n m)) * 2^-52; then every
 * partial sum is a multiple of g below 2^53 g and so exact (the pre-rounding of Demmel & Nguyen 2013, "Fast
 * reproducible floating-point summation"). The rounding error of a sum is at most n g / 2, far below float32's.
 */
export function sumContributions(contributions: readonly Matrix[]): Float64Array {
  const first = contributions[0];
  if (first === undefined) {
    throw new FederationError('data-invalid', 'A consensus needs at least one contribution.', { field: 'contributions', expected: 'at least 1', got: '0' });
  }
  let maxAbsolute = 0;
  for (const { rows, columns, values } of contributions) {
    if (rows !== first.rows || columns !== first.columns || values.length !== rows * columns) {
      throw new FederationError('data-invalid', 'All contributions to a consensus must have the same shape.', {
        field: 'contributions',
        expected: `[${first.rows} x ${first.columns}]`,
        got: `[${rows} x ${columns}] with ${values.length} values`,
      });
    }
    for (const value of values) {
      if (!Number.isFinite(value)) {
        throw new FederationError('data-invalid', 'A contribution holds a value that is not a finite number.', { field: 'contributions', expected: 'finite numbers', got: String(value) });
      }
      maxAbsolute = Math.max(maxAbsolute, Math.abs(value));
    }
  }
  const sum = new Float64Array(first.values.length);
  if (maxAbsolute === 0) return sum;
  // Adding and subtracting 1.5 * 2^52 * g rounds to a multiple of g (round half to even).
  const rounder = 1.5 * 2 ** Math.ceil(Math.log2(contributions.length * maxAbsolute));
  for (const { values } of contributions) {
    for (let i = 0; i < sum.length; i++) sum[i]! += values[i]! + rounder - rounder;
  }
  return sum;
}

/** Every row replaced by the nearest probability vector. */
export function projectRowsToSimplex(matrix: Matrix): Matrix {
  const { rows, columns } = matrix;
  const values = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    values.set(projectToSimplex(matrix.values.subarray(row * columns, (row + 1) * columns)), row * columns);
  }
  return { rows, columns, values };
}

/**
 * The probability vector nearest to `point` in Euclidean distance: `max(point - theta, 0)` with theta such that the
 * sum is 1 (Duchi, Shalev-Shwartz, Singer & Chandra 2008, figure 1). Idempotent up to float32 rounding.
 */
export function projectToSimplex(point: Float32Array): Float32Array {
  const descending = Float64Array.from(point).sort().reverse();
  let cumulative = 0;
  let theta = 0;
  for (let j = 0; j < descending.length; j++) {
    cumulative += descending[j]!;
    const candidate = (cumulative - 1) / (j + 1);
    // The condition holds for a prefix of the sorted values; its last member fixes theta.
    if (descending[j]! <= candidate) break;
    theta = candidate;
  }
  return point.map((value) => Math.max(value - theta, 0));
}
