/**
 * Max pools whose windows lie side by side, over elements that are sorted by their place in the window: the pool is a maximum over one axis, and its gradient comparisons of truth
 * values, which cost next to nothing. ONNX Runtime's own pool takes several times as long, and its images have their channels in axis 1, where a convolution that was computed as a product has
 * them last.
 *
 * The gradient goes to the first of equal elements, row by row, as in TF.js.
 */
import type { Graph, Value } from '../graph.ts';
import { unreached, type WindowInfo } from './windows.ts';

/** Each copy of fewer channels costs more than what is gained. */
const leastChannels = 8;
/** Which element is the first is found out place by place. */
const mostPlaces = 16;

/** The elements of `x`, [batch, height, width, channels], as [batch, places, windows * channels]; undefined where an ordinary pool is better. Equal calls add no nodes. */
export function sortedByPlace(graph: Graph, x: Value, info: WindowInfo): Value | undefined {
  const { batchSize, inHeight, inWidth, inChannels, outHeight, outWidth } = info;
  const places = info.filterHeight * info.filterWidth;
  if (inChannels < leastChannels || places > mostPlaces) return undefined;
  const positions = positionsByPlace(info);
  const sorted = graph.node('Gather', [graph.reshape(x, [batchSize, inHeight * inWidth, inChannels]), graph.integers(positions)], [batchSize, positions.length, inChannels], { attributes: { axis: 1 } });
  return graph.reshape(sorted, [batchSize, places, outHeight * outWidth * inChannels]);
}

/** Undoes `sortedByPlace`; elements that no window reaches are 0. */
export function sortedByPosition(graph: Graph, byPlace: Value, info: WindowInfo): Value {
  const { batchSize, inHeight, inWidth, inChannels } = info;
  const positions = positionsByPlace(info);
  const [reached, all] = [positions.length, inHeight * inWidth];
  const rows = graph.reshape(byPlace, [batchSize, reached, inChannels]);
  const [restRows, restColumns] = unreached(info);
  // With a row of zeros after the others for what is not reached.
  const source = restRows === 0 && restColumns === 0 ? rows : graph.node('Pad', [rows, graph.integers([0, 0, 0, 0, 1, 0])], [batchSize, reached + 1, inChannels]);
  const from = new Array<number>(all).fill(reached);
  for (const [i, position] of positions.entries()) from[position] = i;
  return graph.reshape(graph.node('Gather', [source, graph.integers(from)], [batchSize, all, inChannels], { attributes: { axis: 1 } }), [batchSize, inHeight, inWidth, inChannels]);
}

/** Positions in an image: of all windows' first elements, then of their second ones, and so on. */
function positionsByPlace({ inWidth, outHeight, outWidth, filterHeight, filterWidth }: WindowInfo): readonly number[] {
  const windows = outHeight * outWidth;
  return Array.from({ length: filterHeight * filterWidth * windows }, (_, i) => {
    const [place, window] = [Math.floor(i / windows), i % windows];
    const row = Math.floor(window / outWidth) * filterHeight + Math.floor(place / filterWidth);
    return row * inWidth + (window % outWidth) * filterWidth + (place % filterWidth);
  });
}

/** The maximum over the places, which are axis `axis`; the axis stays, with length 1. */
export function maximumOfPlaces(graph: Graph, byPlace: Value, axis: number): Value {
  return graph.node('ReduceMax', [byPlace, graph.integers([axis])], onePlace(byPlace, axis), { attributes: { keepdims: 1 } });
}

/** The gradient of what is sorted by place from that of the maximum, whose shape `dy` has: all of it goes to the first place that has the maximum. */
export function gradientOfMaximum(graph: Graph, dy: Value, byPlace: Value, axis: number): Value {
  const places = byPlace.shape[axis]!;
  const one = { shape: onePlace(byPlace, axis), type: 'bool' } as const;
  const logical = (operator: string, ...operands: readonly Value[]) => graph.node(operator, operands, one.shape, one);
  const isMaximum = graph.node('Equal', [byPlace, maximumOfPlaces(graph, byPlace, axis)], byPlace.shape, { type: 'bool' });
  const equal = graph.nodeWithOutputs('Split', [isMaximum], Array.from({ length: places }, () => one), { attributes: { axis, num_outputs: places } });
  const chosen: Value[] = [];
  let before: Value | undefined;
  for (const [i, own] of equal.entries()) {
    const free = before === undefined ? undefined : logical('Not', before);
    // One of them is the maximum: the last, if none before is.
    chosen.push(free === undefined ? own : i === places - 1 ? free : logical('And', own, free));
    before = before === undefined ? own : logical('Or', before, own);
  }
  const isChosen = graph.cast(graph.node('Concat', chosen, byPlace.shape, { attributes: { axis }, type: 'bool' }), 'float32');
  return graph.node('Mul', [isChosen, dy], byPlace.shape);
}

function onePlace({ shape }: Value, axis: number): readonly number[] {
  return shape.map((side, i) => (i === axis ? 1 : side));
}
