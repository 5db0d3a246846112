/**
 * The bytes of every message (docs/secure-aggregation.md). One value has one encoding: a decoder checks the exact length before it
 * allocates anything, and refuses lists that do not strictly ascend. Ring elements are never JSON numbers.
 */
import { bytesOf, wordsOf, type CryptoProvider } from '../crypto/provider.ts';
import type { IdentityKeys } from '../crypto/signature.ts';
import { FederationError } from '../errors.ts';
import { concatBytes, equalBytes, uint32Bytes, utf8 } from '../types/bytes.ts';
import { isBefore } from './key-derivation.ts';
import type { RoundContext } from './parameters.ts';
import { MAX_COHORT } from './share-graph.ts';

const magic = utf8('FDPS');
const VERSION = 1;
const HEADER_BYTES = 44;
const SIGNATURE_BYTES = 64;
const NONCE_BYTES = 24;
/** Length of one sealed pair of shares. */
export const SHARE_BOX_BYTES = 208;

/** The kinds of messages, with the codes that they have on the wire. */
export const messageKinds = { advert: 1, roster: 2, shares: 3, delivery: 4, maskedInput: 5, survivors: 6, consistency: 7, signatures: 8, unmask: 9 } as const;
export type MessageKind = keyof typeof messageKinds;

export interface Advert {
  /** Ed25519 identity key, 32 bytes. */
  readonly identity: Uint8Array;
  /** X25519, fresh. */
  readonly channelKey: Uint8Array;
  /** X25519, fresh. */
  readonly maskKey: Uint8Array;
  /** To the self seed. */
  readonly commitment: Uint8Array;
  /** The whole message, 236 bytes. */
  readonly bytes: Uint8Array;
}

export interface SealedShare {
  /** Index of the recipient (from a client) or of the sender (from the coordinator). */
  readonly peer: number;
  readonly nonce: Uint8Array;
  readonly box: Uint8Array;
}

export interface PeerSignature {
  readonly signer: number;
  readonly signature: Uint8Array;
}

export type ShareKind = 'selfSeed' | 'maskSecret';

export interface RevealedShare {
  readonly owner: number;
  readonly kind: ShareKind;
  readonly share: Uint8Array;
}

export const ADVERT_BYTES = HEADER_BYTES + 4 * 32 + SIGNATURE_BYTES;
const SEALED_SHARE_BYTES = 4 + NONCE_BYTES + SHARE_BOX_BYTES;
const REVEALED_SHARE_BYTES = 8 + 32;

/** Lengths that an upload has to have: what a receiver allows before the first byte came. */
export const clientMessageBytes = {
  advert: ADVERT_BYTES,
  shares: (count: number) => HEADER_BYTES + 64 + 4 + SEALED_SHARE_BYTES * count + SIGNATURE_BYTES,
  maskedInput: (dimension: number) => HEADER_BYTES + 64 + 4 + 4 * dimension + SIGNATURE_BYTES,
  consistency: HEADER_BYTES + 64 + 32 + SIGNATURE_BYTES,
  unmask: (count: number) => HEADER_BYTES + 64 + 32 + 4 + REVEALED_SHARE_BYTES * count + SIGNATURE_BYTES,
} as const;

function malformed(kind: MessageKind, expected: string, got: string): FederationError {
  return new FederationError('message-malformed', `The ${kind} message has not the form of docs/secure-aggregation.md.`, { field: kind, expected, got, next: 'Send the message as it is described there.' });
}

function header(kind: MessageKind, context: RoundContext): Uint8Array {
  return concatBytes(magic, Uint8Array.of(VERSION, messageKinds[kind], 0, 0), uint32Bytes(context.round), context.manifestHash);
}

function signedBytes(unsigned: Uint8Array, crypto: CryptoProvider): Uint8Array {
  return concatBytes(utf8('fdp/1 secagg message\n'), crypto.sha256(unsigned));
}

function withSignature(unsigned: Uint8Array, identity: IdentityKeys, crypto: CryptoProvider): Uint8Array {
  return concatBytes(unsigned, crypto.sign(signedBytes(unsigned, crypto), identity));
}

/** Whether a client's message is signed by `identity`. */
export function isSignedBy(message: Uint8Array, identity: Uint8Array, crypto: CryptoProvider): boolean {
  const end = message.length - SIGNATURE_BYTES;
  return end > 0 && crypto.verify(signedBytes(message.subarray(0, end), crypto), message.subarray(end), identity);
}

/** Reads a message from front to back. Fixed-size parts are copied, so that nothing keeps a large message alive. */
class Reader {
  readonly #kind: MessageKind;
  readonly #bytes: Uint8Array;
  #offset: number;

