/**
 * Random small distortions of images: shift, rotation, scale and shear, one affine map with bilinear interpolation. A student that
 * sees an image a little different in every pass can't learn it by heart (Simard, Steinkraus & Platt 2003, sec. 2).
 *
 * The ranges are what leaves a handwritten digit or a small photograph what it was. Nothing is mirrored: a mirrored 2 is none.
 */
import type { SeededGenerator } from '../datasets/seeded-generator.ts';
import { exampleSize, type Examples } from '../types/matrix.ts';

/** Largest distortions; each image's are drawn uniformly between minus and plus these. */
export interface AugmentationRanges {
  /** Pixels, in each direction. */
  readonly shift: number;
  /** Degrees. */
  readonly rotation: number;
  /** Share by which height and width grow or shrink, one draw for each, e.g. 0.1. */
  readonly scale: number;
  /** Pixels sideways for each pixel down, e.g. 0.1. */
  readonly shear: number;
}

/** A tenth of 28 pixels, and so on: the usual ranges for handwriting. */
export const defaultAugmentation: AugmentationRanges = { shift: 2, rotation: 10, scale: 0.1, shear: 0.1 };

/** True for examples [height, width, channels]; anything else has no neighborhoods to shift. */
export function canAugment(exampleShape: readonly number[]): boolean {
  return exampleShape.length === 3 && exampleShape.every((side) => Number.isInteger(side) && side >= 1);
}

/** Distorted copies, each with draws of its own. Outside of an image is 0. Examples that are no images are returned as they are. */
export function augment(examples: Examples, ranges: AugmentationRanges, generator: SeededGenerator): Examples {
  if (!canAugment(examples.shape)) return examples;
  const [height, width, channels] = examples.shape as readonly [number, number, number];
  const size = exampleSize(examples.shape);
  const values = new Float32Array(examples.count * size);
  const symmetric = (range: number) => (2 * generator.uniform() - 1) * range;
  const [centerX, centerY] = [(width - 1) / 2, (height - 1) / 2];
  for (let i = 0; i < examples.count; i++) {
    const angle = (symmetric(ranges.rotation) * Math.PI) / 180;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const [scaleX, scaleY] = [1 + symmetric(ranges.scale), 1 + symmetric(ranges.scale)];
    const shear = symmetric(ranges.shear);
    const [shiftX, shiftY] = [symmetric(ranges.shift), symmetric(ranges.shift)];
    // Where each pixel of the result comes from: source = center + A (target - center) + shift, A = rotation * shear * scale.
    const [xx, xy] = [cos * scaleX, (cos * shear - sin) * scaleY];
    const [yx, yy] = [sin * scaleX, (sin * shear + cos) * scaleY];
    const start = i * size;
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const [dx, dy] = [column - centerX, row - centerY];
        const x = centerX + xx * dx + xy * dy + shiftX;
        const y = centerY + yx * dx + yy * dy + shiftY;
        const [left, top] = [Math.floor(x), Math.floor(y)];
        const [right, bottom] = [x - left, y - top];
        for (let channel = 0; channel < channels; channel++) {
          let value = 0;
          if (top >= 0 && top < height) {
            const line = start + top * width * channels + channel;
            if (left >= 0 && left < width) value += (1 - bottom) * (1 - right) * examples.values[line + left * channels]!;
            if (left >= -1 && left < width - 1) value += (1 - bottom) * right * examples.values[line + (left + 1) * channels]!;
          }
          if (top >= -1 && top < height - 1) {
            const line = start + (top + 1) * width * channels + channel;
            if (left >= 0 && left < width) value += bottom * (1 - right) * examples.values[line + left * channels]!;
            if (left >= -1 && left < width - 1) value += bottom * right * examples.values[line + (left + 1) * channels]!;
          }
          values[start + (row * width + column) * channels + channel] = value;
        }
      }
    }
  }
  return { count: examples.count, shape: examples.shape, values };
}
