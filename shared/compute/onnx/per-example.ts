/**
 * Rewrites the gradient of a loss that is a sum over the examples into the sum of the examples' gradients, each clipped to a norm, without a
 * backward pass for each example ("ghost clipping", Goodfellow 2015; Li et al. 2022; "book-keeping", Bu et al. 2023): the traced
 * backward pass has for every layer what came in (activations) and what came back (output gradients), row by row, and only its last
 * node adds them up over the batch. That node is taken apart:
 *
 * - A dense layer's gradient is the product of the two, `sum_i a_i d_i^T`. An example's squared norm is `|a_i|^2 |d_i|^2`, so nothing is written out, and
 *   the clipped sum is the same product with each `d_i` scaled. Where a layer is applied at several positions of an example, the example's
 *   gradient is written out: the products of pairs that would spare it (Li et al.) cancel, and a norm that is too small would not bound
 *   the record's influence.
 * - A convolution's filter gradient is a convolution with the examples as channels that are summed over; with each example in a group of
 *   its own it gives every example's gradient for the same arithmetic.
 * - A bias, a scale or an offset is a sum over axes, from which the batch's is left out.
 * - An embedding adds rows at positions; those of one example at one position are added up first.
 */
import type { BatchAxis } from './batch-axis.ts';
import { type Graph, type GraphNode, microsoftDomain, sizeOf, type Value } from './graph.ts';

/** The gradient of one weight as a sum over the examples. */
interface PerExample {
  /** Squared norm of each example's part: [batch]. */
  readonly squaredNorms: () => Value;
  /** The sum of each example's part times its factor; `factors`: [batch]. */
  readonly weightedSum: (factors: Value) => Value;
  /** Each example's part: [batch, ...shape]. undefined where writing it out is not worth having. */
  readonly parts: (() => Value) | undefined;
}

export interface ClippedGradients {
  /** L2 norm of each example's gradient, over all weights: [batch]. */
  readonly norms: Value;
  /** In the order of the gradients given. */
  readonly sums: readonly Value[];
}

/**
 * `sum_i g_i min(1, clippingNorm / |g_i|)` for each of `gradients`, which together are the sum of the `g_i` over the batch. `clippingNorm`: a scalar. undefined
 * when one of them is not known to be such a sum.
 */
export function clipPerExample(graph: Graph, axis: BatchAxis, gradients: readonly Value[], clippingNorm: Value): ClippedGradients | undefined {
  const rules = gradients.map((gradient) => new Rules(graph, axis).of(gradient));
  if (rules.length === 0 || !rules.every((rule) => rule !== undefined)) return undefined;
  const shape = [axis.batch];
  const squared = rules.map(({ squaredNorms }) => squaredNorms()).reduce((sum, norms) => graph.node('Add', [sum, norms], shape));
  const norms = graph.node('Sqrt', [squared], shape);
  // An example without a gradient has the factor min(1, infinity).
  const factors = graph.node('Min', [graph.node('Div', [clippingNorm, norms], shape), graph.scalar(1)], shape);
  return { norms, sums: rules.map(({ weightedSum }) => weightedSum(factors)) };
}

/** From this length on a sum of squares is a product of each row with itself, which takes half the time and reads the row once. */
const longRow = 2048;

/** Over the last axis. As two operators it takes ONNX Runtime a third of the time of its ReduceSumSquare. */
function sumOfSquares(graph: Graph, value: Value): Value {
  const [shape, length] = [value.shape.slice(0, -1), value.shape.at(-1)!];
  if (length >= longRow) {
    const rows = graph.reshape(value, [sizeOf(shape), 1, length]);
    return graph.reshape(graph.node('FusedMatMul', [rows, rows], [sizeOf(shape), 1, 1], { attributes: { transB: 1 }, domain: microsoftDomain }), shape);
  }
  const squares = graph.node('Mul', [value, value], value.shape);
  return graph.node('ReduceSum', [squares, graph.integers([shape.length])], shape, { attributes: { keepdims: 0 } });
}

