/** The operating system's CSPRNG: keys, nonces, noise, tokens. */
import { randomFillSync } from 'node:crypto';
import type { RandomSource } from '../ports/random-source.ts';

export const systemRandom: RandomSource = {
  // An array of its own: `randomBytes` may hand out a view of a pool that other secrets lie in.
  bytes: (length) => randomFillSync(new Uint8Array(length)),
};
