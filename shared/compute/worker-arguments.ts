/**
 * Arguments on their way to another thread. Posting a caller's arrays as they are would copy all of the buffer under a view: the
 * whole data set for a few of its examples. So every array is replaced: by a copy that moves, or by memory that threads share.
 */
import type { Examples } from '../types/matrix.ts';
import type { FitOptions, PrivateFitOptions, TrainingData } from './engine.ts';
import { drawKey } from './key-stream.ts';
import type { CopyableFitOptions, CopyablePrivateFitOptions } from './worker-messages.ts';

export type PortableArray = Float32Array | Int32Array | Uint8Array;

/** Gives an array with the same elements that may be posted. */
export type Carry = <T extends PortableArray>(array: T) => T;

/** Copies that move to the worker: posted with `transfer: buffers`. */
export class Copies {
  readonly buffers: ArrayBuffer[] = [];

  readonly carry: Carry = (array) => {
    const copy = array.slice() as typeof array;
    this.buffers.push(copy.buffer as ArrayBuffer);
    return copy;
  };
}

export function carryExamples({ count, shape, values }: Examples, carry: Carry): Examples {
  return { count, shape: [...shape], values: carry(values) };
}

export function carryData({ hard, soft }: TrainingData, carry: Carry): TrainingData {
  const weightsOf = (weights: Float32Array | undefined) => (weights === undefined ? {} : { weights: carry(weights) });
  return {
    ...(hard === undefined ? {} : { hard: { examples: carryExamples(hard.examples, carry), labels: carry(hard.labels), ...weightsOf(hard.weights) } }),
    ...(soft === undefined ? {} : { soft: { examples: carryExamples(soft.examples, carry), targets: { ...soft.targets, values: carry(soft.targets.values) }, targetKind: soft.targetKind, ...weightsOf(soft.weights) } }),
  };
}

export function carryFitOptions({ signal: _signal, onEpoch: _onEpoch, earlyStopping, ...rest }: FitOptions, carry: Carry): CopyableFitOptions {
  if (earlyStopping === undefined) return rest;
  const { patience, validation } = earlyStopping;
  return { ...rest, earlyStopping: { patience, validation: { examples: carryExamples(validation.examples, carry), labels: carry(validation.labels) } } };
}

/**
 * The caller's source of randomness stays in its thread: the worker gets 256 fresh bits of it as the key of a stream cipher. Made again
 * after a crash with the same arguments, a training draws the same batches and noise: nothing is released twice.
 */
export function carryPrivateFitOptions({ signal: _signal, onStep: _onStep, random, ...rest }: PrivateFitOptions): CopyablePrivateFitOptions {
  return { ...rest, key: drawKey(random) };
}
