/**
 * Accuracy under small changes that are made to mislead: each input may move by `epsilon` times the width of the input range (L∞).
 *
 * Sources: Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples" (FGSM); Madry et al. 2018, "Towards Deep Learning
 * Models Resistant to Adversarial Attacks" (PGD from a random start); Athalye et al. 2018, "Obfuscated Gradients Give a False Sense of
 * Security" (why a gradient of zeros is a warning, not a strength).
 *
 * An accuracy under attack is an upper bound on what a stronger attacker leaves: it shows weakness, it proves no strength.
 */
import { deriveSeed, SeededGenerator } from '../datasets/seeded-generator.ts';
import { argmax } from '../distillation/evaluation.ts';
import { exampleSize, selectExamples, type Examples, type LabelledExamples, type Matrix } from '../types/matrix.ts';

/** A classifier whose loss can be differentiated by its input. */
export interface DifferentiableClassifier {
  /** Logits [examples x classes]. */
  predict(examples: Examples): Promise<Matrix>;
  /** `labels`: one for each example. */
  lossGradient(examples: Examples, labels: Int32Array): Promise<LossGradient>;
}

export interface LossGradient {
  /** [examples x classes] */
  readonly logits: Matrix;
  /**
   * Gradient of each example's cross-entropy by its values, divided by `1 - p(label)`; as long as `examples.values`. The division changes neither
   * signs nor order within an example, and it keeps the gradient of an example that the model is sure of from rounding to 0.
   */
  readonly gradients: Float32Array;
  /** `1 - p(label)` of each example, in [0, 1]: what to multiply by for the gradient itself. */
  readonly scales: Float64Array;
}

/** Smallest and largest value that an input can have. */
export interface InputRange {
  readonly low: number;
  readonly high: number;
}

export interface AttackSettings {
  /** Ascending shares of the input range, > 0. */
  readonly epsilons: readonly number[];
  readonly range: InputRange;
  /** Steps of PGD; each goes 2.5 / steps of epsilon, so that the edge can be reached from any start. */
  readonly pgdSteps: number;
  /** Seeds PGD's starts: an integer in [0, 2^32). */
  readonly seed: number;
}

export interface AttackResult {
  /** Accuracy on all examples for each epsilon, in its order. */
  readonly fgsm: readonly number[];
  /** Share of all examples for which no change of at most epsilon was found: what misleads at a smaller epsilon counts for the larger ones too. */
  readonly pgd: readonly number[];
  /** Examples whose whole gradient is 0: neither attack can move them (FGSM) or aim (PGD). */
  readonly zeroGradients: number;
}

/** The examples, each value moved by `epsilon` (share of the range) along the sign of its gradient, and kept inside the range. */
export function fgsm(examples: Examples, gradients: Float32Array, epsilon: number, range: InputRange): Examples {
  const step = epsilon * (range.high - range.low);
  const values = examples.values.map((value, i) => clamp(value + step * Math.sign(gradients[i]!), range.low, range.high));
  return { ...examples, values };
}

/**
 * Both attacks at every epsilon. Examples that are wrong without any change count as wrong throughout. `clean`: the loss gradient at the examples,
 * if it is known already. Throws `signal.reason` when aborted.
 */
export async function attack(model: DifferentiableClassifier, data: LabelledExamples, settings: AttackSettings, { clean, signal }: { readonly clean?: LossGradient; readonly signal?: AbortSignal } = {}): Promise<AttackResult> {
  const { examples, labels } = data;
  const start = clean ?? (await model.lossGradient(examples, labels));
  const right = rightOnes(start.logits, labels);
  const size = exampleSize(examples.shape);
  let zeroGradients = 0;
  for (let i = 0; i < examples.count; i++) if (start.gradients.subarray(i * size, (i + 1) * size).every((value) => value === 0)) zeroGradients++;

  const fgsmAccuracies: number[] = [];
  for (const epsilon of settings.epsilons) {
    signal?.throwIfAborted();
    const moved = fgsm(examples, start.gradients, epsilon, settings.range);
    const stillRight = new Set(rightOnes(await model.predict(moved), labels));
    // What is wrong already is not attacked: a step that happens to correct it is no robustness.
    fgsmAccuracies.push(right.filter((i) => stillRight.has(i)).length / examples.count);
  }

  const pgdAccuracies: number[] = [];
  let survivors = right;
  for (const [index, epsilon] of settings.epsilons.entries()) {
    survivors = await pgdSurvivors(model, data, survivors, epsilon, settings, new SeededGenerator(deriveSeed(settings.seed, 'pgd', index)), signal);
    pgdAccuracies.push(survivors.length / examples.count);
  }
  return { fgsm: fgsmAccuracies, pgd: pgdAccuracies, zeroGradients };
}

/** The ones of `candidates` that stay right at every step from a random start inside the ball. */
async function pgdSurvivors(model: DifferentiableClassifier, { examples, labels }: LabelledExamples, candidates: readonly number[], epsilon: number, { range, pgdSteps }: AttackSettings, generator: SeededGenerator, signal: AbortSignal | undefined): Promise<number[]> {
  const size = exampleSize(examples.shape);
  const radius = epsilon * (range.high - range.low);
  const stepLength = (2.5 / pgdSteps) * radius;
  let alive = [...candidates];
  if (alive.length === 0) return alive;
  let current = selectExamples(examples, alive);
  const bounded = (value: number, position: number, i: number) => {
    const origin = examples.values[alive[position]! * size + i]!;
    return clamp(value, Math.max(range.low, origin - radius), Math.min(range.high, origin + radius));
  };
  const map = (change: (value: number, index: number) => number) => current.values.map((value, index) => bounded(change(value, index), Math.floor(index / size), index % size));
  current = { ...current, values: map((value) => value + (2 * generator.uniform() - 1) * radius) };
  for (let step = 0; step < pgdSteps; step++) {
    signal?.throwIfAborted();
    const { logits, gradients } = await model.lossGradient(current, labelsOf(labels, alive));
    const kept = rightOnes(logits, labelsOf(labels, alive));
    if (kept.length === 0) return [];
    const keptGradients = kept.length === alive.length ? gradients : selectExamples({ ...current, values: gradients }, kept).values;
    if (kept.length < alive.length) {
      current = selectExamples(current, kept);
      alive = kept.map((position) => alive[position]!);
    }
    current = { ...current, values: map((value, index) => value + stepLength * Math.sign(keptGradients[index]!)) };
  }
  return rightOnes(await model.predict(current), labelsOf(labels, alive)).map((position) => alive[position]!);
}

function labelsOf(labels: Int32Array, positions: readonly number[]): Int32Array {
  return Int32Array.from(positions, (position) => labels[position]!);
}

function rightOnes(logits: Matrix, labels: Int32Array): number[] {
  return Array.from(argmax(logits)).flatMap((predicted, row) => (predicted === labels[row] ? [row] : []));
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}
