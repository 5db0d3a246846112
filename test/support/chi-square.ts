/** Pearson's test of counts against exact cell probabilities. */

/** Normal quantile for an upper tail of 1e-6: the false-positive rate of every test that uses `chiSquareLimit`. */
const QUANTILE_1E6 = 4.753424;

/** Sum of (observed - expected)^2 / expected. */
export function chiSquare(observed: readonly number[], probabilities: readonly number[], total: number): number {
  return probabilities.reduce((sum, probability, i) => sum + (observed[i]! - total * probability) ** 2 / (total * probability), 0);
}

/** The value that a chi-square variable exceeds with probability 1e-6 (Wilson & Hilferty 1931; good to 1 % from 3 degrees on). */
export function chiSquareLimit(degreesOfFreedom: number): number {
  const h = 2 / (9 * degreesOfFreedom);
  return degreesOfFreedom * (1 - h + QUANTILE_1E6 * Math.sqrt(h)) ** 3;
}

/** Counts of the values -k..k; everything beyond goes to one last cell. */
export function countCells(samples: Int32Array, k: number): number[] {
  const counts = new Array<number>(2 * k + 2).fill(0);
  for (const sample of samples) counts[Math.abs(sample) <= k ? sample + k : 2 * k + 1]!++;
  return counts;
}

/** Probabilities of the cells of `countCells`, from a symmetric pmf at 0..k. */
export function symmetricCells(pmfFrom0: readonly number[], k: number): number[] {
  const cells = Array.from({ length: 2 * k + 1 }, (_, i) => pmfFrom0[Math.abs(i - k)]!);
  return [...cells, 1 - cells.reduce((sum, p) => sum + p, 0)];
}
