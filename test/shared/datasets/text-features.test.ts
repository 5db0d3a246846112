import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { murmur3 } from '../../../shared/datasets/murmur3.ts';
import { MAX_TEXT_LENGTH, surfaceFeatureNames, textExamples, TOKEN_IDS } from '../../../shared/datasets/text-features.ts';
import type { TextFeatures } from '../../../shared/config/text-config.ts';
import { utf8 } from '../../../shared/types/bytes.ts';

const keys = (changes: Partial<TextFeatures> = {}): TextFeatures => ({ features: 'hashedNgrams', units: 'words', ngrams: [1, 1], seed: 0, ...changes });
const rowOf = (text: string, changes: Partial<TextFeatures> = {}, width = 64) => [...textExamples([text], keys(changes), [width]).values];

describe('MurmurHash3_x86_32', () => {
  // Vectors of the reference implementation, as published with several ports of it.
  it.each<[string, number, number]>([
    ['', 0, 0],
    ['', 1, 0x514e28b7],
    ['', 0xffffffff, 0x81f16f39],
    ['test', 0, 0xba6bd213],
    ['test', 0x9747b28c, 0x704b81dc],
    ['Hello, world!', 0, 0xc0363e43],
    ['Hello, world!', 0x9747b28c, 0x24884cba],
    ['The quick brown fox jumps over the lazy dog', 0, 0x2e4ff723],
    ['The quick brown fox jumps over the lazy dog', 0x9747b28c, 0x2fa826cd],
  ])('of %j with seed %i', (text, seed, hash) => {
    expect(murmur3(utf8(text), seed)).toBe(hash);
    // A slice of something longer hashes as it does alone.
    expect(murmur3(utf8(`ab${text}cde`), seed, 2, 2 + utf8(text).length)).toBe(hash);
  });
});

describe('hashed n-grams', () => {
  it('count each n-gram at the column and with the sign of its hash', () => {
    const hash = murmur3(utf8('free money'), 5);
    const row = rowOf('Free  MONEY', { ngrams: [2, 2], seed: 5 });
    expect(row[(hash & 0x7fff_ffff) % 64]).toBe(hash >>> 31 === 0 ? 8 : -8);
    expect(row.filter((value) => value !== 0)).toHaveLength(1);
  });

  it('weigh an n-gram by 1 + ln of its count, and scale the row to norm 8', () => {
    const row = rowOf('one two two two', {}, 4096);
    const [small, large] = row.filter((value) => value !== 0).map(Math.abs).sort((a, b) => a - b);
    expect(large! / small!).toBeCloseTo(1 + Math.log(3), 5);
    expect(Math.hypot(...row)).toBeCloseTo(8, 5);
  });

  it('see neither case nor the kind of white space, but every sign; a word is the same whatever surrounds it', () => {
    expect(rowOf('Win\tNOW!!')).toEqual(rowOf('win now ! !'));
    expect(rowOf('Win now')).not.toEqual(rowOf('win now !'));
    expect(rowOf('ﬁne')).toEqual(rowOf('fine')); // NFKC
    expect(rowOf('a\n b', { units: 'characters', ngrams: [3, 3] })).toEqual(rowOf('A B', { units: 'characters', ngrams: [3, 3] }));
    expect(rowOf('a b', { units: 'characters', ngrams: [3, 3] })).not.toEqual(rowOf('a b', { ngrams: [1, 2] }));
  });

  it('of a text without any are zero', () => {
    for (const text of ['', '  \n', 'one']) expect(rowOf(text, { ngrams: [2, 3] }).every((value) => value === 0)).toBe(true);
  });

  it('keep inner products on average, as signed hashing promises (Weinberger et al. 2009, lemma 2)', () => {
    // Texts that share 8 of 16 words: their rows, of norm 8, have the inner product 32 before hashing. Over seeds its mean stays, with a deviation of about 8 * 8 / sqrt(64) / sqrt(400).
    const words = Array.from({ length: 24 }, (_, i) => `w${i}`);
    const [a, b] = [words.slice(0, 16).join(' '), words.slice(8, 24).join(' ')];
    let sum = 0;
    for (let seed = 0; seed < 400; seed++) {
      const [x, y] = [rowOf(a, { seed }, 64), rowOf(b, { seed }, 64)];
      sum += x.reduce((product, value, i) => product + value * y[i]!, 0);
    }
    expect(Math.abs(sum / 400 - 32)).toBeLessThan(2);
  });
});

