/**
 * How good predictions are: accuracy, likelihood, calibration. Public or held-out labels only; a client's private
 * labels never pass through here on the coordinator.
 */
import { FederationError } from '../errors.ts';
import type { Matrix, OutputKind } from '../types/matrix.ts';
import { logSoftmax, softmax } from './temperature.ts';

export interface Evaluation {
  /** Share of examples whose largest prediction is the label's, in [0, 1]. */
  readonly accuracy: number;
  /** Mean of `-ln p(label)` in nats. */
  readonly negativeLogLikelihood: number;
  /** Expected calibration error with 15 bins, in [0, 1]. */
  readonly calibrationError: number;
}

/** Smallest probability that the likelihood tells from 0: keeps one impossible label from making the mean infinite. */
const leastProbability = 1e-12;

/** All measures of one prediction matrix [examples x classes] against its labels (at least one). */
export function evaluate(predictions: Matrix, kind: OutputKind, labels: Int32Array): Evaluation {
  return {
    accuracy: accuracy(predictions, labels),
    negativeLogLikelihood: negativeLogLikelihood(predictions, kind, labels),
    calibrationError: expectedCalibrationError(kind === 'logits' ? softmax(predictions) : predictions, labels),
  };
}

/** Position of the largest value in each row; of equal values the first wins. */
export function argmax(matrix: Matrix): Int32Array {
  const { rows, columns, values } = matrix;
  const result = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    let best = 0;
    for (let c = 1; c < columns; c++) if (values[row * columns + c]! > values[row * columns + best]!) best = c;
    result[row] = best;
  }
  return result;
}

/** Share of rows whose argmax is the label. Logits and probabilities give the same answer. */
export function accuracy(predictions: Matrix, labels: Int32Array): number {
  checkLabels(predictions, labels);
  let correct = 0;
  argmax(predictions).forEach((predicted, row) => (correct += predicted === labels[row] ? 1 : 0));
  return correct / labels.length;
}

/** Cross-entropy against hard labels: the mean of `-ln p(label)`. Probabilities below 1e-12 count as 1e-12. */
export function negativeLogLikelihood(predictions: Matrix, kind: OutputKind, labels: Int32Array): number {
  checkLabels(predictions, labels);
  const { columns } = predictions;
  const logProbabilities = kind === 'logits' ? logSoftmax(predictions).values : predictions.values.map((p) => Math.log(Math.max(p, leastProbability)));
  let sum = 0;
  for (let row = 0; row < labels.length; row++) sum -= Math.max(logProbabilities[row * columns + labels[row]!]!, Math.log(leastProbability));
  return sum / labels.length;
}

/**
 * Expected calibration error: `sum_b |B_b| / n * |accuracy(B_b) - confidence(B_b)|` over equally wide bins
 * ((b - 1) / bins, b / bins] of the largest probability (Guo et al. 2017, eq. 3).
 */
export function expectedCalibrationError(probabilities: Matrix, labels: Int32Array, bins = 15): number {
  checkLabels(probabilities, labels);
  // Per bin: (correct - confidence) summed, which is |B_b| * (accuracy - confidence).
  const gaps = new Float64Array(bins);
  argmax(probabilities).forEach((predicted, row) => {
    const confidence = probabilities.values[row * probabilities.columns + predicted]!;
    const bin = Math.min(Math.max(Math.ceil(confidence * bins) - 1, 0), bins - 1);
    gaps[bin]! += (predicted === labels[row] ? 1 : 0) - confidence;
  });
  return gaps.reduce((sum, gap) => sum + Math.abs(gap), 0) / labels.length;
}

/** Throws `data-invalid` unless there is one label for each prediction, at least one, and each is a class. */
export function checkLabels(predictions: Matrix, labels: Int32Array): void {
  if (predictions.rows === 0 || labels.length !== predictions.rows) {
    throw new FederationError('data-invalid', 'An evaluation needs one label for each prediction, and at least one.', {
      field: 'labels',
      expected: `${Math.max(predictions.rows, 1)} labels`,
      got: `${labels.length} labels for ${predictions.rows} predictions`,
    });
  }
  labels.forEach((label, row) => {
    if (label < 0 || label >= predictions.columns) {
      throw new FederationError('data-invalid', 'A label is outside the classes of the predictions.', { field: `labels[${row}]`, expected: `an integer in [0, ${predictions.columns})`, got: String(label) });
    }
  });
}
