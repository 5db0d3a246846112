/** The summands of a training's loss as a graph takes them: targets that carry the weights of their rows. */
import type { Examples } from '../../types/matrix.ts';
import { Shuffler } from '../batches.ts';
import type { DistillationLoss, FitOptions, TrainingData } from '../engine.ts';
import { softTargets } from '../losses.ts';
import type { LossTermPlan } from './compile.ts';

/** Examples with what the loss needs of each. */
export interface TermData {
  readonly plan: LossTermPlan;
  readonly examples: Examples;
  /** Factor of an example's loss that the caller gave. */
  readonly weightOf: (position: number) => number;
  /** Writes the target of an example, times `weight`. */
  readonly writeTarget: (target: Float32Array, position: number, weight: number) => void;
  /** The part of the loss of an example that does not depend on the model. */
  readonly constant: (position: number) => number;
}

/** A summand of the loss with its batches. */
export interface LossTerm {
  readonly data: TermData;
  /** Positions of the next batch: at most `size` of them. */
  readonly next: (size: number) => Uint32Array;
  /** Factor of this summand in the loss. */
  readonly weight: number;
}

/** What a fit needs before its graph exists. The first term decides how long a pass is. */
export function lossTerms({ hard, soft }: TrainingData, { loss, seed }: FitOptions): readonly LossTerm[] {
  const terms: LossTerm[] = [];
  const hardWeight = soft === undefined ? 1 : loss.alpha;
  if (soft !== undefined) {
    const shuffler = new Shuffler(soft.examples.count, seed, 'soft');
    terms.push({ data: softTerm(soft, loss), next: (size) => shuffler.withinPass(size), weight: hard === undefined ? 1 : 1 - loss.alpha });
  }
  // A summand with weight 0 would cost a forward and a backward pass for nothing.
  if (hard !== undefined && hardWeight > 0) {
    const shuffler = new Shuffler(hard.examples.count, seed, 'hard');
    terms.push({ data: hardTerm(hard), next: (size) => (soft === undefined ? shuffler.withinPass(size) : shuffler.acrossPasses(size)), weight: hardWeight });
  }
  return terms;
}

export function softTerm({ examples, targets: given, targetKind, weights }: NonNullable<TrainingData['soft']>, loss: DistillationLoss): TermData {
  const targets = softTargets(given, targetKind, loss);
  const { columns, values } = targets.matrix;
  const isKl = loss.distance === 'kl';
  return {
    plan: isKl ? { kind: 'crossEntropy', temperature: loss.temperature } : { kind: 'absoluteError' },
    examples,
    weightOf: (position) => weights?.[position] ?? 1,
    writeTarget(target, position, weight) {
      const scale = isKl ? weight * loss.temperature ** 2 : 1;
      for (let c = 0; c < columns; c++) target[c] = scale * values[position * columns + c]!;
    },
    constant: (position) => targets.constants[position]!,
  };
}

export function hardTerm({ examples, labels, weights }: NonNullable<TrainingData['hard']>): TermData {
  return {
    plan: { kind: 'crossEntropy', temperature: 1 },
    examples,
    weightOf: (position) => weights?.[position] ?? 1,
    writeTarget(target, position, weight) {
      target.fill(0);
      target[labels[position]!] = weight;
    },
    constant: () => 0,
  };
}
