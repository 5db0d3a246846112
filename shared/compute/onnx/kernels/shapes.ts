/** Kernels that move elements and compute nothing: reshapes, transposes, slices, concatenation, padding, gathering. */
import { tf } from '../../backend.ts';
import { sizeOf, type Value } from '../graph.ts';
import { channelsFirstAxis, channelsFirstShape, type SymbolicTensor, type TensorType } from '../symbolic-tensor.ts';
import type { KernelCall, KernelTable } from './kernel.ts';

function reshape(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  return x.reshaped(tf.util.inferFromImplicitShape(call.attribute<number[]>('shape'), sizeOf(x.shape)));
}

function expandDims(call: KernelCall): SymbolicTensor {
  const input = call.input('input');
  const dim = call.attribute<number>('dim');
  const axis = dim < 0 ? dim + input.shape.length + 1 : dim;
  return input.reshaped(input.shape.toSpliced(axis, 0, 1));
}

function transpose(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  const permutation = call.attribute<number[]>('perm');
  const shape = permutation.map((axis) => x.shape[axis]!);
  return x.fill !== undefined ? call.filled(shape, x.type, x.fill) : call.result(call.graph.transpose(x.logical(), permutation));
}

function broadcastTo(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  const shape = call.attribute<number[]>('shape');
  if (x.fill !== undefined) return call.filled(shape, x.type, x.fill);
  return call.result(call.graph.node('Expand', [x.logical(), call.graph.integers(shape)], shape, { type: x.type }));
}

function tile(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  const repetitions = call.attribute<number[]>('reps');
  const shape = x.shape.map((side, axis) => side * repetitions[axis]!);
  if (x.fill !== undefined) return call.filled(shape, x.type, x.fill);
  if (repetitions.every((count) => count === 1)) return x;
  return call.result(call.graph.node('Tile', [x.logical(), call.graph.integers(repetitions)], shape, { type: x.type }));
}

/** The part of `x` that starts at `begin`. */
function slicePart(call: KernelCall, x: SymbolicTensor, begin: readonly number[], size: readonly number[]): SymbolicTensor {
  if (x.fill !== undefined) return call.filled(size, x.type, x.fill);
  const axes = size.flatMap((side, axis) => (side === x.shape[axis] ? [] : [axis]));
  if (axes.length === 0) return x;
  const { graph } = call;
  const starts = graph.integers(axes.map((axis) => begin[axis]!));
  const ends = graph.integers(axes.map((axis) => begin[axis]! + size[axis]!));
  const graphAxes = graph.integers(axes.map((axis) => graphAxis(x, axis)));
  return moved(call, x, size, (value, shape) => graph.node('Slice', [value, starts, ends, graphAxes], shape, { type: x.type }));
}

/** The axis of the graph's value of `x` that is this axis in TF.js. */
function graphAxis(x: SymbolicTensor, axis: number): number {
  return x.isChannelsFirst ? channelsFirstAxis[axis]! : axis;
}

/** Adds a node in the order of axes in which the graph has `x`, so that no image is transposed for it. */
function moved(call: KernelCall, x: SymbolicTensor, shape: readonly number[], add: (value: Value, shape: readonly number[]) => Value): SymbolicTensor {
  return x.isChannelsFirst ? call.channelsFirstResult(add(x.channelsFirst(), channelsFirstShape(shape)), shape) : call.result(add(x.logical(), shape));
}

function slice(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  const { begin, size } = { begin: call.attribute<number | number[]>('begin'), size: call.attribute<number | number[]>('size') };
  const [begins, sizes] = tf.slice_util.parseSliceParams({ shape: [...x.shape], rank: x.shape.length } as never, begin, size);
  return slicePart(call, x, begins!, sizes!);
}

function split(call: KernelCall): SymbolicTensor[] {
  const x = call.input('x');
  const axis = tf.util.parseAxisParam(call.attribute<number>('axis'), [...x.shape])[0]!;
  const sizes = tf.backend_util.prepareSplitSize({ shape: [...x.shape] } as never, call.attribute<number | number[]>('numOrSizeSplits'), axis);
  let start = 0;
  return sizes.map((size) => {
    const begin = x.shape.map((_, i) => (i === axis ? start : 0));
    start += size;
    return slicePart(call, x, begin, x.shape.with(axis, size));
  });
}

function unpack(call: KernelCall): SymbolicTensor[] {
  const x = call.input('value');
  const axis = tf.util.parseAxisParam(call.attribute<number>('axis'), [...x.shape])[0]!;
  const shape = x.shape.toSpliced(axis, 1);
  return Array.from({ length: x.shape[axis]! }, (_, position) => {
    const begin = x.shape.map((__, i) => (i === axis ? position : 0));
    return slicePart(call, x, begin, x.shape.with(axis, 1)).reshaped(shape);
  });
}

