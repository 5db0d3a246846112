/**
 * A TF.js back end named `trace` that computes nothing: each kernel adds nodes to a graph and gives a symbolic tensor. TF.js
 * dispatches its own automatic differentiation through the same kernels, so tracing a loss under `tf.variableGrads`
 * writes the gradient graph.
 *
 * One recording at a time, all of it synchronous. A model must not read values, change its weights or draw random
 * numbers while it is traced (dropout is the exception, see `noise`): whatever does is refused by name.
 */
import type { DataType, Tensor, TensorInfo, Variable } from '@tensorflow/tfjs';
import { tf } from '../backend.ts';
import { Graph, sizeOf, typedArray, type Value } from './graph.ts';
import { convolutionKernels } from './kernels/convolution.ts';
import { elementwiseKernels } from './kernels/elementwise.ts';
import { KernelCall, type KernelTable, type TraceKernel, UnsupportedByTrace } from './kernels/kernel.ts';
import { matmulKernels } from './kernels/matmul.ts';
import { normalizationKernels } from './kernels/normalization.ts';
import { poolingKernels } from './kernels/pooling.ts';
import { reductionKernels } from './kernels/reductions.ts';
import { shapeKernels } from './kernels/shapes.ts';
import { SymbolicTensor, type TensorType } from './symbolic-tensor.ts';

const backendName = 'trace';

const kernels: KernelTable = {
  ...matmulKernels,
  ...elementwiseKernels,
  ...reductionKernels,
  ...shapeKernels,
  ...convolutionKernels,
  ...poolingKernels,
  ...normalizationKernels,
};

type Values = Float32Array | Int32Array | Uint8Array;

/** How random numbers that TF.js draws on the host are recognized: they are compared with those of the expected seed. */
export interface NoiseRecognizer {
  /** The graph input that stands for this array, or undefined when it is not noise. */
  recognize(values: Values, shape: readonly number[]): Value | undefined;
}

/** One tracing: what `work` of `trace` gets. */
export class Recording {
  readonly graph = new Graph();
  readonly noise: NoiseRecognizer;
  readonly #tensors = new Map<object, SymbolicTensor>();

  constructor(noise: NoiseRecognizer) {
    this.noise = noise;
  }

  /** A tensor that stands for a value of the graph. */
  placeholder(value: Value): Tensor {
    const symbolic = new SymbolicTensor(this.graph, value.shape, 'float32', { kind: 'value', value });
    return tf.engine().makeTensorFromTensorInfo(this.add(symbolic));
  }

  /** Lets a value of the graph stand for a variable, which keeps its own data. */
  bind(variable: Variable, value: Value): void {
    this.#tensors.set(variable.dataId, new SymbolicTensor(this.graph, value.shape, 'float32', { kind: 'value', value }));
  }

  /** What stands for a variable now: what it was bound to, or what was assigned to it since. */
  boundTo(variable: Variable): Value {
    return this.#tensors.get(variable.dataId)!.logical();
  }

  /** What the graph computes for a tensor. */
  valueOf(tensor: Tensor): Value {
    return this.get(tensor).logical();
  }

  get(tensor: TensorInfo): SymbolicTensor {
    return this.#tensors.get(tensor.dataId) ?? this.#foreign(tensor);
  }

  find(dataId: object): SymbolicTensor | undefined {
    return this.#tensors.get(dataId);
  }

  /** Every result has a data id of its own, so that nothing is shared and references need no counting. */
  add(symbolic: SymbolicTensor): TensorInfo {
    const dataId = {};
    this.#tensors.set(dataId, symbolic);
    return { dataId, shape: [...symbolic.shape], dtype: symbolic.type };
  }

  delete(dataId: object): void {
    this.#tensors.delete(dataId);
  }

  get size(): number {
    return this.#tensors.size;
  }

  /** A constant that a layer made on another back end. */
  #foreign(tensor: TensorInfo): SymbolicTensor {
    const owner = tf.engine().state.tensorInfo.get(tensor.dataId)?.backend;
    if (owner === undefined || owner === backend) throw new UnsupportedByTrace('tensor', 'a tensor of another recording is used');
    return hostTensor(this.graph, owner.readSync(tensor.dataId) as Values, tensor.shape, tensor.dtype);
  }
}

class TraceBackend extends tf.KernelBackend {
  recording: Recording | undefined;

