import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { expectedCalibrationError } from '../../../shared/distillation/evaluation.ts';
import { brierScore, calibrationError, calibrationErrorOfCalibrated, confidences, equalMassBins, equalWidthBins, maximumCalibrationError, uncertainty, wilsonInterval } from '../../../shared/evaluation/calibration.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';

function matrix(rows: readonly (readonly number[])[]): Matrix {
  return { rows: rows.length, columns: rows[0]!.length, values: Float32Array.from(rows.flat()) };
}

/** Five predictions, exact in binary: confidences 0.75, 0.75, 0.625, 1, 0.5; the first, third and fourth are right. */
const five = matrix([
  [0.75, 0.25, 0],
  [0.125, 0.75, 0.125],
  [0.25, 0.125, 0.625],
  [1, 0, 0],
  [0.5, 0.25, 0.25],
]);
const labels = Int32Array.from([0, 2, 2, 0, 1]);
const known = confidences(five, labels);

describe('calibration, computed by hand', () => {
  it('takes the largest probability and whether it was right', () => {
    expect([...known.values]).toEqual([0.75, 0.75, 0.625, 1, 0.5]);
    expect([...known.correct]).toEqual([1, 0, 1, 1, 0]);
  });

  it('ECE and MCE with four bins of equal width', () => {
    // (0.25, 0.5]: {0.5 wrong}; (0.5, 0.75]: {0.75 right, 0.75 wrong, 0.625 right}; (0.75, 1]: {1 right}.
    const bins = equalWidthBins(known, 4);
    expect(bins.map(({ count }) => count)).toEqual([0, 1, 3, 1]);
    expect(bins[2]!.accuracy).toBeCloseTo(2 / 3, 12);
    expect(bins[2]!.meanConfidence).toBeCloseTo(2.125 / 3, 12);
    // |0 - 0.5| + |2 - 2.125| + |1 - 1|, over 5.
    expect(calibrationError(bins)).toBeCloseTo(0.625 / 5, 12);
    expect(maximumCalibrationError(bins)).toBe(0.5);
    expect(bins[0]).toMatchObject({ meanConfidence: null, accuracy: null, interval: null });
  });

  it('adaptive ECE: bins of equal mass, equal confidences together', () => {
    // Sorted: 0.5w 0.625r | 0.75r 0.75w | 1r
    const bins = equalMassBins(known, 3);
    expect(bins.map(({ count }) => count)).toEqual([2, 2, 1]);
    // |1 - 1.125| + |1 - 1.5| + |1 - 1|, over 5.
    expect(calibrationError(bins)).toBeCloseTo(0.625 / 5, 12);
    // Two bins would part the 0.75s after the third: they stay together.
    expect(equalMassBins(known, 2).map(({ count }) => count)).toEqual([4, 1]);
  });

  it('Brier score, over all classes and not halved', () => {
    // 0.0625+0.0625 | 0.015625+0.5625+0.765625 | 0.0625+0.015625+0.140625 | 0 | 0.25+0.5625+0.0625
    expect(brierScore(five, labels)).toBeCloseTo((0.125 + 1.34375 + 0.21875 + 0 + 0.875) / 5, 12);
    expect(brierScore(matrix([[0, 1]]), Int32Array.of(0))).toBe(2);
  });

  it('entropy in nats, for right and wrong predictions apart', () => {
    const { meanConfidence, meanEntropy, entropyWhenRight, entropyWhenWrong, auroc } = uncertainty(five, known);
    const entropy = (...p: number[]) => -p.reduce((sum, q) => sum + (q === 0 ? 0 : q * Math.log(q)), 0);
    const each = [entropy(0.75, 0.25), entropy(0.75, 0.125, 0.125), entropy(0.625, 0.25, 0.125), 0, entropy(0.5, 0.25, 0.25)];
    expect(meanConfidence).toBeCloseTo(3.625 / 5, 12);
    expect(meanEntropy).toBeCloseTo(each.reduce((a, b) => a + b) / 5, 12);
    expect(entropyWhenRight).toBeCloseTo((each[0]! + each[2]! + each[3]!) / 3, 12);
    expect(entropyWhenWrong).toBeCloseTo((each[1]! + each[4]!) / 2, 12);
    // Pairs right x wrong: 0.75 against {0.75: half, 0.5: 1}, 0.625 against {0.75: 0, 0.5: 1}, 1 against both: 4.5 of 6.
    expect(auroc).toBeCloseTo(4.5 / 6, 12);
  });

  it("Wilson's interval: 0 of 10, 10 of 10 and 7 of 10 (0.3968, 0.8922)", () => {
    expect(wilsonInterval(0, 10)[0]).toBe(0);
    expect(wilsonInterval(0, 10)[1]).toBeCloseTo(0.27753, 4);
    expect(wilsonInterval(10, 10)[1]).toBe(1);
    const [low, high] = wilsonInterval(7, 10);
    expect(low).toBeCloseTo(0.39678, 4);
    expect(high).toBeCloseTo(0.89221, 4);
  });

  it('has no area under a curve where every prediction is right', () => {
    const one = matrix([[0.9, 0.1]]);
    expect(uncertainty(one, confidences(one, Int32Array.of(0)))).toMatchObject({ auroc: null, entropyWhenWrong: null });
  });

  it('refuses labels that are no classes, and no examples at all', () => {
    expect(() => confidences(five, Int32Array.of(0, 0, 0, 0, 3))).toThrow(expect.objectContaining({ code: 'data-invalid', field: 'labels[4]' }));
    expect(() => brierScore({ rows: 0, columns: 2, values: new Float32Array() }, new Int32Array())).toThrow(expect.objectContaining({ code: 'data-invalid' }));
  });
});

