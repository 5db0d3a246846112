/**
 * Pools forward and backward, with TF.js's ties: the gradient of a maximum goes to the first of equal elements, row by
 * row. Ties are common: a blank background is one.
 */
import { tf } from '../../backend.ts';
import type { Graph, Value } from '../graph.ts';
import { reluMask, type SymbolicTensor } from '../symbolic-tensor.ts';
import type { KernelCall, KernelTable } from './kernel.ts';
import { tiledConvolution, tiledFilterGradient } from './tiled-convolution.ts';
import { gradientOfMaximum, maximumOfPlaces, sortedByPlace, sortedByPosition } from './window-places.ts';
import { poolInfo, tilesInput, unreached, windowAttributes, type WindowInfo } from './windows.ts';

function outputShape({ batchSize, outChannels, outHeight, outWidth }: WindowInfo): readonly number[] {
  return [batchSize, outChannels, outHeight, outWidth];
}

function maxPool(call: KernelCall): SymbolicTensor {
  const info = poolInfo(call, call.input('x').shape);
  const byPlace = inPlaces(call.graph, call.input('x'), info);
  if (byPlace !== undefined) return call.result(call.graph.reshape(maximumOfPlaces(call.graph, byPlace, 1), info.outShape));
  const x = call.input('x').channelsFirst();
  const tiled = tilesInput(info) ? tiledConvolution(call.graph, x, info) : undefined;
  return call.channelsFirstResult(tiled?.pooled ?? pooled(call.graph, 'MaxPool', x, info), info.outShape);
}

function averagePool(call: KernelCall): SymbolicTensor {
  const info = poolInfo(call, call.input('x').shape);
  return call.channelsFirstResult(pooled(call.graph, 'AveragePool', call.input('x').channelsFirst(), info), info.outShape);
}

function pooled(graph: Graph, operator: string, x: Value, info: WindowInfo): Value {
  return graph.node(operator, [x], outputShape(info), { attributes: windowAttributes(info) });
}

/** The input of a pool sorted by its windows' places, where it has its channels last and the windows lie side by side. */
function inPlaces(graph: Graph, x: SymbolicTensor, info: WindowInfo): Value | undefined {
  return x.layout === 'value' && x.fill === undefined && tilesInput(info) ? sortedByPlace(graph, x.logical(), info) : undefined;
}

function maxPoolGradient(call: KernelCall): SymbolicTensor {
  return gradientOfPlaces(call) ?? gradientOfImages(call);
}

/** Of a pool whose input has its channels last. */
function gradientOfPlaces(call: KernelCall): SymbolicTensor | undefined {
  const [dy, x, y] = [call.input('dy').logical(), call.input('input'), call.input('output').logical()];
  const info = poolInfo(call, x.shape);
  const { graph } = call;
  const byPlace = inPlaces(graph, x, info);
  if (byPlace === undefined) return undefined;
  const gradient = (ofPool: Value): SymbolicTensor => {
    const ofPlaces = gradientOfMaximum(graph, graph.reshape(ofPool, [info.batchSize, 1, byPlace.shape[2]!]), byPlace, 1);
    const result = call.result(sortedByPosition(graph, ofPlaces, info));
    // Under another shape, so that ONNX Runtime leaves the order of the sum as it is in images with their channels in axis 1.
    result.windowSums = graph.reshape(graph.transpose(ofPool, [0, 3, 1, 2]), [info.batchSize, info.inChannels, 1, info.outHeight * info.outWidth]);
    return result;
  };
  const result = gradient(dy);
  // Where x is a relu's result, the chosen element of a window is above 0 exactly when the maximum is.
  result.withReluMask = { relu: x.logical(), layout: 'value', gradient: () => gradient(graph.node('Mul', [dy, reluMask(graph, y)], info.outShape)) };
  return result;
}

