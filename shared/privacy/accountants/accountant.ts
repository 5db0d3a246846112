/**
 * The accountant: composes events into an (epsilon, delta) bound. Immutable: `compose` returns a new one. Every answer is
 * an upper bound, rounded up; what can't be accounted for is refused, never treated as free.
 *
 * It bounds what the *described* events reveal. That the code really released them (fresh noise, the stated sensitivity)
 * is for the mechanisms and their tests.
 */
import { FederationError, unreachable } from '../../errors.ts';
import type { Delta, Epsilon } from '../../types/units.ts';
import type { AccountedRelation, DpEvent, SingleEvent } from '../dp-event.ts';
import { ReleaseEventSchema, SampledEventSchema } from '../dp-event.ts';

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
  readonly neighboringRelation: AccountedRelation;
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
  readonly event: SingleEvent;
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
    case 'gaussian':
    case 'laplace':
    case 'continuousLaplace':
    case 'discreteLaplace':
    case 'discreteGaussian':
    case 'distributedDiscreteGaussian':
    case 'skellam':
    case 'randomizedResponse':
    case 'subsetSelection':
    case 'unaryEncoding':
    case 'gnMax':
    case 'confidentGnMax':
    case 'privateTraining':
    case 'zcdp':
    case 'poissonSampled':
    case 'sampledWithoutReplacement':
      checkSingleEvent(event);
      return count === 0 ? [] : [{ event, count }];
    default:
      return unreachable(event);
  }
}

/** Throws `event-unsupported` unless the parameters of `event` describe something that can have happened. */
function checkSingleEvent(event: SingleEvent): void {
  const schema = event.kind === 'poissonSampled' || event.kind === 'sampledWithoutReplacement' ? SampledEventSchema : ReleaseEventSchema;
  const parsed = schema.safeParse(event);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const field = issue?.path.join('.') ?? 'event';
    throw new FederationError('event-unsupported', `a ${event.kind} event has no valid ${field === 'noiseMultiplier' ? 'noise multiplier' : field}`, {
      field,
      expected: issue?.message ?? 'a valid event',
      got: String(issue?.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], event)),
      next: 'Correct the parameter; docs/privacy-accounting.md lists every event.',
    });
  }
  const problem = findInconsistency(event);
  if (problem) throw new FederationError('event-unsupported', `a ${event.kind} event contradicts itself`, { ...problem, next: 'Correct the parameter; docs/privacy-accounting.md lists every event.' });
}

function findInconsistency(event: SingleEvent): { readonly field: string; readonly expected: string; readonly got: string } | undefined {
  if (event.kind === 'subsetSelection' && event.subsetSize >= event.categories) {
    return { field: 'subsetSize', expected: `below the ${event.categories} categories`, got: String(event.subsetSize) };
  }
  if (event.kind === 'confidentGnMax' && event.answered > event.queries) {
    return { field: 'answered', expected: `at most the ${event.queries} queries`, got: String(event.answered) };
  }
  if (event.kind === 'sampledWithoutReplacement' && event.sampleSize > event.datasetSize) {
    return { field: 'sampleSize', expected: `at most the ${event.datasetSize} records`, got: String(event.sampleSize) };
  }
  return undefined;
}

/** The first part of an event tree that `isSupported` refuses. */
export function findUnsupported(event: DpEvent, accountant: string, isSupported: (part: SingleEvent) => boolean): Unsupported | undefined {
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
