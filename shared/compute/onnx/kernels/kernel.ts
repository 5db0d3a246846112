/** What a traced kernel is: it gets symbolic tensors and attributes, adds nodes to the graph, and gives symbolic tensors. */
import type { Graph, Value } from '../graph.ts';
import { SymbolicTensor, type TensorType } from '../symbolic-tensor.ts';

/** By the names that TF.js gives its kernels. */
export type KernelTable = Readonly<Record<string, TraceKernel>>;

export type TraceKernel = (call: KernelCall) => SymbolicTensor | readonly SymbolicTensor[];

/** One call of a kernel. */
export class KernelCall {
  readonly kernelName: string;
  readonly graph: Graph;
  readonly #inputs: Readonly<Record<string, SymbolicTensor>>;
  readonly #attributes: Readonly<Record<string, unknown>>;

  constructor(kernelName: string, graph: Graph, inputs: Readonly<Record<string, SymbolicTensor>>, attributes: Readonly<Record<string, unknown>>) {
    this.kernelName = kernelName;
    this.graph = graph;
    this.#inputs = inputs;
    this.#attributes = attributes;
  }

  input(name: string): SymbolicTensor {
    const input = this.#inputs[name];
    if (input === undefined) throw new UnsupportedByTrace(this.kernelName, `it was called without its input ${name}`);
    return input;
  }

  optionalInput(name: string): SymbolicTensor | undefined {
    return this.#inputs[name];
  }

  /** The inputs of a kernel that takes a list. */
  get inputs(): readonly SymbolicTensor[] {
    return Object.values(this.#inputs);
  }

  /** An attribute as TF.js documents it for this kernel. */
  attribute<T>(name: string): T {
    return this.#attributes[name] as T;
  }

  /** A result in TF.js's order of axes. */
  result(value: Value, shape: readonly number[] = value.shape, type: TensorType = tensorTypeOf(value)): SymbolicTensor {
    return new SymbolicTensor(this.graph, shape, type, { kind: 'value', value });
  }

  /** A result of rank 4 whose channels are in axis 1; `shape` is TF.js's. */
  channelsFirstResult(value: Value, shape: readonly number[]): SymbolicTensor {
    return new SymbolicTensor(this.graph, shape, tensorTypeOf(value), { kind: 'channelsFirst', value });
  }

  filled(shape: readonly number[], type: TensorType, fill: number): SymbolicTensor {
    return new SymbolicTensor(this.graph, shape, type, { kind: 'fill', fill });
  }

  unsupported(why: string): UnsupportedByTrace {
    return new UnsupportedByTrace(this.kernelName, why);
  }
}

/** Thrown while tracing when a model does something that the graph cannot express. */
export class UnsupportedByTrace extends Error {
  /** The TF.js kernel or the layer. */
  readonly operation: string;

  constructor(operation: string, why: string) {
    super(`${operation}: ${why}`);
    this.name = 'UnsupportedByTrace';
    this.operation = operation;
  }
}

function tensorTypeOf({ type }: Value): TensorType {
  // 64-bit integers (positions) never leave a kernel.
  return type === 'int64' ? 'int32' : type;
}
