/**
 * Element by element: arithmetic with broadcasting, comparisons, activation functions and their gradients. A tensor that
 * exists with its channels in axis 1 stays so, and its partners are brought into that order: a bias is cheaper to
 * move than a feature map.
 */
import { tf } from '../../backend.ts';
import { equalShapes, type Graph, onnxTypeNumbers, type Value } from '../graph.ts';
import { channelsFirstShape, SymbolicTensor, type TensorType } from '../symbolic-tensor.ts';
import type { KernelCall, KernelTable, TraceKernel } from './kernel.ts';

interface Aligned {
  readonly layout: 'value' | 'channelsFirst';
  /** The operands in that layout, ready to broadcast against each other. */
  readonly operands: readonly Value[];
  /** The result's shape in that layout. */
  readonly shape: readonly number[];
}

/** Brings operands that broadcast to `shape` into one order of axes. */
function align(graph: Graph, inputs: readonly SymbolicTensor[], shape: readonly number[]): Aligned {
  const someChannelsFirst = shape.length === 4 && inputs.some((input) => input.isChannelsFirst);
  const allConvertible = inputs.every((input) => input.fill !== undefined || [0, 1, 4].includes(input.shape.length));
  const layout = someChannelsFirst && allConvertible ? 'channelsFirst' : 'value';
  // A tensor full of one number need not be written out when another operand has the result's shape.
  const hasFullOperand = inputs.some((input) => input.fill === undefined && equalShapes(input.shape, shape));
  const operands = inputs.map((input) => {
    if (input.fill !== undefined && (hasFullOperand || input.shape.length === 0)) return graph.scalar(input.fill, input.type);
    if (layout === 'value' || input.shape.length === 0) return input.logical();
    return input.shape.length === 4 ? input.channelsFirst() : graph.reshape(input.logical(), [input.shape[0]!, 1, 1]);
  });
  return { layout, operands, shape: layout === 'channelsFirst' ? channelsFirstShape(shape) : shape };
}

function wrap(call: KernelCall, layout: 'value' | 'channelsFirst', value: Value, shape: readonly number[]): SymbolicTensor {
  return layout === 'channelsFirst' ? call.channelsFirstResult(value, shape) : call.result(value, shape);
}

/** One ONNX operator over operands that broadcast. */
export function elementwise(call: KernelCall, operator: string, inputs: readonly SymbolicTensor[], shape: readonly number[], type: TensorType, attributes = {}): SymbolicTensor {
  const { layout, operands, shape: graphShape } = align(call.graph, inputs, shape);
  return wrap(call, layout, call.graph.node(operator, operands, graphShape, { type, attributes }), shape);
}

function broadcastShape(a: SymbolicTensor, b: SymbolicTensor): readonly number[] {
  return tf.backend_util.assertAndGetBroadcastShape([...a.shape], [...b.shape]);
}

// ---- binary

const foldBinary: Readonly<Record<string, (x: number, y: number) => number>> = {
  Add: (x, y) => x + y,
  Sub: (x, y) => x - y,
  Mul: (x, y) => x * y,
  Div: (x, y) => x / y,
};

/** An arithmetic operator; numbers known while tracing are computed at once, in float32. */
function arithmetic(operator: string, shortcut?: (call: KernelCall, a: SymbolicTensor, b: SymbolicTensor, shape: readonly number[]) => SymbolicTensor | undefined): TraceKernel {
  return (call) => {
    const [a, b] = [call.input('a'), call.input('b')];
    const shape = broadcastShape(a, b);
    const fold = foldBinary[operator];
    if (a.fill !== undefined && b.fill !== undefined && a.type === 'float32' && fold !== undefined) return call.filled(shape, 'float32', Math.fround(fold(a.fill, b.fill)));
    return shortcut?.(call, a, b, shape) ?? elementwise(call, operator, [a, b], shape, a.type);
  };
}

