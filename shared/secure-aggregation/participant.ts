/**
 * A client's side: one pure function a stage, from the state of the stage before and the coordinator's message to the next state and the message to
 * send. Every check of docs/secure-aggregation.md is here: the coordinator is the adversary.
 *
 * The holder of a state MUST replace it by the new one before it sends the message, and keep it in memory only: whoever goes back to an earlier state can be made to
 * sign two sets of survivors, or to answer twice. States hold secrets; never log them.
 *
 * Does not hide that the client takes part, nor protect the sum: the input must already carry this client's share of the noise.
 */
import { openWithSharedPoint, sealWithSharedPoint, type CryptoProvider } from '../crypto/provider.ts';
import type { IdentityKeys } from '../crypto/signature.ts';
import { FederationError } from '../errors.ts';
import type { RandomSource } from '../ports/random-source.ts';
import { concatBytes, equalBytes, toHex } from '../types/bytes.ts';
import { pairwiseMaskKey, selfMaskKey, selfSeedCommitment, type KeyContext } from './key-derivation.ts';
import { applyMasks, pairwiseSign, type SignedMask } from './masking.ts';
import {
  decodeDelivery,
  decodeSignatures,
  decodeSurvivors,
  encodeAdvert,
  encodeConsistency,
  encodeMaskedInput,
  encodeShares,
  encodeUnmask,
  isSignedBy,
  peerConsistency,
  type PeerSignature,
  type RevealedShare,
  type SealedShare,
} from './messages.ts';
import { toRing } from './modulus.ts';
import { checkPolicy, type ParticipantPolicy, type RoundContext } from './parameters.ts';
import { indexIn, readRoster, type Roster } from './roster.ts';
import { splitSecret } from './shamir.ts';
import { readOnce } from './shared-readings.ts';
import { holdersOf, neighborsOf } from './share-graph.ts';
import { survivorsDigestOf } from './transcript.ts';

export interface ParticipantTools {
  readonly identity: IdentityKeys;
  readonly random: RandomSource;
  readonly crypto: CryptoProvider;
}

/** What a client has of one owner's secrets. */
export interface HeldShares {
  readonly owner: number;
  readonly selfSeed: Uint8Array;
  readonly maskSecret: Uint8Array;
}

export interface AdvertisedState {
  readonly phase: 'advertised';
  readonly context: RoundContext;
  readonly policy: ParticipantPolicy;
  /** The message that was sent. */
  readonly advert: Uint8Array;
  readonly channelSecret: Uint8Array;
  readonly maskSecret: Uint8Array;
  readonly selfSeed: Uint8Array;
}
export interface SharedState {
  readonly phase: 'shared';
  readonly context: RoundContext;
  readonly roster: Roster;
  readonly own: number;
  readonly maskSecret: Uint8Array;
  readonly selfSeed: Uint8Array;
  /** What the client keeps of its own secrets: in the complete graph. */
  readonly ownShares: readonly HeldShares[];
  /** Shared X25519 points of the channels, by neighbor: they seal this client's boxes and open the others'. */
  readonly channels: ReadonlyMap<number, Uint8Array>;
}
/** Own secrets are gone: only shares of others' are left. */
export interface MaskedState {
  readonly phase: 'masked';
  readonly context: RoundContext;
  readonly roster: Roster;
  readonly own: number;
  readonly sharers: readonly number[];
  readonly held: readonly HeldShares[];
}
export interface SignedState extends Omit<MaskedState, 'phase'> {
  readonly phase: 'signed';
  readonly survivors: readonly number[];
  readonly digest: Uint8Array;
}
/** The end: nothing secret is left, and nothing more is answered. */
export interface AnsweredState {
  readonly phase: 'answered';
  readonly round: number;
  /** The one set of survivors that was answered for. */
  readonly answered: Uint8Array;
}
export type ParticipantState = AdvertisedState | SharedState | MaskedState | SignedState | AnsweredState;

