/**
 * Token ids to classes: an embedding for each id, their mean, one hidden layer. The order of words is not seen ("deep averaging network", Iyyer et al. 2015); places
 * without a token count as a token of their own.
 */
import * as tf from '@tensorflow/tfjs';
import { TOKEN_IDS } from '../datasets/text-features.ts';
import { hidden, inputLayer, layerSeed, logits, sequential, type ZooModelOptions } from './layers.ts';

const DIMENSIONS = 32;

export function textEmbedding(options: ZooModelOptions): tf.LayersModel {
  // About the norm of a dense layer's inputs: a mean of hundreds of Keras's default vectors (in +-0.05) would begin as nothing.
  const embeddingsInitializer = tf.initializers.randomUniform({ minval: -1, maxval: 1, seed: layerSeed(options, 'embedding') });
  return sequential(options, [
    inputLayer(options),
    tf.layers.embedding({ name: 'embedding', inputDim: TOKEN_IDS, outputDim: DIMENSIONS, inputLength: options.exampleShape[0]!, embeddingsInitializer }),
    tf.layers.globalAveragePooling1d({ name: 'mean' }),
    ...hidden(options, 'hidden1', 64),
    logits(options),
  ]);
}
