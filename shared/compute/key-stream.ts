/** Randomness for another thread, or for a computation that must not draw from a source out of turn: a stream from one key. */
import { createCipheriv } from 'node:crypto';
import type { RandomSource } from '../ports/random-source.ts';

/** Bytes of a key. */
const keyBytes = 32;

/** 256 fresh bits of a source. */
export function drawKey(random: RandomSource): Uint8Array {
  return random.bytes(keyBytes).slice();
}

/** The stream of ChaCha20 (RFC 8439) under this key: as good as the key's 256 bits, as long as each key is used once. */
export function keyStream(key: Uint8Array): RandomSource {
  const cipher = createCipheriv('chacha20', key, new Uint8Array(16));
  return { bytes: (length) => new Uint8Array(cipher.update(new Uint8Array(length))) };
}
