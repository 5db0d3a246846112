/** Compares the traced gradient graph of a model, run by ONNX Runtime, with TF.js's own gradients on its plain back end. */
import type { LayersModel, Rank, Scalar, Tensor2D, Variable } from '@tensorflow/tfjs';
import { loadBackend, tf, useBackend } from '../../shared/compute/backend.ts';
import { forward, type LoadedModel } from '../../shared/compute/layers-model.ts';
import { type LossTermPlan, names, traceStep } from '../../shared/compute/onnx/compile.ts';
import { encodeOnnxModel } from '../../shared/compute/onnx/onnx-writer.ts';
import { createSession, type OrtTensors, type RuntimeName } from '../../shared/compute/onnx/runtime.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';

export interface ParityOptions {
  readonly rows?: number;
  readonly seed?: number;
  readonly terms?: readonly LossTermPlan[];
  /** What runs the graph; default: `onnx`. */
  readonly runtime?: RuntimeName;
  /** Makes an element of an example from a gaussian number; default: rounded at 0, so that there are many ties. */
  readonly element?: (gaussian: number) => number;
}

export interface Parity {
  /** Largest difference of a gradient's element or of the loss, relative to the largest element of that gradient. */
  readonly worst: number;
  /** Where it is. */
  readonly where: string;
  readonly nodes: number;
}

const tied = (gaussian: number) => Math.max(Math.round(gaussian * 2) / 2, 0);
const ce: LossTermPlan = { kind: 'crossEntropy', temperature: 1 };

export async function gradientParity(build: () => LayersModel, { rows = 3, seed = 7, terms = [ce], runtime = 'onnx', element = tied }: ParityOptions = {}): Promise<Parity> {
  await loadBackend('tfjs-cpu');
  useBackend('tfjs-cpu');
  const network = build();
  const exampleShape = network.inputs[0]!.shape.slice(1) as number[];
  const classes = network.outputs[0]!.shape.at(-1)!;
  const model: LoadedModel = { network, topology: {}, head: 'logits', summary: { name: network.name, parameterCount: 0, weightBytes: 0, exampleShape, numClasses: classes } };
  const generator = new SeededGenerator(seed);
  const gaussian = (length: number) => Float32Array.from({ length }, () => generator.gaussian());
  const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
  // Weights that no initializer draws: biases of zero would hide a wrong bias gradient.
  for (const weight of network.weights) {
    const value = tf.tensor(gaussian(size(weight.shape as number[])).map((x) => x * 0.4 + (weight.originalName.includes('gamma') ? 1 : 0)), weight.shape as number[]);
    weight.write(value);
    value.dispose();
  }
  const allRows = rows * terms.length;
  const examples = gaussian(allRows * size(exampleShape)).map(element);
  const targets = terms.map(() => gaussian(rows * classes).map((x) => Math.abs(x) / rows));
  const rowWeights = gaussian(rows).map(Math.abs);

  const step = traceStep(model, { terms, rows: terms.map(() => rows) });
  const session = await createSession(encodeOnnxModel(step.graph), runtime);
  const inputs: OrtTensors = { [names.examples]: session.tensor(examples, [allRows, ...exampleShape]) };
  network.weights.forEach((weight, i) => (inputs[names.weight(i)] = session.tensor(Float32Array.from(weight.read().dataSync()), weight.shape as number[])));
  terms.forEach((_, i) => {
    inputs[names.targets(i)] = session.tensor(targets[i]!, [rows, classes]);
    inputs[names.rowWeights(i)] = session.tensor(rowWeights, [rows, 1]);
  });
  if (step.noise.length > 0) throw new Error('parity of dropout is compared by training, not here');
  const outputs: OrtTensors = { [names.loss]: session.tensor(new Float32Array(1), []) };
  for (const i of step.gradients) outputs[names.gradient(i)] = session.tensor(new Float32Array(size(network.weights[i]!.shape as number[])), network.weights[i]!.shape as number[]);
  const wanted = new Set(step.graph.inputs.map(({ name }) => name));
  await session.run(Object.fromEntries(Object.entries(inputs).filter(([name]) => wanted.has(name))), outputs);
  await session.release();

  useBackend('tfjs-cpu');
  tf.engine().startScope();
  const variables = network.trainableWeights.map((weight) => weight.read() as Variable);
  const { value, grads } = tf.variableGrads(() => {
    const logits = forward(model, tf.tensor(examples, [allRows, ...exampleShape]), true);
    const losses = terms.map((term, i) => {
      const own = tf.slice<Rank.R2, Tensor2D>(logits, [i * rows, 0], [rows, classes]);
      const target = tf.tensor2d(targets[i]!, [rows, classes]);
      if (term.kind === 'absoluteError') return tf.sum<Scalar>(tf.mul(tf.abs(tf.sub(own, target)), tf.tensor2d(rowWeights, [rows, 1])));
      return tf.neg(tf.sum<Scalar>(tf.mul(target, tf.logSoftmax(tf.div(own, term.temperature)))));
    });
    return losses.reduce((sum, term) => tf.add(sum, term));
  }, variables);
  const pairs = step.gradients.map((i) => {
    const weight = network.weights[i]!;
    return { where: weight.originalName, actual: outputs[names.gradient(i)]!.data, expected: grads[(weight.read() as Variable).name]!.dataSync<'float32'>() };
  });
  const missing = network.trainableWeights.length - pairs.length;
  if (missing > 0) throw new Error(`${missing} gradients are missing`);
  pairs.push({ where: 'loss', actual: outputs[names.loss]!.data, expected: value.dataSync<'float32'>() });
  tf.engine().endScope();
  const largest = (values: ArrayLike<number>) => Array.from(values).reduce((max, x) => Math.max(max, Math.abs(x)), 0);
  const overall = pairs.reduce((max, { expected }) => Math.max(max, largest(expected)), 0);
  let result = { worst: 0, where: '' };
  for (const { where, actual, expected } of pairs) {
    // A gradient that is almost nothing beside the others is the rounding of theirs.
    const scale = Math.max(largest(expected), 1e-3 * overall);
    const difference = largest(Array.from(expected, (x, i) => x - actual[i]!)) / scale;
    if (!(difference <= result.worst)) result = { worst: difference, where };
  }
  network.dispose();
  return { ...result, nodes: step.graph.nodes.length };
}
