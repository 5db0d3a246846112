/**
 * Traces a model with its loss into a graph: weights, examples and targets in, loss and gradients out; or weights and
 * examples in, logits out. A graph belongs to an architecture, a loss and a batch size, and serves any number of models:
 * weights, learning rates, shares of the loss and the number of real rows are inputs or stay outside.
 *
 * The sum over a batch is weighted: the targets carry each row's weight, 0 for rows that only fill the batch up. That is
 * exact as long as no layer mixes the rows of a batch; for batch normalization, the one that does, graphs have as many rows as the batch.
 */
import type { Scalar, Tensor, Tensor2D, Variable } from '@tensorflow/tfjs';
import { unreachable } from '../../errors.ts';
import { tf } from '../backend.ts';
import { forward, type LoadedModel, normalizesBatches, trainableVariables, type Weight } from '../layers-model.ts';
import { BatchAxis } from './batch-axis.ts';
import { DropoutTracer, type NoiseInput } from './dropout-noise.ts';
import type { FinishedGraph, Value } from './graph.ts';
import { UnsupportedByTrace } from './kernels/kernel.ts';
import { clipOne, clipPerExample } from './per-example.ts';
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
  /** Rows of each term, in the order of the terms. */
  readonly rows: readonly number[];
}

/** Names of the inputs and outputs of a graph, but for noise. `weight` counts all of the network's weights, `term` the terms. */
export const names = {
  examples: 'examples',
  weight: (weight: number) => `weight${weight}`,
  gradient: (weight: number) => `gradient${weight}`,
  update: (weight: number) => `update${weight}`,
  targets: (term: number) => `targets${term}`,
  rowWeights: (term: number) => `rowWeights${term}`,
  loss: 'loss',
  logits: 'logits',
  clippingNorm: 'clippingNorm',
  norms: 'norms',
} as const;

export interface StepGraph {
  readonly graph: FinishedGraph;
  readonly plan: StepPlan;
  readonly noise: readonly NoiseInput[];
  /** Dropout layers of the model, each of which takes a seed in each forward pass. */
  readonly dropoutLayers: number;
  /** Weights that the graph has a gradient of: those that training changes and that the loss depends on. */
  readonly gradients: readonly number[];
  /** Weights that the forward pass itself changes, with the new ones as outputs: moving averages of batch normalization. */
  readonly updates: readonly number[];
}

/** The gradients of private training: their outputs are sums over the examples, each example's gradient clipped to the norm that is an input. */
export interface PrivateStepGraph extends Omit<StepGraph, 'plan'> {
  readonly plan: PrivateStepPlan;
}

export interface PrivateStepPlan {
  readonly term: LossTermPlan;
  readonly rows: number;
}

/** Identifies a plan among the graphs of one architecture. */
export function planKey({ terms, rows }: StepPlan): string {
  return `${rows.join('+')}:${terms.map(termKey).join('+')}`;
}

export function privatePlanKey({ term, rows }: PrivateStepPlan): string {
  return `${rows}:${termKey(term)}`;
}

function termKey(term: LossTermPlan): string {
  return term.kind === 'crossEntropy' ? `crossEntropy@${term.temperature}` : term.kind;
}

/** The gradient graph of one training step. Throws `UnsupportedByTrace`. */
export function traceStep(model: LoadedModel, plan: StepPlan): StepGraph {
  return traceGradients(model, plan, ({ recording, lossValue, gradients, updates, noise }) => {
    const outputs = [
      { name: names.loss, value: lossValue },
      ...gradients.map(({ weight, value }) => ({ name: names.gradient(weight), value })),
      ...updates.map(({ weight, value }) => ({ name: names.update(weight), value })),
    ];
    return { graph: recording.graph.finish(outputs), plan, ...noise, gradients: gradients.map(({ weight }) => weight), updates: updates.map(({ weight }) => weight) };
  });
}

/**
 * The graph of clipped sums of per-example gradients. undefined when a layer has no rule for them (`per-example.ts`). One row needs no rule: its
 * gradient is the example's. Throws `UnsupportedByTrace`.
 */
