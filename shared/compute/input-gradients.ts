/**
 * A saved model whose loss can be differentiated by its input, on eager TF.js: the compiled engine's graphs have gradients of weights only.
 */
import type { Scalar, Tensor } from '@tensorflow/tfjs';
import type { DifferentiableClassifier, LossGradient } from '../evaluation/adversarial.ts';
import { FederationError } from '../errors.ts';
import { exampleSize, type Examples, type Matrix } from '../types/matrix.ts';
import { type BackendName, backendNames, explainBackendError, loadBackend, tf, useBackend } from './backend.ts';
import { checkExamples } from './checks.ts';
import type { ModelSource, ModelSummary } from './engine.ts';
import { forward, loadModel, type LoadedModel } from './layers-model.ts';

/** Examples that are differentiated at a time: bounds memory, and is large enough to keep the kernels busy. */
const batchSize = 128;

export interface DifferentiableModel extends DifferentiableClassifier {
  readonly summary: ModelSummary;
  readonly backend: BackendName;
  /** Multiplications (with their additions) for one example in dense and convolutional layers; null when a layer with weights is of another kind. */
  readonly multiplications: number | null;
  dispose(): void;
}

/** Opens the model on the fastest back end that works here. Throws `model-invalid` or `engine-unavailable`. */
export async function openDifferentiable(source: ModelSource, seed = 0): Promise<DifferentiableModel> {
  for (const backend of backendNames) {
    if (!(await loadBackend(backend)).available) continue;
    useBackend(backend);
    return new EagerClassifier(await loadModel(source, seed), backend);
  }
  throw new FederationError('engine-unavailable', 'No back end of TF.js works on this machine.', { field: 'engine', expected: backendNames.join(', '), got: 'none', next: 'Run "fedstill doctor" to see why.' });
}

class EagerClassifier implements DifferentiableModel {
  readonly backend: BackendName;
  readonly #model: LoadedModel;

  constructor(model: LoadedModel, backend: BackendName) {
    this.#model = model;
    this.backend = backend;
  }

  get summary(): ModelSummary {
    return this.#model.summary;
  }

  get multiplications(): number | null {
    let total = 0;
    for (const layer of this.#model.network.layers) {
      const own = multiplicationsOf(layer.getClassName(), layer.weights.map((weight) => weight.shape as number[]), layer.outputShape as (number | null)[]);
      if (own === null) return null;
      total += own;
    }
    return total;
  }

  async predict(examples: Examples): Promise<Matrix> {
    const { numClasses } = this.summary;
    const values = new Float32Array(examples.count * numClasses);
    await this.#inBatches(examples, (batch, start) => values.set(forward(this.#model, batch, false).dataSync(), start * numClasses));
    return { rows: examples.count, columns: numClasses, values };
  }

  async lossGradient(examples: Examples, labels: Int32Array): Promise<LossGradient> {
    if (labels.length !== examples.count) throw new RangeError(`"labels" expected ${examples.count} labels, got ${labels.length}`);
    const { numClasses } = this.summary;
    const size = exampleSize(examples.shape);
    const logits = new Float32Array(examples.count * numClasses);
    const gradients = new Float32Array(examples.values.length);
    const scales = new Float64Array(examples.count);
    await this.#inBatches(examples, (batch, start, count) => {
      // The gradient by the logits is known (softmax less one-hot), so only what is below them is left to TF.js.
      const loss = (input: Tensor) => {
        const output = forward(this.#model, input, false);
        const values = output.dataSync() as Float32Array;
        logits.set(values, start * numClasses);
        const weights = new Float32Array(count * numClasses);
        for (let i = 0; i < count; i++) scales[start + i] = writeLogitGradient(values, weights, i * numClasses, numClasses, labels[start + i]!);
        return tf.sum<Scalar>(tf.mul(output, tf.tensor2d(weights, [count, numClasses])));
      };
      gradients.set(tf.grad(loss)(batch).dataSync(), start * size);
    });
    return { logits: { rows: examples.count, columns: numClasses, values: logits }, gradients, scales };
  }

  dispose(): void {
    this.#model.network.dispose();
  }

  /** Runs `work` on each batch, and lets timers and signals have their turn between two of them. */
  async #inBatches(examples: Examples, work: (batch: Tensor, start: number, count: number) => void): Promise<void> {
    checkExamples(this.summary, examples, 'examples');
    const size = exampleSize(examples.shape);
    for (let start = 0; start < examples.count; start += batchSize) {
      const count = Math.min(batchSize, examples.count - start);
      useBackend(this.backend);
      tf.engine().startScope();
      try {
        work(tf.tensor(examples.values.subarray(start * size, (start + count) * size), [count, ...examples.shape]), start, count);
      } catch (error) {
        throw explainBackendError(error, this.backend);
      } finally {
        tf.engine().endScope();
      }
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }
}

/**
 * Writes `(softmax(z) - onehot(label)) / (1 - p(label))` into `out` from `offset` on and returns `1 - p(label)`: with the label's logit
 * subtracted, both stay exact where `p(label)` rounds to 1.
 */
function writeLogitGradient(logits: Float32Array, out: Float32Array, offset: number, classes: number, label: number): number {
  let largest = -Infinity; // of the other classes
  for (let c = 0; c < classes; c++) if (c !== label) largest = Math.max(largest, logits[offset + c]!);
  let others = 0;
  for (let c = 0; c < classes; c++) if (c !== label) others += Math.exp(logits[offset + c]! - largest);
  for (let c = 0; c < classes; c++) out[offset + c] = c === label ? -1 : Math.exp(logits[offset + c]! - largest) / others;
  // 1 - p(label) = S / (exp(z_label) + S), with S the sum over the others.
  const margin = logits[offset + label]! - largest - Math.log(others);
  return 1 / (1 + Math.exp(margin));
}

/** `outputShape`: with the batch in front. */
function multiplicationsOf(className: string, weights: readonly (readonly number[])[], outputShape: readonly (number | null)[]): number | null {
  const kernel = weights[0];
  if (kernel === undefined) return 0;
  /** Places at which a kernel is applied: all but the batch and the channels. */
  const places = outputShape.slice(1, -1).reduce<number>((product, side) => product * (side ?? 1), 1);
  switch (className) {
    case 'Dense':
    case 'Conv1D':
    case 'Conv2D':
    case 'DepthwiseConv2D':
      return places * exampleSize(kernel);
    case 'SeparableConv2D':
      return places * (exampleSize(kernel) + exampleSize(weights[1]!));
    case 'BatchNormalization':
    case 'LayerNormalization':
    case 'PReLU':
      return 0; // a few operations an element, as the activations that are not counted either
    default:
      return null;
  }
}
