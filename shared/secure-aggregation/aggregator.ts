/**
 * The coordinator's side: `accept*` checks one client's message, `close*` ends a stage. Pure: the state after a stage is a function of the messages
 * that were accepted in it, so a coordinator that stored them is where it was after a crash. It must store which messages closed `maskedInput` before it tells anyone:
 * there is one set of survivors in a round.
 *
 * Nothing here protects clients: they check for themselves (`participant.ts`).
 */
import type { CryptoProvider } from '../crypto/provider.ts';
import { isLowOrderKey } from '../crypto/small-order.ts';
import { FederationError } from '../errors.ts';
import { equalBytes, toHex } from '../types/bytes.ts';
import { isBefore, pairwiseMaskKey, selfMaskKey, selfSeedCommitment } from './key-derivation.ts';
import { applyMasks, pairwiseSign, type SignedMask } from './masking.ts';
import {
  decodeAdvert,
  decodeConsistency,
  decodeMaskedInput,
  decodeShares,
  decodeUnmask,
  encodeDelivery,
  encodeRoster,
  encodeSignatures,
  encodeSurvivors,
  isSignedBy,
  type Advert,
  type RevealedShare,
  type SealedShare,
} from './messages.ts';
import { addInPlace, toSigned } from './modulus.ts';
import type { RoundContext } from './parameters.ts';
import { recoverSecret, type PositionedShare } from './recovery.ts';
import { indexOf, rosterOf, type Roster } from './roster.ts';
import { areNeighbors, holdersOf, neighborsOf } from './share-graph.ts';
import { survivorsDigestOf } from './transcript.ts';

/** After `advertiseKeys`. */
export interface RosterState {
  readonly context: RoundContext;
  readonly roster: Roster;
}
/** After `shareKeys`. */
export interface SharersState extends RosterState {
  /** U2, ascending. */
  readonly sharers: readonly number[];
}
/** After `maskedInput`: the survivors are fixed. */
export interface SurvivorsState extends SharersState {
  /** U3, ascending. */
  readonly survivors: readonly number[];
  readonly digest: Uint8Array;
  /** Sum of the masked inputs. */
  readonly maskedSum: Uint32Array;
}

/** A checked message of the client with this index. */
interface Accepted {
  readonly sender: number;
}
export interface AcceptedShares extends Accepted {
  readonly shares: readonly SealedShare[];
}
export interface AcceptedInput extends Accepted {
  readonly elements: Uint32Array;
}
export interface AcceptedConsistency extends Accepted {
  readonly signature: Uint8Array;
}
export interface AcceptedUnmask extends Accepted {
  readonly shares: readonly RevealedShare[];
}

export interface SecureSum {
  /** Sum of the survivors' inputs. */
  readonly sum: Int32Array;
  readonly survivors: readonly number[];
  /** What the survivors signed. */
  readonly digest: Uint8Array;
  /** Clients with a share that did not fit its polynomial: they lied, or the share's owner did. */
  readonly suspects: readonly number[];
}

function checkSignature(message: Uint8Array, identity: Uint8Array, crypto: CryptoProvider): void {
  if (!isSignedBy(message, identity, crypto)) throw new FederationError('signature-invalid', 'The message is not signed by its sender.', { field: 'signature' });
}

function senderOf(state: RosterState, identity: Uint8Array, message: Uint8Array, crypto: CryptoProvider): number {
  const sender = indexOf(state.roster, identity);
  checkSignature(message, identity, crypto);
  return sender;
}

function refuse(field: string, expected: string): FederationError {
  return new FederationError('context-mismatch', 'The message does not fit the round.', { field, expected, next: 'Send what docs/secure-aggregation.md asks for in this stage.' });
}

function quorumMissed(what: string, expected: number, got: number): FederationError {
  return new FederationError('quorum-missed', `Too few ${what}: nothing is unmasked.`, { field: what, expected: `at least ${expected}`, got: String(got), next: 'Start a new round.' });
}

/** Senders ascending; throws when somebody is counted twice. */
function bySender<T extends Accepted>(messages: Iterable<T>): Map<number, T> {
  const sorted = [...messages].sort((a, b) => a.sender - b.sender);
  const map = new Map(sorted.map((message) => [message.sender, message]));
  if (map.size !== sorted.length) throw new FederationError('contribution-conflict', 'A client is counted twice.', { field: 'sender' });
  return map;
}

// --- stage 1: advertiseKeys ---

/** The identity in the result must be the one that sent the message. */
export function acceptAdvert(context: RoundContext, message: Uint8Array, crypto: CryptoProvider): Advert {
  const advert = decodeAdvert(message, context);
  checkSignature(message, advert.identity, crypto);
  // Clients refuse a roster with such keys: one bad advert must not end the round of all.
  if (isLowOrderKey(advert.channelKey) || isLowOrderKey(advert.maskKey) || equalBytes(advert.channelKey, advert.maskKey)) {
    throw new FederationError('value-out-of-range', 'The advert has a key of low order, or one key twice.', { field: 'advert', next: 'Make fresh keys for every round.' });
  }
  return advert;
}

