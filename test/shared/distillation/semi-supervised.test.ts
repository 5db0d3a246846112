import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeEngine } from '../../../shared/compute/engine.ts';
import { selectEngine } from '../../../shared/compute/select-engine.ts';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { syntheticExamples } from '../../../shared/datasets/synthetic.ts';
import { accuracy } from '../../../shared/distillation/evaluation.ts';
import { pseudoLabelsOf, type PseudoLabels } from '../../../shared/distillation/pseudo-labels.ts';
import { trainSemiSupervised } from '../../../shared/distillation/semi-supervised.ts';

const numClasses = 4;
const source = (exampleShape: readonly number[]) => ({ kind: 'zoo', name: 'mlp-small', exampleShape, numClasses }) as const;
const quick = { firstPasses: 4, rounds: 2, passes: 3, batchSize: 16, learningRate: 0.01 };
const data = (exampleShape: readonly number[]) => syntheticExamples({ size: 240, seed: 1, centerSeed: 7, exampleShape, numClasses });

/** Believed labels of which every fourth is wrong, and those are less sure. */
function guesses(labels: Int32Array): PseudoLabels {
  const generator = new SeededGenerator(11);
  const values = new Float32Array(labels.length * numClasses);
  labels.forEach((label, row) => {
    const isWrong = row % 4 === 0;
    const guess = isWrong ? (label + 1 + generator.integer(numClasses - 1)) % numClasses : label;
    for (let c = 0; c < numClasses; c++) values[row * numClasses + c] = c === guess ? (isWrong ? 0.5 : 0.7) : 0.1;
  });
  return pseudoLabelsOf({ rows: labels.length, columns: numClasses, values });
}

describe('semi-supervised training', () => {
  let engine: ComputeEngine;
  beforeAll(async () => {
    engine = await selectEngine('tfjs-cpu');
  });
  afterAll(() => engine.dispose());

  it('becomes right where its labels were not, and says so', async () => {
    const { examples, labels } = data([6]);
    const first = guesses(labels);
    const right = (guess: Int32Array) => guess.reduce((sum, label, row) => sum + (label === labels[row] ? 1 : 0), 0) / labels.length;
    expect(right(first.labels)).toBe(0.75);
    const student = await trainSemiSupervised({ engine, source: source([6]), examples, labels: first, options: { ...quick, firstShare: 0.8 }, seed: 1 });
    expect(accuracy(await student.model.predict(examples), labels)).toBeGreaterThan(0.95);
    expect(right(student.labels.labels)).toBeGreaterThan(0.95);
    expect(student.trainedOn).toHaveLength(3);
    expect(student.trainedOn[0]).toBe(192);
    await student.model.dispose();
  });

  it('trains on distorted images, the same ones for the same seed', async () => {
    const { examples, labels } = data([6, 6, 1]);
    const train = async (seed: number) => {
      const { model } = await trainSemiSupervised({ engine, source: source([6, 6, 1]), examples, labels: guesses(labels), options: { ...quick, firstPasses: 1, rounds: 1, passes: 1, views: 2 }, seed });
      const predictions = await model.predict(examples);
      await model.dispose();
      return predictions;
    };
    const once = await train(3);
    expect(await train(3)).toEqual(once);
    expect(await train(4)).not.toEqual(once);
  });

  it('tells of each round with the examples in it, and skips a training when nothing is sure', async () => {
    const { examples, labels } = data([6]);
    const seen: number[][] = [];
    const { model, trainedOn } = await trainSemiSupervised({
      engine, source: source([6]), examples, labels: guesses(labels), options: { ...quick, firstPasses: 1, rounds: 1, confidence: 1 }, seed: 1,
      onRound: ({ round, examples: count }) => void seen.push([round, count]),
    });
    expect(seen).toEqual([[0, 216], [1, 0]]);
    expect(trainedOn).toEqual([216, 0]);
    await model.dispose();
  });

  it('stops when aborted, and leaves no model open', async () => {
    const { examples, labels } = data([6]);
    const open: string[] = [];
    const watched: ComputeEngine = {
      ...engine, name: 'watched', reason: '', dispose: async () => {},
      open: async (...call) => {
        const model = await engine.open(...call);
        open.push('model');
        return { summary: model.summary, fit: (...rest) => model.fit(...rest), predict: (...rest) => model.predict(...rest), save: () => model.save(), load: (...rest) => model.load(...rest), dispose: async () => void open.pop() };
      },
    };
    const controller = new AbortController();
    const reason = new Error('enough');
    const training = trainSemiSupervised({ engine: watched, source: source([6]), examples, labels: guesses(labels), options: quick, seed: 1, signal: controller.signal, onRound: () => controller.abort(reason) });
    await expect(training).rejects.toBe(reason);
    expect(open).toEqual([]);
  });

  it('refuses labels for other examples and settings out of range', async () => {
    const { examples, labels } = data([6]);
    const first = guesses(labels);
    const attempt = (options: object, believed = first) => trainSemiSupervised({ engine, source: source([6]), examples, labels: believed, options, seed: 1 });
    await expect(attempt({}, guesses(labels.subarray(1)))).rejects.toMatchObject({ code: 'data-invalid', field: 'labels' });
    for (const [field, value] of Object.entries({ firstShare: 0, firstPasses: 0, rounds: -1, passes: 1.5, confidence: 2, views: 0, batchSize: 0, learningRate: NaN })) {
      await expect(attempt({ [field]: value })).rejects.toMatchObject({ code: 'config-invalid', field });
    }
  });
});
