/** Small convolutional networks for images [height, width, channels]: sized to train on one CPU core. */
import type { LayersModel } from '@tensorflow/tfjs';
import { convolution, dropout, flatten, hidden, inputLayer, logits, maxPool, sequential, type Layer, type ZooModelOptions } from './layers.ts';

/** Strided convolutions instead of pooling. */
export function cnnSmall(options: ZooModelOptions): LayersModel {
  return network(options, [convolution(options, 'conv1', 8, 3, 2), convolution(options, 'conv2', 16, 3, 2)], dropout(options, 'flatten'));
}

/** The classic convolution and pooling, twice. */
export function cnnMedium(options: ZooModelOptions): LayersModel {
  const features = [convolution(options, 'conv1', 8, 5, 1), maxPool('pool1'), convolution(options, 'conv2', 16, 5, 1), maxPool('pool2')];
  return network(options, features, dropout(options, 'flatten'));
}

/** One layer of many filters, then a dense layer: sees only small neighborhoods, unlike the others. */
export function cnnWide(options: ZooModelOptions): LayersModel {
  return network(options, [convolution(options, 'conv1', 32, 5, 3)], hidden(options, 'hidden1', 64));
}

/** LeNet-5 as it is used today (LeCun et al. 1998; ReLU and max pooling instead of tanh and trained averages): 44,426 weights for 28x28x1 and 10 classes. */
export function lenet(options: ZooModelOptions): LayersModel {
  const features = [convolution(options, 'conv1', 6, 5, 1, 'valid'), maxPool('pool1'), convolution(options, 'conv2', 16, 5, 1, 'valid'), maxPool('pool2')];
  return network(options, features, [...hidden(options, 'hidden1', 120), ...hidden(options, 'hidden2', 84)]);
}

/** Features of the image, flattened, then what is between them and the logits. */
function network(options: ZooModelOptions, features: Layer[], head: Layer[]): LayersModel {
  return sequential(options, [inputLayer(options), ...features, ...flatten(3), ...head, logits(options)]);
}
