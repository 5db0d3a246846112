import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkIdxCounts, encodeIdxImages, encodeIdxLabels, idxCount, parseIdxImages, parseIdxLabels } from '../../../shared/datasets/idx.ts';
import { FederationError } from '../../../shared/errors.ts';
import { exampleSize } from '../../../shared/types/matrix.ts';

const fileName = 'train-images-idx3-ubyte';

/** The FederationError that `act` throws; fails for anything else. */
function refusal(act: () => unknown): FederationError {
  try {
    act();
  } catch (error) {
    if (error instanceof FederationError) return error;
    throw error;
  }
  throw new Error('expected a FederationError');
}

/** Two images of 2 x 3, written by hand from the format's description. */
const twoImages = Uint8Array.of(0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 51, 102, 153, 204, 255, 255, 0, 0, 0, 0, 1);
const threeLabels = Uint8Array.of(0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 9);

const imageSets = fc
  .tuple(fc.integer({ min: 1, max: 6 }), fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 3 }))
  .chain(([count, shape]) =>
    fc.uint8Array({ minLength: count * exampleSize(shape), maxLength: count * exampleSize(shape) }).map((pixels) => ({ count, shape, values: Float32Array.from(pixels, (pixel) => pixel / 255) })),
  );

describe('IDX files', () => {
  it('reads hand-written bytes', () => {
    const images = parseIdxImages(twoImages, { fileName });
    expect(images.shape).toEqual([2, 3]);
    expect(images.count).toBe(2);
    expect([...images.values.slice(0, 6)]).toEqual([...Float32Array.of(0, 0.2, 0.4, 0.6, 0.8, 1)]);
    expect([...parseIdxLabels(threeLabels, { fileName, numClasses: 10 })]).toEqual([5, 0, 9]);
  });

  it('adds the channel that a task expects, and nothing else', () => {
    expect(parseIdxImages(twoImages, { fileName, exampleShape: [2, 3, 1] }).shape).toEqual([2, 3, 1]);
    const error = refusal(() => parseIdxImages(twoImages, { fileName, exampleShape: [3, 2] }));
    expect(error).toMatchObject({ code: 'data-invalid', expected: '[3, 2]', got: '[2, 3]' });
    expect(error.next).toContain('data.exampleShape');
  });

  it('writes what it reads: images', () => {
    fc.assert(fc.property(imageSets, (images) => {
      const back = parseIdxImages(encodeIdxImages(images), { fileName, exampleShape: images.shape });
      expect(back).toEqual(images);
    }));
  });

  it('writes what it reads: labels', () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 1 }), (bytes) => {
      const labels = Int32Array.from(bytes);
      expect(parseIdxLabels(encodeIdxLabels(labels), { fileName, numClasses: 256 })).toEqual(labels);
    }));
  });

  it('selects by offset and size as slicing does', () => {
    fc.assert(fc.property(imageSets, fc.nat(5), fc.integer({ min: 1, max: 6 }), (images, offset, size) => {
      fc.pre(offset + size <= images.count);
      const width = exampleSize(images.shape);
      const chosen = parseIdxImages(encodeIdxImages(images), { fileName, exampleShape: images.shape, offset, size });
      expect(chosen.count).toBe(size);
      expect(chosen.values).toEqual(images.values.slice(offset * width, (offset + size) * width));
    }));
    expect([...parseIdxLabels(threeLabels, { fileName, numClasses: 10, offset: 1 })]).toEqual([0, 9]);
  });

  it('reads from a view into a larger buffer', () => {
    const padded = new Uint8Array(threeLabels.length + 7);
    padded.set(threeLabels, 5);
    expect([...parseIdxLabels(padded.subarray(5, 5 + threeLabels.length), { fileName, numClasses: 10 })]).toEqual([5, 0, 9]);
  });
});

