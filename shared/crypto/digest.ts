/** SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104), and how a digest is written. */
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 as nobleSha256 } from '@noble/hashes/sha2.js';
import { concatBytes, fromHex, toHex } from '../types/bytes.ts';
import type { Digest } from '../types/ids.ts';
import { accelerator } from './accelerator.ts';

/** SHA-256 of the parts, one after the other: 32 bytes. */
export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const message = parts.length === 1 ? parts[0]! : concatBytes(...parts);
  return accelerator()?.sha256(message) ?? nobleSha256(message);
}

/** HMAC-SHA-256: 32 bytes. */
export function hmacSha256(key: Uint8Array, message: Uint8Array): Uint8Array {
  return hmac(nobleSha256, key, message);
}

/** `sha256:` and 64 hexadecimal digits. */
export function formatDigest(hash: Uint8Array): Digest {
  return `sha256:${toHex(hash)}` as Digest;
}

/** The digest of some bytes, as it is written in documents. */
export function digestOf(...parts: readonly Uint8Array[]): Digest {
  return formatDigest(sha256(...parts));
}

/** The 32 bytes of a written digest. The text must have passed `DigestSchema`. */
export function digestBytes(digest: Digest): Uint8Array {
  const bytes = fromHex(digest.slice('sha256:'.length));
  if (bytes?.length !== 32) throw new TypeError(`"digest" expected sha256:<64 hexadecimal digits>, got ${digest.length} characters`);
  return bytes;
}
