/** Checks 7 to 11 of the design review (docs/privacy-model.md, section 9), by name. The golden values of check 7 are in golden-verify.test.ts. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { PrivacyAccountant } from '../../../../shared/privacy/accountants/accountant.ts';
import { calibrateParameter } from '../../../../shared/privacy/accountants/calibration.ts';
import { GaussianAccountant } from '../../../../shared/privacy/accountants/gaussian-accountant.ts';
import { gaussianEpsilon } from '../../../../shared/privacy/accountants/numerics.ts';
import { PldAccountant } from '../../../../shared/privacy/accountants/pld.ts';
import { PureAccountant } from '../../../../shared/privacy/accountants/pure-accountant.ts';
import { DEFAULT_ORDERS, RdpAccountant } from '../../../../shared/privacy/accountants/rdp.ts';
import { interpolate, poissonSampledGaussianRdp } from '../../../../shared/privacy/accountants/subsampled-gaussian.ts';
import { ZcdpAccountant } from '../../../../shared/privacy/accountants/zcdp.ts';
import type { AccountedRelation, DpEvent } from '../../../../shared/privacy/dp-event.ts';
import { FederationError } from '../../../../shared/errors.ts';
import type { Delta } from '../../../../shared/types/units.ts';

const dpSgd = (q: number, z: number): DpEvent => ({ kind: 'poissonSampled', samplingProbability: q, event: { kind: 'gaussian', noiseMultiplier: z } });
const record = () => [new RdpAccountant('addOrRemoveRecord'), new PldAccountant('addOrRemoveRecord')];
const epsilon = (accountant: PrivacyAccountant, event: DpEvent, count = 1, delta = 1e-5) => accountant.compose(event, count).epsilon(delta as Delta);

/** Every event with one noise parameter, under a relation for which it is defined. */
const families: ReadonlyArray<{ name: string; relation: AccountedRelation; event: (noise: number) => DpEvent }> = [
  { name: 'gaussian', relation: 'replaceOne', event: (noiseMultiplier) => ({ kind: 'gaussian', noiseMultiplier }) },
  { name: 'laplace', relation: 'replaceOne', event: (noiseMultiplier) => ({ kind: 'laplace', noiseMultiplier }) },
  { name: 'continuousLaplace', relation: 'replaceOne', event: (noiseMultiplier) => ({ kind: 'continuousLaplace', noiseMultiplier, dimension: 1 }) },
  { name: 'continuousLaplace, many coordinates', relation: 'replaceOne', event: (noiseMultiplier) => ({ kind: 'continuousLaplace', noiseMultiplier, dimension: 1000 }) },
  { name: 'discreteLaplace', relation: 'replaceOne', event: (scale) => ({ kind: 'discreteLaplace', scale, l1Sensitivity: 2, dimension: 1 }) },
  { name: 'discreteGaussian', relation: 'replaceOne', event: (sigma) => ({ kind: 'discreteGaussian', sigma, l2Sensitivity: 1, dimension: 1 }) },
  { name: 'distributedDiscreteGaussian', relation: 'replaceOne', event: (noise) => ({ kind: 'distributedDiscreteGaussian', sigma: 100 * noise, shares: 10, l2Sensitivity: 100, l1Sensitivity: 1000, dimension: 100 }) },
  { name: 'skellam', relation: 'replaceOne', event: (noise) => ({ kind: 'skellam', variance: 1e4 * noise ** 2, l2Sensitivity: 100, l1Sensitivity: 1000 }) },
  { name: 'gnMax', relation: 'replaceOne', event: (sigma) => ({ kind: 'gnMax', sigma, queries: 3 }) },
  { name: 'confidentGnMax', relation: 'replaceOne', event: (sigma) => ({ kind: 'confidentGnMax', sigmaThreshold: sigma, sigmaVotes: sigma, queries: 3, answered: 2 }) },
  { name: 'randomizedResponse', relation: 'replaceOne', event: (noise) => ({ kind: 'randomizedResponse', epsilon: Math.min(700, 1 / noise), categories: 10 }) },
  { name: 'subsetSelection', relation: 'replaceOne', event: (noise) => ({ kind: 'subsetSelection', epsilon: Math.min(700, 1 / noise), categories: 10, subsetSize: 3 }) },
  { name: 'unaryEncoding', relation: 'replaceRecord', event: (noise) => ({ kind: 'unaryEncoding', epsilon: Math.min(700, 1 / noise), categories: 10 }) },
  { name: 'zcdp', relation: 'replaceOne', event: (noise) => ({ kind: 'zcdp', rho: Math.min(1e300, 1 / (2 * noise ** 2)) }) },
  { name: 'poissonSampled', relation: 'addOrRemoveRecord', event: (noise) => dpSgd(0.02, noise) },
  { name: 'privateTraining, removed', relation: 'addOrRemoveRecord', event: (noiseMultiplier) => ({ kind: 'privateTraining', samplingProbability: 0.02, noiseMultiplier, steps: 3 }) },
  { name: 'privateTraining, replaced', relation: 'replaceRecord', event: (noiseMultiplier) => ({ kind: 'privateTraining', samplingProbability: 0.02, noiseMultiplier, steps: 3 }) },
  { name: 'poissonSampled Laplace', relation: 'addOrRemoveRecord', event: (noiseMultiplier) => ({ kind: 'poissonSampled', samplingProbability: 0.1, event: { kind: 'continuousLaplace', noiseMultiplier, dimension: 1 } }) },
  { name: 'sampledWithoutReplacement', relation: 'replaceRecord', event: (noiseMultiplier) => ({ kind: 'sampledWithoutReplacement', sampleSize: 20, datasetSize: 1000, event: { kind: 'gaussian', noiseMultiplier } }) },
];
const accountantsOf = (relation: AccountedRelation): PrivacyAccountant[] => [new GaussianAccountant(relation), new PureAccountant(relation), new ZcdpAccountant(relation), new RdpAccountant(relation), new PldAccountant(relation)];
const supporting = families.flatMap(({ name, relation, event }) =>
  accountantsOf(relation)
    .filter((accountant) => accountant.check(event(1)) === undefined)
    .map((accountant) => ({ name, accountant, event, title: `${name} by ${accountant.name}` })),
);

