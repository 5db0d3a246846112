/**
 * Whether a classifier's probabilities mean what they say, on labelled examples that it was not trained on.
 *
 * Sources: Guo et al. 2017, "On Calibration of Modern Neural Networks" (reliability diagram, ECE, MCE after Naeini et al. 2015);
 * Nguyen & O'Connor 2015, "Posterior calibration and exploratory analysis for NLP models" (bins of equal mass); Brier 1950,
 * "Verification of forecasts expressed in terms of probability"; Bröcker & Smith 2007, "Increasing the reliability of reliability diagrams"
 * (what a calibrated forecaster would show on as few examples); Wilson 1927 (interval of a share); Hendrycks & Gimpel 2017 (AUROC of confidence).
 */
import type { SeededGenerator } from '../datasets/seeded-generator.ts';
import { argmax, checkLabels } from '../distillation/evaluation.ts';
import type { Matrix } from '../types/matrix.ts';

/** The largest probability of each row and whether it was the label's. */
export interface Confidences {
  /** In [0, 1]. */
  readonly values: Float64Array;
  /** 1 where the prediction was right, else 0; as long as `values`. */
  readonly correct: Uint8Array;
}

export interface ReliabilityBin {
  /** Confidences in (low, high]; the first bin of equal width holds 0 as well. */
  readonly low: number;
  readonly high: number;
  readonly count: number;
  /** Null for an empty bin, as are the two below. */
  readonly meanConfidence: number | null;
  readonly accuracy: number | null;
  /** Wilson's 95 % interval of the accuracy. */
  readonly interval: readonly [low: number, high: number] | null;
}

/** `probabilities`: [examples x classes]; of equal ones the first class counts, as in `argmax`. */
export function confidences(probabilities: Matrix, labels: Int32Array): Confidences {
  checkLabels(probabilities, labels);
  const predicted = argmax(probabilities);
  return {
    values: Float64Array.from(predicted, (c, row) => probabilities.values[row * probabilities.columns + c]!),
    correct: Uint8Array.from(predicted, (c, row) => (c === labels[row] ? 1 : 0)),
  };
}

/** Bins ((b - 1) / bins, b / bins]: the x axis of a reliability diagram. Empty bins stay, so that there are always `bins`. */
export function equalWidthBins({ values, correct }: Confidences, bins = 15): ReliabilityBin[] {
  const positions: number[][] = Array.from({ length: bins }, () => []);
  values.forEach((confidence, i) => positions[binOf(confidence, bins)]!.push(i));
  return positions.map((members, b) => summarizeBin(members, values, correct, b / bins, (b + 1) / bins));
}

/** At most `bins` bins of as many examples each as can be; equal confidences are never parted, so the order of the examples does not matter. */
export function equalMassBins({ values, correct }: Confidences, bins = 15): ReliabilityBin[] {
  const order = Array.from(values.keys()).sort((a, b) => values[a]! - values[b]!);
  const result: ReliabilityBin[] = [];
  let low = 0;
  for (let start = 0; start < order.length; ) {
    // What is left is shared among the bins that are left.
    let end = start + Math.max(1, Math.round((order.length - start) / Math.max(1, bins - result.length)));
    while (end < order.length && values[order[end]!] === values[order[end - 1]!]) end++;
    const members = order.slice(start, end);
    const high = values[members.at(-1)!]!;
    result.push(summarizeBin(members, values, correct, low, high));
    low = high;
    start = end;
  }
  return result;
}

function binOf(confidence: number, bins: number): number {
  return Math.min(Math.max(Math.ceil(confidence * bins) - 1, 0), bins - 1);
}

function summarizeBin(members: readonly number[], values: Float64Array, correct: Uint8Array, low: number, high: number): ReliabilityBin {
  const count = members.length;
  if (count === 0) return { low, high, count, meanConfidence: null, accuracy: null, interval: null };
  const right = members.reduce((sum, i) => sum + correct[i]!, 0);
  return { low, high, count, meanConfidence: members.reduce((sum, i) => sum + values[i]!, 0) / count, accuracy: right / count, interval: wilsonInterval(right, count) };
}

/** Mean distance of accuracy and confidence, each bin weighted by its examples: ECE for bins of equal width, adaptive ECE for equal mass. In [0, 1]. */
export function calibrationError(bins: readonly ReliabilityBin[]): number {
  const total = bins.reduce((sum, { count }) => sum + count, 0);
  return bins.reduce((sum, { count, accuracy, meanConfidence }) => sum + (count === 0 ? 0 : (count / total) * Math.abs(accuracy! - meanConfidence!)), 0);
}

/** Largest distance of accuracy and confidence over the bins that hold an example (MCE). One example in a bin can decide it. */
export function maximumCalibrationError(bins: readonly ReliabilityBin[]): number {
  return bins.reduce((largest, { accuracy, meanConfidence }) => (accuracy === null ? largest : Math.max(largest, Math.abs(accuracy - meanConfidence!))), 0);
}

