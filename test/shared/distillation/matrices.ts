/** Matrices for property tests. */
import fc from 'fast-check';
import { softmax } from '../../../shared/distillation/temperature.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';

/** Logits in [-50, 50] of 1 to 4 rows and 2 to 5 columns. */
export function logitMatrices(): fc.Arbitrary<Matrix> {
  return fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 2, max: 5 })).chain(([rows, columns]) => matricesOf(rows, columns));
}

/** 1 to 9 logit matrices of one shape. */
export function contributions(): fc.Arbitrary<Matrix[]> {
  return fc
    .tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 2, max: 4 }))
    .chain(([rows, columns]) => fc.array(matricesOf(rows, columns), { minLength: 1, maxLength: 9 }));
}

export function probabilitiesOf(matrices: readonly Matrix[]): Matrix[] {
  return matrices.map((matrix) => softmax(matrix, 5));
}

function matricesOf(rows: number, columns: number): fc.Arbitrary<Matrix> {
  return fc.array(fc.float({ min: -50, max: 50, noNaN: true }), { minLength: rows * columns, maxLength: rows * columns }).map((values) => ({ rows, columns, values: Float32Array.from(values) }));
}

export function rowsOf({ rows, columns, values }: Matrix): Float32Array[] {
  return Array.from({ length: rows }, (_, row) => values.subarray(row * columns, (row + 1) * columns));
}

/** Shannon entropy in nats. */
export function entropy(row: Float32Array): number {
  return row.reduce((sum, p) => sum - (p > 0 ? p * Math.log(p) : 0), 0);
}
