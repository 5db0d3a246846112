/** How unevenly a classifier serves its classes: an accuracy can be high while one class is lost. */
import { argmax, checkLabels } from '../distillation/evaluation.ts';
import type { Matrix } from '../types/matrix.ts';
import { wilsonInterval } from './calibration.ts';

export interface ClassQuality {
  /** Examples with this label. */
  readonly support: number;
  /** Share of them that were recognised; null without any, as is its Wilson 95 % interval. */
  readonly recall: number | null;
  readonly interval: readonly [low: number, high: number] | null;
  /** Examples that were taken for this class. */
  readonly predicted: number;
  /** Share of those that are of it; null without any. */
  readonly precision: number | null;
}

export interface RecallGap {
  readonly best: number;
  readonly worst: number;
  /** Recall of `best` less that of `worst`, in [0, 1]. */
  readonly gap: number;
}

/** One entry a class, in the order of the classes. `predictions`: logits or probabilities [examples x classes]. */
export function perClass(predictions: Matrix, labels: Int32Array): ClassQuality[] {
  checkLabels(predictions, labels);
  const { columns } = predictions;
  const support = new Int32Array(columns);
  const predicted = new Int32Array(columns);
  const right = new Int32Array(columns);
  argmax(predictions).forEach((guess, row) => {
    const label = labels[row]!;
    support[label]!++;
    predicted[guess]!++;
    if (guess === label) right[label]!++;
  });
  return Array.from(support, (count, c) => ({
    support: count,
    recall: count === 0 ? null : right[c]! / count,
    interval: count === 0 ? null : wilsonInterval(right[c]!, count),
    predicted: predicted[c]!,
    precision: predicted[c] === 0 ? null : right[c]! / predicted[c]!,
  }));
}

/** Between the class that is recognised best and the one that is recognised worst; null unless two classes have examples. */
export function recallGap(classes: readonly ClassQuality[]): RecallGap | null {
  const known = classes.flatMap(({ recall }, c) => (recall === null ? [] : [{ c, recall }]));
  if (known.length < 2) return null;
  const best = known.reduce((a, b) => (b.recall > a.recall ? b : a));
  const worst = known.reduce((a, b) => (b.recall < a.recall ? b : a));
  return { best: best.c, worst: worst.c, gap: best.recall - worst.recall };
}

/** The class whose recall differs most from a reference (a teacher), with the difference `recall - reference`; null where no class has examples. */
export function largestChange(classes: readonly ClassQuality[], reference: readonly ClassQuality[]): { readonly class: number; readonly change: number } | null {
  const changes = classes.flatMap(({ recall }, c) => {
    const before = reference[c]?.recall ?? null;
    return recall === null || before === null ? [] : [{ class: c, change: recall - before }];
  });
  return changes.length === 0 ? null : changes.reduce((a, b) => (Math.abs(b.change) > Math.abs(a.change) ? b : a));
}
