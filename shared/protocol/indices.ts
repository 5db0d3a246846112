/** Sets of transfer-example indices on the wire: base64 of little-endian uint32, strictly ascending. */
import { FederationError } from '../errors.ts';
import { fromBase64, toBase64 } from '../types/bytes.ts';

export interface WireIndices {
  readonly count: number;
  readonly indices: string;
}

export function encodeIndices(indices: Uint32Array): WireIndices {
  const bytes = new Uint8Array(indices.length * 4);
  const view = new DataView(bytes.buffer);
  indices.forEach((index, i) => view.setUint32(4 * i, index, true));
  return { count: indices.length, indices: toBase64(bytes) };
}

/** Throws `value-out-of-range` unless there are `count` strictly ascending indices below `limit`. */
export function decodeIndices(wire: WireIndices, limit: number, field: string): Uint32Array {
  const expected = `${wire.count} strictly ascending indices below ${limit}`;
  const fail = (got: string) => new FederationError('value-out-of-range', `"${field}" expected ${expected}, got ${got}.`, { field, expected, got });
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
