/**
 * Texts as examples, by public functions of one text: no vocabulary, frequencies or means of anybody's texts, so that clients need to agree on nothing but a few
 * keys, and what is private costs nothing before training.
 *
 * - **Hashed n-grams** (signed feature hashing, Weinberger et al. 2009, sec. 2): each n-gram adds or subtracts 1 + ln(its count) at the column that its hash names, the
 *   sign being one more bit of the hash. Rows then have L2 norm `ROW_NORM`; the row of a text without n-grams is zero.
 * - **Tokens**: ids of the first words and signs, 1 + hash, and 0 for none: for an embedding.
 * - **Surface**: sixteen counts and shares (`surfaceFeatureNames`), between 0 and about 1 by fixed divisors.
 *
 * Text is compatibility-composed (NFKC) and lower-cased for n-grams and tokens. A token is a run of letters, digits, marks, _ and apostrophes, or any other sign but
 * white space. Characters of n-grams are code points, with white space as one space.
 */
import type { TextFeatures } from '../config/text-config.ts';
import { FederationError } from '../errors.ts';
import { utf8 } from '../types/bytes.ts';
import { exampleSize, type Examples } from '../types/matrix.ts';
import { murmur3 } from './murmur3.ts';

/** UTF-16 units of a text that are looked at; what follows is not. */
export const MAX_TEXT_LENGTH = 16_384;
/** Token ids are below this: the height of an embedding. */
export const TOKEN_IDS = 4096;
/** L2 norm of a row of hashed n-grams: about one for each of the n-grams of a short message, so that first layers see inputs of the size they are made for. */
const ROW_NORM = 8;
/** 1 GiB as float32: more is a typing error. */
const MAX_VALUES = 2 ** 28;

const word = String.raw`[\p{L}\p{N}\p{M}_'’]+`;
const tokenPattern = new RegExp(String.raw`${word}|[^\s\p{L}\p{N}\p{M}]`, 'gu');
const wordPattern = new RegExp(word, 'gu');

/** What the columns of `surface` are, in order. */
export const surfaceFeatureNames = [
  'characters', 'words', 'lines', 'meanWordLength', 'longestWord', 'letters', 'upperCase', 'digits', 'whiteSpace', 'punctuation', 'nonAscii', 'exclamationMarks', 'currencySigns', 'links', 'markup', 'shoutedWords',
] as const;

/** Where the parts of an example begin: `main` columns of n-grams or tokens, then those of `surface`. Throws `data-invalid` for a shape that has no room for them. */
export function textColumns({ features }: Pick<TextFeatures, 'features'>, exampleShape: readonly number[]): { readonly main: number; readonly surface: number } {
  const surface = features.endsWith('surface') ? surfaceFeatureNames.length : 0;
  const main = exampleSize(exampleShape) - surface;
  const fits = exampleShape.length === 1 && (features === 'surface' ? main === 0 : main >= 1);
  if (!fits) {
    const expected = features === 'surface' ? `[${surface}]` : surface === 0 ? '[n]' : `[n], with n more than the ${surface} columns of surface`;
    throw new FederationError('data-invalid', `Texts as ${features} have another shape than the task's examples.`, { field: 'data.exampleShape', expected, got: `[${exampleShape.join(', ')}]`, next: 'Change data.exampleShape, or choose other `features`.' });
  }
  return { main, surface };
}

/** Each text as an example of this shape, [n]. Throws `data-invalid`. */
export function textExamples(texts: readonly string[], keys: TextFeatures, exampleShape: readonly number[]): Examples {
  const { main, surface } = textColumns(keys, exampleShape);
  const width = main + surface;
  if (texts.length * width > MAX_VALUES) {
    throw new FederationError('data-invalid', 'These are more values than can be held at once.', { field: 'size', expected: `at most ${MAX_VALUES} values`, got: `${texts.length} texts of ${width} values`, next: 'Ask for fewer texts or fewer columns.' });
  }
  const values = new Float32Array(texts.length * width);
  texts.forEach((whole, i) => {
    const text = whole.slice(0, MAX_TEXT_LENGTH);
    const row = values.subarray(i * width, (i + 1) * width);
    if (keys.features.startsWith('hashedNgrams')) writeHashedNgrams(text, keys, row.subarray(0, main));
    else if (keys.features.startsWith('tokens')) writeTokens(text, keys.seed, row.subarray(0, main));
    if (surface > 0) writeSurface(text, row.subarray(main));
  });
  return { count: texts.length, shape: [width], values };
}

