/**
 * What an event is, or is at most, in the terms of another: exactly Gaussian, pure, zCDP, or a three-point distribution of the
 * privacy loss. One place, so that all accountants agree on it.
 *
 * Depends on the relation where the event does not fix it: a vote that is replaced moves two counts, a vote that is withheld
 * moves one, and a randomized response always contains an answer, so it has no version in which the client is absent.
 */
import type { AccountedRelation, SingleEvent } from '../dp-event.ts';

/** `count` Gaussian releases of this noise multiplier. */
export interface GaussianPart {
  readonly noiseMultiplier: number;
  readonly count: number;
}

/** The Gaussian releases of which the event is a function, or undefined when it is none. */
export function gaussianParts(event: SingleEvent, relation: AccountedRelation): readonly GaussianPart[] | undefined {
  switch (event.kind) {
    case 'gaussian':
      return [{ noiseMultiplier: event.noiseMultiplier, count: 1 }];
    case 'gnMax':
      return [{ noiseMultiplier: event.sigma / voteSensitivity(relation), count: event.queries }];
    case 'confidentGnMax':
      // The largest count moves by at most one, whatever happens to one vote (Papernot et al. 2018, sec. 4.1).
      return [
        { noiseMultiplier: event.sigmaThreshold, count: event.queries },
        { noiseMultiplier: event.sigmaVotes / voteSensitivity(relation), count: event.answered },
      ];
    default:
      return undefined;
  }
}

/** L2 distance between the vote counts of one query: one vote is withheld (zero-out), or is another vote. */
export function voteSensitivity(relation: AccountedRelation): number {
  return relation === 'zeroOut' ? 1 : Math.SQRT2;
}

/** The epsilon of an (epsilon, 0)-DP event, or undefined when it is none. */
export function pureEpsilon(event: SingleEvent, relation: AccountedRelation): number | undefined {
  switch (event.kind) {
    case 'laplace':
    case 'continuousLaplace':
      return 1 / event.noiseMultiplier;
    case 'discreteLaplace':
      return event.l1Sensitivity === 0 ? 0 : event.l1Sensitivity / event.scale;
    default:
      return threePointLoss(event, relation)?.epsilon;
  }
}

/**
 * A mechanism whose privacy loss is `+epsilon` with probability `top`, `-epsilon` with probability `top e^-epsilon`, and 0
 * otherwise, for every pair of neighbors and in both directions.
 */
export interface ThreePointLoss {
  readonly epsilon: number;
  readonly top: number;
}

/**
 * The exact loss of the local mechanisms, between any two different values; undefined for other events, and for relations
 * other than replacement.
 */
export function threePointLoss(event: SingleEvent, relation: AccountedRelation): ThreePointLoss | undefined {
  if (relation !== 'replaceOne' && relation !== 'replaceRecord') return undefined;
  switch (event.kind) {
    case 'randomizedResponse': {
      // P[answer = x] / P[answer = x'] is e^epsilon at x, its inverse at x', 1 elsewhere.
      return { epsilon: event.epsilon, top: 1 / (1 + (event.categories - 1) * Math.exp(-event.epsilon)) };
    }
    case 'subsetSelection': {
      // Loss +epsilon: x is in the set and x' is not, which has probability p (k - w) / (k - 1).
      const { categories: k, subsetSize: w } = event;
      const inSet = w / (w + (k - w) * Math.exp(-event.epsilon));
      return { epsilon: event.epsilon, top: (inSet * (k - w)) / (k - 1) };
    }
    case 'unaryEncoding':
      // Bits of x and x': (1, 0) has probability 1/2 e^epsilon / (e^epsilon + 1) and loss epsilon; (0, 0) and (1, 1) have loss 0.
      return { epsilon: event.epsilon, top: 0.5 / (1 + Math.exp(-event.epsilon)) };
    default:
      return undefined;
  }
}

/** The rho of a rho-zCDP event, or undefined when none is known. */
export function zcdpRho(event: SingleEvent, relation: AccountedRelation): number | undefined {
  const gaussians = gaussianParts(event, relation);
  if (gaussians) return gaussians.reduce((rho, part) => rho + (part.count === 0 ? 0 : part.count / (2 * part.noiseMultiplier ** 2)), 0);
  if (event.kind === 'zcdp') return event.rho;
  // Canonne, Kamath & Steinke 2020, Thm 14 (several coordinates: Bun & Steinke 2016, Lemma 2.3).
  if (event.kind === 'discreteGaussian') return event.l2Sensitivity === 0 ? 0 : event.l2Sensitivity ** 2 / (2 * event.sigma ** 2);
  const epsilon = pureEpsilon(event, relation);
  // Bun & Steinke 2016, Prop. 1.4; no order has more than epsilon, but rho alone can't say that.
  return epsilon === undefined ? undefined : epsilon ** 2 / 2;
}
