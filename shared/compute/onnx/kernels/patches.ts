/**
 * A convolution as one matrix product: the patches under its windows, one a row, times the filters. ONNX Runtime's own convolution multiplies filters by patches, image by image;
 * with few filters most of its time goes into bringing the patches into the order of its product. The other way round the small operand is the one that is prepared, and two Gathers write
 * the patches of all images: forward and filter's gradient, which share them, take 0.6 of the time (16 to 32 channels, 5x5, 32 images).
 */
import { type Graph, microsoftDomain, type Value } from '../graph.ts';
import type { SymbolicTensor } from '../symbolic-tensor.ts';
import { pads as padsOf, type WindowInfo } from './windows.ts';

/** A copy of fewer channels costs more than what is gained. */
const leastChannels = 8;
/** With more filters ONNX Runtime's own convolution is as good. */
const mostFilters = 64;
/** Elements of all patches: 32 MiB. They are kept from the forward to the backward pass. */
const mostElements = 2 ** 23;

/** Whether an ordinary convolution is slower. */
function areWorthIt({ batchSize, outHeight, outWidth, filterHeight, filterWidth, inChannels, outChannels }: WindowInfo): boolean {
  const taps = filterHeight * filterWidth;
  return taps > 1 && inChannels >= leastChannels && outChannels <= mostFilters && batchSize * outHeight * outWidth * taps * inChannels <= mostElements;
}

/** The patches of `x`, [batch * rows * columns, filter height * filter width * channels]; undefined where an ordinary convolution is better. Equal calls add no nodes. */
export function patchesOf(graph: Graph, x: SymbolicTensor, info: WindowInfo): Value | undefined {
  if (!areWorthIt(info)) return undefined;
  const { batchSize, outHeight, outWidth, filterHeight, filterWidth, inChannels } = info;
  const [positions, taps] = [outHeight * outWidth, filterHeight * filterWidth];
  const { padInfo, inHeight, inWidth } = info;
  const [height, width] = [inHeight + padInfo.top + padInfo.bottom, inWidth + padInfo.left + padInfo.right];
  const pads = [0, padInfo.top, padInfo.left, 0, 0, padInfo.bottom, padInfo.right, 0];
  const padded = pads.every((pad) => pad === 0) ? x.logical() : graph.node('Pad', [x.logical(), graph.integers(pads)], [batchSize, height, width, inChannels]);
  // First the windows of each row, then those of the image out of them: longer pieces, and half as many copies.
  const ofRows = gather(graph, graph.reshape(padded, [batchSize, height * width, inChannels]), height * outWidth * filterWidth, (i) => {
    const [window, column] = [Math.floor(i / filterWidth), i % filterWidth];
    return Math.floor(window / outWidth) * width + (window % outWidth) * info.strideWidth + column * info.dilationWidth;
  });
  const gathered = gather(graph, graph.reshape(ofRows, [batchSize, height * outWidth, filterWidth * inChannels]), positions * filterHeight, (i) => {
    const [position, row] = [Math.floor(i / filterHeight), i % filterHeight];
    return (Math.floor(position / outWidth) * info.strideHeight + row * info.dilationHeight) * outWidth + (position % outWidth);
  });
  return graph.reshape(gathered, [batchSize * positions, taps * inChannels]);
}

/** Pieces of each example, [batch, pieces, length], at other places. */
function gather(graph: Graph, pieces: Value, count: number, placeOf: (i: number) => number): Value {
  const [batch, , length] = pieces.shape as readonly [number, number, number];
  return graph.node('Gather', [pieces, graph.integers(Array.from({ length: count }, (_, i) => placeOf(i)))], [batch, count, length], { attributes: { axis: 1 } });
}

/** `filter`: TF.js's, [height, width, in, out]. Gives TF.js's order of axes. */
export function productOfPatches(graph: Graph, patches: Value, filter: Value, bias: Value | undefined, { outShape, outChannels }: WindowInfo): Value {
  const operands = [patches, graph.reshape(filter, [patches.shape[1]!, outChannels]), ...(bias === undefined ? [] : [bias])];
  return graph.reshape(graph.node('Gemm', operands, [patches.shape[0]!, outChannels]), outShape);
}

/** The gradient of TF.js's filter; `dy` in TF.js's order of axes. */
export function filterGradientOfPatches(graph: Graph, patches: Value, dy: Value, { filterHeight, filterWidth, inChannels, outChannels }: WindowInfo): Value {
  const product = graph.node('Gemm', [patches, graph.reshape(dy, [patches.shape[0]!, outChannels])], [patches.shape[1]!, outChannels], { attributes: { transA: 1 } });
  return graph.reshape(product, [filterHeight, filterWidth, inChannels, outChannels]);
}

/**
 * The gradient of the convolution's input, [batch, channels, height, width], which is added up from those of the patches; `dy` in TF.js's order of axes. undefined where an ordinary transposed
 * convolution is better. That one does the same (and gives the same bits), but needs other orders of the filter's and the gradient's axes.
 */
export function inputGradientOfPatches(graph: Graph, dy: Value, filter: Value, info: WindowInfo): Value | undefined {
  if (!areWorthIt(info)) return undefined;
  const { batchSize, outHeight, outWidth, filterHeight, filterWidth, inChannels, outChannels, inHeight, inWidth } = info;
  const [positions, taps] = [outHeight * outWidth, filterHeight * filterWidth];
  const rows = graph.reshape(graph.transpose(filter, [2, 0, 1, 3]), [inChannels * taps, outChannels]);
  const ofPatches = graph.node('FusedMatMul', [rows, graph.reshape(dy, [batchSize, positions, outChannels])], [batchSize, inChannels * taps, positions], { attributes: { transB: 1 }, domain: microsoftDomain });
  const attributes = { strides: [info.strideHeight, info.strideWidth], pads: padsOf(info), dilations: [1, 1] };
  return graph.node('Col2Im', [ofPatches, graph.integers([inHeight, inWidth]), graph.integers([filterHeight, filterWidth])], [batchSize, inChannels, inHeight, inWidth], { attributes });
}
