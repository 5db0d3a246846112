/**
 * The concentrated accountant: rho-zCDP adds up (Bun & Steinke 2016, Lemma 2.3), also adaptively, and one number describes a
 * whole run. For Gaussians it equals the Rényi accountant with every order; an exact account is about 8 % lower.
 *
 * Pure events count as `epsilon^2 / 2`, which is loose for few releases of a large epsilon. No subsampling.
 */
import type { Delta, Epsilon } from '../../types/units.ts';
import type { AccountedRelation, DpEvent } from '../dp-event.ts';
import type { PrivacyAccountant, Unsupported } from './accountant.ts';
import { checkDelta, findUnsupported, flattenEvent, refuseUnsupported } from './accountant.ts';
import { zcdpRho } from './equivalents.ts';
import { roundUp } from './numerics.ts';

/**
 * The smallest epsilon for rho-zCDP over all orders `a > 1`: `a rho + ln((a-1)/a) - (ln delta + ln a)/(a-1)` (Canonne, Kamath &
 * Steinke 2020, Cor. 13). Every order gives a valid bound, so a search that ends early is only loose.
 */
export function zcdpToEpsilon(rho: number, delta: number): Epsilon {
  checkDelta(delta);
  if (!(rho >= 0)) throw new RangeError(`"rho" expected a number >= 0, got ${rho}`);
  // delta <= sqrt(1 - e^-KL), and the KL divergence is at most rho (as for RDP).
  if (rho === 0 || delta ** 2 + Math.expm1(-rho) > 0) return 0 as Epsilon;
  if (delta === 0 || !Number.isFinite(rho)) return Infinity as Epsilon;
  const logInverseDelta = -Math.log(delta);
  const bound = (logExcess: number) => {
    const excess = Math.exp(logExcess); // a - 1
    return (1 + excess) * rho - Math.log1p(1 / excess) + (logInverseDelta - Math.log1p(excess)) / excess;
  };
  // Without the two logarithms the minimum is at a - 1 = sqrt(ln(1/delta) / rho); with them it is near.
  const start = 0.5 * Math.log((logInverseDelta + 1) / rho);
  const best = minimize(bound, start - 8, start + 8);
  return Math.max(0, best + 2 ** -49 * (Math.abs(best) + rho + 1)) as Epsilon;
}

/** Bun & Steinke 2016, Prop. 1.3: `rho + 2 sqrt(rho ln(1/delta))`. Looser; for comparison with published figures only. */
export function zcdpToEpsilonBunSteinke(rho: number, delta: number): Epsilon {
  return roundUp(rho + 2 * Math.sqrt(-rho * Math.log(delta))) as Epsilon;
}

/** The largest rho, rounded down, whose `zcdpToEpsilon` stays within `epsilon`. */
export function largestRho(epsilon: number, delta: number): number {
  if (!(epsilon > 0) || !(delta > 0 && delta < 1)) throw new RangeError(`expected epsilon > 0 and delta in (0, 1), got ${epsilon} and ${delta}`);
  let enough = 0;
  // rho-zCDP has KL divergence rho, so more than this many nats can't be within (epsilon, delta) for any useful delta.
  let tooMuch = 1;
  while (zcdpToEpsilon(tooMuch, delta) <= epsilon) tooMuch *= 2;
  for (let step = 0; step < 200 && tooMuch - enough > tooMuch * 1e-14; step++) {
    const middle = enough + (tooMuch - enough) / 2;
    if (zcdpToEpsilon(middle, delta) <= epsilon) enough = middle;
    else tooMuch = middle;
  }
  return enough;
}

export class ZcdpAccountant implements PrivacyAccountant {
  readonly name = 'zcdp';
  readonly version = 1;
  readonly neighboringRelation: AccountedRelation;
  /** Sum of everything composed, rounded up. */
  readonly rho: number;

  constructor(neighboringRelation: AccountedRelation, rho = 0) {
    this.neighboringRelation = neighboringRelation;
    this.rho = rho;
  }

  check(event: DpEvent): Unsupported | undefined {
    return findUnsupported(event, this.name, (part) => part.kind === 'nonPrivate' || zcdpRho(part, this.neighboringRelation) !== undefined);
  }

  compose(event: DpEvent, count = 1): ZcdpAccountant {
    refuseUnsupported(this.check(event));
    let rho = this.rho;
    for (const part of flattenEvent(event, count)) rho = roundUp(rho + part.count * (zcdpRho(part.event, this.neighboringRelation) ?? Infinity));
    return new ZcdpAccountant(this.neighboringRelation, rho);
  }

  epsilon(delta: Delta): Epsilon {
    return zcdpToEpsilon(this.rho, delta);
  }
}

/** Smallest value of a function with one minimum in [low, high], by golden section. */
function minimize(value: (x: number) => number, low: number, high: number): number {
  const ratio = (Math.sqrt(5) - 1) / 2;
  let left = high - ratio * (high - low);
  let right = low + ratio * (high - low);
  let atLeft = value(left);
  let atRight = value(right);
  let best = Math.min(atLeft, atRight);
  for (let step = 0; step < 120 && high - low > 1e-10; step++) {
    if (atLeft <= atRight) {
      high = right;
      [right, atRight] = [left, atLeft];
      left = high - ratio * (high - low);
      atLeft = value(left);
    } else {
      low = left;
      [left, atLeft] = [right, atRight];
      right = low + ratio * (high - low);
      atRight = value(right);
    }
    best = Math.min(best, atLeft, atRight);
  }
  return best;
}
