import { describe, expect, it } from 'vitest';
import { accuracy, argmax, evaluate, expectedCalibrationError, negativeLogLikelihood } from '../../../shared/distillation/evaluation.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';

const matrix = (columns: number, ...values: number[]): Matrix => ({ rows: values.length / columns, columns, values: Float32Array.from(values) });

describe('evaluation', () => {
  it('gives a tie to the first class', () => {
    expect([...argmax(matrix(3, 1, 1, 1, 0, 2, 2, -1, -2, -1))]).toEqual([0, 1, 0]);
  });

  it('counts correct predictions', () => {
    expect(accuracy(matrix(2, 3, 1, 0, 1, 5, 4), Int32Array.of(0, 1, 1))).toBeCloseTo(2 / 3, 12);
  });

  it('means -ln p(label), the same from logits and from probabilities', () => {
    const expected = -(Math.log(0.7) + Math.log(0.1)) / 2;
    const labels = Int32Array.of(1, 0);
    expect(negativeLogLikelihood(matrix(2, 0.3, 0.7, 0.1, 0.9), 'probabilities', labels)).toBeCloseTo(expected, 6);
    expect(negativeLogLikelihood(matrix(2, Math.log(0.3) + 4, Math.log(0.7) + 4, Math.log(0.1), Math.log(0.9)), 'logits', labels)).toBeCloseTo(expected, 6);
    expect(negativeLogLikelihood(matrix(2, 0, 1), 'probabilities', Int32Array.of(0))).toBeCloseTo(-Math.log(1e-12), 4);
  });

  it('measures calibration as Guo et al. define it', () => {
    // Bin (14/15, 1]: confidence 0.96 twice, one right: gap 2 * 0.96 - 1 = 0.92. Bin (8/15, 9/15]: 0.58, right: 0.42.
    const probabilities = matrix(2, 0.96, 0.04, 0.04, 0.96, 0.58, 0.42);
    expect(expectedCalibrationError(probabilities, Int32Array.of(0, 0, 0))).toBeCloseTo((0.92 + 0.42) / 3, 6);
    expect(expectedCalibrationError(matrix(2, 1, 0, 0, 1), Int32Array.of(0, 1))).toBe(0);
  });

  it('gives all measures at once', () => {
    const logits = matrix(2, 2, -1, -3, 0.5);
    const report = evaluate(logits, 'logits', Int32Array.of(0, 1));
    expect(report.accuracy).toBe(1);
    expect(report.negativeLogLikelihood).toBeCloseTo((Math.log1p(Math.exp(-3)) + Math.log1p(Math.exp(-3.5))) / 2, 6);
    expect(report.calibrationError).toBeGreaterThan(0);
  });

  it('refuses labels that do not match the predictions', () => {
    const invalid = expect.objectContaining({ code: 'data-invalid' }) as Error;
    expect(() => accuracy(matrix(2, 1, 2), Int32Array.of())).toThrow(invalid);
    expect(() => accuracy(matrix(2, 1, 2), Int32Array.of(2))).toThrow(invalid);
    expect(() => accuracy({ rows: 0, columns: 2, values: new Float32Array(0) }, Int32Array.of())).toThrow(invalid);
  });
});
