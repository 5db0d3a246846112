import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  assertContribution,
  crc32,
  decodeExamples,
  decodeFrame,
  decodePredictions,
  encodeExamples,
  encodeFrame,
  encodeGrid,
  encodePredictions,
  frameBytes,
  fromFloat16Bits,
  toFloat16Bits,
  bitsEncodings,
  type BitsEncoding,
  type FrameContent,
  type FrameDtype,
} from '../../../shared/protocol/matrix-frame.ts';
import { quantizeRows } from '../../../shared/distillation/soft-label-quantization.ts';
import { decodePartialPredictions, encodePartialPredictions, isPartialFrame, partialFrameBytes } from '../../../shared/protocol/partial-frame.ts';
import { fromHex, toHex, utf8 } from '../../../shared/types/bytes.ts';
import { federationError, readVectors } from './fixtures.ts';

const maxFloat32 = 3.4028234663852886e38;
const finite = fc.float({ noNaN: true, noDefaultInfinity: true });
/** A shape of 1 to 5 sides, and finite float32 values for it. */
const floats = fc
  .array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 })
  .chain((shape) => fc.record({ shape: fc.constant(shape), values: fc.float32Array({ minLength: product(shape), maxLength: product(shape), noNaN: true, noDefaultInfinity: true }) }));
const floatContent = fc.constantFrom('features' as const, 'logits' as const, 'probabilities' as const);

function product(shape: readonly number[]): number {
  return shape.reduce((total, side) => total * side, 1);
}

/** Bytes with their checksum made right: what an attacker sends, rather than what a bad line does. */
function withChecksum(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  new DataView(copy.buffer).setUint32(copy.length - 4, crc32(copy.subarray(0, -4)), true);
  return copy;
}

/** A second encoder, from docs/protocol.md section 9; for uint8, `values` are the bytes. */
function referenceFrame(dtype: Exclude<FrameDtype, BitsEncoding>, content: FrameContent, shape: readonly number[], values: ArrayLike<number>, scale = 1, offset = 0): Uint8Array {
  const size = { float32: 4, float16: 2, uint8: 1, int32: 4 }[dtype];
  const buffer = Buffer.alloc(16 + 4 * shape.length + size * values.length + 4);
  buffer.write('FDPM', 0, 'latin1');
  buffer.set([1, { float32: 1, float16: 2, uint8: 3, int32: 4 }[dtype], shape.length, { features: 1, logits: 2, probabilities: 3, grid: 4 }[content]], 4);
  buffer.writeFloatLE(scale, 8);
  buffer.writeFloatLE(offset, 12);
  shape.forEach((side, i) => buffer.writeUInt32LE(side, 16 + 4 * i));
  for (let i = 0; i < values.length; i++) {
    const at = 16 + 4 * shape.length + size * i;
    if (dtype === 'float32') buffer.writeFloatLE(values[i]!, at);
    else if (dtype === 'int32') buffer.writeInt32LE(values[i]!, at);
    else if (dtype === 'uint8') buffer.writeUInt8(values[i]!, at);
    else buffer.writeUInt16LE(toFloat16Bits(values[i]!), at);
  }
  let crc = 0xffffffff;
  for (const byte of buffer.subarray(0, -4)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  buffer.writeUInt32LE((crc ^ 0xffffffff) >>> 0, buffer.length - 4);
  return new Uint8Array(buffer);
}

interface GoldenFrame {
  readonly name: string;
  readonly dtype: FrameDtype;
  readonly content: FrameContent;
  readonly shape: readonly number[];
  readonly values: readonly number[];
  readonly hex: string;
}
interface GoldenRow {
  readonly name: string;
  readonly dtype: BitsEncoding;
  readonly row: readonly number[];
  readonly levels: readonly number[];
}
interface GoldenPartial {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly dtype: 'float32' | 'bits1';
  readonly shared: readonly number[];
  readonly values: readonly number[];
  readonly hex: string;
}
const { frames: golden, quantized: goldenRows, partial: goldenPartials } = readVectors<{ readonly frames: readonly GoldenFrame[]; readonly quantized: readonly GoldenRow[]; readonly partial: readonly GoldenPartial[] }>('fdp1-frames.json');

describe('golden frames (test/vectors/fdp1.md)', () => {
  it.each(golden)('$name: decodes, and encodes to the same bytes', ({ dtype, content, shape, values, hex }) => {
    const bytes = fromHex(hex)!;
    const decoded = decodeFrame(bytes);
    expect({ dtype: decoded.dtype, content: decoded.content, shape: decoded.shape }).toEqual({ dtype, content, shape });
    expect([...decoded.values]).toEqual(dtype === 'int32' ? values : values.map(Math.fround));
    const again =
      dtype === 'int32' ? encodeFrame({ dtype, content: 'grid', shape, values: Int32Array.from(values) }) : encodeFrame({ dtype, content: content as 'features', shape, values: Float32Array.from(values) });
    expect(toHex(again)).toBe(hex);
    expect(bytes.length).toBe(frameBytes(dtype, shape));
  });
});

/** Rows of probabilities, some of them certain or nearly so. */
const probabilities = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 2, max: 40 })).chain(([rows, columns]) =>
  fc.array(fc.array(fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1e-6, noNaN: true })), { minLength: columns, maxLength: columns }), { minLength: rows, maxLength: rows }).map((cells) => ({
    rows,
    columns,
    values: Float32Array.from(cells.flatMap((row, i) => {
      const certain = row.map((value, c) => (c === i % columns ? value + 1e-3 : value));
      const sum = certain.reduce((a, b) => a + b, 0);
      return certain.map((value) => value / sum);
    })),
  })),
);