describe('check 7: monotone, T = 0 gives 0, no noise gives Infinity', () => {
  it('every event has an accountant', () => {
    expect(new Set(supporting.map((item) => item.name)).size).toBe(families.length);
  });

  it.each(supporting)('$title', ({ name, accountant, event }) => {
    expect(epsilon(accountant, event(2), 0)).toBe(0);
    const none = epsilon(accountant, event(0), 1);
    // Local mechanisms have no noise parameter that can be 0; at epsilon 700 nothing is hidden.
    if (/response|subset|unary|zcdp/i.test(name)) expect(none).toBeGreaterThan(600);
    else expect(none).toBe(Infinity);
    let previous = Infinity;
    for (const noise of [0.5, 1.61803, 10]) {
      const value = epsilon(accountant, event(noise), 2);
      expect(value).toBeLessThan(previous);
      expect(epsilon(accountant, event(noise), 3)).toBeGreaterThanOrEqual(value);
      expect(epsilon(accountant, event(noise), 2, 1e-3)).toBeLessThanOrEqual(value);
      previous = value;
    }
  });

  it('epsilon rises with the sampling probability, from nothing to the Gaussian', () => {
    for (const accountant of record()) {
      let previous = 0;
      for (const q of [0.001, 0.0314159, 0.271828, 1]) {
        const value = epsilon(accountant, dpSgd(q, 1.61803), 50);
        expect(value).toBeGreaterThanOrEqual(previous);
        previous = value;
      }
      expect(epsilon(accountant, dpSgd(0, 1), 50)).toBe(0);
      expect(epsilon(accountant, dpSgd(0.5, 0), 1)).toBe(Infinity);
      expect(previous).toBe(epsilon(accountant, { kind: 'gaussian', noiseMultiplier: 1.61803 }, 50));
    }
  });
});

