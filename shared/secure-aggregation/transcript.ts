/**
 * The digests that tie a round together: each stage signs or derives keys from the one before, so that clients which were told different things
 * can't complete one sum.
 */
import type { CryptoProvider } from '../crypto/provider.ts';
import { concatBytes, uint32Bytes, utf8 } from '../types/bytes.ts';
import type { KeyContext } from './key-derivation.ts';
import { encodeIndices, type Advert } from './messages.ts';

/** Digest of all adverts, signatures included, in order. */
export function rosterRootOf(manifestHash: Uint8Array, adverts: readonly Advert[], crypto: CryptoProvider): Uint8Array {
  return crypto.sha256(concatBytes(utf8('fdp/1 secagg roster\n'), manifestHash, uint32Bytes(adverts.length), ...adverts.map(({ bytes }) => bytes)));
}

/** Digest of the survivors, and of the clients that had shared keys before: what the consistency stage signs. */
export function survivorsDigestOf(context: KeyContext, sharers: readonly number[], survivors: readonly number[], crypto: CryptoProvider): Uint8Array {
  const sharersDigest = crypto.sha256(concatBytes(utf8('fdp/1 secagg sharers\n'), context.manifestHash, context.rosterRoot, encodeIndices(sharers)));
  return crypto.sha256(concatBytes(utf8('fdp/1 secagg survivors\n'), context.manifestHash, context.rosterRoot, sharersDigest, encodeIndices(survivors)));
}
