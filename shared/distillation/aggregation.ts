/**
 * Contributions to a consensus. Each aggregator of `SumAggregator` exists in two forms: over the contributions themselves, and
 * over their sum alone (`consensusFromSum`), because under secure aggregation nobody has more than the sum.
 *
 * The order of the contributions makes no difference, not even in the last bit: `sumContributions` rounds every value
 * to one common grid first, so that the additions are exact. A caller that forms a sum another way has to add in a
 * fixed order, e.g. by client id.
 *
 * Nothing here protects anyone: clipping and noise are applied before, on the client.
 */
import { FederationError, unreachable } from '../errors.ts';
import { selectRows, type Matrix, type OutputKind } from '../types/matrix.ts';
import { plurality } from './plurality.ts';
import { rowEntropies, selectSureRows } from './row-entropy.ts';
import { softmax } from './temperature.ts';

/** What a consensus is computed from when only the sum of all contributions is known. */
export type SumAggregator = 'meanLogits' | 'meanProbabilities' | 'meanVotes' | 'entropyReduction' | 'enhancedEra' | 'majorityVote';
export type Aggregator = SumAggregator | 'entropyWeighted';

/** One client's predictions, of which it may have left out rows (docs/protocol.md section 9.2). */
export interface SharedPredictions extends Matrix {
  /** 1 for every row that is there, 0 for one that is left out, whose values are 0; absent: all are there. */
  readonly shared?: Uint8Array;
}

export interface Consensus {
  /** [public examples x classes] */
  readonly consensus: Matrix;
  readonly kind: OutputKind;
  /** Positions of the rows on which enough clients have shared a prediction, ascending; absent: all. The values of other rows mean nothing. */
  readonly known?: Uint32Array;
}

/** SCARLET's experiments use 1, which is the mean itself, and 2, for more unlike clients (github.com/kitsuyaazuma/SCARLET, branch reproducibility). */
export const DEFAULT_ERA_EXPONENT = 2;

