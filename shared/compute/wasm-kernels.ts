/**
 * Kernels that TF.js 4.22.0's wasm back end lacks, has only as slow loops, or has with another result than the other
 * back ends, put together from its fast ones (XNNPACK's matrix product and convolution). Without them a CNN cannot be
 * trained on wasm at all and an MLP takes five times as long. `test/shared/compute/wasm-kernels.test.ts` compares each
 * with the plain JavaScript back end.
 *
 * Still missing on wasm, so such a model needs another engine: the gradients of depthwise and separable convolutions,
 * of 3D convolutions with dilation, and everything with complex numbers.
 */
import * as tf from '@tensorflow/tfjs';

/** What the kernels here need of `BackendWasm`. */
interface Backend {
  disposeData(dataId: object): unknown;
  makeOutput(shape: number[], dtype: 'float32'): tf.TensorInfo;
  /** A view of the wasm heap, which the next allocation may invalidate. */
  typedArrayFromHeap(tensor: tf.TensorInfo): Float32Array;
}

interface KernelCall {
  readonly inputs: Record<string, tf.TensorInfo>;
  readonly attrs: Record<string, unknown>;
  readonly backend: Backend;
}

type Kernel = (call: KernelCall) => tf.TensorInfo;
type Shape4D = [number, number, number, number];

let installed = false;

/** Replaces the kernels of the registered `wasm` back end; a second call does nothing. */
export function installWasmKernels(): void {
  if (installed) return;
  installed = true;
  const transpose = kernel('Transpose');
  const conv2d = kernel('Conv2D');
  replace('BatchMatMul', batchMatMul(kernel('BatchMatMul'), transpose));
  replace('Conv2DBackpropFilter', conv2dBackpropFilter(conv2d, transpose, kernel('Slice')));
  replace('MaxPoolGrad', maxPoolGrad);
  replace('Conv2DBackpropInput', conv2dBackpropInput(conv2d, transpose, kernel('Reverse'), kernel('Conv2DBackpropInput')));
}

/**
 * XNNPACK multiplies only operands that are not transposed; for the others the back end has a naive loop. Transposing
 * first costs far less than that loop.
 */
function batchMatMul(multiply: Kernel, transpose: Kernel): Kernel {
  return ({ inputs, attrs, backend }) => {
    const scratch = new Scratch(backend);
    const flip = (x: tf.TensorInfo) => scratch.add(transpose({ inputs: { x }, attrs: { perm: swapLastAxes(x.shape.length) }, backend }));
    const a = attrs['transposeA'] === true ? flip(inputs['a']!) : inputs['a']!;
    const b = attrs['transposeB'] === true ? flip(inputs['b']!) : inputs['b']!;
    const product = multiply({ inputs: { a, b }, attrs: { transposeA: false, transposeB: false }, backend });
    scratch.free();
    return product;
  };
}

function swapLastAxes(rank: number): number[] {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  [axes[rank - 2], axes[rank - 1]] = [rank - 1, rank - 2];
  return axes;
}

/**
 * The gradient of a convolution with respect to its filter, itself a convolution: of x, with batch and channels
 * swapped, by dy as the filter, dilated by the forward stride.
 * x [N, H, W, Ci], dy [N, Ho, Wo, Co] to [kh, kw, Ci, Co].
 */
function conv2dBackpropFilter(conv2d: Kernel, transpose: Kernel, slice: Kernel): Kernel {
  return ({ inputs, attrs, backend }) => {
    const { x, dy } = inputs as { x: tf.TensorInfo; dy: tf.TensorInfo };
    const { strides, pad, filterShape, dimRoundingMode } = convolutionAttributes(attrs);
    const info = tf.backend_util.computeConv2DInfo(x.shape as Shape4D, filterShape, strides, 1, pad, dimRoundingMode);
    const { top, bottom, left, right } = info.padInfo;
    const scratch = new Scratch(backend);
    const image = scratch.add(transpose({ inputs: { x }, attrs: { perm: [3, 1, 2, 0] }, backend }));
    const filter = scratch.add(transpose({ inputs: { x: dy }, attrs: { perm: [1, 2, 0, 3] }, backend }));
    const padding = [[0, 0], [top, bottom], [left, right], [0, 0]];
    let gradient = conv2d({
      inputs: { x: image, filter },
      attrs: { strides: [1, 1], dilations: [info.strideHeight, info.strideWidth], pad: padding, dataFormat: 'NHWC' },
      backend,
    });
    scratch.add(gradient);
    // When the stride leaves rows of x unused at the end, the result has as many rows too many.
    const [channels, height, width, filters] = gradient.shape as Shape4D;
    if (height > info.filterHeight || width > info.filterWidth) {
      gradient = slice({ inputs: { x: gradient }, attrs: { begin: [0, 0, 0, 0], size: [channels, info.filterHeight, info.filterWidth, filters] }, backend });
      scratch.add(gradient);
    }
    const result = transpose({ inputs: { x: gradient }, attrs: { perm: [1, 2, 0, 3] }, backend });
    scratch.free();
    return result;
  };
}

/**
 * The gradient of a convolution with respect to its input. With stride 1 it is a convolution of dy by the filter,
 * turned by 180 degrees and with its channels swapped; other strides keep the back end's own loop.
 */
