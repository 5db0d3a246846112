/**
 * What is in the model zoo, without building any of it: importing this file loads no tensor library. `zoo.ts` has the
 * builders. Names are part of task files and checkpoints: never renamed, never changed in meaning.
 */
import { FederationError } from '../errors.ts';

export interface ZooEntry {
  readonly name: string;
  /** One line for `fedstill doctor`. */
  readonly description: string;
  /** Which example shapes it takes, in words. */
  readonly accepts: string;
  /** The least height and width of an image it takes; undefined: examples of any shape (they are flattened). */
  readonly minImageSide: number | undefined;
  /** Takes the ids of `features: tokens` and nothing else, which a shape cannot tell: it is not proposed to anybody. */
  readonly isForTokens?: boolean;
}

const flat = { accepts: 'any shape', minImageSide: undefined } as const;
const tokens = { accepts: 'token ids [length] (docs/data.md)', minImageSide: undefined, isForTokens: true } as const;
const image = (minImageSide: number) => ({ accepts: `images [height, width, channels] of at least ${minImageSide}x${minImageSide}`, minImageSide });

const catalog = [
  { name: 'softmax-regression', description: 'one dense layer: multinomial logistic regression', ...flat },
  { name: 'mlp-small', description: 'one hidden layer of 64', ...flat },
  { name: 'mlp-medium', description: 'hidden layers of 128 and 64', ...flat },
  { name: 'mlp-large', description: 'hidden layers of 256 and 128', ...flat },
  { name: 'mlp-100-100', description: 'two hidden layers of 100 (the MLP of FedKT)', ...flat },
  { name: 'cnn-small', description: 'conv 3x3x8 and conv 3x3x16, both stride 2', ...image(4) },
  { name: 'cnn-medium', description: 'conv 5x5x8, max pool, conv 5x5x16, max pool', ...image(8) },
  { name: 'cnn-wide', description: 'conv 5x5x32 stride 3, then a hidden layer of 64', ...image(6) },
  { name: 'lenet', description: 'conv 5x5x6, max pool, conv 5x5x16, max pool, no padding, hidden layers of 120 and 84', ...image(16) },
  { name: 'text-embedding', description: 'the mean of 32-dimensional embeddings of tokens, then a hidden layer of 64', ...tokens },
] as const satisfies readonly ZooEntry[];

export type ZooName = (typeof catalog)[number]['name'];

/** The names of all zoo models, smallest family first. */
export function zooNames(): readonly ZooName[] {
  return catalog.map((entry) => entry.name);
}

export function describeZoo(): readonly ZooEntry[] {
  return catalog;
}

/** The names of the models that take examples of this shape. */
export function fittingZooNames(exampleShape: readonly number[]): readonly ZooName[] {
  return catalog.filter((entry: ZooEntry) => entry.isForTokens !== true && fits(entry, exampleShape)).map((entry) => entry.name);
}

/** Throws `model-invalid`, listing the names that would do, unless the zoo has such a model for such examples. */
export function checkZooModel(name: string, exampleShape: readonly number[]): ZooName {
  const entry = catalog.find((candidate) => candidate.name === name);
  const fitting = fittingZooNames(exampleShape).join(', ');
  if (entry === undefined) {
    throw new FederationError('model-invalid', `There is no model named "${name}" in the zoo.`, {
      field: 'model',
      expected: zooNames().join(', '),
      got: name,
      next: `For examples of shape [${exampleShape.join(', ')}] use one of: ${fitting}.`,
    });
  }
  if (!fits(entry, exampleShape)) {
    throw new FederationError('model-invalid', `The model ${name} does not take examples of this shape.`, {
      field: 'model',
      expected: entry.accepts,
      got: `[${exampleShape.join(', ')}]`,
      next: `Use one of: ${fitting}.`,
    });
  }
  return entry.name;
}

function fits(entry: ZooEntry, exampleShape: readonly number[]): boolean {
  if (entry.isForTokens === true) return exampleShape.length === 1;
  if (entry.minImageSide === undefined) return true;
  const [height = 0, width = 0] = exampleShape;
  return exampleShape.length === 3 && height >= entry.minImageSide && width >= entry.minImageSide;
}
