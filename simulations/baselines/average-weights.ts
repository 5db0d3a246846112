/**
 * The mean of models, weight by weight (McMahan et al. 2017). Means are of weights alone: an engine's optimizer keeps nothing from one training to the next, so there are no
 * moments to average.
 */
import { FederationError } from '../../shared/errors.ts';
import type { SavedModel } from '../../shared/compute/engine.ts';

/**
 * `shares`: numbers >= 0, e.g. the records that each model was trained on; only their proportions count. Sums are in float64 in the order given. Throws `model-invalid`
 * for models of different architectures, and for layers whose weights have no meaningful mean.
 */
export function averageWeights(models: readonly SavedModel[], shares: readonly number[]): SavedModel {
  const first = models[0];
  const total = shares.reduce((sum, share) => sum + share, 0);
  if (first === undefined || models.length !== shares.length || !(total > 0) || shares.some((share) => !(share >= 0))) {
    throw new RangeError(`"shares" expected one number >= 0 for each of at least one model, not all 0, got [${shares.join(', ')}] for ${models.length} models`);
  }
  checkAveraged(first);
  for (const other of models) {
    if (architectureOf(other) !== architectureOf(first)) {
      throw new FederationError('model-invalid', 'Models of different architectures have no average.', { field: 'clients.groups', expected: architectureOf(first), got: architectureOf(other), next: 'Give all clients one model, or distil instead: the algorithm federation.' });
    }
  }
  const sums = new Float64Array(floatsOf(first).length);
  models.forEach((model, i) => {
    const values = floatsOf(model);
    for (let at = 0; at < sums.length; at++) sums[at]! += shares[i]! * values[at]!;
  });
  const mean = Float32Array.from(sums, (sum) => sum / total);
  return { ...first, weights: new Uint8Array(mean.buffer) };
}

/** Throws `model-invalid`, with the reason, for an architecture whose weights cannot be averaged. */
export function checkAveraged({ topology, weightSpecs }: Pick<SavedModel, 'topology' | 'weightSpecs'>): void {
  const refuse = (layer: string, why: string): FederationError =>
    new FederationError('model-invalid', `The weights of this model cannot be averaged: ${why}.`, { field: 'model', expected: 'layers whose weights have a meaningful mean', got: layer, next: 'Use a model without it (every model of the zoo is one), or distil instead: the algorithm federation.' });
  // Topologies nest layers in several ways; their text names a layer's class in all of them.
  if (JSON.stringify(topology).includes('"BatchNormalization"')) {
    throw refuse('BatchNormalization', 'the mean of running variances is not the variance of all records together, and each client normalizes by its own');
  }
  const integer = weightSpecs.find(({ dtype }) => dtype !== 'float32');
  if (integer !== undefined) throw refuse(`${integer.name} (${integer.dtype})`, `its weight ${integer.name} counts something`);
}

/** Shapes in order: names differ from one opened model to the next. */
function architectureOf({ weightSpecs }: SavedModel): string {
  return weightSpecs.map(({ shape, dtype }) => `${dtype}[${shape.join(', ')}]`).join(' ');
}

/** A view when the bytes lie so, else a copy. */
function floatsOf({ weights }: SavedModel): Float32Array {
  return weights.byteOffset % 4 === 0 ? new Float32Array(weights.buffer, weights.byteOffset, weights.byteLength / 4) : new Float32Array(weights.slice().buffer);
}
