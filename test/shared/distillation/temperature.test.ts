import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { logSoftmax, softmax } from '../../../shared/distillation/temperature.ts';
import { logitMatrices, rowsOf } from './matrices.ts';

const temperatures = fc.double({ min: 0.05, max: 100, noNaN: true });

describe('softmax with temperature', () => {
  it('gives rows that sum to 1 and keep the order of the logits', () => {
    fc.assert(
      fc.property(logitMatrices(), temperatures, (logits, temperature) => {
        const probabilities = rowsOf(softmax(logits, temperature));
        rowsOf(logits).forEach((row, i) => {
          expect(probabilities[i]!.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
          for (let c = 1; c < row.length; c++) if (row[c]! > row[0]!) expect(probabilities[i]![c]!).toBeGreaterThanOrEqual(probabilities[i]![0]!);
        });
      }),
    );
  });

  it('is the exponential of logSoftmax', () => {
    fc.assert(
      fc.property(logitMatrices(), temperatures, (logits, temperature) => {
        const [p, logP] = [softmax(logits, temperature).values, logSoftmax(logits, temperature).values];
        p.forEach((value, i) => expect(Math.exp(logP[i]!)).toBeCloseTo(value, 5));
      }),
    );
  });

  it('agrees with values worked out by hand at T = 2.7', () => {
    const [a, b, c] = [Math.exp(1 / 2.7), Math.exp(-2 / 2.7), Math.exp(Math.PI / 2.7)];
    const { values } = softmax({ rows: 1, columns: 3, values: Float32Array.of(1, -2, Math.PI) }, 2.7);
    [a, b, c].forEach((value, i) => expect(values[i]).toBeCloseTo(value / (a + b + c), 6));
  });

  it('does not overflow, and keeps the logarithm of what underflows', () => {
    const logits = { rows: 1, columns: 2, values: Float32Array.of(3e38, -3e38) };
    expect([...softmax(logits).values]).toEqual([1, 0]);
    expect(logSoftmax({ rows: 1, columns: 2, values: Float32Array.of(1000, 0) }).values[1]).toBe(-1000);
  });

  it('refuses a temperature that is not above 0', () => {
    for (const temperature of [0, -1, NaN, Infinity]) expect(() => softmax({ rows: 1, columns: 1, values: Float32Array.of(1) }, temperature)).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  });
});
