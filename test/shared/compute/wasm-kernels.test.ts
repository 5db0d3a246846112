import type { Tensor, Tensor4D } from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { loadBackend, tf, useBackend, type BackendName } from '../../../shared/compute/backend.ts';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';

/** Values of what `make` computes on a back end. */
function on(backend: BackendName, make: () => Tensor): { shape: number[]; values: Float32Array } {
  useBackend(backend);
  return tf.tidy(() => {
    const result = make();
    return { shape: result.shape, values: Float32Array.from(result.dataSync()) };
  });
}

function expectParity(make: () => Tensor): void {
  const [wasm, cpu] = [on('tfjs-wasm', make), on('tfjs-cpu', make)];
  expect(wasm.shape).toEqual(cpu.shape);
  const scale = cpu.values.reduce((max, value) => Math.max(max, Math.abs(value)), 1e-3);
  const worst = cpu.values.reduce((max, value, i) => Math.max(max, Math.abs(value - wasm.values[i]!)), 0);
  expect(worst / scale).toBeLessThan(2e-5);
}

const generator = new SeededGenerator(17);
const gaussian = (length: number) => Float32Array.from({ length }, () => generator.gaussian());
const product = (shape: readonly number[]) => shape.reduce((a, b) => a * b);

describe('kernels composed for the wasm back end agree with the plain JavaScript ones', () => {
  beforeAll(async () => {
    expect(await loadBackend('tfjs-cpu')).toMatchObject({ available: true });
    expect(await loadBackend('tfjs-wasm')).toMatchObject({ available: true });
  });

  for (const transposeA of [false, true]) {
    for (const transposeB of [false, true]) {
      it(`BatchMatMul, transposeA ${transposeA}, transposeB ${transposeB}`, () => {
        const [a, b] = [gaussian(2 * 5 * 7), gaussian(2 * 7 * 3)];
        expectParity(() => tf.matMul(tf.tensor3d(a, transposeA ? [2, 7, 5] : [2, 5, 7]), tf.tensor3d(b, transposeB ? [2, 3, 7] : [2, 7, 3]), transposeA, transposeB));
      });
    }
  }

  // 7 and 8: with stride 2, one of them leaves a row unused under 'valid' padding.
  for (const side of [7, 8]) {
    for (const strides of [1, 2, 3] as const) {
      for (const pad of ['same', 'valid'] as const) {
        for (const kernel of [1, 3, 5]) {
          it(`both convolution gradients, ${side}x${side + 2}, kernel ${kernel}, stride ${strides}, ${pad}`, () => {
            const [batch, channels, filters] = [3, 2, 4];
            const xShape: [number, number, number, number] = [batch, side, side + 2, channels];
            const filterShape: [number, number, number, number] = [kernel, kernel, channels, filters];
            const outShape = tf.backend_util.computeConv2DInfo(xShape, filterShape, strides, 1, pad).outShape;
            const [x, filter, dy] = [gaussian(product(xShape)), gaussian(product(filterShape)), gaussian(product(outShape))];
            const gradients = () =>
              tf.grads((image, weights) => tf.conv2d(image as Tensor4D, weights as Tensor4D, strides, pad))(
                [tf.tensor4d(x, xShape), tf.tensor4d(filter, filterShape)],
                tf.tensor(dy, outShape),
              );
            expectParity(() => gradients()[0]!);
            expectParity(() => gradients()[1]!);
          });
        }
      }
    }
  }

  for (const [size, strides] of [[2, 2], [3, 2], [3, 1]] as const) {
    for (const pad of ['same', 'valid'] as const) {
      it(`MaxPoolGrad where windows have ties (blank background), size ${size}, stride ${strides}, ${pad}`, () => {
        const shape: [number, number, number, number] = [2, 7, 7, 3];
        const x = gaussian(product(shape)).map((value) => Math.max(Math.round(value), 0));
        const outShape = tf.backend_util.computePool2DInfo(shape, size, strides, 1, pad).outShape;
        const dy = gaussian(product(outShape));
        expectParity(() => tf.grad((image) => tf.maxPool(image as Tensor4D, size, strides, pad))(tf.tensor4d(x, shape), tf.tensor(dy, outShape)));
      });
    }
  }

  it('frees every intermediate result', () => {
    useBackend('tfjs-wasm');
    const before = tf.memory().numDataBuffers;
    const backend = tf.backend() as unknown as { numDataIds(): number };
    const idsBefore = backend.numDataIds();
    for (const strides of [1, 2] as const) {
      tf.tidy(() => {
        tf.grads((x, w) => tf.maxPool(tf.conv2d(x as Tensor4D, w as Tensor4D, strides, 'valid'), 2, 2, 'same'))([tf.ones([2, 8, 8, 2]), tf.ones([3, 3, 2, 4])]);
        tf.matMul(tf.ones([3, 2]), tf.ones([4, 3]), true, true);
      });
    }
    expect(tf.memory().numDataBuffers).toBe(before);
    expect(backend.numDataIds()).toBe(idsBefore);
  });
});
