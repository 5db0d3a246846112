/**
 * Softmax with temperature over the rows of a matrix. Sums run in float64 after subtracting the row's largest logit,
 * so no finite logit overflows; results are rounded to float32 once.
 */
import { FederationError } from '../errors.ts';
import type { Matrix } from '../types/matrix.ts';

/** Class probabilities `exp(z_c / T) / sum_k exp(z_k / T)`: [rows x columns], rows sum to 1. Logits must be finite. */
export function softmax(logits: Matrix, temperature = 1): Matrix {
  return mapRows(logits, temperature, (shifted, logSum) => Math.exp(shifted - logSum));
}

/** Natural logarithm of `softmax(logits, temperature)`, computed without taking the logarithm of a rounded probability. */
export function logSoftmax(logits: Matrix, temperature = 1): Matrix {
  return mapRows(logits, temperature, (shifted, logSum) => shifted - logSum);
}

/** Calls `f` with `(z_c - max z) / T` and `log sum_k exp((z_k - max z) / T)` for each entry. */
function mapRows(logits: Matrix, temperature: number, f: (shifted: number, logSum: number) => number): Matrix {
  checkTemperature(temperature, 'temperature');
  const { rows, columns, values } = logits;
  const result = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const start = row * columns;
    let max = -Infinity;
    for (let c = 0; c < columns; c++) max = Math.max(max, values[start + c]!);
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += Math.exp((values[start + c]! - max) / temperature);
    const logSum = Math.log(sum);
    for (let c = 0; c < columns; c++) result[start + c] = f((values[start + c]! - max) / temperature, logSum);
  }
  return { rows, columns, values: result };
}

/** Throws `config-invalid` unless the temperature is a finite number above 0. */
export function checkTemperature(temperature: number, field: string): void {
  if (!(temperature > 0 && temperature < Infinity)) {
    throw new FederationError('config-invalid', 'A softmax temperature must be a finite number above 0.', {
      field,
      expected: 'a finite number > 0',
      got: String(temperature),
      next: `Set ${field} to a positive number.`,
    });
  }
}
