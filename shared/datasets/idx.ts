/**
 * IDX, the format of MNIST and its relatives: big-endian header, then raw values.
 *
 *     byte 0-1  0 0
 *     byte 2    type of a value; 8 = unsigned byte, the only one read here
 *     byte 3    rank
 *     then      one uint32 a dimension (the first is the number of examples), then the values, row-major
 *
 * Source: http://yann.lecun.com/exdb/mnist/ ("the IDX file format"). Gzip is the caller's business (`node/data-source.ts`).
 * Every problem is a `FederationError('data-invalid')` that names the file; sizes are checked before anything is allocated.
 */
import { FederationError } from '../errors.ts';
import type { Examples } from '../types/matrix.ts';
import { exampleSize } from '../types/matrix.ts';
import { selectRange } from './selection.ts';
import type { Selection } from './selection.ts';

const UNSIGNED_BYTE = 0x08;
const typeNames: Readonly<Record<number, string>> = { 0x09: 'int8', 0x0b: 'int16', 0x0c: 'int32', 0x0d: 'float32', 0x0e: 'float64' };

export interface IdxImageOptions extends Selection {
  /** Names the file in errors. */
  readonly fileName: string;
  /** Shape of one example. [28, 28, 1] also accepts a file of 28 x 28 images without a channel. Default: the file's own. */
  readonly exampleShape?: readonly number[];
}

export interface IdxLabelOptions extends Selection {
  readonly fileName: string;
  /** Labels must be in [0, numClasses). */
  readonly numClasses: number;
}

interface IdxArray {
  readonly dimensions: readonly number[];
  /** One byte a value; a view, not a copy. */
  readonly values: Uint8Array;
}

/** Reads the header and checks that exactly the promised values follow. */
function parseIdx(bytes: Uint8Array, fileName: string): IdxArray {
  const invalid = (field: string, expected: string, got: string, next = 'Give the whole, unchanged file; download it again if it was cut off.') =>
    new FederationError('data-invalid', `${fileName}: ${field}: expected ${expected}, got ${got}`, { field: `${fileName}: ${field}`, expected, got, next });

  if (bytes.length < 4) throw invalid('header', 'at least 4 bytes', `${bytes.length} bytes`);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    throw invalid('magic number', 'an IDX file, which starts with two zero bytes', 'gzip data', 'Name the file *.gz, or gunzip it first.');
  }
  if (bytes[0] !== 0 || bytes[1] !== 0) {
    const got = [...bytes.subarray(0, 4)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    throw invalid('magic number', 'an IDX file, which starts with two zero bytes', `bytes ${got}`, 'Check that this is an IDX file (ubyte images or labels).');
  }
  const type = bytes[2]!;
  if (type !== UNSIGNED_BYTE) {
    throw invalid('type of a value', 'unsigned bytes (8)', `${typeNames[type] ?? 'unknown type'} (${type})`, 'Convert the values to unsigned bytes.');
  }
  const rank = bytes[3]!;
  if (rank < 1 || rank > 4) throw invalid('rank', '1 for labels, 2 to 4 for images', `${rank}`, 'Check that this is an IDX file of images or labels.');
  const headerLength = 4 + 4 * rank;
  if (bytes.length < headerLength) throw invalid('header', `${headerLength} bytes for rank ${rank}`, `${bytes.length} bytes`);

  const header = new DataView(bytes.buffer, bytes.byteOffset, headerLength);
  const dimensions = Array.from({ length: rank }, (_, i) => header.getUint32(4 + 4 * i));
  if (dimensions.slice(1).includes(0)) throw invalid('dimensions', 'sides of at least 1', dimensions.join(' x '));
  // At most 2^128: inexact, but then far more than any file holds.
  const expected = headerLength + exampleSize(dimensions);
  if (bytes.length !== expected) {
    throw invalid('length', `${expected} bytes (header and ${dimensions.join(' x ')} values)`, `${bytes.length} bytes (${bytes.length < expected ? 'cut off' : 'bytes left over'})`);
  }
  return { dimensions, values: bytes.subarray(headerLength) };
}

/** How many examples (images or labels) this IDX file holds. */
export function idxCount(bytes: Uint8Array, fileName: string): number {
  return parseIdx(bytes, fileName).dimensions[0]!;
}

/** Whether a file of this shape can serve as `wanted`: the same, or without a channel of 1. */
function shapeServes(shape: readonly number[], wanted: readonly number[]): boolean {
  const same = (a: readonly number[], b: readonly number[]) => a.length === b.length && a.every((side, i) => side === b[i]);
  return same(shape, wanted) || (shape.length === 2 && same([...shape, 1], wanted));
}

