/**
 * The exact Gaussian accountant. Adaptive composition of Gaussian releases with noise multipliers `z_i` is one Gaussian
 * release with `mu^2 = sum 1/z_i^2` (Dong, Roth & Su 2022, Cor. 3.3), and the privacy profile of that one is known in
 * closed form (Balle & Wang 2018, Thm 8). So the bound is tight up to rounding; RDP would be about 8 % higher.
 *
 * Gaussian events only, and what is a function of them (noisy votes): no subsampling, no Laplace, no data-dependent bounds.
 */
import type { Delta, Epsilon } from '../../types/units.ts';
import type { AccountedRelation, DpEvent } from '../dp-event.ts';
import type { PrivacyAccountant, Unsupported } from './accountant.ts';
import { checkDelta, findUnsupported, flattenEvent, refuseUnsupported } from './accountant.ts';
import { gaussianParts } from './equivalents.ts';
import { gaussianEpsilon, roundUp } from './numerics.ts';

export class GaussianAccountant implements PrivacyAccountant {
  readonly name = 'exact-gaussian';
  readonly version = 1;
  readonly neighboringRelation: AccountedRelation;
  /** Sum of `count / noiseMultiplier^2`, rounded up; `Infinity` after a nonPrivate event. */
  readonly #muSquared: number;

  constructor(neighboringRelation: AccountedRelation, muSquared = 0) {
    this.neighboringRelation = neighboringRelation;
    this.#muSquared = muSquared;
  }

  check(event: DpEvent): Unsupported | undefined {
    return findUnsupported(event, this.name, (part) => part.kind === 'nonPrivate' || gaussianParts(part, this.neighboringRelation) !== undefined);
  }

  compose(event: DpEvent, count = 1): GaussianAccountant {
    refuseUnsupported(this.check(event));
    let muSquared = this.#muSquared;
    for (const part of flattenEvent(event, count)) {
      const parts = part.event.kind === 'nonPrivate' ? [{ noiseMultiplier: 0, count: 1 }] : (gaussianParts(part.event, this.neighboringRelation) ?? []);
      for (const { noiseMultiplier, count: releases } of parts) {
        if (releases > 0) muSquared = roundUp(muSquared + part.count * releases * (1 / noiseMultiplier ** 2));
      }
    }
    return new GaussianAccountant(this.neighboringRelation, muSquared);
  }

  epsilon(delta: Delta): Epsilon {
    checkDelta(delta);
    return gaussianEpsilon(delta, roundUp(Math.sqrt(this.#muSquared)));
  }
}