describe('few bits (section 9.1)', () => {
  it.each(goldenRows)('$name', ({ dtype, row, levels }) => {
    expect([...quantizeRows({ rows: 1, columns: row.length, values: Float32Array.from(row) }, Number(dtype.slice(4)))]).toEqual(levels);
  });

  it('come back as levels that sum to one whole, each within a step of its probability, and stay as they are when sent again', () => {
    fc.assert(
      fc.property(probabilities, fc.constantFrom(...bitsEncodings), (matrix, encoding) => {
        const top = 2 ** Number(encoding.slice(4)) - 1;
        const bytes = encodePredictions(matrix, 'probabilities', encoding);
        expect(bytes.length).toBe(frameBytes(encoding, [matrix.rows, matrix.columns]));
        const decoded = decodePredictions(bytes, 'probabilities', matrix.rows, matrix.columns);
        for (let row = 0; row < matrix.rows; row++) {
          const levels = [...decoded.values.subarray(row * matrix.columns, (row + 1) * matrix.columns)].map((value) => Math.round(value * top));
          expect(levels.reduce((a, b) => a + b, 0)).toBe(top);
        }
        decoded.values.forEach((value, i) => expect(Math.abs(value - matrix.values[i]!)).toBeLessThan(1 / top + 1e-6));
        expect(toHex(encodePredictions(decoded, 'probabilities', encoding))).toBe(toHex(bytes));
      }),
    );
  });

  it('are the nearest row that there is', () => {
    // All rows of three levels that sum to 3.
    const candidates = [0, 1, 2, 3].flatMap((a) => [0, 1, 2, 3].filter((b) => a + b <= 3).map((b) => [a, b, 3 - a - b]));
    fc.assert(
      fc.property(fc.tuple(fc.double({ min: 0.01, max: 1, noNaN: true }), fc.double({ min: 0.01, max: 1, noNaN: true }), fc.double({ min: 0.01, max: 1, noNaN: true })), (cells) => {
        const sum = cells.reduce((a, b) => a + b);
        const row = Float32Array.from(cells, (value) => value / sum);
        const distance = (levels: ArrayLike<number>) => Math.hypot(...Array.from(levels, (level, i) => level / 3 - row[i]!));
        const least = Math.min(...candidates.map(distance));
        expect(distance(quantizeRows({ rows: 1, columns: 3, values: row }, 2))).toBeCloseTo(least, 6);
      }),
    );
  });

  it('take the likeliest class in one bit, and as much as its number needs', () => {
    const matrix = { rows: 1000, columns: 10, values: new Float32Array(10_000).fill(0.1) };
    expect(frameBytes('bits1', [1000, 10])).toBe(16 + 8 + 500 + 4);
    expect(decodePredictions(encodePredictions(matrix, 'probabilities', 'bits1'), 'probabilities', 1000, 10).values.slice(0, 10)).toEqual(Float32Array.of(1, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  });

  it('are for probabilities alone', () => {
    const matrix = { rows: 1, columns: 2, values: Float32Array.of(1, 0) };
    expect(() => encodePredictions(matrix, 'logits', 'bits4')).toThrow(RangeError);
    expect(() => encodePredictions({ ...matrix, rows: 2, columns: 1 }, 'probabilities', 'bits1')).toThrow(RangeError);
    federationError(() => encodePredictions({ rows: 1, columns: 2, values: new Float32Array(2) }, 'probabilities', 'bits2'), 'data-invalid');
  });

  it('are refused with a class that does not exist, a row that is not whole, padding, and more values than expected', () => {
    const forge = (encoding: BitsEncoding, at: number, byte: number) => {
      const bytes = encodePredictions({ rows: 1, columns: 5, values: Float32Array.of(1, 0, 0, 0, 0) }, 'probabilities', encoding);
      bytes[24 + at] = byte;
      return withChecksum(bytes);
    };
    expect(decodeFrame(forge('bits1', 0, 4)).values).toEqual(Float32Array.of(0, 0, 0, 0, 1));
    federationError(() => decodeFrame(forge('bits1', 0, 5)), 'value-out-of-range');
    federationError(() => decodeFrame(forge('bits1', 0, 0b1000)), 'frame-malformed');
    federationError(() => decodeFrame(forge('bits2', 0, 0b0111)), 'value-out-of-range');
    federationError(() => decodeFrame(forge('bits2', 1, 0b0100)), 'frame-malformed');
    // 16,000 rows of 1000 classes in 20 kB: 64 MB for whoever decodes it.
    const bomb = encodePredictions({ rows: 16_000, columns: 2, values: Float32Array.from({ length: 32_000 }, (_, i) => (i + 1) % 2) }, 'probabilities', 'bits1');
    const grown = new Uint8Array(frameBytes('bits1', [16_000, 1000]));
    grown.set(bomb.subarray(0, 24));
    new DataView(grown.buffer).setUint32(20, 1000, true);
    federationError(() => decodePredictions(withChecksum(grown), 'probabilities', 2000, 10), 'message-too-large');
  });
});

describe('frames of some rows (section 9.2)', () => {
  it.each(goldenPartials)('$name: decodes, and encodes to the same bytes', ({ rows, columns, dtype, shared, values, hex }) => {
    const bytes = fromHex(hex)!;
    expect(isPartialFrame(bytes)).toBe(true);
    const decoded = decodePartialPredictions(bytes, 'probabilities', dtype, rows, columns);
    expect([...decoded.values]).toEqual(values);
    expect([...decoded.shared!].flatMap((is, row) => (is === 1 ? [row] : []))).toEqual(shared);
    expect(toHex(encodePartialPredictions(decoded, decoded.shared!, 'probabilities', dtype))).toBe(hex);
    expect(bytes.length).toBe(partialFrameBytes(dtype, shared.length, rows, columns));
  });

  it('come back with the rows that were left out as zeros', () => {
    fc.assert(
      fc.property(probabilities, fc.infiniteStream(fc.boolean()), fc.constantFrom('float32' as const, 'bits8' as const, 'bits1' as const), (matrix, stream, encoding) => {
        const { rows, columns } = matrix;
        const shared = Uint8Array.from({ length: rows }, () => (stream.next().value ? 1 : 0));
        const decoded = decodePartialPredictions(encodePartialPredictions(matrix, shared, 'probabilities', encoding), 'probabilities', encoding, rows, columns);
        const whole = decodePredictions(encodePredictions(matrix, 'probabilities', encoding), 'probabilities', rows, columns);
        expect([...decoded.shared!]).toEqual([...shared]);
        decoded.values.forEach((value, i) => expect(value).toBe(shared[Math.floor(i / columns)] === 1 ? whole.values[i] : 0));
      }),
    );
  });

  it('are refused when anything about them is not so', () => {
    const frame = fromHex(goldenPartials[0]!.hex)!;
    const decode = (bytes: Uint8Array, rows = 10, columns = 2, encoding: 'float32' | 'float16' = 'float32') => decodePartialPredictions(bytes, 'probabilities', encoding, rows, columns);
    const changed = (at: number, byte: number) => {
      const copy = Uint8Array.from(frame);
      copy[at] = byte;
      return withChecksum(copy);
    };
    for (let length = 0; length < frame.length - 4; length++) federationError(() => decode(withChecksum(Uint8Array.of(...frame.subarray(0, length), 0, 0, 0, 0))), 'frame-malformed');
    federationError(() => decode(changed(4, 2)), 'frame-malformed');
    federationError(() => decode(changed(5, 1)), 'frame-malformed');
    federationError(() => decode(changed(8, 11)), 'shape-mismatch');
    federationError(() => decode(changed(13, 0b110)), 'frame-malformed'); // a bit after row 9
    federationError(() => decode(changed(12, 0b110)), 'frame-malformed'); // three rows, a frame of two
    federationError(() => decode(frame, 9), 'shape-mismatch');
    federationError(() => decode(frame, 10, 3), 'frame-malformed');
    federationError(() => decode(frame, 10, 2, 'float16'), 'frame-malformed');
    const damaged = Uint8Array.from(frame);
    damaged[12] = 3;
    federationError(() => decode(damaged), 'frame-checksum');
    fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => void federationError(() => decode(bytes))));
  });
});

