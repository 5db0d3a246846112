/**
 * How much noise a client-level guarantee puts on the mean of all clients' soft labels, before anything is built: the arithmetic
 * behind `fedstill privacy plan`.
 *
 * Real-valued and without a grid; `release.ts` plans the release that is sent. Sensitivities: docs/privacy-model.md, section 3.
 */
import { calibrateNoiseMultiplier } from './accountants/numerics.ts';
import type { NeighboringRelation } from './dp-event.ts';

/**
 * L2 distance of two neighbors' whole matrices of probabilities. `isCentered`: `1/classes` is subtracted everywhere, which changes
 * nothing for two full matrices, and brings a matrix nearer to the all-zero one: `sqrt(1 - 1/classes)` a row.
 */
export function softLabelSensitivity(rows: number, classes: number, relation: NeighboringRelation, isCentered = false): number {
  return relation === 'replaceOne' ? Math.sqrt(2 * rows) : Math.sqrt(rows * (isCentered ? 1 - 1 / classes : 1));
}

export interface MeanNoiseRequest {
  readonly rows: number;
  readonly classes: number;
  readonly clients: number;
  readonly releases: number;
  readonly epsilon: number;
  readonly delta: number;
  readonly relation: NeighboringRelation;
  readonly isCentered?: boolean;
}

export interface MeanNoise {
  /** Of one matrix, L2. */
  readonly sensitivity: number;
  /** Noise standard deviation over sensitivity, for all releases together. */
  readonly noiseMultiplier: number;
  /** Per coordinate of the sum, when the noise is added once (by secure aggregation or a trusted party). */
  readonly sumStddev: number;
  /** The same per coordinate of the mean over clients. */
  readonly meanStddev: number;
  /** Per coordinate of the mean when every client adds all of the noise itself. */
  readonly localMeanStddev: number;
}

/** Gaussian noise, composed exactly over the releases. */
export function meanNoise(request: MeanNoiseRequest): MeanNoise {
  const sensitivity = softLabelSensitivity(request.rows, request.classes, request.relation, request.isCentered);
  const noiseMultiplier = calibrateNoiseMultiplier(request.epsilon, request.delta) * Math.sqrt(request.releases);
  const sumStddev = noiseMultiplier * sensitivity;
  return { sensitivity, noiseMultiplier, sumStddev, meanStddev: sumStddev / request.clients, localMeanStddev: sumStddev / Math.sqrt(request.clients) };
}
