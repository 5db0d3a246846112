/**
 * A platform's own primitives in place of the portable ones of `digest.ts`, `signature.ts` and `sealed-box.ts`, which have no provider passed to them: Node's are ten to a hundred
 * times as fast. The same bytes and the same answers (test/shared/crypto/accelerator.test.ts); whoever starts a process sets it, before anything else runs.
 */
import type { IdentityKeys } from './signature.ts';

export interface Accelerator {
  /** 32 bytes. */
  sha256(message: Uint8Array): Uint8Array;
  /** Ed25519 public key of a 32-byte seed. */
  ed25519PublicKey(seed: Uint8Array): Uint8Array;
  /** As in `CryptoProvider`. */
  sign(message: Uint8Array, keys: IdentityKeys): Uint8Array;
  verify(message: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean;
  x25519PublicKey(secretKey: Uint8Array): Uint8Array;
  x25519(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined;
}

let current: Accelerator | undefined;

/** From now on, for the whole process; `undefined`: the portable ones again. */
export function accelerate(by: Accelerator | undefined): void {
  current = by;
}

export function accelerator(): Accelerator | undefined {
  return current;
}
