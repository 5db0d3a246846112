/**
 * Convolutions forward and backward. The gradient of the filter is a convolution of the input with the output's gradient
 * where batch and channels have changed places; the gradient of the input is a transposed convolution.
 */
import type { Attribute, Value } from '../graph.ts';
import type { SymbolicTensor } from '../symbolic-tensor.ts';
import { applyActivation } from './elementwise.ts';
import type { KernelCall, KernelTable } from './kernel.ts';
import { filterGradientOfPatches, inputGradientOfPatches, patchesOf, productOfPatches } from './patches.ts';
import { convolutionInfo, reachedPart, unreached, windowAttributes, type WindowInfo } from './windows.ts';

/** TF.js's filter [height, width, in, out] as ONNX's [out, in, height, width]. */
function outInFilter(call: KernelCall, filter: SymbolicTensor): Value {
  return call.graph.transpose(filter.logical(), [3, 2, 0, 1]);
}

/** TF.js's depthwise filter [height, width, in, multiplier] as ONNX's [in * multiplier, 1, height, width] in one group per input channel. */
function depthwiseFilter(call: KernelCall, filter: SymbolicTensor): Value {
  const [height, width, channels, multiplier] = filter.shape;
  return call.graph.reshape(call.graph.transpose(filter.logical(), [2, 3, 0, 1]), [channels! * multiplier!, 1, height!, width!]);
}

function outputShape({ batchSize, outChannels, outHeight, outWidth }: WindowInfo): readonly number[] {
  return [batchSize, outChannels, outHeight, outWidth];
}

function forward(call: KernelCall, depthwise: boolean): SymbolicTensor {
  const [x, filter, bias] = [call.input('x'), call.input('filter'), call.optionalInput('bias')];
  if (call.optionalInput('preluActivationWeights') !== undefined) throw call.unsupported('the fused activation prelu');
  if (bias !== undefined && bias.shape.length !== 1) throw call.unsupported('a bias of a rank other than 1');
  const info = convolutionInfo(call, x.shape, filter.shape, depthwise);
  const patches = depthwise ? undefined : patchesOf(call.graph, x, info);
  if (patches !== undefined) return applyActivation(call, call.result(productOfPatches(call.graph, patches, filter.logical(), bias?.logical(), info)));
  const weights = depthwise ? depthwiseFilter(call, filter) : outInFilter(call, filter);
  const attributes: Record<string, Attribute> = { ...windowAttributes(info), dilations: [info.dilationHeight, info.dilationWidth] };
  if (depthwise) attributes['group'] = info.inChannels;
  const inputs = [x.channelsFirst(), weights, ...(bias === undefined ? [] : [bias.logical()])];
  const value = call.graph.node('Conv', inputs, outputShape(info), { attributes });
  return applyActivation(call, call.channelsFirstResult(value, info.outShape));
}

function inputGradient(call: KernelCall, depthwise: boolean): SymbolicTensor {
  const [dy, filter] = [call.input('dy'), call.input('filter')];
  const inputShape = call.attribute<number[]>('inputShape');
  const info = convolutionInfo(call, inputShape, filter.shape, depthwise);
  requireNoDilation(call, info);
  const ofPatches = depthwise ? undefined : inputGradientOfPatches(call.graph, dy.logical(), filter.logical(), info);
  if (ofPatches !== undefined) return call.channelsFirstResult(ofPatches, inputShape);
  const weights = depthwise ? depthwiseFilter(call, filter) : outInFilter(call, filter);
  const attributes: Record<string, Attribute> = { ...windowAttributes(info), output_padding: unreached(info) };
  if (depthwise) attributes['group'] = info.inChannels;
  const [batch, height, width, channels] = inputShape;
  const value = call.graph.node('ConvTranspose', [dy.channelsFirst(), weights], [batch!, channels!, height!, width!], { attributes });
  return call.channelsFirstResult(value, inputShape);
}

function filterGradient(call: KernelCall): SymbolicTensor {
  const [x, dy] = [call.input('x'), call.input('dy')];
  const filterShape = call.attribute<number[]>('filterShape');
  const info = convolutionInfo(call, x.shape, filterShape, false);
  requireNoDilation(call, info);
  const { graph } = call;
  const patches = patchesOf(graph, x, info);
  if (patches !== undefined) return call.result(filterGradientOfPatches(graph, patches, dy.logical(), info));
  if (dy.filterGradient?.input === x.channelsFirst()) return call.result(graph.transpose(dy.filterGradient.value(), [2, 3, 0, 1]));
  const input = reachedPart(graph, graph.transpose(x.channelsFirst(), [1, 0, 2, 3]), info);
  const gradient = graph.transpose(dy.channelsFirst(), [1, 0, 2, 3]);
  const [height, width, inChannels, outChannels] = filterShape;
  const value = graph.node('Conv', [input.value, gradient], [inChannels!, outChannels!, height!, width!], { attributes: gradientWindow(info, input.pads) });
  return call.result(graph.transpose(value, [2, 3, 0, 1]));
}

/** As `filterGradient`, each channel in a group of its own: [1, channels * batch, height, width]. */
function depthwiseFilterGradient(call: KernelCall): SymbolicTensor {
  const [x, dy] = [call.input('x'), call.input('dy')];
  const filterShape = call.attribute<number[]>('filterShape');
  const info = convolutionInfo(call, x.shape, filterShape, true);
  requireNoDilation(call, info);
  const { graph } = call;
  const [batch, inHeight, inWidth, channels] = x.shape;
  const [height, width, , multiplier] = filterShape;
  const grouped = graph.reshape(graph.transpose(x.channelsFirst(), [1, 0, 2, 3]), [1, channels! * batch!, inHeight!, inWidth!]);
  const input = reachedPart(graph, grouped, info);
  const gradient = graph.transpose(dy.channelsFirst(), [1, 0, 2, 3]);
  const attributes = { ...gradientWindow(info, input.pads), group: channels! };
  const value = graph.node('Conv', [input.value, gradient], [1, channels! * multiplier!, height!, width!], { attributes });
  return call.result(graph.transpose(graph.reshape(value, [channels!, multiplier!, height!, width!]), [2, 3, 0, 1]));
}

/** The output's gradient slides over the input in steps of 1, its own elements apart by the stride. */
function gradientWindow(info: WindowInfo, remainingPads: readonly number[]): Readonly<Record<string, Attribute>> {
  return { kernel_shape: [info.outHeight, info.outWidth], dilations: [info.strideHeight, info.strideWidth], strides: [1, 1], pads: remainingPads };
}

function requireNoDilation(call: KernelCall, info: WindowInfo): void {
  // TF.js has no such gradient either.
  if (info.dilationHeight !== 1 || info.dilationWidth !== 1) throw call.unsupported('the gradient of a dilated convolution');
}

export const convolutionKernels: KernelTable = {
  Conv2D: (call) => forward(call, false),
  FusedConv2D: (call) => forward(call, false),
  Conv2DBackpropInput: (call) => inputGradient(call, false),
  Conv2DBackpropFilter: filterGradient,
  DepthwiseConv2dNative: (call) => forward(call, true),
  FusedDepthwiseConv2D: (call) => forward(call, true),
  DepthwiseConv2dNativeBackpropInput: (call) => inputGradient(call, true),
  DepthwiseConv2dNativeBackpropFilter: depthwiseFilterGradient,
};
