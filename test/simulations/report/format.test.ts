import { describe, expect, it } from 'vitest';
import {
  bytes,
  clientLabels,
  comparedWithWeights,
  displayWidth,
  duration,
  epsilon,
  escapeMarkup,
  integer,
  percent,
  points,
  samplingHalfWidth,
  smallNumber,
  summarize,
  truncate,
  visibleLine,
} from '../../../simulations/report/format.ts';

describe('summaries', () => {
  it('divides by n - 1, so that the deviation is not too small for few clients', () => {
    expect(summarize([2, 4, 4, 4, 5, 5, 7, 9])).toEqual({ count: 8, mean: 5, stddev: Math.sqrt(32 / 7) });
  });
  it('has no deviation for one value and no mean for none', () => {
    expect(summarize([0.3])).toEqual({ count: 1, mean: 0.3, stddev: null });
    expect(summarize([])).toEqual({ count: 0, mean: null, stddev: null });
  });
  it('leaves out what is not a number', () => {
    expect(summarize([NaN, 1, Infinity, 3])).toEqual({ count: 2, mean: 2, stddev: Math.SQRT2 });
  });
  it('gives the textbook sampling error: 2.19 points at 50% of 2000 examples', () => {
    expect(samplingHalfWidth(0.5, 2000)).toBeCloseTo(0.021913, 6);
    expect(samplingHalfWidth(0.5, 0)).toBeNull();
    expect(samplingHalfWidth(NaN, 2000)).toBeNull();
  });
});

describe('numbers', () => {
  it.each([
    [0.91234, '91.2'],
    [1, '100.0'],
    [-0.0001, '0.0'],
    [NaN, 'n/a'],
    [null, 'n/a'],
  ])('percent(%s) is %s', (value, text) => expect(percent(value)).toBe(text));
  it.each([
    [0.0771, '+7.7'],
    [-0.0771, '−7.7'],
    [0.0004, '0.0'],
    [-0.0004, '0.0'],
    [Infinity, 'n/a'],
  ])('points(%s) is %s', (value, text) => expect(points(value)).toBe(text));
  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [999.7, '1.00 kB'],
    [1000, '1.00 kB'],
    [9_995, '10.0 kB'],
    [1_052_023, '1.05 MB'],
    [999_499, '999 kB'],
    [999_501, '1.00 MB'],
    [7e15, '7.00 PB'],
    [NaN, 'n/a'],
  ])('bytes(%s) is %s', (value, text) => expect(bytes(value)).toBe(text));
  it.each([
    [0, '0'],
    [999, '999'],
    [1_234_567, '1,234,567'],
    [-1_000, '−1,000'],
  ])('integer(%s) is %s', (value, text) => expect(integer(value)).toBe(text));
  it('rounds epsilon up: what is printed stays an upper bound', () => {
    expect(epsilon(3.14159)).toBe('3.142');
    expect(epsilon(3.1401)).toBe('3.141');
    expect(epsilon(8)).toBe('8');
    expect(epsilon(Infinity)).toBe('∞');
    for (let i = 1; i < 500; i++) expect(Number(epsilon(i * 0.0271828))).toBeGreaterThanOrEqual(i * 0.0271828);
  });
  it('writes a small delta as a power of ten', () => {
    expect(smallNumber(1e-5)).toBe('1e−5');
    expect(smallNumber(2.5e-7)).toBe('2.5e−7');
    expect(smallNumber(0.1713)).toBe('0.171');
    expect(smallNumber(0)).toBe('0');
  });
  it('says as plainly when distillation moves more', () => {
    expect(comparedWithWeights(100, 4321)).toBe('43× less');
    expect(comparedWithWeights(140, 100)).toBe('1.4× more');
    expect(comparedWithWeights(100, 100)).toBe('as much');
    expect(comparedWithWeights(0, 100)).toBe('n/a');
  });
  it('writes a time', () => {
    expect(duration(9.96)).toBe('10.0 s');
    expect(duration(131)).toBe('2 min 11 s');
  });
});

describe('text from outside', () => {
  it('cannot steer a terminal', () => {
    expect(visibleLine('\u001b[2Jcleared\u0007\u009b31m')).toBe('\ufffd[2Jcleared\ufffd\ufffd31m');
  });
  it('cannot reorder or hide text', () => {
    expect(visibleLine('safe\u202eevil\u2066\u200b')).toBe('safe\ufffdevil\ufffd\ufffd');
  });
  it('cannot break a line, or leave characters that XML does not know', () => {
    expect(visibleLine('a\r\nb\tc\u0000\ud800\uffff')).toBe('a b c\ufffd\ufffd\ufffd');
  });
  it('keeps letters of any script', () => {
    expect(visibleLine('Ærø 病院 مستشفى 🏥')).toBe('Ærø 病院 مستشفى 🏥');
  });
  it('cannot become markup', () => {
    expect(escapeMarkup(`<img src=x onerror="a('&amp;')">`)).toBe('&lt;img src=x onerror=&quot;a(&#39;&amp;amp;&#39;)&quot;&gt;');
  });
  it('is told apart by a number where names are equal or would be once cut', () => {
    expect(clientLabels([{ name: 'north' }, { name: 'Universitätsklinikum A' }, { name: 'Universitätsklinikum B' }])).toEqual(['north', '2. Universitätsklinikum A', '3. Universitätsklinikum B']);
    expect(clientLabels([{ name: 'x' }, { name: 'x' }])).toEqual(['1. x', '2. x']);
    expect(clientLabels([{ name: ' ' }])).toEqual(['(no name)']);
  });
  it('takes the columns that a terminal gives it', () => {
    expect(displayWidth('病院')).toBe(4);
    expect(displayWidth('e\u0301')).toBe(1);
    expect(displayWidth('🏥')).toBe(2);
    expect(truncate('病院病院', 5)).toBe('病院…');
    expect(truncate('four', 4)).toBe('four');
  });
});
