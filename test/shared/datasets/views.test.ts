import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { View, ViewStep } from '../../../shared/config/view-config.ts';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { applyView, formatView, parseView, viewLabelled, viewShape } from '../../../shared/datasets/views.ts';
import { exampleSize, selectExamples, type Examples } from '../../../shared/types/matrix.ts';

/** Values that are 64ths: their means over blocks of 4 and differences are exact in float32. */
function examplesOf(count: number, shape: readonly number[], seed = 1): Examples {
  const generator = new SeededGenerator(seed);
  return { count, shape, values: Float32Array.from({ length: count * exampleSize(shape) }, () => Math.floor(64 * generator.uniform()) / 64) };
}

/** A shape and a view that fits it. */
const fitting = fc
  .record({ height: fc.integer({ min: 1, max: 3 }).map((n) => 4 * n), width: fc.integer({ min: 1, max: 3 }).map((n) => 4 * n), channels: fc.integer({ min: 1, max: 2 }), choices: fc.array(fc.record({ kind: fc.constantFrom('crop', 'downsample', 'gradient'), a: fc.nat(), b: fc.nat() }), { maxLength: 3 }) })
  .map(({ height, width, channels, choices }) => {
    const shape: readonly number[] = [height, width, channels];
    const view: ViewStep[] = [];
    let seen = shape;
    const range = (side: number, from: number, length: number): [number, number] => [from % side, (from % side) + 1 + (length % (side - (from % side)))];
    for (const { kind, a, b } of choices) {
      if (kind === 'downsample' && (seen[0]! % 2 !== 0 || seen[1]! % 2 !== 0)) continue;
      view.push(kind === 'gradient' ? { kind } : kind === 'downsample' ? { kind, factor: 2 } : { kind: 'crop', rows: range(seen[0]!, a, b), columns: range(seen[1]!, b, a) });
      seen = viewShape(view, shape);
    }
    return { shape, view };
  });

describe('views', () => {
  it('give the promised shape, the same each time, to each example by itself', () => {
    fc.assert(fc.property(fitting, fc.integer({ min: 1, max: 4 }), fc.nat(), ({ shape, view }, count, seed) => {
      const examples = examplesOf(count, shape, seed % 2 ** 31);
      const seen = applyView(view, examples);
      expect(seen.shape).toEqual(viewShape(view, shape));
      expect(seen.values).toHaveLength(count * exampleSize(seen.shape));
      expect(applyView(view, examples)).toEqual(seen);
      const last = selectExamples(examples, [count - 1]);
      expect(applyView(view, last)).toEqual(selectExamples(seen, [count - 1]));
    }));
  });

  it('of several steps are the views of their steps, one after the other', () => {
    fc.assert(fc.property(fitting, ({ shape, view }) => {
      const examples = examplesOf(2, shape);
      for (let split = 0; split <= view.length; split++) expect(applyView(view.slice(split), applyView(view.slice(0, split), examples))).toEqual(applyView(view, examples));
    }));
  });

  it('can be written and read back', () => {
    fc.assert(fc.property(fitting.filter(({ view }) => view.length > 0), ({ view }) => {
      expect(parseView(formatView(view))).toEqual(view);
    }));
    expect(formatView([])).toBe('whole');
  });

  it('leave examples alone without steps, and never write into them', () => {
    const examples = examplesOf(2, [4, 4, 1]);
    const before = examples.values.slice();
    expect(applyView([], examples)).toBe(examples);
    const halves = viewLabelled([{ kind: 'crop', rows: [0, 2] }], { examples, labels: Int32Array.of(1, 0), numClasses: 2 });
    halves.examples.values.fill(9);
    expect(examples.values).toEqual(before);
    expect([...halves.labels]).toEqual([1, 0]);
  });
});

