/** Binary matrix frames (docs/protocol.md section 9). Sizes are checked before anything is allocated. */
import { dequantizeLevels, quantizeRows, topLevel } from '../distillation/soft-label-quantization.ts';
import { FederationError } from '../errors.ts';
import type { Examples, IntegerMatrix, Matrix, OutputKind } from '../types/matrix.ts';
import { maxFrameBytes } from './limits.ts';
import { packBits, packedBytes, unpackBits } from './packed-bits.ts';

/** Probabilities in few bits each, whose rows sum to 1 exactly; with one bit the likeliest class alone (section 9.1). */
export const bitsEncodings = ['bits1', 'bits2', 'bits3', 'bits4', 'bits5', 'bits6', 'bits7', 'bits8'] as const;
export type BitsEncoding = (typeof bitsEncodings)[number];
/** How predictions without noise, and soft labels, may be encoded. */
export const floatEncodings = ['float32', 'float16', 'uint8', ...bitsEncodings] as const;
export type FloatEncoding = (typeof floatEncodings)[number];
export type FrameDtype = FloatEncoding | 'int32';
export type FrameContent = 'features' | OutputKind | 'grid';

const dtypeCodes: Record<FrameDtype, number> = { float32: 1, float16: 2, uint8: 3, int32: 4, bits1: 5, bits2: 6, bits3: 7, bits4: 8, bits5: 9, bits6: 10, bits7: 11, bits8: 12 };
const contentCodes: Record<FrameContent, number> = { features: 1, logits: 2, probabilities: 3, grid: 4 };
const bytesPerValue: Record<Exclude<FrameDtype, BitsEncoding>, number> = { float32: 4, float16: 2, uint8: 1, int32: 4 };
/** Most classes that packed levels may have: those of a task. */
const maxPackedColumns = 1000;
const dtypeOf = new Map(Object.entries(dtypeCodes).map(([name, code]) => [code, name as FrameDtype]));
const contentOf = new Map(Object.entries(contentCodes).map(([name, code]) => [code, name as FrameContent]));
const magic = 0x4d504446; // "FDPM", little-endian
const fixedHeaderBytes = 16;
const checksumBytes = 4;

/** A decoded frame. `values` is float32 for every dtype but `int32`. */
export interface Frame {
  readonly dtype: FrameDtype;
  readonly content: FrameContent;
  /** 1 to 5 sides, outermost first. */
  readonly shape: readonly number[];
  readonly values: Float32Array | Int32Array;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, index) => {
  let crc = index;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** CRC-32 of IEEE 802.3 (as in zlib): a guard against damage, not against forgery. */
export function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = crcTable[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Length in bytes of a frame of this dtype and shape. */
export function frameBytes(dtype: FrameDtype, shape: readonly number[]): number {
  const count = shape.reduce((product, side) => product * side, 1);
  const bits = bitsOf(dtype);
  const valueBytes = isBitsEncoding(dtype) ? (bits === 1 ? packedBytes(shape[0]!, indexWidth(shape[1]!)) : packedBytes(count, bits)) : count * bytesPerValue[dtype];
  return fixedHeaderBytes + 4 * shape.length + valueBytes + checksumBytes;
}

export function isBitsEncoding(dtype: FrameDtype): dtype is BitsEncoding {
  return bitsOf(dtype) > 0;
}

/** Bits of a level; 0 for every other dtype. */
function bitsOf(dtype: FrameDtype): number {
  return dtype.startsWith('bits') ? Number(dtype.slice(4)) : 0;
}

/** Bits that hold the number of a class. */
function indexWidth(columns: number): number {
  return Math.ceil(Math.log2(columns));
}

/** What packed levels need, else the frame is not one of them: a matrix of probabilities with 2 to 1000 columns. */
function isPackable(content: FrameContent, shape: readonly number[]): boolean {
  return content === 'probabilities' && shape.length === 2 && shape[1]! >= 2 && shape[1]! <= maxPackedColumns;
}

/** The values of a frame of packed levels. */
function packLevels(levels: Uint8Array, columns: number, bits: number): Uint8Array {
  if (bits > 1) return packBits(levels, bits);
  const classes = Array.from({ length: levels.length / columns }, (_, row) => levels.indexOf(1, row * columns) - row * columns);
  return packBits(classes, indexWidth(columns));
}

/** Throws `frame-malformed` for padding that is not 0, and `value-out-of-range` for a class that does not exist or a row that does not sum to 1. */
function unpackLevels(bytes: Uint8Array, rows: number, columns: number, bits: number): Uint8Array {
  const packed = bits > 1 ? unpackBits(bytes, rows * columns, bits) : unpackBits(bytes, rows, indexWidth(columns));
  if (packed === undefined) throw malformed('padding', 'zero bits after the last value', 'others');
  if (bits === 1) {
    const levels = new Uint8Array(rows * columns);
    packed.forEach((label, row) => {
      if (label >= columns) throw outOfRange(`the class of row ${row}`, `below ${columns}`, `${label}`);
      levels[row * columns + label] = 1;
    });
    return levels;
  }
  const top = topLevel(bits);
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += packed[row * columns + c]!;
    if (sum !== top) throw outOfRange(`the sum of the levels of row ${row}`, `${top}`, `${sum}`);
  }
  return Uint8Array.from(packed);
}

function outOfRange(what: string, expected: string, got: string): FederationError {
  return new FederationError('value-out-of-range', `Matrix frame: ${what} expected ${expected}, got ${got}.`, { field: 'values', expected, got });
}

function malformed(field: string, expected: string, got: string): FederationError {
  return new FederationError('frame-malformed', `Matrix frame: ${field} expected ${expected}, got ${got}.`, { field, expected, got });
}

/** IEEE 754 binary16 bits of a float32 value, rounded to nearest even; values beyond 65504 are refused by the caller. */
export function toFloat16Bits(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  const bits = view.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 0xff) - 127 + 15;
  const mantissa = bits & 0x7fffff;
  if (exponent >= 31) return sign | 0x7c00;
  if (exponent <= 0) {
    if (exponent < -10) return sign;
    const full = mantissa | 0x800000;
    const shift = 14 - exponent;
    const half = full >>> shift;
    const rest = full & ((1 << shift) - 1);
    const midpoint = 1 << (shift - 1);
    return sign | (half + (rest > midpoint || (rest === midpoint && (half & 1)) ? 1 : 0));
  }
  const half = (exponent << 10) | (mantissa >>> 13);
  const rest = mantissa & 0x1fff;
  return sign | (half + (rest > 0x1000 || (rest === 0x1000 && (half & 1)) ? 1 : 0));
}

