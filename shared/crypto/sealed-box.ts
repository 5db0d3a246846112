/**
 * NaCl boxes (X25519, XSalsa20, Poly1305) by tweetnacl. A box has no associated data: whatever a ciphertext must be bound to goes
 * inside it and is compared after opening (`protocol/envelope.ts`). Low-order public keys, which make every shared
 * secret the same known value, are refused.
 */
import nacl from 'tweetnacl';
import type { RandomSource } from '../ports/random-source.ts';

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
  return nacl.box.keyPair.fromSecretKey(secretKey);
}

/** The X25519 result is all zero exactly for the low-order points (RFC 7748 section 6.1). */
function isLowOrder(publicKey: Uint8Array, secretKey: Uint8Array): boolean {
  return nacl.scalarMult(secretKey, publicKey).every((byte) => byte === 0);
}

/** Seals `message`; throws `RangeError` for a low-order public key. */
export function sealBox(message: Uint8Array, nonce: Uint8Array, publicKey: Uint8Array, secretKey: Uint8Array): Uint8Array {
  if (isLowOrder(publicKey, secretKey)) throw new RangeError('"publicKey" is a low-order X25519 point');
  return nacl.box(message, nonce, publicKey, secretKey);
}

/** The message, or `undefined` for a forged or damaged box, a wrong key or a low-order key. */
export function openBox(box: Uint8Array, nonce: Uint8Array, publicKey: Uint8Array, secretKey: Uint8Array): Uint8Array | undefined {
  if (nonce.length !== boxNonceBytes || publicKey.length !== 32 || isLowOrder(publicKey, secretKey)) return undefined;
  return nacl.box.open(box, nonce, publicKey, secretKey) ?? undefined;
}
