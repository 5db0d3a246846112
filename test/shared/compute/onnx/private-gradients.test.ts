/**
 * Clipped sums of per-example gradients against a plain loop over single examples: with examples of weight 0, and with clipping norms that clip none, some
 * and all of them.
 */
import type { LayersModel, SymbolicTensor } from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadBackend, tf, useBackend } from '../../../../shared/compute/backend.ts';
import { Architecture } from '../../../../shared/compute/onnx/architecture.ts';
import { zooNames } from '../../../../shared/models/catalog.ts';
import type { Layer } from '../../../../shared/models/layers.ts';
import { buildZooModel } from '../../../../shared/models/zoo.ts';
import { withOnnxRuntime } from '../../../support/onnx-runtime.ts';
import { privateGradientParity, type PrivateParityOptions } from '../../../support/private-gradient-parity.ts';
import { depthwiseNetwork, lenet, randomModel, recurrentClassifier, residualNetwork, textClassifier } from '../../../support/sample-models.ts';

const { layers } = tf;

const tolerance = 1e-5;

function chain(inputShape: number[], inner: () => Layer[]): () => LayersModel {
  return () => tf.sequential({ layers: [layers.inputLayer({ inputShape }), ...inner(), ...(inputShape.length > 1 ? [layers.flatten()] : []), layers.dense({ units: 4 })] });
}

const vector = (inner: () => Layer[]) => chain([6], inner);
const sequence = (inner: () => Layer[]) => chain([7, 3], inner);
const image = (inner: () => Layer[]) => chain([9, 8, 3], inner);

/** Integers below 5, for an embedding. */
const position = (gaussian: number) => Math.min(4, Math.floor(Math.abs(2 * gaussian)));

async function expectParity(build: () => LayersModel, options: PrivateParityOptions = {}): Promise<void> {
  const { hasRules, worst, where } = await privateGradientParity(build, options);
  expect(hasRules).toBe(true);
  expect(worst, where).toBeLessThan(tolerance);
}