/** The same for a batch of one. */
export function clipOne(graph: Graph, gradients: readonly Value[], clippingNorm: Value): ClippedGradients {
  const squares = gradients.map((gradient) => sumOfSquares(graph, graph.reshape(gradient, [1, sizeOf(gradient.shape)])));
  const norms = graph.node('Sqrt', [squares.reduce((sum, square) => graph.node('Add', [sum, square], [1]))], [1]);
  const factor = graph.reshape(graph.node('Min', [graph.node('Div', [clippingNorm, norms], [1]), graph.scalar(1)], [1]), []);
  return { norms, sums: gradients.map((gradient) => graph.node('Mul', [gradient, factor], gradient.shape)) };
}

class Rules {
  readonly #graph: Graph;
  readonly #axis: BatchAxis;
  readonly #batch: number;

  constructor(graph: Graph, axis: BatchAxis) {
    this.#graph = graph;
    this.#axis = axis;
    this.#batch = axis.batch;
  }

  of(gradient: Value): PerExample | undefined {
    const node = this.#graph.producerOf(gradient);
    if (node === undefined) return undefined;
    switch (node.operator) {
      case 'Reshape':
      case 'Transpose':
      case 'Neg':
      case 'Pad':
        return this.#linear(node, gradient);
      case 'Mul':
      case 'Div':
        return this.#scaled(node, gradient);
      case 'Add':
        return this.#added(node, gradient);
      case 'Concat':
        return this.#joined(node, gradient);
      case 'Slice':
        return this.#cut(node, gradient);
      case 'MatMul':
        return this.#moved(node, gradient);
      case 'Gemm':
        return this.#product(node, gradient);
      case 'ReduceSum':
        return this.#reduced(node, gradient);
      case 'Conv':
        return this.#filterGradient(node, gradient);
      case 'ScatterND':
        return this.#scattered(node, gradient);
      default:
        return undefined;
    }
  }

  // ---- what comes after the sum

  /** An operator that moves elements, or their signs, and leaves their squares as they are. */
  #linear(node: GraphNode, { shape }: Value): PerExample | undefined {
    const inner = this.of(node.inputs[0]!);
    if (inner === undefined) return undefined;
    const graph = this.#graph;
    const move = (value: Value, batched: boolean) => {
      const lead = batched ? [this.#batch] : [];
      switch (node.operator) {
        case 'Reshape':
          return graph.reshape(value, [...lead, ...shape]);
        case 'Transpose':
          return graph.transpose(value, [...lead.map(() => 0), ...(node.attributes['perm'] as readonly number[]).map((axis) => axis + lead.length)]);
        case 'Neg':
          return graph.node('Neg', [value], [...lead, ...shape]);
        default: {
          const amounts = graph.integersOf(node.inputs[1]!)!;
          const zeros = lead.map(() => 0);
          return graph.node('Pad', [value, graph.integers([...zeros, ...amounts.slice(0, shape.length), ...zeros, ...amounts.slice(shape.length)]), node.inputs[2]], [...lead, ...shape]);
        }
      }
    };
    if (node.operator === 'Pad') {
      const [amounts, fill] = [graph.integersOf(node.inputs[1]!), node.inputs[2] === undefined ? [0] : graph.integersOf(node.inputs[2])];
      if (amounts === undefined || amounts.some((amount) => amount < 0) || fill?.[0] !== 0) return undefined;
    }
    const { parts } = inner;
    return { squaredNorms: inner.squaredNorms, weightedSum: (factors) => move(inner.weightedSum(factors), false), parts: parts && (() => move(parts(), true)) };
  }

