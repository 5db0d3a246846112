import { describe, expect, it } from 'vitest';
import { accountantFor, CompositeAccountant } from '../../../../shared/privacy/accountants/composite-accountant.ts';
import { GaussianAccountant } from '../../../../shared/privacy/accountants/gaussian-accountant.ts';
import { PureAccountant } from '../../../../shared/privacy/accountants/pure-accountant.ts';
import { PldAccountant } from '../../../../shared/privacy/accountants/pld.ts';
import { RdpAccountant } from '../../../../shared/privacy/accountants/rdp.ts';
import { ZcdpAccountant } from '../../../../shared/privacy/accountants/zcdp.ts';
import type { DpEvent } from '../../../../shared/privacy/dp-event.ts';
import type { Delta } from '../../../../shared/types/units.ts';
import { describeAccountantContract } from '../../../contracts/accountant.ts';

const gaussian: DpEvent = { kind: 'gaussian', noiseMultiplier: 3.14159 };
const laplace: DpEvent = { kind: 'laplace', noiseMultiplier: 2.71828 };
const delta = 1e-6 as Delta;

describeAccountantContract({ name: 'exact Gaussian', create: () => new GaussianAccountant('replaceOne'), supported: gaussian, unsupported: laplace });
describeAccountantContract({ name: 'pure', create: () => new PureAccountant('replaceOne'), supported: laplace, unsupported: gaussian });
describeAccountantContract({ name: 'composite, Gaussian part', create: () => new CompositeAccountant('zeroOut'), supported: gaussian });
describeAccountantContract({ name: 'composite, Laplace part', create: () => new CompositeAccountant('zeroOut'), supported: laplace });

const sampled: DpEvent = { kind: 'poissonSampled', samplingProbability: 0.0271828, event: { kind: 'gaussian', noiseMultiplier: 1.61803 } };
const withoutReplacement: DpEvent = { kind: 'sampledWithoutReplacement', sampleSize: 271, datasetSize: 31_415, event: { kind: 'gaussian', noiseMultiplier: 1.61803 } };
const distributed: DpEvent = { kind: 'distributedDiscreteGaussian', sigma: 314.159, shares: 17, l2Sensitivity: 271.8, l1Sensitivity: 2718, dimension: 100 };
const skellam: DpEvent = { kind: 'skellam', variance: 314_159, l2Sensitivity: 271.8, l1Sensitivity: 2718 };
const response: DpEvent = { kind: 'randomizedResponse', epsilon: 0.577, categories: 10 };
const zcdp: DpEvent = { kind: 'zcdp', rho: 0.0271828 };
const votes: DpEvent = { kind: 'confidentGnMax', sigmaThreshold: 31.4, sigmaVotes: 27.1, queries: 5, answered: 3 };

describeAccountantContract({ name: 'exact Gaussian, votes', create: () => new GaussianAccountant('replaceOne'), supported: votes, second: gaussian, unsupported: distributed });
describeAccountantContract({ name: 'pure, local votes', create: () => new PureAccountant('replaceOne'), supported: response, second: laplace, unsupported: zcdp });
describeAccountantContract({ name: 'Rényi', create: () => new RdpAccountant('addOrRemoveRecord'), supported: gaussian, second: sampled, unsupported: withoutReplacement });
describeAccountantContract({ name: 'Rényi, DP-SGD', create: () => new RdpAccountant('addOrRemoveRecord'), supported: sampled, second: laplace, unsupported: response });
describeAccountantContract({ name: 'Rényi, fixed batches', create: () => new RdpAccountant('replaceRecord'), supported: withoutReplacement, second: response, unsupported: sampled });
describeAccountantContract({ name: 'Rényi, distributed noise', create: () => new RdpAccountant('replaceOne'), supported: distributed, second: skellam, unsupported: sampled });
describeAccountantContract({ name: 'PLD', create: () => new PldAccountant('replaceOne'), supported: gaussian, second: response, unsupported: skellam });
describeAccountantContract({ name: 'PLD, DP-SGD', create: () => new PldAccountant('addOrRemoveRecord'), supported: sampled, second: gaussian, unsupported: zcdp });
describeAccountantContract({ name: 'PLD, local votes', create: () => new PldAccountant('replaceOne'), supported: response, second: laplace, unsupported: sampled });
describeAccountantContract({ name: 'zCDP', create: () => new ZcdpAccountant('replaceOne'), supported: zcdp, second: votes, unsupported: sampled });