function conv2dBackpropInput(conv2d: Kernel, transpose: Kernel, reverse: Kernel, original: Kernel): Kernel {
  return (call) => {
    const { inputs, attrs, backend } = call;
    const { dy, filter } = inputs as { dy: tf.TensorInfo; filter: tf.TensorInfo };
    const { strides, pad, dimRoundingMode, dataFormat } = convolutionAttributes(attrs);
    const inputShape = attrs['inputShape'] as Shape4D;
    if (dataFormat !== 'NHWC') return original(call);
    const info = tf.backend_util.computeConv2DInfo(inputShape, filter.shape as Shape4D, strides, 1, pad, dimRoundingMode);
    const { top, bottom, left, right } = info.padInfo;
    const padding = [[0, 0], [info.filterHeight - 1 - top, info.filterHeight - 1 - bottom], [info.filterWidth - 1 - left, info.filterWidth - 1 - right], [0, 0]];
    const padsMoreThanFilter = padding.some(([before, after]) => before! < 0 || after! < 0);
    if (info.strideHeight !== 1 || info.strideWidth !== 1 || padsMoreThanFilter) return original(call);
    const scratch = new Scratch(backend);
    const turned = scratch.add(reverse({ inputs: { x: filter }, attrs: { dims: [0, 1] }, backend }));
    const swapped = scratch.add(transpose({ inputs: { x: turned }, attrs: { perm: [0, 1, 3, 2] }, backend }));
    const gradient = conv2d({ inputs: { x: dy, filter: swapped }, attrs: { strides: [1, 1], dilations: [1, 1], pad: padding, dataFormat: 'NHWC' }, backend });
    scratch.free();
    return gradient;
  };
}

/**
 * The gradient of max pooling: all of dy goes to the first largest value of its window, in row-major order, as in the
 * plain JavaScript back end. The wasm back end's own kernel gives other gradients for ties, which are common (blank
 * background), and for windows without a positive value; this loop is also faster.
 */
const maxPoolGrad: Kernel = ({ inputs, attrs, backend }) => {
  const { input, dy } = inputs as { input: tf.TensorInfo; dy: tf.TensorInfo };
  const { filterSize, strides, pad, dimRoundingMode } = attrs as unknown as PoolAttributes;
  const info = tf.backend_util.computePool2DInfo(input.shape as Shape4D, filterSize, strides, 1, pad, dimRoundingMode);
  const { inHeight, inWidth, inChannels, outHeight, outWidth, filterHeight, filterWidth, strideHeight, strideWidth } = info;
  const result = backend.makeOutput(input.shape, 'float32');
  const [x, outputGradient, gradient] = [input, dy, result].map((tensor) => backend.typedArrayFromHeap(tensor)) as [Float32Array, Float32Array, Float32Array];
  gradient.fill(0);
  for (let batch = 0, window = 0; batch < info.batchSize; batch++) {
    const image = batch * inHeight * inWidth * inChannels;
    for (let outRow = 0; outRow < outHeight; outRow++) {
      const top = outRow * strideHeight - info.padInfo.top;
      const [firstRow, endRow] = [Math.max(top, 0), Math.min(top + filterHeight, inHeight)];
      for (let outColumn = 0; outColumn < outWidth; outColumn++) {
        const left = outColumn * strideWidth - info.padInfo.left;
        const [firstColumn, endColumn] = [Math.max(left, 0), Math.min(left + filterWidth, inWidth)];
        for (let channel = 0; channel < inChannels; channel++, window++) {
          let largest = -Infinity;
          let position = -1;
          for (let row = firstRow; row < endRow; row++) {
            for (let column = firstColumn; column < endColumn; column++) {
              const at = image + (row * inWidth + column) * inChannels + channel;
              if (x[at]! > largest) {
                largest = x[at]!;
                position = at;
              }
            }
          }
          if (position >= 0) gradient[position]! += outputGradient[window]!;
        }
      }
    }
  }
  return result;
};

interface PoolAttributes {
  readonly filterSize: number | [number, number];
  readonly strides: number | [number, number];
  readonly pad: Parameters<typeof tf.backend_util.computePool2DInfo>[4];
  readonly dimRoundingMode: 'floor' | 'round' | 'ceil';
}

interface ConvolutionAttributes {
  readonly strides: number | [number, number];
  readonly pad: Parameters<typeof tf.backend_util.computeConv2DInfo>[4];
  readonly filterShape: Shape4D;
  readonly dataFormat: string | undefined;
  readonly dimRoundingMode: 'floor' | 'round' | 'ceil';
}

function convolutionAttributes(attrs: Record<string, unknown>): ConvolutionAttributes {
  return attrs as unknown as ConvolutionAttributes;
}

/** Intermediate results, freed together. */
class Scratch {
  readonly #backend: Backend;
  readonly #tensors: tf.TensorInfo[] = [];

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  add(tensor: tf.TensorInfo): tf.TensorInfo {
    this.#tensors.push(tensor);
    return tensor;
  }

  free(): void {
    for (const tensor of this.#tensors) this.#backend.disposeData(tensor.dataId);
  }
}

function kernel(name: string): Kernel {
  const found = tf.getKernel(name, 'wasm');
  return found?.kernelFunc as unknown as Kernel;
}

function replace(name: string, kernelFunc: Kernel): void {
  const config = tf.getKernel(name, 'wasm') as tf.KernelConfig | undefined;
  if (config !== undefined) tf.unregisterKernel(name, 'wasm');
  // Keeping the old setupFunc matters: it binds the wasm function that a wrapped kernel calls.
  tf.registerKernel({ ...config, kernelName: name, backendName: 'wasm', kernelFunc: kernelFunc as unknown as tf.KernelFunc });
}