/** The value of IEEE 754 binary16 bits. */
export function fromFloat16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** What a `uint8` value stands for: product and sum are each rounded to float32. */
function dequantize(byte: number, scale: number, offset: number): number {
  return Math.fround(Math.fround(scale * byte) + offset);
}

function isSide(side: number): boolean {
  return Number.isInteger(side) && side >= 1 && side <= 0xffff_ffff;
}

function assertFinite(values: Float32Array): void {
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) {
      throw new FederationError('value-out-of-range', `Matrix frame: value ${i} is not a finite number.`, { field: 'values', expected: 'finite numbers', got: String(values[i]) });
    }
  }
}

/** Encodes a frame. Float values must be finite; `float16` also needs them within +-65504, and `bits1` to `bits8` a matrix of probabilities, which they quantize. */
export function encodeFrame(frame: { content: Exclude<FrameContent, 'grid'>; shape: readonly number[]; values: Float32Array; dtype?: FloatEncoding; /** What bytes 0 and 255 of `uint8` stand for; default: the least and the largest value. */ range?: readonly [number, number] } | { content: 'grid'; shape: readonly number[]; values: Int32Array; dtype: 'int32' }): Uint8Array {
  const dtype: FrameDtype = frame.dtype ?? 'float32';
  const count = frame.shape.reduce((product, side) => product * side, 1);
  if (frame.shape.length < 1 || frame.shape.length > 5 || !frame.shape.every(isSide) || count !== frame.values.length) {
    throw new RangeError(`"shape" expected 1 to 5 integer sides >= 1 whose product is ${frame.values.length}, got [${frame.shape.join(', ')}]`);
  }
  let scale = 1;
  let offset = 0;
  if (frame.values instanceof Float32Array) {
    assertFinite(frame.values);
    if (isBitsEncoding(dtype) && !isPackable(frame.content, frame.shape)) throw new RangeError(`"content" expected probabilities [rows x 2 to ${maxPackedColumns}] for ${dtype}, got ${frame.content} [${frame.shape.join(' x ')}]`);
    if (dtype === 'uint8') {
      const [low, high] = ('range' in frame ? frame.range : undefined) ?? rangeOf(frame.values);
      offset = low;
      scale = Math.fround((high - low) / 255);
      if (!Number.isFinite(dequantize(255, scale, offset))) throw new RangeError(`"values" expected a range that float32 can hold for uint8, got ${low} to ${high}`);
    }
  }
  const bytes = new Uint8Array(frameBytes(dtype, frame.shape));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, magic, true);
  view.setUint8(4, 1);
  view.setUint8(5, dtypeCodes[dtype]);
  view.setUint8(6, frame.shape.length);
  view.setUint8(7, contentCodes[frame.content]);
  view.setFloat32(8, scale, true);
  view.setFloat32(12, offset, true);
  frame.shape.forEach((side, i) => view.setUint32(fixedHeaderBytes + 4 * i, side, true));
  const start = fixedHeaderBytes + 4 * frame.shape.length;
  const values = frame.values;
  if (isBitsEncoding(dtype)) {
    const [rows, columns] = [frame.shape[0]!, frame.shape[1]!];
    bytes.set(packLevels(quantizeRows({ rows, columns, values: values as Float32Array }, bitsOf(dtype)), columns, bitsOf(dtype)), start);
  } else {
    for (let i = 0; i < count; i++) {
      const value = values[i]!;
      switch (dtype) {
        case 'float32':
          view.setFloat32(start + 4 * i, value, true);
          break;
        case 'float16': {
          const bits = toFloat16Bits(value);
          if ((bits & 0x7c00) === 0x7c00) throw new RangeError(`"values[${i}]" expected a value within +-65504 for float16, got ${value}`);
          view.setUint16(start + 2 * i, bits, true);
          break;
        }
        case 'uint8':
          view.setUint8(start + i, scale === 0 ? 0 : Math.min(255, Math.max(0, Math.round((value - offset) / scale))));
          break;
        case 'int32':
          view.setInt32(start + 4 * i, value, true);
          break;
      }
    }
  }
  view.setUint32(bytes.length - checksumBytes, crc32(bytes.subarray(0, bytes.length - checksumBytes)), true);
  return bytes;
}

