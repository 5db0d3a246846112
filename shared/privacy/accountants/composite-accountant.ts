/**
 * For runs that mix mechanisms: the Gaussian releases go to the exact Gaussian accountant, the Laplace ones to the pure
 * one, and the two epsilons are added. Valid by basic composition of an (e1, delta)-DP and an (e2, 0)-DP mechanism
 * (Dwork & Roth 2014, Thm 3.16); releases may be interleaved and may depend on earlier outputs, because composition of
 * trade-off functions is commutative and associative (Dong, Roth & Su 2022, Thm 3.2).
 *
 * Conservative: all of delta goes to the Gaussian part, and no joint bound is attempted.
 */
import type { Delta, Epsilon } from '../../types/units.ts';
import type { AccountedRelation, DpEvent } from '../dp-event.ts';
import type { PrivacyAccountant, Unsupported } from './accountant.ts';
import { flattenEvent } from './accountant.ts';
import { GaussianAccountant } from './gaussian-accountant.ts';
import { roundUp } from './numerics.ts';
import { PureAccountant } from './pure-accountant.ts';
import { RdpAccountant } from './rdp.ts';

export class CompositeAccountant implements PrivacyAccountant {
  readonly name = 'exact-gaussian+pure-composition';
  readonly version = 1;
  readonly neighboringRelation: AccountedRelation;
  readonly #gaussian: GaussianAccountant;
  readonly #pure: PureAccountant;

  constructor(neighboringRelation: AccountedRelation, gaussian = new GaussianAccountant(neighboringRelation), pure = new PureAccountant(neighboringRelation)) {
    this.neighboringRelation = neighboringRelation;
    this.#gaussian = gaussian;
    this.#pure = pure;
  }

  check(event: DpEvent): Unsupported | undefined {
    const parts = flattenEvent(event).map((part) => this.#gaussian.check(part.event) && this.#pure.check(part.event));
    return parts.find((unsupported) => unsupported !== undefined);
  }

  compose(event: DpEvent, count = 1): CompositeAccountant {
    let gaussian = this.#gaussian;
    let pure = this.#pure;
    for (const part of flattenEvent(event, count)) {
      // Throws in the pure accountant what neither supports.
      if (gaussian.check(part.event) === undefined) gaussian = gaussian.compose(part.event, part.count);
      else pure = pure.compose(part.event, part.count);
    }
    return new CompositeAccountant(this.neighboringRelation, gaussian, pure);
  }

  epsilon(delta: Delta): Epsilon {
    return roundUp(this.#gaussian.epsilon(delta) + this.#pure.epsilon(delta)) as Epsilon;
  }
}

/**
 * The accountant that a ledger and a statement use for `events`, with all of them composed: exact for Gaussians, pure for pure
 * releases, both added for a mixture of the two, and Rényi for everything else.
 */
export function accountantFor(events: readonly DpEvent[], neighboringRelation: AccountedRelation): PrivacyAccountant {
  const all: DpEvent = { kind: 'composed', events };
  const candidates = [new GaussianAccountant(neighboringRelation), new PureAccountant(neighboringRelation), new CompositeAccountant(neighboringRelation), new RdpAccountant(neighboringRelation)];
  const chosen = candidates.find((accountant) => accountant.check(all) === undefined) ?? new RdpAccountant(neighboringRelation);
  return chosen.compose(all);
}
