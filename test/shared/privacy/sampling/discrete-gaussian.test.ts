/** The exact discrete Gaussian sampler against outside probabilities. Seeds are fixed; false-positive rate over seeds 1e-6 a test. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { sampleDiscreteGaussians } from '../../../../shared/privacy/sampling/discrete-gaussian.ts';
import { InsecureSeededRandom } from '../../../../simulations/insecure-seeded-random.ts';
import { chiSquare, chiSquareLimit, countCells, symmetricCells } from '../../../support/chi-square.ts';

const golden = JSON.parse(readFileSync(new URL('../../../vectors/dp-golden.json', import.meta.url), 'utf8')) as {
  cases: { id: string; mechanism: string; params: { sigma: number }; expected: { pmf_0_to_6: number[]; variance: number } }[];
};
const COUNT = 200_000;

/** exp(-k^2 / (2 sigma^2)) over its sum. */
function pmf(sigma: number, to: number): number[] {
  const weight = (k: number) => Math.exp(-(k * k) / (2 * sigma * sigma));
  let total = 1;
  for (let k = 1; k <= 40 * Math.ceil(sigma); k++) total += 2 * weight(k);
  return Array.from({ length: to + 1 }, (_, k) => weight(k) / total);
}

describe('discrete Gaussian', () => {
  it.each(golden.cases.filter(({ mechanism }) => mechanism === 'discrete_gaussian_pmf'))('$id: sigma $params.sigma fits the golden pmf and variance', ({ params: { sigma }, expected }) => {
    const rational = Number.isInteger(sigma) ? sigma : { numerator: sigma * 2, denominator: 2 };
    const samples = sampleDiscreteGaussians(COUNT, rational, new InsecureSeededRandom(41));
    // Cells that expect fewer than five samples are no test: they join the last one.
    const k = expected.pmf_0_to_6.filter((p) => p * COUNT >= 5).length - 1;
    expect(chiSquare(countCells(samples, k).slice(0, -1), symmetricCells(expected.pmf_0_to_6, k).slice(0, -1), COUNT)).toBeLessThan(chiSquareLimit(2 * k + 1));
    const variance = samples.reduce((sum, x) => sum + x * x, 0) / COUNT;
    expect(Math.abs(variance - expected.variance)).toBeLessThan(5 * Math.sqrt((3 * expected.variance ** 2 + expected.variance) / COUNT));
  });

  it.each([[3, 1], [7, 1], [50, 1], [5, 3], [123, 64]])('sigma %d/%d fits exp(-k^2/(2 sigma^2))', (numerator, denominator) => {
    const sigma = numerator / denominator;
    const k = Math.ceil(3.2 * sigma);
    const samples = sampleDiscreteGaussians(COUNT, { numerator, denominator }, new InsecureSeededRandom(numerator));
    expect(chiSquare(countCells(samples, k), symmetricCells(pmf(sigma, k), k), COUNT)).toBeLessThan(chiSquareLimit(2 * k + 1));
  });

  it('notices a variance taken for a standard deviation', () => {
    const samples = sampleDiscreteGaussians(COUNT, 3, new InsecureSeededRandom(5));
    expect(chiSquare(countCells(samples, 9), symmetricCells(pmf(9, 9), 9), COUNT)).toBeGreaterThan(10 * chiSquareLimit(19));
  });

  it('a sum of h shares has variance h sigma^2; shares and coordinates are uncorrelated', () => {
    const [h, sigma, count] = [20, 271, 20_000];
    const shares = Array.from({ length: h }, (_, i) => sampleDiscreteGaussians(count, sigma, new InsecureSeededRandom(600 + i)));
    const sum = Float64Array.from({ length: count }, (_, j) => shares.reduce((total, share) => total + share[j]!, 0));
    const variance = sum.reduce((total, x) => total + x * x, 0) / count;
    expect(Math.abs(variance / (h * sigma ** 2) - 1)).toBeLessThan(5 * Math.sqrt(2 / count));
    const correlation = (a: ArrayLike<number>, b: (j: number) => number, scale: number) => Math.abs(Array.from(a).reduce((total, x, j) => total + x * b(j), 0) / (count * scale));
    expect(correlation(shares[0]!, (j) => shares[1]![j]!, sigma ** 2)).toBeLessThan(5 / Math.sqrt(count));
    expect(correlation(sum, (j) => sum[(j + 1) % count]!, h * sigma ** 2)).toBeLessThan(5 / Math.sqrt(count));
  });

  it.each([0, -1, 1.5, NaN, 2 ** 24])('refuses sigma %d', (sigma) => {
    expect(() => sampleDiscreteGaussians(1, sigma, new InsecureSeededRandom(1))).toThrow(RangeError);
  });

  it('takes the largest sigma, and no fraction that its integers can\'t hold', () => {
    expect(sampleDiscreteGaussians(100, 2 ** 24 - 1, new InsecureSeededRandom(2)).some((x) => Math.abs(x) > 2 ** 22)).toBe(true);
    expect(() => sampleDiscreteGaussians(1, { numerator: 2 ** 24 - 1, denominator: 64 }, new InsecureSeededRandom(1))).toThrow(/simpler/);
    expect(() => sampleDiscreteGaussians(1, { numerator: 1, denominator: 65 }, new InsecureSeededRandom(1))).toThrow(RangeError);
    expect(sampleDiscreteGaussians(0, 3, new InsecureSeededRandom(1))).toHaveLength(0);
  });
});