export interface ParticipantStep<S extends ParticipantState> {
  readonly state: S;
  /** To the coordinator, once `state` has replaced the one before. */
  readonly message: Uint8Array;
}

function expectPhase<P extends ParticipantState['phase']>(state: ParticipantState, phase: P): asserts state is Extract<ParticipantState, { phase: P }> {
  if (state.phase !== phase) {
    throw new FederationError('stage-mismatch', 'The round is in another stage: each message is answered once.', { field: 'stage', expected: phase, got: state.phase, next: 'Start a new round.' });
  }
}

function refuse(field: string, why: string): FederationError {
  return new FederationError('context-mismatch', `The coordinator's message is refused: ${why}.`, { field, next: 'Leave this round.' });
}

function tooFew(what: string, expected: number, got: number): FederationError {
  return new FederationError('quorum-missed', `Too few ${what} for a safe sum.`, { field: what, expected: `at least ${expected}`, got: String(got), next: 'Leave this round.' });
}

/** Stage 1, advertiseKeys: fresh keys. Throws `policy-refused` for a round that this client does not take part in. */
export function advertiseKeys(context: RoundContext, policy: ParticipantPolicy, { identity, random, crypto }: ParticipantTools): ParticipantStep<AdvertisedState> {
  checkPolicy(context, policy);
  const [channelSecret, maskSecret, selfSeed] = [random.bytes(32), random.bytes(32), random.bytes(32)];
  const advert = encodeAdvert(
    context,
    {
      channelKey: crypto.x25519PublicKey(channelSecret),
      maskKey: crypto.x25519PublicKey(maskSecret),
      commitment: selfSeedCommitment(selfSeed, context.manifestHash, identity.publicKey, crypto),
    },
    identity,
    crypto,
  );
  return { state: { phase: 'advertised', context, policy, advert, channelSecret, maskSecret, selfSeed }, message: advert };
}

/** Stage 2, shareKeys: the roster is checked, and the secrets are shared among the neighbors. */
export function shareKeys(state: ParticipantState, rosterMessage: Uint8Array, { identity, random, crypto }: ParticipantTools): ParticipantStep<SharedState> {
  expectPhase(state, 'advertised');
  const { context, policy, advert, channelSecret, maskSecret, selfSeed } = state;
  const roster = readRoster(rosterMessage, context, crypto);
  const { adverts } = roster;
  const own = indexIn(roster, identity.publicKey);
  if (own === undefined || !equalBytes(adverts[own]!.bytes, advert)) throw refuse('roster', 'this client\'s advert is missing or altered');
  if (policy.enrolled !== undefined) {
    const enrolled = new Set(policy.enrolled.map(toHex));
    if (!adverts.every((other) => enrolled.has(toHex(other.identity)))) throw refuse('roster', 'it names a client that is not enrolled');
  }
  for (const neighbor of neighborsOf(roster.graph, own)) {
    const { bytes, identity: signer } = adverts[neighbor]!;
    if (!isSignedBy(bytes, signer, crypto)) throw new FederationError('signature-invalid', 'A neighbor\'s advert is not signed by it.', { field: 'roster', next: 'Leave this round.' });
  }

  const holders = holdersOf(roster.graph, own);
  const secretShares = splitSecret(concatBytes(selfSeed, maskSecret), roster.graph.shape.threshold, holders.length, random);
  const ownShares: HeldShares[] = [];
  const sealed: SealedShare[] = [];
  const channels = new Map<number, Uint8Array>();
  holders.forEach((holder, i) => {
    const share = secretShares[i]!;
    if (holder === own) ownShares.push({ owner: own, selfSeed: share.slice(0, 32), maskSecret: share.slice(32) });
    else {
      const { identity: recipient, channelKey } = adverts[holder]!;
      const nonce = random.bytes(24);
      const point = agree(crypto, channelSecret, channelKey);
      channels.set(holder, point);
      sealed.push({ peer: holder, nonce, box: sealWithSharedPoint(concatBytes(boxContext(roster.keyContext, identity.publicKey, recipient), share), nonce, point) });
    }
  });
  return {
    state: { phase: 'shared', context, roster, own, maskSecret, selfSeed, ownShares, channels },
    message: encodeShares(context, roster.keyContext.rosterRoot, sealed, identity, crypto),
  };
}

