/**
 * The gradients of the traced graph against TF.js's own, layer by layer and for whole models. Examples are full of equal
 * numbers and zeros, so that maxima tie and relus sit at 0.
 */
import type { LayersModel, SymbolicTensor } from '@tensorflow/tfjs';
import fc from 'fast-check';
import { expect, it, describe } from 'vitest';
import { tf } from '../../../../shared/compute/backend.ts';
import { zooNames } from '../../../../shared/models/catalog.ts';
import type { Layer } from '../../../../shared/models/layers.ts';
import { buildZooModel } from '../../../../shared/models/zoo.ts';
import { gradientParity, type ParityOptions } from '../../../support/gradient-parity.ts';
import { withOnnxRuntime } from '../../../support/onnx-runtime.ts';
import { depthwiseNetwork, lenet, randomModel, recurrentClassifier, residualNetwork, textClassifier } from '../../../support/sample-models.ts';

const { layers } = tf;

const tolerance = 1e-5;

/** Layers between an input and a dense layer with 4 outputs. */
function chain(inputShape: number[], inner: () => Layer[]): () => LayersModel {
  return () => tf.sequential({ layers: [layers.inputLayer({ inputShape }), ...inner(), ...(inputShape.length > 1 ? [layers.flatten()] : []), layers.dense({ units: 4 })] });
}

const vector = (inner: () => Layer[]) => chain([6], inner);
const sequence = (inner: () => Layer[]) => chain([7, 3], inner);
const image = (inner: () => Layer[]) => chain([9, 8, 3], inner);
/** Layers on the features of a small convolution, so that a gradient goes through them to the weights before. */
const features = (activation: 'relu' | 'tanh', inner: () => Layer[]) => image(() => [layers.conv2d({ filters: 3, kernelSize: 3, activation }), ...inner()]);

async function expectParity(build: () => LayersModel, options: ParityOptions = {}): Promise<void> {
  const { worst, where } = await gradientParity(build, options);
  expect(worst, where).toBeLessThan(tolerance);
}

/** Integers below 5, for an embedding. */
const position = (gaussian: number) => Math.min(4, Math.floor(Math.abs(2 * gaussian)));