export function closeAdvertiseKeys(context: RoundContext, adverts: readonly Advert[], crypto: CryptoProvider): { readonly state: RosterState; readonly message: Uint8Array } {
  const sorted = [...adverts].sort((a, b) => (isBefore(a.identity, b.identity) ? -1 : 1));
  if (new Set(sorted.map(({ identity }) => toHex(identity))).size !== sorted.length) throw new FederationError('contribution-conflict', 'A client is counted twice.', { field: 'sender' });
  return { state: { context, roster: rosterOf(context, sorted, crypto) }, message: encodeRoster(context, sorted) };
}

// --- stage 2: shareKeys ---

export function acceptShares(state: RosterState, message: Uint8Array, crypto: CryptoProvider): AcceptedShares {
  const { context, roster } = state;
  const { identity, shares } = decodeShares(message, context, roster.keyContext.rosterRoot, roster.graph.clients);
  const sender = senderOf(state, identity, message, crypto);
  const neighbors = neighborsOf(roster.graph, sender);
  if (shares.length !== neighbors.length || shares.some(({ peer }, i) => peer !== neighbors[i])) throw refuse('shares', 'one for each neighbor, ascending');
  return { sender, shares };
}

/** `deliveries`: the message to each client of U2, by its index. */
export function closeShareKeys(state: RosterState, accepted: Iterable<AcceptedShares>): { readonly state: SharersState; readonly deliveries: ReadonlyMap<number, Uint8Array> } {
  const { context, roster } = state;
  const messages = bySender(accepted);
  const sharers = [...messages.keys()];
  const { minSurvivors } = context.parameters;
  if (sharers.length < minSurvivors) throw quorumMissed('clients that shared keys', minSurvivors, sharers.length);
  const inbox = new Map(sharers.map((sharer): [number, SealedShare[]] => [sharer, []]));
  // Senders ascend, so every inbox does.
  for (const { sender, shares } of messages.values()) for (const share of shares) inbox.get(share.peer)?.push({ ...share, peer: sender });
  const deliveries = new Map([...inbox].map(([recipient, shares]) => [recipient, encodeDelivery(context, roster.keyContext.rosterRoot, sharers, shares)]));
  return { state: { context, roster, sharers }, deliveries };
}

// --- stage 3: maskedInput ---

export function acceptMaskedInput(state: SharersState, message: Uint8Array, crypto: CryptoProvider): AcceptedInput {
  const { identity, elements } = decodeMaskedInput(message, state.context, state.roster.keyContext.rosterRoot);
  const sender = senderOf(state, identity, message, crypto);
  if (!state.sharers.includes(sender)) throw refuse('sender', 'a client that shared its keys');
  return { sender, elements };
}

/** Takes inputs one at a time, so that they need not all be in memory. Throws `quorum-missed` when the survivors could not, or would not, unmask the sum. */
export function closeMaskedInput(state: SharersState, accepted: Iterable<AcceptedInput>, crypto: CryptoProvider): { readonly state: SurvivorsState; readonly message: Uint8Array } {
  const { context, roster, sharers } = state;
  const maskedSum = new Uint32Array(context.parameters.dimension);
  const counted = new Set<number>();
  for (const { sender, elements } of accepted) {
    if (counted.has(sender)) throw new FederationError('contribution-conflict', 'A client is counted twice.', { field: 'sender' });
    counted.add(sender);
    addInPlace(maskedSum, elements);
  }
  const survivors = [...counted].sort((a, b) => a - b);
  const { minSurvivors } = context.parameters;
  if (survivors.length < minSurvivors) throw quorumMissed('survivors', minSurvivors, survivors.length);
  const { threshold } = roster.graph.shape;
  for (const owner of sharers) {
    const helpers = holdersOf(roster.graph, owner).filter((holder) => counted.has(holder)).length;
    if (helpers < threshold && (counted.has(owner) || helpers > 0)) throw quorumMissed('survivors around a client', threshold, helpers);
  }
  const digest = survivorsDigestOf(roster.keyContext, sharers, survivors, crypto);
  return { state: { ...state, survivors, digest, maskedSum }, message: encodeSurvivors(context, roster.keyContext.rosterRoot, survivors) };
}

// --- stage 4: consistencyCheck ---

export function acceptConsistency(state: SurvivorsState, message: Uint8Array, crypto: CryptoProvider): AcceptedConsistency {
  const { identity, signature } = decodeConsistency(message, state.context, state.roster.keyContext.rosterRoot, state.digest);
  const sender = senderOf(state, identity, message, crypto);
  if (!state.survivors.includes(sender)) throw refuse('sender', 'a survivor');
  return { sender, signature };
}

