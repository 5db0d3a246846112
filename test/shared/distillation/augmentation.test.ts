import { describe, expect, it } from 'vitest';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { augment, canAugment, defaultAugmentation } from '../../../shared/distillation/augmentation.ts';
import type { Examples } from '../../../shared/types/matrix.ts';

const nothing = { shift: 0, rotation: 0, scale: 0, shear: 0 };

function randomImages(count: number, shape: readonly number[]): Examples {
  const generator = new SeededGenerator(5);
  return { count, shape, values: Float32Array.from({ length: count * shape.reduce((a, b) => a * b, 1) }, () => generator.uniform()) };
}

/** Images of one bright point each, at the center. */
function points(count: number, side: number): Examples {
  const values = new Float32Array(count * side * side);
  for (let i = 0; i < count; i++) values[i * side * side + (side * side - 1) / 2] = 1;
  return { count, shape: [side, side, 1], values };
}

/** Mean position of the light in each image, from its center: [x, y]. */
function centroids({ count, shape, values }: Examples): [number, number][] {
  const [height, width] = shape as [number, number];
  return Array.from({ length: count }, (_, i) => {
    let [mass, x, y] = [0, 0, 0];
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const value = values[(i * height + row) * width + column]!;
        mass += value;
        x += value * (column - (width - 1) / 2);
        y += value * (row - (height - 1) / 2);
      }
    }
    return [x / mass, y / mass];
  });
}

describe('augmentation', () => {
  it('with ranges of zero changes nothing', () => {
    const images = randomImages(3, [5, 4, 2]);
    const copies = augment(images, nothing, new SeededGenerator(1));
    copies.values.forEach((value, at) => expect(value).toBeCloseTo(images.values[at]!, 6));
  });

  it('moves an image by its shift, in both directions and as far as the range', () => {
    const moved = centroids(augment(points(400, 11), { ...nothing, shift: 2 }, new SeededGenerator(2)));
    for (const at of [0, 1] as const) {
      const shifts = moved.map((centroid) => centroid[at]);
      expect(Math.max(...shifts)).toBeGreaterThan(1.9);
      expect(Math.max(...shifts)).toBeLessThanOrEqual(2 + 1e-6);
      expect(Math.min(...shifts)).toBeLessThan(-1.9);
      expect(Math.min(...shifts)).toBeGreaterThanOrEqual(-2 - 1e-6);
    }
  });

  it('turns, scales and shears around the center', () => {
    const images = points(50, 11);
    for (const ranges of [{ ...nothing, rotation: 30 }, { ...nothing, scale: 0.2 }, { ...nothing, shear: 0.2 }]) {
      for (const [x, y] of centroids(augment(images, ranges, new SeededGenerator(3)))) {
        expect(Math.hypot(x, y)).toBeLessThan(1e-6);
      }
    }
  });

  it('turns a point beside the center along a circle', () => {
    const side = 21;
    const values = new Float32Array(200 * side * side);
    for (let i = 0; i < 200; i++) values[i * side * side + 10 * side + 18] = 1; // 8 pixels right of the center
    const angles = centroids(augment({ count: 200, shape: [side, side, 1], values }, { ...nothing, rotation: 20 }, new SeededGenerator(4))).map(([x, y]) => {
      expect(Math.hypot(x, y)).toBeCloseTo(8, 0);
      return (Math.atan2(y, x) * 180) / Math.PI;
    });
    expect(Math.max(...angles)).toBeGreaterThan(18);
    expect(Math.min(...angles)).toBeLessThan(-18);
    expect(Math.max(...angles.map(Math.abs))).toBeLessThan(22);
  });

  it('never leaves the range of the values, keeps channels apart, and is the same for the same seed', () => {
    const images = randomImages(20, [9, 7, 2]);
    images.values.forEach((_, at) => at % 2 === 1 && (images.values[at] = 0));
    const copies = augment(images, defaultAugmentation, new SeededGenerator(6));
    expect(copies.values.every((value, at) => value >= 0 && value <= 1 + 1e-6 && (at % 2 === 0 || value === 0))).toBe(true);
    expect(copies).toEqual(augment(images, defaultAugmentation, new SeededGenerator(6)));
    expect(copies).not.toEqual(augment(images, defaultAugmentation, new SeededGenerator(7)));
  });

  it('returns what is no image as it is', () => {
    const rows = randomImages(3, [6]);
    expect(canAugment(rows.shape)).toBe(false);
    expect(augment(rows, defaultAugmentation, new SeededGenerator(1))).toBe(rows);
  });
});
