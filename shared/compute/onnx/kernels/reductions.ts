/** Sums, means and extremes over axes, and softmax. */
import { tf } from '../../backend.ts';
import type { Value } from '../graph.ts';
import type { SymbolicTensor } from '../symbolic-tensor.ts';
import { channelsFirstAxis, channelsFirstShape } from '../symbolic-tensor.ts';
import type { KernelCall, KernelTable, TraceKernel } from './kernel.ts';

/** `axisAttribute`: what TF.js calls the axes of this kernel. */
function reduction(operator: string, axisAttribute: string): TraceKernel {
  return (call) => {
    const x = call.input('x');
    const axes = tf.util.parseAxisParam(call.attribute<number | number[]>(axisAttribute), [...x.shape]).sort((a, b) => a - b);
    const keepDims = call.attribute<boolean | undefined>('keepDims') ?? false;
    const kept = x.shape.map((side, axis) => (axes.includes(axis) ? 1 : side));
    const shape = keepDims ? kept : x.shape.filter((_, axis) => !axes.includes(axis));
    if (axes.length === 0) return x;
    // Sums over whole images need no more than those over the windows of a pool.
    const source = operator === 'ReduceSum' && axes.includes(1) && axes.includes(2) ? x.windowSums : undefined;
    if (source !== undefined || x.isChannelsFirst) return reduceChannelsFirst(call, operator, source ?? x.channelsFirst(), axes, kept).reshaped(shape);
    return call.result(call.graph.node(operator, [x.logical(), call.graph.integers(axes)], shape, { attributes: { keepdims: Number(keepDims) }, type: x.type }));
  };
}

/** Reduces without a transpose: axes of length 1 in between do not hinder the reshape that follows. */
function reduceChannelsFirst(call: KernelCall, operator: string, source: Value, axes: readonly number[], kept: readonly number[]): SymbolicTensor {
  const graphAxes = axes.map((axis) => channelsFirstAxis[axis]!);
  const reduced = call.graph.node(operator, [source, call.graph.integers(graphAxes)], channelsFirstShape(kept), { attributes: { keepdims: 1 }, type: source.type });
  return call.channelsFirstResult(reduced, kept);
}

function softmax(operator: string, axisAttribute: string): TraceKernel {
  return (call) => {
    const logits = call.input('logits').logical();
    const axis = call.attribute<number>(axisAttribute);
    return call.result(call.graph.node(operator, [logits], logits.shape, { attributes: { axis } }));
  };
}

export const reductionKernels: KernelTable = {
  Sum: reduction('ReduceSum', 'axis'),
  Mean: reduction('ReduceMean', 'axis'),
  Prod: reduction('ReduceProd', 'axis'),
  Max: reduction('ReduceMax', 'reductionIndices'),
  Min: reduction('ReduceMin', 'axis'),
  Softmax: softmax('Softmax', 'dim'),
  LogSoftmax: softmax('LogSoftmax', 'axis'),
};
