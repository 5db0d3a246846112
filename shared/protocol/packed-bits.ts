/** Small integers packed without gaps: value i takes the bits `i * width` to `(i + 1) * width - 1`, counted from the least significant bit of the first byte; the rest of the last byte is 0. */

export function packedBytes(count: number, width: number): number {
  return Math.ceil((count * width) / 8);
}

/** `width`: 1 to 16. */
export function packBits(values: ArrayLike<number>, width: number): Uint8Array {
  const bytes = new Uint8Array(packedBytes(values.length, width));
  let at = 0;
  for (let i = 0; i < values.length; i++) {
    for (let bit = 0; bit < width; bit++, at++) if ((values[i]! >>> bit) & 1) bytes[at >>> 3]! |= 1 << (at & 7);
  }
  return bytes;
}

/** `undefined` when bits after the last value are not 0. `bytes` has `packedBytes(count, width)`. */
export function unpackBits(bytes: Uint8Array, count: number, width: number): Uint16Array | undefined {
  const values = new Uint16Array(count);
  let at = 0;
  for (let i = 0; i < count; i++) {
    let value = 0;
    for (let bit = 0; bit < width; bit++, at++) value |= ((bytes[at >>> 3]! >>> (at & 7)) & 1) << bit;
    values[i] = value;
  }
  const used = at & 7;
  return used !== 0 && bytes[bytes.length - 1]! >>> used !== 0 ? undefined : values;
}
