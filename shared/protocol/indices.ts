/** Sets of transfer-example indices on the wire: base64 of little-endian uint32, strictly ascending; or of one bit for every transfer example. */
import { FederationError } from '../errors.ts';
import { fromBase64, toBase64 } from '../types/bytes.ts';

/** Exactly one of the two is there. */
export interface WireIndices {
  readonly count: number;
  readonly indices?: string | undefined;
  /** Bit i, counted from the least significant of the first byte, is 1 for transfer example i; bits after the last one are 0. */
  readonly bitmap?: string | undefined;
}

/** The shorter of both forms. A receiver of the protocol's first revision knows `encodeIndices` alone. */
export function encodeIndicesCompactly(indices: Uint32Array, limit: number): WireIndices {
  if (Math.ceil(limit / 8) >= 4 * indices.length) return encodeIndices(indices);
  const members = new Uint8Array(limit);
  for (const index of indices) members[index] = 1;
  return { count: indices.length, bitmap: toBase64(encodeBits(members)) };
}

/** One bit for each value, 1 where it is not 0; of the least significant bit first. */
export function encodeBits(values: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(values.length / 8));
  values.forEach((value, i) => {
    if (value !== 0) bytes[i >>> 3]! |= 1 << (i & 7);
  });
  return bytes;
}

/** `length` values, 0 or 1; `undefined` for text that is not base64 of so many bits, or with bits after the last one. */
export function decodeBits(text: string, length: number): Uint8Array | undefined {
  if (text.length !== 4 * Math.ceil(Math.ceil(length / 8) / 3)) return undefined;
  const bytes = fromBase64(text);
  if (bytes?.length !== Math.ceil(length / 8)) return undefined;
  if (length % 8 !== 0 && bytes[bytes.length - 1]! >>> length % 8 !== 0) return undefined;
  return Uint8Array.from({ length }, (_, i) => (bytes[i >>> 3]! >>> (i & 7)) & 1);
}

export function encodeIndices(indices: Uint32Array): { readonly count: number; readonly indices: string } {
  const bytes = new Uint8Array(indices.length * 4);
  const view = new DataView(bytes.buffer);
  indices.forEach((index, i) => view.setUint32(4 * i, index, true));
  return { count: indices.length, indices: toBase64(bytes) };
}

/** Throws `value-out-of-range` unless there are `count` strictly ascending indices below `limit`. */
export function decodeIndices(wire: WireIndices, limit: number, field: string): Uint32Array {
  const expected = `${wire.count} strictly ascending indices below ${limit}`;
  const fail = (got: string) => new FederationError('value-out-of-range', `"${field}" expected ${expected}, got ${got}.`, { field, expected, got });
  if (wire.bitmap !== undefined) {
    if (wire.indices !== undefined) throw fail('two forms of them');
    const members = decodeBits(wire.bitmap, limit);
    if (members === undefined) throw fail(`text that is not base64 of ${limit} bits`);
    const indices = Uint32Array.from(members.keys()).filter((index) => members[index] === 1);
    if (indices.length !== wire.count) throw fail(`${indices.length} bits`);
    return indices;
  }
  if (wire.indices === undefined) throw fail('none');
  if (wire.indices.length !== 4 * Math.ceil((wire.count * 4) / 3)) throw fail(`${wire.indices.length} base64 characters`);
  const bytes = fromBase64(wire.indices);
  if (bytes?.length !== wire.count * 4) throw fail('text that is not base64 of so many integers');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const indices = new Uint32Array(wire.count);
  for (let i = 0; i < wire.count; i++) {
    const index = view.getUint32(4 * i, true);
    if (index >= limit || (i > 0 && index <= indices[i - 1]!)) throw fail(`index ${index} at position ${i}`);
    indices[i] = index;
  }
  return indices;
}
