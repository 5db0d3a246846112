/**
 * Where in an example a model looks: the size of the loss's gradient at each input, and how far two models look at the same places.
 *
 * Sources: Simonyan et al. 2014, "Deep Inside Convolutional Networks" (the map: absolute gradient, largest over the channels); Spearman 1904
 * (rank correlation); Adebayo et al. 2018, "Sanity Checks for Saliency Maps" (why a comparison needs a control: maps look alike for reasons that
 * have nothing to do with the models).
 */
import type { Matrix } from '../types/matrix.ts';
import { exampleSize } from '../types/matrix.ts';

/** Side lengths of a map: an image [height, width, channels] loses its channels, every other example keeps its shape. */
export function mapShape(exampleShape: readonly number[]): readonly number[] {
  return exampleShape.length === 3 ? exampleShape.slice(0, 2) : exampleShape;
}

/** One map a row [examples x places] from gradients [examples x values]. */
export function saliencyMaps(gradients: Float32Array, exampleShape: readonly number[]): Matrix {
  const channels = exampleShape.length === 3 ? exampleShape[2]! : 1;
  const columns = exampleSize(exampleShape) / channels;
  const values = new Float32Array(gradients.length / channels);
  for (let i = 0; i < gradients.length; i++) {
    const place = Math.floor(i / channels);
    values[place] = Math.max(values[place]!, Math.abs(gradients[i]!));
  }
  return { rows: values.length / columns, columns, values };
}

/** Spearman's rank correlation in [-1, 1], equal values sharing their mean rank; null when either side has only one value. */
export function rankCorrelation(a: ArrayLike<number>, b: ArrayLike<number>): number | null {
  const [ranksA, ranksB] = [ranks(a), ranks(b)];
  const mean = (a.length + 1) / 2;
  let [product, squaresA, squaresB] = [0, 0, 0];
  for (let i = 0; i < ranksA.length; i++) {
    const [x, y] = [ranksA[i]! - mean, ranksB[i]! - mean];
    product += x * y;
    squaresA += x * x;
    squaresB += y * y;
  }
  return squaresA === 0 || squaresB === 0 ? null : Math.min(1, Math.max(-1, product / Math.sqrt(squaresA * squaresB)));
}

function ranks(values: ArrayLike<number>): Float64Array {
  const order = Uint32Array.from({ length: values.length }, (_, i) => i).sort((a, b) => values[a]! - values[b]!);
  const result = new Float64Array(values.length);
  for (let start = 0; start < order.length; ) {
    let end = start + 1;
    while (end < order.length && values[order[end]!] === values[order[start]!]) end++;
    for (let i = start; i < end; i++) result[order[i]!] = (start + 1 + end) / 2;
    start = end;
  }
  return result;
}

/**
 * Share of the `count` largest places of one map that are among the `count` largest of the other. Of places that tie at the edge the first
 * count. Chance gives `count / places`.
 */
export function topOverlap(a: ArrayLike<number>, b: ArrayLike<number>, count: number): number {
  const top = (values: ArrayLike<number>) => Uint32Array.from({ length: values.length }, (_, i) => i).sort((x, y) => values[y]! - values[x]! || x - y).subarray(0, count);
  const known = new Set(top(a));
  return top(b).reduce((sum, place) => sum + (known.has(place) ? 1 : 0), 0) / count;
}

export interface Spread {
  readonly mean: number;
  /** Sample standard deviation over the examples; null for fewer than two. */
  readonly stddev: number | null;
}

export interface SaliencyAgreement {
  /** Examples that were compared: those where neither map is flat. */
  readonly compared: number;
  /** Null when none was. */
  readonly rankCorrelation: Spread | null;
  readonly topOverlap: Spread | null;
  /** The same, each map of the one against the other's map of the next compared example: what two maps share without sharing an example. */
  readonly control: { readonly rankCorrelation: number; readonly topOverlap: number } | null;
  /** Rank correlation of each example; null where a map is flat. */
  readonly perExample: readonly (number | null)[];
  /** Places that count as the top. */
  readonly topPlaces: number;
}

/** Of two sets of maps of the same examples. `topShare`: share of the places that count as the top. */
export function saliencyAgreement(a: Matrix, b: Matrix, topShare = 0.1): SaliencyAgreement {
  if (a.rows !== b.rows || a.columns !== b.columns) throw new RangeError(`"b" expected maps [${a.rows} x ${a.columns}], got [${b.rows} x ${b.columns}]`);
  const topPlaces = Math.max(1, Math.round(topShare * a.columns));
  const row = ({ values, columns }: Matrix, i: number) => values.subarray(i * columns, (i + 1) * columns);
  const perExample = Array.from({ length: a.rows }, (_, i) => rankCorrelation(row(a, i), row(b, i)));
  const kept = perExample.flatMap((correlation, i) => (correlation === null ? [] : [i]));
  if (kept.length === 0) return { compared: 0, rankCorrelation: null, topOverlap: null, control: null, perExample, topPlaces };
  const others = kept.map((_, position) => kept[(position + 1) % kept.length]!);
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return {
    compared: kept.length,
    rankCorrelation: spread(kept.map((i) => perExample[i]!)),
    topOverlap: spread(kept.map((i) => topOverlap(row(a, i), row(b, i), topPlaces))),
    control:
      kept.length < 2
        ? null
        : {
            rankCorrelation: mean(kept.map((i, position) => rankCorrelation(row(a, i), row(b, others[position]!))!)),
            topOverlap: mean(kept.map((i, position) => topOverlap(row(a, i), row(b, others[position]!), topPlaces))),
          },
    perExample,
    topPlaces,
  };
}

function spread(values: readonly number[]): Spread {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return { mean, stddev: values.length < 2 ? null : Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1)) };
}
