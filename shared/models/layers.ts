/**
 * The few layers that the zoo is made of, with initial weights drawn from the model's seed: one derived seed a layer,
 * so that the same (name, shape, seed) gives the same weights on every back end.
 */
import * as tf from '@tensorflow/tfjs';
import { deriveSeed } from '../datasets/seeded-generator.ts';

export interface ZooModelOptions {
  /** A name of `catalog.ts`; the built model carries it. */
  readonly name: string;
  /** Shape of one example, e.g. [28, 28, 1]. */
  readonly exampleShape: readonly number[];
  readonly numClasses: number;
  /** Dropout rate in [0, 1) after each hidden dense layer and before the output layer. */
  readonly dropout: number;
  /** Seed of the initial weights: an integer in [0, 2^32). */
  readonly seed: number;
}

export type Layer = tf.layers.Layer;

export function inputLayer({ exampleShape }: ZooModelOptions): Layer {
  return tf.layers.inputLayer({ inputShape: [...exampleShape], name: 'input' });
}

export function sequential({ name }: ZooModelOptions, layers: Layer[]): tf.LayersModel {
  return tf.sequential({ name, layers });
}

/** Turns examples of rank 2 and more into vectors; rank 1 needs nothing. */
export function flatten(rank: number): Layer[] {
  return rank > 1 ? [tf.layers.flatten({ name: 'flatten' })] : [];
}

/** A dense ReLU layer, He-initialized (He et al. 2015), then dropout if there is any. */
export function hidden(options: ZooModelOptions, name: string, units: number): Layer[] {
  return [
    tf.layers.dense({ name, units, activation: 'relu', kernelInitializer: tf.initializers.heNormal({ seed: layerSeed(options, name) }), biasInitializer: 'zeros' }),
    ...dropout(options, name),
  ];
}

/** A ReLU convolution over square windows, padded so that the size only changes by the stride, unless `padding` is `valid`: only windows inside the image. */
export function convolution(options: ZooModelOptions, name: string, filters: number, kernelSize: number, strides: number, padding: 'same' | 'valid' = 'same'): Layer {
  const kernelInitializer = tf.initializers.heNormal({ seed: layerSeed(options, name) });
  return tf.layers.conv2d({ name, filters, kernelSize, strides, padding, activation: 'relu', kernelInitializer, biasInitializer: 'zeros' });
}

/** Halves height and width. */
export function maxPool(name: string): Layer {
  return tf.layers.maxPooling2d({ name, poolSize: 2, strides: 2 });
}

export function dropout({ dropout: rate }: ZooModelOptions, after: string): Layer[] {
  return rate > 0 ? [tf.layers.dropout({ name: `${after}-dropout`, rate })] : [];
}

/** The output layer: linear, its values are logits. */
export function logits(options: ZooModelOptions): Layer {
  const kernelInitializer = tf.initializers.glorotUniform({ seed: layerSeed(options, 'logits') });
  return tf.layers.dense({ name: 'logits', units: options.numClasses, kernelInitializer, biasInitializer: 'zeros' });
}

/** The seed of a layer's first weights. */
export function layerSeed({ seed }: ZooModelOptions, name: string): number {
  // TF.js takes the seed 0 for "no seed" and would draw another one.
  return deriveSeed(seed, 'weights', name) || 1;
}