/** The other operand when one is the neutral element and the other has the result's shape. */
function neutral(a: SymbolicTensor, b: SymbolicTensor, shape: readonly number[], element: number): SymbolicTensor | undefined {
  if (a.fill === element && equalShapes(b.shape, shape)) return b;
  if (b.fill === element && equalShapes(a.shape, shape)) return a;
  return undefined;
}

function addShortcut(call: KernelCall, a: SymbolicTensor, b: SymbolicTensor, shape: readonly number[]): SymbolicTensor | undefined {
  return neutral(a, b, shape, 0) ?? addBias(call, a, b, shape) ?? addBias(call, b, a, shape);
}

/** Takes a bias into the product or convolution that it is added to. */
function addBias(call: KernelCall, sum: SymbolicTensor, bias: SymbolicTensor, shape: readonly number[]): SymbolicTensor | undefined {
  if (bias.shape.length !== 1 || bias.fill !== undefined || !equalShapes(sum.shape, shape)) return undefined;
  if (sum.source.kind !== 'value' && sum.source.kind !== 'channelsFirst') return undefined;
  const { value } = sum.source;
  // A convolution that was computed as a product has its image's shape only after it.
  const shaped = call.graph.producerOf(value);
  const product = shaped?.operator === 'Reshape' && shaped.inputs[0]!.shape.at(-1) === shape.at(-1) ? shaped.inputs[0]! : value;
  const producer = call.graph.producerOf(product);
  if (producer === undefined || producer.inputs.length !== 2) return undefined;
  const fusible = producer.operator === 'Gemm' ? sum.source.kind === 'value' : producer.operator === 'Conv' && sum.source.kind === 'channelsFirst';
  if (!fusible || bias.shape[0] !== shape.at(-1)) return undefined;
  const fused = call.graph.node(producer.operator, [...producer.inputs, bias.logical()], product.shape, { attributes: producer.attributes });
  return wrap(call, sum.source.kind, call.graph.reshape(fused, value.shape), shape);
}

function multiplyShortcut(call: KernelCall, a: SymbolicTensor, b: SymbolicTensor, shape: readonly number[]): SymbolicTensor | undefined {
  return neutral(a, b, shape, 1) ?? multiplyByReluMask(call, a, b) ?? multiplyByReluMask(call, b, a);
}

/** The gradient of a relu: if it comes out of the gradient of a max pool, that one can do both on the smaller feature map. */
function multiplyByReluMask(call: KernelCall, mask: SymbolicTensor, gradient: SymbolicTensor): SymbolicTensor | undefined {
  if (mask.source.kind !== 'reluMask' || !equalShapes(mask.shape, gradient.shape) || gradient.fill !== undefined) return undefined;
  const { relu } = mask.source;
  const { layout } = relu;
  const ofPool = gradient.withReluMask;
  if (ofPool !== undefined && ofPool.relu === relu.in(ofPool.layout)) return ofPool.gradient();
  const product = call.graph.node('Mul', [gradient.in(layout), mask.in(layout)], relu.in(layout).shape);
  return wrap(call, layout, product, gradient.shape);
}

function divideShortcut(_: KernelCall, a: SymbolicTensor, b: SymbolicTensor, shape: readonly number[]): SymbolicTensor | undefined {
  return b.fill === 1 && a.type === 'float32' && equalShapes(a.shape, shape) ? a : undefined;
}

function comparison(operator: string): TraceKernel {
  return (call) => elementwise(call, operator, [call.input('a'), call.input('b')], broadcastShape(call.input('a'), call.input('b')), 'bool');
}

function notEqual(call: KernelCall): SymbolicTensor {
  const equal = comparison('Equal')(call) as SymbolicTensor;
  return elementwise(call, 'Not', [equal], equal.shape, 'bool');
}

function squaredDifference(call: KernelCall): SymbolicTensor {
  const difference = arithmetic('Sub')(call) as SymbolicTensor;
  return elementwise(call, 'Mul', [difference, difference], difference.shape, difference.type);
}

// ---- unary

