/** Batch normalization with given moments: what a model does in prediction. In training it changes its weights, which a graph does not. */
import type { SymbolicTensor } from '../symbolic-tensor.ts';
import { elementwise } from './elementwise.ts';
import type { KernelCall, KernelTable } from './kernel.ts';

/** (x - mean) / sqrt(variance + epsilon) * scale + offset, the moments as [channels]. */
function fusedBatchNorm(call: KernelCall): SymbolicTensor {
  const [x, mean, variance] = [call.input('x'), call.input('mean'), call.input('variance')];
  const [scale, offset] = [call.optionalInput('scale'), call.optionalInput('offset')];
  const binary = (operator: string, a: SymbolicTensor, b: SymbolicTensor) => elementwise(call, operator, [a, b], a.shape, 'float32');
  const deviation = elementwise(call, 'Sqrt', [binary('Add', variance, call.filled([], 'float32', call.attribute<number>('varianceEpsilon')))], variance.shape, 'float32');
  const centered = binary('Sub', x, mean);
  const normalized = binary('Div', centered, deviation);
  const scaled = scale === undefined ? normalized : binary('Mul', normalized, scale);
  return offset === undefined ? scaled : binary('Add', scaled, offset);
}

export const normalizationKernels: KernelTable = {
  FusedBatchNorm: fusedBatchNorm,
};
