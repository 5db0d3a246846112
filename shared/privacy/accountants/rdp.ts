/**
 * The Rényi accountant: RDP curves add up order by order (Mironov 2017, Prop. 1), also when later mechanisms are chosen after
 * seeing earlier outputs, and the best order gives epsilon. Supports every event but Laplace noise on
 * sampled batches; 5 to 15 % above the exact value for Gaussians.
 *
 * A fixed list of orders: a finer one would give a slightly smaller epsilon, never a wrong one.
 */
import { FederationError } from '../../errors.ts';
import type { Delta, Epsilon } from '../../types/units.ts';
import type { AccountedRelation, DpEvent, SingleEvent } from '../dp-event.ts';
import type { PrivacyAccountant, Unsupported } from './accountant.ts';
import { checkDelta, findUnsupported, flattenEvent, refuseUnsupported } from './accountant.ts';
import { roundUp } from './numerics.ts';
import { rdpCurve } from './rdp-curves.ts';

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

/** As in dp_accounting, so that figures can be compared: 1.1, 1.2, ..., 10.9, 11, 12, ..., 63, and four large ones. */
export const DEFAULT_ORDERS: readonly number[] = [...range(1, 99).map((tenth) => 1 + tenth / 10), ...range(11, 63), 128, 256, 512, 1024];

/** `order` is the one at which the bound is smallest. */
export interface RdpEpsilon {
  readonly epsilon: Epsilon;
  readonly order: number;
}

/**
 * The smallest epsilon over all orders: `rdp + ln((a-1)/a) - (ln delta + ln a)/(a-1)` (Canonne, Kamath & Steinke 2020, Prop. 12;
 * Asoodeh et al. 2020), and 0 where already `delta^2 > 1 - e^-rdp`, because `delta <= sqrt(1 - e^-KL)` and RDP grows with the
 * order (Bretagnolle & Huber 1979). Rounded up.
 */
export function rdpToEpsilon(orders: readonly number[], rdp: readonly number[], delta: number): RdpEpsilon {
  checkDelta(delta);
  if (orders.length === 0 || orders.length !== rdp.length) throw new RangeError(`expected as many orders as rdp values, got ${orders.length} and ${rdp.length}`);
  let best: RdpEpsilon = { epsilon: Infinity as Epsilon, order: orders[0]! };
  for (const [index, order] of orders.entries()) {
    const value = rdp[index]!;
    if (!(order > 1)) throw new RangeError(`"order" expected a number > 1, got ${order}`);
    if (!(value >= 0)) throw new RangeError(`"rdp" expected a number >= 0, got ${value}`);
    if (value === 0 || delta ** 2 + Math.expm1(-value) > 0) return { epsilon: 0 as Epsilon, order };
    if (delta === 0 || value === Infinity) continue;
    const epsilon = value + Math.log1p(-1 / order) - (Math.log(delta) + Math.log(order)) / (order - 1);
    // The rounding of three terms of either sign, then never below zero.
    const upper = Math.max(0, epsilon + 2 ** -50 * (value + Math.abs(Math.log(delta)) / (order - 1) + 1));
    if (upper < best.epsilon) best = { epsilon: upper as Epsilon, order };
  }
  return best;
}

/** Mironov 2017, Prop. 3: `rdp + ln(1/delta)/(a-1)`. Valid, and 10 to 30 % looser; for comparison with published figures only. */
export function rdpToEpsilonMironov(orders: readonly number[], rdp: readonly number[], delta: number): RdpEpsilon {
  checkDelta(delta);
  let best: RdpEpsilon = { epsilon: Infinity as Epsilon, order: orders[0]! };
  for (const [index, order] of orders.entries()) {
    const epsilon = rdp[index]! - Math.log(delta) / (order - 1);
    if (epsilon < best.epsilon) best = { epsilon: epsilon as Epsilon, order };
  }
  return best;
}

export class RdpAccountant implements PrivacyAccountant {
  readonly name = 'renyi';
  readonly version = 1;
  readonly neighboringRelation: AccountedRelation;
  readonly orders: readonly number[];
  /** Sum of the curves of everything composed, one value an order, rounded up. */
  readonly rdp: readonly number[];

  constructor(neighboringRelation: AccountedRelation, orders: readonly number[] = DEFAULT_ORDERS, rdp: readonly number[] = orders.map(() => 0)) {
    if (orders.length === 0 || !orders.every((order) => order > 1 && Number.isFinite(order))) {
      throw new FederationError('config-invalid', 'the orders of the Rényi accountant are not usable', { field: 'orders', expected: 'numbers > 1', got: orders.join(', ') });
    }
    this.neighboringRelation = neighboringRelation;
    this.orders = orders;
    this.rdp = rdp;
  }

  check(event: DpEvent): Unsupported | undefined {
    return findUnsupported(event, this.name, (part) => this.#isSupported(part));
  }

  compose(event: DpEvent, count = 1): RdpAccountant {
    refuseUnsupported(this.check(event));
    let sum = this.rdp;
    // A ledger has many equal events, and some curves take milliseconds.
    const curves = new Map<string, readonly number[] | undefined>();
    for (const part of flattenEvent(event, count)) {
      const key = JSON.stringify(part.event);
      if (!curves.has(key)) curves.set(key, rdpCurve(part.event, this.neighboringRelation, this.orders));
      const curve = curves.get(key);
      sum = sum.map((value, index) => roundUp(value + part.count * (curve?.[index] ?? Infinity)));
    }
    return new RdpAccountant(this.neighboringRelation, this.orders, sum);
  }

  epsilon(delta: Delta): Epsilon {
    return this.epsilonAndOrder(delta).epsilon;
  }

  epsilonAndOrder(delta: Delta): RdpEpsilon {
    return rdpToEpsilon(this.orders, this.rdp, delta);
  }

  #isSupported(part: SingleEvent): boolean {
    // One cheap order tells whether there is a curve.
    return rdpCurve(part, this.neighboringRelation, [2]) !== undefined;
  }
}
