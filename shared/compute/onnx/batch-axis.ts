/**
 * Which part of a value in a graph belongs to which example of the batch. Found by going back from a value to the inputs, operator by operator;
 * what is not known here is taken to mix the examples. Per-example gradients (`per-example.ts`) rest on this: a rule for "the sum over
 * the batch" is used only where every operand is shown to hold the examples side by side.
 */
import { type Graph, type GraphNode, sizeOf, type Value } from './graph.ts';

/** How a value depends on the examples. */
export type Dependence =
  /** Not at all: it is computed from weights and constants. */
  | { readonly kind: 'none' }
  /**
   * Its part for one example depends on that example alone. `axis` has `outer * batch * inner` elements, the examples in the middle: element
   * `(o * batch + example) * inner + i`.
   */
  | { readonly kind: 'rows'; readonly axis: number; readonly outer: number; readonly inner: number }
  /** In some other way. */
  | { readonly kind: 'mixed' };

type Rows = Extract<Dependence, { readonly kind: 'rows' }>;

const none: Dependence = { kind: 'none' };
const mixed: Dependence = { kind: 'mixed' };

const elementwise = new Set([
  'Add', 'Sub', 'Mul', 'Div', 'Max', 'Min', 'Pow', 'Equal', 'Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual', 'And', 'Or', 'Not', 'Where', 'Cast', 'Identity',
  'Abs', 'Ceil', 'Cos', 'Erf', 'Exp', 'Floor', 'Log', 'Neg', 'Reciprocal', 'Round', 'Sigmoid', 'Sin', 'Softplus', 'Sqrt', 'Tanh', 'Relu', 'Elu', 'Selu',
]);
const reductions = new Set(['ReduceSum', 'ReduceMean', 'ReduceProd', 'ReduceMax', 'ReduceMin']);

export class BatchAxis {
  readonly batch: number;
  readonly #graph: Graph;
  readonly #known = new Map<Value, Dependence>();

  /** `exampleInputs`: the inputs of the graph that hold the examples along axis 0. */
  constructor(graph: Graph, batch: number, exampleInputs: Iterable<Value>) {
    this.#graph = graph;
    this.batch = batch;
    for (const value of exampleInputs) this.#known.set(value, { kind: 'rows', axis: 0, outer: 1, inner: value.shape[0]! / batch });
  }

  of(value: Value): Dependence {
    let known = this.#known.get(value);
    if (known === undefined) {
      const producer = this.#graph.producerOf(value);
      known = producer === undefined ? none : this.#ofNode(producer, value);
      this.#known.set(value, known);
    }
    return known;
  }

  /** The rows of a value that holds the examples along `axis`, or undefined. */
  alongAxis(value: Value, axis: number): Rows | undefined {
    const dependence = this.of(value);
    return dependence.kind === 'rows' && dependence.axis === axis ? dependence : undefined;
  }