describe('check 8: RDP of the subsampled Gaussian', () => {
  it('is the exact Gaussian formula at q = 1, and tends to it', () => {
    for (const order of [1.1, 2, 2.71828, 64]) {
      expect(poissonSampledGaussianRdp(1, 3.14159, [order])[0]).toBe(order / (2 * 3.14159 ** 2));
      expect(poissonSampledGaussianRdp(1 - 1e-12, 3.14159, [order])[0]! / (order / (2 * 3.14159 ** 2))).toBeCloseTo(1, 9);
    }
  });

  it.each([[0.01, 1], [0.3, 0.8], [0.001, 5], [0.9, 0.3]])('integer and fractional orders meet at q %d, sigma %d', (q, sigma) => {
    for (const order of [2, 3, 7, 10]) {
      const [below, at, above] = poissonSampledGaussianRdp(q, sigma, [order - 1e-7, order, order + 1e-7]);
      // Two different formulas: a sum over batches' binomials, and a quadrature.
      expect(below! / at!).toBeCloseTo(1, 5);
      expect(above! / at!).toBeCloseTo(1, 5);
      expect(((below! + above!) / 2 - at!) / at!).toBeLessThan(1e-9);
      expect(((below! + above!) / 2 - at!) / at!).toBeGreaterThan(-1e-9);
    }
  });

  it('fractional orders agree with quadrature and Opacus (rdp-point)', () => {
    const golden = JSON.parse(readFileSync(new URL('../../../vectors/dp-golden.json', import.meta.url), 'utf8')) as { cases: Array<{ id: string; mechanism: string; params: Record<string, number>; expected: Record<string, number> }> };
    const fractional = golden.cases.filter((item) => item.mechanism.endsWith('fractional'));
    expect(fractional.length).toBeGreaterThan(1);
    for (const { params, expected } of fractional) {
      const value = poissonSampledGaussianRdp(params['q']!, params['sigma']!, [params['order']!])[0]!;
      expect(value / expected['rdp_quadrature']!).toBeCloseTo(1, 9);
      expect(value / expected['rdp_opacus']!).toBeCloseTo(1, 9);
      // Published with the error of dp_accounting (adding |binom|): a correct value is lower.
      expect(value).toBeLessThan(expected['rdp_dpacc_upper_bound']!);
    }
  });

  it('the chord between integer orders is an upper bound of the exact curve', () => {
    for (const order of [1.5, 2.5, 6.3]) {
      const chord = interpolate(order, (integer) => (integer - 1) * poissonSampledGaussianRdp(0.05, 1, [integer])[0]!);
      expect(chord).toBeGreaterThan(poissonSampledGaussianRdp(0.05, 1, [order])[0]!);
    }
  });
});