describe('a frame comes back', () => {
  it('exactly in float32, and is what a second encoder writes', () => {
    fc.assert(
      fc.property(floats, floatContent, ({ shape, values }, content) => {
        const bytes = encodeFrame({ content, shape, values });
        expect(decodeFrame(bytes)).toEqual({ dtype: 'float32', content, shape, values });
        expect(toHex(bytes)).toBe(toHex(referenceFrame('float32', content, shape, values)));
      }),
    );
  });

  it('exactly in int32, and is what a second encoder writes', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 }), fc.infiniteStream(fc.integer()), (rows, columns, stream) => {
        const values = Int32Array.from({ length: rows * columns }, () => stream.next().value as number);
        const bytes = encodeGrid({ rows, columns, values });
        const frame = decodeFrame(bytes);
        expect(frame).toEqual({ dtype: 'int32', content: 'grid', shape: [rows, columns], values });
        assertContribution(frame, 'grid', rows, columns);
        expect(toHex(bytes)).toBe(toHex(referenceFrame('int32', 'grid', [rows, columns], values)));
      }),
    );
  });

  it('within half a scale in uint8, and lowest and highest value within rounding', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(finite, fc.float({ min: -20, max: 20, noNaN: true })), { minLength: 1, maxLength: 30 }), (list) => {
        const values = Float32Array.from(list, (value) => value / 4);
        const bytes = encodeFrame({ content: 'logits', shape: [values.length], values, dtype: 'uint8' });
        const scale = new DataView(bytes.buffer).getFloat32(8, true);
        const decoded = decodeFrame(bytes).values;
        const largest = Math.max(...values.map(Math.abs));
        // float32 rounding of scale, product and sum; 255 steps of a subnormal scale.
        const tiny = largest * 2 ** -21 + 255 * 2 ** -149;
        values.forEach((value, i) => expect(Math.abs(value - decoded[i]!)).toBeLessThanOrEqual(scale / 2 + tiny));
        expect(Math.abs(Math.min(...decoded) - Math.min(...values))).toBeLessThanOrEqual(tiny);
      }),
      { numRuns: 300 },
    );
  });

  it('as examples and as predictions', () => {
    const examples = { count: 2, shape: [3, 1], values: Float32Array.of(1, 2, 3, 4, 5, 6) };
    expect(decodeExamples(encodeExamples(examples))).toEqual(examples);
    const matrix = { rows: 3, columns: 2, values: examples.values };
    for (const encoding of ['float32', 'float16'] as const) expect(decodePredictions(encodePredictions(matrix, 'logits', encoding), 'logits', 3, 2)).toEqual(matrix);
  });

  it('from a view into a larger buffer', () => {
    const frame = encodeFrame({ content: 'logits', shape: [2], values: Float32Array.of(1, 2) });
    const padded = new Uint8Array(frame.length + 7);
    padded.set(frame, 3);
    expect(decodeFrame(padded.subarray(3, 3 + frame.length)).values).toEqual(Float32Array.of(1, 2));
  });
});

