import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadBackend, tf, useBackend } from '../../../shared/compute/backend.ts';
import type { ModelSource, SavedModel } from '../../../shared/compute/engine.ts';
import { type DifferentiableModel, openDifferentiable } from '../../../shared/compute/input-gradients.ts';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { logSoftmax } from '../../../shared/distillation/temperature.ts';
import { attack } from '../../../shared/evaluation/adversarial.ts';
import type { Examples } from '../../../shared/types/matrix.ts';

const open: DifferentiableModel[] = [];
async function opened(source: ModelSource, seed = 1): Promise<DifferentiableModel> {
  const model = await openDifferentiable(source, seed);
  open.push(model);
  return model;
}
beforeAll(() => loadBackend('tfjs-wasm'));
afterAll(() => open.forEach((model) => model.dispose()));

function randomExamples(count: number, shape: readonly number[], seed: number): Examples {
  const generator = new SeededGenerator(seed);
  return { count, shape, values: Float32Array.from({ length: count * shape.reduce((a, b) => a * b, 1) }, () => generator.uniform()) };
}

/** One dense layer without a bias. `weights`: [inputs x units]. */
function denseModel(units: number, inputs: number, weights: readonly number[]): SavedModel {
  useBackend('tfjs-wasm');
  const network = tf.sequential({ layers: [tf.layers.dense({ inputShape: [inputs], units, useBias: false })] });
  const topology = network.toJSON(null, false) as unknown;
  const { originalName } = network.weights[0]!;
  network.dispose();
  return { topology, weightSpecs: [{ name: originalName, shape: [inputs, units], dtype: 'float32' }], weights: new Uint8Array(Float32Array.from(weights).buffer) };
}

describe.each(['mlp-small', 'cnn-small', 'cnn-medium', 'cnn-wide'])('gradient of the loss of %s by its input', (name) => {
  it('is that of finite differences', async () => {
    const shape = [9, 8, 2];
    const model = await opened({ kind: 'zoo', name, exampleShape: shape, numClasses: 4 });
    const examples = randomExamples(2, shape, 7);
    const labels = Int32Array.of(3, 0);
    const { logits, gradients, scales } = await model.lossGradient(examples, labels);
    expect(logits.values).toEqual((await model.predict(examples)).values);
    const size = 9 * 8 * 2;
    const places = [0, 5, 40, 77, 101, 143];
    expect(gradients.reduce((most, value) => Math.max(most, Math.abs(value)), 0)).toBeGreaterThan(0.05);
    let smooth = 0;
    for (const [row, label] of labels.entries()) {
      expect(scales[row]!).toBeCloseTo(1 - Math.exp(logSoftmax(logits).values[row * 4 + label]!), 5);
      for (const place of places) {
        const loss = async (change: number) => {
          const values = examples.values.slice(row * size, (row + 1) * size);
          values[place]! += change;
          return -logSoftmax(await model.predict({ count: 1, shape, values })).values[label]!;
        };
        const step = 1 / 256;
        const here = await loss(0);
        // To the left and to the right: they differ where a relu or a pool changes its mind, and the slope is between them. A loss of about 1 in
        // float32 over a step of 1/256 is good to about 1e-4.
        const slopes = [(here - (await loss(-step))) / step, ((await loss(step)) - here) / step];
        const slope = gradients[row * size + place]! * scales[row]!;
        expect(slope).toBeGreaterThan(Math.min(...slopes) - 2e-4);
        expect(slope).toBeLessThan(Math.max(...slopes) + 2e-4);
        if (Math.abs(slopes[0]! - slopes[1]!) < 1e-3) smooth++;
      }
    }
    expect(smooth).toBeGreaterThanOrEqual(places.length); // half of all
  });
});

