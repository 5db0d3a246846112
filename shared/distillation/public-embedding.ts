/**
 * Where two examples are neighbors, learned from public examples alone: fixed features, then principal components of the transfer set. Clusters,
 * nearest queries and the neighbor graph of the pseudo-labels all measure distance here. Nobody's private records take part in fitting it, so it
 * costs no privacy and everybody who has the transfer set can compute it.
 *
 * Images become histograms of gradient orientations in a grid of cells (Dalal & Triggs 2005, without their blocks), with one L2 norm for the
 * image and square roots (Arandjelovic & Zisserman 2012): strokes that are a pixel aside stay neighbors, as they would not by their pixels.
 * Examples of any other shape are taken as they are.
 *
 * Two machines may differ in the last bits of `Math.atan2` and so, rarely, in who is nearest to whom: that changes labels, never sensitivity.
 */
import { SeededGenerator, deriveSeed } from '../datasets/seeded-generator.ts';
import { FederationError } from '../errors.ts';
import { exampleSize, type Examples, type Matrix } from '../types/matrix.ts';

export interface PublicEmbedding {
  /** Shape of one example that it takes. */
  readonly exampleShape: readonly number[];
  /** Mean features of the examples that it was fitted on. */
  readonly mean: Float32Array;
  /** Orthonormal rows [components x features], those of the largest variance first (nearly: see `passes`). */
  readonly axes: Matrix;
}

export interface EmbeddingOptions {
  /** Coordinates of a point; fewer when there are fewer features or examples. */
  readonly components?: number;
  /** An integer in [0, 2^32). */
  readonly seed: number;
}

/** Declared constants of the method, found on splits of MNIST's training set. */
export const defaultComponents = 40;
/** Orientations told apart, of half a turn: a dark edge on light is that of light on dark. */
const orientationBins = 8;
/** Cells along an image's shorter side, of at least 2 pixels. */
const cellsAlongSide = 7;
/** Subspace iterations: the angle to the true components no longer matters to a neighbor. */
const passes = 6;

/** The principal components of these public examples' features, by subspace iteration (Halko, Martinsson & Tropp 2011, algorithm 4.4). */
export function fitPublicEmbedding(transferSet: Examples, { components = defaultComponents, seed }: EmbeddingOptions): PublicEmbedding {
  if (transferSet.count < 2) {
    throw new FederationError('data-invalid', 'Distances can only be learned from several public examples.', { field: 'transferSet', expected: 'at least 2 examples', got: String(transferSet.count), next: 'Give a larger transfer set.' });
  }
  const features = featuresOf(transferSet);
  const { rows: count, columns: size } = features;
  const mean = new Float64Array(size);
  features.values.forEach((value, at) => (mean[at % size]! += value / count));
  const kept = Math.min(components, size, count);
  const generator = new SeededGenerator(deriveSeed(seed, 'public-embedding'));
  let axes = Float64Array.from({ length: kept * size }, () => generator.gaussian());
  orthonormalize(axes, size);
  const centered = new Float64Array(size);
  for (let pass = 0; pass < passes; pass++) {
    const next = new Float64Array(axes.length);
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < size; j++) centered[j] = features.values[i * size + j]! - mean[j]!;
      for (let start = 0; start < axes.length; start += size) {
        let score = 0;
        for (let j = 0; j < size; j++) score += axes[start + j]! * centered[j]!;
        for (let j = 0; j < size; j++) next[start + j]! += score * centered[j]!;
      }
    }
    orthonormalize(next, size);
    axes = next;
  }
  return { exampleShape: transferSet.shape, mean: Float32Array.from(mean), axes: { rows: kept, columns: size, values: Float32Array.from(axes) } };
}

const fitted = new WeakMap<Examples, { readonly seed: number; readonly embedding: PublicEmbedding }>();

/** The same, fitted once for all participants of this process that look at one transfer set: it takes seconds for 10,000 examples. */
export function transferEmbedding(transferSet: Examples, seed: number): PublicEmbedding {
  const known = fitted.get(transferSet);
  if (known?.seed === seed) return known.embedding;
  const embedding = fitPublicEmbedding(transferSet, { seed });
  fitted.set(transferSet, { seed, embedding });
  return embedding;
}

/** Points [examples x components]: public examples' or, on their owner's machine, private records'. */
export function embed({ exampleShape, mean, axes }: PublicEmbedding, examples: Examples): Matrix {
  if (examples.shape.join() !== exampleShape.join()) {
    throw new FederationError('data-invalid', 'These examples have another shape than the public ones.', { field: 'examples', expected: `shape [${exampleShape.join(', ')}]`, got: `shape [${examples.shape.join(', ')}]` });
  }
  const features = featuresOf(examples);
  const { rows: components, columns: size } = axes;
  const values = new Float32Array(examples.count * components);
  for (let i = 0; i < examples.count; i++) {
    for (let c = 0; c < components; c++) {
      let score = 0;
      for (let j = 0; j < size; j++) score += axes.values[c * size + j]! * (features.values[i * size + j]! - mean[j]!);
      values[i * components + c] = score;
    }
  }
  return { rows: examples.count, columns: components, values };
}