describe('binary16', () => {
  /** IEEE 754-2008 section 3.4 from the bits, by arithmetic other than the code's. */
  const meaning = (bits: number) => {
    const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
    return sign * (exponent === 0 ? fraction / 1024 / 16384 : ((1024 + fraction) * 2 ** exponent) / 2 ** 25);
  };

  it('reads all 65,536 patterns, and writes every one but NaN back to itself', () => {
    for (let bits = 0; bits < 65_536; bits++) {
      const value = fromFloat16Bits(bits);
      if (!Object.is(value, meaning(bits))) expect.fail(`pattern ${bits.toString(16)} reads ${value}`);
      if (!Number.isNaN(value) && toFloat16Bits(value) !== bits) expect.fail(`${value} is written as ${toFloat16Bits(value).toString(16)}, not ${bits.toString(16)}`);
    }
  });

  it('rounds to the nearest, and ties to even, between all neighbors', () => {
    const view = new DataView(new ArrayBuffer(4));
    /** The next float32 away from zero. */
    const beyond = (value: number) => {
      view.setFloat32(0, value);
      view.setUint32(0, view.getUint32(0) + 1);
      return view.getFloat32(0);
    };
    const before = (value: number) => {
      view.setFloat32(0, value);
      view.setUint32(0, view.getUint32(0) - 1);
      return view.getFloat32(0);
    };
    for (let bits = 0; bits < 0x7bff; bits++) {
      const middle = (meaning(bits) + meaning(bits + 1)) / 2; // exact in float32: one bit more than binary16
      const even = bits % 2 === 0 ? bits : bits + 1;
      for (const [value, expected] of [[before(middle), bits], [middle, even], [beyond(middle), bits + 1]] as const) {
        if (toFloat16Bits(value) !== expected) expect.fail(`${value} became ${toFloat16Bits(value)}, expected ${expected}`);
        if (toFloat16Bits(-value) !== (expected | 0x8000)) expect.fail(`${-value} lost its sign`);
      }
    }
  });

  it.each([65520, -65520, 1e6, maxFloat32])('refuses to encode %d, which would become an infinity', (value) => {
    expect(() => encodeFrame({ content: 'logits', shape: [1], values: Float32Array.of(value), dtype: 'float16' })).toThrow(RangeError);
  });

  it('takes 65519.996, which still rounds to 65504', () => {
    expect(decodeFrame(encodeFrame({ content: 'logits', shape: [1], values: Float32Array.of(65519.996), dtype: 'float16' })).values[0]).toBe(65504);
  });
});

