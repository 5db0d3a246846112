/** What convolutions and pools share: TF.js's paddings and strides as ONNX attributes. */
import { tf } from '../../backend.ts';
import type { Attribute, Graph, Value } from '../graph.ts';
import type { KernelCall } from './kernel.ts';

/** Everything that TF.js works out about one convolution or pool over [batch, height, width, channels]. */
export type WindowInfo = ReturnType<typeof tf.backend_util.computeConv2DInfo>;

type Shape4 = [number, number, number, number];
type Pair = number | [number, number];

export function convolutionInfo(call: KernelCall, xShape: readonly number[], filterShape: readonly number[], depthwise: boolean): WindowInfo {
  const format = call.attribute<'NHWC' | 'NCHW' | undefined>('dataFormat') ?? 'NHWC';
  if (format !== 'NHWC') throw call.unsupported(`the data format ${format}`);
  const [strides, dilations, pad] = [call.attribute<Pair>('strides'), call.attribute<Pair | undefined>('dilations') ?? 1, call.attribute<'valid' | 'same' | number>('pad')];
  return tf.backend_util.computeConv2DInfo([...xShape] as Shape4, [...filterShape] as Shape4, strides, dilations, pad, call.attribute<'floor' | undefined>('dimRoundingMode'), depthwise);
}

export function poolInfo(call: KernelCall, xShape: readonly number[]): WindowInfo {
  const [size, strides, pad] = [call.attribute<Pair>('filterSize'), call.attribute<Pair>('strides'), call.attribute<'valid' | 'same' | number>('pad')];
  return tf.backend_util.computePool2DInfo([...xShape] as Shape4, size, strides, 1, pad, call.attribute<'floor' | undefined>('dimRoundingMode'));
}

/** Before and after, rows then columns, as ONNX orders them. */
export function pads({ padInfo }: WindowInfo): readonly number[] {
  return [padInfo.top, padInfo.left, padInfo.bottom, padInfo.right];
}

/** The window of a forward convolution or pool. */
export function windowAttributes(info: WindowInfo): Readonly<Record<string, Attribute>> {
  return { kernel_shape: [info.filterHeight, info.filterWidth], strides: [info.strideHeight, info.strideWidth], pads: pads(info) };
}

/** Rows and columns at the end of the padded input that no window reaches; they get no gradient. */
export function unreached(info: WindowInfo): readonly [number, number] {
  const { padInfo } = info;
  return [
    info.inHeight + padInfo.top + padInfo.bottom - ((info.outHeight - 1) * info.strideHeight + info.effectiveFilterHeight),
    info.inWidth + padInfo.left + padInfo.right - ((info.outWidth - 1) * info.strideWidth + info.effectiveFilterWidth),
  ];
}

/** The input of a window operation, without the rows and columns that no window reaches, and the pads that are then left. */
export function reachedPart(graph: Graph, x: Value, info: WindowInfo): { readonly value: Value; readonly pads: readonly number[] } {
  const [top, left, bottom, right] = pads(info) as Shape4;
  const [rows, columns] = unreached(info);
  // What is not reached is padding first, and then input.
  const [cropRows, cropColumns] = [Math.max(rows - bottom, 0), Math.max(columns - right, 0)];
  const remaining = [top, left, Math.max(bottom - rows, 0), Math.max(right - columns, 0)];
  if (cropRows === 0 && cropColumns === 0) return { value: x, pads: remaining };
  const [first, second, height, width] = x.shape as Shape4;
  const shape = [first, second, height - cropRows, width - cropColumns];
  const value = graph.node('Slice', [x, graph.integers([0, 0]), graph.integers(shape.slice(2)), graph.integers([2, 3])], shape);
  return { value, pads: remaining };
}

/** Whether the windows lie side by side and start at the first element: nothing is in two of them. */
export function tilesInput({ filterHeight, filterWidth, strideHeight, strideWidth, padInfo }: WindowInfo): boolean {
  return filterHeight === strideHeight && filterWidth === strideWidth && padInfo.top === 0 && padInfo.left === 0 && padInfo.bottom === 0 && padInfo.right === 0;
}
