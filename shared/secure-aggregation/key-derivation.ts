/**
 * One-use mask keys: HKDF-SHA-512 (RFC 5869) with the manifest hash as salt, and role, roster and owners in `info`. A coordinator that tells
 * two clients different parameters, soft labels or rosters makes them derive different keys: their masks don't cancel and it gets noise.
 */
import type { CryptoProvider } from '../crypto/provider.ts';
import { concatBytes, utf8 } from '../types/bytes.ts';

/** What every key of a round is bound to. */
export interface KeyContext {
  /** Hash of everything that the coordinator signed about the round. */
  readonly manifestHash: Uint8Array;
  /** Hash of all adverts: `transcript.ts`. */
  readonly rosterRoot: Uint8Array;
}

const pairwiseRole = utf8('fdp/1 secagg pairwise mask\n');
const selfRole = utf8('fdp/1 secagg self mask\n');

/** True when `a` sorts before `b` as bytes. Identities have one length. */
export function isBefore(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i]! < b[i]!;
  return false;
}

/** Key of the mask that the clients with these identities share; the same for both, whoever asks. */
export function pairwiseMaskKey(sharedPoint: Uint8Array, context: KeyContext, one: Uint8Array, other: Uint8Array, crypto: CryptoProvider): Uint8Array {
  const [first, second] = isBefore(one, other) ? [one, other] : [other, one];
  return crypto.hkdfSha512(sharedPoint, context.manifestHash, concatBytes(pairwiseRole, context.rosterRoot, first, second));
}

/** Key of a client's own mask. */
export function selfMaskKey(selfSeed: Uint8Array, context: KeyContext, owner: Uint8Array, crypto: CryptoProvider): Uint8Array {
  return crypto.hkdfSha512(selfSeed, context.manifestHash, concatBytes(selfRole, context.rosterRoot, owner));
}

/** Commitment to a self seed: binding by SHA-256, hiding because the seed has 256 uniform bits. */
export function selfSeedCommitment(selfSeed: Uint8Array, manifestHash: Uint8Array, owner: Uint8Array, crypto: CryptoProvider): Uint8Array {
  return crypto.sha256(concatBytes(utf8('fdp/1 secagg self seed\n'), manifestHash, owner, selfSeed));
}