describe('the checksum', () => {
  it('is the CRC-32 of zlib', () => {
    expect(crc32(utf8('123456789'))).toBe(0xcbf43926);
    expect(crc32(new Uint8Array())).toBe(0);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        // RFC 1952 section 2.3.1: the CRC-32 is in the last eight bytes of a gzip file.
        expect(crc32(bytes)).toBe(gzipSync(bytes).readUInt32LE(gzipSync(bytes).length - 8));
      }),
    );
  });

  it.each(golden)('or the header gives away every change of a single byte: $name', ({ hex }) => {
    const frame = fromHex(hex)!;
    for (let i = 0; i < frame.length; i++) {
      for (const flip of [1, 2, 0x40, 0x80, 0xff]) {
        const damaged = Uint8Array.from(frame);
        damaged[i]! ^= flip;
        expect(['frame-malformed', 'frame-checksum']).toContain(federationError(() => decodeFrame(damaged)).code);
      }
    }
  });
});

describe('a receiver refuses', () => {
  const frame = encodeFrame({ content: 'logits', shape: [2, 2], values: Float32Array.of(1, 2, 3, 4) });

  it.each(golden)('every truncation, and a longer frame: $name', ({ hex }) => {
    const whole = fromHex(hex)!;
    for (let length = 0; length < whole.length; length++) federationError(() => decodeFrame(whole.subarray(0, length)), 'frame-malformed');
    federationError(() => decodeFrame(Uint8Array.of(...whole, 0)), 'frame-malformed');
  });

  it.each([
    { field: 'magic', at: 0, byte: 0x66 },
    { field: 'version', at: 4, byte: 2 },
    { field: 'dtype', at: 5, byte: 0 },
    { field: 'dtype', at: 5, byte: 13 },
    { field: 'rank', at: 6, byte: 0 },
    { field: 'rank', at: 6, byte: 6 },
    { field: 'shape', at: 5, byte: 5 }, // logits in one bit
    { field: 'content', at: 7, byte: 0 },
    { field: 'content', at: 7, byte: 5 },
    { field: 'content', at: 7, byte: 4 }, // a grid of float32
    { field: 'content', at: 5, byte: 4 }, // logits of int32
    { field: 'scale', at: 11, byte: 0 }, // a scale that float32 has no use for
    { field: 'scale', at: 15, byte: 1 },
    { field: 'scale', at: 15, byte: 0x80 }, // an offset of -0: other bytes for the same values
  ])('byte $byte at $at, checksum made right, naming the $field', ({ field, at, byte }) => {
    const forged = Uint8Array.from(frame);
    forged[at] = byte;
    expect(federationError(() => decodeFrame(withChecksum(forged)), 'frame-malformed').field).toBe(field);
  });

  it.each([
    ['a negative scale', -1, 0],
    ['a scale that is not a number', NaN, 0],
    ['an infinite scale', Infinity, 0],
    ['an infinite offset', 1, -Infinity],
  ])('uint8 with %s', (_name, scale, offset) => {
    federationError(() => decodeFrame(referenceFrame('uint8', 'logits', [1], [0], scale, offset)), 'frame-malformed');
  });

  it('uint8 whose values leave float32', () => {
    federationError(() => decodeFrame(referenceFrame('uint8', 'logits', [1], [255], maxFloat32, 0)), 'value-out-of-range');
  });

  it('NaN and infinities in float32 and float16', () => {
    for (const value of [NaN, Infinity, -Infinity]) {
      federationError(() => decodeFrame(referenceFrame('float32', 'logits', [2], [0, value])), 'value-out-of-range');
    }
    for (const bits of [0x7c00, 0xfc00, 0x7e00, 0x7c01]) {
      const half = referenceFrame('float16', 'logits', [1], [0]);
      new DataView(half.buffer).setUint16(20, bits, true);
      federationError(() => decodeFrame(withChecksum(half)), 'value-out-of-range');
    }
  });

  it('a side of zero', () => {
    federationError(() => decodeFrame(withChecksum(referenceFrame('float32', 'logits', [0, 5], []))), 'frame-malformed');
  });

  it.each([1, 2, 3, 4, 5])('a header of rank %d that claims sides of 4,294,967,295, without allocating for it', (rank) => {
    for (const dtype of ['float32', 'float16', 'uint8', 'int32'] as const) {
      const claimed = referenceFrame(dtype, dtype === 'int32' ? 'grid' : 'logits', new Array<number>(rank).fill(0xffff_ffff), [0]);
      const before = process.memoryUsage();
      federationError(() => decodeFrame(claimed), 'frame-malformed');
      const after = process.memoryUsage();
      expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(1 << 20);
    }
  });

  it('sides whose product overflows 32, 53 and 64 bits back to the length that came', () => {
    // 65536 * 65536 is 0 modulo 2^32; 2^32 - 1 squared is 1 modulo 2^32.
    for (const shape of [[65_536, 65_536], [0xffff_ffff, 0xffff_ffff], [0x8000_0000, 2, 1], [65_536, 65_536, 65_536, 65_536]]) {
      federationError(() => decodeFrame(withChecksum(referenceFrame('float32', 'logits', shape, [0]))), 'frame-malformed');
      federationError(() => decodeFrame(withChecksum(referenceFrame('uint8', 'logits', shape, []))), 'frame-malformed');
    }
  });

  it('more bytes than its limit, before it looks at them', () => {
    federationError(() => decodeFrame(new Uint8Array(1001), 1000), 'message-too-large');
    expect(decodeFrame(frame, frame.length).values.length).toBe(4);
    federationError(() => decodeFrame(frame, frame.length - 1), 'message-too-large');
  });

  it('any random bytes, with a FederationError and nothing else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        federationError(() => decodeFrame(bytes));
      }),
      { numRuns: 2000 },
    );
  });

  it('or takes, but never crashes on, random bytes behind a good magic and a right checksum', () => {
    const header = fc.tuple(fc.constantFrom(0, 1, 2, 3, 4, 5), fc.constantFrom(0, 1, 2, 6), fc.constantFrom(1, 2, 3, 4, 9));
    fc.assert(
      fc.property(header, fc.uint8Array({ minLength: 20, maxLength: 80 }), ([dtype, rank, content], rest) => {
        const bytes = withChecksum(Uint8Array.of(...utf8('FDPM'), 1, dtype, rank, content, ...rest));
        try {
          decodeFrame(bytes);
        } catch {
          federationError(() => decodeFrame(bytes));
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('predictions of another content, rank or shape', () => {
    const matrix = { rows: 2, columns: 3, values: new Float32Array(6) };
    const logits = encodePredictions(matrix, 'logits', 'float32');
    federationError(() => decodePredictions(logits, 'probabilities', 2, 3), 'shape-mismatch');
    federationError(() => decodePredictions(logits, 'logits', 3, 2), 'shape-mismatch');
    federationError(() => decodePredictions(encodeFrame({ content: 'logits', shape: [6], values: matrix.values }), 'logits', 2, 3), 'shape-mismatch');
    federationError(() => decodePredictions(encodeGrid({ rows: 2, columns: 3, values: new Int32Array(6) }), 'logits', 2, 3), 'shape-mismatch');
    federationError(() => assertContribution(decodeFrame(logits), 'grid', 2, 3), 'shape-mismatch');
    federationError(() => decodeExamples(logits), 'frame-malformed');
    federationError(() => decodeExamples(encodeFrame({ content: 'features', shape: [6], values: matrix.values })), 'frame-malformed');
  });
});

describe('a sender refuses to encode', () => {
  it.each([
    ['an empty matrix', [0, 3], 0],
    ['no sides', [], 1],
    ['no values', [], 0],
    ['six sides', [1, 1, 1, 1, 1, 1], 1],
    ['a product other than the number of values', [2, 3], 5],
    ['negative sides', [-2, -3], 6],
    ['sides that are not integers', [2.5, 4], 10],
    ['a side that is not a number', [NaN], 1],
  ])('%s', (_name, shape, count) => {
    expect(() => encodeFrame({ content: 'logits', shape, values: new Float32Array(count) })).toThrow(RangeError);
    expect(() => encodeFrame({ content: 'grid', shape, values: new Int32Array(count), dtype: 'int32' })).toThrow(RangeError);
  });

  it.each([NaN, Infinity, -Infinity])('the value %d, in any encoding', (value) => {
    for (const dtype of ['float32', 'float16', 'uint8'] as const) federationError(() => encodeFrame({ content: 'logits', shape: [2], values: Float32Array.of(0, value), dtype }), 'value-out-of-range');
  });

  it('a range for uint8 that it could not read back', () => {
    expect(() => encodeFrame({ content: 'logits', shape: [2], values: Float32Array.of(-maxFloat32, maxFloat32), dtype: 'uint8' })).toThrow(RangeError);
  });
});
