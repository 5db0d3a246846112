/**
 * The accountant: composes events into an (epsilon, delta) bound. Immutable: `compose` returns a new one. Every answer is
 * an upper bound, rounded up; what can't be accounted for is refused, never treated as free.
 *
 * It bounds what the *described* events reveal. That the code really released them (fresh noise, the stated sensitivity)
 * is for the mechanisms and their tests.
 */
import { FederationError, unreachable } from '../../errors.ts';
import type { Delta, Epsilon } from '../../types/units.ts';
import type { DpEvent, NeighboringRelation, ReleaseEvent } from '../dp-event.ts';

/** Why an event can't be accounted for. */
export interface Unsupported {
  readonly event: DpEvent;
  /** One sentence, e.g. `the exact Gaussian accountant has no bound for a laplace event`. */
  readonly reason: string;
}

export interface PrivacyAccountant {
  /** Printed with every epsilon, e.g. `exact-gaussian`. */
  readonly name: string;
  /** Rises when the answers of this accountant change. */
  readonly version: number;
  /** The relation for which all composed events were described. */
  readonly neighboringRelation: NeighboringRelation;
  /** Dry run: the first part of `event` that this accountant can't handle, or undefined. */
  check(event: DpEvent): Unsupported | undefined;
  /** A new accountant that has also seen `event`, `count` times (default 1). Throws `event-unsupported`. */
  compose(event: DpEvent, count?: number): PrivacyAccountant;
  /**
   * An upper bound of the smallest epsilon such that everything composed so far is (epsilon, delta)-DP. No events: 0.
   * A `nonPrivate` event: `Infinity`. `delta` in [0, 1).
   */
  epsilon(delta: Delta): Epsilon;
}

/** A release event and how often it happened. */
export interface CountedEvent {
  readonly event: ReleaseEvent;
  readonly count: number;
}

/** Takes composition apart: an event tree becomes counted release events. Composition is order-free for all accountants here. */
export function flattenEvent(event: DpEvent, count = 1): readonly CountedEvent[] {
  checkCount(count);
  switch (event.kind) {
    case 'composed':
      return event.events.flatMap((part) => flattenEvent(part, count));
    case 'selfComposed':
      checkCount(event.count);
      return flattenEvent(event.event, count * event.count);
    case 'nonPrivate':
      return count === 0 ? [] : [{ event, count }];
    case 'gaussian':
    case 'laplace':
      if (!(event.noiseMultiplier >= 0)) {
        throw new FederationError('event-unsupported', `a ${event.kind} event has no valid noise multiplier`, {
          field: 'noiseMultiplier',
          expected: 'a number >= 0',
          got: String(event.noiseMultiplier),
        });
      }
      return count === 0 ? [] : [{ event, count }];
    default:
      return unreachable(event);
  }
}

/** The first part of an event tree that `isSupported` refuses. */
export function findUnsupported(event: DpEvent, accountant: string, isSupported: (part: ReleaseEvent) => boolean): Unsupported | undefined {
  const part = flattenEvent(event).find((counted) => !isSupported(counted.event));
  return part && { event: part.event, reason: `the ${accountant} accountant has no bound for a ${part.event.kind} event` };
}

/** Throws `event-unsupported` when `unsupported` is defined. */
export function refuseUnsupported(unsupported: Unsupported | undefined): void {
  if (unsupported === undefined) return;
  throw new FederationError('event-unsupported', unsupported.reason, {
    field: 'event',
    got: unsupported.event.kind,
    next: 'Use an accountant that supports every event of the run (accountantFor picks one).',
  });
}

export function checkDelta(delta: number): void {
  if (delta >= 0 && delta < 1) return;
  throw new FederationError('config-invalid', 'delta is out of range', {
    field: 'delta',
    expected: 'a number in [0, 1)',
    got: String(delta),
    next: 'Choose a delta well below one over the number of clients, e.g. 1e-5.',
  });
}

function checkCount(count: number): void {
  if (Number.isSafeInteger(count) && count >= 0) return;
  throw new FederationError('event-unsupported', 'an event count is not usable', { field: 'count', expected: 'an integer >= 0', got: String(count) });
}
