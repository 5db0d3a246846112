/**
 * A TF.js LayersModel as the engine uses it: from the zoo or from saved artifacts, one input, one output, logits out.
 *
 * A user's model that ends in a softmax is opened without it: log-probabilities computed from the values before the
 * softmax keep their precision, where the logarithm of a rounded probability does not. `save` writes the original.
 */
import type { LayersModel, Tensor, Tensor2D, Variable } from '@tensorflow/tfjs';
import { FederationError } from '../errors.ts';
import { buildZooModel } from '../models/zoo.ts';
import { exampleSize, type OutputKind } from '../types/matrix.ts';
import { tf } from './backend.ts';
import { checkSavedModel, divergenceField, sameShape } from './checks.ts';
import type { FitOptions, ModelSource, ModelSummary, SavedModel } from './engine.ts';

/** A weight of a layer. TF.js's own type for it is not exported. */
export type Weight = LayersModel['weights'][number];

/** How the network's output becomes logits. */
type Head = 'logits' | 'beforeSoftmax' | 'probabilities';

export interface LoadedModel {
  readonly network: LayersModel;
  readonly summary: ModelSummary;
  /** What `save` writes as the topology. */
  readonly topology: unknown;
  readonly head: Head;
}

/** Smallest probability whose logarithm is taken, when a model's output layer gives probabilities by other means than a softmax. */
const leastProbability = 1e-7;

/** Builds or loads the model. Throws `model-invalid`. */
export async function loadModel(source: ModelSource, seed: number): Promise<LoadedModel> {
  if (source.kind === 'zoo') {
    const { name, exampleShape, numClasses, dropout = 0 } = source;
    const network = buildZooModel({ name, exampleShape, numClasses, dropout, seed });
    return { network, summary: summarize(network, name), topology: network.toJSON(null, false), head: 'logits' };
  }
  const { artifacts, outputKind } = source;
  checkSavedModel(artifacts);
  const { topology, head } = headless(artifacts.topology, outputKind);
  const network = await deserialize({ ...artifacts, topology });
  try {
    return { network, summary: summarize(network, network.name), topology: artifacts.topology, head };
  } catch (error) {
    network.dispose();
    throw error;
  }
}

/** Logits [batch x classes] of a batch [batch, ...exampleShape]. `training`: with dropout. */
export function forward({ network, head }: LoadedModel, batch: Tensor, training: boolean): Tensor2D {
  const output = network.apply(batch, { training }) as Tensor2D;
  switch (head) {
    case 'logits':
      return output;
    case 'beforeSoftmax':
      return tf.logSoftmax(output);
    case 'probabilities':
      return tf.log(tf.clipByValue(output, leastProbability, 1));
  }
}

/** The variables that training changes. */
export function trainableVariables(network: LayersModel): Variable[] {
  return network.trainableWeights.map((weight) => weight.read() as Variable);
}

/** Throws `model-invalid` when training could change nothing. */
export function requireTrainable({ network, summary }: LoadedModel): Variable[] {
  const variables = trainableVariables(network);
  if (variables.length === 0) {
    throw new FederationError('model-invalid', `Every layer of the model ${summary.name} is frozen, so it cannot be trained.`, { field: 'model.trainable', expected: 'at least one trainable weight', got: 'none' });
  }
  return variables;
}

export function areFinite(variables: readonly Variable[]): boolean {
  return variables.every((variable) => variable.dataSync().every(Number.isFinite));
}

/** `steps`: updates before the one after which something is not finite. */
export function diverged({ summary }: Pick<LoadedModel, 'summary'>, { optimizer: { learningRate } }: Pick<FitOptions, 'optimizer'>, steps: number): FederationError {
  return new FederationError('model-invalid', `Training of ${summary.name} diverged: its loss or a weight is no longer a finite number after step ${steps + 1}.`, {
    field: divergenceField,
    expected: 'a learning rate with which the loss stays finite',
    got: String(learningRate),
    next: `Lower the learning rate, e.g. to ${learningRate / 10}, and check that the examples are scaled to about [0, 1].`,
  });
}

/** A layer that may hold or wrap others; what we need of TF.js's classes, some of which are not exported. */
interface AnyLayer {
  readonly name: string;
  getClassName(): string;
  readonly layers?: readonly AnyLayer[];
  readonly layer?: AnyLayer;
  readonly stateful?: boolean;
}