/** Squared Euclidean distance of row i of one matrix and row j of another, given up once it reaches `bound`. */
export function squaredDistance(a: Matrix, i: number, b: Matrix, j: number, bound = Infinity): number {
  const size = a.columns;
  let sum = 0;
  for (let c = 0, p = i * size, q = j * size; c < size && sum < bound; c++) {
    const difference = a.values[p + c]! - b.values[q + c]!;
    sum += difference * difference;
  }
  return sum;
}

function featuresOf(examples: Examples): Matrix {
  const [height = 0, width = 0] = examples.shape;
  if (examples.shape.length === 3 && Math.min(height, width) >= 4) return orientationHistograms(examples);
  return { rows: examples.count, columns: exampleSize(examples.shape), values: examples.values };
}

/** [images x (cells down * cells across * orientations)]; every row has L1 norm of squares 1, or is zero for an image of one color. */
function orientationHistograms(images: Examples): Matrix {
  const [height, width, channels] = images.shape as readonly [number, number, number];
  const cell = Math.max(2, Math.round(Math.min(height, width) / cellsAlongSide));
  const [down, across] = [Math.ceil(height / cell), Math.ceil(width / cell)];
  const size = down * across * orientationBins;
  const values = new Float32Array(images.count * size);
  // One pixel of zeros around the mean of the channels.
  const stride = width + 2;
  const padded = new Float64Array((height + 2) * stride);
  const histogram = new Float64Array(size);
  for (let i = 0; i < images.count; i++) {
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        let sum = 0;
        for (let channel = 0, at = ((i * height + row) * width + column) * channels; channel < channels; channel++) sum += images.values[at + channel]!;
        padded[(row + 1) * stride + column + 1] = sum / channels;
      }
    }
    histogram.fill(0);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const at = (row + 1) * stride + column + 1;
        const [gx, gy] = [padded[at + 1]! - padded[at - 1]!, padded[at + stride]! - padded[at - stride]!];
        const strength = Math.sqrt(gx * gx + gy * gy);
        if (strength === 0) continue;
        // Shared linearly by the two nearest orientations and the four nearest cells.
        const turn = Math.atan2(gy, gx) / Math.PI;
        const orientation = (turn - Math.floor(turn)) * orientationBins;
        const [firstBin, binShare] = [Math.floor(orientation), orientation - Math.floor(orientation)];
        const [y, x] = [(row + 0.5) / cell - 0.5, (column + 0.5) / cell - 0.5];
        const [top, left] = [Math.floor(y), Math.floor(x)];
        for (let cellRow = Math.max(top, 0); cellRow <= Math.min(top + 1, down - 1); cellRow++) {
          for (let cellColumn = Math.max(left, 0); cellColumn <= Math.min(left + 1, across - 1); cellColumn++) {
            const share = strength * (1 - Math.abs(y - cellRow)) * (1 - Math.abs(x - cellColumn));
            const start = (cellRow * across + cellColumn) * orientationBins;
            histogram[start + (firstBin % orientationBins)]! += share * (1 - binShare);
            histogram[start + ((firstBin + 1) % orientationBins)]! += share * binShare;
          }
        }
      }
    }
    const norm = Math.sqrt(histogram.reduce((sum, value) => sum + value * value, 0));
    if (norm > 0) for (let j = 0; j < size; j++) values[i * size + j] = Math.sqrt(histogram[j]! / norm);
  }
  return { rows: images.count, columns: size, values };
}

/** Gram-Schmidt, each row twice: once is not orthogonal enough when rows are nearly parallel. */
function orthonormalize(rows: Float64Array, size: number): void {
  for (let start = 0; start < rows.length; start += size) {
    for (let turn = 0; turn < 2; turn++) {
      for (let earlier = 0; earlier < start; earlier += size) {
        let dot = 0;
        for (let j = 0; j < size; j++) dot += rows[start + j]! * rows[earlier + j]!;
        for (let j = 0; j < size; j++) rows[start + j]! -= dot * rows[earlier + j]!;
      }
      let norm = 0;
      for (let j = 0; j < size; j++) norm += rows[start + j]! ** 2;
      norm = Math.sqrt(norm);
      // A direction without variance: the examples lie in fewer dimensions.
      for (let j = 0; j < size; j++) rows[start + j] = norm > 1e-12 ? rows[start + j]! / norm : 0;
    }
  }
}
