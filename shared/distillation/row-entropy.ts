/** How unsure the rows of a matrix of probabilities are, and which rows are sure enough to be of use. */
import type { Matrix } from '../types/matrix.ts';

/** Entropy of each row in nats: 0 for one class, log(columns) for no opinion. Values of at most 0 count for nothing; rows need not sum to 1 exactly. */
export function rowEntropies({ rows, columns, values }: Matrix): Float64Array {
  const entropies = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let entropy = 0;
    for (let c = 0; c < columns; c++) {
      const p = values[row * columns + c]!;
      if (p > 0) entropy -= p * Math.log(p);
    }
    entropies[row] = Math.max(0, entropy);
  }
  return entropies;
}

/** Which rows are worth sharing or learning. */
export interface RowSelection {
  /** Least value of the row's largest probability, in [0, 1]; 0: any. */
  readonly minConfidence: number;
  /** Largest entropy, as a share of the largest possible one, log(columns), in [0, 1]; 1: any. */
  readonly maxEntropy: number;
}

/**
 * 1 for each row that is sure enough, else 0. A threshold on the entropy is what Selective-FD (Shao et al. 2024) applies to the ensemble at the server; its clients
 * compare densities of private and public inputs instead, which this does not.
 */
export function selectSureRows(probabilities: Matrix, { minConfidence, maxEntropy }: RowSelection): Uint8Array {
  const { rows, columns, values } = probabilities;
  const limit = maxEntropy >= 1 ? Infinity : maxEntropy * Math.log(columns);
  const entropies = rowEntropies(probabilities);
  return Uint8Array.from({ length: rows }, (_, row) => {
    const confidence = values.subarray(row * columns, (row + 1) * columns).reduce((most, value) => Math.max(most, value), 0);
    return confidence >= minConfidence && entropies[row]! <= limit ? 1 : 0;
  });
}
