import { describe, expect, it } from 'vitest';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { largestInteger, planRelease, type ReleaseParameters } from '../../../shared/privacy/release.ts';
import { mechanismFor } from '../../../shared/privacy/mechanisms/mechanism-for.ts';
import { encodeFrame, encodeGrid, encodePredictions, type FloatEncoding } from '../../../shared/protocol/matrix-frame.ts';
import { combineContributions, contributionLengths, readContribution } from '../../../server/coordinator/contributions.ts';
import { encodePartialPredictions } from '../../../shared/protocol/partial-frame.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';

const none = (rows: number, columns: number): ReleaseParameters => ({ mechanism: 'none', outputKind: 'probabilities', rows, columns, gridStep: 1 / 4096, noise: null });

describe('honest probabilities', () => {
  it.each((['float32', 'float16', 'uint8'] as const).flatMap((encoding) => [2, 3, 10, 100, 1000].map((columns) => [encoding, columns] as const)))('pass in %s with %i classes', (encoding: FloatEncoding, columns) => {
    const generator = new SeededGenerator(columns);
    const rows = 20;
    // Certain and uncertain rows in one matrix: a byte then stands for a coarse step, and small probabilities vanish.
    const alphas = [0.01, 1, 100];
    for (let repetition = 0; repetition < 4; repetition++) {
      const values = Float32Array.from(Array.from({ length: rows }, (_, row) => [...generator.dirichlet(alphas[row % 3]!, columns)]).flat());
      const frame = encodePredictions({ rows, columns, values }, 'probabilities', encoding);
      expect(() => readContribution(frame, { release: none(rows, columns), encoding })).not.toThrow();
    }
  });
});

describe('a contribution without noise', () => {
  it('passes when a dequantised byte is a rounding error above 1', () => {
    // Of two classes, with the smallest value just above 0: offset + scale * 255 is not always 1 exactly.
    let above = 0;
    for (let i = 1; i <= 2000; i++) {
      const low = Math.fround(i * 1e-5);
      const frame = encodePredictions({ rows: 2, columns: 2, values: Float32Array.of(1, low, low, 1) }, 'probabilities', 'uint8');
      const { values } = readContribution(frame, { release: none(2, 2), encoding: 'uint8' });
      if (Math.max(...values) > 1) above++;
    }
    expect(above).toBeGreaterThan(0);
  });

  it('of the right shape in another dtype is refused', () => {
    const frame = encodeFrame({ content: 'probabilities', shape: [2, 2], values: new Float32Array(4).fill(0.5), dtype: 'float16' });
    expect(() => readContribution(frame, { release: none(2, 2), encoding: 'float32' })).toThrowError(expect.objectContaining({ code: 'shape-mismatch', field: 'dtype' }));
  });

  it('of enormous logits is refused', () => {
    const release: ReleaseParameters = { ...none(1, 2), outputKind: 'logits', rowClippingNorm: 5 };
    const frame = encodePredictions({ rows: 1, columns: 2, values: Float32Array.of(0, -10_001) }, 'logits', 'float32');
    expect(() => readContribution(frame, { release, encoding: 'float32' })).toThrowError(expect.objectContaining({ code: 'value-out-of-range' }));
  });
});

describe('a noised contribution', () => {
  it.each(['gaussian', 'laplace'] as const)('of an honest client is never refused (%s)', (mechanism) => {
    const release = planRelease({ mechanism, outputKind: 'probabilities', rows: 200, columns: 10, gridStep: 1 / 4096, epsilon: 100_000, delta: 1e-5, releases: 5 });
    const honest = mechanismFor(release);
    const noise = honest.noiseShare(release, 1, new InsecureSeededRandom(1));
    const values = noise.map((value) => value + 4096);
    expect(() => readContribution(encodeGrid({ rows: 200, columns: 10, values }), { release, encoding: 'float32' })).not.toThrow();
    // The bound is one that matters: within a hundred times what is typical.
    expect(largestInteger(release)).toBeLessThan(100 * (4096 + noise.reduce((sum, value) => sum + Math.abs(value), 0) / noise.length));
  });
});

describe('the consensus', () => {
  it('does not depend on the order of the contributions, to the last bit', () => {
    const generator = new SeededGenerator(3);
    const shape = { release: none(7, 5), encoding: 'float32' as const };
    const frames = Array.from({ length: 9 }, () => encodePredictions({ rows: 7, columns: 5, values: Float32Array.from(Array.from({ length: 7 }, () => [...generator.dirichlet(1, 5)]).flat()) }, 'probabilities', 'float32'));
    const options = { aggregator: 'meanProbabilities', eraTemperature: 0.1, eraExponent: 2, encoding: 'float32' } as const;
    const forward = combineContributions(frames, shape, options);
    expect(combineContributions([...frames].reverse(), shape, options)).toEqual(forward);
  });
});

describe('contributions of which clients left out rows', () => {
  const shape = { release: none(3, 2), encoding: 'float32', partial: true } as const;
  const options = { aggregator: 'meanProbabilities', eraTemperature: 0.1, eraExponent: 2 } as const;
  const values = Float32Array.of(0.9, 0.1, 0.5, 0.5, 0.2, 0.8);
  const partial = (shared: readonly number[], cells = values) => encodePartialPredictions({ rows: 3, columns: 2, values: cells }, Uint8Array.from(shared), 'probabilities', 'float32');

  it('count row by row, whole ones among them', () => {
    const frames = [partial([1, 0, 1]), partial([0, 0, 1], Float32Array.of(0, 0, 0, 0, 0.6, 0.4)), partial([0, 0, 0]), encodePredictions({ rows: 3, columns: 2, values: Float32Array.of(0.3, 0.7, 0, 1, 1, 0) }, 'probabilities', 'float32')];
    const { consensus, known } = combineContributions(frames, shape, options);
    [0.6, 0.4, 0, 1, 0.6, 0.4].forEach((value, i) => expect(consensus.values[i]).toBeCloseTo(value, 6));
    expect([...known ?? [0, 1, 2]]).toEqual([0, 1, 2]);
    expect([...combineContributions(frames.slice(0, 3), shape, options).known!]).toEqual([0, 2]);
    expect([...combineContributions(frames.slice(0, 3), { ...shape, minClientsPerRow: 2 }, options).known!]).toEqual([2]);
  });

  it('have lengths that are known before their first byte', () => {
    const { least, most, step } = contributionLengths(shape);
    expect([least, most, step]).toEqual([partial([0, 0, 0]).length, partial([1, 1, 1]).length, 1]);
    expect(contributionLengths({ ...shape, partial: false })).toEqual({ least: 52, most: 52, step: 1 });
  });

  it('are refused where rows have to be there, and with rows that are no probabilities', () => {
    expect(() => readContribution(partial([1, 0, 1]), { ...shape, partial: false })).toThrowError(expect.objectContaining({ code: 'frame-malformed' }));
    expect(() => readContribution(partial([1, 0, 0], Float32Array.of(0.9, 0.4, 0, 0, 0, 0)), shape)).toThrowError(expect.objectContaining({ code: 'value-out-of-range' }));
  });
});
