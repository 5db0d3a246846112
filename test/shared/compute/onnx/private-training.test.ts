/** What one record may change in a private step: its own clipped gradient, and nothing of any other record's. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ComputeEngine } from '../../../../shared/compute/engine.ts';
import { createOnnxEngine } from '../../../../shared/compute/onnx/onnx-engine.ts';
import { SeededGenerator } from '../../../../shared/datasets/seeded-generator.ts';
import type { LabelledExamples } from '../../../../shared/types/matrix.ts';
import { InsecureSeededRandom } from '../../../../simulations/insecure-seeded-random.ts';
import { withOnnxRuntime } from '../../../support/onnx-runtime.ts';

const [count, size, numClasses] = [30, 5, 3];
const [clippingNorm, learningRate, steps] = [0.1, 1e-2, 2];

withOnnxRuntime(() => {
  let engine: ComputeEngine;
  beforeAll(async () => {
    engine = await createOnnxEngine();
  });
  afterAll(() => engine.dispose());

  /** Weights after two steps on all records without noise, with the record at `position` made of `value`. */
  async function weightsAfter(change: { readonly position: number; readonly value: number } | undefined, microBatchSize: number): Promise<Float32Array> {
    const generator = new SeededGenerator(1);
    const values = Float32Array.from({ length: count * size }, () => generator.gaussian());
    if (change !== undefined) values.fill(change.value, size * change.position, size * (change.position + 1));
    const hard: LabelledExamples = { examples: { count, shape: [size], values }, labels: Int32Array.from({ length: count }, (_, i) => i % numClasses), numClasses };
    const model = await engine.open({ kind: 'zoo', name: 'mlp-small', exampleShape: [size], numClasses, dropout: 0.5 }, 2);
    await model.fitPrivately!(
      { hard },
      { steps, samplingRate: 1, clippingNorm, noiseMultiplier: 0, microBatchSize, optimizer: { kind: 'sgd', learningRate }, seed: 3, random: new InsecureSeededRandom(4), loss: { distance: 'kl', temperature: 1, alpha: 1 } },
    );
    const { weights } = await model.save();
    await model.dispose();
    return new Float32Array(weights.slice().buffer);
  }

  it.each([30, 32, 8, 1])('a record without a finite gradient counts as zero, and leaves the dropout of all others as it is: %i rows at a time', async (microBatchSize) => {
    const plain = await weightsAfter(undefined, microBatchSize);
    for (const position of [0, 7, 29]) {
      // Large enough for squares that overflow, or no number at all.
      const [large, none] = [await weightsAfter({ position, value: 1e30 }, microBatchSize), await weightsAfter({ position, value: NaN }, microBatchSize)];
      expect(large).toEqual(none);
      const moved = (Math.hypot(...large.map((weight, i) => weight - plain[i]!)) * count) / learningRate;
      // At most the clipping norm for each step, and a little because the second one begins elsewhere.
      expect(moved).toBeGreaterThan(0.5 * clippingNorm);
      expect(moved).toBeLessThan(1.1 * steps * clippingNorm);
    }
  });
});