export interface AggregationOptions {
  readonly aggregator: Aggregator;
  /** Softmax divisor of `entropyReduction`, > 0. Ignored by the others. */
  readonly eraTemperature: number;
  /** Exponent of `enhancedEra`, > 0; default 2. Ignored by the others. */
  readonly eraExponent?: number;
  /** Fewest clients that must have shared a row for a consensus on it; default 1. */
  readonly minClientsPerRow?: number;
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

/**
 * Enhanced ERA: each mean probability to the power of `exponent`, divided by the row's sum (SCARLET: Azuma et al. 2025, section III). Above 1 it
 * sharpens, below 1 it flattens, and unlike ERA's softmax it leaves a one-hot and a uniform row as they are.
 */
export function enhancedEra(contributions: readonly SharedPredictions[], exponent: number): Consensus {
  return aggregate(contributions, { aggregator: 'enhancedEra', eraTemperature: 1, eraExponent: exponent, noised: false });
}

/**
 * The class that most clients find likeliest, one-hot (FedCT: Abourayya et al. 2025, hard labels by majority vote); of equally many votes the first class. Without noise
 * each client votes for its largest probability. Contributions that carry noise are votes, or as good as them, already: the class with the largest sum wins (Papernot et al. 2017).
 */
export function majorityVote(contributions: readonly SharedPredictions[]): Consensus {
  return aggregate(contributions, { aggregator: 'majorityVote', eraTemperature: 1, noised: false });
}

/**
 * The mean of the clients' probabilities with weights `exp(-H)`, row by row, H the entropy of the client's own row in nats: who is surer counts for more, at most
 * as much as `classes` clients without an opinion. That teachers of low entropy get larger weights is from Kwon et al. 2020 (ICASSP); the weight itself is ours.
 */
export function entropyWeightedMean(contributions: readonly SharedPredictions[]): Consensus {
  return aggregate(contributions, { aggregator: 'entropyWeighted', eraTemperature: 1, noised: false });
}

/**
 * The rows of a consensus that are worth learning, and the transfer examples that they belong to: those that enough clients shared, with an entropy of at most `maxEntropy` times
 * log(classes) (Selective-FD's selector at the server, Shao et al. 2024). May be none.
 */
export function learnable(indices: Uint32Array, { consensus, kind, known }: Consensus, maxEntropy: number): { readonly indices: Uint32Array; readonly consensus: Consensus } {
  if (known === undefined && maxEntropy >= 1) return { indices, consensus: { consensus, kind } };
  const sure = selectSureRows(kind === 'logits' ? softmax(consensus) : consensus, { minConfidence: 0, maxEntropy });
  const rows = (known ?? Uint32Array.from({ length: consensus.rows }, (_, row) => row)).filter((row) => sure[row] === 1);
  return { indices: rows.map((row) => indices[row]!), consensus: { consensus: selectRows(consensus, rows), kind } };
}

/** The consensus of these contributions: of one shape, at least one. A row counts for those who shared it. */
export function aggregate(contributions: readonly SharedPredictions[], options: AggregationOptions): Consensus {
  const { aggregator } = options;
  const counted = aggregator === 'majorityVote' && !options.noised ? contributions.map(votesOf) : contributions;
  const weights = aggregator === 'entropyWeighted' ? contributions.map(certainties) : undefined;
  const sum = sumContributions(weights === undefined ? counted : counted.map((matrix, i) => scaleRows(matrix, weights[i]!)));
  const { rows, columns } = contributions[0]!;
  const isWhole = contributions.every(({ shared }) => shared === undefined);
  if (isWhole && weights === undefined) return consensusFromSum({ rows, columns, sum }, contributions.length, options);
  const shares = sumContributions(weights ?? contributions.map(({ shared }) => column(rows, (row) => shared?.[row] ?? 1)));
  const mean: Matrix = { rows, columns, values: Float32Array.from(sum, (value, i) => value / (shares[Math.floor(i / columns)]! || 1)) };
  // A weighted mean is what is left of that aggregator; the others go on from a mean.
  const consensus = consensusOfMean(mean, { ...options, aggregator: aggregator === 'entropyWeighted' ? 'meanProbabilities' : aggregator });
  if (isWhole) return consensus;
  const clients = (row: number) => contributions.reduce((count, { shared }) => count + (shared?.[row] ?? 1), 0);
  return { ...consensus, known: Uint32Array.from({ length: rows }, (_, row) => row).filter((row) => clients(row) >= (options.minClientsPerRow ?? 1)) };
}

function column(rows: number, value: (row: number) => number): Matrix {
  return { rows, columns: 1, values: Float32Array.from({ length: rows }, (_, row) => value(row)) };
}

/** Weights of the rows of one client, [rows x 1]. */
function certainties(matrix: SharedPredictions): Matrix {
  const entropies = rowEntropies(matrix);
  return column(matrix.rows, (row) => (matrix.shared?.[row] === 0 ? 0 : Math.exp(-entropies[row]!)));
}

function scaleRows({ rows, columns, values }: Matrix, weights: Matrix): Matrix {
  return { rows, columns, values: values.map((value, i) => value * weights.values[Math.floor(i / columns)]!) };
}

/** One-hot rows; rows that were left out stay zero. */
function votesOf(matrix: SharedPredictions): SharedPredictions {
  const { rows, columns, shared } = matrix;
  const values = new Float32Array(rows * columns);
  plurality(matrix).labels.forEach((label, row) => {
    if (shared?.[row] !== 0) values[row * columns + label] = 1;
  });
  return { ...matrix, values };
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
  return consensusOfMean({ rows: sum.rows, columns: sum.columns, values: Float32Array.from(sum.sum, (value) => value / count) }, options);
}

function consensusOfMean(mean: Matrix, options: AggregationOptions): Consensus {
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
    case 'enhancedEra':
      return { consensus: sharpen(options.noised ? projectRowsToSimplex(mean) : mean, options.eraExponent ?? DEFAULT_ERA_EXPONENT), kind: 'probabilities' };
    case 'majorityVote':
      return { consensus: votesOf(mean), kind: 'probabilities' };
    case 'entropyWeighted':
      throw new FederationError('config-invalid', 'A mean with weights needs each contribution: nobody can compute it from a sum.', { field: 'aggregation.aggregator', expected: 'an aggregator of the sum', got: options.aggregator });
    default:
      return unreachable(options.aggregator satisfies never);
  }
}

/** `p_c^exponent / sum_k p_k^exponent`. The powers are taken relative to the row's largest value, so that none of a row with a positive value vanishes altogether. */
function sharpen({ rows, columns, values }: Matrix, exponent: number): Matrix {
  if (!(exponent > 0 && exponent < Infinity)) {
    throw new FederationError('config-invalid', 'The exponent of Enhanced ERA must be a finite number above 0.', { field: 'aggregation.eraExponent', expected: 'a finite number > 0', got: String(exponent) });
  }
  const result = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const cells = values.subarray(row * columns, (row + 1) * columns);
    const largest = cells.reduce((most, value) => Math.max(most, value), 0);
    // Without any probability (nobody shared the row) there is nothing to sharpen.
    const powers = Float64Array.from(cells, (value) => (largest > 0 ? (Math.max(value, 0) / largest) ** exponent : 1));
    const sum = powers.reduce((a, b) => a + b, 0);
    powers.forEach((power, c) => (result[row * columns + c] = power / sum));
  }
  return { rows, columns, values: result };
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
