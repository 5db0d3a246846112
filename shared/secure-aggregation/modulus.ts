/**
 * The ring Z_2^32 in which contributions are summed: unsigned 32-bit words that wrap. A sum of signed integers comes out right as long as it
 * lies in [-2^31, 2^31): `noise-share.ts` proves that it does before a round may start.
 */

/** Ring elements of signed integers: two's complement. */
export function toRing(values: Int32Array): Uint32Array {
  return Uint32Array.from(values);
}

/** The representative in [-2^31, 2^31) of each ring element ("centre lift"). */
export function toSigned(elements: Uint32Array): Int32Array {
  return Int32Array.from(elements);
}

/** `sum += addend`, element by element. */
export function addInPlace(sum: Uint32Array, addend: Uint32Array): void {
  checkLength(sum, addend);
  for (let i = 0; i < sum.length; i++) sum[i]! += addend[i]!;
}

/** `sum -= subtrahend`, element by element. */
export function subtractInPlace(sum: Uint32Array, subtrahend: Uint32Array): void {
  checkLength(sum, subtrahend);
  for (let i = 0; i < sum.length; i++) sum[i]! -= subtrahend[i]!;
}

function checkLength(a: Uint32Array, b: Uint32Array): void {
  if (a.length !== b.length) throw new RangeError(`"elements" expected ${a.length} values, got ${b.length}`);
}
