/**
 * The losses of `engine.ts` in TF.js operations, so that TF.js derives their gradients (and a tracing back end can
 * record them). All are means over the rows of a batch, each row's loss times its weight.
 */
import type { Scalar, Tensor2D } from '@tensorflow/tfjs';
import { softmax } from '../distillation/temperature.ts';
import type { Matrix, OutputKind } from '../types/matrix.ts';
import { tf } from './backend.ts';
import type { DistillationLoss } from './engine.ts';

/** Cross-entropy of softmax(logits) against target rows that sum to 1 (one-hot for hard labels), in nats. */
export function crossEntropy(logits: Tensor2D, targets: Tensor2D, /** [rows x 1] */ weights: Tensor2D): Scalar {
  return tf.neg(tf.mean(tf.sum(tf.mul(tf.mul(targets, weights), tf.logSoftmax(logits)), -1)));
}

/**
 * What a student's logits are compared with, and how. The part of the loss that does not depend on the student is
 * kept apart (`constants`): it has no gradient.
 */
export interface SoftTargets {
  /** Probabilities at the loss's temperature for `kl`, logits for `logitMae`. */
  readonly matrix: Matrix;
  /** Per row, what to add to `distance`: for `kl` T^2 * sum_c q_c ln q_c, else 0. */
  readonly constants: Float64Array;
  /** The rest of the loss of one batch; `weights`: [rows x 1]. */
  readonly distance: (studentLogits: Tensor2D, targets: Tensor2D, weights: Tensor2D) => Scalar;
}

/** Brings targets into the form in which a step uses them. The targets must have been checked. */
export function softTargets(targets: Matrix, kind: OutputKind, { distance, temperature }: DistillationLoss): SoftTargets {
  const constants = new Float64Array(targets.rows);
  if (distance === 'logitMae') {
    return { matrix: targets, constants, distance: (logits, target, weights) => tf.mean(tf.mul(tf.abs(tf.sub(logits, target)), weights)) };
  }
  const matrix = kind === 'logits' ? softmax(targets, temperature) : targets;
  const scale = temperature * temperature;
  for (let row = 0; row < matrix.rows; row++) {
    for (let c = 0; c < matrix.columns; c++) {
      const q = matrix.values[row * matrix.columns + c]!;
      // 0 ln 0 = 0, the limit.
      if (q > 0) constants[row]! += scale * q * Math.log(q);
    }
  }
  // KL(q || p) = sum q ln q - sum q ln p; the second half is a cross-entropy at temperature T.
  return { matrix, constants, distance: (logits, target, weights) => tf.mul(crossEntropy(tf.div(logits, temperature), target, weights), scale) };
}