describe('cropping', () => {
  it('cuts halves that together are the whole', () => {
    const examples = examplesOf(3, [4, 6, 2]);
    const size = exampleSize([4, 6, 2]);
    const upper = applyView([{ kind: 'crop', rows: [0, 2] }], examples);
    const lower = applyView([{ kind: 'crop', rows: [2, 4] }], examples);
    for (let i = 0; i < 3; i++) {
      const joined = [...upper.values.subarray((i * size) / 2, ((i + 1) * size) / 2), ...lower.values.subarray((i * size) / 2, ((i + 1) * size) / 2)];
      expect(joined).toEqual([...examples.values.subarray(i * size, (i + 1) * size)]);
    }
  });

  it('does not mind in which order rows and columns are cut', () => {
    const examples = examplesOf(2, [4, 6, 2]);
    const [rows, columns] = [{ kind: 'crop', rows: [1, 3] }, { kind: 'crop', columns: [2, 5] }] as const satisfies ViewStep[] as unknown as View;
    expect(applyView([rows!, columns!], examples)).toEqual(applyView([columns!, rows!], examples));
    expect(applyView([{ kind: 'crop', rows: [1, 3], columns: [2, 5] }], examples)).toEqual(applyView([rows!, columns!], examples));
  });

  it('takes positions of a vector', () => {
    const seen = applyView([{ kind: 'crop', columns: [1, 3] }], { count: 2, shape: [4], values: Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7) });
    expect(seen).toEqual({ count: 2, shape: [2], values: Float32Array.of(1, 2, 5, 6) });
  });
});

describe('downsampling and gradients', () => {
  it('means of squares, so that halving twice is quartering', () => {
    const image = { count: 1, shape: [2, 4, 1], values: Float32Array.of(0, 1, 2, 4, 1, 2, 4, 6) };
    expect([...applyView([{ kind: 'downsample', factor: 2 }], image).values]).toEqual([1, 4]);
    const examples = examplesOf(2, [8, 12, 2]);
    expect(applyView([{ kind: 'downsample', factor: 2 }, { kind: 'downsample', factor: 2 }], examples)).toEqual(applyView([{ kind: 'downsample', factor: 4 }], examples));
  });

  it('differences along rows and columns: those of a slope are its steepness, those of a flat image nothing', () => {
    const slope = { count: 1, shape: [3, 3, 1], values: Float32Array.from({ length: 9 }, (_, i) => 3 * Math.floor(i / 3) + 0.5 * (i % 3)) };
    const { shape, values } = applyView([{ kind: 'gradient' }], slope);
    expect(shape).toEqual([3, 3, 2]);
    expect([...values.subarray(8, 10)]).toEqual([3, 0.5]); // the middle
    expect([...values.subarray(0, 2)]).toEqual([1.5, 0.25]); // a corner: half a difference
    expect(applyView([{ kind: 'gradient' }], { count: 2, shape: [3, 4, 2], values: new Float32Array(48).fill(0.7) }).values.every((value) => value === 0)).toBe(true);
  });
});

describe('views that do not fit', () => {
  it.each<[string, View, readonly number[], string]>([
    ['rows that are not there', [{ kind: 'crop', rows: [0, 29] }], [28, 28, 1], 'rows up to 28'],
    ['positions that are not there', [{ kind: 'crop', columns: [0, 9] }], [8], 'columns up to 8'],
    ['rows of a vector', [{ kind: 'crop', rows: [0, 1] }], [8], 'vectors [n] and columns alone'],
    ['a crop of nothing', [{ kind: 'crop' }], [28, 28, 1], 'rows, columns or both'],
    ['sides that do not divide', [{ kind: 'downsample', factor: 3 }], [28, 28, 1], 'multiples of 3'],
    ['a vector downsampled', [{ kind: 'downsample', factor: 2 }], [8], 'images [height, width, channels]'],
    ['the gradient of a video', [{ kind: 'gradient' }], [2, 8, 8, 1], 'images [height, width, channels]'],
    ['a second step too much', [{ kind: 'downsample', factor: 4 }, { kind: 'downsample', factor: 2 }], [28, 28, 1], 'multiples of 2'],
  ])('refuses %s', (_, view, shape, expected) => {
    expect(() => viewShape(view, shape)).toThrow(expect.objectContaining({ code: 'config-invalid', field: 'view', expected: expect.stringContaining(expected) as string }));
    expect(() => applyView(view, { count: 1, shape, values: new Float32Array(exampleSize(shape)) })).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  });

  it.each(['', 'crop', 'crop:', 'crop:rows=14', 'crop:rows=14-0', 'crop:rows=0-14,rows=1-2', 'crop:row=0-14', 'downsample', 'downsample:1', 'downsample:x', 'gradient:2', 'rotate:90', 'gradient+', 'crop:rows=-1-3'])('cannot be read from %j', (text) => {
    expect(() => parseView(text)).toThrow(expect.objectContaining({ code: 'usage-invalid', got: text }));
  });
});