describe('an input gradient', () => {
  it('of a linear model is known: sum over classes of (p - y) w, also where the model is so sure that p rounds to 1', async () => {
    // Classes 0 and 1 with weights (40, 0) and (0, 40).
    const model = await opened({ kind: 'layersModel', artifacts: denseModel(2, 2, [40, 0, 0, 40]), outputKind: 'logits' });
    const { gradients, scales } = await model.lossGradient({ count: 2, shape: [2], values: Float32Array.of(1, 0, 0.5, 0.5) }, Int32Array.of(0, 0));
    expect([...gradients]).toEqual([-40, 40, -40, 40]);
    expect(scales[0]).toBeCloseTo(Math.exp(-40), 20);
    expect(scales[1]).toBe(0.5);
  });

  it('of a linear model leads FGSM and PGD to break it exactly where its margins say', async () => {
    // z0 - z1 = 1.5 x0 - 0.5 x1, |w|_1 = 2: margins 0.4, 0.8 and 1.
    const model = await opened({ kind: 'layersModel', artifacts: denseModel(2, 2, [1.5, 0, 0, 0.5]), outputKind: 'logits' });
    const examples: Examples = { count: 3, shape: [2], values: Float32Array.of(0.4, 0.4, 0.7, 0.5, 0.8, 0.4) };
    const data = { examples, labels: Int32Array.of(0, 0, 0), numClasses: 2 };
    // A share e of a range of 11 lowers each margin by 22 e.
    const result = await attack(model, data, { epsilons: [0.018, 0.019, 0.036, 0.037, 0.045, 0.046], range: { low: -5, high: 6 }, pgdSteps: 10, seed: 1 });
    const left = [1, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0];
    expect(result).toEqual({ fgsm: left, pgd: left, zeroGradients: 0 });
  });

  it('of a model that ends in a softmax is the same as of its logits', async () => {
    const saved = denseModel(3, 4, Array.from({ length: 12 }, (_, i) => Math.sin(i)));
    const topology = structuredClone(saved.topology) as { config: { layers: { config: { activation: string } }[] } };
    topology.config.layers.at(-1)!.config.activation = 'softmax';
    const examples = randomExamples(5, [4], 3);
    const labels = Int32Array.of(0, 1, 2, 0, 1);
    const plain = await (await opened({ kind: 'layersModel', artifacts: saved, outputKind: 'logits' })).lossGradient(examples, labels);
    const softmax = await (await opened({ kind: 'layersModel', artifacts: { ...saved, topology }, outputKind: 'probabilities' })).lossGradient(examples, labels);
    softmax.gradients.forEach((value, i) => expect(value).toBeCloseTo(plain.gradients[i]!, 5));
  });

  it('is the same whatever the batch, and leaves no tensor behind', async () => {
    const model = await opened({ kind: 'zoo', name: 'mlp-small', exampleShape: [6], numClasses: 3 });
    const examples = randomExamples(300, [6], 5);
    const labels = Int32Array.from({ length: 300 }, (_, i) => i % 3);
    await model.lossGradient(examples, labels);
    const before = tf.memory().numTensors;
    const whole = await model.lossGradient(examples, labels);
    await model.predict(examples);
    expect(tf.memory().numTensors).toBe(before);
    const last = await model.lossGradient({ count: 1, shape: [6], values: examples.values.slice(299 * 6) }, labels.slice(299));
    last.gradients.forEach((value, i) => expect(value).toBeCloseTo(whole.gradients[299 * 6 + i]!, 5));
  });

  it('refuses examples of another shape', async () => {
    const model = await opened({ kind: 'zoo', name: 'mlp-small', exampleShape: [6], numClasses: 3 });
    await expect(model.lossGradient(randomExamples(1, [5], 1), Int32Array.of(0))).rejects.toMatchObject({ code: 'data-invalid' });
  });
});

it('multiplications are those of the kernels at every place', async () => {
  const mlp = await opened({ kind: 'zoo', name: 'mlp-small', exampleShape: [28, 28, 1], numClasses: 10 });
  expect(mlp.multiplications).toBe(784 * 64 + 64 * 10);
  // conv 3x3x8 and conv 3x3x16, both stride 2 and padded to 14x14 and 7x7, then a dense layer.
  const cnn = await opened({ kind: 'zoo', name: 'cnn-small', exampleShape: [28, 28, 1], numClasses: 10 });
  expect(cnn.multiplications).toBe(9 * 8 * 14 * 14 + 9 * 8 * 16 * 7 * 7 + 7 * 7 * 16 * 10);
});
