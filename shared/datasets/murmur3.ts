/**
 * MurmurHash3_x86_32 (Appleby 2011, public domain): which of n features a piece of text counts for. Fast and well spread; anyone can find texts that collide, so it
 * protects nothing.
 */

/** The 32-bit hash of `bytes` from `start` up to `end`, as an unsigned integer. `seed`: an integer in [0, 2^32). */
export function murmur3(bytes: Uint8Array, seed: number, start = 0, end = bytes.length): number {
  let hash = seed | 0;
  const blocksEnd = start + ((end - start) & ~3);
  for (let i = start; i < blocksEnd; i += 4) {
    hash ^= scramble(bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24));
    hash = (hash << 13) | (hash >>> 19);
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  let tail = 0;
  for (let i = end - 1; i >= blocksEnd; i--) tail = (tail << 8) | bytes[i]!;
  hash ^= scramble(tail);
  hash ^= end - start;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function scramble(block: number): number {
  const mixed = Math.imul(block, 0xcc9e2d51);
  return Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593);
}