  #ofNode(node: GraphNode, output: Value): Dependence {
    if (node.operator === 'ScatterElements') return this.#scatteredMaxima(node);
    const inputs = node.inputs.map((input) => (input === undefined ? none : this.of(input)));
    if (inputs.every(({ kind }) => kind === 'none')) return none;
    if (inputs.some(({ kind }) => kind === 'mixed')) return mixed;
    if (elementwise.has(node.operator)) return this.#broadcast(node.inputs, output);
    if (reductions.has(node.operator)) return this.#reduction(node, output);
    const [first, second, third] = inputs as [Dependence, Dependence?, Dependence?];
    const onlyFirst = first.kind === 'rows' && inputs.slice(1).every(({ kind }) => kind === 'none') ? first : undefined;
    switch (node.operator) {
      case 'Reshape':
        return onlyFirst === undefined ? mixed : this.#reshaped(onlyFirst, node.inputs[0]!.shape, output.shape);
      case 'Transpose':
        return onlyFirst === undefined ? mixed : { ...onlyFirst, axis: (node.attributes['perm'] as readonly number[]).indexOf(onlyFirst.axis) };
      case 'Expand':
        return this.#broadcast([node.inputs[0]], output);
      case 'Slice':
      case 'Pad':
      case 'Tile':
        // The axis is left alone when it is as long as before, but for a reversal, which no gradient of a batch needs along it.
        return onlyFirst !== undefined && output.shape[onlyFirst.axis] === node.inputs[0]!.shape[onlyFirst.axis] && !this.#touches(node, onlyFirst.axis) ? onlyFirst : mixed;
      case 'Split':
      case 'Softmax':
      case 'LogSoftmax':
        return onlyFirst !== undefined && normalAxis(node.attributes['axis'] as number, output.shape) !== onlyFirst.axis ? onlyFirst : mixed;
      case 'MaxPool':
      case 'AveragePool':
      case 'Resize':
        // Positions of maxima (the second output) count over the whole tensor; see ScatterElements.
        return onlyFirst !== undefined && onlyFirst.axis <= 1 && output === node.outputs[0] ? onlyFirst : mixed;
      case 'Conv':
      case 'ConvTranspose':
      case 'Col2Im':
        return onlyFirst !== undefined && onlyFirst.axis === 0 ? onlyFirst : mixed;
      case 'Gemm':
        return third !== undefined && third.kind !== 'none' ? mixed : gemm(node, first, second!);
      case 'MatMul':
      case 'FusedMatMul':
        return this.#batchedProduct(node, output);
      case 'Concat': {
        const rows = this.#broadcast(node.inputs, output);
        return rows.kind === 'rows' && rows.axis !== normalAxis(node.attributes['axis'] as number, output.shape) ? rows : mixed;
      }
      case 'Gather': {
        const axis = normalAxis(node.attributes['axis'] as number, node.inputs[0]!.shape);
        if (first.kind === 'none' && second!.kind === 'rows') return { ...second!, axis: axis + second!.axis };
        if (onlyFirst === undefined || onlyFirst.axis === axis) return mixed;
        return { ...onlyFirst, axis: onlyFirst.axis < axis ? onlyFirst.axis : onlyFirst.axis - 1 + node.inputs[1]!.shape.length };
      }
      default:
        return mixed;
    }
  }

  /** Operands that are aligned at their last axes: the examples must lie along one axis of the result, and equally. */
  #broadcast(operands: readonly (Value | undefined)[], { shape }: Value): Dependence {
    let found: Rows | undefined;
    for (const operand of operands) {
      const dependence = operand === undefined ? none : this.of(operand);
      if (dependence.kind === 'none') continue;
      if (dependence.kind === 'mixed') return mixed;
      const rows = { ...dependence, axis: dependence.axis + shape.length - operand!.shape.length };
      found ??= rows;
      if (rows.axis !== found.axis || rows.outer !== found.outer || rows.inner !== found.inner) return mixed;
    }
    return found !== undefined && shape[found.axis] === found.outer * this.batch * found.inner ? found : mixed;
  }

  #reduction(node: GraphNode, output: Value): Dependence {
    const x = node.inputs[0]!;
    const rows = this.of(x);
    const axes = this.axesOf(node);
    if (rows.kind !== 'rows' || axes === undefined || axes.includes(rows.axis)) return mixed;
    return output.shape.length === x.shape.length ? rows : { ...rows, axis: rows.axis - axes.filter((axis) => axis < rows.axis).length };
  }

  /** The axes of a reduction, none of them negative. */
  axesOf(node: GraphNode): readonly number[] | undefined {
    const axes = node.inputs[1] === undefined ? undefined : this.#graph.integersOf(node.inputs[1]);
    return axes?.map((axis) => normalAxis(axis, node.inputs[0]!.shape));
  }

  /** Finds the axis and place that the examples have under another shape: what counts them keeps its stride. */
  #reshaped({ axis, inner }: Rows, from: readonly number[], to: readonly number[]): Dependence {
    const stride = inner * sizeOf(from.slice(axis + 1));
    for (let target = 0; target < to.length; target++) {
      const after = sizeOf(to.slice(target + 1));
      const [newInner, side] = [stride / after, to[target]!];
      if (after > stride || !Number.isInteger(newInner) || side % (this.batch * newInner) !== 0) continue;
      return { kind: 'rows', axis: target, outer: side / (this.batch * newInner), inner: newInner };
    }
    return mixed;
  }

  /** Whether a slice, a padding or a tiling does anything along this axis. */
  #touches(node: GraphNode, axis: number): boolean {
    const lists = node.inputs.slice(1).map((input) => (input === undefined ? undefined : this.#graph.integersOf(input)));
    if (node.operator === 'Slice') return lists[2] === undefined || lists[2].includes(axis);
    const rank = node.inputs[0]!.shape.length;
    if (node.operator === 'Pad') return lists[0] === undefined || lists[0][axis] !== 0 || lists[0][axis + rank] !== 0;
    return lists[0] === undefined || lists[0][axis] !== 1;
  }

  /** The gradient of a max pool whose windows overlap: what goes to a flat position stays in its example. */
  #scatteredMaxima({ inputs: [zeros, positions, updates] }: GraphNode): Dependence {
    let origin: Value = positions!;
    for (let node = this.#graph.producerOf(origin); node?.operator === 'Reshape'; node = this.#graph.producerOf(origin)) origin = node.inputs[0]!;
    const pool = this.#graph.producerOf(origin);
    if (pool?.operator !== 'MaxPool' || pool.outputs[1] !== origin || this.of(zeros!).kind !== 'none') return mixed;
    const x = pool.inputs[0]!;
    const [source, moved] = [this.alongAxis(x, 0), this.alongAxis(updates!, 0)];
    if (source?.outer !== 1 || moved?.outer !== 1) return mixed;
    return { kind: 'rows', axis: 0, outer: 1, inner: sizeOf(x.shape) / this.batch };
  }

  /** Leading axes are aligned as in `#broadcast`; the examples may also be the rows of the left factor or the columns of the right one. */
  #batchedProduct(node: GraphNode, { shape }: Value): Dependence {
    const sides = node.inputs.slice(0, 2).map((input, i) => {
      const dependence = this.of(input!);
      if (dependence.kind !== 'rows') return dependence;
      const rank = input!.shape.length;
      const isTransposed = node.attributes[i === 0 ? 'transA' : 'transB'] === 1;
      const free = (i === 0) === isTransposed ? rank - 1 : rank - 2;
      if (dependence.axis < rank - 2) return { ...dependence, axis: dependence.axis + shape.length - rank };
      return dependence.axis === free ? { ...dependence, axis: shape.length - 2 + i } : mixed;
    });
    const [a, b] = sides as [Dependence, Dependence];
    if (a.kind === 'mixed' || b.kind === 'mixed') return mixed;
    if (a.kind === 'none') return b;
    if (b.kind === 'none') return a;
    return a.axis === b.axis && a.axis < shape.length - 2 && a.outer === b.outer && a.inner === b.inner ? a : mixed;
  }
}

function gemm(node: GraphNode, a: Dependence, b: Dependence): Dependence {
  if (a.kind === 'rows' && b.kind === 'none') return a.axis === Number(node.attributes['transA'] === 1) ? { ...a, axis: 0 } : mixed;
  if (b.kind === 'rows' && a.kind === 'none') return b.axis === Number(node.attributes['transB'] !== 1) ? { ...b, axis: 1 } : mixed;
  return mixed;
}

function normalAxis(axis: number, shape: readonly number[]): number {
  return axis < 0 ? axis + shape.length : axis;
}
