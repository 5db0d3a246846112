/** What replacing one record costs in private training: against divergences by quadrature, and in its limits. */
import { describe, expect, it } from 'vitest';
import { RdpAccountant } from '../../../../shared/privacy/accountants/rdp.ts';
import { PldAccountant } from '../../../../shared/privacy/accountants/pld.ts';
import { poissonSampledGaussianRdp, replacedRecordRdp } from '../../../../shared/privacy/accountants/subsampled-gaussian.ts';
import type { DpEvent } from '../../../../shared/privacy/dp-event.ts';
import type { Delta } from '../../../../shared/types/units.ts';

const delta = 1e-5 as Delta;
const training = (samplingProbability: number, noiseMultiplier: number, steps: number): DpEvent => ({ kind: 'privateTraining', samplingProbability, noiseMultiplier, steps });

/** Rényi divergence of `(1 - q) N(0, sigma^2) + q N(a, sigma^2)` from the same with `b`, by a fine sum over the line. */
function divergence(q: number, sigma: number, a: number, b: number, order: number): number {
  /** Logarithm, without underflow in the tails. */
  const mixture = (x: number, mean: number) => -(x ** 2) / (2 * sigma ** 2) + Math.log(1 - q + q * Math.exp((2 * x * mean - mean ** 2) / (2 * sigma ** 2)));
  const step = sigma / 200;
  let sum = 0;
  for (let x = -30 * sigma - order; x <= 30 * sigma + order; x += step) sum += Math.exp(order * mixture(x, a) + (1 - order) * mixture(x, b));
  return Math.log((sum * step) / (sigma * Math.sqrt(2 * Math.PI))) / (order - 1);
}

describe('a replaced record', () => {
  it('costs at least what it does between gradients that point anywhere along a line', () => {
    for (const q of [0.01, 0.2, 0.7]) {
      for (const sigma of [0.8, 2]) {
        for (const order of [1.5, 2, 5, 8]) {
          const bound = replacedRecordRdp(q, sigma, [order])[0]!;
          for (const [a, b] of [[1, -1], [-1, 1], [1, 0.5], [1, 0], [0, -1]] as const) expect(divergence(q, sigma, a, b, order), `q ${q} sigma ${sigma} order ${order} from ${a} to ${b}`).toBeLessThanOrEqual(bound * (1 + 1e-6));
        }
      }
    }
  });

  it('costs what twice the sensitivity does where every record is in every batch', () => {
    for (const order of [1.1, 2, 7.5, 64]) expect(replacedRecordRdp(1, 3, [order])[0]! / ((4 * order) / (2 * 9))).toBeCloseTo(1, 12);
  });

  it('costs more than a removed one, and at most about four times as much in Rényi divergence while noise is large', () => {
    for (const order of [2, 8, 32]) {
      const ratio = replacedRecordRdp(0.05, 4, [order])[0]! / poissonSampledGaussianRdp(0.05, 4, [order])[0]!;
      expect(ratio).toBeGreaterThan(3.5);
      expect(ratio).toBeLessThan(4.6);
    }
  });
});

describe('the event of private training', () => {
  it('is of a record: nobody is told an epsilon of it for a client', () => {
    for (const relation of ['replaceOne', 'zeroOut'] as const) {
      for (const accountant of [new RdpAccountant(relation), new PldAccountant(relation)]) expect(accountant.check(training(0.1, 1, 10))).toBeDefined();
    }
  });

  it('costs as much as its steps one by one, and nothing without steps', () => {
    for (const relation of ['addOrRemoveRecord', 'replaceRecord'] as const) {
      const accountant = new RdpAccountant(relation);
      expect(accountant.compose(training(0.05, 1.2, 60)).epsilon(delta) / accountant.compose(training(0.05, 1.2, 1), 60).epsilon(delta)).toBeCloseTo(1, 12);
      expect(accountant.compose(training(0.05, 1.2, 0)).epsilon(delta)).toBe(0);
    }
    const sampled: DpEvent = { kind: 'poissonSampled', samplingProbability: 0.05, event: { kind: 'gaussian', noiseMultiplier: 1.2 } };
    expect(new RdpAccountant('addOrRemoveRecord').compose(sampled, 60).epsilon(delta) / new RdpAccountant('addOrRemoveRecord').compose(training(0.05, 1.2, 60)).epsilon(delta)).toBeCloseTo(1, 12);
  });
});