withOnnxRuntime(() => {
  describe('the clipped sum over a batch equals that of a loop over its examples', () => {
    const cases: Record<string, { readonly build: () => LayersModel; readonly options?: PrivateParityOptions }> = {
      'softmax regression': { build: vector(() => []) },
      dense: { build: vector(() => [layers.dense({ units: 5, activation: 'relu' }), layers.dense({ units: 7, activation: 'tanh' })]) },
      'dense without a bias': { build: vector(() => [layers.dense({ units: 5, useBias: false })]) },
      'dense at several positions': { build: sequence(() => [layers.dense({ units: 4, activation: 'relu' })]) },
      'time distributed': { build: sequence(() => [layers.timeDistributed({ layer: layers.dense({ units: 4 }) })]) },
      conv1d: { build: sequence(() => [layers.conv1d({ filters: 4, kernelSize: 3, strides: 2, padding: 'same' }), layers.conv1d({ filters: 3, kernelSize: 2 })]) },
      'conv2d, valid': { build: image(() => [layers.conv2d({ filters: 4, kernelSize: 3, activation: 'relu' }), layers.conv2d({ filters: 2, kernelSize: 2 })]) },
      'conv2d, same, with strides': { build: image(() => [layers.conv2d({ filters: 4, kernelSize: 3, strides: 2, padding: 'same' }), layers.conv2d({ filters: 2, kernelSize: 3, strides: 3, padding: 'same' })]) },
      'transposed conv2d': { build: image(() => [layers.conv2dTranspose({ filters: 2, kernelSize: 3, strides: 2, padding: 'same' })]) },
      'depthwise conv2d': { build: image(() => [layers.depthwiseConv2d({ kernelSize: 3, depthMultiplier: 2, activation: 'relu' }), layers.depthwiseConv2d({ kernelSize: 2, strides: [2, 2], padding: 'same' })]) },
      'separable conv2d': { build: image(() => [layers.separableConv2d({ filters: 4, kernelSize: 3 })]) },
      'max pool, average pool': { build: image(() => [layers.conv2d({ filters: 4, kernelSize: 3, activation: 'relu' }), layers.maxPooling2d({ poolSize: 2 }), layers.conv2d({ filters: 3, kernelSize: 2 }), layers.averagePooling2d({ poolSize: 2 })]) },
      'max pool of a convolution of the examples, same': { build: image(() => [layers.conv2d({ filters: 4, kernelSize: 3, padding: 'same' }), layers.maxPooling2d({ poolSize: [1, 2] }), layers.conv2d({ filters: 3, kernelSize: 2, activation: 'relu' }), layers.maxPooling2d({ poolSize: 2 })]) },
      'conv2d of many channels': { build: image(() => [layers.conv2d({ filters: 8, kernelSize: 3, activation: 'relu' }), layers.conv2d({ filters: 8, kernelSize: 3, padding: 'same', strides: 2, activation: 'relu' }), layers.maxPooling2d({ poolSize: 2 })]) },
      'max pool of many channels, with a rest': { build: image(() => [layers.conv2d({ filters: 8, kernelSize: 2, activation: 'relu' }), layers.maxPooling2d({ poolSize: 2 }), layers.conv2d({ filters: 12, kernelSize: 2, activation: 'relu' }), layers.maxPooling2d({ poolSize: 2 })]) },
      'pools that overlap': { build: image(() => [layers.conv2d({ filters: 4, kernelSize: 3 }), layers.maxPooling2d({ poolSize: 3, strides: 2 }), layers.conv2d({ filters: 3, kernelSize: 2, padding: 'same' }), layers.averagePooling2d({ poolSize: 2, strides: 1 })]) },
      'layer normalization': { build: vector(() => [layers.dense({ units: 5 }), layers.layerNormalization({}), layers.dense({ units: 3 })]) },
      'layer normalization of channels': { build: image(() => [layers.conv2d({ filters: 3, kernelSize: 3 }), layers.layerNormalization({}), layers.conv2d({ filters: 2, kernelSize: 2 })]) },
      prelu: { build: vector(() => [layers.dense({ units: 5 }), layers.prelu()]) },
      'upsampling, padding and cropping': { build: image(() => [layers.conv2d({ filters: 3, kernelSize: 3 }), layers.upSampling2d({ size: [2, 2] }), layers.zeroPadding2d({ padding: [[1, 2], [0, 3]] }), layers.cropping2D({ cropping: [[1, 1], [2, 0]] }), layers.conv2d({ filters: 2, kernelSize: 2 })]) },
      'simple rnn': { build: sequence(() => [layers.simpleRNN({ units: 4, returnSequences: true })]) },
      lstm: { build: sequence(() => [layers.lstm({ units: 4, returnSequences: true })]) },
      gru: { build: sequence(() => [layers.gru({ units: 4, returnSequences: true })]) },
      LeNet: { build: () => tf.sequential({ layers: lenet() }) },
      'a residual network': { build: residualNetwork },
      'a depthwise network': { build: depthwiseNetwork },
      'a text classifier with an embedding, positions twice': { build: textClassifier, options: { element: position } },
      'an LSTM over an embedding': { build: recurrentClassifier, options: { element: position } },
      'absolute errors': { build: vector(() => [layers.dense({ units: 5, activation: 'tanh' })]), options: { term: { kind: 'absoluteError' } } },
      'a temperature': { build: vector(() => [layers.dense({ units: 5, activation: 'tanh' })]), options: { term: { kind: 'crossEntropy', temperature: 2.7 } } },
    };
    it.each(Object.entries(cases))('%s', (_, { build, options }) => expectParity(build, options));
    it.each(zooNames())('%s', (name) => expectParity(() => buildZooModel({ name, exampleShape: name === 'text-embedding' ? [16] : [16, 16, 1], numClasses: 10, dropout: 0, seed: 3 })));

    it('random models', async () => {
      await fc.assert(
        fc.asyncProperty(randomModel(), fc.integer({ min: 2, max: 5 }), fc.nat(1_000_000), async (build, rows, seed) => {
          const { hasRules, worst, where, worstOfWhole } = await privateGradientParity(build, { rows, seed, term: { kind: 'crossEntropy', temperature: 8 } });
          expect(hasRules).toBe(true);
          expect(worstOfWhole, where).toBeLessThan(tolerance);
          // Gradients of some random models are a thousandth of others of the same model, and keep the rounding of those. A wrong rule is wrong by more.
          expect(worst, where).toBeLessThan(0.01);
        }),
        { numRuns: Number(process.env['FEDSTILL_RANDOM_MODELS'] ?? 40) },
      );
    }, 120_000);
  });

  it('takes fewer rows where every example of a large convolution writes out its gradient', async () => {
    await loadBackend('tfjs-cpu');
    useBackend('tfjs-cpu');
    const network = tf.sequential({ layers: [layers.conv2d({ inputShape: [4, 4, 256], filters: 1024, kernelSize: 3 }), layers.flatten(), layers.dense({ units: 4 })] });
    const architecture = new Architecture({ network, topology: {}, head: 'logits', summary: { name: 'wide', parameterCount: 0, weightBytes: 0, exampleShape: [4, 4, 256], numClasses: 4 } });
    const lease = await architecture.privateStep({ term: { kind: 'crossEntropy', temperature: 1 }, rows: 100 });
    // 2^25 numbers at most for gradients of 256 * 1024 * 9: eight equal parts.
    expect(lease.compiled.traced.plan.rows).toBe(Math.ceil(100 / Math.ceil((100 * 256 * 1024 * 9) / 2 ** 25)));
    lease.release();
    await architecture.dispose();
  });

  it('takes one row where a layer has no rule: an embedding that is used twice', async () => {
    await loadBackend('tfjs-cpu');
    useBackend('tfjs-cpu');
    const x = tf.input({ shape: [6] });
    const embedding = layers.embedding({ inputDim: 5, outputDim: 3 });
    const [once, again] = [x, layers.reLU().apply(x) as SymbolicTensor].map((positions) => embedding.apply(positions) as SymbolicTensor);
    const sum = layers.flatten().apply(layers.concatenate().apply([once!, again!])) as SymbolicTensor;
    const network = tf.model({ inputs: x, outputs: layers.dense({ units: 4 }).apply(sum) as SymbolicTensor });
    const architecture = new Architecture({ network, topology: {}, head: 'logits', summary: { name: 'shared', parameterCount: 0, weightBytes: 0, exampleShape: [6], numClasses: 4 } });
    const lease = await architecture.privateStep({ term: { kind: 'crossEntropy', temperature: 1 }, rows: 8 });
    expect(lease.compiled.traced.plan.rows).toBe(1);
    lease.release();
    await architecture.dispose();
  });

  it('has no rule for examples that are mixed up', async () => {
    const mixing: (() => LayersModel)[] = [
      vector(() => [layers.dense({ units: 5 }), layers.batchNormalization(), layers.dense({ units: 5 })]),
      () => {
        const x = tf.input({ shape: [6] });
        const normalized = layers.batchNormalization().apply(x) as SymbolicTensor;
        return tf.model({ inputs: x, outputs: layers.dense({ units: 4 }).apply(normalized) as SymbolicTensor });
      },
    ];
    for (const build of mixing) expect((await privateGradientParity(build)).hasRules).toBe(false);
  });
});