describe('tokens', () => {
  it('are ids of the first words, 0 where the text has ended', () => {
    const row = rowOf('Cash now, cash', { features: 'tokens' }, 6);
    expect(row[0]).toBe(1 + (murmur3(utf8('cash'), 0) % (TOKEN_IDS - 1)));
    expect(row[3]).toBe(row[0]);
    expect(row.slice(4)).toEqual([0, 0]);
    expect(rowOf('a b c', { features: 'tokens' }, 2)).toEqual(rowOf('a b', { features: 'tokens' }, 2));
  });
});

describe('surface features', () => {
  const surface = (text: string) => Object.fromEntries(surfaceFeatureNames.map((name, i) => [name, rowOf(text, { features: 'surface' }, 16)[i]!]));

  it('count what they say', () => {
    const found = surface('WIN $100 now!! <b>see</b> https://x.example\nÀ bientôt');
    expect(found['lines']).toBeCloseTo(Math.log1p(1) / 6);
    expect(found['exclamationMarks']).toBeCloseTo(Math.log1p(2) / 4);
    expect(found['currencySigns']).toBeCloseTo(Math.log1p(1) / 4);
    expect(found['links']).toBeCloseTo(Math.log1p(1) / 4);
    expect(found['markup']).toBeCloseTo(Math.log1p(2) / 6);
    expect(found['digits']).toBeCloseTo(3 / 53);
    expect(found['nonAscii']).toBeCloseTo(2 / 53);
    expect(found['shoutedWords']).toBeCloseTo(1 / 11); // WIN; one letter is no shout
    expect(Object.values(surface(''))).toEqual(Array(16).fill(0));
  });

  it('follow the others in a sum, and are those of the text alone', () => {
    const text = 'Dear FRIEND, 1 offer!';
    expect(rowOf(text, { features: 'hashedNgrams+surface' }, 80)).toEqual([...rowOf(text), ...rowOf(text, { features: 'surface' }, 16)]);
    expect(rowOf(text, { features: 'tokens+surface' }, 20)).toEqual([...rowOf(text, { features: 'tokens' }, 4), ...rowOf(text, { features: 'surface' }, 16)]);
  });
});

describe('texts as examples', () => {
  const anyKeys = fc.record({
    features: fc.constantFrom<TextFeatures['features'][]>('hashedNgrams', 'tokens', 'surface', 'hashedNgrams+surface', 'tokens+surface'),
    units: fc.constantFrom<TextFeatures['units'][]>('words', 'characters'),
    ngrams: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 0, max: 2 })).map(([from, more]): [number, number] => [from, from + more]),
    seed: fc.integer({ min: 0, max: 0xffff_ffff }),
  });
  /** Half surrogate pairs included. */
  const anyText = fc.oneof(fc.string({ unit: 'binary' }), fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)), fc.lorem());

  it('are finite, bounded and the same each time, whatever the text; one text does not touch another', () => {
    fc.assert(fc.property(anyKeys, fc.array(anyText, { minLength: 1, maxLength: 3 }), (options, texts) => {
      const width = options.features === 'surface' ? 16 : 40;
      const { count, shape, values } = textExamples(texts, options, [width]);
      expect([count, shape, values.length]).toEqual([texts.length, [width], texts.length * width]);
      expect(values.every((value) => Number.isFinite(value) && Math.abs(value) < TOKEN_IDS)).toBe(true);
      expect([...textExamples([texts.at(-1)!], options, [width]).values]).toEqual([...values.subarray((count - 1) * width)]);
    }));
  });

  it('of a huge line are those of its beginning', () => {
    const long = 'word '.repeat(2_000_000);
    expect(rowOf(`${long}secret`, { features: 'hashedNgrams+surface' }, 80)).toEqual(rowOf(long.slice(0, MAX_TEXT_LENGTH), { features: 'hashedNgrams+surface' }, 80));
  });

  it.each<[TextFeatures['features'], readonly number[], string]>([
    ['hashedNgrams', [28, 28, 1], '[n]'],
    ['surface', [17], '[16]'],
    ['tokens+surface', [16], 'more than the 16 columns'],
  ])('as %s do not fit %j', (features, shape, expected) => {
    expect(() => textExamples(['x'], keys({ features }), shape)).toThrow(expect.objectContaining({ code: 'data-invalid', field: 'data.exampleShape', expected: expect.stringContaining(expected) as string }));
  });

  it('are refused before anything is allocated when they are too many', () => {
    expect(() => textExamples(Array<string>(10_000).fill(''), keys(), [65_536])).toThrow(expect.objectContaining({ code: 'data-invalid', field: 'size' }));
  });
});
