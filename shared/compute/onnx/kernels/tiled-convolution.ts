/**
 * A convolution of the examples themselves whose result goes to a max pool with windows side by side, as in the first layers of most image models. Instead of the
 * feature map, one convolution gives an image for each place in the window: filters for each place, shifted by it, with the stride of the windows.
 *
 * That is more arithmetic (zeros around the filters), but four times the filters, which ONNX Runtime's matrix products need: a product with 16 rows reaches a fifth of what a
 * core can do. And the pool and its gradient, ten passes over the feature map otherwise, a fifth of a step, become a maximum and comparisons of whole images.
 *
 * Only where the convolution's own input needs no gradient: that one is faster on the feature map.
 */
import type { Graph, GraphNode, Value } from '../graph.ts';
import { gradientOfMaximum, maximumOfPlaces } from './window-places.ts';
import { reachedPart, type WindowInfo } from './windows.ts';

/** With more places, or larger filters for small windows, the zeros cost more than is gained. */
const mostPlaces = 4;
const mostExtraArithmetic = 2.25;
/** Of the results by place. */
const placeAxis = 1;

export interface TiledConvolution {
  /** What is convolved: [batch, channels, height, width]. */
  readonly input: Value;
  /** The result at each place of the window, row by row, without a relu: [batch, places, filters * windows]. */
  readonly byPlace: Value;
  /** The maximum over each window, with the relu: [batch, filters, window rows, window columns]. */
  readonly pooled: Value;
  readonly hasRelu: boolean;
  readonly window: WindowInfo;
  readonly convolution: { readonly filters: number; readonly kernel: Pair; readonly strides: Pair; readonly pads: readonly number[] };
}

type Pair = readonly [number, number];

/** `x`: what the pool takes, channels in axis 1. undefined where the feature map is needed, or better. Equal calls add no nodes. */
export function tiledConvolution(graph: Graph, x: Value, window: WindowInfo): TiledConvolution | undefined {
  const producer = graph.producerOf(x);
  const node = producer?.operator === 'Relu' ? graph.producerOf(producer.inputs[0]!) : producer;
  if (node?.operator !== 'Conv') return undefined;
  const [input, weights, bias] = node.inputs as readonly [Value, Value, Value | undefined];
  const convolution = attributesOf(node, weights);
  const places = window.filterHeight * window.filterWidth;
  if (convolution === undefined || places > mostPlaces || !isExamples(graph, input)) return undefined;
  const { filters, strides, kernel, pads } = convolution;
  const extended = extendedKernel(convolution, window);
  if ((extended[0] * extended[1]) / (kernel[0] * kernel[1]) > mostExtraArithmetic) return undefined;
  const { batchSize, outHeight, outWidth } = window;
  const attributes = { kernel_shape: extended, strides: [strides[0] * window.filterHeight, strides[1] * window.filterWidth], pads, dilations: [1, 1] };
  const operands = [input, shiftedFilters(graph, weights, convolution, window), ...(bias === undefined ? [] : [repeated(graph, bias, places)])];
  const all = graph.node('Conv', operands, [batchSize, places * filters, outHeight, outWidth], { attributes });
  const byPlace = graph.reshape(all, [batchSize, places, filters * outHeight * outWidth]);
  const maximum = graph.reshape(maximumOfPlaces(graph, byPlace, placeAxis), [batchSize, filters, outHeight, outWidth]);
  const hasRelu = producer !== node;
  return { input, byPlace, pooled: hasRelu ? graph.node('Relu', [maximum], maximum.shape) : maximum, hasRelu, window, convolution };
}

/**
 * The gradient of the filter, [channels, filters, height, width], from that of the pool's result. `dy` has been through the gradient of the relu, where there is one: where all of a
 * window is below 0 it does not matter which element is taken.
 */
