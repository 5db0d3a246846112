/**
 * What the coordinator sends to all clients alike, read once for many clients of one process (a simulation): a roster of 10,000 has 2.4 MB, and a thousand clients check the same five hundred
 * signatures. Named by its contents, so each client gets what it would have read itself; nobody changes it. Without `shareReadings` everybody reads for itself.
 */
import type { CryptoProvider } from '../crypto/provider.ts';
import { toHex } from '../types/bytes.ts';

const shared = new WeakMap<CryptoProvider, Map<string, unknown>>();
/** A round has a roster and its signatures; slow clients may be at the ones before. */
const kept = 4;

/** From now on all who read with this very provider share what they read. */
export function shareReadings(crypto: CryptoProvider): void {
  shared.set(crypto, new Map());
}

/** What `read` makes of these bytes, and of nothing else. What it throws is not kept. */
export function readOnce<T>(crypto: CryptoProvider, bytes: readonly Uint8Array[], read: () => T): T {
  const known = shared.get(crypto);
  if (known === undefined) return read();
  const name = bytes.map((part) => toHex(crypto.sha256(part))).join();
  if (known.has(name)) return known.get(name) as T;
  const reading = read();
  known.set(name, reading);
  for (const oldest of known.keys()) {
    if (known.size <= kept) break;
    known.delete(oldest);
  }
  return reading;
}