  get #current(): Recording {
    if (this.recording === undefined) throw new UnsupportedByTrace('tensor', 'the trace back end is used outside of a recording');
    return this.recording;
  }

  override write(values: Values, shape: number[], dtype: DataType): object {
    const recording = this.#current;
    const array = typedArray(tensorType(dtype), Array.from(values)) as Values;
    const noise = dtype === 'float32' ? recording.noise.recognize(array, shape) : undefined;
    const symbolic = noise === undefined ? hostTensor(recording.graph, array, shape, dtype) : new SymbolicTensor(recording.graph, shape, 'float32', { kind: 'value', value: noise });
    return recording.add(symbolic).dataId;
  }

  override move(dataId: object): void {
    // Only a back end that finds a data id it does not know asks for this, and this one reads it instead.
    throw new UnsupportedByTrace('tensor', `data ${JSON.stringify(dataId)} cannot be moved here`);
  }

  override readSync(dataId: object): Values {
    const symbolic = this.#current.find(dataId);
    if (symbolic?.source.kind === 'data') return symbolic.source.data as Values;
    if (symbolic?.fill !== undefined) return typedArray(symbolic.type, new Array<number>(sizeOf(symbolic.shape)).fill(symbolic.fill)) as Values;
    throw new UnsupportedByTrace('dataSync', 'the model reads values while it runs');
  }

  override async read(dataId: object): Promise<Values> {
    return this.readSync(dataId);
  }

  override disposeData(dataId: object): boolean {
    this.recording?.delete(dataId);
    return true;
  }

  override refCount(): number {
    return 1;
  }

  override incRef(): void {}
  decRef(): void {}

  override numDataIds(): number {
    return this.recording?.size ?? 0;
  }

  override memory(): { unreliable: boolean } {
    return { unreliable: true };
  }

  override floatPrecision(): 32 {
    return 32;
  }

  override timerAvailable(): boolean {
    return false;
  }

  override dispose(): void {}
}

const backend = new TraceBackend();
tf.registerBackend(backendName, () => backend, 0);
for (const [kernelName, kernel] of Object.entries(kernels)) {
  tf.registerKernel({ kernelName, backendName, kernelFunc: ({ inputs, attrs }) => runKernel(kernelName, kernel, inputs, attrs ?? {}) });
}

function runKernel(kernelName: string, kernel: TraceKernel, inputs: Readonly<Record<string, TensorInfo | undefined>>, attributes: Readonly<Record<string, unknown>>): TensorInfo | TensorInfo[] {
  const recording = backend.recording;
  if (recording === undefined) throw new UnsupportedByTrace(kernelName, 'the trace back end is used outside of a recording');
  const symbolic: Record<string, SymbolicTensor> = {};
  for (const [name, input] of Object.entries(inputs)) if (input !== undefined && input !== null) symbolic[name] = recording.get(input);
  const results = kernel(new KernelCall(kernelName, recording.graph, symbolic, attributes));
  return results instanceof SymbolicTensor ? recording.add(results) : results.map((result) => recording.add(result));
}

/** The kernels that can be traced. */
export function tracedKernelNames(): readonly string[] {
  return Object.keys(kernels);
}

/**
 * Runs `work` on the trace back end and leaves TF.js as it was. Throws `UnsupportedByTrace` for what a graph cannot express.
 * `frozen`: variables that `work` may assign in the graph only.
 */
export function trace<T>(noise: NoiseRecognizer, frozen: readonly Variable[], work: (recording: Recording) => T): T {
  const previous = tf.getBackend();
  const recording = new Recording(noise);
  const thaw = freeze(frozen, recording);
  const restoreGradients = replaceTileGradient();
  // Synchronous: a back end made by a plain factory is ready at once.
  void tf.setBackend(backendName);
  backend.recording = recording;
  tf.engine().startScope();
  try {
    return work(recording);
  } catch (error) {
    throw explain(error);
  } finally {
    tf.engine().endScope();
    backend.recording = undefined;
    thaw();
    restoreGradients();
    void tf.setBackend(previous);
  }
}

/** Until the returned function is called, an assignment to one of these variables is written down and changes nothing. */
function freeze(variables: readonly Variable[], recording: Recording): () => void {
  for (const variable of variables) {
    variable.assign = (value) => {
      if (variable.trainable) throw new UnsupportedByTrace('assign', `training changes the weight ${variable.name} other than by its gradient`);
      recording.bind(variable, recording.valueOf(value));
    };
  }
  return () => {
    for (const variable of variables) delete (variable as { assign?: unknown }).assign;
  };
}

/**
 * TF.js adds up the gradient of a tiling slice by slice: for a scale or an offset that layer normalization repeats over batch and positions,
 * that would be thousands of nodes. Until the returned function is called it is one sum.
 */
function replaceTileGradient(): () => void {
  const original = tf.getGradient('Tile');
  tf.registerGradient({
    ...original,
    gradFunc: (dy, saved, attributes) => {
      const { shape } = saved[0]!;
      const repetitions = attributes['reps'] as number[];
      return {
        x: () => {
          const apart = tf.reshape(dy as Tensor, shape.flatMap((side, axis) => [repetitions[axis]!, side]));
          return tf.sum(apart, shape.map((_, axis) => 2 * axis));
        },
      };
    },
  });
  return () => tf.registerGradient(original);
}

function explain(error: unknown): unknown {
  const message = error instanceof Error ? error.message : '';
  const missing = /Kernel '(\w+)' not registered for backend/.exec(message)?.[1];
  return missing === undefined ? error : new UnsupportedByTrace(missing, 'the onnx engine does not have this operation');
}

function hostTensor(graph: Graph, data: Values, shape: readonly number[], dtype: DataType): SymbolicTensor {
  const type = tensorType(dtype);
  const [first] = data;
  if (first !== undefined && data.every((value) => value === first)) return new SymbolicTensor(graph, shape, type, { kind: 'fill', fill: first });
  return new SymbolicTensor(graph, shape, type, { kind: 'data', data });
}

function tensorType(dtype: DataType): TensorType {
  if (dtype === 'float32' || dtype === 'int32' || dtype === 'bool') return dtype;
  throw new UnsupportedByTrace('tensor', `elements of the type ${dtype}`);
}

