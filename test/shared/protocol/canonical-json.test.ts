import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalJson, type Json } from '../../../shared/protocol/canonical-json.ts';

/** A second encoder, written from RFC 8785 and unlike ours: characters escaped one by one, keys sorted as arrays of code units. */
function referenceEncoder(value: Json): string {
  const text = (string: string): string => {
    const short: Record<number, string> = { 8: '\\b', 9: '\\t', 10: '\\n', 12: '\\f', 13: '\\r', 34: '\\"', 92: '\\\\' };
    let out = '"';
    for (let i = 0; i < string.length; i++) {
      const unit = string.charCodeAt(i);
      out += short[unit] ?? (unit < 32 ? `\\u${unit.toString(16).padStart(4, '0')}` : string[i]!);
    }
    return `${out}"`;
  };
  switch (typeof value) {
    case 'string':
      return text(value);
    case 'number':
      return value === 0 ? '0' : String(value);
    case 'boolean':
      return value ? 'true' : 'false';
    default: {
      if (value === null) return 'null';
      if (Array.isArray(value)) return `[${(value as Json[]).map(referenceEncoder).join()}]`;
      const members = Object.entries(value as Record<string, Json>);
      const units = (key: string) => Array.from({ length: key.length }, (_, i) => key.charCodeAt(i).toString().padStart(5, '0')).join('');
      members.sort(([a], [b]) => (units(a) < units(b) ? -1 : 1));
      return `{${members.map(([key, member]) => `${text(key)}:${referenceEncoder(member)}`).join()}}`;
    }
  }
}

const texts = fc.string({ unit: 'grapheme', maxLength: 12 });
/** JSON has no -0, and a `__proto__` key cannot be written as a literal: JSON.parse makes it an own member, as it should. */
const json = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constant(null),
    fc.boolean(),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => (value === 0 ? 0 : value)),
    fc.integer(),
    texts,
    fc.array(tie('value'), { maxLength: 5 }),
    fc.dictionary(texts, tie('value'), { maxKeys: 6, noNullPrototype: true }),
  ),
})).value;

describe('canonical JSON', () => {
  it('gives the example of RFC 8785 section 3.2.2 and 3.2.3', () => {
    const value = JSON.parse(String.raw`{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }`) as Json;
    expect(canonicalJson(value)).toBe(String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`);
  });

  it('sorts members by UTF-16 code units, as in RFC 8785 section 3.2.3', () => {
    const value = { '€': 'Euro Sign', '\r': 'Carriage Return', '\ufb33': 'Hebrew Letter Dalet With Dagesh', '1': 'One', '😀': 'Emoji: Grinning Face', '\u0080': 'Control', 'ö': 'Latin Small Letter O With Diaeresis' };
    expect(canonicalJson(value)).toBe('{"\\r":"Carriage Return","1":"One","\u0080":"Control","ö":"Latin Small Letter O With Diaeresis","€":"Euro Sign","😀":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}');
  });

  /** RFC 8785 appendix B: IEEE 754 bits and their text. */
  it.each([
    ['0000000000000000', '0'],
    ['8000000000000000', '0'],
    ['0000000000000001', '5e-324'],
    ['8000000000000001', '-5e-324'],
    ['7fefffffffffffff', '1.7976931348623157e+308'],
    ['ffefffffffffffff', '-1.7976931348623157e+308'],
    ['4340000000000000', '9007199254740992'],
    ['c340000000000000', '-9007199254740992'],
    ['4430000000000000', '295147905179352830000'],
    ['44b52d02c7e14af5', '9.999999999999997e+22'],
    ['44b52d02c7e14af6', '1e+23'],
    ['44b52d02c7e14af7', '1.0000000000000001e+23'],
    ['444b1ae4d6e2ef4e', '999999999999999700000'],
    ['444b1ae4d6e2ef4f', '999999999999999900000'],
    ['444b1ae4d6e2ef50', '1e+21'],
    ['3eb0c6f7a0b5ed8c', '9.999999999999997e-7'],
    ['3eb0c6f7a0b5ed8d', '0.000001'],
    ['41b3de4355555553', '333333333.3333332'],
    ['41b3de4355555557', '333333333.33333343'],
    ['becbf647612f3696', '-0.0000033333333333333333'],
    ['43143ff3c1cb0959', '1424953923781206.2'],
  ])('writes the number %s as RFC 8785 appendix B does', (bits, text) => {
    expect(canonicalJson(Buffer.from(bits, 'hex').readDoubleBE(0))).toBe(text);
  });

  it.each([NaN, Infinity, -Infinity])('refuses %d, at any depth', (value) => {
    expect(() => canonicalJson(value)).toThrow(TypeError);
    expect(() => canonicalJson({ a: [{ b: value }] })).toThrow(TypeError);
  });

  it('refuses lone surrogates in texts and in member names (RFC 8785 section 3.2.2.2)', () => {
    for (const text of ['\ud800', 'a\udc00', '\udead\ud800']) {
      expect(() => canonicalJson(text)).toThrow(TypeError);
      expect(() => canonicalJson({ [text]: 1 })).toThrow(TypeError);
    }
  });

  it('leaves out members that are undefined, as JSON does', () => {
    expect(canonicalJson({ b: undefined, a: 1 })).toBe('{"a":1}');
  });

  it('parses back to the same value', () => {
    fc.assert(
      fc.property(json, (value) => {
        expect(JSON.parse(canonicalJson(value))).toEqual(value);
      }),
    );
  });

  it('does not depend on the order of members, and is its own canonical form', () => {
    const reversed = (value: Json): Json => {
      if (value === null || typeof value !== 'object') return value;
      if (Array.isArray(value)) return (value as Json[]).map(reversed);
      return Object.fromEntries(Object.entries(value as Record<string, Json>).reverse().map(([key, member]) => [key, reversed(member)]));
    };
    fc.assert(
      fc.property(json, (value) => {
        const text = canonicalJson(value);
        expect(canonicalJson(reversed(value))).toBe(text);
        expect(canonicalJson(JSON.parse(text) as Json)).toBe(text);
      }),
    );
  });

  it('is what a second encoder writes', () => {
    fc.assert(
      fc.property(json, (value) => {
        expect(canonicalJson(value)).toBe(referenceEncoder(value));
      }),
      { numRuns: 500 },
    );
  });
});
