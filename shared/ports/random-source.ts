/**
 * Randomness that protects someone: keys, nonces, noise, masks, shares. The one production implementation is the
 * operating system's CSPRNG (`shared/node/system-random.ts`). Randomness that only trains or splits is a different
 * thing: `datasets/seeded-generator.ts`.
 */
export interface RandomSource {
  /** `length` fresh uniformly random bytes. Throws when the system has no CSPRNG. */
  bytes(length: number): Uint8Array;
}
