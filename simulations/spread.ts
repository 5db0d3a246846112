/** Mean and sample standard deviation: how results over clients or seeds are reported. */

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Sample standard deviation (n - 1); 0 for fewer than two values. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const center = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - center) ** 2, 0) / (values.length - 1));
}

/** Shares in [0, 1] as `87.3 +- 0.9 %`. */
export function meanAndSpread(shares: readonly number[]): string {
  return `${(100 * mean(shares)).toFixed(1)} +- ${(100 * standardDeviation(shares)).toFixed(1)} %`;
}
