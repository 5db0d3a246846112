/**
 * Ed25519 identities (RFC 8032) by tweetnacl, or by what `accelerator.ts` has. tweetnacl accepts malleated signatures (S + L), so `verifySignature` checks
 * S < L itself, and refuses public keys of small order, under which anyone can sign; still, a signature is never an id and never a key for recognising duplicates.
 * JavaScript cannot wipe keys from memory: whoever can read this process's memory has them.
 */
import nacl from 'tweetnacl';
import type { RandomSource } from '../ports/random-source.ts';
import { concatBytes } from '../types/bytes.ts';
import { accelerator } from './accelerator.ts';
import { isSmallOrderPoint } from './small-order.ts';

export interface IdentityKeys {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 64 bytes: seed and public key, as in NaCl. Never logged, never sent. */
  readonly secretKey: Uint8Array;
}

/** Length of an identity seed in bytes. */
export const identitySeedBytes = 32;

/** A fresh identity. */
export function generateIdentity(random: RandomSource): IdentityKeys {
  return identityFromSeed(random.bytes(identitySeedBytes));
}

/** The identity of a 32-byte seed (RFC 8032 section 5.1.5). */
export function identityFromSeed(seed: Uint8Array): IdentityKeys {
  const fast = accelerator();
  if (fast === undefined || seed.length !== identitySeedBytes) return nacl.sign.keyPair.fromSeed(seed);
  const publicKey = fast.ed25519PublicKey(seed);
  return { publicKey, secretKey: concatBytes(seed, publicKey) };
}

/** 64 bytes. */
export function signMessage(message: Uint8Array, keys: IdentityKeys): Uint8Array {
  return accelerator()?.sign(message, keys) ?? portableSign(message, keys);
}

/** By tweetnacl, whatever the platform has. */
export function portableSign(message: Uint8Array, keys: IdentityKeys): Uint8Array {
  return nacl.sign.detached(message, keys.secretKey);
}

/** L = 2^252 + 27742317777372353535851937790883648493, little-endian: the order of the Ed25519 base point. */
const groupOrder = Uint8Array.from([
  0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
]);

/** RFC 8032 section 5.1.7: decoding S must refuse values not below L. */
function isCanonicalScalar(scalar: Uint8Array): boolean {
  for (let i = 31; i >= 0; i--) {
    if (scalar[i]! < groupOrder[i]!) return true;
    if (scalar[i]! > groupOrder[i]!) return false;
  }
  return false;
}

/** False for a wrong signature, a malleated one, a public key of small order, or lengths that don't fit; never throws. */
export function verifySignature(message: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
  return accelerator()?.verify(message, signature, publicKey) ?? portableVerify(message, signature, publicKey);
}

/** `verifySignature` by tweetnacl, whatever the platform has. */
export function portableVerify(message: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
  if (signature.length !== 64 || publicKey.length !== 32 || !isCanonicalScalar(signature.subarray(32)) || isSmallOrderPoint(publicKey)) return false;
  return nacl.sign.detached.verify(message, signature, publicKey);
}