function normalize(text: string): string {
  return text.normalize('NFKC').toLowerCase();
}

function writeHashedNgrams(text: string, { units, ngrams: [shortest, longest], seed }: TextFeatures, row: Float32Array): void {
  const isWords = units === 'words';
  const pieces = isWords ? (normalize(text).match(tokenPattern) ?? []) : [...normalize(text).replace(/\s+/gu, ' ').trim()];
  // The n-grams are slices of this: words are joined by a space.
  const encoded = pieces.map(utf8);
  const gap = isWords ? 1 : 0;
  const bytes = new Uint8Array(encoded.reduce((sum, piece) => sum + piece.length + gap, 0)).fill(0x20);
  const starts: number[] = [];
  const ends: number[] = [];
  let at = 0;
  for (const piece of encoded) {
    bytes.set(piece, at);
    starts.push(at);
    ends.push(at + piece.length);
    at += piece.length + gap;
  }
  const counts = new Map<number, number>();
  for (let first = 0; first < pieces.length; first++) {
    for (let last = first + shortest - 1; last < Math.min(first + longest, pieces.length); last++) {
      const hash = murmur3(bytes, seed, starts[first], ends[last]);
      counts.set(hash, (counts.get(hash) ?? 0) + 1);
    }
  }
  const sums = new Float64Array(row.length);
  for (const [hash, count] of counts) sums[(hash & 0x7fff_ffff) % row.length]! += (hash >>> 31 === 0 ? 1 : -1) * (1 + Math.log(count));
  const norm = Math.sqrt(sums.reduce((total, sum) => total + sum * sum, 0));
  if (norm > 0) sums.forEach((sum, i) => (row[i] = (ROW_NORM * sum) / norm));
}

function writeTokens(text: string, seed: number, row: Float32Array): void {
  const tokens = normalize(text).matchAll(tokenPattern);
  let at = 0;
  for (const [token] of tokens) {
    if (at === row.length) return;
    row[at++] = 1 + (murmur3(utf8(token), seed) % (TOKEN_IDS - 1));
  }
}

const count = (text: string, pattern: RegExp) => text.match(pattern)?.length ?? 0;

function writeSurface(text: string, row: Float32Array): void {
  const words = text.match(wordPattern) ?? [];
  const lengths = words.map((one) => one.length);
  const letters = count(text, /\p{L}/gu);
  const shout = words.filter((one) => one.length > 1 && /\p{Lu}/u.test(one) && !/\p{Ll}/u.test(one)).length;
  // Counts grow by their logarithm; the divisors make long messages about 1.
  const grown = (value: number, divisor: number) => Math.log1p(value) / divisor;
  const share = (value: number, of: number) => (of === 0 ? 0 : value / of);
  const features: Readonly<Record<(typeof surfaceFeatureNames)[number], number>> = {
    characters: grown(text.length, 10),
    words: grown(words.length, 8),
    lines: grown(count(text, /\n/g), 6),
    meanWordLength: share(lengths.reduce((sum, one) => sum + one, 0), words.length) / 10,
    longestWord: grown(lengths.reduce((most, one) => Math.max(most, one), 0), 5),
    letters: share(letters, text.length),
    upperCase: share(count(text, /\p{Lu}/gu), letters),
    digits: share(count(text, /\p{Nd}/gu), text.length),
    whiteSpace: share(count(text, /\s/gu), text.length),
    punctuation: share(count(text, /\p{P}/gu), text.length),
    nonAscii: share(count(text, /[^\0-\x7f]/g), text.length),
    exclamationMarks: grown(count(text, /!/g), 4),
    currencySigns: grown(count(text, /\p{Sc}/gu), 4),
    links: grown(count(text, /https?:|www\./gi), 4),
    markup: grown(count(text, /<[a-z/!]/gi), 6),
    shoutedWords: share(shout, words.length),
  };
  surfaceFeatureNames.forEach((name, i) => (row[i] = features[name]));
}
