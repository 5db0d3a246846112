/** Exponential backoff with jitter: thousands of clients that lost one coordinator must not come back in the same instant. */
import type { RandomSource } from '../../shared/ports/random-source.ts';

const firstDelayMs = 500;
const longestDelayMs = 10_000;

/** Milliseconds to wait after `failures` failures in a row (from 0): uniform between half of min(500 ms * 2^failures, 10 s) and all of it. */
export function backoffMs(failures: number, random: RandomSource): number {
  const ceiling = Math.min(longestDelayMs, firstDelayMs * 2 ** Math.min(failures, 10));
  const bytes = random.bytes(4);
  const share = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true) / 2 ** 32;
  return Math.round(ceiling * (0.5 + 0.5 * share));
}