export function tiledFilterGradient(graph: Graph, { input, byPlace, window, convolution }: TiledConvolution, dy: Value): Value {
  const { filters, kernel, strides, pads } = convolution;
  const [batch, , outHeight, outWidth] = dy.shape as readonly [number, number, number, number];
  const places = byPlace.shape[placeAxis]!;
  const ofPlaces = gradientOfMaximum(graph, graph.reshape(dy, [batch, 1, filters * outHeight * outWidth]), byPlace, placeAxis);
  const gradients = graph.transpose(graph.reshape(ofPlaces, [batch, places * filters, outHeight, outWidth]), [1, 0, 2, 3]);
  const extended = extendedKernel(convolution, window);
  const dilations = [strides[0] * window.filterHeight, strides[1] * window.filterWidth] as const;
  const [, channels, inHeight, inWidth] = input.shape as readonly [number, number, number, number];
  // The windows of the extended filters.
  const [top, left, bottom, right] = pads as readonly [number, number, number, number];
  const info: WindowInfo = {
    ...window,
    inHeight, inWidth, outHeight, outWidth,
    strideHeight: dilations[0], strideWidth: dilations[1],
    filterHeight: extended[0], filterWidth: extended[1], effectiveFilterHeight: extended[0], effectiveFilterWidth: extended[1],
    padInfo: { top, left, bottom, right, type: 'EXPLICIT' },
  };
  const reached = reachedPart(graph, graph.transpose(input, [1, 0, 2, 3]), info);
  const attributes = { kernel_shape: [outHeight, outWidth], dilations, strides: [1, 1], pads: reached.pads };
  const all = graph.node('Conv', [reached.value, gradients], [channels, places * filters, ...extended], { attributes });
  // Each element of a filter was shifted to as many places, whose gradients are its own.
  const [taps, shiftedTaps] = [kernel[0] * kernel[1], places * extended[0] * extended[1]];
  const byFilter = graph.transpose(graph.reshape(all, [channels, places, filters, extended[0] * extended[1]]), [0, 2, 1, 3]);
  const back = graph.node('MatMul', [graph.reshape(byFilter, [channels * filters, shiftedTaps]), shifts(graph, convolution, window, 'back')], [channels * filters, taps]);
  return graph.reshape(back, [channels, filters, ...kernel]);
}

/** undefined for a convolution in groups or with holes. */
function attributesOf({ attributes }: GraphNode, weights: Value): TiledConvolution['convolution'] | undefined {
  const list = (name: string): readonly number[] => attributes[name] as readonly number[];
  const isPlain = (attributes['group']) === undefined && list('dilations').every((dilation) => dilation === 1);
  const [filters] = weights.shape as readonly [number];
  return isPlain ? { filters, kernel: list('kernel_shape') as Pair, strides: list('strides') as Pair, pads: list('pads') } : undefined;
}

/** Whether it is the examples, under another shape or order of axes: nobody asks for their gradient. */
function isExamples(graph: Graph, value: Value): boolean {
  const producer = graph.producerOf(value);
  if (producer?.operator === 'Reshape' || producer?.operator === 'Transpose') return isExamples(graph, producer.inputs[0]!);
  return graph.inputs.some((input) => input.value === value);
}

function extendedKernel({ kernel, strides }: TiledConvolution['convolution'], { filterHeight, filterWidth }: WindowInfo): Pair {
  return [kernel[0] + strides[0] * (filterHeight - 1), kernel[1] + strides[1] * (filterWidth - 1)];
}

/** The filters of all places, one place after the other, with zeros around them: [places * filters, channels, height, width]. One product with zeros and ones, which rounds nothing. */
function shiftedFilters(graph: Graph, weights: Value, convolution: TiledConvolution['convolution'], window: WindowInfo): Value {
  const [filters, channels] = weights.shape as readonly [number, number];
  const [height, width] = extendedKernel(convolution, window);
  const places = window.filterHeight * window.filterWidth;
  const [taps, shiftedTaps] = [convolution.kernel[0] * convolution.kernel[1], places * height * width];
  const product = graph.node('MatMul', [graph.reshape(weights, [filters * channels, taps]), shifts(graph, convolution, window, 'forth')], [filters * channels, shiftedTaps]);
  return graph.reshape(graph.transpose(graph.reshape(product, [filters, channels, places, height * width]), [2, 0, 1, 3]), [places * filters, channels, height, width]);
}

/** 1 where an element of a filter, a row, goes to an element of an extended one at some place, a column; the other way round for `back`. */
function shifts(graph: Graph, { kernel, strides, ...convolution }: TiledConvolution['convolution'], window: WindowInfo, direction: 'forth' | 'back'): Value {
  const [height, width] = extendedKernel({ kernel, strides, ...convolution }, window);
  const places = window.filterHeight * window.filterWidth;
  const [taps, shiftedTaps] = [kernel[0] * kernel[1], places * height * width];
  const ones = new Float32Array(taps * shiftedTaps);
  for (let place = 0; place < places; place++) {
    // How far the filter of the place lies from the first one's, in elements of the input.
    const [down, across] = [strides[0] * Math.floor(place / window.filterWidth), strides[1] * (place % window.filterWidth)];
    for (let tap = 0; tap < taps; tap++) {
      const shifted = (place * height + down + Math.floor(tap / kernel[1])) * width + across + (tap % kernel[1]);
      ones[direction === 'forth' ? tap * shiftedTaps + shifted : shifted * taps + tap] = 1;
    }
  }
  return graph.constant(ones, direction === 'forth' ? [taps, shiftedTaps] : [shiftedTaps, taps]);
}

/** For all places. */
function repeated(graph: Graph, bias: Value, places: number): Value {
  const [filters] = bias.shape as readonly [number];
  return graph.reshape(graph.node('Expand', [bias, graph.integers([places, filters])], [places, filters]), [places * filters]);
}
