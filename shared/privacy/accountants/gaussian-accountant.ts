/**
 * The exact Gaussian accountant. Adaptive composition of Gaussian releases with noise multipliers `z_i` is one Gaussian
 * release with `mu^2 = sum 1/z_i^2` (Dong, Roth & Su 2022, Cor. 3.3), and the privacy profile of that one is known in
 * closed form (Balle & Wang 2018, Thm 8). So the bound is tight up to rounding; RDP would be about 8 % higher.
 *
 * Gaussian events only: no subsampling, no Laplace, no data-dependent bounds.
 */
import type { Delta, Epsilon } from '../../types/units.ts';
import type { DpEvent, NeighboringRelation } from '../dp-event.ts';
import type { PrivacyAccountant, Unsupported } from './accountant.ts';
import { checkDelta, findUnsupported, flattenEvent, refuseUnsupported } from './accountant.ts';
import { gaussianEpsilon, roundUp } from './numerics.ts';

export class GaussianAccountant implements PrivacyAccountant {
  readonly name = 'exact-gaussian';
  readonly version = 1;
  readonly neighboringRelation: NeighboringRelation;
  /** Sum of `count / noiseMultiplier^2`, rounded up; `Infinity` after a nonPrivate event. */
  readonly #muSquared: number;

  constructor(neighboringRelation: NeighboringRelation, muSquared = 0) {
    this.neighboringRelation = neighboringRelation;
    this.#muSquared = muSquared;
  }

  check(event: DpEvent): Unsupported | undefined {
    return findUnsupported(event, this.name, (part) => part.kind === 'gaussian' || part.kind === 'nonPrivate');
  }

  compose(event: DpEvent, count = 1): GaussianAccountant {
    refuseUnsupported(this.check(event));
    let muSquared = this.#muSquared;
    for (const part of flattenEvent(event, count)) {
      const perRelease = part.event.kind === 'nonPrivate' ? Infinity : 1 / part.event.noiseMultiplier ** 2;
      muSquared = roundUp(muSquared + part.count * perRelease);
    }
    return new GaussianAccountant(this.neighboringRelation, muSquared);
  }

  epsilon(delta: Delta): Epsilon {
    checkDelta(delta);
    return gaussianEpsilon(delta, roundUp(Math.sqrt(this.#muSquared)));
  }
}
