/**
 * What flows through TF.js while a graph is traced: a shape and a type, and where the elements will come from. Images are
 * [batch, height, width, channels] in TF.js and [batch, channels, height, width] in ONNX, so a tensor of rank 4 may
 * exist in either order, or in both once both were asked for.
 */
import { type ConstantData, equalShapes, type Graph, sizeOf, typedArray, type Value } from './graph.ts';

/** The types that TF.js has and a graph can carry. */
export type TensorType = 'float32' | 'int32' | 'bool';

/** NHWC to NCHW and back. */
const toChannelsFirst = [0, 3, 1, 2];
const toChannelsLast = [0, 2, 3, 1];

export type Source =
  /** Computed by the graph, in TF.js's order of axes. */
  | { readonly kind: 'value'; readonly value: Value }
  /** Computed by the graph with the channels in axis 1: rank 4 only. */
  | { readonly kind: 'channelsFirst'; readonly value: Value }
  /** The same number everywhere. */
  | { readonly kind: 'fill'; readonly fill: number }
  /** Known while tracing. */
  | { readonly kind: 'data'; readonly data: ConstantData }
  /** 1 where this result of a relu is above 0, else 0. Kept unwritten: it is mostly multiplied by something at once. */
  | { readonly kind: 'reluMask'; readonly relu: SymbolicTensor };

export class SymbolicTensor {
  readonly shape: readonly number[];
  readonly type: TensorType;
  readonly source: Source;
  readonly #graph: Graph;
  #logical: Value | undefined;
  #channelsFirst: Value | undefined;
  /** For the gradient of a max pool: the same gradient with the relu before the pool taken in; `relu`: its result in this order of axes. See `kernels/pooling.ts`. */
  withReluMask: { readonly relu: Value; readonly layout: 'value' | 'channelsFirst'; readonly gradient: () => SymbolicTensor } | undefined;
  /** For the same, where windows lie side by side: what each window has of it in all, [batch, channels, rows, columns], or all windows in axis 3. */
  windowSums: Value | undefined;
  /** For the same, where the pool's input is a convolution that was computed place by place: the gradient of the filter. See `kernels/tiled-convolution.ts`. */
  filterGradient: { readonly input: Value; readonly value: () => Value } | undefined;

  constructor(graph: Graph, shape: readonly number[], type: TensorType, source: Source) {
    this.#graph = graph;
    this.shape = shape;
    this.type = type;
    this.source = source;
    if (source.kind === 'value') this.#logical = source.value;
    if (source.kind === 'channelsFirst') this.#channelsFirst = source.value;
  }

  /** The number that fills the tensor, if one does. */
  get fill(): number | undefined {
    return this.source.kind === 'fill' ? this.source.fill : undefined;
  }

  /** Whether the graph has it with the channels in axis 1 only, so that the other order would cost a transpose. */
  get isChannelsFirst(): boolean {
    return this.#logical === undefined && this.layout === 'channelsFirst';
  }

  /** The order in which the graph computes it. */
  get layout(): 'value' | 'channelsFirst' {
    const { source } = this;
    if (source.kind === 'reluMask') return source.relu.layout;
    return source.kind === 'channelsFirst' ? 'channelsFirst' : 'value';
  }

  /** The elements in TF.js's order of axes. */
  logical(): Value {
    this.#logical ??= this.#channelsFirst !== undefined ? this.#graph.transpose(this.#channelsFirst, toChannelsLast) : this.#materialize('value');
    return this.#logical;
  }

  /** The elements with the channels in axis 1. Rank 4 only. */
  channelsFirst(): Value {
    if (this.#channelsFirst === undefined && this.source.kind === 'reluMask' && this.layout === 'channelsFirst') this.#channelsFirst = this.#materialize('channelsFirst');
    this.#channelsFirst ??= this.#graph.transpose(this.logical(), toChannelsFirst);
    return this.#channelsFirst;
  }

  in(layout: 'value' | 'channelsFirst'): Value {
    return layout === 'value' ? this.logical() : this.channelsFirst();
  }

  /** Under another shape with as many elements. */
  reshaped(shape: readonly number[]): SymbolicTensor {
    if (equalShapes(shape, this.shape)) return this;
    if (this.source.kind === 'fill') return new SymbolicTensor(this.#graph, shape, this.type, this.source);
    if (this.source.kind === 'data') return new SymbolicTensor(this.#graph, shape, this.type, this.source);
    return new SymbolicTensor(this.#graph, shape, this.type, { kind: 'value', value: this.#graph.reshape(this.logical(), shape) });
  }

  #materialize(layout: 'value' | 'channelsFirst'): Value {
    const { source } = this;
    switch (source.kind) {
      case 'fill':
        return this.#graph.constant(typedArray(this.type, new Array<number>(sizeOf(this.shape)).fill(source.fill)), this.shape);
      case 'data':
        return this.#graph.constant(source.data, this.shape);
      case 'reluMask':
        return reluMask(this.#graph, source.relu.in(layout));
      case 'value':
      case 'channelsFirst':
        return source.value;
    }
  }
}

/** 1 where the result of a relu is not 0. Two casts are several times faster in ONNX Runtime than Sign, Greater or Where. */
export function reluMask(graph: Graph, relu: Value): Value {
  return graph.cast(graph.cast(relu, 'bool'), 'float32');
}

/** Where axis i of TF.js's order is when the channels are in axis 1. */
export const channelsFirstAxis: readonly number[] = [0, 2, 3, 1];

/** Shape of an image tensor with the channels in axis 1. */
export function channelsFirstShape([batch, height, width, channels]: readonly number[]): readonly number[] {
  return [batch!, channels!, height!, width!];
}
