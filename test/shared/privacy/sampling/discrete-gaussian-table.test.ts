/** The table sampler: entries and distance against rational arithmetic, samples against golden probabilities and the exact sampler. Fixed seeds; false-positive rate over seeds 1e-6 a test. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { RandomSource } from '../../../../shared/ports/random-source.ts';
import { discreteGaussianPmf } from '../../../../shared/privacy/noise-pmf.ts';
import type { RationalSigma } from '../../../../shared/privacy/sampling/discrete-gaussian.ts';
import { sampleDiscreteGaussians } from '../../../../shared/privacy/sampling/discrete-gaussian.ts';
import type { DiscreteGaussianTable } from '../../../../shared/privacy/sampling/discrete-gaussian-table.ts';
import { discreteGaussianTable, hasDiscreteGaussianTable, MAX_TABLE_SIGMA, sampleDiscreteGaussianTable, tableSamplerDelta } from '../../../../shared/privacy/sampling/discrete-gaussian-table.ts';
import { InsecureSeededRandom } from '../../../../simulations/insecure-seeded-random.ts';
import { chiSquare, chiSquareLimit, countCells, symmetricCells } from '../../../support/chi-square.ts';

const golden = JSON.parse(readFileSync(new URL('../../../vectors/dp-golden.json', import.meta.url), 'utf8')) as {
  cases: { id: string; mechanism: string; params: { sigma: number }; expected: { pmf_0_to_6: number[]; variance: number } }[];
};
const COUNT = 200_000;

/** The 127-bit integers of a table. */
function entriesOf({ size, leading, rest }: DiscreteGaussianTable): bigint[] {
  return Array.from({ length: size }, (_, m) => (BigInt(leading[m]!) << 74n) | (BigInt(rest[3 * m]!) << 64n) | (BigInt(rest[3 * m + 1]!) << 32n) | BigInt(rest[3 * m + 2]!));
}

const BITS = 600n;
const ONE = 1n << BITS;

/** exp(-a/b) within [low, high] in units of 2^-600, term by term and without a recurrence over m: as unlike the table's code as can be. */
function expInterval(a: bigint, b: bigint): readonly [bigint, bigint] {
  let [low, high] = [ONE, ONE];
  let [termLow, termHigh] = [ONE, ONE];
  for (let n = 1n; n < 2n * (a / b) + 2n || termHigh > 2n; n++) {
    termLow = (termLow * a) / (b * n);
    termHigh = (termHigh * a) / (b * n) + 1n;
    low += termLow;
    high += termHigh;
  }
  // Ratios of the terms left out are below 1/2.
  high += 4n * termHigh;
  return [(ONE * ONE) / high, (ONE * ONE) / low + 1n];
}

/** P[|X| = m] for m = 0..last as intervals; `last` must leave out less than 2^-500. */
function exactMagnitudes({ numerator, denominator }: RationalSigma, last: number): (readonly [bigint, bigint])[] {
  const weights = Array.from({ length: last + 1 }, (_, m) => expInterval(BigInt(m * m * denominator * denominator), BigInt(2 * numerator * numerator)).map((w) => (m === 0 ? w : 2n * w)) as [bigint, bigint]);
  const low = weights.reduce((sum, [w]) => sum + w, 0n);
  const high = weights.reduce((sum, [, w]) => sum + w, ONE >> 500n);
  return weights.map(([l, h]) => [(l * ONE) / high, (h * ONE) / low + 1n]);
}

const small: RationalSigma[] = [[1, 4], [1, 2], [1, 1], [5, 3], [3, 1], [123, 64], [12, 1]].map(([numerator, denominator]) => ({ numerator: numerator!, denominator: denominator! }));