  /** Times, or divided by, one number that is the same for all examples. */
  #scaled(node: GraphNode, { shape }: Value): PerExample | undefined {
    const [a, b] = node.inputs as readonly [Value, Value];
    const isNumber = (value: Value) => sizeOf(value.shape) === 1 && this.#axis.of(value).kind === 'none';
    if (!isNumber(b) && (node.operator === 'Div' || !isNumber(a))) return undefined;
    const [sum, factor] = isNumber(b) ? [a, b] : [b, a];
    if (sizeOf(sum.shape) !== sizeOf(shape)) return undefined;
    const inner = this.of(sum);
    if (inner === undefined) return undefined;
    const graph = this.#graph;
    const scalar = graph.reshape(factor, []);
    const scale = (value: Value) => graph.node(node.operator, [value, scalar], value.shape);
    const { parts } = inner;
    return { squaredNorms: () => scale(scale(inner.squaredNorms())), weightedSum: (factors) => graph.reshape(scale(inner.weightedSum(factors)), shape), parts: parts && (() => graph.reshape(scale(parts()), [this.#batch, ...shape])) };
  }

  /** A weight that is used several times, as in a recurrent layer. */
  #added(node: GraphNode, { shape }: Value): PerExample | undefined {
    const [a, b] = node.inputs.map((input) => (sizeOf(input!.shape) === sizeOf(shape) ? this.of(input!)?.parts : undefined));
    return a === undefined || b === undefined ? undefined : this.#written(() => this.#graph.node('Add', [a(), b()], [this.#batch, ...shape]), shape);
  }

  /** A weight that is cut into pieces, as in a GRU. */
  #joined(node: GraphNode, { shape }: Value): PerExample | undefined {
    const graph = this.#graph;
    const pieces = node.inputs.map((input) => this.of(input!));
    if (!pieces.every((piece) => piece !== undefined)) return undefined;
    const axis = ((node.attributes['axis'] as number) + shape.length) % shape.length;
    const parts = pieces.flatMap((piece) => piece.parts ?? []);
    return {
      squaredNorms: () => pieces.map((piece) => piece.squaredNorms()).reduce((sum, norms) => graph.node('Add', [sum, norms], [this.#batch])),
      weightedSum: (factors) => graph.node('Concat', pieces.map((piece) => piece.weightedSum(factors)), shape, { attributes: { axis } }),
      parts: parts.length < pieces.length ? undefined : () => graph.node('Concat', parts.map((part) => part()), [this.#batch, ...shape], { attributes: { axis: axis + 1 } }),
    };
  }

  /** A part of a sum, as of the gradient of filters that were shifted. */
  #cut(node: GraphNode, { shape }: Value): PerExample | undefined {
    const graph = this.#graph;
    const [sum, starts, ends, axes, steps] = node.inputs as readonly [Value, Value, Value, Value?, Value?];
    const [parts, positions] = [this.of(sum)?.parts, axes === undefined ? undefined : graph.integersOf(axes)];
    if (parts === undefined || positions === undefined || steps !== undefined) return undefined;
    return this.#written(() => graph.node('Slice', [parts(), starts, ends, graph.integers(positions.map((axis) => axis + 1))], [this.#batch, ...shape]), shape);
  }

  /** A sum times something that is the same for all examples. */
  #moved({ inputs: [sum, matrix] }: GraphNode, { shape }: Value): PerExample | undefined {
    if (this.#axis.of(matrix!).kind !== 'none' || matrix!.shape.length !== 2 || sum!.shape.length < 2) return undefined;
    const parts = this.of(sum!)?.parts;
    return parts && this.#written(() => this.#graph.node('MatMul', [parts(), matrix!], [this.#batch, ...shape]), shape);
  }

  /** From every example's part, written out as [batch, ...shape]. `finish`: brings the sum, of that shape, into the order that is wanted. */
  #written(parts: () => Value, shape: readonly number[], finish = (sum: Value) => sum): PerExample {
    const graph = this.#graph;
    const flat = () => graph.reshape(parts(), [this.#batch, sizeOf(shape)]);
    return {
      squaredNorms: () => this.#sumOfSquares(flat()),
      weightedSum: (factors) => finish(graph.reshape(graph.node('Gemm', [graph.reshape(factors, [1, this.#batch]), flat()], [1, sizeOf(shape)]), shape)),
      parts,
    };
  }

  /** Over all axes but the first. */
  #sumOfSquares(value: Value): Value {
    return sumOfSquares(this.#graph, this.#graph.reshape(value, [this.#batch, sizeOf(value.shape) / this.#batch]));
  }

  // ---- the sum over the batch

  /** A dense layer: the examples are what both factors are summed over. */
  #product(node: GraphNode, { shape }: Value): PerExample | undefined {
    const graph = this.#graph;
    const [left, right, bias] = node.inputs as readonly [Value, Value, Value | undefined];
    const [leftAxis, rightAxis] = [Number(node.attributes['transA'] !== 1), Number(node.attributes['transB'] === 1)];
    // One of them may be the same whatever the examples are, as the first state of a recurrent layer is.
    const given = [this.#axis.alongAxis(left, leftAxis), this.#axis.alongAxis(right, rightAxis)];
    const [leftRows, rightRows] = [given[0] ?? this.#sameAs(given[1], left), given[1] ?? this.#sameAs(given[0], right)];
    if (bias !== undefined || leftRows?.outer !== 1 || rightRows?.outer !== 1 || leftRows.inner !== rightRows.inner) return undefined;
    const a = leftAxis === 0 ? left : graph.transpose(left, [1, 0]);
    const d = rightAxis === 0 ? right : graph.transpose(right, [1, 0]);
    const [rows, columns] = shape as readonly [number, number];
    const positions = leftRows.inner;
    const parts = () => {
      const [activations, gradients] = [graph.reshape(a, [this.#batch, positions, rows]), graph.reshape(d, [this.#batch, positions, columns])];
      return graph.node('MatMul', [graph.transpose(activations, [0, 2, 1]), gradients], [this.#batch, rows, columns]);
    };
    // With the narrower one on the left: the right operand of every product is copied into another order.
    const sideways = () => graph.node('MatMul', [graph.transpose(graph.reshape(d, [this.#batch, positions, columns]), [0, 2, 1]), graph.reshape(a, [this.#batch, positions, rows])], [this.#batch, columns, rows]);
    if (positions > 1 && columns < rows) return { ...this.#written(sideways, [columns, rows], (sum) => graph.transpose(sum, [1, 0])), parts };
    if (positions > 1) return this.#written(parts, shape);
    return {
      squaredNorms: () => graph.node('Mul', [this.#sumOfSquares(a), this.#sumOfSquares(d)], [this.#batch]),
      weightedSum: (factors) => {
        // The narrower one is scaled.
        const scale = (value: Value) => graph.node('Mul', [value, graph.reshape(factors, [this.#batch, 1])], value.shape);
        return graph.node('Gemm', columns <= rows ? [a, scale(d)] : [scale(a), d], shape, { attributes: { transA: 1 } });
      },
      parts,
    };
  }

  #sameAs<T>(other: T | undefined, value: Value): T | undefined {
    return this.#axis.of(value).kind === 'none' ? other : undefined;
  }

  /** Biases and the weights of a normalization: the sum over the other axes stays. */
  #reduced(node: GraphNode, { shape }: Value): PerExample | undefined {
    const x = node.inputs[0]!;
    const rows = this.#axis.of(x);
    const axes = this.#axis.axesOf(node);
    if (rows.kind !== 'rows' || axes === undefined || !axes.includes(rows.axis)) return undefined;
    return this.#written(() => {
      const graph = this.#graph;
      const { axis, outer, inner } = rows;
      // The batch's axis on its own, then first.
      const split = graph.reshape(x, [...x.shape.slice(0, axis), outer, this.#batch, inner, ...x.shape.slice(axis + 1)]);
      const others = split.shape.map((_, i) => i).filter((i) => i !== axis + 1 && split.shape[i] !== 1);
      const order = split.shape.map((_, i) => i).filter((i) => i === axis + 1 || !others.includes(i));
      // Without axes of length 1, which make ONNX Runtime's sums slow.
      const first = graph.reshape(graph.transpose(split, [axis + 1, ...order.filter((i) => i !== axis + 1), ...others]), [this.#batch, ...others.map((i) => split.shape[i]!)]);
      const wasAxis = (i: number) => (i < axis ? i : Math.max(i - 2, axis));
      const summed = others.flatMap((other, i) => (axes.includes(wasAxis(other)) ? [i + 1] : []));
      const whole = summed.length === 0 ? first : graph.node('ReduceSum', [first, graph.integers(summed)], first.shape.filter((_, i) => !summed.includes(i)), { attributes: { keepdims: 0 } });
      return graph.reshape(whole, [this.#batch, ...shape]);
    }, shape);
  }

  /**
   * `Conv` over [channels, batch, ...] with [filters, batch, ...] as its filter sums over the batch; with a group for each example it doesn't. The same for
   * depthwise convolutions, where each channel is a group already.
   */
  #filterGradient(node: GraphNode, { shape }: Value): PerExample | undefined {
    const graph = this.#graph;
    const [x, dy, bias] = node.inputs as readonly [Value, Value, Value | undefined];
    const [xRows, dyRows] = [this.#axis.alongAxis(x, 1), this.#axis.alongAxis(dy, 1)];
    const groups = (node.attributes['group'] as number | undefined) ?? 1;
    if (bias !== undefined || xRows?.outer !== groups || xRows.inner !== 1 || dyRows?.outer !== 1 || dyRows.inner !== 1) return undefined;
    const [images, outChannels, height, width] = shape as readonly [number, number, number, number];
    const filters = outChannels / groups;
    const [, , outHeight, outWidth] = dy.shape as readonly [number, number, number, number];
    const area = filters * height * width;
    /** Every example's part: [images * groups, batch, area]. */
    const grouped = () => {
      // In one group the examples are often first already, and were moved for the sum.
      const kernels = groups === 1 ? graph.transpose(dy, [1, 0, 2, 3]) : graph.transpose(graph.reshape(dy, [groups, filters, this.#batch, outHeight, outWidth]), [0, 2, 1, 3, 4]);
      const value = graph.node('Conv', [x, graph.reshape(kernels, [groups * this.#batch * filters, 1, outHeight, outWidth])], [images, groups * this.#batch * filters, height, width], { attributes: { ...node.attributes, group: groups * this.#batch } });
      return graph.reshape(value, [images * groups, this.#batch, area]);
    };
    return {
      squaredNorms: () => {
        const perImage = sumOfSquares(graph, grouped());
        return graph.node('ReduceSum', [perImage, graph.integers([0])], [this.#batch], { attributes: { keepdims: 0 } });
      },
      weightedSum: (factors) => graph.reshape(graph.node('MatMul', [graph.reshape(factors, [1, this.#batch]), grouped()], [images * groups, 1, area]), shape),
      parts: () => graph.reshape(graph.transpose(grouped(), [1, 0, 2]), [this.#batch, ...shape]),
    };
  }

  /** An embedding: rows added at positions of its table. */
  #scattered(node: GraphNode, { shape }: Value): PerExample | undefined {
    const graph = this.#graph;
    const [zeros, positions, updates] = node.inputs as readonly [Value, Value, Value];
    const [at, rows] = [this.#axis.alongAxis(positions, 0), this.#axis.alongAxis(updates, 0)];
    if (node.attributes['reduction'] !== 'add' || positions.shape.length !== 2 || this.#axis.of(zeros).kind !== 'none') return undefined;
    if (at?.outer !== 1 || rows?.outer !== 1 || at.inner !== rows.inner) return undefined;
    const [length, width] = [at.inner, sizeOf(shape.slice(1))];
    return {
      squaredNorms: () => {
        const square = [this.#batch, length, length];
        const equal = graph.node('Equal', [graph.reshape(positions, [this.#batch, length, 1]), graph.reshape(positions, [this.#batch, 1, length])], square, { type: 'bool' });
        const same = graph.cast(equal, 'float32');
        // Row t: all that comes to its position, so that a position with n rows is there n times.
        const totals = graph.node('MatMul', [same, graph.reshape(updates, [this.#batch, length, width])], [this.#batch, length, width]);
        const squares = sumOfSquares(graph, totals);
        const times = graph.node('ReduceSum', [same, graph.integers([2])], [this.#batch, length], { attributes: { keepdims: 0 } });
        return graph.node('ReduceSum', [graph.node('Div', [squares, times], [this.#batch, length]), graph.integers([1])], [this.#batch], { attributes: { keepdims: 0 } });
      },
      weightedSum: (factors) => {
        const perRow = graph.node('Mul', [graph.reshape(updates, [this.#batch, length, width]), graph.reshape(factors, [this.#batch, 1, 1])], [this.#batch, length, width]);
        return graph.node('ScatterND', [zeros, positions, graph.reshape(perRow, updates.shape)], shape, { attributes: { reduction: 'add' } });
      },
      parts: undefined,
    };
  }
}