describe('bad IDX files', () => {
  it('refuses every cut-off file, and never throws anything but a FederationError', () => {
    fc.assert(fc.property(imageSets, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (images, part) => {
      const bytes = encodeIdxImages(images);
      const cut = bytes.subarray(0, Math.floor(part * bytes.length));
      expect(refusal(() => parseIdxImages(cut, { fileName })).code).toBe('data-invalid');
      expect(refusal(() => parseIdxLabels(cut, { fileName, numClasses: 10 })).code).toBe('data-invalid');
    }));
  });

  it('throws only FederationErrors for arbitrary bytes behind a plausible header', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 5 }), fc.uint8Array({ maxLength: 40 }), (type, rank, rest) => {
      const bytes = Uint8Array.of(0, 0, type, rank, ...rest);
      for (const parse of [() => parseIdxImages(bytes, { fileName }), () => parseIdxLabels(bytes, { fileName, numClasses: 10 })]) {
        try {
          parse();
        } catch (error) {
          expect(error).toBeInstanceOf(FederationError);
        }
      }
    }), { numRuns: 500 });
  });

  it.each<[string, Uint8Array, string]>([
    ['bytes left over', Uint8Array.of(...twoImages, 0), 'bytes left over'],
    ['another format', Uint8Array.of(0x89, 0x50, 0x4e, 0x47), '89 50 4e 47'],
    ['gzip data', Uint8Array.of(0x1f, 0x8b, 8, 0), 'gzip'],
    ['float values', Uint8Array.of(0, 0, 0x0d, 1, 0, 0, 0, 0), 'float32'],
    ['four thousand million examples in 16 bytes', Uint8Array.of(0, 0, 8, 3, 255, 255, 255, 255, 0, 0, 0, 28, 0, 0, 0, 28), 'cut off'],
    ['four huge sides', Uint8Array.of(0, 0, 8, 4, ...Array<number>(16).fill(255)), 'cut off'],
    ['a side of 0', Uint8Array.of(0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 0), '3 x 0'],
    ['no examples', Uint8Array.of(0, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 3), 'got 0'],
    ['labels given as images', threeLabels, 'rank 1'],
  ])('names the file and the fault: %s', (_, bytes, part) => {
    const error = refusal(() => parseIdxImages(bytes, { fileName }));
    expect(error.code).toBe('data-invalid');
    expect(error.message).toContain(fileName);
    expect(error.message).toContain(part);
    for (const field of [error.field, error.expected, error.got, error.next]) expect(field).toBeTruthy();
  });

  it('refuses a label outside the classes, images as labels, and counts that differ', () => {
    expect(refusal(() => parseIdxLabels(threeLabels, { fileName, numClasses: 9 }))).toMatchObject({ field: `${fileName}: label 2`, got: '9' });
    expect(refusal(() => parseIdxLabels(twoImages, { fileName, numClasses: 10 })).message).toContain('got images');
    expect(refusal(() => checkIdxCounts(twoImages, 'images', threeLabels, 'labels'))).toMatchObject({ field: 'labels: count', expected: '2', got: '3' });
    expect(idxCount(twoImages, fileName)).toBe(2);
  });

  it('refuses a selection that reaches past the end', () => {
    for (const selection of [{ offset: 3 }, { size: 4 }, { offset: 2, size: 2 }, { offset: 2 ** 40 }]) {
      expect(refusal(() => parseIdxLabels(threeLabels, { fileName, numClasses: 10, ...selection })).code).toBe('data-invalid');
    }
  });

  it('refuses to write what the format cannot hold', () => {
    for (const value of [-0.1, 1.5, NaN]) expect(refusal(() => encodeIdxImages({ count: 1, shape: [1], values: Float32Array.of(value) })).field).toBe('examples.values[0]');
    expect(refusal(() => encodeIdxImages({ count: 1, shape: [1, 1, 1, 1], values: Float32Array.of(0) })).code).toBe('data-invalid');
    for (const label of [-1, 256]) expect(refusal(() => encodeIdxLabels(Int32Array.of(label))).field).toBe('labels[0]');
  });
});
