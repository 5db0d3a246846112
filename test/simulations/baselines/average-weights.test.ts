import fc from 'fast-check';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import type { SavedModel } from '../../../shared/compute/engine.ts';
import { FederationError } from '../../../shared/errors.ts';
import { averageWeights } from '../../../simulations/baselines/average-weights.ts';

function modelOf(values: Float32Array, shape = [values.length]): SavedModel {
  return { topology: { class_name: 'Sequential' }, weightSpecs: [{ name: 'w', shape, dtype: 'float32' }], weights: new Uint8Array(values.slice().buffer) };
}

const valuesOf = ({ weights }: SavedModel) => new Float32Array(weights.slice().buffer);
const float32 = fc.float({ min: -1e6, max: 1e6, noNaN: true }).map((value) => Math.fround(value) + 0); // no -0: a sum with 0 has no sign

function problemOf(action: () => unknown): FederationError {
  try {
    action();
  } catch (error) {
    if (error instanceof FederationError) return error;
    throw error;
  }
  throw new Error('expected a FederationError');
}

describe('the average of models', () => {
  it('is the model itself, bit for bit, when all are equal', () => {
    fc.assert(fc.property(fc.array(float32, { minLength: 1, maxLength: 8 }), fc.array(fc.integer({ min: 1, max: 60_000 }), { minLength: 1, maxLength: 10 }), (weights, records) => {
      const model = modelOf(Float32Array.from(weights));
      expect(averageWeights(records.map(() => model), records).weights).toEqual(model.weights);
    }));
  });

  it('weighs each model by its records', () => {
    const average = averageWeights([modelOf(Float32Array.of(1, -2)), modelOf(Float32Array.of(5, 2)), modelOf(Float32Array.of(100, 100))], [3, 1, 0]);
    expect([...valuesOf(average)]).toEqual([2, -1]);
  });

  it('reads weights that lie at an odd place of a buffer', () => {
    const shifted = new Uint8Array(9);
    shifted.set(new Uint8Array(Float32Array.of(3, 7).buffer), 1);
    expect([...valuesOf(averageWeights([{ ...modelOf(Float32Array.of(0, 0)), weights: shifted.subarray(1) }], [5]))]).toEqual([3, 7]);
  });

  it('is refused for models of different architectures', () => {
    const problem = problemOf(() => averageWeights([modelOf(Float32Array.of(1, 2)), modelOf(Float32Array.of(1, 2), [2, 1])], [1, 1]));
    expect(problem).toMatchObject({ code: 'model-invalid', expected: 'float32[2]', got: 'float32[2, 1]' });
    expect(problem.next).toContain('distil');
  });

  it('is refused, with the reason, for a model that normalizes over batches', () => {
    const network = tf.sequential({ layers: [tf.layers.dense({ units: 3, inputShape: [2] }), tf.layers.batchNormalization()] });
    const values = Float32Array.of(1);
    const problem = problemOf(() => averageWeights([{ ...modelOf(values), topology: network.toJSON(undefined, false) }], [1]));
    network.dispose();
    expect(problem).toMatchObject({ code: 'model-invalid', got: 'BatchNormalization' });
    expect(problem.message).toContain('running variances');
  });

  it('is refused for a weight that counts something', () => {
    const counter: SavedModel = { ...modelOf(Float32Array.of(1)), weightSpecs: [{ name: 'steps', shape: [1], dtype: 'int32' }] };
    expect(problemOf(() => averageWeights([counter], [1])).got).toBe('steps (int32)');
  });

  it('takes one share for each model, not all of them 0', () => {
    const model = modelOf(Float32Array.of(1));
    for (const [models, shares] of [[[], []], [[model], [0]], [[model, model], [1]], [[model, model], [2, -1]]] as [SavedModel[], number[]][]) {
      expect(() => averageWeights(models, shares)).toThrow(RangeError);
    }
  });
});