/** Decodes a frame of at most `maxBytes` bytes, which is also the most that packed values take in memory; throws `frame-malformed`, `frame-checksum`, `message-too-large` or `value-out-of-range`. */
export function decodeFrame(bytes: Uint8Array, maxBytes = maxFrameBytes): Frame {
  if (bytes.length > maxBytes) {
    throw new FederationError('message-too-large', `Matrix frame of ${bytes.length} bytes is over the limit of ${maxBytes}.`, { field: 'frame', expected: `at most ${maxBytes} bytes`, got: `${bytes.length}` });
  }
  if (bytes.length < fixedHeaderBytes + 4 + checksumBytes) throw malformed('length', 'a whole header', `${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== magic) throw malformed('magic', '"FDPM"', 'other bytes');
  if (view.getUint8(4) !== 1) throw malformed('version', '1', `${view.getUint8(4)}`);
  const dtype = dtypeOf.get(view.getUint8(5));
  if (dtype === undefined) throw malformed('dtype', '1 to 12', `${view.getUint8(5)}`);
  const rank = view.getUint8(6);
  if (rank < 1 || rank > 5) throw malformed('rank', '1 to 5', `${rank}`);
  const content = contentOf.get(view.getUint8(7));
  if (content === undefined) throw malformed('content', '1 to 4', `${view.getUint8(7)}`);
  const scale = view.getFloat32(8, true);
  const offset = view.getFloat32(12, true);
  if (dtype === 'uint8' ? !(Number.isFinite(scale) && scale >= 0 && Number.isFinite(offset)) : scale !== 1 || !Object.is(offset, 0)) {
    throw malformed('scale', dtype === 'uint8' ? 'a finite scale >= 0 and a finite offset' : 'scale 1 and offset 0', `${scale}, ${offset}`);
  }
  if ((dtype === 'int32') !== (content === 'grid')) throw malformed('content', 'grid exactly with int32', `${content} with ${dtype}`);
  const start = fixedHeaderBytes + 4 * rank;
  if (bytes.length < start + checksumBytes) throw malformed('length', 'a whole header', `${bytes.length} bytes`);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(fixedHeaderBytes + 4 * i, true));
  if (isBitsEncoding(dtype) && !isPackable(content, shape)) throw malformed('shape', `probabilities [rows x 2 to ${maxPackedColumns}] with ${dtype}`, `${content} [${shape.join(' x ')}]`);
  // The product of five uint32 sides is below 2^160: exact enough in a double to compare with a length.
  if (shape.some((side) => side === 0) || frameBytes(dtype, shape) !== bytes.length) {
    throw malformed('length', `the length of shape [${shape.join(', ')}]`, `${bytes.length} bytes`);
  }
  if (view.getUint32(bytes.length - checksumBytes, true) !== crc32(bytes.subarray(0, bytes.length - checksumBytes))) {
    throw new FederationError('frame-checksum', 'Matrix frame: the checksum does not match; the bytes were damaged on the way.', { field: 'checksum', next: 'Send the frame again.' });
  }
  const count = shape.reduce((product, side) => product * side, 1);
  // A class in a few bits stands for a whole row: its sender pays a hundredth of what it takes here.
  if (isBitsEncoding(dtype) && 4 * count > maxBytes) {
    throw new FederationError('message-too-large', `Matrix frame of ${count} values is over the limit of ${maxBytes} bytes.`, { field: 'shape', expected: `at most ${Math.floor(maxBytes / 4)} values`, got: `${count}` });
  }
  if (dtype === 'int32') {
    const integers = new Int32Array(count);
    for (let i = 0; i < count; i++) integers[i] = view.getInt32(start + 4 * i, true);
    return { dtype, content, shape, values: integers };
  }
  if (isBitsEncoding(dtype)) {
    const levels = unpackLevels(bytes.subarray(start, bytes.length - checksumBytes), shape[0]!, shape[1]!, bitsOf(dtype));
    return { dtype, content, shape, values: dequantizeLevels(levels, bitsOf(dtype)) };
  }
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    values[i] = dtype === 'float32' ? view.getFloat32(start + 4 * i, true) : dtype === 'float16' ? fromFloat16Bits(view.getUint16(start + 2 * i, true)) : dequantize(view.getUint8(start + i), scale, offset);
  }
  assertFinite(values);
  return { dtype, content, shape, values };
}

function rangeOf(values: Float32Array): readonly [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** A frame of transfer examples: shape [count, ...exampleShape]. Images of 8 bits a value stay that small on the wire. */
export function encodeExamples(examples: Examples): Uint8Array {
  const frame = { content: 'features', shape: [examples.count, ...examples.shape], values: examples.values } as const;
  return encodeFrame(isEightBit(examples.values) ? { ...frame, dtype: 'uint8', range: [0, 1] } : frame);
}

/** Whether every value is a multiple of 1/255 in [0, 1], up to the rounding of float32. */
function isEightBit(values: Float32Array): boolean {
  return values.every((value) => {
    const level = value * 255;
    return value >= 0 && value <= 1 && Math.abs(level - Math.round(level)) < 1e-4;
  });
}

/** The examples of a `features` frame. */
export function decodeExamples(bytes: Uint8Array): Examples {
  const frame = decodeFrame(bytes);
  if (frame.content !== 'features' || frame.values instanceof Int32Array || frame.shape.length < 2) throw malformed('content', 'features of rank 2 to 5', `${frame.content} of rank ${frame.shape.length}`);
  return { count: frame.shape[0]!, shape: frame.shape.slice(1), values: frame.values };
}

/** A frame of predictions: shape [rows, columns]. */
export function encodePredictions(matrix: Matrix, kind: OutputKind, encoding: FloatEncoding): Uint8Array {
  return encodeFrame({ content: kind, shape: [matrix.rows, matrix.columns], values: matrix.values, dtype: encoding });
}

/** A frame of noised integers: shape [rows, columns]. */
export function encodeGrid(matrix: IntegerMatrix): Uint8Array {
  return encodeFrame({ content: 'grid', shape: [matrix.rows, matrix.columns], values: matrix.values, dtype: 'int32' });
}

/** The float matrix of a rank-2 frame of this kind and shape; throws `shape-mismatch` otherwise. */
export function decodePredictions(bytes: Uint8Array, kind: OutputKind, rows: number, columns: number): Matrix {
  const frame = decodeFrame(bytes, Math.max(bytes.length, frameBytes('float32', [rows, columns])));
  assertContribution(frame, kind, rows, columns);
  return { rows, columns, values: frame.values as Float32Array };
}

/** Throws `shape-mismatch` unless the frame is [rows x columns] of this content. */
export function assertContribution(frame: Frame, content: FrameContent, rows: number, columns: number): void {
  const isInteger = frame.values instanceof Int32Array;
  if (frame.content !== content || isInteger !== (content === 'grid') || frame.shape.length !== 2 || frame.shape[0] !== rows || frame.shape[1] !== columns) {
    const expected = `${content} [${rows} x ${columns}]`;
    const got = `${frame.content} [${frame.shape.join(' x ')}]`;
    throw new FederationError('shape-mismatch', `Matrix frame: expected ${expected}, got ${got}.`, { field: 'frame', expected, got });
  }
}