export function tracePrivateStep(model: LoadedModel, plan: PrivateStepPlan): PrivateStepGraph | undefined {
  return traceGradients(model, { terms: [plan.term], rows: [plan.rows] }, ({ recording: { graph }, exampleInputs, gradients, noise }) => {
    const clippingNorm = graph.input(names.clippingNorm, []);
    const values = gradients.map(({ value }) => value);
    const clipped = plan.rows === 1 ? clipOne(graph, values, clippingNorm) : clipPerExample(graph, new BatchAxis(graph, plan.rows, exampleInputs), values, clippingNorm);
    if (clipped === undefined) return undefined;
    const outputs = [{ name: names.norms, value: clipped.norms }, ...gradients.map(({ weight }, i) => ({ name: names.gradient(weight), value: clipped.sums[i]! }))];
    return { graph: graph.finish(outputs), plan, ...noise, gradients: gradients.map(({ weight }) => weight), updates: [] };
  });
}

interface TracedGradients {
  readonly recording: Recording;
  readonly lossValue: Value;
  /** `weight`: position among the network's. */
  readonly gradients: readonly { readonly weight: number; readonly value: Value }[];
  readonly updates: TracedGradients['gradients'];
  /** The inputs that hold something of each example in each row. */
  readonly exampleInputs: readonly Value[];
  readonly noise: Pick<StepGraph, 'noise' | 'dropoutLayers'>;
}

function traceGradients<T>(model: LoadedModel, plan: StepPlan, use: (traced: TracedGradients) => T): T {
  const { weights } = model.network;
  const variables = trainableVariables(model.network);
  const tracer = new DropoutTracer(model.network);
  try {
    return trace(tracer, weights.map(variableOf), (recording) => {
      const { graph } = recording;
      tracer.start(graph);
      const values = bindWeights(recording, weights);
      const rows = plan.rows.reduce((sum, count) => sum + count);
      const examples = graph.input(names.examples, [rows, ...model.summary.exampleShape]);
      const { value, grads } = tf.variableGrads(() => loss(recording, plan, termLogits(recording, tracer, plan, model, recording.placeholder(examples)), model), variables);
      for (const { name, shape, term } of tracer.inputs) {
        if (shape[0] !== (term === undefined ? rows : plan.rows[term])) throw new UnsupportedByTrace('dropout', `the noise ${name} is not drawn for each example`);
      }
      const gradients = weights.flatMap((weight, i) => {
        const gradient = grads[variableOf(weight).name];
        return gradient === undefined || gradient === null ? [] : [{ weight: i, value: graph.reshape(recording.valueOf(gradient), values[i]!.shape) }];
      });
      const updates = weights.flatMap((weight, i) => {
        const updated = recording.boundTo(variableOf(weight));
        return updated === values[i] ? [] : [{ weight: i, value: updated }];
      });
      const exampleInputs = graph.inputs.flatMap((input) => (values.includes(input.value) ? [] : [input.value]));
      return use({ recording, lossValue: recording.valueOf(value), gradients, updates, exampleInputs, noise: { noise: tracer.inputs, dropoutLayers: tracer.layerCount } });
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

/**
 * The logits of each term. All terms go through the model together, but where it normalizes over its batch: then one after the other, as in the eager
 * engine.
 */
function termLogits(recording: Recording, tracer: DropoutTracer, { rows }: StepPlan, model: LoadedModel, examples: Tensor): readonly Tensor2D[] {
  const { numClasses, exampleShape } = model.summary;
  const starts = rows.map((_, term) => rows.slice(0, term).reduce((sum, count) => sum + count, 0));
  if (rows.length === 1) return [forward(model, examples, true)];
  if (normalizesBatches(model.network)) {
    return rows.map((count, term) => {
      tracer.term = term;
      return forward(model, tf.slice(examples, [starts[term]!, ...exampleShape.map(() => 0)], [count, ...exampleShape]), true);
    });
  }
  const logits = forward(model, examples, true);
  return rows.map((count, term) => tf.slice(logits, [starts[term]!, 0], [count, numClasses]));
}

function loss(recording: Recording, { terms, rows }: StepPlan, logits: readonly Tensor2D[], { summary }: LoadedModel): Scalar {
  const input = (name: string, shape: readonly number[]) => recording.placeholder(recording.graph.input(name, shape)) as Tensor2D;
  const losses = terms.map((term, i) => {
    const own = logits[i]!;
    const targets = input(names.targets(i), [rows[i]!, summary.numClasses]);
    switch (term.kind) {
      case 'crossEntropy':
        return tf.neg(tf.sum<Scalar>(tf.mul(targets, tf.logSoftmax(term.temperature === 1 ? own : tf.div(own, term.temperature)))));
      case 'absoluteError':
        return tf.sum<Scalar>(tf.mul(tf.abs(tf.sub(own, targets)), input(names.rowWeights(i), [rows[i]!, 1])));
      default:
        return unreachable(term);
    }
  });
  return losses.reduce((sum, term) => tf.add(sum, term));
}
