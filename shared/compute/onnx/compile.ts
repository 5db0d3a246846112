/**
 * Traces a model with its loss into a graph: weights, examples and targets in, loss and gradients out; or weights and
 * examples in, logits out. A graph belongs to an architecture, a loss and a batch size, and serves any number of models:
 * weights, learning rates, shares of the loss and the number of real rows are inputs or stay outside.
 *
 * The sum over a batch is weighted: the targets carry each row's weight, 0 for rows that only fill the batch up. That is
 * exact as long as no layer mixes the rows of a batch; batch normalization, the one that does, is refused in training.
 */
import type { Scalar, Tensor2D, Variable } from '@tensorflow/tfjs';
import { unreachable } from '../../errors.ts';
import { tf } from '../backend.ts';
import { forward, type LoadedModel, trainableVariables, type Weight } from '../layers-model.ts';
import { DropoutTracer, type NoiseInput } from './dropout-noise.ts';
import type { FinishedGraph, NamedValue, Value } from './graph.ts';
import { UnsupportedByTrace } from './kernels/kernel.ts';
import { type Recording, trace } from './trace-backend.ts';

/** A summand of the loss, computed on rows of its own. */
export type LossTermPlan =
  /**
   * - sum over rows and classes of target * ln softmax(logits / temperature). The targets carry the weights of the rows, and
   * the square of the temperature.
   */
  | { readonly kind: 'crossEntropy'; readonly temperature: number }
  /** Sum over rows of weight * |logits - targets|, the weights in an input of their own. */
  | { readonly kind: 'absoluteError' };

export interface StepPlan {
  readonly terms: readonly LossTermPlan[];
  /** Rows of each term. */
  readonly rows: number;
}

/** Names of the inputs and outputs of a graph, but for noise. `weight` counts all of the network's weights, `term` the terms. */
export const names = {
  examples: 'examples',
  weight: (weight: number) => `weight${weight}`,
  gradient: (weight: number) => `gradient${weight}`,
  targets: (term: number) => `targets${term}`,
  rowWeights: (term: number) => `rowWeights${term}`,
  loss: 'loss',
  logits: 'logits',
} as const;

export interface StepGraph {
  readonly graph: FinishedGraph;
  readonly plan: StepPlan;
  readonly noise: readonly NoiseInput[];
  /** Dropout layers of the model, each of which takes a seed in each forward pass. */
  readonly dropoutLayers: number;
  /** Weights that the graph has a gradient of: those that training changes and that the loss depends on. */
  readonly gradients: readonly number[];
}

/** Identifies a plan among the graphs of one architecture. */
export function planKey({ terms, rows }: StepPlan): string {
  return `${rows}:${terms.map((term) => (term.kind === 'crossEntropy' ? `crossEntropy@${term.temperature}` : term.kind)).join('+')}`;
}

/** The gradient graph of one training step. Throws `UnsupportedByTrace`. */
export function traceStep(model: LoadedModel, plan: StepPlan): StepGraph {
  const { weights } = model.network;
  const variables = trainableVariables(model.network);
  const tracer = new DropoutTracer(model.network);
  try {
    return trace(tracer, weights.map(variableOf), (recording) => {
      const { graph } = recording;
      tracer.start(graph);
      const values = bindWeights(recording, weights);
      const rows = plan.rows * plan.terms.length;
      const examples = recording.placeholder(graph.input(names.examples, [rows, ...model.summary.exampleShape]));
      const { value, grads } = tf.variableGrads(() => loss(recording, plan, model, forward(model, examples, true)), variables);
      for (const { name, shape } of tracer.inputs) {
        if (shape[0] !== rows) throw new UnsupportedByTrace('dropout', `the noise ${name} is not drawn for each example`);
      }
      const outputs: NamedValue[] = [{ name: names.loss, value: recording.valueOf(value) }];
      const gradients: number[] = [];
      for (const [i, weight] of weights.entries()) {
        const gradient = grads[variableOf(weight).name];
        if (gradient === undefined || gradient === null) continue;
        gradients.push(i);
        outputs.push({ name: names.gradient(i), value: graph.reshape(recording.valueOf(gradient), values[i]!.shape) });
      }
      return { graph: graph.finish(outputs), plan, noise: tracer.inputs, dropoutLayers: tracer.layerCount, gradients };
    });
  } finally {
    tracer.restore();
  }
}

/** The graph from examples to logits in inference mode. Throws `UnsupportedByTrace`. */
export function tracePrediction(model: LoadedModel, rows: number): FinishedGraph {
  const { weights } = model.network;
  return trace({ recognize: () => undefined }, weights.map(variableOf), (recording) => {
    bindWeights(recording, weights);
    const examples = recording.placeholder(recording.graph.input(names.examples, [rows, ...model.summary.exampleShape]));
    return recording.graph.finish([{ name: names.logits, value: recording.valueOf(forward(model, examples, false)) }]);
  });
}

function bindWeights(recording: Recording, weights: readonly Weight[]): readonly Value[] {
  return weights.map((weight, i) => {
    const variable = variableOf(weight);
    if (variable.dtype !== 'float32') throw new UnsupportedByTrace('weight', `the weight ${weight.originalName} is of the type ${variable.dtype}`);
    const value = recording.graph.input(names.weight(i), variable.shape);
    recording.bind(variable, value);
    return value;
  });
}

function variableOf(weight: Weight): Variable {
  return weight.read() as Variable;
}

function loss(recording: Recording, { terms, rows }: StepPlan, { summary }: LoadedModel, logits: Tensor2D): Scalar {
  const input = (name: string, shape: readonly number[]) => recording.placeholder(recording.graph.input(name, shape)) as Tensor2D;
  const losses = terms.map((term, i) => {
    const own = terms.length === 1 ? logits : tf.slice(logits, [i * rows, 0], [rows, summary.numClasses]);
    const targets = input(names.targets(i), [rows, summary.numClasses]);
    switch (term.kind) {
      case 'crossEntropy':
        return tf.neg(tf.sum<Scalar>(tf.mul(targets, tf.logSoftmax(term.temperature === 1 ? own : tf.div(own, term.temperature)))));
      case 'absoluteError':
        return tf.sum<Scalar>(tf.mul(tf.abs(tf.sub(own, targets)), input(names.rowWeights(i), [rows, 1])));
      default:
        return unreachable(term);
    }
  });
  return losses.reduce((sum, term) => tf.add(sum, term));
}