  /** Checks the header against the round. `trailer`: bytes at the end that are not part of the body. */
  constructor(kind: MessageKind, bytes: Uint8Array, context: RoundContext, minLength: number) {
    this.#kind = kind;
    this.#bytes = bytes;
    this.#offset = HEADER_BYTES;
    if (bytes.length < minLength) throw malformed(kind, `at least ${minLength} bytes`, `${bytes.length}`);
    const expected = header(kind, context);
    if (!equalBytes(bytes.subarray(0, 8), expected.subarray(0, 8))) throw malformed(kind, 'its magic, version and kind', 'others');
    if (!equalBytes(bytes.subarray(8, HEADER_BYTES), expected.subarray(8))) {
      throw new FederationError('context-mismatch', `The ${kind} message belongs to another round or manifest.`, { field: kind, next: 'Send a message of the round that was announced.' });
    }
  }

  take(length: number): Uint8Array {
    const part = this.#bytes.slice(this.#offset, this.#offset + length);
    this.#offset += length;
    if (part.length !== length) throw malformed(this.#kind, 'more bytes', `${this.#bytes.length}`);
    return part;
  }

  uint32(): number {
    const [a = 0, b = 0, c = 0, d = 0] = this.take(4);
    return (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
  }

  /** Throws unless exactly this many bytes follow, signature included. */
  expectLeft(length: number): void {
    const left = this.#bytes.length - this.#offset;
    if (left !== length) throw malformed(this.#kind, `${this.#offset + length} bytes`, `${this.#bytes.length}`);
  }

  /** A count of clients, within what a roster can have. */
  count(limit: number): number {
    const count = this.uint32();
    if (count > limit) throw malformed(this.#kind, `a count of at most ${limit}`, `${count}`);
    return count;
  }

  /** An index of a roster above `previous`. */
  index(previous: number, clients: number): number {
    const index = this.uint32();
    if (index <= previous || index >= clients) throw malformed(this.#kind, `indices that strictly ascend, below ${clients}`, `${index} after ${previous}`);
    return index;
  }

  expectEqual(expected: Uint8Array, what: string): void {
    if (!equalBytes(this.take(expected.length), expected)) throw new FederationError('context-mismatch', `The ${this.#kind} message names another ${what}.`, { field: what, next: 'Send a message of this round and roster.' });
  }
}

/** Repeats `read` once for each of `count`, with strictly ascending indices. */
function readAscending<T>(count: number, read: (previous: number) => { readonly index: number; readonly value: T }): T[] {
  const values: T[] = [];
  let previous = -1;
  for (let i = 0; i < count; i++) {
    const { index, value } = read(previous);
    previous = index;
    values.push(value);
  }
  return values;
}

export function encodeIndices(indices: readonly number[]): Uint8Array {
  return concatBytes(uint32Bytes(indices.length), bytesOf(Uint32Array.from(indices)));
}

// --- stage 1: advertiseKeys ---

export function encodeAdvert(context: RoundContext, keys: Omit<Advert, 'identity' | 'bytes'>, identity: IdentityKeys, crypto: CryptoProvider): Uint8Array {
  return withSignature(concatBytes(header('advert', context), identity.publicKey, keys.channelKey, keys.maskKey, keys.commitment), identity, crypto);
}

/** Does not check the signature: `isSignedBy`. */
export function decodeAdvert(bytes: Uint8Array, context: RoundContext): Advert {
  const reader = new Reader('advert', bytes, context, ADVERT_BYTES);
  const advert = { identity: reader.take(32), channelKey: reader.take(32), maskKey: reader.take(32), commitment: reader.take(32) };
  reader.expectLeft(SIGNATURE_BYTES);
  return { ...advert, bytes: bytes.slice() };
}

export function encodeRoster(context: RoundContext, adverts: readonly Advert[]): Uint8Array {
  return concatBytes(header('roster', context), uint32Bytes(adverts.length), ...adverts.map(({ bytes }) => bytes));
}

/** Adverts in strictly ascending order of their identities. Does not check signatures. */
export function decodeRoster(bytes: Uint8Array, context: RoundContext): Advert[] {
  const reader = new Reader('roster', bytes, context, HEADER_BYTES + 4);
  const count = reader.count(MAX_COHORT);
  reader.expectLeft(count * ADVERT_BYTES);
  // One copy for all, and views of it: a roster has thousands of adverts.
  const all = reader.take(count * ADVERT_BYTES);
  const expected = header('advert', context);
  const adverts = Array.from({ length: count }, (_, i): Advert => {
    const advert = all.subarray(i * ADVERT_BYTES, (i + 1) * ADVERT_BYTES);
    const part = (index: number) => advert.subarray(HEADER_BYTES + 32 * index, HEADER_BYTES + 32 * (index + 1));
    // The slow way says what is wrong.
    if (!equalBytes(advert.subarray(0, HEADER_BYTES), expected)) return decodeAdvert(advert, context);
    return { identity: part(0), channelKey: part(1), maskKey: part(2), commitment: part(3), bytes: advert };
  });
  adverts.forEach((advert, i) => {
    if (i > 0 && !isBefore(adverts[i - 1]!.identity, advert.identity)) throw malformed('roster', 'adverts with distinct identities, ascending', `a wrong order at advert ${i}`);
  });
  return adverts;
}

// --- stage 2: shareKeys ---

function encodeSealedShares(shares: readonly SealedShare[]): Uint8Array {
  return concatBytes(uint32Bytes(shares.length), ...shares.flatMap(({ peer, nonce, box }) => [uint32Bytes(peer), nonce, box]));
}

function readSealedShares(reader: Reader, count: number, clients: number): SealedShare[] {
  return readAscending(count, (previous) => {
    const peer = reader.index(previous, clients);
    return { index: peer, value: { peer, nonce: reader.take(NONCE_BYTES), box: reader.take(SHARE_BOX_BYTES) } };
  });
}

export function encodeShares(context: RoundContext, rosterRoot: Uint8Array, shares: readonly SealedShare[], identity: IdentityKeys, crypto: CryptoProvider): Uint8Array {
  return withSignature(concatBytes(header('shares', context), identity.publicKey, rosterRoot, encodeSealedShares(shares)), identity, crypto);
}

export function decodeShares(bytes: Uint8Array, context: RoundContext, rosterRoot: Uint8Array, clients: number): { readonly identity: Uint8Array; readonly shares: SealedShare[] } {
  const reader = new Reader('shares', bytes, context, clientMessageBytes.shares(0));
  const identity = reader.take(32);
  reader.expectEqual(rosterRoot, 'roster');
  const count = reader.count(clients);
  reader.expectLeft(count * SEALED_SHARE_BYTES + SIGNATURE_BYTES);
  return { identity, shares: readSealedShares(reader, count, clients) };
}

export function encodeDelivery(context: RoundContext, rosterRoot: Uint8Array, sharers: readonly number[], shares: readonly SealedShare[]): Uint8Array {
  return concatBytes(header('delivery', context), rosterRoot, encodeIndices(sharers), encodeSealedShares(shares));
}

export function decodeDelivery(bytes: Uint8Array, context: RoundContext, rosterRoot: Uint8Array, clients: number): { readonly sharers: number[]; readonly shares: SealedShare[] } {
  const reader = new Reader('delivery', bytes, context, HEADER_BYTES + 32 + 8);
  reader.expectEqual(rosterRoot, 'roster');
  const sharers = readIndices(reader, clients);
  const count = reader.count(clients);
  reader.expectLeft(count * SEALED_SHARE_BYTES);
  return { sharers, shares: readSealedShares(reader, count, clients) };
}

function readIndices(reader: Reader, clients: number): number[] {
  return readAscending(reader.count(clients), (previous) => {
    const index = reader.index(previous, clients);
    return { index, value: index };
  });
}

// --- stage 3: maskedInput ---

export function encodeMaskedInput(context: RoundContext, rosterRoot: Uint8Array, elements: Uint32Array, identity: IdentityKeys, crypto: CryptoProvider): Uint8Array {
  return withSignature(concatBytes(header('maskedInput', context), identity.publicKey, rosterRoot, uint32Bytes(elements.length), bytesOf(elements)), identity, crypto);
}

export function decodeMaskedInput(bytes: Uint8Array, context: RoundContext, rosterRoot: Uint8Array): { readonly identity: Uint8Array; readonly elements: Uint32Array } {
  const { dimension } = context.parameters;
  const reader = new Reader('maskedInput', bytes, context, clientMessageBytes.maskedInput(0));
  const identity = reader.take(32);
  reader.expectEqual(rosterRoot, 'roster');
  if (reader.uint32() !== dimension) throw malformed('maskedInput', `${dimension} elements`, 'another number');
  reader.expectLeft(4 * dimension + SIGNATURE_BYTES);
  return { identity, elements: wordsOf(reader.take(4 * dimension)) };
}

export function encodeSurvivors(context: RoundContext, rosterRoot: Uint8Array, survivors: readonly number[]): Uint8Array {
  return concatBytes(header('survivors', context), rosterRoot, encodeIndices(survivors));
}

export function decodeSurvivors(bytes: Uint8Array, context: RoundContext, rosterRoot: Uint8Array, clients: number): number[] {
  const reader = new Reader('survivors', bytes, context, HEADER_BYTES + 32 + 4);
  reader.expectEqual(rosterRoot, 'roster');
  const survivors = readIndices(reader, clients);
  reader.expectLeft(0);
  return survivors;
}

// --- stage 4: consistencyCheck ---

function unsignedConsistency(context: RoundContext, identity: Uint8Array, rosterRoot: Uint8Array, digest: Uint8Array): Uint8Array {
  return concatBytes(header('consistency', context), identity, rosterRoot, digest);
}

export function encodeConsistency(context: RoundContext, rosterRoot: Uint8Array, digest: Uint8Array, identity: IdentityKeys, crypto: CryptoProvider): Uint8Array {
  return withSignature(unsignedConsistency(context, identity.publicKey, rosterRoot, digest), identity, crypto);
}

/** The message that a peer must have sent, with this signature: only the signature travels on. */
export function peerConsistency(context: RoundContext, identity: Uint8Array, rosterRoot: Uint8Array, digest: Uint8Array, signature: Uint8Array): Uint8Array {
  return concatBytes(unsignedConsistency(context, identity, rosterRoot, digest), signature);
}

export function decodeConsistency(bytes: Uint8Array, context: RoundContext, rosterRoot: Uint8Array, digest: Uint8Array): { readonly identity: Uint8Array; readonly signature: Uint8Array } {
  const reader = new Reader('consistency', bytes, context, clientMessageBytes.consistency);
  const identity = reader.take(32);
  reader.expectEqual(rosterRoot, 'roster');
  reader.expectEqual(digest, 'set of survivors');
  reader.expectLeft(SIGNATURE_BYTES);
  return { identity, signature: reader.take(SIGNATURE_BYTES) };
}

export function encodeSignatures(context: RoundContext, rosterRoot: Uint8Array, digest: Uint8Array, signatures: readonly PeerSignature[]): Uint8Array {
  return concatBytes(header('signatures', context), rosterRoot, digest, uint32Bytes(signatures.length), ...signatures.flatMap(({ signer, signature }) => [uint32Bytes(signer), signature]));
}

export function decodeSignatures(bytes: Uint8Array, context: RoundContext, rosterRoot: Uint8Array, digest: Uint8Array, clients: number): PeerSignature[] {
  const reader = new Reader('signatures', bytes, context, HEADER_BYTES + 64 + 4);
  reader.expectEqual(rosterRoot, 'roster');
  reader.expectEqual(digest, 'set of survivors');
  const count = reader.count(clients);
  reader.expectLeft(count * (4 + SIGNATURE_BYTES));
  return readAscending(count, (previous) => {
    const signer = reader.index(previous, clients);
    return { index: signer, value: { signer, signature: reader.take(SIGNATURE_BYTES) } };
  });
}

// --- stage 5: unmask ---

const shareKindCodes: Record<ShareKind, number> = { selfSeed: 1, maskSecret: 2 };

export function encodeUnmask(context: RoundContext, rosterRoot: Uint8Array, digest: Uint8Array, shares: readonly RevealedShare[], identity: IdentityKeys, crypto: CryptoProvider): Uint8Array {
  const entries = shares.flatMap(({ owner, kind, share }) => [uint32Bytes(owner), Uint8Array.of(shareKindCodes[kind], 0, 0, 0), share]);
  return withSignature(concatBytes(header('unmask', context), identity.publicKey, rosterRoot, digest, uint32Bytes(shares.length), ...entries), identity, crypto);
}

export function decodeUnmask(bytes: Uint8Array, context: RoundContext, rosterRoot: Uint8Array, digest: Uint8Array, clients: number): { readonly identity: Uint8Array; readonly shares: RevealedShare[] } {
  const reader = new Reader('unmask', bytes, context, clientMessageBytes.unmask(0));
  const identity = reader.take(32);
  reader.expectEqual(rosterRoot, 'roster');
  reader.expectEqual(digest, 'set of survivors');
  const count = reader.count(clients);
  reader.expectLeft(count * REVEALED_SHARE_BYTES + SIGNATURE_BYTES);
  const shares = readAscending(count, (previous) => {
    const owner = reader.index(previous, clients);
    const code = reader.uint32();
    const kind = code === shareKindCodes.selfSeed ? 'selfSeed' : code === shareKindCodes.maskSecret ? 'maskSecret' : undefined;
    if (kind === undefined) throw malformed('unmask', 'share kind 1 or 2', `${code}`);
    return { index: owner, value: { owner, kind, share: reader.take(32) } } as const;
  });
  return { identity, shares };
}