describe('check 9: calibrate, then account: never above the target', () => {
  it.each([
    ['exact', new GaussianAccountant('replaceOne'), (noiseMultiplier: number): DpEvent => ({ kind: 'gaussian', noiseMultiplier })],
    ['Rényi', new RdpAccountant('addOrRemoveRecord'), (noise: number) => dpSgd(0.0271828, noise)],
    ['PLD', new PldAccountant('addOrRemoveRecord'), (noise: number) => dpSgd(0.0271828, noise)],
    ['zCDP', new ZcdpAccountant('replaceOne'), (sigma: number): DpEvent => ({ kind: 'gnMax', sigma, queries: 10 })],
    ['pure', new PureAccountant('replaceOne'), (noiseMultiplier: number): DpEvent => ({ kind: 'laplace', noiseMultiplier })],
  ] as const)('%s', (_name, accountant, event) => {
    for (const target of [2.71828]) {
      const run = (noise: number): DpEvent => ({ kind: 'selfComposed', event: event(noise), count: 7 });
      const noise = calibrateParameter({ accountant, event: run, epsilon: target, delta: 1e-6, tolerance: 1e-4 });
      expect(epsilon(accountant, run(noise), 1, 1e-6)).toBeLessThanOrEqual(target);
      // And hardly more noise than needed.
      expect(epsilon(accountant, run(noise * (1 - 3e-4)), 1, 1e-6)).toBeGreaterThan(target);
    }
  });

  it('says so when nothing in range is enough', () => {
    const request = { accountant: new GaussianAccountant('replaceOne'), event: (noiseMultiplier: number): DpEvent => ({ kind: 'gaussian', noiseMultiplier }), delta: 1e-6 };
    expect(() => calibrateParameter({ ...request, epsilon: 1e-3, range: [1, 2] })).toThrow(FederationError);
    expect(() => calibrateParameter({ ...request, epsilon: 0 })).toThrow(FederationError);
    expect(() => calibrateParameter({ ...request, epsilon: NaN })).toThrow(FederationError);
  });
});

describe('check 10: exact <= PLD <= RDP, and PLD is not below the truth', () => {
  it.each([[1, 1, 1e-5], [10, 100, 1e-6], [0.3, 1, 1e-5], [50, 1000, 1e-10]])('Gaussian z %d, %d releases, delta %d', (noiseMultiplier, count, delta) => {
    const event: DpEvent = { kind: 'gaussian', noiseMultiplier };
    const exact = epsilon(new GaussianAccountant('replaceOne'), event, count, delta);
    const pld = epsilon(new PldAccountant('replaceOne'), event, count, delta);
    expect(pld).toBeGreaterThanOrEqual(exact);
    expect(pld).toBeLessThan(exact * (1 + 1e-6));
    expect(epsilon(new RdpAccountant('replaceOne'), event, count, delta)).toBeGreaterThan(pld);
    expect(epsilon(new ZcdpAccountant('replaceOne'), event, count, delta)).toBeGreaterThan(pld);
  });

  it.each([[0.01, 1, 1000], [0.5, 2, 20]])('DP-SGD q %d, z %d, %d steps', (q, z, steps) => {
    const pld = epsilon(new PldAccountant('addOrRemoveRecord'), dpSgd(q, z), steps);
    expect(epsilon(new RdpAccountant('addOrRemoveRecord'), dpSgd(q, z), steps)).toBeGreaterThan(pld);
    // A coarser grid is a looser bound, never a lower one.
    expect(epsilon(new PldAccountant('addOrRemoveRecord', 4e-3), dpSgd(q, z), steps)).toBeGreaterThanOrEqual(pld * (1 - 1e-9));
  });

  it('randomized response: the closed form of one and of ten reports', () => {
    const response: DpEvent = { kind: 'randomizedResponse', epsilon: 2, categories: 10 };
    const top = 1 / (1 + 9 * Math.exp(-2));
    // delta(epsilon) = top^T (1 - e^(epsilon - 2T)) while epsilon is above the second largest loss.
    const exact = (count: number, delta: number) => 2 * count + Math.log1p(-delta / top ** count);
    for (const [count, delta] of [[1, 1e-5], [10, 1e-5], [3, 1e-12]] as const) {
      const pld = epsilon(new PldAccountant('replaceOne'), response, count, delta);
      expect(pld / exact(count, delta)).toBeCloseTo(1, 9);
      expect(pld).toBeGreaterThanOrEqual(exact(count, delta) * (1 - 1e-13));
      expect(epsilon(new PureAccountant('replaceOne'), response, count, delta)).toBeGreaterThan(pld);
    }
  });

  it('discrete Gaussian, 100 releases: the exact value, from the sum of the noises', () => {
    // P[S = k] of the sum of 100 discrete Gaussians of sigma 10, by direct convolution; loss (100 - 2 S) / 200.
    const reach = 140;
    const single = Array.from({ length: 2 * reach + 1 }, (_, index) => Math.exp(-((index - reach) ** 2) / 200));
    const total = single.reduce((sum, weight) => sum + weight, 0);
    let power = [1];
    for (let round = 0; round < 100; round++) {
      const next = new Array<number>(power.length + 2 * reach).fill(0);
      for (let i = 0; i < power.length; i++) if (power[i]! > 1e-40) for (let j = 0; j <= 2 * reach; j++) next[i + j]! += (power[i]! * single[j]!) / total;
      power = next;
    }
    const center = 100 * reach;
    const delta = (bound: number) => power.reduce((sum, mass, index) => sum + mass * Math.max(0, -Math.expm1(bound - (100 - 2 * (index - center)) / 200)), 0);
    const pld = epsilon(new PldAccountant('replaceOne'), { kind: 'discreteGaussian', sigma: 10, l2Sensitivity: 1, dimension: 1 }, 100, 1e-6);
    expect(delta(pld)).toBeLessThanOrEqual(1e-6);
    expect(delta(pld - 1e-6)).toBeGreaterThan(1e-6);
  });

  it('what may be discrete is not accounted as continuous', () => {
    // One grid step: the discrete Laplace is exactly randomized response, and costs more than the continuous one.
    const discrete = epsilon(new RdpAccountant('replaceOne'), { kind: 'discreteLaplace', scale: 2, l1Sensitivity: 1, dimension: 1 }, 20);
    const either = epsilon(new RdpAccountant('replaceOne'), { kind: 'laplace', noiseMultiplier: 2 }, 20);
    const continuous = epsilon(new RdpAccountant('replaceOne'), { kind: 'continuousLaplace', noiseMultiplier: 2, dimension: 1 }, 20);
    expect(either / discrete).toBeCloseTo(1, 9);
    expect(continuous).toBeLessThan(discrete * 0.99);
  });
});

