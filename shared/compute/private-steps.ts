/** What every engine does alike in private training: which records a step is on, the noise of its sum, and what it costs. */
import type { DpEvent } from '../privacy/dp-event.ts';
import type { PrivateFitOptions } from './engine.ts';
import { GaussianNoise } from './gaussian-noise.ts';
import { PoissonBatches } from './poisson-batches.ts';

export class PrivateSteps {
  readonly #batches: PoissonBatches;
  readonly #noise: GaussianNoise;
  readonly #deviation: number;
  readonly #divisor: number;

  /** `count`: how many records there are. */
  constructor(count: number, { samplingRate, clippingNorm, noiseMultiplier, expectedBatchSize, random }: PrivateFitOptions) {
    this.#batches = new PoissonBatches(count, samplingRate, random);
    this.#noise = new GaussianNoise(random);
    this.#deviation = noiseMultiplier * clippingNorm;
    this.#divisor = expectedBatchSize ?? samplingRate * count;
  }

  /** Positions of the records of the next step; there may be none. */
  nextBatch(): Uint32Array {
    return this.#batches.next();
  }

  /** Turns a part of the clipped sum into that part of the gradient that an optimizer gets. */
  release(sums: Float32Array): void {
    if (this.#deviation > 0) this.#noise.release(sums, this.#deviation, this.#divisor);
    else for (let i = 0; i < sums.length; i++) sums[i] = sums[i]! / this.#divisor;
  }
}

/** What an accountant charges for all steps. */
export function trainingEvent({ steps, samplingRate, noiseMultiplier }: PrivateFitOptions): DpEvent {
  const event: DpEvent = noiseMultiplier === 0 ? { kind: 'nonPrivate' } : { kind: 'poissonSampled', samplingProbability: samplingRate, event: { kind: 'gaussian', noiseMultiplier } };
  return { kind: 'selfComposed', event, count: steps };
}
