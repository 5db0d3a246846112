/**
 * Double masking (Bonawitz et al. 2017, section 4): a client adds its own mask, and for each neighbor a mask that the neighbor subtracts. The
 * pairwise masks of survivors cancel in the sum; the coordinator removes the others once enough clients have helped it to the keys.
 */
import type { CryptoProvider } from '../crypto/provider.ts';
import { expandMask } from './mask-expansion.ts';
import { addInPlace, subtractInPlace } from './modulus.ts';

/** A key and the sign with which its mask enters the sum. */
export interface SignedMask {
  readonly key: Uint8Array;
  readonly sign: 1 | -1;
}

/** Of two neighbors the earlier one in the roster adds the mask and the later one subtracts it. */
export function pairwiseSign(own: number, other: number): 1 | -1 {
  if (own === other) throw new RangeError(`"other" expected another client than ${own}`);
  return own < other ? 1 : -1;
}

/** Adds each mask with its sign. */
export function applyMasks(elements: Uint32Array, masks: Iterable<SignedMask>, crypto: CryptoProvider): void {
  for (const { key, sign } of masks) (sign === 1 ? addInPlace : subtractInPlace)(elements, expandMask(key, elements.length, crypto));
}
