import { expect, it } from 'vitest';
import type { PrivateFitOptions } from '../../../shared/compute/engine.ts';
import { PrivateSteps, trainingEvent } from '../../../shared/compute/private-steps.ts';
import { PldAccountant } from '../../../shared/privacy/accountants/pld.ts';
import { DpEventSchema } from '../../../shared/privacy/dp-event.ts';
import type { Delta } from '../../../shared/types/units.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';

const options: PrivateFitOptions = {
  steps: 50,
  samplingRate: 0.5,
  clippingNorm: 0.3,
  noiseMultiplier: 2,
  loss: { distance: 'kl', temperature: 1, alpha: 1 },
  optimizer: { kind: 'sgd', learningRate: 0.1 },
  seed: 1,
  random: new InsecureSeededRandom(1),
};

it("gives the event that an accountant charges: epsilon as in Google's dp_accounting", () => {
  const event = DpEventSchema.parse(trainingEvent(options));
  // PLDAccountant of dp_accounting for rate 0.5, noise multiplier 2, 50 steps, delta 1e-5.
  expect(new PldAccountant('addOrRemoveRecord').compose(event).epsilon(1e-5 as Delta)).toBeCloseTo(9.4736, 2);
});

it('says that steps without noise protect nothing', () => {
  const event = trainingEvent({ ...options, noiseMultiplier: 0 });
  expect(new PldAccountant('addOrRemoveRecord').compose(event).epsilon(1e-5 as Delta)).toBe(Infinity);
});

it('divides by the rate times the number of records, whatever the size of the batch is', () => {
  const steps = new PrivateSteps(7, { ...options, noiseMultiplier: 0, random: new InsecureSeededRandom(2) });
  for (let i = 0; i < 5; i++) {
    steps.nextBatch();
    const sums = Float32Array.of(7, -3.5);
    steps.release(sums);
    expect(Array.from(sums)).toEqual([2, -1]);
  }
});

it('adds noise to the sum before it divides', () => {
  const release = (expectedBatchSize: number) => {
    const sums = new Float32Array(1000);
    new PrivateSteps(7, { ...options, expectedBatchSize, random: new InsecureSeededRandom(3) }).release(sums);
    return sums;
  };
  expect(release(8)).toEqual(release(1).map((value) => value / 8));
  const deviation = Math.sqrt(release(1).reduce((sum, value) => sum + value ** 2, 0) / 1000);
  // Five standard deviations of the estimate.
  expect(Math.abs(deviation / 0.6 - 1)).toBeLessThan(5 / Math.sqrt(2000));
});
