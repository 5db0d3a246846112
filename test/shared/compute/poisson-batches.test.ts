import { describe, expect, it } from 'vitest';
import { PoissonBatches } from '../../../shared/compute/poisson-batches.ts';
import type { RandomSource } from '../../../shared/ports/random-source.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';

/** Gives these 16-bit digits, then zeros. */
function digits(...values: readonly number[]): RandomSource {
  let next = 0;
  return {
    bytes: (length) => new Uint8Array(Uint16Array.from({ length: length / 2 }, () => values[next++] ?? 0).buffer),
  };
}

describe('Poisson batches', () => {
  it('have sizes with the mean qN and the variance qN(1-q), which batches of a fixed size have not', () => {
    for (const [count, rate] of [[200, 0.3], [1000, 0.004], [50, 0.95]] as const) {
      const batches = new PoissonBatches(count, rate, new InsecureSeededRandom(count));
      const runs = 20_000;
      const sizes = Float64Array.from({ length: runs }, () => batches.next().length);
      const mean = sizes.reduce((a, b) => a + b) / runs;
      const variance = sizes.reduce((sum, size) => sum + (size - mean) ** 2, 0) / (runs - 1);
      const expected = count * rate * (1 - rate);
      expect(Math.abs(mean - count * rate)).toBeLessThan(5 * Math.sqrt(expected / runs));
      // The fourth central moment of a binomial, for the error of the variance.
      const fourth = expected * (1 + (3 * count - 6) * rate * (1 - rate));
      expect(Math.abs(variance - expected)).toBeLessThan(5 * Math.sqrt((fourth - expected ** 2) / runs));
    }
  });

  it('hold each record equally often, and two records independently', () => {
    const [count, rate, runs] = [20, 0.35, 20_000];
    const batches = new PoissonBatches(count, rate, new InsecureSeededRandom(4));
    const alone = new Float64Array(count);
    const pairs = new Float64Array(count * count);
    for (let run = 0; run < runs; run++) {
      const positions = batches.next();
      for (const a of positions) {
        alone[a]!++;
        for (const b of positions) if (a < b) pairs[a * count + b]!++;
      }
    }
    const deviation = (p: number) => Math.sqrt(runs * p * (1 - p));
    for (const times of alone) expect(Math.abs(times - runs * rate)).toBeLessThan(5 * deviation(rate));
    for (let a = 0; a < count; a++) for (let b = a + 1; b < count; b++) expect(Math.abs(pairs[a * count + b]! - runs * rate ** 2)).toBeLessThan(5 * deviation(rate ** 2));
  });

  it('are now and then empty, and whole at rate 1', () => {
    const few = new PoissonBatches(3, 0.1, new InsecureSeededRandom(1));
    const empty = Array.from({ length: 1000 }, () => few.next().length).filter((size) => size === 0).length;
    // 0.9^3 = 0.729
    expect(Math.abs(empty - 729)).toBeLessThan(5 * Math.sqrt(1000 * 0.729 * 0.271));
    expect(Array.from(new PoissonBatches(3, 1, new InsecureSeededRandom(1)).next())).toEqual([0, 1, 2]);
  });

  it('compare digits until they differ, so that the rate is exact to its last bit', () => {
    // Digits of the rate in base 2^16: 1, 2, 3.
    const rate = 2 ** -16 + 2 * 2 ** -32 + 3 * 2 ** -48;
    const isIn = (...values: readonly number[]) => new PoissonBatches(1, rate, digits(...values)).next().length === 1;
    expect(isIn(0)).toBe(true);
    expect(isIn(2)).toBe(false);
    expect(isIn(1, 1)).toBe(true);
    expect(isIn(1, 3)).toBe(false);
    expect(isIn(1, 2, 2)).toBe(true);
    // Equal to the rate is not below it.
    expect(isIn(1, 2, 3)).toBe(false);
    expect(isIn(1, 2, 3, 0)).toBe(false);
  });
});