/** A low-order key was refused with its roster, so this can't fail; it is checked where it would hurt. */
function agree(crypto: CryptoProvider, secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array {
  const point = crypto.x25519(secretKey, publicKey);
  if (point === undefined) throw new FederationError('value-out-of-range', 'A client advertised a key of low order.', { field: 'advert', next: 'Leave this round.' });
  return point;
}

/** What a box of shares is bound to: NaCl boxes have no associated data. */
function boxContext({ manifestHash, rosterRoot }: KeyContext, sender: Uint8Array, recipient: Uint8Array): Uint8Array {
  return concatBytes(manifestHash, rosterRoot, sender, recipient);
}

/** The shares in a box, or `undefined` when it does not open or was made for another round, roster, sender or recipient. */
function openShares(sealed: SealedShare, state: SharedState): HeldShares | undefined {
  const { adverts, keyContext } = state.roster;
  const { identity: sender } = adverts[sealed.peer]!;
  const plain = openWithSharedPoint(sealed.box, sealed.nonce, state.channels.get(sealed.peer)!);
  const expected = boxContext(keyContext, sender, adverts[state.own]!.identity);
  if (plain === undefined || !equalBytes(plain.subarray(0, expected.length), expected)) return undefined;
  return { owner: sealed.peer, selfSeed: plain.slice(expected.length, expected.length + 32), maskSecret: plain.slice(expected.length + 32) };
}

/**
 * Stage 3, maskedInput: the others' shares are opened, and the input is masked. `input`: noised integers. A share that does not open
 * is a share that this client does not have: a liar among the neighbors can't end the round.
 */
export function maskInput(state: ParticipantState, delivery: Uint8Array, input: Int32Array, { identity, crypto }: ParticipantTools): ParticipantStep<MaskedState> {
  expectPhase(state, 'shared');
  const { context, roster, own } = state;
  const { graph, adverts, keyContext } = roster;
  if (input.length !== context.parameters.dimension) throw new RangeError(`"input" expected ${context.parameters.dimension} values, got ${input.length}`);
  const { sharers, shares } = decodeDelivery(delivery, context, keyContext.rosterRoot, graph.clients);
  const isSharer = new Set(sharers);
  if (!isSharer.has(own)) throw refuse('sharers', 'this client is not among them');
  if (sharers.length < context.parameters.minSurvivors) throw tooFew('clients that shared keys', context.parameters.minSurvivors, sharers.length);
  const neighbors = neighborsOf(graph, own).filter((neighbor) => isSharer.has(neighbor));
  if (shares.length !== neighbors.length || shares.some(({ peer }, i) => peer !== neighbors[i])) throw refuse('shares', 'they are not those of this client\'s neighbors');
  const opened = shares.map((share) => openShares(share, state)).filter((share) => share !== undefined);
  const held = [...state.ownShares, ...opened];
  const { threshold } = graph.shape;
  if (held.length < threshold) throw tooFew('shares that open', threshold, held.length);

  const masks: SignedMask[] = neighbors.map((neighbor) => ({
    key: pairwiseMaskKey(agree(crypto, state.maskSecret, adverts[neighbor]!.maskKey), keyContext, identity.publicKey, adverts[neighbor]!.identity, crypto),
    sign: pairwiseSign(own, neighbor),
  }));
  masks.push({ key: selfMaskKey(state.selfSeed, keyContext, identity.publicKey, crypto), sign: 1 });
  const elements = toRing(input);
  applyMasks(elements, masks, crypto);
  return {
    state: { phase: 'masked', context, roster, own, sharers, held },
    message: encodeMaskedInput(context, keyContext.rosterRoot, elements, identity, crypto),
  };
}

/** Stage 4, consistencyCheck: signs the one set of survivors that this client will help to unmask. */
export function signSurvivors(state: ParticipantState, survivorsMessage: Uint8Array, { identity, crypto }: ParticipantTools): ParticipantStep<SignedState> {
  expectPhase(state, 'masked');
  const { context, roster, own, sharers } = state;
  const survivors = decodeSurvivors(survivorsMessage, context, roster.keyContext.rosterRoot, roster.graph.clients);
  const isSharer = new Set(sharers);
  const isSurvivor = new Set(survivors);
  if (!isSurvivor.has(own)) throw refuse('survivors', 'this client is not among them');
  if (!survivors.every((survivor) => isSharer.has(survivor))) throw refuse('survivors', 'one of them has not shared its keys');
  const { minSurvivors } = context.parameters;
  if (survivors.length < minSurvivors) throw tooFew('survivors', minSurvivors, survivors.length);
  const { threshold } = roster.graph.shape;
  const holders = holdersOf(roster.graph, own).filter((holder) => isSurvivor.has(holder)).length;
  if (holders < threshold) throw tooFew('survivors among the neighbors', threshold, holders);
  const digest = survivorsDigestOf(roster.keyContext, sharers, survivors, crypto);
  return {
    state: { ...state, phase: 'signed', survivors, digest },
    message: encodeConsistency(context, roster.keyContext.rosterRoot, digest, identity, crypto),
  };
}

/** Whether a peer has signed the survivors that this client has signed. */
function isConsistent({ signer, signature }: PeerSignature, { context, roster, digest }: Pick<SignedState, 'context' | 'roster' | 'digest'>, crypto: CryptoProvider): boolean {
  const { identity } = roster.adverts[signer]!;
  return isSignedBy(peerConsistency(context, identity, roster.keyContext.rosterRoot, digest, signature), identity, crypto);
}

function onceOnly<T>(compute: () => T): () => T {
  let result: { readonly value: T } | undefined;
  return () => (result ??= { value: compute() }).value;
}

/**
 * Stage 5, unmask: one share of each owner, of the secret that the agreed survivors call for. The new state has no secrets and answers nothing
 * more: store it before the message goes out.
 */
export function unmask(state: ParticipantState, signaturesMessage: Uint8Array, { identity, crypto }: ParticipantTools): ParticipantStep<AnsweredState> {
  expectPhase(state, 'signed');
  const { context, roster, own, survivors, digest } = state;
  const { rosterRoot } = roster.keyContext;
  const { quorum } = roster.graph;
  const isSurvivor = new Set(survivors);
  // A message is about one round, roster and set of survivors: whether its signatures fit is the same for all who have these.
  const agreed = { context, roster, digest };
  const signatures = readOnce(crypto, [rosterRoot, digest, signaturesMessage], () =>
    decodeSignatures(signaturesMessage, context, rosterRoot, digest, roster.graph.clients).map((entry) => ({ ...entry, fits: onceOnly(() => isConsistent(entry, agreed, crypto)) })),
  );
  // This client has signed. Any survivor counts, neighbor or not; that a signer's advert was not checked when it is no neighbor is made up for by its signature here.
  let agreeing = 1;
  for (const { signer, fits } of signatures) {
    if (agreeing >= quorum) break;
    if (signer === own || !isSurvivor.has(signer)) continue;
    if (fits()) agreeing++;
  }
  if (agreeing < quorum) throw tooFew('clients that signed the same survivors', quorum, agreeing);
  const revealed = state.held
    .map(({ owner, selfSeed, maskSecret }): RevealedShare => (isSurvivor.has(owner) ? { owner, kind: 'selfSeed', share: selfSeed } : { owner, kind: 'maskSecret', share: maskSecret }))
    .sort((a, b) => a.owner - b.owner);
  return {
    state: { phase: 'answered', round: context.round, answered: digest },
    message: encodeUnmask(context, rosterRoot, digest, revealed, identity, crypto),
  };
}
