/**
 * The data-dependent account of a vote (GNMax, Confident-GNMax), kept so that it can't be used as if it were a guarantee.
 *
 * - It holds only against somebody who sees nothing but the winning labels. The coordinator sees noisy counts, also under secure
 *   aggregation, so against it only the data-independent events of `dp-event.ts` count; asking for that is refused.
 * - It is computed from the true votes, so it is private itself: the object gives away no number, and writes none when it is
 *   serialized. `publish` adds noise scaled to the smooth sensitivity (Papernot et al. 2018, sec. B; GNSS, Thm 23), and charges for it.
 *
 * What is published is an estimate of the epsilon, not an upper bound of it: the noise can go either way. The noise is a float, so
 * the caveat of docs/privacy-model.md about low-order bits applies to it; round it before it leaves.
 */
import { FederationError } from '../errors.ts';
import type { Delta } from '../types/units.ts';
import * as pate from './accountants/pate.ts';

export interface VoteRun {
  /** Clients that vote, one vote a query each. */
  readonly clients: number;
  readonly classes: number;
  readonly sigmaVotes: number;
  /** Confident-GNMax: answer only where the largest count plus noise reaches the threshold. */
  readonly confidence?: { readonly threshold: number; readonly sigmaThreshold: number };
}

/** One query: the true counts, and whether it was answered. */
export interface VoteQuery {
  readonly votes: readonly number[];
  readonly isAnswered: boolean;
}

export type VoteAdversary = 'coordinator' | 'labelRecipients';

export interface PublishedVoteEpsilon {
  readonly adversary: 'labelRecipients';
  /** Noised. An estimate, not a bound. */
  readonly epsilonEstimate: number;
  readonly delta: Delta;
  readonly order: number;
  readonly queries: number;
  readonly answered: number;
  /** What publishing the estimate cost, in RDP at `order`; part of the estimate. */
  readonly publicationRdp: number;
}

export class PrivateVoteAccount {
  readonly #run: VoteRun;
  readonly #queries: readonly VoteQuery[];

  constructor(run: VoteRun, queries: readonly VoteQuery[]) {
    for (const { votes } of queries) {
      const total = votes.reduce((sum, count) => sum + count, 0);
      if (votes.length !== run.classes || total > run.clients || !votes.every((count) => Number.isSafeInteger(count) && count >= 0)) {
        throw new FederationError('data-invalid', 'the votes of a query are not usable', { field: 'votes', expected: `${run.classes} counts >= 0 that sum to at most ${run.clients}`, next: 'Give the counts as they were before noise.' });
      }
    }
    this.#run = run;
    this.#queries = queries;
  }

  /** Nothing of the account is written out by accident. */
  toJSON(): never {
    throw new FederationError('policy-refused', 'a data-dependent account is private and is never written out', { next: 'Publish it with smooth-sensitivity noise, or use the data-independent bound.' });
  }

  /**
   * The noised epsilon at this order. `standardNormal`: a fresh draw from N(0, 1). `order < 1 / (2 beta)`; `sigmaSmooth` is the noise
   * in units of the smooth sensitivity.
   */
  publish(options: {
    readonly adversary: VoteAdversary;
    readonly delta: Delta;
    readonly order: number;
    readonly beta: number;
    readonly sigmaSmooth: number;
    readonly standardNormal: number;
  }): PublishedVoteEpsilon {
    const { adversary, delta, order, beta, sigmaSmooth, standardNormal } = options;
    if (adversary !== 'labelRecipients') {
      throw new FederationError('policy-refused', 'a data-dependent epsilon does not hold against the coordinator, which sees noisy votes', {
        field: 'adversary',
        expected: 'labelRecipients',
        got: adversary,
        next: 'Use the gnMax or confidentGnMax event: its bound holds against whoever sees the noisy votes.',
      });
    }
    const { clients, classes, sigmaVotes, confidence } = this.#run;
    const conditions = pate.smoothConditionsHold(sigmaVotes, order, classes);
    if (!conditions.rises || !conditions.growthRises) {
      throw new FederationError('policy-refused', 'the smooth sensitivity is not known to be valid at this order and noise (conditions C5, C6)', {
        field: 'order',
        got: String(order),
        next: 'Choose another order, or use the data-independent bound.',
      });
    }
    const publicationRdp = pate.smoothReleaseRdp(beta, sigmaSmooth, order);
    const sensitivities = new Float64Array(clients);
    let rdp = 0;
    for (const { votes, isAnswered } of this.#queries) {
      if (confidence) {
        rdp += pate.thresholdDataDependentRdp(pate.thresholdLogAnswered(confidence.threshold, confidence.sigmaThreshold, votes), confidence.sigmaThreshold, order);
        addTo(sensitivities, pate.thresholdLocalSensitivities(votes, clients, confidence.threshold, confidence.sigmaThreshold, order));
      }
      if (!isAnswered) continue;
      rdp += pate.gnMaxDataDependentRdp(pate.gnMaxLogFailure(votes, sigmaVotes), sigmaVotes, order);
      addTo(sensitivities, pate.gnMaxLocalSensitivities(votes, clients, sigmaVotes, order));
    }
    const noised = rdp + pate.smoothSensitivity(beta, sensitivities) * sigmaSmooth * standardNormal + publicationRdp;
    // Canonne, Kamath & Steinke 2020, Prop. 12, at the one order that was noised.
    const epsilonEstimate = noised + Math.log1p(-1 / order) - (Math.log(delta) + Math.log(order)) / (order - 1);
    const answered = this.#queries.filter((query) => query.isAnswered).length;
    return { adversary, epsilonEstimate, delta, order, queries: this.#queries.length, answered, publicationRdp };
  }
}

function addTo(sum: Float64Array, values: Float64Array): void {
  for (let index = 0; index < sum.length; index++) sum[index]! += values[index]!;
}
