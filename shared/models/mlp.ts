/** Multi-layer perceptrons on flattened examples. */
import type { LayersModel } from '@tensorflow/tfjs';
import { flatten, hidden, inputLayer, logits, sequential, type ZooModelOptions } from './layers.ts';

/** `hiddenUnits`: width of each hidden layer, first to last. */
export function mlp(options: ZooModelOptions, hiddenUnits: readonly number[]): LayersModel {
  const hiddenLayers = hiddenUnits.flatMap((units, i) => hidden(options, `hidden${i + 1}`, units));
  return sequential(options, [inputLayer(options), ...flatten(options.exampleShape.length), ...hiddenLayers, logits(options)]);
}