describe('what an event means under a relation', () => {
  it.each(['replaceOne', 'zeroOut'] as const)('sampling never lowers a client-level epsilon: refused under %s', (relation) => {
    for (const accountant of [new RdpAccountant(relation), new PldAccountant(relation), new ZcdpAccountant(relation), new GaussianAccountant(relation)]) {
      expect(() => accountant.compose(sampled)).toThrow(expect.objectContaining({ code: 'event-unsupported' }));
      expect(() => accountant.compose(withoutReplacement)).toThrow(expect.objectContaining({ code: 'event-unsupported' }));
    }
  });

  it('a replaced vote costs more than a withheld one', () => {
    const event: DpEvent = { kind: 'gnMax', sigma: 40, queries: 100 };
    const replaced = new GaussianAccountant('replaceOne').compose(event).epsilon(delta);
    const withheld = new GaussianAccountant('zeroOut').compose(event).epsilon(delta);
    expect(replaced).toBeGreaterThan(withheld);
    expect(replaced).toBeCloseTo(new GaussianAccountant('replaceOne').compose({ kind: 'gaussian', noiseMultiplier: 40 / Math.SQRT2 }, 100).epsilon(delta), 10);
  });

  it('a local vote has no version in which the client is absent', () => {
    expect(new RdpAccountant('zeroOut').check(response)).toBeDefined();
    expect(new PureAccountant('zeroOut').check(response)).toBeDefined();
  });

  it('charges the threshold test for every query, answered or not', () => {
    const cost = (answered: number) => new RdpAccountant('replaceOne').compose({ kind: 'confidentGnMax', sigmaThreshold: 30, sigmaVotes: 20, queries: 100, answered }).epsilon(delta);
    expect(cost(0)).toBeGreaterThan(0);
    expect(cost(1)).toBeGreaterThan(cost(0));
    expect(() => cost(101)).toThrow(expect.objectContaining({ code: 'event-unsupported', field: 'answered' }));
  });

  it.each<DpEvent>([
    { kind: 'subsetSelection', epsilon: 1, categories: 10, subsetSize: 10 },
    { kind: 'sampledWithoutReplacement', sampleSize: 11, datasetSize: 10, event: { kind: 'gaussian', noiseMultiplier: 1 } },
    { kind: 'poissonSampled', samplingProbability: 1.5, event: { kind: 'gaussian', noiseMultiplier: 1 } },
    { kind: 'zcdp', rho: NaN },
    { kind: 'skellam', variance: -1, l2Sensitivity: 1, l1Sensitivity: 1 },
  ])('refuses impossible parameters: $kind', (event) => {
    expect(() => new RdpAccountant('addOrRemoveRecord').check(event)).toThrow(expect.objectContaining({ code: 'event-unsupported' }));
  });
});

describe('accountantFor', () => {
  it('picks the tight accountant when it can and says which', () => {
    expect(accountantFor([gaussian], 'replaceOne').name).toBe('exact-gaussian');
    expect(accountantFor([laplace], 'replaceOne').name).toBe('pure-composition');
    expect(accountantFor([gaussian, laplace], 'zeroOut').name).toBe('exact-gaussian+pure-composition');
    expect(accountantFor([gaussian, laplace], 'zeroOut').neighboringRelation).toBe('zeroOut');
    expect(accountantFor([gaussian, distributed], 'replaceOne').name).toBe('renyi');
    expect(() => accountantFor([sampled], 'replaceOne')).toThrow(expect.objectContaining({ code: 'event-unsupported' }));
  });

  it('charges a mixture at least as much as each part, and at most their sum', () => {
    const parts = [accountantFor([gaussian, gaussian], 'replaceOne').epsilon(delta), accountantFor([laplace], 'replaceOne').epsilon(delta)];
    const both = accountantFor([gaussian, laplace, gaussian], 'replaceOne').epsilon(delta);
    expect(both).toBeGreaterThan(Math.max(...parts));
    expect(both / (parts[0]! + parts[1]!)).toBeCloseTo(1, 12);
  });

  it('lets epsilon fall with noise', () => {
    for (const kind of ['gaussian', 'laplace'] as const) {
      let previous = Infinity;
      for (const noiseMultiplier of [0.271828, 1, 3.14159, 100]) {
        const epsilon = accountantFor([{ kind, noiseMultiplier }], 'replaceOne').epsilon(delta);
        expect(epsilon).toBeLessThan(previous);
        previous = epsilon;
      }
    }
  });
});
