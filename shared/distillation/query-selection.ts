/**
 * Which rows of the transfer set are worth asking for, by public information only: the middles of clusters. Each answer then speaks for the
 * examples around it, no two ask the same, and a middle is where models agree (hard examples lie between clusters), so that few votes with
 * much noise still name the right class. Asking less is what a privacy budget buys most with: noise grows with the square root of the queries.
 *
 * No class is looked at. Deterministic for one (points, count, seed) on one machine type; a coordinator announces the rows that it chose.
 *
 * k-means++ (Arthur & Vassilvitskii 2007), then Lloyd's iterations, then for each mean the nearest example.
 */
import { deriveSeed, SeededGenerator } from '../datasets/seeded-generator.ts';
import { FederationError } from '../errors.ts';
import { selectRows, type Matrix } from '../types/matrix.ts';
import { squaredDistance } from './public-embedding.ts';

export interface QueryPlan {
  /** Rows of the transfer set that are asked for, ascending, each once. */
  readonly rows: Uint32Array;
  /** Their points: [queries x components]. */
  readonly points: Matrix;
  /** For each row of the transfer set the position in `rows` of its nearest query. */
  readonly nearest: Uint32Array;
}

/** Lloyd's iterations at most; they mostly stop before. */
const maxIterations = 30;

/** Chooses `count` rows of the transfer set, given its points (`embed`). Throws `config-invalid` unless 1 <= count <= rows. */
export function selectQueries(points: Matrix, count: number, seed: number): QueryPlan {
  if (!Number.isInteger(count) || count < 1 || count > points.rows) {
    throw new FederationError('config-invalid', 'That many queries can not be chosen from this transfer set.', { field: 'queries', expected: `an integer in [1, ${points.rows}]`, got: String(count), next: 'Ask for fewer queries, or give a larger transfer set.' });
  }
  const means = kMeans(points, count, new SeededGenerator(deriveSeed(seed, 'queries')));
  const taken = new Uint8Array(points.rows);
  for (let center = 0; center < count; center++) {
    let best = -1;
    let bestDistance = Infinity;
    for (let row = 0; row < points.rows; row++) {
      if (taken[row] === 1) continue;
      const distance = squaredDistance(points, row, means, center, bestDistance);
      if (best === -1 || distance < bestDistance) [best, bestDistance] = [row, distance];
    }
    taken[best] = 1;
  }
  const rows = Uint32Array.from(taken.keys()).filter((row) => taken[row] === 1);
  return queryPlan(points, rows);
}

/** The plan of rows that somebody else chose. Throws `RangeError` for a row that is not there. */
export function queryPlan(points: Matrix, rows: Uint32Array): QueryPlan {
  if (rows.length === 0 || rows.some((row) => row >= points.rows)) throw new RangeError(`"rows" expected at least one integer in [0, ${points.rows}), got ${rows.length} up to ${rows.reduce((a, b) => Math.max(a, b), 0)}`);
  const queries = selectRows(points, rows);
  return { rows, points: queries, nearest: nearestRows(points, queries) };
}

/** For each point the row of `candidates` nearest to it; of equally near ones the first. */
export function nearestRows(points: Matrix, candidates: Matrix): Uint32Array {
  const nearest = new Uint32Array(points.rows);
  for (let row = 0; row < points.rows; row++) {
    let bestDistance = Infinity;
    for (let candidate = 0; candidate < candidates.rows; candidate++) {
      const distance = squaredDistance(points, row, candidates, candidate, bestDistance);
      if (distance < bestDistance) [nearest[row], bestDistance] = [candidate, distance];
    }
  }
  return nearest;
}

/** Cluster means [count x components]. A cluster that loses all of its points keeps its mean. */
function kMeans(points: Matrix, count: number, generator: SeededGenerator): Matrix {
  const { rows, columns } = points;
  const means: Matrix = { rows: count, columns, values: new Float32Array(count * columns) };
  const toNearest = new Float64Array(rows).fill(Infinity);
  let chosen = generator.integer(rows);
  for (let center = 0; center < count; center++) {
    means.values.set(points.values.subarray(chosen * columns, (chosen + 1) * columns), center * columns);
    let total = 0;
    for (let row = 0; row < rows; row++) total += toNearest[row] = Math.min(toNearest[row]!, squaredDistance(points, row, means, center));
    // The next first mean: drawn with probability in proportion to its squared distance.
    let left = generator.uniform() * total;
    chosen = 0;
    while (chosen < rows - 1 && (left -= toNearest[chosen]!) > 0) chosen++;
  }
  let assigned: Uint32Array | undefined;
  for (let iteration = 0; iteration < maxIterations; iteration++) {
    const nearest = nearestRows(points, means);
    if (assigned !== undefined && nearest.every((center, row) => center === assigned![row])) break;
    assigned = nearest;
    const sums = new Float64Array(count * columns);
    const sizes = new Uint32Array(count);
    nearest.forEach((center, row) => {
      sizes[center]!++;
      for (let c = 0; c < columns; c++) sums[center * columns + c]! += points.values[row * columns + c]!;
    });
    sums.forEach((sum, at) => {
      const size = sizes[Math.floor(at / columns)]!;
      if (size > 0) means.values[at] = sum / size;
    });
  }
  return means;
}
