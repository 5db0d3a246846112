/**
 * A graph of ONNX operators under construction, simplified while it grows: a node that exists already is used again,
 * transposes and reshapes that undo each other vanish, and `finish` drops what no output needs. Knows nothing of TF.js.
 *
 * Every shape is known when a node is added; nothing here infers one.
 */

export type ElementType = 'float32' | 'int32' | 'int64' | 'bool';
export type ConstantData = Float32Array | Int32Array | BigInt64Array | Uint8Array;

/** A result of a node, an input of the graph, or a constant. */
export interface Value {
  readonly id: number;
  readonly shape: readonly number[];
  readonly type: ElementType;
}

/** Integers and lists of integers are written as such; a real number says so. */
export type Attribute = number | readonly number[] | string | { readonly float: number };

export interface GraphNode {
  readonly operator: string;
  /** '' for the standard operators. */
  readonly domain: string;
  /** undefined: an optional input left out. */
  readonly inputs: readonly (Value | undefined)[];
  readonly outputs: readonly Value[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

export interface NamedValue {
  readonly name: string;
  readonly value: Value;
}

/** What a writer needs: values have names, nodes are in an order in which they can run. */
export interface FinishedGraph {
  readonly nodes: readonly { readonly operator: string; readonly domain: string; readonly inputs: readonly string[]; readonly outputs: readonly string[]; readonly attributes: Readonly<Record<string, Attribute>> }[];
  readonly inputs: readonly NamedShape[];
  readonly outputs: readonly NamedShape[];
  readonly constants: readonly (NamedShape & { readonly data: ConstantData })[];
  /** Elements of the largest result of a node. */
  readonly largestLength: number;
}

export interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: ElementType;
}

export interface NodeOptions {
  readonly attributes?: Readonly<Record<string, Attribute>>;
  readonly type?: ElementType;
  readonly domain?: string;
}

/** ONNX Runtime's own operators. */
export const microsoftDomain = 'com.microsoft';
/** Constants of at most this many elements are compared with those that exist, and all lists of integers: nodes that read the same positions are one node. */
const sharedConstantLength = 2 ** 14;

export class Graph {
  readonly #nodes: GraphNode[] = [];
  readonly #inputs: NamedValue[] = [];
  readonly #constants = new Map<string, { readonly value: Value; readonly data: ConstantData }>();
  /** Nodes by operator, inputs and attributes: an equal one is not added again. */
  readonly #known = new Map<string, GraphNode>();
  readonly #producers = new Map<Value, GraphNode>();
  #lastId = 0;

  get inputs(): readonly NamedValue[] {
    return this.#inputs;
  }

  input(name: string, shape: readonly number[], type: ElementType = 'float32'): Value {
    const value = this.#value(shape, type);
    this.#inputs.push({ name, value });
    return value;
  }

