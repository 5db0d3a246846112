/**
 * NaCl boxes (X25519, XSalsa20, Poly1305) by tweetnacl; the shared point by what `accelerator.ts` has. A box has no associated data: whatever a ciphertext must be bound to goes
 * inside it and is compared after opening (`protocol/envelope.ts`). Low-order public keys, which make every shared
 * secret the same known value, are refused.
 */
import nacl from 'tweetnacl';
import type { RandomSource } from '../ports/random-source.ts';
import { accelerator } from './accelerator.ts';
import { openWithSharedPoint, sealWithSharedPoint } from './provider.ts';

export interface BoxKeys {
  /** X25519, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 32 bytes. Never logged, never sent. */
  readonly secretKey: Uint8Array;
}

export const boxNonceBytes = nacl.box.nonceLength;
/** How much longer a box is than what is in it. */
export const boxOverheadBytes = nacl.box.overheadLength;

export function generateBoxKeys(random: RandomSource): BoxKeys {
  return boxKeysFromSecret(random.bytes(nacl.box.secretKeyLength));
}

export function boxKeysFromSecret(secretKey: Uint8Array): BoxKeys {
  const fast = accelerator();
  return fast === undefined ? nacl.box.keyPair.fromSecretKey(secretKey) : { publicKey: fast.x25519PublicKey(secretKey), secretKey };
}

/** `undefined` exactly for the low-order points, whose X25519 result is all zero (RFC 7748 section 6.1). */
function sharedPoint(publicKey: Uint8Array, secretKey: Uint8Array): Uint8Array | undefined {
  const fast = accelerator();
  if (fast !== undefined) return fast.x25519(secretKey, publicKey);
  const point = nacl.scalarMult(secretKey, publicKey);
  return point.some((byte) => byte !== 0) ? point : undefined;
}

/** Seals `message`; throws `RangeError` for a low-order public key. */
export function sealBox(message: Uint8Array, nonce: Uint8Array, publicKey: Uint8Array, secretKey: Uint8Array): Uint8Array {
  const point = sharedPoint(publicKey, secretKey);
  if (point === undefined) throw new RangeError('"publicKey" is a low-order X25519 point');
  return sealWithSharedPoint(message, nonce, point);
}

/** The message, or `undefined` for a forged or damaged box, a wrong key or a low-order key. */
export function openBox(box: Uint8Array, nonce: Uint8Array, publicKey: Uint8Array, secretKey: Uint8Array): Uint8Array | undefined {
  if (nonce.length !== boxNonceBytes || publicKey.length !== 32) return undefined;
  const point = sharedPoint(publicKey, secretKey);
  return point === undefined ? undefined : openWithSharedPoint(box, nonce, point);
}