function allLayers(layer: AnyLayer): readonly AnyLayer[] {
  const inner = [...(layer.layers ?? []), ...(layer.layer === undefined ? [] : [layer.layer])];
  return [layer, ...inner.flatMap(allLayers)];
}

/** Whether training normalizes over the examples of a batch. */
export function normalizesBatches(network: LayersModel): boolean {
  return allLayers(network).some((layer) => layer.getClassName() === 'BatchNormalization');
}

/** Throws `model-invalid` when an example's gradient depends on other examples: then clipping it bounds nothing. */
export function checkNoMixing({ network, summary }: LoadedModel): void {
  for (const layer of allLayers(network)) {
    const isNormalization = layer.getClassName() === 'BatchNormalization';
    // A network is stateful when one of its layers is.
    if (!isNormalization && !(layer.stateful === true && layer.layers === undefined)) continue;
    throw new FederationError('model-invalid', `The model ${summary.name} cannot be trained privately: its layer ${layer.name} ${isNormalization ? 'normalizes over the examples of a batch' : 'carries state from batch to batch'}.`, {
      field: `model.layers.${layer.name}`,
      expected: 'layers that treat each example on its own',
      got: layer.getClassName(),
      next: isNormalization ? 'Use layer normalization instead, or none.' : 'Set stateful to false.',
    });
  }
}

/** The variables among them that an L2 penalty applies to: kernels, not biases or normalization parameters. */
export function kernelVariableNames(network: LayersModel): ReadonlySet<string> {
  return new Set(network.trainableWeights.filter((weight) => weight.originalName.endsWith('kernel')).map((weight) => (weight.read() as Variable).name));
}

/** All weights, copied, one after the other, with their specifications. */
export function saveWeights(network: LayersModel): Pick<SavedModel, 'weightSpecs' | 'weights'> {
  const weightSpecs = network.weights.map((weight) => ({ name: weight.originalName, shape: weightShape(weight), dtype: weightType(weight) }));
  const weights = new Uint8Array(weightSpecs.reduce((bytes, { shape }) => bytes + 4 * exampleSize(shape), 0));
  let offset = 0;
  for (const weight of network.weights) {
    const values = weight.read().dataSync();
    weights.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), offset);
    offset += values.byteLength;
  }
  return { weightSpecs, weights };
}

/**
 * Replaces all weights. They are matched by name when the names are the model's, else by position. Throws
 * `model-invalid` when a shape differs.
 */
export function loadWeights(network: LayersModel, saved: SavedModel): void {
  checkSavedModel(saved);
  if (saved.weightSpecs.length !== network.weights.length) {
    throw new FederationError('model-invalid', 'The saved weights are those of another architecture.', {
      field: 'model.weights',
      expected: `${network.weights.length} weights`,
      got: `${saved.weightSpecs.length} weights`,
    });
  }
  const positions = new Map(saved.weightSpecs.map(({ name }, position) => [name, position]));
  const byName = network.weights.every((weight) => positions.has(weight.originalName));
  const offsets: number[] = [];
  let bytes = 0;
  for (const { shape } of saved.weightSpecs) {
    offsets.push(bytes);
    bytes += 4 * exampleSize(shape);
  }
  const chosen = network.weights.map((weight, i) => (byName ? positions.get(weight.originalName)! : i));
  // Everything is checked before anything is written.
  for (const [i, weight] of network.weights.entries()) {
    const { shape } = saved.weightSpecs[chosen[i]!]!;
    if (!sameShape(weightShape(weight), shape)) {
      throw new FederationError('model-invalid', 'The saved weights are those of another architecture.', {
        field: `model.weights.${weight.originalName}`,
        expected: `[${weightShape(weight).join(', ')}]`,
        got: `[${shape.join(', ')}]`,
      });
    }
  }
  for (const [i, weight] of network.weights.entries()) {
    const { shape, dtype } = saved.weightSpecs[chosen[i]!]!;
    const start = offsets[chosen[i]!]!;
    // Copied: a view at an odd offset could not be read as 32-bit values.
    const copy = saved.weights.slice(start, start + 4 * exampleSize(shape)).buffer;
    const values = tf.tensor(dtype === 'int32' ? new Int32Array(copy) : new Float32Array(copy), [...shape], dtype);
    weight.write(values);
    values.dispose();
  }
}

