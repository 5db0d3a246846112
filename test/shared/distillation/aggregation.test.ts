import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import {
  aggregate,
  consensusFromSum,
  contributionKind,
  enhancedEra,
  entropyReduction,
  entropyWeightedMean,
  learnable,
  majorityVote,
  meanLogits,
  meanProbabilities,
  projectRowsToSimplex,
  projectToSimplex,
  sumContributions,
  type Aggregator,
  type SharedPredictions,
} from '../../../shared/distillation/aggregation.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';
import { contributions, entropy, logitMatrices, probabilitiesOf, rowsOf } from './matrices.ts';

/** Those that need no more than the sum of what they get. */
const sumAggregators: readonly Aggregator[] = ['meanLogits', 'meanProbabilities', 'entropyReduction', 'enhancedEra'];
const aggregators: readonly Aggregator[] = [...sumAggregators, 'majorityVote', 'entropyWeighted'];
const row = (...values: number[]): Matrix => ({ rows: 1, columns: values.length, values: Float32Array.from(values) });

describe('aggregation', () => {
  it('gives the mean of each entry', () => {
    expect([...meanLogits([row(1, -7.5), row(2, 0.5), row(6, 1)]).consensus.values]).toEqual([3, -2]);
    expect(meanLogits([row(1)]).kind).toBe('logits');
    expect(meanProbabilities([row(0.25, 0.75)])).toEqual({ consensus: row(0.25, 0.75), kind: 'probabilities' });
    expect(aggregators.map(contributionKind)).toEqual(['logits', ...Array.from({ length: 5 }, () => 'probabilities')]);
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
      fc.property(contributions(), fc.constantFrom(...sumAggregators), fc.boolean(), (matrices, aggregator, noised) => {
        const options = { aggregator, eraTemperature: 0.2, eraExponent: 1.7, noised };
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

describe('Enhanced ERA', () => {
  it('takes powers of the mean (SCARLET)', () => {
    const { consensus, kind } = enhancedEra([row(0.5, 0.3, 0.2), row(0.7, 0.1, 0.2)], 1.7);
    const powers = [0.6, 0.2, 0.2].map((p) => p ** 1.7);
    const sum = powers.reduce((a, b) => a + b);
    powers.forEach((power, i) => expect(consensus.values[i]).toBeCloseTo(power / sum, 6));
    expect(kind).toBe('probabilities');
  });

  it('is the mean for exponent 1, and leaves one-hot and uniform rows as they are, which ERA does not', () => {
    fc.assert(
      fc.property(contributions(), (matrices) => {
        const probabilities = probabilitiesOf(matrices);
        const mean = meanProbabilities(probabilities).consensus.values;
        enhancedEra(probabilities, 1).consensus.values.forEach((value, i) => expect(value).toBeCloseTo(mean[i]!, 5));
      }),
    );
    for (const exponent of [0.3, 2, 40]) {
      expect([...enhancedEra([row(0, 1, 0)], exponent).consensus.values]).toEqual([0, 1, 0]);
      expect([...enhancedEra([row(0.25, 0.25, 0.25, 0.25)], exponent).consensus.values]).toEqual([0.25, 0.25, 0.25, 0.25]);
    }
    expect(entropyReduction([row(0, 1, 0)], 0.3).consensus.values[1]).toBeLessThan(0.95);
  });

  it('sharpens with exponents above 1 and flattens with others', () => {
    fc.assert(
      fc.property(contributions(), fc.double({ min: 1, max: 5, noNaN: true }), (matrices, exponent) => {
        const probabilities = probabilitiesOf(matrices);
        const mean = rowsOf(meanProbabilities(probabilities).consensus).map(entropy);
        rowsOf(enhancedEra(probabilities, exponent).consensus).forEach((values, i) => expect(entropy(values)).toBeLessThanOrEqual(mean[i]! + 1e-5));
        rowsOf(enhancedEra(probabilities, 1 / exponent).consensus).forEach((values, i) => expect(entropy(values)).toBeGreaterThanOrEqual(mean[i]! - 1e-5));
      }),
    );
  });

  it('does not lose tiny probabilities to underflow', () => {
    expect([...enhancedEra([row(1e-30, 1e-30)], 50).consensus.values]).toEqual([0.5, 0.5]);
    expect(() => enhancedEra([row(1)], 0)).toThrow(expect.objectContaining({ code: 'config-invalid' }) as Error);
  });
});

describe('majority vote', () => {
  it('counts heads, not probabilities', () => {
    // The mean has class 0 first: one client is very sure of it.
    const clients = [row(0.98, 0.01, 0.01), row(0.4, 0.6, 0), row(0.45, 0.55, 0)];
    expect([...majorityVote(clients).consensus.values]).toEqual([0, 1, 0]);
    expect(plainLargest(meanProbabilities(clients).consensus.values)).toBe(0);
  });

  it('takes the first of equally many, and of a client its first largest', () => {
    expect([...majorityVote([row(0.1, 0.9, 0), row(0, 0.2, 0.8)]).consensus.values]).toEqual([0, 1, 0]);
    expect([...majorityVote([row(0.3, 0.35, 0.35)]).consensus.values]).toEqual([0, 1, 0]);
  });

  it('of noised votes is the class with the largest sum', () => {
    const noised = [row(2.5, 0.1, -1), row(-1, 0.9, 0.2), row(-0.5, 0.8, 0.3)];
    expect([...aggregate(noised, { aggregator: 'majorityVote', eraTemperature: 1, noised: true }).consensus.values]).toEqual([0, 1, 0]);
    const sum = { rows: 1, columns: 3, sum: Float64Array.of(1, 1.8, -0.5) };
    expect([...consensusFromSum(sum, 3, { aggregator: 'majorityVote', eraTemperature: 1, noised: true }).consensus.values]).toEqual([0, 1, 0]);
  });
});

describe('the mean weighted by entropy', () => {
  it('has weights exp(-H)', () => {
    const clients = [row(0.9, 0.1), row(0.4, 0.6)];
    const weights = [[0.9, 0.1], [0.4, 0.6]].map(([p, q]) => Math.exp(p! * Math.log(p!) + q! * Math.log(q!)));
    const expected = (weights[0]! * 0.9 + weights[1]! * 0.4) / (weights[0]! + weights[1]!);
    expect(entropyWeightedMean(clients).consensus.values[0]).toBeCloseTo(expected, 6);
  });

  it('counts a sure client as much as `classes` clients without an opinion', () => {
    const { values } = entropyWeightedMean([row(1, 0, 0, 0), ...Array.from({ length: 4 }, () => row(0.25, 0.25, 0.25, 0.25))]).consensus;
    expect(values[0]).toBeCloseTo(0.5 + 0.5 * 0.25, 6);
  });

  it('cannot come from a sum', () => {
    expect(() => consensusFromSum({ rows: 1, columns: 2, sum: new Float64Array(2) }, 1, { aggregator: 'entropyWeighted', eraTemperature: 1, noised: false })).toThrow(expect.objectContaining({ code: 'config-invalid' }) as Error);
  });
});

describe('rows that clients left out', () => {
  const partial = (shared: readonly number[], ...rows: number[][]): SharedPredictions => ({ rows: rows.length, columns: 2, values: Float32Array.from(rows.flatMap((values, i) => (shared[i] === 1 ? values : [0, 0]))), shared: Uint8Array.from(shared) });

  it('count for nobody', () => {
    const clients = [partial([1, 0, 0], [0.8, 0.2], [0.1, 0.9], [0.5, 0.5]), partial([1, 1, 0], [0.6, 0.4], [0.3, 0.7], [0.5, 0.5])];
    const { consensus, known } = meanProbabilities(clients);
    expect([...known!]).toEqual([0, 1]);
    [0.7, 0.3, 0.3, 0.7].forEach((value, i) => expect(consensus.values[i]).toBeCloseTo(value, 6));
  });

  it.each(aggregators)('give the consensus of those who shared the row (%s)', (aggregator) => {
    const options = { aggregator, eraTemperature: 0.1, noised: false };
    const [a, b, c] = [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]];
    const { consensus } = aggregate([partial([1], a), partial([1], b), partial([0], c)], options);
    const expected = aggregate([row(...a), row(...b)], options).consensus.values;
    consensus.values.forEach((value, i) => expect(value).toBeCloseTo(expected[i]!, 6));
  });

  it('need as many clients as one asks for', () => {
    const clients = [partial([1, 1], [0.8, 0.2], [0.1, 0.9]), partial([1, 0], [0.6, 0.4], [0, 0])];
    expect([...aggregate(clients, { aggregator: 'meanProbabilities', eraTemperature: 1, noised: false, minClientsPerRow: 2 }).known!]).toEqual([0]);
    expect([...aggregate(clients, { aggregator: 'entropyWeighted', eraTemperature: 1, noised: false, minClientsPerRow: 2 }).known!]).toEqual([0]);
    expect(aggregate(clients, { aggregator: 'majorityVote', eraTemperature: 1, noised: false, minClientsPerRow: 3 }).known).toHaveLength(0);
  });

  it('are not learned, nor are rows of high entropy', () => {
    const consensus = { consensus: { rows: 3, columns: 2, values: Float32Array.of(0.99, 0.01, 0.5, 0.5, 0, 0) }, kind: 'probabilities' as const, known: Uint32Array.of(0, 1) };
    const indices = Uint32Array.of(7, 11, 13);
    expect([...learnable(indices, consensus, 1).indices]).toEqual([7, 11]);
    const sure = learnable(indices, consensus, 0.5);
    expect([...sure.indices]).toEqual([7]);
    expect(sure.consensus.consensus.rows).toBe(1);
    // Logits are turned into probabilities first.
    const logits = { consensus: { rows: 2, columns: 2, values: Float32Array.of(0.1, 0, 9, 0) }, kind: 'logits' as const };
    expect([...learnable(Uint32Array.of(1, 2), logits, 0.5).indices]).toEqual([2]);
    expect(learnable(indices, { consensus: consensus.consensus, kind: 'probabilities' }, 1).indices).toBe(indices);
  });
});

function plainLargest(values: Float32Array): number {
  return values.indexOf(Math.max(...values));
}

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
