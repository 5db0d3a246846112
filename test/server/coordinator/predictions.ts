/** Made-up predictions, and the consensus that follows from them, computed by hand: nothing of `shared/distillation`. */
import type { TaskConfig } from '../../../shared/config/task-config.ts';
import { deriveSeed, SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { encodeGrid, encodePredictions } from '../../../shared/protocol/matrix-frame.ts';
import type { RoundDocument } from '../../../shared/protocol/messages.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';

/** What client number `client` predicts in a round: different for every client and round. */
export function predictionsOf(client: number, { round, release }: Pick<RoundDocument, 'round' | 'release'>): Matrix {
  const { rows, columns, outputKind } = release;
  const generator = new SeededGenerator(deriveSeed(client, 'predictions', round));
  const values = Float32Array.from({ length: rows * columns }, () => (outputKind === 'logits' ? 8 * generator.uniform() - 4 : 0.05 + generator.uniform()));
  if (outputKind === 'probabilities') {
    for (let row = 0; row < rows; row++) {
      const cells = values.subarray(row * columns, (row + 1) * columns);
      const sum = cells.reduce((a, b) => a + b, 0);
      cells.forEach((value, column) => (cells[column] = value / sum));
    }
  }
  return { rows, columns, values };
}

/** The same on the release's grid, with noise between -3 and 3 steps. */
export function gridOf(client: number, document: Pick<RoundDocument, 'round' | 'release'>): Int32Array {
  const generator = new SeededGenerator(deriveSeed(client, 'noise', document.round));
  return Int32Array.from(predictionsOf(client, document).values, (value) => Math.trunc(value / document.release.gridStep) + generator.integer(7) - 3);
}

/** The frame that client number `client` seals. */
export function frameOf(client: number, document: Pick<RoundDocument, 'round' | 'release' | 'encoding'>): Uint8Array {
  const { release, encoding } = document;
  if (release.mechanism === 'none') return encodePredictions(predictionsOf(client, document), release.outputKind, encoding);
  return encodeGrid({ rows: release.rows, columns: release.columns, values: gridOf(client, document) });
}

/** The consensus of these clients in a round, row-major. */
export function expectedConsensus(clients: readonly number[], document: Pick<RoundDocument, 'round' | 'release'>, { aggregator, eraTemperature, eraExponent }: Pick<TaskConfig['aggregation'], 'aggregator' | 'eraTemperature' | 'eraExponent'>): number[] {
  const { rows, columns, gridStep, mechanism } = document.release;
  const noised = mechanism !== 'none';
  const matrices = clients.map((client) => (noised ? Array.from(gridOf(client, document), (integer) => integer * gridStep) : [...predictionsOf(client, document).values]));
  const mean = Array.from({ length: rows * columns }, (_, i) => matrices.reduce((sum, matrix) => sum + matrix[i]!, 0) / clients.length);
  if (aggregator === 'meanLogits') return mean;
  return Array.from({ length: rows }, (_, row) => mean.slice(row * columns, (row + 1) * columns)).flatMap((cells) => {
    const probabilities = noised ? nearestProbabilities(cells) : cells;
    if (aggregator === 'meanProbabilities') return probabilities;
    const powers = probabilities.map((value) => (aggregator === 'enhancedEra' ? value ** eraExponent : Math.exp(value / eraTemperature)));
    return powers.map((power) => power / powers.reduce((a, b) => a + b, 0));
  });
}

/** max(x - theta, 0) with the theta, found by bisection, for which the sum is 1. */
function nearestProbabilities(cells: readonly number[]): number[] {
  let low = Math.min(...cells) - 1;
  let high = Math.max(...cells);
  for (let i = 0; i < 100; i++) {
    const theta = (low + high) / 2;
    if (cells.reduce((sum, value) => sum + Math.max(value - theta, 0), 0) > 1) low = theta;
    else high = theta;
  }
  return cells.map((value) => Math.max(value - low, 0));
}

export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  return Array.from(a).reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i]!)), 0);
}
