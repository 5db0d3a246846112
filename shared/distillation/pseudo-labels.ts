/**
 * From few noised votes to a label for every public example: spread them over the graph of neighbors, so that the noise of many queries averages
 * out and an example between two clusters is decided by its surroundings. Post-processing of released votes and public examples alone.
 *
 * Label spreading is that of Zhou et al. 2004 ("Learning with local and global consistency"), on the neighbor graph with local scaling of
 * Zelnik-Manor & Perona 2004. It is linear in the votes, so that noised counts may enter as they are: negative ones are not cut off before
 * the noise has had its chance to cancel. Pseudo-labels to train on: Lee 2013; the power that sharpens them: Berthelot et al. 2019 (MixMatch, eq. 7).
 */
import { FederationError } from '../errors.ts';
import type { Matrix } from '../types/matrix.ts';
import { argmax } from './evaluation.ts';
import { checkHistogram, type VoteHistogram } from './plurality.ts';
import { squaredDistance } from './public-embedding.ts';
import type { QueryPlan } from './query-selection.ts';

/** Declared constants of the method, found on splits of MNIST's training set. */
export const defaultNeighbors = 10;
export const defaultRetention = 0.95;
/** Exponent on spread votes: 2 is MixMatch's temperature of 0.5. */
const sharpness = 2;
/** Spreads until what is left to come is small: 0.95^60 < 0.05, and neighbors' differences vanish sooner. */
const spreadingSteps = 60;
/** The neighbor whose distance is the local scale (Zelnik-Manor & Perona 2004, sec. 2). */
const scaleNeighbor = 7;

/** A label for each example, and how sure it is. */
export interface PseudoLabels {
  /** [examples x classes], rows sum to 1. */
  readonly probabilities: Matrix;
  /** The largest of each row. length = examples */
  readonly labels: Int32Array;
  /** Its probability, in [1/classes, 1]. */
  readonly confidences: Float32Array;
}

/** Who is near to whom, with weights normalized as `D^-1/2 W D^-1/2`; symmetric. */
export interface NeighborGraph {
  /** For each point its neighbors. */
  readonly neighbors: readonly Uint32Array[];
  /** As long as `neighbors`, each. */
  readonly weights: readonly Float64Array[];
}

/** Every point and the points nearest to it. Quadratic time: 10,000 points take seconds, 100,000 take many minutes. */
export function neighborGraph(points: Matrix, neighborsEach = defaultNeighbors): NeighborGraph {
  const { rows } = points;
  const each = Math.min(neighborsEach, rows - 1);
  if (!Number.isInteger(each) || each < 1) {
    throw new FederationError('data-invalid', 'A neighbor graph needs several examples.', { field: 'points', expected: 'at least 2 points, at least 1 neighbor', got: `${rows} points, ${neighborsEach} neighbors` });
  }
  const nearest = Array.from({ length: rows }, () => new Uint32Array(each));
  const distances = Array.from({ length: rows }, () => new Float64Array(each).fill(Infinity));
  const insert = (point: number, other: number, distance: number): void => {
    const [known, ids] = [distances[point]!, nearest[point]!];
    let at = each - 1;
    if (distance >= known[at]!) return;
    for (; at > 0 && known[at - 1]! > distance; at--) {
      known[at] = known[at - 1]!;
      ids[at] = ids[at - 1]!;
    }
    known[at] = distance;
    ids[at] = other;
  };
  for (let i = 0; i < rows; i++) {
    for (let j = i + 1; j < rows; j++) {
      const distance = squaredDistance(points, i, points, j, Math.max(distances[i]![each - 1]!, distances[j]![each - 1]!));
      insert(i, j, distance);
      insert(j, i, distance);
    }
  }
  // exp(-d^2 / (scale_i scale_j)); among equal points every weight is 1.
  const scales = distances.map((known) => Math.sqrt(known[Math.min(scaleNeighbor, each) - 1]!));
  const edges = Array.from({ length: rows }, () => new Map<number, number>());
  nearest.forEach((ids, i) =>
    ids.forEach((j, at) => {
      const scale = scales[i]! * scales[j]!;
      const distance = distances[i]![at]!;
      const weight = distance === 0 ? 1 : scale === 0 ? 0 : Math.exp(-distance / scale);
      edges[i]!.set(j, weight);
      edges[j]!.set(i, weight);
    }),
  );
  const degrees = edges.map((row) => [...row.values()].reduce((sum, weight) => sum + weight, 0));
  const neighbors = edges.map((row) => Uint32Array.from(row.keys()));
  const weights = neighbors.map((ids, i) => Float64Array.from(ids, (j) => (degrees[i]! * degrees[j]! > 0 ? edges[i]!.get(j)! / Math.sqrt(degrees[i]! * degrees[j]!) : 0)));
  return { neighbors, weights };
}

