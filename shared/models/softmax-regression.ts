/** Multinomial logistic regression: convex, so it is the model whose training steps can be checked by hand. */
import type { LayersModel } from '@tensorflow/tfjs';
import { dropout, flatten, inputLayer, logits, sequential, type ZooModelOptions } from './layers.ts';

export function softmaxRegression(options: ZooModelOptions): LayersModel {
  return sequential(options, [inputLayer(options), ...flatten(options.exampleShape.length), ...dropout(options, 'input'), logits(options)]);
}
