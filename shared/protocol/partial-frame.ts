/**
 * Predictions of which a client has left out rows (docs/protocol.md section 9.2): which rows are there, and a matrix frame of those. What is left out tells something as well: nothing here is for
 * predictions that have to be protected by noise of their own.
 */
import type { SharedPredictions } from '../distillation/aggregation.ts';
import { FederationError } from '../errors.ts';
import { concatBytes, uint32Bytes } from '../types/bytes.ts';
import { selectRows, type Matrix, type OutputKind } from '../types/matrix.ts';
import { assertContribution, crc32, decodeFrame, encodePredictions, frameBytes, type FloatEncoding } from './matrix-frame.ts';

const magic = 0x50504446; // "FDPP", little-endian
const headerBytes = 12;
const checksumBytes = 4;

/** Length of a partial frame with `shared` of `rows` rows. */
export function partialFrameBytes(encoding: FloatEncoding, shared: number, rows: number, columns: number): number {
  return headerBytes + Math.ceil(rows / 8) + (shared === 0 ? 0 : frameBytes(encoding, [shared, columns])) + checksumBytes;
}

export function isPartialFrame(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) === magic;
}

/** `shared`: 1 for each row that is sent, 0 for the others. */
export function encodePartialPredictions(matrix: Matrix, shared: Uint8Array, kind: OutputKind, encoding: FloatEncoding): Uint8Array {
  if (shared.length !== matrix.rows) throw new RangeError(`"shared" expected ${matrix.rows} values, got ${shared.length}`);
  const mask = new Uint8Array(Math.ceil(matrix.rows / 8));
  shared.forEach((is, row) => (mask[row >>> 3]! |= (is & 1) << (row & 7)));
  const rows = Uint32Array.from(shared.keys()).filter((row) => shared[row] === 1);
  const inner = rows.length === 0 ? new Uint8Array() : encodePredictions(selectRows(matrix, rows), kind, encoding);
  const body = concatBytes(uint32Bytes(magic), Uint8Array.of(1, 0, 0, 0), uint32Bytes(matrix.rows), mask, inner);
  return concatBytes(body, uint32Bytes(crc32(body)));
}

/** Throws `frame-malformed`, `frame-checksum`, `shape-mismatch` or `value-out-of-range`. Rows that are not there are zeros. */
export function decodePartialPredictions(bytes: Uint8Array, kind: OutputKind, encoding: FloatEncoding, rows: number, columns: number): SharedPredictions {
  const maskBytes = Math.ceil(rows / 8);
  const least = headerBytes + maskBytes + checksumBytes;
  if (bytes.length < least || !isPartialFrame(bytes)) throw malformed('length', `at least ${least} bytes that begin with "FDPP"`, `${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(4, true) !== 1) throw malformed('version', '1 and three zero bytes', `${view.getUint32(4, true)}`);
  if (view.getUint32(8, true) !== rows) throw new FederationError('shape-mismatch', 'A partial frame is about another number of rows.', { field: 'rows', expected: `${rows}`, got: `${view.getUint32(8, true)}` });
  const end = bytes.length - checksumBytes;
  if (view.getUint32(end, true) !== crc32(bytes.subarray(0, end))) {
    throw new FederationError('frame-checksum', 'Partial frame: the checksum does not match; the bytes were damaged on the way.', { field: 'checksum', next: 'Send the frame again.' });
  }
  const mask = bytes.subarray(headerBytes, headerBytes + maskBytes);
  const padding = rows & 7;
  if (padding !== 0 && mask[maskBytes - 1]! >>> padding !== 0) throw malformed('mask', 'zero bits after the last row', 'others');
  const shared = Uint8Array.from({ length: rows }, (_, row) => (mask[row >>> 3]! >>> (row & 7)) & 1);
  const count = shared.reduce((sum, is) => sum + is, 0);
  const values = new Float32Array(rows * columns);
  if (bytes.length !== partialFrameBytes(encoding, count, rows, columns)) throw malformed('length', `the length of ${count} rows`, `${bytes.length} bytes`);
  if (count > 0) {
    const frame = decodeFrame(bytes.subarray(headerBytes + maskBytes, end), frameBytes('float32', [rows, columns]));
    assertContribution(frame, kind, count, columns);
    if (frame.dtype !== encoding) throw new FederationError('shape-mismatch', 'The contribution has another dtype than announced.', { field: 'dtype', expected: encoding, got: frame.dtype });
    let next = 0;
    shared.forEach((is, row) => {
      if (is === 1) values.set((frame.values as Float32Array).subarray(next * columns, ++next * columns), row * columns);
    });
  }
  return { rows, columns, values, shared };
}

function malformed(field: string, expected: string, got: string): FederationError {
  return new FederationError('frame-malformed', `Partial frame: ${field} expected ${expected}, got ${got}.`, { field, expected, got });
}
