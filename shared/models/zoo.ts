/**
 * The model zoo: name to builder. The networks differ on purpose: clients of one federation need not share an
 * architecture, only the classes. `catalog.ts` describes them without loading TF.js.
 */
import type { LayersModel } from '@tensorflow/tfjs';
import { FederationError } from '../errors.ts';
import { checkZooModel, type ZooName } from './catalog.ts';
import type { ZooModelOptions } from './layers.ts';
import { mlp } from './mlp.ts';
import { cnnMedium, cnnSmall, cnnWide, lenet } from './small-cnn.ts';
import { softmaxRegression } from './softmax-regression.ts';
import { textEmbedding } from './text-embedding.ts';

const builders: Record<ZooName, (options: ZooModelOptions) => LayersModel> = {
  'softmax-regression': softmaxRegression,
  'mlp-small': (options) => mlp(options, [64]),
  'mlp-medium': (options) => mlp(options, [128, 64]),
  'mlp-large': (options) => mlp(options, [256, 128]),
  'mlp-100-100': (options) => mlp(options, [100, 100]),
  'cnn-small': cnnSmall,
  'cnn-medium': cnnMedium,
  'cnn-wide': cnnWide,
  lenet,
  'text-embedding': textEmbedding,
};

/**
 * A new model whose output is logits [batch x numClasses]. Throws `model-invalid` for an unknown name, for examples that
 * the model does not take, and for sizes out of range.
 */
export function buildZooModel(options: ZooModelOptions): LayersModel {
  const { name, exampleShape, numClasses, dropout } = options;
  if (exampleShape.length === 0 || !exampleShape.every((side) => Number.isInteger(side) && side >= 1)) {
    throw new FederationError('model-invalid', 'The shape of one example must be a list of positive integers.', { field: 'exampleShape', expected: 'positive integers', got: `[${exampleShape.join(', ')}]` });
  }
  if (!Number.isInteger(numClasses) || numClasses < 2) {
    throw new FederationError('model-invalid', 'A classifier needs at least two classes.', { field: 'numClasses', expected: 'an integer >= 2', got: String(numClasses) });
  }
  if (!(dropout >= 0 && dropout < 1)) {
    throw new FederationError('model-invalid', 'A dropout rate must be at least 0 and below 1.', { field: 'dropout', expected: '[0, 1)', got: String(dropout) });
  }
  return builders[checkZooModel(name, exampleShape)](options);
}
