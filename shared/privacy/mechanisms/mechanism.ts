/**
 * A privacy mechanism, split by what it does to a client's predictions: bound them, then noise. All of it runs at the
 * client, on integers; the coordinator is not trusted with any part.
 *
 * The caller charges the ledger before the sum of both leaves the machine, and draws new noise for every release.
 */
import { FederationError } from '../../errors.ts';
import type { RandomSource } from '../../ports/random-source.ts';
import type { IntegerMatrix, Matrix } from '../../types/matrix.ts';
import type { ConstrainedPredictions } from '../clipping.ts';
import type { ReleaseEvents, ReleaseParameters } from '../release.ts';

export interface Shape {
  readonly rows: number;
  readonly columns: number;
}

export interface PrivacyMechanism {
  readonly parameters: ReleaseParameters;
  /** What sending one noised matrix is accounted as. */
  readonly events: ReleaseEvents;
  /** Bounds the whole matrix and puts it on the grid. With `shards`: as many matrices, each bounded by itself, then summed. */
  constrainSensitivity(...predictions: readonly Matrix[]): ConstrainedPredictions;
  /**
   * Fresh noise, in grid steps, one value a coordinate. `minSurvivors` is how many such shares of honest clients are in any sum that is
   * ever opened: the distributed mechanism refuses fewer than its release counts; the local ones ignore it, because each share alone carries the full noise.
   */
  noiseShare(shape: Shape, minSurvivors: number, random: RandomSource): Int32Array;
}

/**
 * What is sent: `grid + noise`, modulo 2^32 (centered). Wrapping, not clamping: it is a function of the true sum, so it
 * costs no privacy, and `release.ts` makes it improbable (below 2^-100 a coordinate).
 */
export function addNoise(grid: IntegerMatrix, noise: Int32Array): IntegerMatrix {
  if (noise.length !== grid.values.length) {
    throw new FederationError('internal', 'noise and predictions differ in size; nothing was released', {
      field: 'noise',
      expected: `${grid.values.length} values`,
      got: `${noise.length} values`,
    });
  }
  const values = new Int32Array(noise.length);
  for (let i = 0; i < values.length; i++) values[i] = (grid.values[i]! + noise[i]!) | 0;
  return { rows: grid.rows, columns: grid.columns, values };
}

/** Throws unless at least this client's own share is in the sum. */
export function checkMinSurvivors(minSurvivors: number): void {
  if (Number.isSafeInteger(minSurvivors) && minSurvivors >= 1) return;
  throw new FederationError('config-invalid', 'the number of survivors is not usable', { field: 'minSurvivors', expected: 'an integer >= 1', got: String(minSurvivors) });
}
