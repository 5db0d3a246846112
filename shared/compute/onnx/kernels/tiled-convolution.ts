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
import { reachedPart, type WindowInfo } from './windows.ts';

/** With more places, or larger filters for small windows, the zeros cost more than is gained. */
const mostPlaces = 4;
const mostExtraArithmetic = 2.25;

export interface TiledConvolution {
  /** What is convolved: [batch, channels, height, width]. */
  readonly input: Value;
  /** The result at each place of the window, row by row, without a relu: [batch, filters, window rows, window columns]. */
  readonly places: readonly Value[];
  /** The maximum over each window, with the relu. */
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
  const shape = [window.batchSize, places * filters, window.outHeight, window.outWidth];
  const attributes = { kernel_shape: extended, strides: [strides[0] * window.filterHeight, strides[1] * window.filterWidth], pads, dilations: [1, 1] };
  const operands = [input, shiftedFilters(graph, weights, convolution, window), ...(bias === undefined ? [] : [repeated(graph, bias, places)])];
  const all = graph.node('Conv', operands, shape, { attributes });
  const one = { shape: [window.batchSize, filters, window.outHeight, window.outWidth], type: 'float32' } as const;
  const parts = graph.nodeWithOutputs('Split', [all], Array.from({ length: places }, () => one), { attributes: { axis: 1, num_outputs: places } });
  const maximum = graph.node('Max', parts, one.shape);
  const hasRelu = producer !== node;
  return { input, places: parts, pooled: hasRelu ? graph.node('Relu', [maximum], one.shape) : maximum, hasRelu, window, convolution };
}

/**
 * The gradient of the filter, [channels, filters, height, width], from that of the pool's result. `dy` has been through the gradient of the relu, where there is one: where all of a
 * window is below 0 it does not matter which element is taken.
 */
export function tiledFilterGradient(graph: Graph, { input, places, window, convolution }: TiledConvolution, dy: Value): Value {
  const { filters, kernel, strides, pads } = convolution;
  const [batch, , outHeight, outWidth] = dy.shape as readonly [number, number, number, number];
  const transposed = firstMaxima(graph, places).map((isChosen) => graph.transpose(graph.node('Mul', [graph.cast(isChosen, 'float32'), dy], dy.shape), [1, 0, 2, 3]));
  const gradients = graph.node('Concat', transposed, [places.length * filters, batch, outHeight, outWidth], { attributes: { axis: 0 } });
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
  const all = graph.node('Conv', [reached.value, gradients], [channels, places.length * filters, ...extended], { attributes });
  const shape = [channels, filters, ...kernel];
  const ofPlaces = places.map((_, place) => {
    const [row, column] = shift(place, convolution, window);
    const starts = [place * filters, row, column];
    return graph.node('Slice', [all, graph.integers(starts), graph.integers([starts[0]! + filters, row + kernel[0], column + kernel[1]]), graph.integers([1, 2, 3])], shape);
  });
  return ofPlaces.reduce((sum, part) => graph.node('Add', [sum, part], shape));
}

/** For each place, whether it is the first of the window that has the maximum. Comparisons of truth values cost next to nothing. */
function firstMaxima(graph: Graph, places: readonly Value[]): readonly Value[] {
  const { shape } = places[0]!;
  const logical = (operator: string, ...operands: readonly Value[]) => graph.node(operator, operands, shape, { type: 'bool' });
  const maximum = graph.node('Max', places, shape);
  const chosen: Value[] = [];
  let before: Value | undefined;
  for (const [i, place] of places.entries()) {
    const isLast = i === places.length - 1;
    // One of them is the maximum.
    const isMaximum = isLast ? undefined : logical('Equal', place, maximum);
    const free = before === undefined ? undefined : logical('Not', before);
    chosen.push(isMaximum === undefined ? free! : free === undefined ? isMaximum : logical('And', isMaximum, free));
    if (isMaximum !== undefined) before = before === undefined ? isMaximum : logical('Or', before, isMaximum);
  }
  return chosen;
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

/** How far the filter of a place lies from the first one's, in elements of the input. */
function shift(place: number, { strides }: TiledConvolution['convolution'], { filterWidth }: WindowInfo): Pair {
  return [strides[0] * Math.floor(place / filterWidth), strides[1] * (place % filterWidth)];
}

function extendedKernel({ kernel, strides }: TiledConvolution['convolution'], { filterHeight, filterWidth }: WindowInfo): Pair {
  return [kernel[0] + strides[0] * (filterHeight - 1), kernel[1] + strides[1] * (filterWidth - 1)];
}

/** The filters of all places, one place after the other, with zeros around them. */
function shiftedFilters(graph: Graph, weights: Value, convolution: TiledConvolution['convolution'], window: WindowInfo): Value {
  const [filters, channels] = weights.shape as readonly [number, number];
  const [height, width] = extendedKernel(convolution, window);
  const places = window.filterHeight * window.filterWidth;
  const shifted = Array.from({ length: places }, (_, place) => {
    const [row, column] = shift(place, convolution, window);
    const pads = [0, 0, row, column, 0, 0, height - convolution.kernel[0] - row, width - convolution.kernel[1] - column];
    return graph.node('Pad', [weights, graph.integers(pads)], [filters, channels, height, width]);
  });
  return graph.node('Concat', shifted, [places * filters, channels, height, width], { attributes: { axis: 0 } });
}

function repeated(graph: Graph, bias: Value, places: number): Value {
  return graph.node('Concat', Array.from({ length: places }, () => bias), [places * bias.shape[0]!], { attributes: { axis: 0 } });
}