/** The chosen images, scaled from 0..255 to [0, 1]. Only these are converted, whatever the file's size. */
export function parseIdxImages(bytes: Uint8Array, options: IdxImageOptions): Examples {
  const { fileName } = options;
  const { dimensions, values } = parseIdx(bytes, fileName);
  const shape = dimensions.slice(1);
  if (shape.length === 0) {
    throw new FederationError('data-invalid', `${fileName}: expected images, got labels (rank 1)`, {
      field: `${fileName}: rank`, expected: '2 to 4 for images', got: '1', next: 'Check that image and label files are not swapped.',
    });
  }
  const wanted = options.exampleShape ?? shape;
  if (!shapeServes(shape, wanted)) {
    throw new FederationError('data-invalid', `${fileName}: expected examples of shape [${wanted.join(', ')}], got [${shape.join(', ')}]`, {
      field: `${fileName}: shape`, expected: `[${wanted.join(', ')}]`, got: `[${shape.join(', ')}]`, next: 'Set data.exampleShape to the shape of the data, or give data of that shape.',
    });
  }
  const [start, count] = selectRange(dimensions[0]!, options, fileName);
  const size = exampleSize(shape);
  const pixels = new Float32Array(count * size);
  for (let i = 0, from = start * size; i < pixels.length; i++) pixels[i] = values[from + i]! / 255;
  return { count, shape: [...wanted], values: pixels };
}

/** The chosen labels, each in [0, numClasses). */
export function parseIdxLabels(bytes: Uint8Array, options: IdxLabelOptions): Int32Array {
  const { fileName, numClasses } = options;
  const { dimensions, values } = parseIdx(bytes, fileName);
  if (dimensions.length !== 1) {
    throw new FederationError('data-invalid', `${fileName}: expected labels, got images (rank ${dimensions.length})`, {
      field: `${fileName}: rank`, expected: '1 for labels', got: `${dimensions.length}`, next: 'Check that image and label files are not swapped.',
    });
  }
  const [start, count] = selectRange(dimensions[0]!, options, fileName);
  const labels = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const label = values[start + i]!;
    if (label >= numClasses) {
      throw new FederationError('data-invalid', `${fileName}: label ${start + i}: expected a class in [0, ${numClasses}), got ${label}`, {
        field: `${fileName}: label ${start + i}`, expected: `an integer in [0, ${numClasses})`, got: `${label}`, next: 'Set data.numClasses to the number of classes in the data.',
      });
    }
    labels[i] = label;
  }
  return labels;
}

/** Refuses an images file and a labels file that do not belong together. */
export function checkIdxCounts(images: Uint8Array, imagesName: string, labels: Uint8Array, labelsName: string): void {
  const imageCount = idxCount(images, imagesName);
  const labelCount = idxCount(labels, labelsName);
  if (imageCount !== labelCount) {
    throw new FederationError('data-invalid', `${labelsName}: expected ${imageCount} labels, one for each image of ${imagesName}, got ${labelCount}`, {
      field: `${labelsName}: count`, expected: `${imageCount}`, got: `${labelCount}`, next: 'Give the labels that belong to these images.',
    });
  }
}

function encodeIdx(dimensions: readonly number[], values: Uint8Array): Uint8Array {
  const headerLength = 4 + 4 * dimensions.length;
  const bytes = new Uint8Array(headerLength + values.length);
  bytes[2] = UNSIGNED_BYTE;
  bytes[3] = dimensions.length;
  const header = new DataView(bytes.buffer);
  dimensions.forEach((dimension, i) => header.setUint32(4 + 4 * i, dimension));
  bytes.set(values, headerLength);
  return bytes;
}

/**
 * An IDX file of these examples: values in [0, 1] become round(255 * value). A last channel of 1 ([28, 28, 1]) is left
 * out, as in MNIST's own files.
 */
export function encodeIdxImages(examples: Examples): Uint8Array {
  const { shape, values } = examples;
  const written = shape.length === 3 && shape[2] === 1 ? shape.slice(0, 2) : shape;
  if (written.length < 1 || written.length > 3) {
    throw new FederationError('data-invalid', `IDX files hold examples with 1 to 3 dimensions, got shape [${shape.join(', ')}]`, {
      field: 'examples.shape', expected: '1 to 3 dimensions', got: `[${shape.join(', ')}]`, next: 'Reshape the examples.',
    });
  }
  const pixels = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (!(value >= 0 && value <= 1)) {
      throw new FederationError('data-invalid', `IDX files hold values in [0, 1], got ${value} at position ${i}`, {
        field: `examples.values[${i}]`, expected: 'a number in [0, 1]', got: `${value}`, next: 'Scale the values to [0, 1] first.',
      });
    }
    pixels[i] = Math.round(value * 255);
  }
  return encodeIdx([examples.count, ...written], pixels);
}

/** An IDX file of these labels, each in [0, 256). */
export function encodeIdxLabels(labels: Int32Array): Uint8Array {
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i]!;
    if (label < 0 || label > 255) {
      throw new FederationError('data-invalid', `IDX files hold labels in [0, 256), got ${label} at position ${i}`, {
        field: `labels[${i}]`, expected: 'an integer in [0, 256)', got: `${label}`, next: 'Use CSV for more than 256 classes.',
      });
    }
  }
  return encodeIdx([labels.length], Uint8Array.from(labels));
}