  constant(data: ConstantData, shape: readonly number[]): Value {
    const type = elementTypeOf(data);
    const key = data.length <= sharedConstantLength || type === 'int64' ? `${type}[${shape.join()}]${data.join()}` : `large${this.#lastId}`;
    let known = this.#constants.get(key);
    if (known === undefined) {
      known = { value: this.#value(shape, type), data };
      this.#constants.set(key, known);
    }
    return known.value;
  }

  scalar(value: number, type: ElementType = 'float32'): Value {
    return this.constant(typedArray(type, [value]), []);
  }

  /** A list of axes, sizes or positions, which ONNX takes as 64-bit integers. */
  integers(values: readonly number[]): Value {
    return this.constant(typedArray('int64', values), [values.length]);
  }

  /** Adds a node with one output. */
  node(operator: string, inputs: readonly (Value | undefined)[], shape: readonly number[], options: NodeOptions = {}): Value {
    return this.nodeWithOutputs(operator, inputs, [{ shape, type: options.type ?? 'float32' }], options)[0]!;
  }

  /** Adds a node with as many outputs as there are shapes. */
  nodeWithOutputs(operator: string, inputs: readonly (Value | undefined)[], results: readonly Pick<Value, 'shape' | 'type'>[], { attributes = {}, domain = '' }: NodeOptions = {}): readonly Value[] {
    const key = `${domain}:${operator}(${inputs.map((input) => input?.id ?? '').join()})${JSON.stringify(attributes)}x${results.length}`;
    let node = this.#known.get(key);
    if (node === undefined) {
      node = { operator, domain, inputs, outputs: results.map(({ shape, type }) => this.#value(shape, type)), attributes };
      this.#known.set(key, node);
      this.#nodes.push(node);
      for (const output of node.outputs) this.#producers.set(output, node);
    }
    return node.outputs;
  }

  /** The node that computes a value; undefined for inputs and constants. */
  producerOf(value: Value): GraphNode | undefined {
    return this.#producers.get(value);
  }

  /** The numbers of a constant, undefined for any other value. */
  integersOf(value: Value): readonly number[] | undefined {
    for (const { value: known, data } of this.#constants.values()) if (known === value) return Array.from(data, Number);
    return undefined;
  }

  /** Axis i of the result is axis `permutation[i]` of the value. */
  transpose(value: Value, permutation: readonly number[]): Value {
    const producer = this.producerOf(value);
    if (producer?.operator === 'Transpose') {
      const first = producer.attributes['perm'] as readonly number[];
      return this.transpose(producer.inputs[0]!, permutation.map((axis) => first[axis]!));
    }
    if (permutation.every((axis, i) => axis === i)) return value;
    const shape = permutation.map((axis) => value.shape[axis]!);
    const longAxes = permutation.filter((axis) => value.shape[axis] !== 1);
    // Moving axes of length 1 about moves no data.
    if (longAxes.every((axis, i) => i === 0 || longAxes[i - 1]! < axis)) return this.reshape(value, shape);
    return this.node('Transpose', [value], shape, { attributes: { perm: permutation }, type: value.type });
  }

  reshape(value: Value, shape: readonly number[]): Value {
    if (equalShapes(value.shape, shape)) return value;
    const producer = this.producerOf(value);
    if (producer?.operator === 'Reshape') return this.reshape(producer.inputs[0]!, shape);
    return this.node('Reshape', [value, this.integers(shape)], shape, { type: value.type });
  }

  cast(value: Value, type: ElementType): Value {
    return value.type === type ? value : this.node('Cast', [value], value.shape, { attributes: { to: onnxTypeNumbers[type] }, type });
  }

  /** The part of the graph that these outputs need. */
  finish(outputs: readonly NamedValue[]): FinishedGraph {
    const needed = new Set<Value>(outputs.map(({ value }) => value));
    const kept: GraphNode[] = [];
    for (const node of this.#nodes.toReversed()) {
      if (!node.outputs.some((output) => needed.has(output))) continue;
      kept.unshift(node);
      for (const input of node.inputs) if (input !== undefined) needed.add(input);
    }
    const inputs = this.#inputs.filter(({ value }) => needed.has(value));
    const constants = [...this.#constants.values()].filter(({ value }) => needed.has(value));
    const names = new Map<Value, string>(inputs.map(({ name, value }) => [value, name]));
    for (const { value } of constants) names.set(value, `constant${value.id}`);
    const copies: NamedValue[] = [];
    for (const output of outputs) {
      // An input, a constant or a value with a name already is copied to get a second one.
      if (names.has(output.value)) copies.push(output);
      else names.set(output.value, output.name);
    }
    const nameOf = (value: Value | undefined) => (value === undefined ? '' : (names.get(value) ?? `value${value.id}`));
    return {
      nodes: [
        ...kept.map(({ operator, domain, attributes, ...node }) => ({ operator, domain, attributes, inputs: node.inputs.map(nameOf), outputs: node.outputs.map(nameOf) })),
        ...copies.map(({ name, value }) => ({ operator: 'Identity', domain: '', attributes: {}, inputs: [nameOf(value)], outputs: [name] })),
      ],
      inputs: inputs.map(({ name, value: { shape, type } }) => ({ name, shape, type })),
      outputs: outputs.map(({ name, value: { shape, type } }) => ({ name, shape, type })),
      largestLength: kept.reduce((most, node) => node.outputs.reduce((own, { shape }) => Math.max(own, sizeOf(shape)), most), 0),
      constants: constants.map(({ value, data }) => ({ name: nameOf(value), shape: value.shape, type: value.type, data })),
    };
  }

  #value(shape: readonly number[], type: ElementType): Value {
    return { id: ++this.#lastId, shape, type };
  }
}

/** `TensorProto.DataType` of ONNX. */
export const onnxTypeNumbers: Record<ElementType, number> = { float32: 1, int32: 6, int64: 7, bool: 9 };

export function equalShapes(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((side, axis) => side === b[axis]);
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, side) => product * side, 1);
}

export function typedArray(type: ElementType, values: readonly number[]): ConstantData {
  switch (type) {
    case 'float32':
      return Float32Array.from(values);
    case 'int32':
      return Int32Array.from(values);
    case 'int64':
      return BigInt64Array.from(values, BigInt);
    case 'bool':
      return Uint8Array.from(values);
  }
}

function elementTypeOf(data: ConstantData): ElementType {
  if (data instanceof Float32Array) return 'float32';
  if (data instanceof Int32Array) return 'int32';
  return data instanceof BigInt64Array ? 'int64' : 'bool';
}
