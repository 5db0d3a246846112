/** The summands of a training's loss for eager training: batches with a loss of logits. */
import type { Scalar, Tensor2D } from '@tensorflow/tfjs';
import { tf } from './backend.ts';
import { gatherExamples, gatherRows, oneHotRows, rowWeights, Shuffler } from './batches.ts';
import type { DistillationLoss, FitOptions, TrainingData } from './engine.ts';
import { crossEntropy, softTargets } from './losses.ts';

export interface Batch {
  readonly rows: number;
  /** rows examples, one after the other */
  readonly examples: Float32Array;
  /** The mean over the rows of each one's loss times its weight, but for `constant`. */
  readonly loss: (logits: Tensor2D) => Scalar;
  /** The part of the loss that does not depend on the model. */
  readonly constant: number;
}

/** The batch of the examples at these positions. */
export type BatchOf = (positions: Uint32Array) => Batch;

/** A summand of the loss with its batches. */
export interface LossTerm {
  /** Factor of this summand in the loss. */
  readonly weight: number;
  next(batchSize: number): Batch;
}

/** The first term decides how long a pass is. */
export function lossTerms({ hard, soft }: TrainingData, { loss, seed }: FitOptions, numClasses: number): LossTerm[] {
  const terms: LossTerm[] = [];
  const softWeight = hard === undefined ? 1 : 1 - loss.alpha;
  const hardWeight = soft === undefined ? 1 : loss.alpha;
  if (soft !== undefined) {
    const batchOf = softBatches(soft, loss, numClasses);
    const shuffler = new Shuffler(soft.examples.count, seed, 'soft');
    terms.push({ weight: softWeight, next: (batchSize) => batchOf(shuffler.withinPass(batchSize)) });
  }
  // A summand with weight 0 would cost a forward and a backward pass for nothing.
  if (hard !== undefined && hardWeight > 0) {
    const batchOf = hardBatches(hard, numClasses);
    const shuffler = new Shuffler(hard.examples.count, seed, 'hard');
    terms.push({ weight: hardWeight, next: (batchSize) => batchOf(soft === undefined ? shuffler.withinPass(batchSize) : shuffler.acrossPasses(batchSize)) });
  }
  return terms;
}

export function softBatches({ examples, targets: given, targetKind, weights }: NonNullable<TrainingData['soft']>, loss: DistillationLoss, numClasses: number): BatchOf {
  const targets = softTargets(given, targetKind, loss);
  return (positions) => {
    const rows = positions.length;
    const target = tf.tensor2d(gatherRows(targets.matrix, positions), [rows, numClasses]);
    const factors = rowWeights(weights, positions);
    let constant = 0;
    positions.forEach((position, row) => (constant += (factors[row]! * targets.constants[position]!) / rows));
    return { rows, examples: gatherExamples(examples, positions), loss: (logits) => targets.distance(logits, target, tf.tensor2d(factors, [rows, 1])), constant };
  };
}

export function hardBatches({ examples, labels, weights }: NonNullable<TrainingData['hard']>, numClasses: number): BatchOf {
  return (positions) => {
    const rows = positions.length;
    const target = tf.tensor2d(oneHotRows(labels, positions, numClasses), [rows, numClasses]);
    const factors = rowWeights(weights, positions);
    return { rows, examples: gatherExamples(examples, positions), loss: (logits) => crossEntropy(logits, target, tf.tensor2d(factors, [rows, 1])), constant: 0 };
  };
}
