/**
 * Gaussian noise for private gradients: some 1e5 numbers a step, so speed decides. Ziggurat (Marsaglia & Tsang 2000) with 256 layers in
 * float64, 62 bits of the CSPRNG for a sample, and the noised value rounded to a grid.
 *
 * The lowest 30 of those bits are drawn only where they matter. The first 32 give the layer and an interval of it, at most 2^-21 deviations wide. The
 * rounded value does not fall as the place in the layer rises, in floating point too: when both ends of the interval are rounded to the same point of the
 * grid, and the whole of it is under the curve, every choice of the bits that are left gives the same result, which then has exactly the distribution
 * that all 62 give. Otherwise, for one number in 60 or so, they are drawn.
 *
 * The grid is what makes this defensible. Low-order bits of noise in floating point tell what it was added to (Mironov 2012); here nothing finer
 * than 2^-12 standard deviations is kept, so what leaves is `round((sum + noise) / grid)`, a function of the sum with Gaussian noise, and
 * post-processing costs no privacy. Each layer puts at least 2^38 of its equally likely points into a cell of the grid, and counts of points are
 * off by at most one or two, so a cell's probability is right to about 2^-37 of itself. Relative errors of h add h^2 to the divergence a
 * sample: over 2^30 samples the distance to the true rounded Gaussian is below 1e-6 in total variation (Pinsker). That is an argument
 * about rounding, not an exact sampler as in `privacy/sampling/`, and how long a sample takes depends on it. docs/compute.md has the caveat.
 */
import type { RandomSource } from '../ports/random-source.ts';
import { blockNumbers, type NoiseKernel, noiseKernel } from './gaussian-noise-kernel.ts';
import { RandomWords } from './random-words.ts';

/** Grid cells in a standard deviation are between this and its double. */
const cellsPerDeviation = 2 ** 12;

const layers = 256;
/** Where the tail of the 256-layer ziggurat of exp(-x^2/2) begins (Marsaglia & Tsang 2000). */
const tailStart = 3.6541528853610088;
/** Of each layer: `tailStart exp(-tailStart^2/2)` and the tail's area. To 16 digits, not the paper's 12, so that the top layer closes to 2e-14 of itself. */
const layerArea = 0.004928673233974657;
const scale53 = 2 ** 53;
/** Places that a first word leaves open. */
const restPlaces = 2 ** 30;

/** `edges[i]`: the right end of layer i, falling; layer 0 is the base strip with the tail, as wide as its area asks for. */
const edges = new Float64Array(layers + 1);
/** exp(-x^2/2) at the edges. */
const heights = new Float64Array(layers + 1);
/** An integer of at most 53 bits and a sign, times this, is a point of the layer. */
const widths = new Float64Array(layers);
/** An integer below this gives a point that is under the curve whatever its height. */
const inside = new Float64Array(layers);

edges[0] = layerArea / Math.exp((-tailStart * tailStart) / 2);
edges[1] = tailStart;
for (let i = 2; i < layers; i++) edges[i] = Math.sqrt(-2 * Math.log(layerArea / edges[i - 1]! + Math.exp((-edges[i - 1]! * edges[i - 1]!) / 2)));
for (let i = 0; i <= layers; i++) heights[i] = Math.exp((-edges[i]! * edges[i]!) / 2);
for (let i = 0; i < layers; i++) {
  widths[i] = edges[i]! / scale53;
  inside[i] = Math.floor((edges[i + 1]! / edges[i]!) * scale53);
}

/** Numbers for which random bits are fetched at a time: fewer cost the system's CSPRNG more each, and more leave the cache. */
const fetchedNumbers = 4 * blockNumbers;

let shared: NoiseKernel | undefined;

/** With the tables of the layers. */
export function withLayers(kernel: NoiseKernel): NoiseKernel {
  for (let i = 0; i < layers; i++) {
    kernel.limits[i] = Math.floor(inside[i]! / restPlaces);
    kernel.widths[i] = widths[i]! * restPlaces;
  }
  return kernel;
}

/** Standard normal numbers from a CSPRNG. */
export class GaussianNoise {
  readonly #words: RandomWords;
  readonly #kernel: NoiseKernel;

  /** `kernel`: with layers. All noise of a thread shares one: no call reads what another has left. */
  constructor(random: RandomSource, kernel: NoiseKernel = (shared ??= withLayers(noiseKernel()))) {
    this.#words = new RandomWords(random);
    this.#kernel = kernel;
  }

  next(): number {
    return this.#numberOf(this.#words.next() | 0);
  }

  /**
   * Replaces each sum by `(sum + N(0, deviation^2)) / divisor`, rounded to a grid of at most 2^-12 deviations before the division. `deviation` > 0.
   */
  release(sums: Float32Array, deviation: number, divisor: number): void {
    // A power of two: scaling by it is exact.
    const cells = 2 ** -Math.floor(Math.log2(deviation)) * cellsPerDeviation;
    const noiseCells = deviation * cells;
    const scale = 1 / cells / divisor;
    const kernel = this.#kernel;
    let fetched: Int32Array = new Int32Array(0);
    for (let start = 0; start < sums.length; start += blockNumbers) {
      const block = sums.subarray(start, start + blockNumbers);
      if (start % fetchedNumbers === 0) fetched = this.#words.fresh(Math.min(fetchedNumbers, sums.length - start));
      const words = fetched.subarray(start % fetchedNumbers, (start % fetchedNumbers) + block.length);
      kernel.words.set(words);
      kernel.sums.set(block);
      const undecided = kernel.release(block.length, cells, noiseCells, scale);
      for (let i = 0; i < undecided; i++) {
        const place = kernel.undecided[i]!;
        kernel.sums[place] = Math.floor(block[place]! * cells + this.#numberOf(words[place]!) * noiseCells + 0.5) * scale;
      }
      block.set(kernel.sums.subarray(0, block.length));
    }
  }

  /** The number that this signed word and one more give; where its point is not under the curve, the next one that is. */
  #numberOf(word: number): number {
    const layer = word & 0xff;
    // 54 bits with the sign.
    const place = (word >> 8) * restPlaces + (this.#words.next() >>> 2);
    const x = place * widths[layer]!;
    if (Math.abs(place) < inside[layer]!) return x;
    if (layer === 0) return place < 0 ? -this.#tail() : this.#tail();
    if (heights[layer]! + this.#uniform() * (heights[layer + 1]! - heights[layer]!) < Math.exp((-x * x) / 2)) return x;
    return this.next();
  }

  /** Beyond `tailStart`: exponential proposals (Marsaglia 1964). */
  #tail(): number {
    for (;;) {
      const x = -Math.log(1 - this.#uniform()) / tailStart;
      if (-2 * Math.log(1 - this.#uniform()) > x * x) return tailStart + x;
    }
  }

  /** In [0, 1), 53 bits. */
  #uniform(): number {
    return ((this.#words.next() >>> 11) * 2 ** 32 + this.#words.next()) / scale53;
  }
}
