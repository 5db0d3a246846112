import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { concatBytes, equalBytes, fromBase64, fromHex, fromUtf8, isWellFormed, toBase32, toBase64, toHex, uint32Bytes, utf8 } from '../../../shared/types/bytes.ts';

const someBytes = fc.uint8Array({ maxLength: 300 });

/** RFC 4648 section 10; base32 here is lower case and without padding. */
const vectors = [
  { text: '', base64: '', base32: '', hex: '' },
  { text: 'f', base64: 'Zg==', base32: 'my', hex: '66' },
  { text: 'fo', base64: 'Zm8=', base32: 'mzxq', hex: '666f' },
  { text: 'foo', base64: 'Zm9v', base32: 'mzxw6', hex: '666f6f' },
  { text: 'foob', base64: 'Zm9vYg==', base32: 'mzxw6yq', hex: '666f6f62' },
  { text: 'fooba', base64: 'Zm9vYmE=', base32: 'mzxw6ytb', hex: '666f6f6261' },
  { text: 'foobar', base64: 'Zm9vYmFy', base32: 'mzxw6ytboi', hex: '666f6f626172' },
];

describe('the encodings of RFC 4648 section 10', () => {
  it.each(vectors)('give the published texts of "$text"', ({ text, base64, base32, hex }) => {
    const bytes = utf8(text);
    expect(toBase64(bytes)).toBe(base64);
    expect(toBase32(bytes)).toBe(base32);
    expect(toHex(bytes)).toBe(hex);
    expect(fromBase64(base64)).toEqual(bytes);
    expect(fromHex(hex)).toEqual(bytes);
  });

  it('agree with Node on any bytes, and come back', () => {
    fc.assert(
      fc.property(someBytes, (bytes) => {
        expect(toBase64(bytes)).toBe(Buffer.from(bytes).toString('base64'));
        expect(toHex(bytes)).toBe(Buffer.from(bytes).toString('hex'));
        expect(fromBase64(toBase64(bytes))).toEqual(bytes);
        expect(fromHex(toHex(bytes))).toEqual(bytes);
      }),
    );
  });

  it('write base32 whose bits are those of the bytes', () => {
    fc.assert(
      fc.property(someBytes, (bytes) => {
        const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
        const expected = (bits.match(/.{1,5}/g) ?? []).map((five) => 'abcdefghijklmnopqrstuvwxyz234567'[parseInt(five.padEnd(5, '0'), 2)]).join('');
        expect(toBase32(bytes)).toBe(expected);
      }),
    );
  });
});

describe('base64 from a peer', () => {
  it.each(['Zh==', 'Zm9=', 'Zm9vYh==', 'Zm9vYmF='])('refuses %s, whose trailing bits are not zero', (text) => {
    expect(Buffer.from(text, 'base64').length).toBeGreaterThan(0); // a lenient decoder takes it
    expect(fromBase64(text)).toBeUndefined();
  });

  it.each(['Z', 'Zg', 'Zg=', 'Zg===', '=', '==', '====', 'Zg==Zg==', 'Zm9v\n', ' Zm9v', 'Zm-_', 'Zm9ö', 'A===', '=AAA', 'AA=A', '\ud800\udc00AA'])('refuses %j', (text) => {
    expect(fromBase64(text)).toBeUndefined();
  });

  it('has one text for one value: whatever decodes, encodes back to itself', () => {
    const characters = fc.string({ unit: fc.constantFrom(...'ABab01+/='), minLength: 0, maxLength: 12 });
    fc.assert(
      fc.property(characters, (text) => {
        const bytes = fromBase64(text);
        if (bytes !== undefined) expect(toBase64(bytes)).toBe(text);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('hexadecimal from a peer', () => {
  it.each(['0', 'AB', '0x', 'zz', ' 00', '00\n'])('refuses %j', (text) => {
    expect(fromHex(text)).toBeUndefined();
  });
});

describe('UTF-8', () => {
  it('comes back, a byte order mark included', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        expect(fromUtf8(utf8(text))).toBe(text);
      }),
    );
    expect(fromUtf8(utf8('\ufeffa'))).toBe('\ufeffa');
  });

  it.each(['80', 'c080', 'eda080', 'f8888080', 'ff', 'e282'])('refuses the malformed bytes %s', (hex) => {
    expect(() => fromUtf8(fromHex(hex)!)).toThrow(TypeError);
  });

  it('calls a text with a lone surrogate what it is', () => {
    for (const text of ['', 'a', 'ключ', '😀', '\ufffd']) expect(isWellFormed(text)).toBe(true);
    for (const text of ['\ud800', 'a\udfffb', '\udc00\ud800', '😀\ud83d']) expect(isWellFormed(text)).toBe(false);
  });
});

describe('comparing and joining bytes', () => {
  it('finds a difference in any single byte and in length', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), fc.nat(), fc.integer({ min: 1, max: 255 }), (bytes, where, flip) => {
        const other = Uint8Array.from(bytes);
        expect(equalBytes(bytes, other)).toBe(true);
        other[where % other.length]! ^= flip;
        expect(equalBytes(bytes, other)).toBe(false);
        expect(equalBytes(bytes, bytes.subarray(1))).toBe(false);
      }),
    );
  });

  it('joins parts in order, views of larger buffers too', () => {
    const view = Uint8Array.of(9, 1, 2, 9).subarray(1, 3);
    expect(concatBytes(view, new Uint8Array(), Uint8Array.of(3))).toEqual(Uint8Array.of(1, 2, 3));
    expect(concatBytes()).toEqual(new Uint8Array());
  });

  it.each([0, 1, 255, 256, 0x0102_0304, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff])('writes %d as four little-endian bytes', (value) => {
    expect(new DataView(uint32Bytes(value).buffer).getUint32(0, true)).toBe(value);
  });
});