export interface VoteSpread {
  readonly graph: NeighborGraph;
  readonly plan: Pick<QueryPlan, 'nearest'>;
  /** Noised or not: [queries x classes]. */
  readonly votes: VoteHistogram;
  /**
   * What a query's votes stand for. `cluster`: they were cast by records all around it (nearest-query votes), and each example of its cluster gets
   * its share. `query`: they were cast about the query itself (shard models), and each example of its cluster is taken for it.
   */
  readonly votesOf: 'cluster' | 'query';
  /** Share of an example's label that comes from its neighbors, in [0, 1). */
  readonly retention?: number;
}

/** A label for every row of the transfer set. */
export function spreadVotes({ graph, plan, votes, votesOf, retention = defaultRetention }: VoteSpread): PseudoLabels {
  checkHistogram(votes);
  const { rows: queries, columns: classes } = votes;
  const rows = plan.nearest.length;
  if (graph.neighbors.length !== rows || plan.nearest.some((query) => query >= queries)) {
    throw new FederationError('data-invalid', 'The graph, the queries and the votes are not of the same transfer set.', { field: 'votes', expected: `a graph of ${rows} examples, and votes for every query`, got: `a graph of ${graph.neighbors.length} examples, votes for ${queries} queries` });
  }
  if (!(retention >= 0 && retention < 1)) throw new RangeError(`"retention" expected a number in [0, 1), got ${retention}`);
  const sizes = new Uint32Array(queries);
  plan.nearest.forEach((query) => sizes[query]!++);
  const own = new Float64Array(rows * classes);
  plan.nearest.forEach((query, row) => {
    const share = votesOf === 'cluster' ? 1 / sizes[query]! : 1;
    for (let c = 0; c < classes; c++) own[row * classes + c] = share * votes.values[query * classes + c]!;
  });
  let spread: Float64Array = own.slice();
  for (let step = 0; step < spreadingSteps; step++) {
    const next = new Float64Array(own.length);
    for (let row = 0; row < rows; row++) {
      const [ids, weights] = [graph.neighbors[row]!, graph.weights[row]!];
      for (let c = 0; c < classes; c++) {
        let sum = 0;
        for (let at = 0; at < ids.length; at++) sum += weights[at]! * spread[ids[at]! * classes + c]!;
        next[row * classes + c] = retention * sum + (1 - retention) * own[row * classes + c]!;
      }
    }
    spread = next;
  }
  return pseudoLabelsOf({ rows, columns: classes, values: Float32Array.from(spread, (value) => Math.max(value, 0) ** sharpness) });
}

/** Rows scaled to sum 1; a row of zeros becomes uniform. Values must be >= 0. */
export function pseudoLabelsOf(scores: Matrix): PseudoLabels {
  const { rows, columns } = scores;
  const values = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += scores.values[row * columns + c]!;
    for (let c = 0; c < columns; c++) values[row * columns + c] = sum > 0 ? scores.values[row * columns + c]! / sum : 1 / columns;
  }
  const probabilities: Matrix = { rows, columns, values };
  const labels = argmax(probabilities);
  return { probabilities, labels, confidences: Float32Array.from(labels, (label, row) => values[row * columns + label]!) };
}

/**
 * Two opinions made one: the product of their probabilities, each mixed with the uniform distribution first (`doubt`, its share), so that an
 * opinion which is certain and wrong can still be overruled (a product of experts, Hinton 2002).
 */
export function agreement(first: { readonly labels: PseudoLabels; readonly doubt: number }, second: { readonly labels: PseudoLabels; readonly doubt: number }): PseudoLabels {
  const [a, b] = [first.labels.probabilities, second.labels.probabilities];
  if (a.rows !== b.rows || a.columns !== b.columns) {
    throw new FederationError('data-invalid', 'Two opinions must be about the same examples and classes.', { field: 'labels', expected: `[${a.rows} x ${a.columns}]`, got: `[${b.rows} x ${b.columns}]` });
  }
  const mixed = (value: number, doubt: number) => (1 - doubt) * value + doubt / a.columns;
  return pseudoLabelsOf({ rows: a.rows, columns: a.columns, values: a.values.map((value, at) => mixed(value, first.doubt) * mixed(b.values[at]!, second.doubt)) });
}

/** The examples whose label is at least this sure, ascending (FixMatch's mask: Sohn et al. 2020, eq. 4). */
export function confidentRows({ confidences }: PseudoLabels, threshold: number): Uint32Array {
  return Uint32Array.from(confidences.keys()).filter((row) => confidences[row]! >= threshold);
}

/** This share of the examples, those with the surest labels, ascending; at least one. */
export function surestRows({ confidences }: PseudoLabels, share: number): Uint32Array {
  const bySureness = Uint32Array.from(confidences.keys()).sort((a, b) => confidences[b]! - confidences[a]! || a - b);
  return bySureness.slice(0, Math.max(1, Math.round(share * confidences.length))).sort();
}
