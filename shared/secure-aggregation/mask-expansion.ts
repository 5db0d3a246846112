/**
 * A mask: as many uniform elements of Z_2^32 as a contribution has, the XSalsa20 stream of a one-use key. The nonce is always 0, which is
 * sound only because no key is used twice (`key-derivation.ts`).
 */
import type { CryptoProvider } from '../crypto/provider.ts';

/** The mask of a key. */
export function expandMask(key: Uint8Array, dimension: number, crypto: CryptoProvider): Uint32Array {
  return crypto.keyStream(key, dimension);
}