describe('what calibration alone leaves', () => {
  it('is about the expected size: one bin of n coins has a mean gap of sqrt(2 p (1 - p) / (pi n))', () => {
    const values = new Float64Array(400).fill(0.8);
    const { mean, percentile95 } = calibrationErrorOfCalibrated({ values }, new SeededGenerator(5), { draws: 2000 });
    expect(mean).toBeCloseTo(Math.sqrt((2 * 0.8 * 0.2) / (Math.PI * 400)), 2.5);
    expect(percentile95).toBeCloseTo(1.96 * Math.sqrt((0.8 * 0.2) / 400), 2);
  });

  it('is 0 for a classifier that is always sure', () => {
    expect(calibrationErrorOfCalibrated({ values: Float64Array.of(1, 1, 1) }, new SeededGenerator(1))).toEqual({ mean: 0, percentile95: 0 });
  });
});

describe('for any predictions', () => {
  const predictions = fc
    .tuple(fc.integer({ min: 2, max: 5 }), fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 20 }))
    .chain(([classes, rows, bins]) =>
      fc.record({
        bins: fc.constant(bins),
        rows: fc.array(fc.tuple(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: classes, maxLength: classes }), fc.integer({ min: 0, max: classes - 1 })), { minLength: rows, maxLength: rows }),
      }),
    );
  const build = (rows: readonly (readonly [number[], number])[]) => ({
    probabilities: matrix(rows.map(([weights]) => weights.map((weight) => weight / weights.reduce((a, b) => a + b)))),
    labels: Int32Array.from(rows, ([, label]) => label),
  });

  it('bins hold every example once, errors lie in [0, 1], and agree with the ECE of evaluation.ts', () => {
    fc.assert(
      fc.property(predictions, ({ bins, rows }) => {
        const { probabilities, labels: all } = build(rows);
        const found = confidences(probabilities, all);
        const width = equalWidthBins(found, bins);
        const mass = equalMassBins(found, bins);
        expect(width).toHaveLength(bins);
        expect(mass.length).toBeLessThanOrEqual(bins);
        for (const some of [width, mass]) {
          expect(some.reduce((sum, { count }) => sum + count, 0)).toBe(rows.length);
          expect(maximumCalibrationError(some)).toBeGreaterThanOrEqual(calibrationError(some) - 1e-12);
          expect(maximumCalibrationError(some)).toBeLessThanOrEqual(1);
          for (const { accuracy, interval } of some) if (accuracy !== null) expect(interval![0] <= accuracy && accuracy <= interval![1]).toBe(true);
        }
        expect(calibrationError(width)).toBeCloseTo(expectedCalibrationError(probabilities, all, bins), 10);
        expect(brierScore(probabilities, all)).toBeLessThanOrEqual(2);
      }),
    );
  });

  it('the order of the examples does not matter', () => {
    fc.assert(
      fc.property(predictions, fc.infiniteStream(fc.nat()), ({ bins, rows }, keys) => {
        const shuffled = rows.map((row) => [keys.next().value as number, row] as const).sort(([a], [b]) => a - b).map(([, row]) => row);
        const measure = (some: typeof rows) => {
          const { probabilities, labels: all } = build(some);
          const found = confidences(probabilities, all);
          return [calibrationError(equalWidthBins(found, bins)), calibrationError(equalMassBins(found, bins)), brierScore(probabilities, all), uncertainty(probabilities, found).auroc ?? -1];
        };
        measure(rows).forEach((value, i) => expect(measure(shuffled)[i]).toBeCloseTo(value, 10));
      }),
    );
  });
});