function concatenate(call: KernelCall, inputs: readonly SymbolicTensor[], axis: number): SymbolicTensor {
  const filled = inputs.filter((input) => sizeOf(input.shape) > 0);
  if (filled.length === 1) return filled[0]!;
  // One image with the channels first decides for all.
  const first = filled.find((input) => input.isChannelsFirst) ?? filled[0]!;
  const shape = first.shape.with(axis, filled.reduce((sum, input) => sum + input.shape[axis]!, 0));
  const layout = first.isChannelsFirst ? 'channelsFirst' : 'value';
  const attributes = { axis: graphAxis(first, axis) };
  return moved(call, first, shape, (_, graphShape) => call.graph.node('Concat', filled.map((input) => input.in(layout)), graphShape, { attributes, type: first.type }));
}

function concat(call: KernelCall): SymbolicTensor {
  const axis = tf.util.parseAxisParam(call.attribute<number>('axis'), [...call.inputs[0]!.shape])[0]!;
  return concatenate(call, call.inputs, axis);
}

function pack(call: KernelCall): SymbolicTensor {
  const rank = call.inputs[0]!.shape.length + 1;
  const axis = (call.attribute<number>('axis') + rank) % rank;
  return concatenate(call, call.inputs.map((input) => input.reshaped(input.shape.toSpliced(axis, 0, 1))), axis);
}

function pad(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  const paddings = call.attribute<[number, number][]>('paddings');
  const constant = call.attribute<number>('constantValue');
  const shape = x.shape.map((side, axis) => side + paddings[axis]![0] + paddings[axis]![1]);
  if (x.fill === constant) return call.filled(shape, x.type, constant);
  if (paddings.every(([before, after]) => before === 0 && after === 0)) return x;
  const { graph } = call;
  const ordered = x.isChannelsFirst ? channelsFirstShape(paddings.map((_, axis) => axis)).map((axis) => paddings[axis]!) : paddings;
  const amounts = graph.integers([...ordered.map(([before]) => before), ...ordered.map(([, after]) => after)]);
  return moved(call, x, shape, (value, graphShape) => graph.node('Pad', [value, amounts, graph.scalar(constant, x.type)], graphShape, { type: x.type }));
}

/** A slice with steps of -1 from the last element to the first. */
function reverse(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  const axes = tf.util.parseAxisParam(call.attribute<number | number[]>('dims'), [...x.shape]);
  if (axes.length === 0 || x.fill !== undefined) return x;
  const { graph } = call;
  const all = (value: number) => graph.integers(axes.map(() => value));
  const beforeFirst = graph.integers(axes.map((axis) => -x.shape[axis]! - 1));
  return call.result(graph.node('Slice', [x.logical(), all(-1), beforeFirst, graph.integers(axes), all(-1)], x.shape, { type: x.type }));
}

/** Embeddings: rows of `x` at integer positions. */
function gather(call: KernelCall): SymbolicTensor {
  const [x, indices] = [call.input('x'), call.input('indices')];
  const batchDims = call.attribute<number | undefined>('batchDims') ?? 0;
  if (batchDims !== 0) throw call.unsupported('batchDims other than 0');
  const axis = tf.util.parseAxisParam(call.attribute<number>('axis'), [...x.shape])[0]!;
  const shape = x.shape.toSpliced(axis, 1, ...indices.shape);
  return call.result(call.graph.node('Gather', [x.logical(), indices.logical()], shape, { attributes: { axis }, type: x.type }));
}

/** The gradient of `gather`: adds up the rows of `x` that have the same segment. */
function segmentSum(call: KernelCall): SymbolicTensor {
  const [x, segments] = [call.input('x'), call.input('segmentIds')];
  if (segments.shape.length !== 1) throw call.unsupported('segments of a rank other than 1');
  const { graph } = call;
  const shape = [call.attribute<number>('numSegments'), ...x.shape.slice(1)];
  const zeros = graph.node('Expand', [graph.scalar(0), graph.integers(shape)], shape);
  const positions = graph.reshape(graph.cast(segments.logical(), 'int64'), [segments.shape[0]!, 1]);
  return call.result(graph.node('ScatterND', [zeros, positions, x.logical()], shape, { attributes: { reduction: 'add' } }));
}

function typeOf(call: KernelCall, type: string | undefined): TensorType {
  if (type === undefined || type === 'float32') return 'float32';
  if (type === 'int32' || type === 'bool') return type;
  throw call.unsupported(`elements of the type ${type}`);
}

export const shapeKernels: KernelTable = {
  Identity: (call) => call.input('x'),
  Reshape: reshape,
  ExpandDims: expandDims,
  Transpose: transpose,
  BroadcastTo: broadcastTo,
  Tile: tile,
  Slice: slice,
  SplitV: split,
  Unpack: unpack,
  Concat: concat,
  Pack: pack,
  PadV2: pad,
  Reverse: reverse,
  GatherV2: gather,
  UnsortedSegmentSum: segmentSum,
  Fill: (call) => call.filled(call.attribute<number[]>('shape'), typeOf(call, call.attribute<string | undefined>('dtype')), call.attribute<number>('value')),
  ZerosLike: (call) => call.filled(call.input('x').shape, call.input('x').type, 0),
  OnesLike: (call) => call.filled(call.input('x').shape, call.input('x').type, 1),
};
