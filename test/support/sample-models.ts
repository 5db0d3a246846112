/** Small models for tests of gradients: classics, and random ones. */
import type { LayersModel, SymbolicTensor } from '@tensorflow/tfjs';
import fc from 'fast-check';
import { tf } from '../../shared/compute/backend.ts';
import type { Layer } from '../../shared/models/layers.ts';

const { layers } = tf;

export function lenet(): Layer[] {
  return [
    layers.conv2d({ inputShape: [16, 16, 1], filters: 4, kernelSize: 5, activation: 'tanh' }),
    layers.averagePooling2d({ poolSize: 2 }),
    layers.conv2d({ filters: 6, kernelSize: 3, activation: 'tanh' }),
    layers.averagePooling2d({ poolSize: 2 }),
    layers.flatten(),
    layers.dense({ units: 12, activation: 'tanh' }),
    layers.dense({ units: 10 }),
  ];
}

export function residualNetwork(): LayersModel {
  const x = tf.input({ shape: [8, 8, 3] });
  const block = (input: SymbolicTensor, filters: number, strides: number) => {
    const first = layers.conv2d({ filters, kernelSize: 3, strides, padding: 'same', activation: 'relu' }).apply(input);
    const second = layers.conv2d({ filters, kernelSize: 3, padding: 'same' }).apply(first) as SymbolicTensor;
    const shortcut = layers.conv2d({ filters, kernelSize: 1, strides, padding: 'same' }).apply(input) as SymbolicTensor;
    return layers.reLU().apply(layers.add().apply([second, shortcut])) as SymbolicTensor;
  };
  const features = block(block(x, 4, 1), 6, 2);
  return tf.model({ inputs: x, outputs: layers.dense({ units: 5 }).apply(layers.globalAveragePooling2d({}).apply(features)) as SymbolicTensor });
}

export function depthwiseNetwork(): LayersModel {
  return tf.sequential({
    layers: [
      layers.conv2d({ inputShape: [12, 12, 2], filters: 4, kernelSize: 3, strides: 2, padding: 'same', activation: 'relu6' }),
      layers.separableConv2d({ filters: 6, kernelSize: 3, padding: 'same', activation: 'relu' }),
      layers.depthwiseConv2d({ kernelSize: 3, strides: [2, 2], padding: 'same', activation: 'relu' }),
      layers.globalMaxPooling2d({}),
      layers.dense({ units: 5 }),
    ],
  });
}

export function textClassifier(): LayersModel {
  return tf.sequential({ layers: [layers.embedding({ inputDim: 5, outputDim: 4, inputLength: 9 }), layers.globalAveragePooling1d(), layers.dense({ units: 6, activation: 'relu' }), layers.dense({ units: 3 })] });
}

export function recurrentClassifier(): LayersModel {
  return tf.sequential({ layers: [layers.embedding({ inputDim: 5, outputDim: 4, inputLength: 5 }), layers.lstm({ units: 5 }), layers.dense({ units: 3 })] });
}

/** Chains of convolutions, pools, activations and dense layers. */
export function randomModel(): fc.Arbitrary<() => LayersModel> {
  const activation = fc.constantFrom('relu', 'tanh', 'sigmoid', 'elu', 'linear', 'softplus') as fc.Arbitrary<'relu'>;
  const padding = fc.constantFrom('same', 'valid') as fc.Arbitrary<'same'>;
  const small = fc.integer({ min: 1, max: 3 });
  const spatial = fc.oneof(
    fc.record({ kind: fc.constant('conv' as const), filters: fc.integer({ min: 1, max: 5 }), kernelSize: small, strides: fc.integer({ min: 1, max: 2 }), padding, activation }),
    fc.record({ kind: fc.constant('max' as const), poolSize: fc.integer({ min: 2, max: 3 }), strides: small, padding: fc.constant('same' as const) }),
    fc.record({ kind: fc.constant('average' as const), poolSize: fc.integer({ min: 2, max: 3 }), strides: small, padding: fc.constant('same' as const) }),
    fc.record({ kind: fc.constant('depthwise' as const), kernelSize: small, depthMultiplier: fc.integer({ min: 1, max: 2 }), padding: fc.constant('same' as const) }),
    fc.record({ kind: fc.constant('leaky' as const), alpha: fc.constantFrom(0.1, 0.3) }),
  );
  const dense = fc.record({ units: fc.integer({ min: 2, max: 6 }), activation });
  return fc.tuple(fc.integer({ min: 6, max: 9 }), fc.integer({ min: 1, max: 3 }), fc.array(spatial, { maxLength: 3 }), fc.array(dense, { maxLength: 2 })).map(([side, channels, spatialLayers, denseLayers]) => () => {
    const model = tf.sequential({ layers: [layers.inputLayer({ inputShape: [side, side + 1, channels] })] });
    for (const config of spatialLayers) {
      const [, height, width] = model.outputs[0]!.shape as number[];
      // A window that is larger than what is left has no result.
      if (config.kind === 'conv') model.add(layers.conv2d(config.kernelSize > Math.min(height!, width!) ? { ...config, padding: 'same' } : config));
      if (config.kind === 'max') model.add(layers.maxPooling2d(config));
      if (config.kind === 'average') model.add(layers.averagePooling2d(config));
      if (config.kind === 'depthwise') model.add(layers.depthwiseConv2d(config));
      if (config.kind === 'leaky') model.add(layers.leakyReLU(config));
    }
    model.add(layers.flatten());
    for (const config of denseLayers) model.add(layers.dense(config));
    model.add(layers.dense({ units: 4 }));
    return model;
  });
}
