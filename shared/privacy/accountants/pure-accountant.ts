/**
 * The pure accountant: epsilons of (epsilon, 0)-DP releases add up (Dwork & Roth 2014, Thm 3.16). A Laplace release with
 * noise multiplier `b / Delta_1` costs exactly its inverse, for continuous noise and for discrete noise on integers.
 *
 * Randomized response, subset selection and unary encoding cost their local epsilon.
 *
 * Loose for many releases: an RDP or PLD bound would be smaller (100 releases at b/Delta_1 = 20: 5.0 here, 1.95 by PLD).
 */
import type { Delta, Epsilon } from '../../types/units.ts';
import type { AccountedRelation, DpEvent } from '../dp-event.ts';
import type { PrivacyAccountant, Unsupported } from './accountant.ts';
import { checkDelta, findUnsupported, flattenEvent, refuseUnsupported } from './accountant.ts';
import { pureEpsilon } from './equivalents.ts';
import { roundUp } from './numerics.ts';

export class PureAccountant implements PrivacyAccountant {
  readonly name = 'pure-composition';
  readonly version = 1;
  readonly neighboringRelation: AccountedRelation;
  readonly #epsilon: number;

  constructor(neighboringRelation: AccountedRelation, epsilon = 0) {
    this.neighboringRelation = neighboringRelation;
    this.#epsilon = epsilon;
  }

  check(event: DpEvent): Unsupported | undefined {
    return findUnsupported(event, this.name, (part) => part.kind === 'nonPrivate' || pureEpsilon(part, this.neighboringRelation) !== undefined);
  }

  compose(event: DpEvent, count = 1): PureAccountant {
    refuseUnsupported(this.check(event));
    let epsilon = this.#epsilon;
    for (const part of flattenEvent(event, count)) {
      const perRelease = part.event.kind === 'nonPrivate' ? Infinity : (pureEpsilon(part.event, this.neighboringRelation) ?? Infinity);
      epsilon = roundUp(epsilon + part.count * perRelease);
    }
    return new PureAccountant(this.neighboringRelation, epsilon);
  }

  epsilon(delta: Delta): Epsilon {
    checkDelta(delta);
    return this.#epsilon as Epsilon;
  }
}
