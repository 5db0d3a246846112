/**
 * Labels from votes (Papernot et al. 2018): the class with the most noised votes, or none where the noised votes of the first class stay below a threshold.
 *
 * Two ways, with different trust. `gnMaxLabels` and `labelsAbove` are functions of a histogram that is noised already (a secure sum of distributed noise): they cost nothing on top of it, and hold
 * against the coordinator. `confidentGnMax` sees the votes as they are and adds the noise itself: it protects clients from whoever gets the labels, and not from the coordinator.
 *
 * The smaller, data-dependent bound is no guarantee against anybody who sees a noised histogram, and is private itself: `pate-data-dependent.ts`.
 */
import { FederationError } from '../../errors.ts';
import type { RandomSource } from '../../ports/random-source.ts';
import type { IntegerMatrix } from '../../types/matrix.ts';
import type { ReleaseEvent } from '../dp-event.ts';
import { sampleRoundedGaussians } from '../sampling/rounded-gaussian.ts';

/** In place of a label where there is none. */
export const ABSTAINED = -1;

/** The class with the most noised votes in each row; of equal ones the first. Post-processing. */
export function gnMaxLabels(noised: IntegerMatrix): Int32Array {
  return labelsAbove(noised, -Infinity);
}

/** The same, but `ABSTAINED` where no class has `threshold` noised votes. Post-processing: one noise decides both, and is charged once (`gnMaxEvent`). */
export function labelsAbove(noised: IntegerMatrix, threshold: number): Int32Array {
  return Int32Array.from({ length: noised.rows }, (_, row) => {
    const votes = rowOf(noised, row);
    const best = firstLargest(votes);
    return votes[best]! >= threshold ? best : ABSTAINED;
  });
}

/** The event of a histogram with noise of standard deviation `sigma`, in votes, for each of its rows. */
export function gnMaxEvent(sigma: number, rows: number): ReleaseEvent {
  return { kind: 'gnMax', sigma, queries: rows };
}

export interface ConfidentGnMaxRequest {
  /** Votes that a class needs, noise included. */
  readonly threshold: number;
  /** Standard deviation of the noise on the votes of the first class, when they are compared with the threshold; an integer. */
  readonly sigmaThreshold: number;
  /** Standard deviation of the noise on the votes of each class, when the answer is chosen; an integer. */
  readonly sigmaVotes: number;
  /** Labels after which no row is looked at any more: fixed in advance, because the charge is for as many. */
  readonly maxAnswers: number;
}

export interface ConfidentLabels {
  /** [rows], `ABSTAINED` for none. */
  readonly labels: Int32Array;
  readonly answered: number;
  /** For all rows and `maxAnswers` answers, whatever came out. */
  readonly event: ReleaseEvent;
}

/**
 * Confident-GNMax (Papernot et al. 2018, Alg. 1) on votes without noise: where `max votes + noise >= threshold` the class with the most votes, with fresh noise on each. Noise is a rounded Gaussian on
 * integers, hence a function of the Gaussian that is accounted for.
 */
export function confidentGnMax(votes: IntegerMatrix, { threshold, sigmaThreshold, sigmaVotes, maxAnswers }: ConfidentGnMaxRequest, random: RandomSource): ConfidentLabels {
  if (!Number.isFinite(threshold) || !Number.isInteger(maxAnswers) || maxAnswers < 0) {
    throw new FederationError('config-invalid', 'these answers are not possible', { field: 'maxAnswers', expected: 'a finite threshold, and an integer >= 0', got: `${threshold}, ${maxAnswers}` });
  }
  const labels = new Int32Array(votes.rows).fill(ABSTAINED);
  let answered = 0;
  for (let row = 0; row < votes.rows && answered < maxAnswers; row++) {
    const own = rowOf(votes, row);
    if (own[firstLargest(own)]! + sampleRoundedGaussians(1, sigmaThreshold, random)[0]! < threshold) continue;
    const noise = sampleRoundedGaussians(own.length, sigmaVotes, random);
    labels[row] = firstLargest(own.map((count, i) => count + noise[i]!));
    answered++;
  }
  return { labels, answered, event: { kind: 'confidentGnMax', sigmaThreshold, sigmaVotes, queries: votes.rows, answered: maxAnswers } };
}

function rowOf({ columns, values }: IntegerMatrix, row: number): Int32Array {
  return values.subarray(row * columns, (row + 1) * columns);
}

function firstLargest(values: Int32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