withOnnxRuntime(() => {
  describe('gradients of one layer equal those of TF.js', () => {
    const activations = ['relu', 'relu6', 'elu', 'selu', 'sigmoid', 'hardSigmoid', 'tanh', 'softmax', 'softplus', 'softsign', 'swish', 'mish', 'gelu', 'gelu_new', 'linear'] as const;
    it.each(activations)('dense, %s', (activation) => expectParity(vector(() => [layers.dense({ units: 5, activation: activation })])));

    for (const padding of ['same', 'valid'] as const) {
      for (const strides of [1, 2, 3]) {
        it.each([1, 3, 5])(`conv2d, ${padding}, stride ${strides}, kernel %i`, (kernelSize) =>
          expectParity(image(() => [layers.conv2d({ filters: 4, kernelSize, strides, padding, activation: 'relu' }), layers.conv2d({ filters: 3, kernelSize: 1 })])));
        it(`conv2d after another, ${padding}, stride ${strides}`, () => expectParity(features('tanh', () => [layers.conv2d({ filters: 4, kernelSize: 3, strides, padding, activation: 'relu' })])));
      }
      for (const strides of [1, 2] as const) {
        it.each([1, 2])(`depthwise conv2d, ${padding}, stride ${strides}, multiplier %i`, (depthMultiplier) =>
          expectParity(features('tanh', () => [layers.depthwiseConv2d({ kernelSize: 3, strides: strides, padding, depthMultiplier, activation: 'relu' })])));
      }
      // The windows lie side by side, overlap, leave gaps, and leave a rest at the edge.
      it.each([[2, 2], [3, 2], [3, 1], [3, 3], [2, 3]] as const)(`max and average pool, ${padding}, size %i, stride %i`, async (poolSize, strides) => {
        for (const activation of ['relu', 'tanh'] as const) {
          await expectParity(features(activation, () => [layers.maxPooling2d({ poolSize, strides, padding })]));
          await expectParity(features(activation, () => [layers.averagePooling2d({ poolSize, strides, padding })]));
        }
      });
    }

    // Computed place by place in the window; blank examples tie everywhere.
    for (const padding of ['same', 'valid'] as const) {
      it.each([[2, 1, 2, 2], [3, 1, 2, 2], [5, 1, 2, 2], [5, 2, 1, 2], [4, 1, 3, 1], [4, 1, 1, 4], [3, 1, 2, 3]] as const)(`conv2d of the examples before a max pool, ${padding}, kernel %i, stride %i, window %i x %i`, async (kernelSize, strides, ...poolSize) => {
        for (const activation of ['relu', 'linear', 'tanh'] as const) {
          const build = image(() => [layers.conv2d({ filters: 3, kernelSize, strides, padding, activation, useBias: strides === 1 }), layers.maxPooling2d({ poolSize: poolSize as [number, number] }), layers.conv2d({ filters: 2, kernelSize: 1 })]);
          await expectParity(build, { rows: 4 });
          await expectParity(build, { element: () => 0.5 });
        }
      });
    }

    // From eight channels on a convolution is a product of patches.
    for (const padding of ['same', 'valid'] as const) {
      it.each([[2, 1], [3, 1], [3, 2], [5, 1], [2, 3]] as const)(`conv2d of many channels, ${padding}, kernel %i, stride %i`, async (kernelSize, strides) => {
        const many = (activation: 'relu' | 'tanh', inner: () => Layer[]) => image(() => [layers.conv2d({ filters: 8, kernelSize: 2, activation: 'tanh' }), layers.conv2d({ filters: 9, kernelSize, strides, padding, activation, useBias: strides === 1 }), ...inner()]);
        await expectParity(many('tanh', () => [layers.conv2d({ filters: 3, kernelSize: 2, padding: 'same' })]));
        await expectParity(many('relu', () => [layers.maxPooling2d({ poolSize: 2, padding: 'same' }), layers.conv2d({ filters: 2, kernelSize: 1 })]));
        await expectParity(many('relu', () => [layers.maxPooling2d({ poolSize: 2, strides: 1 })]));
        await expectParity(chain([9, 8, 8], () => [layers.conv2d({ filters: 3, kernelSize, strides, padding, activation: 'relu' }), layers.maxPooling2d({ poolSize: 2 })]), { rows: 4 });
      });
    }

    // Sorted by place in the window, with ties: relus, and examples that are the same everywhere. 7 x 6 positions leave a rest in some directions.
    it.each([[2, 2], [3, 3], [2, 3], [1, 2], [7, 2]] as const)('max pool of many channels, window %i x %i', async (...poolSize) => {
      const pool = () => layers.maxPooling2d({ poolSize });
      for (const activation of ['relu', 'linear', 'tanh'] as const) {
        const build = image(() => [layers.conv2d({ filters: 8, kernelSize: 2, activation: 'tanh' }), layers.conv2d({ filters: 9, kernelSize: 2, activation }), pool(), layers.conv2d({ filters: 2, kernelSize: 1 })]);
        await expectParity(build, { rows: 4 });
        await expectParity(build, { element: () => 0.5 });
      }
      await expectParity(chain([9, 8, 8], () => [pool(), layers.conv2d({ filters: 8, kernelSize: 1 }), layers.layerNormalization({}), layers.maxPooling2d({ poolSize: [1, 2] })]));
    });

    const cases: Record<string, () => LayersModel> = {
      'separable conv2d': image(() => [layers.separableConv2d({ filters: 4, kernelSize: 3 })]),
      'transposed conv2d': image(() => [layers.conv2dTranspose({ filters: 2, kernelSize: 3, strides: 2, padding: 'same' })]),
      conv1d: sequence(() => [layers.conv1d({ filters: 4, kernelSize: 3, strides: 2, padding: 'same' }), layers.conv1d({ filters: 3, kernelSize: 2 })]),
      '1d pools': sequence(() => [layers.conv1d({ filters: 4, kernelSize: 2 }), layers.maxPooling1d({ poolSize: 2 }), layers.averagePooling1d({ poolSize: 2 })]),
      'a relu before and after a max pool': features('tanh', () => [layers.reLU(), layers.maxPooling2d({ poolSize: 2 }), layers.reLU()]),
      'a relu whose result goes to a max pool and elsewhere': () => {
        const x = tf.input({ shape: [6, 6, 2] });
        const relu = layers.conv2d({ filters: 3, kernelSize: 3, activation: 'relu' }).apply(x) as SymbolicTensor;
        const pooled = layers.flatten().apply(layers.maxPooling2d({ poolSize: 2 }).apply(relu)) as SymbolicTensor;
        const both = layers.concatenate().apply([pooled, layers.flatten().apply(relu) as SymbolicTensor]) as SymbolicTensor;
        return tf.model({ inputs: x, outputs: layers.dense({ units: 4 }).apply(both) as SymbolicTensor });
      },
      'a convolution whose result goes to a max pool and elsewhere': () => {
        const x = tf.input({ shape: [6, 6, 2] });
        const convolved = layers.conv2d({ filters: 3, kernelSize: 3 }).apply(x) as SymbolicTensor;
        const pooled = layers.flatten().apply(layers.maxPooling2d({ poolSize: 2 }).apply(convolved)) as SymbolicTensor;
        const both = layers.concatenate().apply([pooled, layers.flatten().apply(layers.activation({ activation: 'tanh' }).apply(convolved)) as SymbolicTensor]) as SymbolicTensor;
        return tf.model({ inputs: x, outputs: layers.dense({ units: 4 }).apply(both) as SymbolicTensor });
      },
      'a sum over images of what comes out of a max pool': image(() => [layers.conv2d({ filters: 3, kernelSize: 3 }), layers.conv2d({ filters: 3, kernelSize: 2, activation: 'relu' }), layers.maxPooling2d({ poolSize: 2 }), layers.maxPooling2d({ poolSize: 2 })]),
      'conv1d before a pool': sequence(() => [layers.conv1d({ filters: 4, kernelSize: 3, padding: 'same', activation: 'relu' }), layers.maxPooling1d({ poolSize: 3 })]),
      'global average pool': chain([6, 6, 2], () => [layers.conv2d({ filters: 4, kernelSize: 3, activation: 'relu' }), layers.globalAveragePooling2d({}), layers.reshape({ targetShape: [4, 1] })]),
      'global max pool': chain([6, 6, 2], () => [layers.conv2d({ filters: 4, kernelSize: 3, activation: 'relu' }), layers.globalMaxPooling2d({}), layers.reshape({ targetShape: [4, 1] })]),
      'zero padding and cropping': features('tanh', () => [layers.zeroPadding2d({ padding: [[1, 2], [0, 3]] }), layers.cropping2D({ cropping: [[1, 1], [2, 0]] })]),
      'layer normalization': vector(() => [layers.dense({ units: 5 }), layers.layerNormalization({})]),
      'layer normalization of channels': features('tanh', () => [layers.layerNormalization({})]),
      'leaky relu': vector(() => [layers.dense({ units: 5 }), layers.leakyReLU({ alpha: 0.2 })]),
      prelu: vector(() => [layers.dense({ units: 5 }), layers.prelu()]),
      'elu layer': vector(() => [layers.dense({ units: 5 }), layers.elu()]),
      'softmax layer': vector(() => [layers.dense({ units: 5 }), layers.softmax()]),
      'relu with a ceiling': vector(() => [layers.dense({ units: 5 }), layers.reLU({ maxValue: 0.5 })]),
      'permute and reshape': sequence(() => [layers.dense({ units: 4 }), layers.permute({ dims: [2, 1] }), layers.reshape({ targetShape: [14, 2] }), layers.dense({ units: 3, activation: 'relu' })]),
      'repeat vector': vector(() => [layers.dense({ units: 5 }), layers.repeatVector({ n: 3 }), layers.conv1d({ filters: 3, kernelSize: 2 }), layers.flatten()]),
      'time distributed': sequence(() => [layers.timeDistributed({ layer: layers.dense({ units: 4 }) })]),
      'simple rnn': sequence(() => [layers.simpleRNN({ units: 4, returnSequences: true })]),
      lstm: sequence(() => [layers.lstm({ units: 4, returnSequences: true })]),
      gru: sequence(() => [layers.gru({ units: 4, returnSequences: true })]),
      'bidirectional lstm': sequence(() => [layers.bidirectional({ layer: layers.lstm({ units: 3, returnSequences: true }), mergeMode: 'concat' })]),
    };
    it.each(Object.entries(cases))('%s', (_, build) => expectParity(build));

    it.each(['add', 'multiply', 'average', 'maximum', 'minimum', 'concatenate'] as const)('%s of vectors and of images', async (merge) => {
      for (const shape of [[6], [6, 6, 2]]) {
        await expectParity(() => {
          const x = tf.input({ shape });
          const branch = (activation: 'relu' | 'linear') => (shape.length === 1 ? layers.dense({ units: 5, activation }) : layers.conv2d({ filters: 3, kernelSize: 3, activation })).apply(x) as SymbolicTensor;
          const merged = layers[merge]().apply([branch('relu'), branch('linear')]) as SymbolicTensor;
          const flat = shape.length === 1 ? merged : (layers.flatten().apply(merged) as SymbolicTensor);
          return tf.model({ inputs: x, outputs: layers.dense({ units: 4 }).apply(flat) as SymbolicTensor });
        });
      }
    });

    it('embedding, with positions that occur twice', () =>
      expectParity(() => tf.sequential({ layers: [layers.embedding({ inputDim: 5, outputDim: 3, inputLength: 6 }), layers.flatten(), layers.dense({ units: 4 })] }), { element: position }));

    // One row: TF.js's plain back end mixes up the examples of a larger batch here.
    it('upsampling', () => expectParity(features('tanh', () => [layers.upSampling2d({ size: [2, 3] }), layers.conv2d({ filters: 3, kernelSize: 3 })]), { rows: 1 }));
  });

  describe('gradients of a loss equal those of TF.js', () => {
    const hidden = vector(() => [layers.dense({ units: 5, activation: 'relu' })]);
    it('cross-entropy at two temperatures, on two batches', () => expectParity(hidden, { terms: [{ kind: 'crossEntropy', temperature: 2.7 }, { kind: 'crossEntropy', temperature: 1 }] }));
    it('absolute error', () => expectParity(hidden, { terms: [{ kind: 'absoluteError' }] }));
    it('absolute error and cross-entropy', () => expectParity(hidden, { terms: [{ kind: 'absoluteError' }, { kind: 'crossEntropy', temperature: 1 }] }));
  });

  describe('gradients of a whole model equal those of TF.js', () => {
    it.each(zooNames())('%s', (name) => expectParity(() => buildZooModel({ name, exampleShape: name === 'text-embedding' ? [16] : [16, 16, 1], numClasses: 10, dropout: 0, seed: 3 }), { rows: 4 }));

    const whole: Record<string, { readonly build: () => LayersModel; readonly options?: ParityOptions }> = {
      LeNet: { build: () => tf.sequential({ layers: lenet() }) },
      'a residual network': { build: residualNetwork },
      'a depthwise network': { build: depthwiseNetwork },
      'a text classifier with an embedding': { build: textClassifier, options: { element: position } },
      'an LSTM over an embedding': { build: recurrentClassifier, options: { element: position } },
      'a convolution over time': { build: () => tf.sequential({ layers: [layers.conv1d({ inputShape: [16, 4], filters: 6, kernelSize: 3, activation: 'relu' }), layers.maxPooling1d({ poolSize: 2 }), layers.conv1d({ filters: 8, kernelSize: 3, activation: 'relu' }), layers.globalAveragePooling1d(), layers.dense({ units: 5 })] }) },
    };
    it.each(Object.entries(whole))('%s', (_, { build, options }) => expectParity(build, options));
  });

  /** A high temperature: where a softmax is sure of itself, its gradient is a difference of almost equal numbers, and says little. */
  const mild = [{ kind: 'crossEntropy', temperature: 8 }] as const;

  it('gradients of random models equal those of TF.js', async () => {
    const numRuns = Number(process.env['FEDSTILL_RANDOM_MODELS'] ?? 200);
    let aboveTolerance = 0;
    await fc.assert(
      fc.asyncProperty(randomModel(), fc.integer({ min: 1, max: 5 }), fc.nat(1_000_000), async (build, rows, seed) => {
        const { worst, where } = await gradientParity(build, { rows, seed, terms: mild });
        if (worst > tolerance) aboveTolerance++;
        // A wrong kernel is wrong by hundredths at least.
        expect(worst, where).toBeLessThan(10 * tolerance);
      }),
      { numRuns },
    );
    // A sum that almost cancels, as that of a bias may, keeps the rounding of what it is the sum of. That is rare.
    expect(aboveTolerance).toBeLessThanOrEqual(Math.ceil(numRuns / 100));
  }, 120_000);
});
