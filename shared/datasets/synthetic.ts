/**
 * Gaussian blobs: one center a class, examples scattered around it. For smoke tests and demonstrations of plumbing;
 * an accuracy on them says nothing about real data.
 */
import { FederationError } from '../errors.ts';
import type { LabelledExamples } from '../types/matrix.ts';
import { exampleSize } from '../types/matrix.ts';
import { deriveSeed, SeededGenerator } from './seeded-generator.ts';

/** Standard deviation of each value around its class center. Values are then confined to [0, 1], as those of images. */
export const SYNTHETIC_STDDEV = 0.15;
/** 1 GiB as float32: more is a typing error. */
const MAX_VALUES = 2 ** 28;

export interface SyntheticOptions {
  /** Number of examples. */
  readonly size: number;
  /** Seed of the examples, in [0, 2^32). */
  readonly seed: number;
  /** Seed of the class centers, in [0, 2^32): sources that share it have the same classes. */
  readonly centerSeed: number;
  readonly exampleShape: readonly number[];
  readonly numClasses: number;
}

/** `size` examples with values in [0, 1]; class sizes differ by at most one, and the order is random. */
export function syntheticExamples(options: SyntheticOptions): LabelledExamples {
  const { size, exampleShape, numClasses } = options;
  const width = exampleSize(exampleShape);
  const largest = Math.max(size, numClasses) * width;
  if (!Number.isInteger(size) || size < 1 || !(largest <= MAX_VALUES)) {
    const expected = `at least 1 example, and at most ${MAX_VALUES} values in all`;
    const got = `${size} examples of shape [${exampleShape.join(', ')}] and ${numClasses} classes`;
    throw new FederationError('data-invalid', `synthetic data: expected ${expected}, got ${got}`, {
      field: 'size', expected, got, next: 'Ask for fewer or smaller examples.',
    });
  }
  const centerGenerator = new SeededGenerator(deriveSeed(options.centerSeed, 'synthetic-centers'));
  const centers = Float32Array.from({ length: numClasses * width }, () => centerGenerator.uniform());

  const generator = new SeededGenerator(deriveSeed(options.seed, 'synthetic-examples'));
  const labels = Int32Array.from(generator.permutation(size), (position) => position % numClasses);
  const values = new Float32Array(size * width);
  for (let i = 0; i < size; i++) {
    const center = labels[i]! * width;
    for (let j = 0; j < width; j++) {
      const value = centers[center + j]! + SYNTHETIC_STDDEV * generator.gaussian();
      values[i * width + j] = Math.min(1, Math.max(0, value));
    }
  }
  return { examples: { count: size, shape: [...exampleShape], values }, labels, numClasses };
}
