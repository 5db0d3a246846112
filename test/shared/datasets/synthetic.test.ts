import { describe, expect, it } from 'vitest';
import { labelHistogram } from '../../../shared/datasets/partition.ts';
import { SYNTHETIC_STDDEV, syntheticExamples } from '../../../shared/datasets/synthetic.ts';
import { FederationError } from '../../../shared/errors.ts';

const options = { size: 600, seed: 3, centerSeed: 4, exampleShape: [4, 4, 1], numClasses: 7 };

/** Mean example of each class: [numClasses x 16]. */
function classMeans({ size, ...rest }: typeof options): number[][] {
  const { examples, labels } = syntheticExamples({ size, ...rest });
  const counts = labelHistogram(labels, rest.numClasses);
  const means = Array.from({ length: rest.numClasses }, () => Array<number>(16).fill(0));
  examples.values.forEach((value, i) => {
    const label = labels[Math.floor(i / 16)]!;
    means[label]![i % 16]! += value / counts[label]!;
  });
  return means;
}

describe('synthetic blobs', () => {
  it('repeats by seed, has the asked shape, balanced classes and values in [0, 1]', () => {
    const data = syntheticExamples(options);
    expect(syntheticExamples(options)).toEqual(data);
    expect(data.examples.count).toBe(600);
    expect(data.examples.shape).toEqual([4, 4, 1]);
    expect(data.examples.values).toHaveLength(600 * 16);
    expect(data.examples.values.every((value) => value >= 0 && value <= 1)).toBe(true);
    const counts = labelHistogram(data.labels, 7);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
  });

  it('shares classes between sources with one centerSeed, and only then', () => {
    const means = classMeans(options);
    const same = classMeans({ ...options, seed: 99 });
    const other = classMeans({ ...options, centerSeed: 5 });
    const distance = (a: number[][], b: number[][]) => Math.max(...a.flatMap((row, i) => row.map((value, j) => Math.abs(value - b[i]![j]!))));
    // Each mean of about 85 examples has standard error SYNTHETIC_STDDEV / sqrt(85).
    expect(distance(means, same)).toBeLessThan(6 * SYNTHETIC_STDDEV * Math.sqrt(2 / 85));
    expect(distance(means, other)).toBeGreaterThan(0.3);
    expect(syntheticExamples({ ...options, seed: 99 }).examples.values).not.toEqual(syntheticExamples(options).examples.values);
  });

  it('refuses sizes that no memory holds, before allocating', () => {
    for (const bad of [{ size: 2 ** 40 }, { size: 0 }, { exampleShape: [65_536, 65_536, 65_536, 65_536] }]) {
      expect(() => syntheticExamples({ ...options, ...bad })).toThrow(FederationError);
    }
  });
});
