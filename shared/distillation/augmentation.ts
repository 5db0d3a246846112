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
  const source = examples.values;
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
    const lineSize = width * channels;
    for (let row = 0; row < height; row++) {
      const dy = row - centerY;
      for (let column = 0; column < width; column++) {
        // No arrays in here: this runs for every pixel of every pass.
        const dx = column - centerX;
        const x = centerX + xx * dx + xy * dy + shiftX;
        const y = centerY + yx * dx + yy * dy + shiftY;
        const left = Math.floor(x);
        const top = Math.floor(y);
        if (top < -1 || top >= height || left < -1 || left >= width) continue; // 0, as it is
        const right = x - left;
        const bottom = y - top;
        const hasTop = top >= 0;
        const hasBottom = top < height - 1;
        const hasLeft = left >= 0;
        const hasRight = left < width - 1;
        const upper = start + top * lineSize + left * channels;
        const target = start + (row * width + column) * channels;
        for (let channel = 0; channel < channels; channel++) {
          const at = upper + channel;
          let value = 0;
          if (hasTop) {
            if (hasLeft) value += (1 - bottom) * (1 - right) * source[at]!;
            if (hasRight) value += (1 - bottom) * right * source[at + channels]!;
          }
          if (hasBottom) {
            if (hasLeft) value += bottom * (1 - right) * source[at + lineSize]!;
            if (hasRight) value += bottom * right * source[at + lineSize + channels]!;
          }
          values[target + channel] = value;
        }
      }
    }
  }
  return { count: examples.count, shape: examples.shape, values };
}
