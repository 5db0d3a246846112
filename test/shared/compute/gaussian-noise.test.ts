import { describe, expect, it } from 'vitest';
import { GaussianNoise, withLayers } from '../../../shared/compute/gaussian-noise.ts';
import { blockNumbers, javascriptNoiseKernel, wasmNoiseKernel } from '../../../shared/compute/gaussian-noise-kernel.ts';
import { logNormalCdf } from '../../../shared/privacy/accountants/numerics.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';

const count = 2_000_000;
const normalCdf = (x: number) => Math.exp(logNormalCdf(x));

function samples(seed: number): Float64Array {
  const noise = new GaussianNoise(new InsecureSeededRandom(seed));
  return Float64Array.from({ length: count }, () => noise.next());
}

describe('gaussian noise', () => {
  const drawn = samples(1);

  /** The same numbers, a whole vector at a time, as a step draws them. */
  const released = new Float32Array(count);
  new GaussianNoise(new InsecureSeededRandom(6)).release(released, 1, 1);

  it.each([['one by one', drawn], ['released', released]])('falls into 512 cells of equal width, and beyond, as often as a normal distribution says: %s', (_, numbers) => {
    // Edges lie between the multiples of the grid.
    const [perUnit, half, offset] = [64, 256, 2 ** -13];
    const counts = new Float64Array(2 * half + 2);
    for (const x of numbers) counts[Math.min(Math.max(Math.floor((x + offset) * perUnit) + half + 1, 0), 2 * half + 1)]!++;
    const edges = Array.from({ length: 2 * half + 1 }, (__, i) => (i - half) / perUnit - offset);
    let chiSquare = 0;
    for (let cell = 0; cell < counts.length; cell++) {
      const [below, above] = [cell === 0 ? 0 : normalCdf(edges[cell - 1]!), cell === counts.length - 1 ? 1 : normalCdf(edges[cell]!)];
      const expected = count * (above - below);
      chiSquare += (counts[cell]! - expected) ** 2 / expected;
    }
    // 513 degrees of freedom: a mean of 513 and a standard deviation of 32.
    expect(Math.abs(chiSquare - 513)).toBeLessThan(5 * 32);
  });

  it('has the moments of a normal distribution', () => {
    const mean = (power: number) => drawn.reduce((sum, x) => sum + x ** power, 0) / count;
    const error = 5 / Math.sqrt(count);
    expect(Math.abs(mean(1))).toBeLessThan(error);
    expect(Math.abs(mean(2) - 1)).toBeLessThan(error * Math.sqrt(2));
    expect(Math.abs(mean(3))).toBeLessThan(error * Math.sqrt(15));
    expect(Math.abs(mean(4) - 3)).toBeLessThan(error * Math.sqrt(96));
  });

  it('has a tail beyond the ziggurat, where exponential proposals take over', () => {
    for (const bound of [3.6541528853610088, 4, 4.5]) {
      const expected = 2 * count * normalCdf(-bound);
      for (const sign of [1, -1]) {
        const found = drawn.reduce((sum, x) => sum + Number(sign * x > bound), 0);
        expect(Math.abs(found - expected / 2)).toBeLessThan(5 * Math.sqrt(expected / 2));
      }
    }
  });

  it('is independent from one number to the next', () => {
    let products = 0;
    for (let i = 1; i < count; i++) products += drawn[i]! * drawn[i - 1]!;
    expect(Math.abs(products / count)).toBeLessThan(5 / Math.sqrt(count));
  });

  it('leaves only multiples of a grid of at most 2^-12 deviations', () => {
    for (const deviation of [1.7, 0.031, 4]) {
      const noise = new GaussianNoise(new InsecureSeededRandom(2));
      // Sums whose low-order bits would tell them apart.
      const values = Float32Array.from({ length: 1000 }, (_, i) => Math.fround(Math.sin(i) * 10 * deviation));
      noise.release(values, deviation, 1);
      const grid = 2 ** (Math.floor(Math.log2(deviation)) - 12);
      expect(grid).toBeLessThanOrEqual(deviation * 2 ** -12);
      expect(values.every((value) => Number.isInteger(value / grid))).toBe(true);
      expect(new Set(values.map((value) => Math.abs(value / grid) % 2)).size).toBe(2);
    }
  });

  it('adds noise of the deviation asked for, then divides', () => {
    const noise = new GaussianNoise(new InsecureSeededRandom(3));
    const values = new Float32Array(200_000).fill(5);
    noise.release(values, 0.7, 16);
    const mean = values.reduce((a, b) => a + b) / values.length;
    const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length;
    expect(Math.abs(mean - 5 / 16)).toBeLessThan((5 * 0.7) / 16 / Math.sqrt(200_000));
    expect(Math.abs(variance / (0.7 / 16) ** 2 - 1)).toBeLessThan(5 * Math.sqrt(2 / 200_000));
  });

  it('gives the same bits in WebAssembly and in JavaScript, whatever the length', () => {
    for (const length of [1, 2, 4095, 4097, 16_385, 50_003]) {
      const [inWasm, inJavascript] = [wasmNoiseKernel()!, javascriptNoiseKernel()].map((kernel) => {
        const values = Float32Array.from({ length }, (_, i) => Math.fround(Math.sin(i) * 10 ** ((i % 12) - 4)));
        new GaussianNoise(new InsecureSeededRandom(4), withLayers(kernel)).release(values, 1.3, 7);
        return values;
      });
      expect(inWasm).toEqual(inJavascript);
    }
  });

  it('decides by the first word only what no further bit could change', () => {
    const random = new InsecureSeededRandom(5);
    const rests = new Uint32Array(random.bytes(4 * blockNumbers).buffer);
    const kernel = withLayers(wasmNoiseKernel()!);
    let undecidedOfAll = 0;
    const rounds = 40;
    for (let round = 0; round < rounds; round++) {
      kernel.words.set(new Int32Array(random.bytes(4 * blockNumbers).slice().buffer));
      // The ends of the places, in the base strip, the widest full layer, one more and the one at the top, which is never wholly under the curve.
      let word = 0;
      for (const layer of [0, 1, 77, 255]) for (const place of [-(2 ** 23), -(2 ** 23) + 1, -1, 0, 1, 2 ** 23 - 1]) kernel.words[word++] = (place << 8) | layer;
      const sums = Float32Array.from({ length: blockNumbers }, (_, i) => Math.fround(Math.sin(i + round) * 10 ** ((round % 20) - 6)));
      kernel.sums.set(sums);
      const [cells, noiseCells, scale] = [2 ** 12, 4096 + 102 * round, 2 ** -12 / 3];
      const undecided = new Set(kernel.undecided.subarray(0, kernel.release(blockNumbers, cells, noiseCells, scale)));
      undecidedOfAll += undecided.size;
      for (let i = 0; i < blockNumbers; i++) {
        const layer = kernel.words[i]! & 0xff;
        if (layer === 255) expect(undecided.has(i)).toBe(true);
        if (undecided.has(i)) continue;
        for (const rest of [0, 1, rests[i]! >>> 2, 2 ** 30 - 1]) {
          const place = (kernel.words[i]! >> 8) * 2 ** 30 + rest;
          const x = place * (kernel.widths[layer]! / 2 ** 30);
          if (!(Math.abs(place) < kernel.limits[layer]! * 2 ** 30) || Math.fround(Math.floor(sums[i]! * cells + x * noiseCells + 0.5) * scale) !== kernel.sums[i]) {
            throw new Error(`round ${round}, sum ${sums[i]}, word ${kernel.words[i]}, further bits ${rest}`);
          }
        }
      }
    }
    // 1.2 % are not in the rectangles of their layers.
    const share = undecidedOfAll / rounds / blockNumbers;
    expect(share).toBeGreaterThan(0.012);
    expect(share).toBeLessThan(0.025);
  });
});
