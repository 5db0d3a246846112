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
  type FrameContent,
  type FrameDtype,
} from '../../../shared/protocol/matrix-frame.ts';
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
function referenceFrame(dtype: FrameDtype, content: FrameContent, shape: readonly number[], values: ArrayLike<number>, scale = 1, offset = 0): Uint8Array {
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
const golden = readVectors<{ readonly frames: readonly GoldenFrame[] }>('fdp1-frames.json').frames;

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
    { field: 'dtype', at: 5, byte: 5 },
    { field: 'rank', at: 6, byte: 0 },
    { field: 'rank', at: 6, byte: 6 },
    { field: 'content', at: 7, byte: 0 },
    { field: 'content', at: 7, byte: 5 },
    { field: 'content', at: 7, byte: 4 }, // a grid of float32
    { field: 'content', at: 5, byte: 4 }, // logits of int32
    { field: 'scale', at: 11, byte: 0 }, // a scale that float32 has no use for
    { field: 'scale', at: 15, byte: 1 },
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
