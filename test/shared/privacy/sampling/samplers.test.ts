/**
 * The samplers against exact cell probabilities from outside this repository. Seeds are fixed, so a result repeats; the
 * false-positive rate of each chi-square test over seeds is 1e-6.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { logNormalCdf } from '../../../../shared/privacy/accountants/numerics.ts';
import { sampleDiscreteLaplaces } from '../../../../shared/privacy/sampling/discrete-laplace.ts';
import { sampleRoundedGaussians } from '../../../../shared/privacy/sampling/rounded-gaussian.ts';
import { UniformBits } from '../../../../shared/privacy/sampling/uniform-bits.ts';
import { InsecureSeededRandom } from '../../../../simulations/insecure-seeded-random.ts';
import { chiSquare, chiSquareLimit, countCells, symmetricCells } from '../../../support/chi-square.ts';

const vectors = JSON.parse(readFileSync(new URL('../../../vectors/gaussian-mpmath.json', import.meta.url), 'utf8')) as { roundedGaussian: { sigma: number; pmfFrom0: number[] }[] };
const golden = JSON.parse(readFileSync(new URL('../../../vectors/dp-golden.json', import.meta.url), 'utf8')) as {
  cases: { id: string; mechanism: string; params: { a: number }; expected: { pmf_0_to_6: number[]; variance: number } }[];
};
const COUNT = 200_000;

function expectFits(samples: Int32Array, pmfFrom0: readonly number[], k: number): void {
  expect(chiSquare(countCells(samples, k), symmetricCells(pmfFrom0, k), samples.length)).toBeLessThan(chiSquareLimit(2 * k + 1));
}
const mean = (values: ArrayLike<number>, of: (value: number, i: number) => number) => Array.from(values, of).reduce((sum, value) => sum + value, 0) / values.length;

describe('rounded Gaussian', () => {
  it.each(vectors.roundedGaussian)('sigma $sigma fits Phi((k+1/2)/sigma) - Phi((k-1/2)/sigma)', ({ sigma, pmfFrom0 }) => {
    const samples = sampleRoundedGaussians(COUNT, sigma, new InsecureSeededRandom(sigma));
    expectFits(samples, pmfFrom0, Math.min(pmfFrom0.length - 1, Math.ceil(3.2 * sigma)));
  });

  it('notices a halved sigma, a variance taken for a standard deviation, and a discrete Gaussian', () => {
    const three = vectors.roundedGaussian.find((item) => item.sigma === 3)!;
    for (const wrong of [2, 7, 9]) {
      const samples = sampleRoundedGaussians(COUNT, wrong, new InsecureSeededRandom(5));
      expect(chiSquare(countCells(samples, 9), symmetricCells(three.pmfFrom0, 9), COUNT)).toBeGreaterThan(10 * chiSquareLimit(19));
    }
    const one = vectors.roundedGaussian.find((item) => item.sigma === 1)!;
    const samples = sampleRoundedGaussians(COUNT, 1, new InsecureSeededRandom(6));
    const discreteGaussian = golden.cases.find((item) => item.id === 'sampler-02')!.expected.pmf_0_to_6;
    expectFits(samples, one.pmfFrom0, 3);
    expect(chiSquare(countCells(samples, 3), symmetricCells(discreteGaussian, 3), COUNT)).toBeGreaterThan(10 * chiSquareLimit(7));
  });

  it.each([163_841, 2 ** 24 + 1, 170_000_000])('sigma %d: probability integral transform is uniform, down to the low bits', (sigma) => {
    const samples = sampleRoundedGaussians(COUNT, sigma, new InsecureSeededRandom(7));
    const cells = new Array<number>(64).fill(0);
    const lowBits = new Array<number>(16).fill(0);
    for (const sample of samples) {
      cells[Math.min(63, Math.floor(64 * Math.exp(logNormalCdf(sample / sigma))))]!++;
      lowBits[sample & 15]!++;
    }
    expect(chiSquare(cells, cells.map(() => 1 / 64), COUNT)).toBeLessThan(chiSquareLimit(63));
    expect(chiSquare(lowBits, lowBits.map(() => 1 / 16), COUNT)).toBeLessThan(chiSquareLimit(15));
  });

  it('has the right variance and fourth moment, and neighbors and streams are uncorrelated', () => {
    const sigma = 314;
    const samples = sampleRoundedGaussians(COUNT, sigma, new InsecureSeededRandom(8));
    const others = sampleRoundedGaussians(COUNT, sigma, new InsecureSeededRandom(9));
    const variance = sigma ** 2 + 1 / 12; // rounding adds a uniform error
    // Limits are 5 standard errors: false-positive rate below 1e-6 each.
    const error = 5 / Math.sqrt(COUNT);
    expect(Math.abs(mean(samples, (x) => x) / sigma)).toBeLessThan(error);
    expect(Math.abs(mean(samples, (x) => x * x) / variance - 1)).toBeLessThan(error * Math.sqrt(2));
    expect(Math.abs(mean(samples, (x) => x ** 4) / (3 * variance ** 2) - 1)).toBeLessThan((error * Math.sqrt(96)) / 3);
    expect(Math.abs(mean(samples, (x, i) => (x * samples[(i + 1) % COUNT]!) / variance))).toBeLessThan(error);
    expect(Math.abs(mean(samples, (x, i) => (x * others[i]!) / variance))).toBeLessThan(error);
  });

  it.each([0, -1, 1.5, NaN, 2 ** 31])('refuses sigma %d', (sigma) => {
    expect(() => sampleRoundedGaussians(1, sigma, new InsecureSeededRandom(1))).toThrow(RangeError);
  });
});

describe('discrete Laplace', () => {
  it.each(golden.cases.filter((item) => item.mechanism === 'discrete_laplace_pmf'))('$id fits the golden pmf', ({ params, expected }) => {
    const samples = sampleDiscreteLaplaces(COUNT, 1 / params.a, new InsecureSeededRandom(11));
    expectFits(samples, expected.pmf_0_to_6, 6);
    const standardError = Math.sqrt((5 * expected.variance ** 2 + expected.variance) / COUNT);
    expect(Math.abs(mean(samples, (x) => x * x) - expected.variance)).toBeLessThan(5 * standardError);
  });

  it.each([3, 50])('scale %d fits tanh(1/(2b)) exp(-|k|/b)', (scale) => {
    const k = 3 * scale;
    const pmf = Array.from({ length: k + 1 }, (_, i) => Math.tanh(1 / (2 * scale)) * Math.exp(-i / scale));
    expectFits(sampleDiscreteLaplaces(COUNT, scale, new InsecureSeededRandom(12)), pmf, k);
  });

  it('notices a halved scale', () => {
    const pmf = Array.from({ length: 13 }, (_, i) => Math.tanh(1 / 8) * Math.exp(-i / 4));
    const samples = sampleDiscreteLaplaces(COUNT, 2, new InsecureSeededRandom(13));
    expect(chiSquare(countCells(samples, 12), symmetricCells(pmf, 12), COUNT)).toBeGreaterThan(10 * chiSquareLimit(25));
  });

  it('is right for a scale beyond 2^24', () => {
    const scale = 1_000_000_007;
    const samples = sampleDiscreteLaplaces(COUNT, scale, new InsecureSeededRandom(14)).filter((x) => Math.abs(x) <= scale);
    const cells = new Array<number>(32).fill(0);
    // |X| given |X| <= b has distribution function (1 - exp(-x/b)) / (1 - 1/e).
    for (const x of samples) cells[Math.min(31, Math.floor((32 * (1 - Math.exp(-Math.abs(x) / scale))) / (1 - Math.exp(-1))))]!++;
    expect(chiSquare(cells, cells.map(() => 1 / 32), samples.length)).toBeLessThan(chiSquareLimit(31));
  });

  it.each([0, -1, 1.5, NaN, 2 ** 31])('refuses scale %d', (scale) => {
    expect(() => sampleDiscreteLaplaces(1, scale, new InsecureSeededRandom(1))).toThrow(RangeError);
  });
});

describe('uniform bits', () => {
  it.each([[1, 2], [1, 1], [3, 7], [0, 5]])('flips exp(-%d/%d) coins', (numerator, denominator) => {
    const bits = new UniformBits(new InsecureSeededRandom(21));
    const p = Math.exp(-numerator / denominator);
    let hits = 0;
    for (let i = 0; i < COUNT; i++) if (bits.bernoulliExp(numerator, denominator)) hits++;
    expect(Math.abs(hits / COUNT - p)).toBeLessThanOrEqual(5 * Math.sqrt((p * (1 - p)) / COUNT));
  });

  it('has no modulo bias where it would be largest', () => {
    // 2^32 mod (3 * 2^30) = 2^30: without rejection the lowest third would be twice as likely.
    const bits = new UniformBits(new InsecureSeededRandom(22));
    const thirds = [0, 0, 0];
    for (let i = 0; i < COUNT; i++) thirds[Math.floor(bits.below(3 * 2 ** 30) / 2 ** 30)]!++;
    expect(chiSquare(thirds, [1 / 3, 1 / 3, 1 / 3], COUNT)).toBeLessThan(chiSquareLimit(2) * 1.05);
  });

  it('never uses a byte twice', () => {
    const taken: number[] = [];
    const bits = new UniformBits({
      bytes(length) {
        taken.push(length);
        return Uint8Array.from({ length }, (_, i) => (i % 4 === 0 ? taken.length : Math.floor(i / 4) % 256));
      },
    });
    const words = Array.from({ length: 2048 }, () => bits.word());
    expect(taken).toEqual([4096, 4096]);
    expect(words[1023]! & 255).toBe(1);
    expect(words[1024]! & 255).toBe(2);
  });
});