/** Mean over the examples of `sum_c (p_c - y_c)^2`, y one-hot: in [0, 2], as Brier defined it (some halve it for two classes). */
export function brierScore(probabilities: Matrix, labels: Int32Array): number {
  checkLabels(probabilities, labels);
  const { columns, values } = probabilities;
  let sum = 0;
  labels.forEach((label, row) => {
    for (let c = 0; c < columns; c++) sum += (values[row * columns + c]! - (c === label ? 1 : 0)) ** 2;
  });
  return sum / labels.length;
}

/**
 * The ECE (bins of equal width) that a perfectly calibrated classifier with these very confidences shows on as many examples: each is right
 * with the probability that its confidence states. ECE is a sum of absolute values, so it is above 0 even then.
 */
export function calibrationErrorOfCalibrated({ values }: Pick<Confidences, 'values'>, generator: SeededGenerator, { bins = 15, draws = 200 } = {}): { readonly mean: number; readonly percentile95: number } {
  const position = Int32Array.from(values, (confidence) => binOf(confidence, bins));
  const errors = Array.from({ length: draws }, () => {
    const gaps = new Float64Array(bins);
    values.forEach((confidence, i) => (gaps[position[i]!]! += (generator.uniform() < confidence ? 1 : 0) - confidence));
    return gaps.reduce((sum, gap) => sum + Math.abs(gap), 0) / values.length;
  }).sort((a, b) => a - b);
  return { mean: errors.reduce((sum, error) => sum + error, 0) / draws, percentile95: errors[Math.ceil(0.95 * draws) - 1]! };
}

/** 95 % interval of a share from `successes` among `trials` (at least one), after Wilson. */
export function wilsonInterval(successes: number, trials: number): readonly [low: number, high: number] {
  const z = 1.959964;
  const share = successes / trials;
  const denominator = 1 + z ** 2 / trials;
  const centre = share + z ** 2 / (2 * trials);
  const half = z * Math.sqrt((share * (1 - share)) / trials + z ** 2 / (4 * trials ** 2));
  // Rounding must not leave the share outside its own interval at 0 and 1.
  return [successes === 0 ? 0 : Math.max(0, (centre - half) / denominator), successes === trials ? 1 : Math.min(1, (centre + half) / denominator)];
}

export interface Uncertainty {
  /** Mean largest probability, in [0, 1]. */
  readonly meanConfidence: number;
  /** Mean entropy of the rows in nats, and over those that were right and wrong alone; null where there are none. */
  readonly meanEntropy: number;
  readonly entropyWhenRight: number | null;
  readonly entropyWhenWrong: number | null;
  /** Probability that a right prediction is more confident than a wrong one (ties count half); null unless there are both. */
  readonly auroc: number | null;
}

/** How the doubt that a classifier shows goes with its mistakes. `probabilities`: [examples x classes]. */
export function uncertainty(probabilities: Matrix, known: Confidences): Uncertainty {
  const { rows, columns, values } = probabilities;
  const entropies = Float64Array.from({ length: rows }, (_, row) => {
    let entropy = 0;
    for (let c = 0; c < columns; c++) {
      const p = values[row * columns + c]!;
      if (p > 0) entropy -= p * Math.log(p);
    }
    return entropy;
  });
  const meanWhere = (keep: (row: number) => boolean) => {
    const kept = entropies.filter((_, row) => keep(row));
    return kept.length === 0 ? null : kept.reduce((sum, entropy) => sum + entropy, 0) / kept.length;
  };
  return {
    meanConfidence: known.values.reduce((sum, confidence) => sum + confidence, 0) / rows,
    meanEntropy: meanWhere(() => true)!,
    entropyWhenRight: meanWhere((row) => known.correct[row] === 1),
    entropyWhenWrong: meanWhere((row) => known.correct[row] === 0),
    auroc: auroc(known),
  };
}

/** By the ranks of the right ones among all (Mann & Whitney). */
function auroc({ values, correct }: Confidences): number | null {
  const right = correct.reduce((sum, one) => sum + one, 0);
  const wrong = correct.length - right;
  if (right === 0 || wrong === 0) return null;
  const order = Array.from(values.keys()).sort((a, b) => values[a]! - values[b]!);
  let rankSum = 0;
  for (let start = 0; start < order.length; ) {
    let end = start + 1;
    while (end < order.length && values[order[end]!] === values[order[start]!]) end++;
    const meanRank = (start + 1 + end) / 2;
    for (let i = start; i < end; i++) rankSum += correct[order[i]!]! * meanRank;
    start = end;
  }
  return (rankSum - (right * (right + 1)) / 2) / (right * wrong);
}
