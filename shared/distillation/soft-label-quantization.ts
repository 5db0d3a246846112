/**
 * Constrained quantization of soft labels to few bits (CFD: Sattler, Marban, Rischke & Samek 2021, "CFD: Communication-Efficient Federated Distillation via Soft-Label
 * Quantization and Delta Coding"): each probability becomes a level l of 0 to 2^b - 1, which stands for l / (2^b - 1), and the levels of a row still sum to one whole. With one
 * bit that is the likeliest class, one-hot.
 */
import { FederationError } from '../errors.ts';
import type { Matrix } from '../types/matrix.ts';

/** The level that stands for 1. */
export function topLevel(bits: number): number {
  if (!Number.isInteger(bits) || bits < 1 || bits > 8) throw new RangeError(`"bits" expected an integer from 1 to 8, got ${bits}`);
  return 2 ** bits - 1;
}

/**
 * Levels, row-major, each row of which sums to `topLevel(bits)`. Of all such rows one that is nearest to the probabilities in Euclidean distance: shares are rounded down, and what is missing goes
 * to those with the largest remainders, of equal ones to the first. Rows are divided by their sum first; negative values count as 0. Quantizing what was quantized
 * changes nothing. Throws `data-invalid` for a row without any probability.
 */
export function quantizeRows({ rows, columns, values }: Matrix, bits: number): Uint8Array {
  const top = topLevel(bits);
  const levels = new Uint8Array(rows * columns);
  const remainders = new Float64Array(columns);
  for (let row = 0; row < rows; row++) {
    const start = row * columns;
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += Math.max(0, values[start + c]!);
    if (!(sum > 0 && sum < Infinity)) {
      throw new FederationError('data-invalid', 'A row without any probability cannot be quantized.', { field: `probabilities[${row}]`, expected: 'a finite sum above 0', got: String(sum) });
    }
    let missing = top;
    for (let c = 0; c < columns; c++) {
      const share = (Math.max(0, values[start + c]!) / sum) * top;
      const level = Math.min(top, Math.floor(share));
      levels[start + c] = level;
      remainders[c] = share - level;
      missing -= level;
    }
    for (; missing > 0; missing--) {
      let best = 0;
      for (let c = 1; c < columns; c++) if (remainders[c]! > remainders[best]!) best = c;
      levels[start + best]!++;
      remainders[best]!--;
    }
  }
  return levels;
}

/** What levels stand for, rounded to float32. */
export function dequantizeLevels(levels: Uint8Array, bits: number): Float32Array {
  const top = topLevel(bits);
  return Float32Array.from(levels, (level) => level / top);
}
