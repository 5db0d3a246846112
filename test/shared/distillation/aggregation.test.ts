import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import {
  aggregate,
  consensusFromSum,
  contributionKind,
  entropyReduction,
  meanLogits,
  meanProbabilities,
  projectRowsToSimplex,
  projectToSimplex,
  sumContributions,
  type Aggregator,
} from '../../../shared/distillation/aggregation.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';
import { contributions, entropy, logitMatrices, probabilitiesOf, rowsOf } from './matrices.ts';

const aggregators: readonly Aggregator[] = ['meanLogits', 'meanProbabilities', 'entropyReduction'];
const row = (...values: number[]): Matrix => ({ rows: 1, columns: values.length, values: Float32Array.from(values) });

describe('aggregation', () => {
  it('gives the mean of each entry', () => {
    expect([...meanLogits([row(1, -7.5), row(2, 0.5), row(6, 1)]).consensus.values]).toEqual([3, -2]);
    expect(meanLogits([row(1)]).kind).toBe('logits');
    expect(meanProbabilities([row(0.25, 0.75)])).toEqual({ consensus: row(0.25, 0.75), kind: 'probabilities' });
    expect(aggregators.map(contributionKind)).toEqual(['logits', 'probabilities', 'probabilities']);
  });

  it('gives softmax(mean / T) for entropy reduction (DS-FL, eq. 14)', () => {
    const { consensus, kind } = entropyReduction([row(0.5, 0.3, 0.2), row(0.7, 0.1, 0.2)], 0.13);
    const exponentials = [0.6, 0.2, 0.2].map((p) => Math.exp(p / 0.13));
    const sum = exponentials.reduce((a, b) => a + b);
    exponentials.forEach((value, i) => expect(consensus.values[i]).toBeCloseTo(value / sum, 6));
    expect(kind).toBe('probabilities');
  });

  it('is the same to the last bit for every order of the contributions', () => {
    fc.assert(
      fc.property(contributions(), fc.constantFrom(...aggregators), fc.integer({ min: 0, max: 1000 }), (matrices, aggregator, seed) => {
        const options = { aggregator, eraTemperature: 0.1, noised: false };
        const shuffled = [...new SeededGenerator(seed).permutation(matrices.length)].map((i) => matrices[i]!);
        expect(aggregate(shuffled, options)).toEqual(aggregate(matrices, options));
      }),
    );
  });

  it('is so where float64 addition is not', () => {
    // In float64, (1e16f + 1) - 1e16f depends on the order; on a common grid it does not.
    const values = [1e16, 1, -1e16, 3.3, 1e-20].map((value) => row(value));
    const sums = [[0, 1, 2, 3, 4], [0, 2, 1, 3, 4], [4, 3, 2, 1, 0]].map((order) => sumContributions(order.map((i) => values[i]!))[0]);
    expect(new Set(sums).size).toBe(1);
  });

  it('sums as exactly as float64 does', () => {
    fc.assert(
      fc.property(contributions(), (matrices) => {
        const scale = Math.max(...matrices.flatMap(({ values }) => [...values].map(Math.abs)));
        sumContributions(matrices).forEach((value, i) => {
          const plain = matrices.reduce((sum, { values }) => sum + values[i]!, 0);
          expect(Math.abs(value - plain)).toBeLessThanOrEqual(scale * 1e-14);
        });
      }),
    );
  });

  it('needs only the sum', () => {
    fc.assert(
      fc.property(contributions(), fc.constantFrom(...aggregators), fc.boolean(), (matrices, aggregator, noised) => {
        const options = { aggregator, eraTemperature: 0.2, noised };
        const { rows, columns } = matrices[0]!;
        expect(consensusFromSum({ rows, columns, sum: sumContributions(matrices) }, matrices.length, options)).toEqual(aggregate(matrices, options));
      }),
    );
  });

  it('gives probability rows for mean probabilities', () => {
    fc.assert(
      fc.property(contributions(), (matrices) => {
        for (const values of rowsOf(meanProbabilities(probabilitiesOf(matrices)).consensus)) expect(values.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
      }),
    );
  });

  it('lowers the entropy by ERA where every probability is at least T, and lowers it more with a lower T', () => {
    fc.assert(
      fc.property(contributions(), fc.double({ min: 0.02, max: 1, noNaN: true }), (matrices, temperature) => {
        const probabilities = probabilitiesOf(matrices);
        const mean = rowsOf(meanProbabilities(probabilities).consensus);
        const sharp = rowsOf(entropyReduction(probabilities, temperature).consensus);
        const sharper = rowsOf(entropyReduction(probabilities, temperature / 2).consensus);
        mean.forEach((values, i) => {
          if (Math.min(...values) >= temperature) expect(entropy(sharp[i]!)).toBeLessThanOrEqual(entropy(values) + 1e-5);
          expect(entropy(sharper[i]!)).toBeLessThanOrEqual(entropy(sharp[i]!) + 1e-5);
        });
      }),
    );
  });

  it('refuses contributions that do not belong together, and none at all', () => {
    const invalid = expect.objectContaining({ code: 'data-invalid' }) as Error;
    expect(() => meanLogits([])).toThrow(invalid);
    expect(() => meanLogits([row(1, 2), row(1, 2, 3)])).toThrow(invalid);
    expect(() => meanLogits([row(1, NaN)])).toThrow(invalid);
    expect(() => consensusFromSum({ rows: 1, columns: 2, sum: new Float64Array(2) }, 0, { aggregator: 'meanLogits', eraTemperature: 1, noised: false })).toThrow(invalid);
    expect(() => consensusFromSum({ rows: 2, columns: 2, sum: new Float64Array(2) }, 1, { aggregator: 'meanLogits', eraTemperature: 1, noised: false })).toThrow(invalid);
  });
});

describe('projection onto the simplex', () => {
  it('gives probabilities, and leaves probabilities as they are', () => {
    fc.assert(
      fc.property(logitMatrices(), (noisy) => {
        const projected = projectRowsToSimplex(noisy);
        for (const values of rowsOf(projected)) {
          expect(values.every((p) => p >= 0)).toBe(true);
          expect(values.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
        }
        projectRowsToSimplex(projected).values.forEach((value, i) => expect(value).toBeCloseTo(projected.values[i]!, 5));
      }),
    );
  });

  it('gives the nearest point: no other probability vector is nearer', () => {
    fc.assert(
      fc.property(logitMatrices(), logitMatrices(), (noisy, other) => {
        const point = rowsOf(noisy)[0]!.map((value) => value / 20);
        const [candidate] = rowsOf(projectRowsToSimplex({ ...other, values: other.values.map((value) => value / 20) }));
        if (candidate!.length !== point.length) return;
        const distance = (to: Float32Array) => Math.hypot(...point.map((value, i) => value - to[i]!));
        expect(distance(projectToSimplex(point))).toBeLessThanOrEqual(distance(candidate!) + 1e-5);
      }),
    );
  });

  it('agrees with a projection worked out by hand', () => {
    // theta = (0.9 + 0.4 - 1) / 2 = 0.15; the last entry is below it.
    [0.75, 0.25, 0].forEach((value, i) => expect(projectToSimplex(Float32Array.of(0.9, 0.4, -0.2))[i]).toBeCloseTo(value, 6));
    expect([...projectToSimplex(Float32Array.of(0.1, 0.1))]).toEqual([0.5, 0.5]);
    expect([...projectToSimplex(Float32Array.of(-3))]).toEqual([1]);
  });
});
