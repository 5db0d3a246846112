/** Attacks on a classifier whose weak point is known: two classes, `z = (w x + b, 0)`, so FGSM lowers the margin by exactly epsilon * |w|_1. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { attack, type AttackSettings, type DifferentiableClassifier, fgsm } from '../../../shared/evaluation/adversarial.ts';
import type { Examples, LabelledExamples } from '../../../shared/types/matrix.ts';

function linear(w: readonly number[], b = 0): DifferentiableClassifier & { calls: number } {
  const scores = ({ count, values }: Examples) => Array.from({ length: count }, (_, i) => w.reduce((sum, weight, j) => sum + weight * values[i * w.length + j]!, b));
  const matrix = (examples: Examples) => ({ rows: examples.count, columns: 2, values: Float32Array.from(scores(examples).flatMap((score) => [score, 0])) });
  return {
    calls: 0,
    predict: async (examples) => matrix(examples),
    async lossGradient(examples, labels) {
      this.calls++;
      const gradients = Float32Array.from({ length: examples.values.length }, (_, k) => (labels[Math.floor(k / w.length)] === 0 ? -1 : 1) * w[k % w.length]!);
      return { logits: matrix(examples), gradients, scales: Float64Array.from(scores(examples), (score, i) => 1 / (1 + Math.exp(labels[i] === 0 ? score : -score))) };
    },
  };
}

/** Points in the middle of a range so wide that its ends are never reached. */
function data(w: readonly number[], points: readonly (readonly number[])[], labels: readonly number[]): LabelledExamples {
  return { examples: { count: points.length, shape: [w.length], values: Float32Array.from(points.flat()) }, labels: Int32Array.from(labels), numClasses: 2 };
}
const settings = (epsilons: readonly number[], range = { low: -10, high: 10 }): AttackSettings => ({ epsilons, range, pgdSteps: 10, seed: 3 });

describe('FGSM and PGD on a linear model', () => {
  const w = [1, -2, 0.5]; // |w|_1 = 3.5
  // Scores 1.75, 3.5, 7, -7, and 1 with the wrong label.
  const points = [[1.75, 0, 0], [3.5, 0, 0], [3, -2, 0], [-3, 2, 0], [1, 0, 0]];
  const labels = [0, 0, 0, 1, 1];

  it('break exactly the examples whose margin is below epsilon times the range times |w|_1', async () => {
    // Margins 1.75, 3.5, 7, 7; with a range of 20, epsilon e lowers each by 70 e.
    const result = await attack(linear(w), data(w, points, labels), settings([0.024, 0.026, 0.049, 0.051, 0.099, 0.101]));
    expect(result.fgsm).toEqual([4 / 5, 3 / 5, 3 / 5, 2 / 5, 2 / 5, 0]);
    expect(result.pgd).toEqual(result.fgsm); // the loss is monotone along the sign, so steps reach the same corner
    expect(result.zeroGradients).toBe(0);
  });

  it('FGSM moves every value by epsilon along the sign of its gradient, and stays in the range', () => {
    const examples: Examples = { count: 1, shape: [4], values: Float32Array.of(0.5, 0.5, 0.95, 0.5) };
    const moved = fgsm(examples, Float32Array.of(2, -1e-30, 1, 0), 0.125, { low: 0, high: 1 });
    expect([...moved.values]).toEqual([0.625, 0.375, 1, 0.5]);
    expect(examples.values[0]).toBe(0.5);
  });

  it('FGSM does nothing where the gradient is 0, and the report says where; PGD still has its random start', async () => {
    const flat = [0, 0];
    const result = await attack(linear(flat, 1), data(flat, [[1, 2]], [0]), settings([0.5]));
    expect(result).toEqual({ fgsm: [1], pgd: [1], zeroGradients: 1 });
  });

  it('PGD goes no further with what is broken already', async () => {
    const model = linear(w);
    await attack(model, data(w, [[0.1, 0, 0]], [0]), settings([0.05, 0.1, 0.2]));
    // One gradient for FGSM and at most one PGD run: the larger epsilons have nobody left.
    expect(model.calls).toBeLessThanOrEqual(11);
  });

  it('PGD moves each example along its own gradient, also after others have dropped out', async () => {
    // Some of class 0 are broken by the random start alone; class 1 breaks in the right corner only. One step leaves no second chance.
    const rows = Array.from({ length: 16 }, (_, i) => (i % 2 === 0 ? [0.01, 0, 0] : [-3, 0, 0]));
    const mixed = data(w, rows, rows.map((_, i) => i % 2));
    const { pgd, fgsm: once } = await attack(linear(w), mixed, { ...settings([0.045]), pgdSteps: 1 });
    expect(once).toEqual([0]);
    expect(pgd).toEqual([0]);
  });

  it('repeats itself with the same seed, and stops when told to', async () => {
    const make = () => attack(linear(w), data(w, points, labels), settings([0.05]));
    expect(await make()).toEqual(await make());
    await expect(attack(linear(w), data(w, points, labels), settings([0.05]), { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough');
  });
});

it('for any linear model: accuracies fall with epsilon, PGD leaves what FGSM leaves, inputs stay in the range', async () => {
  const size = 3;
  const number = fc.integer({ min: -8, max: 8 }).map((n) => n / 8);
  await fc.assert(
    fc.asyncProperty(
      fc.array(number, { minLength: size, maxLength: size }),
      fc.array(fc.tuple(fc.array(number, { minLength: size, maxLength: size }), fc.integer({ min: 0, max: 1 })), { minLength: 1, maxLength: 6 }),
      async (w, rows) => {
        const labelled = data(w, rows.map(([x]) => x), rows.map(([, label]) => label));
        const epsilons = [0.03, 0.09, 0.27];
        const inner = linear(w);
        const seen: Examples[] = [];
        const model: DifferentiableClassifier = {
          predict: (examples) => (seen.push(examples), inner.predict(examples)),
          lossGradient: (examples, labels) => (seen.push(examples), inner.lossGradient(examples, labels)),
        };
        const { fgsm: once, pgd } = await attack(model, labelled, settings(epsilons, { low: -1, high: 1 }));
        for (const curve of [once, pgd]) for (let i = 1; i < curve.length; i++) expect(curve[i]!).toBeLessThanOrEqual(curve[i - 1]!);
        expect(seen.every(({ values }) => values.every((value) => value >= -1 && value <= 1))).toBe(true);
        // On a linear model the corner that FGSM jumps to is the worst point there is, and PGD's steps end in it.
        expect(pgd).toEqual(once);
      },
    ),
    { numRuns: 60 },
  );
});
