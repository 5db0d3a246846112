/** The operating system's CSPRNG: keys, nonces, noise, tokens. */
import { randomBytes } from 'node:crypto';
import type { RandomSource } from '../ports/random-source.ts';

export const systemRandom: RandomSource = {
  // A copy: `randomBytes` may hand out a view of a pool that other secrets lie in.
  bytes: (length) => Uint8Array.from(randomBytes(length)),
};
