/**
 * The primitives that secure aggregation spends its time in, behind one interface: `portableCrypto` (tweetnacl and @noble/hashes) runs everywhere,
 * `shared/node/node-crypto.ts` is faster. Both give the same bytes for the same input (test/shared/crypto/provider.test.ts).
 *
 * Does not wipe secrets from memory: JavaScript can't.
 */
import { hkdf } from '@noble/hashes/hkdf.js';
import { sha256, sha512 } from '@noble/hashes/sha2.js';
import nacl from 'tweetnacl';
import { portableSign, portableVerify, type IdentityKeys } from './signature.ts';

export interface CryptoProvider {
  readonly name: string;
  /** 32 bytes. */
  sha256(message: Uint8Array): Uint8Array;
  /** HKDF (RFC 5869) with SHA-512: 32 bytes. */
  hkdfSha512(inputKey: Uint8Array, salt: Uint8Array, info: Uint8Array): Uint8Array;
  /** The first `words` little-endian 32-bit words of the XSalsa20 stream under a 32-byte key and the nonce 0. One use a key. */
  keyStream(key: Uint8Array, words: number): Uint32Array;
  /** X25519 public key of a 32-byte secret (RFC 7748). */
  x25519PublicKey(secretKey: Uint8Array): Uint8Array;
  /** X25519 shared point, 32 bytes; `undefined` for a public key of low order, under which every shared point is zero. Arrays that were passed in are not changed later. */
  x25519(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined;
  /** Ed25519, 64 bytes. */
  sign(message: Uint8Array, keys: IdentityKeys): Uint8Array;
  /** As `verifySignature`: never throws; false also for malleated signatures and public keys of small order. */
  verify(message: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean;
}

/** The parts of tweetnacl that have no types: https://github.com/dchest/tweetnacl-js, `nacl.lowlevel`. */
interface LowLevel {
  crypto_core_hsalsa20(output: Uint8Array, input: Uint8Array, key: Uint8Array, constant: Uint8Array): number;
  crypto_stream(output: Uint8Array, offset: number, length: number, nonce: Uint8Array, key: Uint8Array): number;
}
const { lowlevel } = nacl as unknown as { readonly lowlevel: LowLevel };

const zeroNonce = new Uint8Array(24);
/** "expand 32-byte k" (Bernstein, "Extending the Salsa20 nonce"). */
const sigma = Uint8Array.from([101, 120, 112, 97, 110, 100, 32, 51, 50, 45, 98, 121, 116, 101, 32, 107]);
export const isLittleEndian = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

/** HSalsa20 of a key and sixteen zero bytes: the key of a NaCl box from its shared point, and the subkey of XSalsa20 under the nonce 0. */
export function hsalsa20(key: Uint8Array): Uint8Array {
  const output = new Uint8Array(32);
  lowlevel.crypto_core_hsalsa20(output, zeroNonce, key, sigma);
  return output;
}

/** Words of little-endian bytes; takes the array over where it can. */
export function wordsOf(bytes: Uint8Array): Uint32Array {
  if (isLittleEndian && bytes.byteOffset % 4 === 0) return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Uint32Array.from({ length: bytes.length >> 2 }, (_, i) => view.getUint32(4 * i, true));
}

/** Little-endian bytes of words, copied. */
export function bytesOf(words: Uint32Array): Uint8Array {
  if (isLittleEndian) return new Uint8Array(words.buffer, words.byteOffset, words.byteLength).slice();
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  words.forEach((word, i) => view.setUint32(4 * i, word, true));
  return bytes;
}

function checkKey(key: Uint8Array): void {
  if (key.length !== 32) throw new RangeError(`"key" expected 32 bytes, got ${key.length}`);
}

export const portableCrypto: CryptoProvider = {
  name: 'tweetnacl and @noble/hashes',
  sha256: (message) => sha256(message),
  hkdfSha512: (inputKey, salt, info) => hkdf(sha512, inputKey, salt, info, 32),
  keyStream(key, words) {
    checkKey(key);
    const bytes = new Uint8Array(4 * words);
    lowlevel.crypto_stream(bytes, 0, bytes.length, zeroNonce, key);
    return wordsOf(bytes);
  },
  x25519PublicKey: (secretKey) => nacl.scalarMult.base(secretKey),
  x25519(secretKey, publicKey) {
    const shared = nacl.scalarMult(secretKey, publicKey);
    return shared.some((byte) => byte !== 0) ? shared : undefined;
  },
  sign: (message, keys) => portableSign(message, keys),
  verify: (message, signature, publicKey) => portableVerify(message, signature, publicKey),
};

/** A NaCl box under the key of an X25519 shared point: the same bytes as `nacl.box` of the two keys. */
export function sealWithSharedPoint(message: Uint8Array, nonce: Uint8Array, sharedPoint: Uint8Array): Uint8Array {
  return nacl.secretbox(message, nonce, hsalsa20(sharedPoint));
}

/** What `sealWithSharedPoint` sealed; `undefined` for a forged or damaged box. */
export function openWithSharedPoint(box: Uint8Array, nonce: Uint8Array, sharedPoint: Uint8Array): Uint8Array | undefined {
  return nacl.secretbox.open(box, nonce, hsalsa20(sharedPoint)) ?? undefined;
}
