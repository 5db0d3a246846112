/** Matrix products: dense layers forward and backward, and batched products. */
import { tf } from '../../backend.ts';
import { microsoftDomain, sizeOf, type Value } from '../graph.ts';
import type { SymbolicTensor } from '../symbolic-tensor.ts';
import { applyActivation, elementwise } from './elementwise.ts';
import type { KernelCall, KernelTable } from './kernel.ts';

/** op(a) op(b) (+ bias [columns]), where op may transpose the last two axes. */
function product(call: KernelCall, bias?: SymbolicTensor): SymbolicTensor {
  const { graph } = call;
  const transposeA = call.attribute<boolean>('transposeA');
  const transposeB = call.attribute<boolean>('transposeB');
  let [a, b] = [call.input('a').logical(), call.input('b').logical()];
  const lead = tf.backend_util.assertAndGetBroadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const [rows, columns] = [a.shape.at(transposeA ? -1 : -2)!, b.shape.at(transposeB ? -2 : -1)!];
  const shape = [...lead, rows, columns];
  if (sizeOf(lead) === 1) {
    // One product: Gemm takes the transposes and the bias with it.
    [a, b] = [graph.reshape(a, a.shape.slice(-2)), graph.reshape(b, b.shape.slice(-2))];
    const fusedBias = bias?.shape.length === 1 ? [bias.logical()] : [];
    const attributes = { ...(transposeA ? { transA: 1 } : {}), ...(transposeB ? { transB: 1 } : {}) };
    const gemm = call.result(graph.reshape(graph.node('Gemm', [a, b, ...fusedBias], [rows, columns], { attributes }), shape));
    return bias === undefined || fusedBias.length === 1 ? gemm : elementwise(call, 'Add', [gemm, bias], shape, 'float32');
  }
  const result = call.result(batchedProduct(call, a, b, transposeA, transposeB, shape));
  return bias === undefined ? result : elementwise(call, 'Add', [result, bias], shape, 'float32');
}

function batchedProduct({ graph }: KernelCall, a: Value, b: Value, transposeA: boolean, transposeB: boolean, shape: readonly number[]): Value {
  if (!transposeA && !transposeB) return graph.node('MatMul', [a, b], shape);
  return graph.node('FusedMatMul', [a, b], shape, { domain: microsoftDomain, attributes: { transA: Number(transposeA), transB: Number(transposeB) } });
}

function fusedProduct(call: KernelCall): SymbolicTensor {
  if (call.optionalInput('preluActivationWeights') !== undefined) throw call.unsupported('the fused activation prelu');
  return applyActivation(call, product(call, call.optionalInput('bias')));
}

export const matmulKernels: KernelTable = {
  BatchMatMul: (call) => product(call),
  _FusedMatMul: fusedProduct,
};