describe('the table', () => {
  it.each(small)('of sigma $numerator/$denominator holds every tail to 127 bits, and is as near to the exact law as it says', (sigma) => {
    const table = discreteGaussianTable(sigma);
    const entries = entriesOf(table);
    const exact = exactMagnitudes(sigma, Math.ceil((28 * sigma.numerator) / sigma.denominator) + 2);
    const ulp = ONE >> 127n;
    let tail: readonly [bigint, bigint] = [0n, ONE >> 500n];
    for (let m = exact.length - 1; m > table.size; m--) tail = [tail[0] + exact[m]![0], tail[1] + exact[m]![1]];
    // Beyond the table, and the most that its omission can move an entry: an eighth of the last bit.
    expect(tail[1] < ONE >> 130n).toBe(true);
    for (let m = table.size - 1; m >= 0; m--) {
      tail = [tail[0] + exact[m + 1]![0], tail[1] + exact[m + 1]![1]];
      const entry = entries[m]! * ulp;
      expect(entry <= tail[1] && entry > tail[0] - ulp - ulp / 4n).toBe(true);
    }
    let distance = 0n;
    for (let m = 0; m < exact.length; m++) {
      const above = m === 0 ? 1n << 127n : entries[m - 1] ?? 0n;
      const own = (above - (entries[m] ?? 0n)) * ulp;
      const [low, high] = exact[m]!;
      distance += own > low ? high > own ? high - low : own - low : high - own;
    }
    const totalVariation = Number((distance >> 1n) >> (BITS - 180n)) / 2 ** 180;
    expect(totalVariation).toBeLessThan(table.totalVariation);
    // Not a bound that anything would meet.
    expect(totalVariation).toBeGreaterThan(table.totalVariation / 20);
  });

  it.each([250, 4000])('of sigma %d never ascends, starts at 1 - p(0), and has float64\'s tails', (sigma) => {
    const table = discreteGaussianTable(sigma);
    const entries = entriesOf(table);
    expect(table.size).toBe(13.5 * sigma - 1);
    expect(entries.every((entry, m) => entry > 0n ? m === 0 || entry <= entries[m - 1]! : m > 13 * sigma)).toBe(true);
    expect(Math.abs(Number(entries[0]!) / 2 ** 127 / (1 - discreteGaussianPmf(sigma, 0)) - 1)).toBeLessThan(1e-12);
    for (const m of [sigma, 5 * sigma, 9 * sigma]) {
      const p = Number(entries[m - 1]! - entries[m]!) / 2 ** 126 / 2;
      expect(Math.abs(p / (2 * discreteGaussianPmf(sigma, m)) - 1)).toBeLessThan(1e-9);
    }
    expect([...table.leading.subarray(table.size)].every((x) => x === 0)).toBe(true);
  });

  it('is refused where it would be too large, too small or no fraction of integers', () => {
    for (const sigma of [MAX_TABLE_SIGMA + 1, 0, -3, NaN, 1.5, { numerator: 1, denominator: 5 }, { numerator: 1, denominator: 65 }, { numerator: 2 ** 25, denominator: 64 }]) {
      expect(hasDiscreteGaussianTable(sigma)).toBe(false);
      expect(() => discreteGaussianTable(sigma)).toThrow(/sample it exactly/);
    }
    expect(hasDiscreteGaussianTable(MAX_TABLE_SIGMA)).toBe(true);
  });
});

/** Bytes that stand for given 128-bit integers, most significant word first, as the sampler reads them; and what was asked for. */
function scripted(values: readonly bigint[]): RandomSource & { asked: number } {
  const words = values.flatMap((value) => [96n, 64n, 32n, 0n].map((shift) => Number((value >> shift) & 0xffffffffn)));
  return {
    asked: 0,
    bytes(length) {
      const bytes = new DataView(new ArrayBuffer(length));
      for (let i = 0; i < length / 4; i++) bytes.setUint32(4 * i, words[this.asked / 4 + i] ?? 0, true);
      this.asked += length;
      return new Uint8Array(bytes.buffer);
    },
  };
}

