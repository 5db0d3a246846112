/** A model held against the test set of a scenario. */
import { calibrationError, confidences, equalWidthBins } from '../shared/evaluation/calibration.ts';
import { accuracy, negativeLogLikelihood } from '../shared/distillation/evaluation.ts';
import { softmax } from '../shared/distillation/temperature.ts';
import type { LabelledExamples, Matrix } from '../shared/types/matrix.ts';
import type { ModelQuality } from './outcome.ts';

/** `logits`: [examples x classes] of the test set. Without a test set every number is null: nothing was measured. */
export function qualityOf(logits: Matrix | undefined, testSet: LabelledExamples | undefined): ModelQuality {
  if (logits === undefined || testSet === undefined) return { accuracy: null, nll: null, calibrationError: null, reliability: [] };
  const { labels } = testSet;
  const bins = equalWidthBins(confidences(softmax(logits), labels));
  return {
    accuracy: accuracy(logits, labels),
    nll: negativeLogLikelihood(logits, 'logits', labels),
    calibrationError: calibrationError(bins),
    reliability: bins.map(({ low, high, count, meanConfidence, accuracy: share }) => ({ low, high, count, meanConfidence, accuracy: share })),
  };
}
