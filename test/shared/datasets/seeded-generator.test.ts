import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { deriveSeed, SeededGenerator, splitMix64 } from '../../../shared/datasets/seeded-generator.ts';

const seeds = fc.integer({ min: 0, max: 0xffff_ffff });

/** Mean and variance of `count` draws. */
function moments(count: number, draw: () => number): { mean: number; variance: number } {
  const values = Array.from({ length: count }, draw);
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  return { mean, variance: values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count };
}

describe('SeededGenerator against published values', () => {
  it('gives the outputs of the reference xoshiro128** 1.1 from state {1, 2, 3, 4}', () => {
    // rand_xoshiro, src/xoshiro128starstar.rs, test `reference` (made with xoshiro128starstar.c).
    const generator = SeededGenerator.fromState([1, 2, 3, 4]);
    expect(Array.from({ length: 10 }, () => generator.uint32())).toEqual([
      11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804,
    ]);
  });

  it('fills its state with the outputs of the reference SplitMix64', () => {
    // rand_xoshiro, src/splitmix64.rs, test `reference` (made with splitmix64.c).
    expect(splitMix64(1477776061723855037n, 5)).toEqual([
      1985237415132408290n, 2979275885539914483n, 13511426838097143398n, 8488337342461049707n, 15141737807933549159n,
    ]);
    const [low, high] = splitMix64(271828n, 2) as [bigint, bigint];
    const words = [low, low >> 32n, high, high >> 32n].map((word) => Number(word & 0xffff_ffffn)) as [number, number, number, number];
    const [seeded, filled] = [new SeededGenerator(271828), SeededGenerator.fromState(words)];
    for (let i = 0; i < 20; i++) expect(seeded.uint32()).toBe(filled.uint32());
  });

  it('refuses seeds outside [0, 2^32) and the all-zero state', () => {
    for (const seed of [-1, 0.5, 2 ** 32, NaN]) expect(() => new SeededGenerator(seed)).toThrow(RangeError);
    expect(() => SeededGenerator.fromState([0, 0, 0, 0])).toThrow(RangeError);
  });
});

describe('draws', () => {
  it('integer(bound) stays below its bound and is unbiased where a plain remainder is not', () => {
    fc.assert(fc.property(seeds, fc.integer({ min: 1, max: 2 ** 32 }), (seed, bound) => {
      const drawn = new SeededGenerator(seed).integer(bound);
      return Number.isInteger(drawn) && drawn >= 0 && drawn < bound;
    }));
    // With bound = 3/4 * 2^32 a remainder would give the lowest third twice as often as the rest.
    const generator = new SeededGenerator(31337);
    const bound = 3 * 2 ** 30;
    const low = Array.from({ length: 30_000 }, () => generator.integer(bound)).filter((drawn) => drawn < bound / 3).length;
    expect(Math.abs(low - 10_000)).toBeLessThan(400); // 5 standard deviations
  });

  it('uniform() lies in [0, 1) with mean 1/2 and variance 1/12', () => {
    const generator = new SeededGenerator(2718);
    const { mean, variance } = moments(100_000, () => {
      const drawn = generator.uniform();
      expect(drawn >= 0 && drawn < 1).toBe(true);
      return drawn;
    });
    expect(mean).toBeCloseTo(0.5, 2);
    expect(variance).toBeCloseTo(1 / 12, 2);
  });

  it('gaussian() has mean 0, variance 1 and the right tail', () => {
    const generator = new SeededGenerator(1618);
    let beyond = 0;
    const { mean, variance } = moments(100_000, () => {
      const drawn = generator.gaussian();
      if (Math.abs(drawn) > 1.959964) beyond++;
      return drawn;
    });
    expect(Math.abs(mean)).toBeLessThan(0.016);
    expect(Math.abs(variance - 1)).toBeLessThan(0.023);
    expect(Math.abs(beyond - 5000)).toBeLessThan(345);
  });

  it.each([0.1, 0.7, 1, 2.71828, 50])('gamma(%d) has mean and variance equal to its shape', (shape) => {
    const generator = new SeededGenerator(577);
    const count = 50_000;
    const { mean, variance } = moments(count, () => generator.gamma(shape));
    expect(Math.abs(mean - shape)).toBeLessThan(5 * Math.sqrt(shape / count));
    // Var(s^2) = (mu_4 - sigma^4) / n with mu_4 = 3 k^2 + 6 k.
    expect(Math.abs(variance - shape)).toBeLessThan(5 * Math.sqrt((2 * shape * shape + 6 * shape) / count));
  });

  it('dirichlet() gives proportions that sum to 1, even where gamma draws underflow', () => {
    fc.assert(fc.property(seeds, fc.double({ min: 1e-6, max: 1e4, noNaN: true }), fc.integer({ min: 1, max: 50 }), (seed, alpha, length) => {
      const proportions = new SeededGenerator(seed).dirichlet(alpha, length);
      expect(proportions.every((p) => p >= 0 && p <= 1)).toBe(true);
      expect(proportions.reduce((a, b) => a + b)).toBeCloseTo(1, 9);
    }));
  });

  it('dirichlet(alpha) entries have variance (1/k)(1 - 1/k) / (k alpha + 1)', () => {
    const generator = new SeededGenerator(42);
    const { mean, variance } = moments(20_000, () => generator.dirichlet(0.5, 4)[0]!);
    expect(mean).toBeCloseTo(0.25, 1);
    expect(variance).toBeCloseTo((0.25 * 0.75) / 3, 2);
  });

  it('shuffle keeps every element and reaches all orders equally often', () => {
    fc.assert(fc.property(seeds, fc.integer({ min: 0, max: 300 }), (seed, length) => {
      expect([...new SeededGenerator(seed).permutation(length)].sort((a, b) => a - b)).toEqual(Array.from({ length }, (_, i) => i));
    }));
    const generator = new SeededGenerator(9);
    const counts = new Map<string, number>();
    for (let i = 0; i < 12_000; i++) {
      const order = generator.permutation(3).join('');
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    for (const count of counts.values()) expect(Math.abs(count - 2000)).toBeLessThan(205);
  });
});

describe('deriveSeed', () => {
  it('is the first four bytes of SHA-256 over the JSON array', () => {
    // Outside truth: printf '%s' '[1,"cohort",3]' | sha256sum
    expect(deriveSeed(1, 'cohort', 3)).toBe(2946843642);
  });

  it('tells apart labels that join to the same text', () => {
    const derived = [deriveSeed(1, 'a', 'b'), deriveSeed(1, 'ab'), deriveSeed(1, 'a,b'), deriveSeed(1, '1'), deriveSeed(1, 1), deriveSeed(1), deriveSeed(2), deriveSeed(1, '')];
    expect(new Set(derived).size).toBe(derived.length);
  });

  it('refuses labels without one text', () => {
    expect(() => deriveSeed(1, 0.1)).toThrow(RangeError);
    expect(() => deriveSeed(1, NaN)).toThrow(RangeError);
    expect(() => deriveSeed(-1)).toThrow(RangeError);
  });
});