/** `messages`: to each survivor the same, as many signatures as make a quorum. */
export function closeConsistency(state: SurvivorsState, accepted: Iterable<AcceptedConsistency>): { readonly messages: ReadonlyMap<number, Uint8Array> } {
  const { context, roster, survivors, digest } = state;
  const signed = bySender(accepted);
  const { quorum } = roster.graph;
  if (signed.size < quorum) throw quorumMissed('signatures', quorum, signed.size);
  const signatures = [...signed.values()].slice(0, quorum).map(({ sender, signature }) => ({ signer: sender, signature }));
  const message = encodeSignatures(context, roster.keyContext.rosterRoot, digest, signatures);
  return { messages: new Map(survivors.map((survivor) => [survivor, message])) };
}

// --- stage 5: unmask ---

export function acceptUnmask(state: SurvivorsState, message: Uint8Array, crypto: CryptoProvider): AcceptedUnmask {
  const { context, roster, sharers, survivors, digest } = state;
  const { identity, shares } = decodeUnmask(message, context, roster.keyContext.rosterRoot, digest, roster.graph.clients);
  const sender = senderOf(state, identity, message, crypto);
  const isSharer = new Set(sharers);
  const isSurvivor = new Set(survivors);
  if (!isSurvivor.has(sender)) throw refuse('sender', 'a survivor');
  for (const { owner, kind } of shares) {
    const isHolder = areNeighbors(roster.graph, sender, owner) || (owner === sender && roster.graph.shape.kind === 'complete');
    if (!isHolder || !isSharer.has(owner) || kind !== (isSurvivor.has(owner) ? 'selfSeed' : 'maskSecret')) throw refuse('shares', 'one share of each owner, of the secret that the survivors call for');
  }
  return { sender, shares };
}

/** The sum. Throws `quorum-missed` when a secret can't be put together: the round then ends without one. */
export function closeUnmask(state: SurvivorsState, accepted: Iterable<AcceptedUnmask>, crypto: CryptoProvider): SecureSum {
  const { roster, sharers, survivors, digest } = state;
  const { adverts, graph, keyContext } = roster;
  const revealed = new Map<number, Map<number, Uint8Array>>(sharers.map((sharer) => [sharer, new Map<number, Uint8Array>()]));
  for (const { sender, shares } of bySender(accepted).values()) for (const { owner, share } of shares) revealed.get(owner)!.set(sender, share);
  const suspects = new Set<number>();
  const weights = new Map<string, readonly number[]>();
  const recover = (owner: number, isRight: (secret: Uint8Array) => boolean): Uint8Array => {
    const shares = holdersOf(graph, owner).flatMap((holder, i): PositionedShare[] => {
      const share = revealed.get(owner)!.get(holder);
      return share === undefined ? [] : [{ holder, position: i + 1, share }];
    });
    const { threshold } = graph.shape;
    if (shares.length < threshold) throw quorumMissed('shares of a secret', threshold, shares.length);
    const recovered = recoverSecret(shares, threshold, isRight, suspects, weights);
    if (recovered === undefined) throw new FederationError('quorum-missed', 'The shares of a secret do not fit together: nothing is unmasked.', { field: 'shares', got: `those of client ${owner}, or too many wrong ones`, next: 'Start a new round.' });
    return recovered;
  };

  const isSurvivor = new Set(survivors);
  const sum = Uint32Array.from(state.maskedSum);
  const remove = ({ key, sign }: SignedMask) => applyMasks(sum, [{ key, sign: sign === 1 ? -1 : 1 }], crypto);
  for (const owner of sharers) {
    const { identity, commitment, maskKey } = adverts[owner]!;
    if (isSurvivor.has(owner)) {
      const seed = recover(owner, (candidate) => equalBytes(selfSeedCommitment(candidate, keyContext.manifestHash, identity, crypto), commitment));
      remove({ key: selfMaskKey(seed, keyContext, identity, crypto), sign: 1 });
      continue;
    }
    // A dropout: the masks that its surviving neighbors share with it do not cancel.
    const neighbors = neighborsOf(graph, owner).filter((neighbor) => isSurvivor.has(neighbor));
    if (neighbors.length === 0) continue;
    const secret = recover(owner, (candidate) => equalBytes(crypto.x25519PublicKey(candidate), maskKey));
    for (const neighbor of neighbors) {
      const point = crypto.x25519(secret, adverts[neighbor]!.maskKey);
      if (point === undefined) throw new FederationError('internal', 'A key of low order got into the roster.');
      remove({ key: pairwiseMaskKey(point, keyContext, identity, adverts[neighbor]!.identity, crypto), sign: pairwiseSign(neighbor, owner) });
    }
  }
  return { sum: toSigned(sum), survivors, digest, suspects: [...suspects].sort((a, b) => a - b) };
}