describe('sampling from the table', () => {
  it.each([{ numerator: 1, denominator: 2 }, { numerator: 7, denominator: 1 }, { numerator: 300, denominator: 1 }])('inverts exactly at every entry, ties of the leading bits included: sigma $numerator/$denominator', (sigma) => {
    const table = discreteGaussianTable(sigma);
    const entries = entriesOf(table);
    const uniforms = [0n, (1n << 127n) - 1n, ...entries.flatMap((entry) => [entry - 1n, entry, entry + 1n])].filter((u) => u >= 0n);
    const samples = sampleDiscreteGaussianTable(2 * uniforms.length, table, scripted(uniforms.flatMap((u) => [u << 1n, (u << 1n) | 1n])));
    uniforms.forEach((u, i) => {
      const magnitude = entries.filter((entry) => u < entry).length;
      expect([samples[2 * i], samples[2 * i + 1]]).toEqual([magnitude, 0 - magnitude]);
    });
    expect(samples[0]).toBeGreaterThanOrEqual(13 * (sigma.numerator / sigma.denominator) - 1);
    expect(samples[2]).toBe(0);
  });

  it('takes 128 random bits a sample, whatever comes out', () => {
    const table = discreteGaussianTable(50);
    const [full, oneMore] = [scripted([]), scripted([])];
    sampleDiscreteGaussianTable(256 * 3, table, full);
    sampleDiscreteGaussianTable(256 * 3 + 1, table, oneMore);
    // The source is read in blocks of 4096 bytes.
    expect([full.asked, oneMore.asked]).toEqual([256 * 3 * 16, 256 * 3 * 16 + 4096]);
  });

  it.each(golden.cases.filter(({ mechanism }) => mechanism === 'discrete_gaussian_pmf'))('$id: sigma $params.sigma fits the golden pmf and variance', ({ params: { sigma }, expected }) => {
    const samples = sampleDiscreteGaussianTable(COUNT, discreteGaussianTable(Number.isInteger(sigma) ? sigma : { numerator: sigma * 2, denominator: 2 }), new InsecureSeededRandom(43));
    const k = expected.pmf_0_to_6.filter((p) => p * COUNT >= 5).length - 1;
    expect(chiSquare(countCells(samples, k).slice(0, -1), symmetricCells(expected.pmf_0_to_6, k).slice(0, -1), COUNT)).toBeLessThan(chiSquareLimit(2 * k + 1));
    const variance = samples.reduce((sum, x) => sum + x * x, 0) / COUNT;
    expect(Math.abs(variance - expected.variance)).toBeLessThan(5 * Math.sqrt((3 * expected.variance ** 2 + expected.variance) / COUNT));
  });

  it.each([3, 40, 1000])('agrees with the exact sampler at sigma %d, tails included', (sigma) => {
    const [own, exact] = [sampleDiscreteGaussianTable(COUNT, discreteGaussianTable(sigma), new InsecureSeededRandom(7)), sampleDiscreteGaussians(COUNT, sigma, new InsecureSeededRandom(8))];
    // Cells a fifth of a sigma wide (at least one value), the last ones open.
    const width = Math.max(1, Math.floor(sigma / 5));
    const cells = (samples: Int32Array) => {
      const last = Math.floor((3.5 * sigma) / width);
      const counts = new Array<number>(2 * last + 1).fill(0);
      for (const x of samples) counts[Math.max(-last, Math.min(last, Math.round(x / width))) + last]!++;
      return counts;
    };
    const [a, b] = [cells(own), cells(exact)];
    expect(Math.min(...a)).toBeGreaterThan(5);
    // Two samples of the same size: sum (a - b)^2 / (a + b).
    const statistic = a.reduce((sum, count, i) => sum + (count - b[i]!) ** 2 / (count + b[i]!), 0);
    expect(statistic).toBeLessThan(chiSquareLimit(a.length - 1));
  });

  it('notices a wrong sigma', () => {
    const samples = sampleDiscreteGaussianTable(COUNT, discreteGaussianTable({ numerator: 31, denominator: 10 }), new InsecureSeededRandom(9));
    const pmf = Array.from({ length: 10 }, (_, k) => discreteGaussianPmf(3, k));
    expect(chiSquare(countCells(samples, 9), symmetricCells(pmf, 9), COUNT)).toBeGreaterThan(2 * chiSquareLimit(19));
  });
});

describe('what a table adds to delta', () => {
  it('is (1 + e^epsilon) samples TV, rounded up', () => {
    const { totalVariation } = discreteGaussianTable(1000);
    expect(totalVariation).toBeGreaterThanOrEqual(13_501 * 2 ** -128);
    const delta = tableSamplerDelta(2.71828, 1e6, { totalVariation });
    expect(delta).toBeGreaterThan((1 + Math.exp(2.71828)) * 1e6 * totalVariation);
    expect(delta).toBeLessThan((1 + Math.exp(2.71828)) * 1e6 * totalVariation * (1 + 1e-12));
  });

  it('is nothing without samples, at most 1, and refused for what is no number of samples', () => {
    expect(tableSamplerDelta(1, 0, { totalVariation: 1e-30 })).toBe(0);
    expect(tableSamplerDelta(1000, 1, { totalVariation: 1e-30 })).toBe(1);
    expect(() => tableSamplerDelta(-1, 1, { totalVariation: 1e-30 })).toThrow(RangeError);
    expect(() => tableSamplerDelta(NaN, 1, { totalVariation: 1e-30 })).toThrow(RangeError);
    expect(() => tableSamplerDelta(1, 1.5, { totalVariation: 1e-30 })).toThrow(RangeError);
  });
});
