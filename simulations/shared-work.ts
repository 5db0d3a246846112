/**
 * What the clients of one simulation would each compute for themselves, computed once. Every function here gives what it would give without its memory, bit for bit: the messages,
 * the checks and the results of a simulation are those of clients on machines of their own, only the processor time is not.
 *
 * - A signature that a hundred clients check is checked once.
 * - Two clients agree on a shared point from either side: the second side gets the first one's.
 * - What a thousand clients are sent alike, a roster or a list of signatures, is read once (`shared-readings.ts`).
 *
 * For simulations only: whoever shares this memory knows all secrets in it.
 */
import type { Accelerator } from '../shared/crypto/accelerator.ts';
import type { CryptoProvider } from '../shared/crypto/provider.ts';
import { shareReadings } from '../shared/secure-aggregation/shared-readings.ts';

/** Longer messages than those of secure aggregation and of sessions (their signatures are over hashes) are not remembered. */
const longestMessage = 512;
/** Entries in each half of a memory; an entry has about 300 bytes. */
const halfSize = 2 ** 20;

/** Remembers at least the last `halfSize` entries, and never more than twice as many. */
class Memory<V> {
  #young = new Map<string, V>();
  #old = new Map<string, V>();

  get(key: string): V | undefined {
    return this.#young.get(key) ?? this.#old.get(key);
  }

  set(key: string, value: V): void {
    if (this.#young.size >= halfSize) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(key, value);
  }

  delete(key: string): void {
    this.#young.delete(key);
    this.#old.delete(key);
  }
}

/** One character a byte. */
function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

/** The same provider for all parties of a simulation. Arrays that it gives out are shared: nobody may write to them. */
export function sharedCrypto(crypto: CryptoProvider & Accelerator): CryptoProvider & Accelerator {
  const verified = new Memory<boolean>();
  const points = new Memory<Uint8Array>();
  const publicKeys = new WeakMap<Uint8Array, string>();
  const shared: CryptoProvider & Accelerator = {
    ...crypto,
    x25519PublicKey(secretKey) {
      const publicKey = crypto.x25519PublicKey(secretKey);
      publicKeys.set(secretKey, textOf(publicKey));
      return publicKey;
    },
    x25519(secretKey, publicKey) {
      const own = publicKeys.get(secretKey);
      if (own === undefined) return crypto.x25519(secretKey, publicKey);
      const other = textOf(publicKey);
      const pair = own < other ? own + other : other + own;
      const known = points.get(pair);
      if (known !== undefined) {
        points.delete(pair); // both sides have it now
        return known;
      }
      const point = crypto.x25519(secretKey, publicKey);
      if (point !== undefined) points.set(pair, point);
      return point;
    },
    verify(message, signature, publicKey) {
      if (message.length > longestMessage || signature.length !== 64 || publicKey.length !== 32) return crypto.verify(message, signature, publicKey);
      const key = textOf(message) + textOf(signature) + textOf(publicKey);
      const known = verified.get(key);
      if (known !== undefined) return known;
      const answer = crypto.verify(message, signature, publicKey);
      verified.set(key, answer);
      return answer;
    },
  };
  shareReadings(shared);
  return shared;
}