/** Of any other. */
function gradientOfImages(call: KernelCall): SymbolicTensor {
  const [dy, x, y] = [call.input('dy').channelsFirst(), call.input('input').channelsFirst(), call.input('output').channelsFirst()];
  const info = poolInfo(call, call.input('input').shape);
  const { graph } = call;
  if (!tilesInput(info)) return call.channelsFirstResult(scatterToMaxima(graph, dy, x, info), info.inShape);
  const tiled = tiledConvolution(graph, x, info);
  // What was computed place by place may differ from the feature map by a rounding, and only equal elements are maxima.
  const maxima = tiled === undefined ? y : pooled(graph, 'MaxPool', x, info);
  const gradient = (ofPool: Value): SymbolicTensor => {
    const result = call.channelsFirstResult(spreadOverTiles(graph, ofPool, x, maxima, info), info.inShape);
    result.windowSums = ofPool;
    if (tiled !== undefined) result.filterGradient = { input: tiled.input, value: () => tiledFilterGradient(graph, tiled, ofPool) };
    return result;
  };
  const result = gradient(dy);
  // Where x is a relu's result, the chosen element of a window is above 0 exactly when the maximum is.
  result.withReluMask = { relu: x, layout: 'channelsFirst', gradient: () => gradient(graph.node('Mul', [dy, reluMask(graph, y)], outputShape(info))) };
  return result;
}

/**
 * Marks the maxima, gives each a priority that falls with its place in the window, and keeps the highest: the first.
 * Faster in ONNX Runtime than positions of maxima, which it computes one by one.
 */
function spreadOverTiles(graph: Graph, dy: Value, x: Value, y: Value, info: WindowInfo): Value {
  const { filterHeight, filterWidth } = info;
  const isMaximum = graph.cast(graph.node('Equal', [x, repeatOverTiles(graph, y, info)], x.shape, { type: 'bool' }), 'float32');
  const priorities = Float32Array.from({ length: info.inHeight * info.inWidth }, (_, i) => {
    const [row, column] = [Math.floor(i / info.inWidth) % filterHeight, (i % info.inWidth) % filterWidth];
    return filterHeight * filterWidth - (row * filterWidth + column);
  });
  const scores = graph.node('Mul', [isMaximum, graph.constant(priorities, [1, 1, info.inHeight, info.inWidth])], x.shape);
  const best = pooled(graph, 'MaxPool', scores, info);
  const isFirstMaximum = graph.cast(graph.node('Equal', [scores, repeatOverTiles(graph, best, info)], x.shape, { type: 'bool' }), 'float32');
  return graph.node('Mul', [isFirstMaximum, repeatOverTiles(graph, dy, info)], x.shape);
}