describe('check 11: extreme parameters are finite and not negative', () => {
  const gaussians = [1e-3, 1, 1e6].flatMap((sigma) => [1e-30, 1e-5].map((delta) => [sigma, delta] as const));
  it.each(gaussians)('Gaussian sigma %d, delta %d', (noiseMultiplier, delta) => {
    for (const accountant of [new GaussianAccountant('replaceOne'), new ZcdpAccountant('replaceOne'), new RdpAccountant('replaceOne'), new PldAccountant('replaceOne')]) {
      const value = epsilon(accountant, { kind: 'gaussian', noiseMultiplier }, 3, delta);
      expect([accountant.name, Number.isFinite(value), value >= 0]).toEqual([accountant.name, true, true]);
      expect(value).toBeGreaterThanOrEqual(gaussianEpsilon(delta, Math.sqrt(3) / noiseMultiplier) * (1 - 1e-12));
    }
  });

  const sampled = [1e-6, 0.01].flatMap((q) => [1e-3, 1e6].map((sigma) => [q, sigma] as const));
  it.each(sampled)('DP-SGD q %d, sigma %d, delta 1e-30', (q, sigma) => {
    const curve = poissonSampledGaussianRdp(q, sigma, DEFAULT_ORDERS);
    expect(curve.every((value) => value > 0 && Number.isFinite(value))).toBe(true);
    for (const accountant of record()) {
      const value = epsilon(accountant, dpSgd(q, sigma), 2, 1e-30);
      expect([accountant.name, Number.isFinite(value), value >= 0]).toEqual([accountant.name, true, true]);
    }
  });

  it.each(families)('$name at noise 1e-3, 1e6 and delta 1e-30', ({ relation, event }) => {
    for (const noise of [1e-3, 1e6]) {
      for (const accountant of accountantsOf(relation).filter((item) => item.check(event(noise)) === undefined)) {
        const value = epsilon(accountant, event(noise), 2, 1e-30);
        expect([accountant.name, noise, Number.isNaN(value), value >= 0]).toEqual([accountant.name, noise, false, true]);
      }
    }
  });
});