const foldUnary: Readonly<Record<string, (x: number) => number>> = { Neg: (x) => -x, Exp: Math.exp, Log: Math.log, Sqrt: Math.sqrt };

function unary(operator: string): TraceKernel {
  return (call) => {
    const x = call.input('x');
    const fold = foldUnary[operator];
    if (x.fill !== undefined && x.type === 'float32' && fold !== undefined) return call.filled(x.shape, 'float32', Math.fround(fold(x.fill)));
    return elementwise(call, operator, [x], x.shape, x.type);
  };
}

function square(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  return elementwise(call, 'Mul', [x, x], x.shape, x.type);
}

function reciprocalSquareRoot(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  return elementwise(call, 'Reciprocal', [elementwise(call, 'Sqrt', [x], x.shape, 'float32')], x.shape, 'float32');
}

/** Results of relus by what they were taken of: the gradient of a relu asks for the sign of its input. */
const reluOf = new WeakMap<Value, SymbolicTensor>();

function relu(call: KernelCall, x: SymbolicTensor): SymbolicTensor {
  const result = elementwise(call, 'Relu', [x], x.shape, 'float32');
  reluOf.set(x.in(x.layout), result);
  return result;
}

/** 1 above 0, else `alpha`. Above 0 is where a relu of the same tensor is not 0, if there is one. */
function step(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  const alpha = call.attribute<number | undefined>('alpha') ?? 0;
  const relued = alpha === 0 && x.fill === undefined ? reluOf.get(x.in(x.layout)) : undefined;
  if (relued !== undefined) return new SymbolicTensor(call.graph, x.shape, 'float32', { kind: 'reluMask', relu: relued });
  const positive = elementwise(call, 'Greater', [x, call.filled([], 'float32', 0)], x.shape, 'bool');
  const mask = elementwise(call, 'Cast', [positive], x.shape, 'float32', castTo('float32'));
  if (alpha === 0) return mask;
  const scaled = elementwise(call, 'Mul', [mask, call.filled([], 'float32', 1 - alpha)], x.shape, 'float32');
  return elementwise(call, 'Add', [scaled, call.filled([], 'float32', alpha)], x.shape, 'float32');
}

function clip(call: KernelCall, x: SymbolicTensor, least: number, greatest: number): SymbolicTensor {
  const lowest = elementwise(call, 'Max', [x, call.filled([], 'float32', least)], x.shape, 'float32');
  return elementwise(call, 'Min', [lowest, call.filled([], 'float32', greatest)], x.shape, 'float32');
}

/** x below 0 times alpha, which may be a tensor that broadcasts. */
function leaky(call: KernelCall, x: SymbolicTensor, alpha: SymbolicTensor): SymbolicTensor {
  const zero = call.filled([], 'float32', 0);
  const positive = elementwise(call, 'Max', [x, zero], x.shape, 'float32');
  const negative = elementwise(call, 'Min', [x, zero], x.shape, 'float32');
  return elementwise(call, 'Add', [positive, elementwise(call, 'Mul', [negative, alpha], x.shape, 'float32')], x.shape, 'float32');
}

/** dy where y is not negative, else dy * (y + 1): the gradient of elu from its result. */
function eluGradient(call: KernelCall): SymbolicTensor {
  const [dy, y] = [call.input('dy'), call.input('y')];
  const slope = elementwise(call, 'Add', [y, call.filled([], 'float32', 1)], y.shape, 'float32');
  const factor = elementwise(call, 'Min', [slope, call.filled([], 'float32', 1)], y.shape, 'float32');
  return elementwise(call, 'Mul', [dy, factor], y.shape, 'float32');
}

function select(call: KernelCall): SymbolicTensor {
  const [condition, t, e] = [call.input('condition'), call.input('t'), call.input('e')];
  if (condition.shape.length !== t.shape.length && condition.shape.length !== 0) throw call.unsupported('a condition of another rank than the values');
  return elementwise(call, 'Where', [condition, t, e], t.shape, t.type);
}