async function deserialize({ topology, weightSpecs, weights }: SavedModel): Promise<LayersModel> {
  const artifacts = {
    modelTopology: topology as object,
    weightSpecs: weightSpecs.map(({ name, shape, dtype }) => ({ name, shape: [...shape], dtype })),
    weightData: weights.slice().buffer,
  };
  try {
    return await tf.loadLayersModel(tf.io.fromMemory(artifacts));
  } catch (error) {
    throw new FederationError('model-invalid', `TF.js cannot build the saved model: ${error instanceof Error ? error.message : String(error)}`, {
      field: 'model.topology',
      next: 'Check that it was saved as a LayersModel and that every layer exists in TF.js 4.22.0.',
      cause: error,
    });
  }
}

function summarize(network: LayersModel, name: string): ModelSummary {
  const [input, ...moreInputs] = network.inputs.map(({ shape }) => shape.slice(1));
  const [output, ...moreOutputs] = network.outputs.map(({ shape }) => shape.slice(1));
  const usable = moreInputs.length === 0 && input!.length >= 1 && input!.every((side) => side !== null && side >= 1);
  if (!usable) {
    throw new FederationError('model-invalid', 'A model must have one input with a fixed shape.', { field: 'model.inputShape', expected: '[null, sides...]', got: JSON.stringify(network.inputs.map(({ shape }) => shape)) });
  }
  if (moreOutputs.length > 0 || output!.length !== 1 || output![0] === null || output![0]! < 2) {
    throw new FederationError('model-invalid', 'A model must have one output with one unit for each class.', { field: 'model.outputShape', expected: '[null, number of classes]', got: JSON.stringify(network.outputs.map(({ shape }) => shape)) });
  }
  const scalars = (weights: readonly Weight[]) => weights.reduce((sum, weight) => sum + exampleSize(weightShape(weight)), 0);
  return {
    name,
    parameterCount: scalars(network.trainableWeights),
    weightBytes: 4 * scalars(network.weights),
    exampleShape: input as number[],
    numClasses: output![0]!,
  };
}

function weightShape(weight: Weight): number[] {
  return weight.shape as number[];
}

function weightType(weight: Weight): 'float32' | 'int32' {
  return weight.read().dtype === 'int32' ? 'int32' : 'float32';
}

/** A layer in Keras-style JSON, as far as this file looks at it. */
interface LayerJson {
  class_name?: unknown;
  config?: { name?: unknown; activation?: unknown; axis?: unknown };
}

/** The topology without a softmax at its end, and what its output then is. Leaves the given topology as it is. */
function headless(topology: unknown, outputKind: OutputKind): { topology: unknown; head: Head } {
  const copy = structuredClone(topology);
  const last = outputLayer(copy);
  const isSoftmax = last?.class_name === 'Softmax' || last?.config?.activation === 'softmax';
  if (outputKind === 'logits') {
    if (isSoftmax) {
      throw new FederationError('model-invalid', 'The model ends in a softmax, so its output is probabilities, not logits.', { field: 'model.outputKind', expected: 'probabilities', got: 'logits', next: 'Set outputKind to probabilities.' });
    }
    return { topology, head: 'logits' };
  }
  if (last?.config === undefined) return { topology, head: 'probabilities' };
  if ((last.class_name === 'Dense' || last.class_name === 'Activation') && last.config.activation === 'softmax') {
    last.config.activation = 'linear';
    return { topology: copy, head: 'beforeSoftmax' };
  }
  if (last.class_name === 'Softmax' && (last.config.axis ?? -1) === -1) {
    last.class_name = 'Activation';
    last.config = { name: last.config.name, activation: 'linear' };
    return { topology: copy, head: 'beforeSoftmax' };
  }
  return { topology, head: 'probabilities' };
}

/** The layer that gives the model's output, in the JSON of TF.js (`config`) or of a converted Keras model (`model_config`). */
function outputLayer(topology: unknown): LayerJson | undefined {
  const root = topology as { model_config?: unknown };
  const { config } = (root.model_config ?? root) as { config?: unknown };
  // A Sequential model's layers are in order; in older files they are the config itself.
  if (Array.isArray(config)) return config.at(-1) as LayerJson | undefined;
  const { layers, output_layers: outputs } = (config ?? {}) as { layers?: unknown; output_layers?: unknown };
  if (!Array.isArray(layers)) return undefined;
  if (!Array.isArray(outputs)) return layers.at(-1) as LayerJson | undefined;
  // [[name, 0, 0]], or [name, 0, 0] in some Keras versions.
  const first: unknown = outputs[0];
  const name: unknown = Array.isArray(first) ? first[0] : first;
  return (layers as LayerJson[]).find((layer) => layer.config?.name === name);
}
