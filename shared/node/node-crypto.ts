/**
 * `CryptoProvider` by node:crypto (OpenSSL): X25519 and Ed25519 about twenty times as fast as tweetnacl, SHA-256 and HKDF several times. OpenSSL has no
 * XSalsa20, so the key stream is our own word-wise one (`crypto/xsalsa20.ts`). The same bytes as `portableCrypto`.
 */
import { createHash, createHmac, createPrivateKey, createPublicKey, diffieHellman, sign, verify, type KeyObject } from 'node:crypto';
import type { Accelerator } from '../crypto/accelerator.ts';
import type { CryptoProvider } from '../crypto/provider.ts';
import type { IdentityKeys } from '../crypto/signature.ts';
import { isSmallOrderPoint } from '../crypto/small-order.ts';
import { xsalsa20Words } from '../crypto/xsalsa20.ts';

/** Importing a private key costs as much as using it, and most keys are used with many others. The cache dies with the array it belongs to. */
function cached(cache: WeakMap<Uint8Array, KeyObject>, raw: Uint8Array, make: (raw: Uint8Array) => KeyObject): KeyObject {
  let key = cache.get(raw);
  if (key === undefined) {
    if (raw.length !== 32) throw new RangeError(`"key" expected 32 bytes, got ${raw.length}`);
    key = make(raw);
    cache.set(raw, key);
  }
  return key;
}
const secrets = new WeakMap<Uint8Array, KeyObject>();
const publics = new WeakMap<Uint8Array, KeyObject>();
const signers = new WeakMap<Uint8Array, KeyObject>();
/** The counter of HKDF's first block. */
const firstBlock = Uint8Array.of(1);
const base64url = (raw: Uint8Array) => Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('base64url');
/** As a JWK (RFC 8037): OpenSSL takes six to ten times as long to find its way through DER. */
const publicKey = (crv: 'X25519' | 'Ed25519', raw: Uint8Array) => createPublicKey({ key: { kty: 'OKP', crv, x: base64url(raw) }, format: 'jwk' });
/** A JWK must name its public half too; OpenSSL derives its own from `d` all the same. */
const privateKey = (crv: 'X25519' | 'Ed25519', raw: Uint8Array) => createPrivateKey({ key: { kty: 'OKP', crv, d: base64url(raw), x: '' }, format: 'jwk' });
const x25519Private = (raw: Uint8Array) => cached(secrets, raw, (bytes) => privateKey('X25519', bytes));
const x25519Public = (raw: Uint8Array) => cached(publics, raw, (bytes) => publicKey('X25519', bytes));
const ed25519Private = ({ secretKey }: IdentityKeys) => {
  let key = signers.get(secretKey);
  if (secretKey.length !== 64) throw new RangeError(`"secretKey" expected 64 bytes, got ${secretKey.length}`);
  if (key === undefined) signers.set(secretKey, (key = privateKey('Ed25519', secretKey.subarray(0, 32))));
  return key;
};
/** The public half of a private key, as OpenSSL derived it. */
const rawPublicKey = (secret: KeyObject) => Uint8Array.from(Buffer.from(secret.export({ format: 'jwk' }).x!, 'base64url'));

export const nodeCrypto: CryptoProvider & Accelerator = {
  name: 'node:crypto',
  sha256: (message) => Uint8Array.from(createHash('sha256').update(message).digest()),
  // RFC 5869 with one block of output: `hkdfSync` takes twice as long, most of it around the hashes.
  hkdfSha512: (inputKey, salt, info) => Uint8Array.from(createHmac('sha512', createHmac('sha512', salt).update(inputKey).digest()).update(info).update(firstBlock).digest().subarray(0, 32)),
  keyStream(key, words) {
    const stream = new Uint32Array(words);
    xsalsa20Words(key, stream);
    return stream;
  },
  x25519PublicKey(secretKey) {
    return rawPublicKey(x25519Private(secretKey));
  },
  ed25519PublicKey: (seed) => rawPublicKey(privateKey('Ed25519', seed)),
  x25519(secretKey, otherKey) {
    let shared: Buffer;
    try {
      shared = diffieHellman({ privateKey: x25519Private(secretKey), publicKey: x25519Public(otherKey) });
    } catch (error) {
      // OpenSSL refuses an all-zero result, which only points of low order have.
      if (error instanceof RangeError) throw error;
      return undefined;
    }
    return shared.some((byte) => byte !== 0) ? Uint8Array.from(shared) : undefined;
  },
  sign: (message, keys) => Uint8Array.from(sign(null, message, ed25519Private(keys))),
  verify(message, signature, identity) {
    // OpenSSL checks S < L itself, but not the order of the key.
    if (signature.length !== 64 || identity.length !== 32 || isSmallOrderPoint(identity)) return false;
    try {
      return verify(null, message, publicKey('Ed25519', identity), signature);
    } catch {
      return false;
    }
  },
};