function cast(call: KernelCall): SymbolicTensor {
  const x = call.input('x');
  const type = call.attribute<string>('dtype');
  if (type !== 'float32' && type !== 'int32' && type !== 'bool') throw call.unsupported(`a cast to ${type}`);
  if (type === x.type) return x;
  if (x.fill !== undefined) return call.filled(x.shape, type, type === 'bool' ? Number(x.fill !== 0) : type === 'int32' ? Math.trunc(x.fill) : x.fill);
  return elementwise(call, 'Cast', [x], x.shape, type, castTo(type));
}

function castTo(type: TensorType): Readonly<Record<string, number>> {
  return { to: onnxTypeNumbers[type] };
}

function addAll(call: KernelCall): SymbolicTensor {
  return call.inputs.reduce((sum, input) => elementwise(call, 'Add', [sum, input], sum.shape, sum.type));
}

/** The activation that TF.js fuses into a product or a convolution. */
export function applyActivation(call: KernelCall, x: SymbolicTensor): SymbolicTensor {
  const name = call.attribute<string | null | undefined>('activation') ?? 'linear';
  switch (name) {
    case 'linear':
      return x;
    case 'relu':
      return relu(call, x);
    case 'relu6':
      return clip(call, x, 0, 6);
    case 'sigmoid':
      return elementwise(call, 'Sigmoid', [x], x.shape, 'float32');
    case 'elu':
      return elementwise(call, 'Elu', [x], x.shape, 'float32');
    case 'leakyrelu':
      return leaky(call, x, call.filled([], 'float32', call.attribute<number>('leakyreluAlpha')));
    default:
      throw call.unsupported(`the fused activation ${name}`);
  }
}

export const elementwiseKernels: KernelTable = {
  Add: arithmetic('Add', addShortcut),
  AddN: addAll,
  Sub: arithmetic('Sub'),
  Multiply: arithmetic('Mul', multiplyShortcut),
  RealDiv: arithmetic('Div', divideShortcut),
  Maximum: arithmetic('Max'),
  Minimum: arithmetic('Min'),
  Pow: arithmetic('Pow'),
  SquaredDifference: squaredDifference,
  Equal: comparison('Equal'),
  NotEqual: notEqual,
  Greater: comparison('Greater'),
  GreaterEqual: comparison('GreaterOrEqual'),
  Less: comparison('Less'),
  LessEqual: comparison('LessOrEqual'),
  LogicalAnd: comparison('And'),
  LogicalOr: comparison('Or'),
  LogicalNot: unary('Not'),
  Abs: unary('Abs'),
  Ceil: unary('Ceil'),
  Cos: unary('Cos'),
  Erf: unary('Erf'),
  Exp: unary('Exp'),
  Floor: unary('Floor'),
  Log: unary('Log'),
  Neg: unary('Neg'),
  Reciprocal: unary('Reciprocal'),
  Round: unary('Round'),
  Sigmoid: unary('Sigmoid'),
  Sin: unary('Sin'),
  Softplus: unary('Softplus'),
  Sqrt: unary('Sqrt'),
  Tanh: unary('Tanh'),
  Rsqrt: reciprocalSquareRoot,
  Square: square,
  Relu: (call) => relu(call, call.input('x')),
  Relu6: (call) => clip(call, call.input('x'), 0, 6),
  LeakyRelu: (call) => leaky(call, call.input('x'), call.filled([], 'float32', call.attribute<number>('alpha'))),
  Prelu: (call) => leaky(call, call.input('x'), call.input('alpha')),
  Elu: unary('Elu'),
  EluGrad: eluGradient,
  // The constants of Klambauer et al. 2017 are the operator's defaults.
  Selu: unary('Selu'),
  Step: step,
  ClipByValue: (call) => clip(call, call.input('x'), call.attribute<number>('clipValueMin'), call.attribute<number>('clipValueMax')),
  Select: select,
  Cast: cast,
};
