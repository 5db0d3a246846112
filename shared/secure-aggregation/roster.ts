/** The clients of one round, in an order and on a graph that everybody derives alike. */
import type { CryptoProvider } from '../crypto/provider.ts';
import { isLowOrderKey, keyPrefix } from '../crypto/small-order.ts';
import { FederationError } from '../errors.ts';
import { equalBytes } from '../types/bytes.ts';
import { isBefore, type KeyContext } from './key-derivation.ts';
import { decodeRoster, type Advert } from './messages.ts';
import { checkCohort, type RoundContext } from './parameters.ts';
import { shareGraph, type ShareGraph } from './share-graph.ts';
import { readOnce } from './shared-readings.ts';
import { rosterRootOf } from './transcript.ts';

/** Plain data. A client is named by its index in `adverts`. */
export interface Roster {
  readonly adverts: readonly Advert[];
  readonly keyContext: KeyContext;
  readonly graph: ShareGraph;
}

/**
 * The roster of adverts that ascend by identity. Throws unless there are enough of them, all their keys are distinct and usable, and their number allows a safe
 * graph. Does not check signatures.
 */
export function rosterOf(context: RoundContext, adverts: readonly Advert[], crypto: CryptoProvider): Roster {
  checkCohort(adverts.length, context.parameters);
  const keys = new Map<number, Uint8Array[]>();
  for (const { channelKey, maskKey } of adverts) {
    for (const key of [channelKey, maskKey]) {
      if (isLowOrderKey(key)) throw new FederationError('value-out-of-range', 'A client advertised a key of low order.', { field: 'advert' });
      const alike = keys.get(keyPrefix(key));
      if (alike === undefined) keys.set(keyPrefix(key), [key]);
      else if (alike.some((other) => equalBytes(other, key))) throw new FederationError('value-out-of-range', 'Two adverts have a key in common.', { field: 'advert', next: 'Make fresh keys for every round.' });
      else alike.push(key);
    }
  }
  const rosterRoot = rosterRootOf(context.manifestHash, adverts, crypto);
  const { minSurvivors, maxCorrupt } = context.parameters;
  const graph = shareGraph({ clients: adverts.length, minSurvivors, maxCorrupt }, context.manifestHash, rosterRoot, crypto);
  return { adverts, keyContext: { manifestHash: context.manifestHash, rosterRoot }, graph };
}

/** The roster in a coordinator's message, checked but for its signatures. */
export function readRoster(message: Uint8Array, context: RoundContext, crypto: CryptoProvider): Roster {
  // The manifest's hash covers every parameter.
  return readOnce(crypto, [context.manifestHash, message], () => rosterOf(context, decodeRoster(message, context), crypto));
}

/** Index of an identity, by bisection; throws `not-in-cohort`. */
export function indexOf(roster: Roster, identity: Uint8Array): number {
  const index = indexIn(roster, identity);
  if (index === undefined) throw new FederationError('not-in-cohort', 'The sender is not in the roster of this round.', { field: 'identity', next: 'Wait for the next round.' });
  return index;
}

/** Index of an identity, or `undefined`. */
export function indexIn({ adverts }: Roster, identity: Uint8Array): number | undefined {
  let [from, to] = [0, adverts.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (isBefore(adverts[middle]!.identity, identity)) from = middle + 1;
    else to = middle;
  }
  return from < adverts.length && equalBytes(adverts[from]!.identity, identity) ? from : undefined;
}