/** Each element repeated over its window; 0 in rows and columns that no window reaches. */
function repeatOverTiles(graph: Graph, value: Value, info: WindowInfo): Value {
  const { filterHeight, filterWidth } = info;
  const [batch, channels, height, width] = value.shape as [number, number, number, number];
  const shape = [batch, channels, height * filterHeight, width * filterWidth];
  const scales = graph.constant(Float32Array.of(1, 1, filterHeight, filterWidth), [4]);
  const attributes = { mode: 'nearest', coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' };
  const repeated = graph.node('Resize', [value, undefined, scales], shape, { attributes });
  const [rows, columns] = unreached(info);
  if (rows === 0 && columns === 0) return repeated;
  return graph.node('Pad', [repeated, graph.integers([0, 0, 0, 0, 0, 0, rows, columns])], [batch, channels, info.inHeight, info.inWidth]);
}

/** Adds each gradient at the position of its maximum, for windows that overlap. ONNX Runtime's positions are those of the first. */
function scatterToMaxima(graph: Graph, dy: Value, x: Value, info: WindowInfo): Value {
  const shape = outputShape(info);
  const [, positions] = graph.nodeWithOutputs('MaxPool', [x], [{ shape, type: 'float32' }, { shape, type: 'int64' }], { attributes: windowAttributes(info) });
  const [outputs, inputs] = [[dy.shape.reduce((a, b) => a * b)], [x.shape.reduce((a, b) => a * b)]];
  const zeros = graph.node('Expand', [graph.scalar(0), graph.integers(inputs)], inputs);
  const flat = graph.node('ScatterElements', [zeros, graph.reshape(positions!, outputs), graph.reshape(dy, outputs)], inputs, { attributes: { axis: 0, reduction: 'add' } });
  return graph.reshape(flat, x.shape);
}

/**
 * Every element of a window gets an equal part. As in TF.js, the parts are 1 / (window size) also at the edges, where the
 * forward pass averages over fewer elements.
 */
function averagePoolGradient(call: KernelCall): SymbolicTensor {
  const [dy, x] = [call.input('dy'), call.input('input')];
  const info = poolInfo(call, x.shape);
  const { graph } = call;
  const part = 1 / (info.filterHeight * info.filterWidth);
  const [batch, height, width, channels] = x.shape as [number, number, number, number];
  if (tilesInput(info)) {
    const scaled = graph.node('Mul', [dy.channelsFirst(), graph.scalar(part)], outputShape(info));
    return call.channelsFirstResult(repeatOverTiles(graph, scaled, info), x.shape);
  }
  // One channel at a time: a transposed convolution with a constant window.
  const single = graph.reshape(dy.channelsFirst(), [batch * channels, 1, info.outHeight, info.outWidth]);
  const filter = graph.constant(new Float32Array(info.filterHeight * info.filterWidth).fill(part), [1, 1, info.filterHeight, info.filterWidth]);
  const attributes = { ...windowAttributes(info), output_padding: unreached(info) };
  const value = graph.node('ConvTranspose', [single, filter], [batch * channels, 1, height, width], { attributes });
  return call.channelsFirstResult(graph.reshape(value, [batch, channels, height, width]), x.shape);
}

/** Upsampling by whole factors: each element repeated over a window. */
function resizeNearest(call: KernelCall): SymbolicTensor {
  const images = call.input('images');
  const [height, width] = call.attribute<[number, number]>('size');
  const info = upsamplingInfo(call, images.shape, height, width);
  return call.channelsFirstResult(repeatOverTiles(call.graph, images.channelsFirst(), info), info.inShape);
}

/**
 * The sum over each window. TF.js's plain back end (4.22) adds up elements of the first example for all examples here; this
 * is the gradient that it should have, and has for a batch of one.
 */
function resizeNearestGradient(call: KernelCall): SymbolicTensor {
  const [images, dy] = [call.input('images'), call.input('dy')];
  const info = upsamplingInfo(call, images.shape, dy.shape[1]!, dy.shape[2]!);
  const { graph } = call;
  const mean = pooled(graph, 'AveragePool', dy.channelsFirst(), info);
  return call.channelsFirstResult(graph.node('Mul', [mean, graph.scalar(info.filterHeight * info.filterWidth)], outputShape(info)), images.shape);
}

/** The pool that undoes the upsampling. */
function upsamplingInfo(call: KernelCall, [batch, height, width, channels]: readonly number[], newHeight: number, newWidth: number): WindowInfo {
  const factors: [number, number] = [newHeight / height!, newWidth / width!];
  if (!factors.every(Number.isInteger) || (call.attribute<boolean | undefined>('alignCorners') ?? false) || (call.attribute<boolean | undefined>('halfPixelCenters') ?? false)) {
    throw call.unsupported('a factor that is not a whole number, or aligned corners');
  }
  return tf.backend_util.computePool2DInfo([batch!, newHeight, newWidth, channels!], factors, factors, 1, 'valid');
}

export const poolingKernels: KernelTable = {
  MaxPool: maxPool,
  MaxPoolGrad: maxPoolGradient,
  AvgPool: averagePool,
  AvgPoolGrad: averagePoolGradient,
  ResizeNearestNeighbor: resizeNearest,
  ResizeNearestNeighborGrad: resizeNearestGradient,
};
