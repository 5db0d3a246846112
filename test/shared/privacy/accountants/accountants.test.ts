import { describe, expect, it } from 'vitest';
import { accountantFor, CompositeAccountant } from '../../../../shared/privacy/accountants/composite-accountant.ts';
import { GaussianAccountant } from '../../../../shared/privacy/accountants/gaussian-accountant.ts';
import { PureAccountant } from '../../../../shared/privacy/accountants/pure-accountant.ts';
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

describe('accountantFor', () => {
  it('picks the tight accountant when it can and says which', () => {
    expect(accountantFor([gaussian], 'replaceOne').name).toBe('exact-gaussian');
    expect(accountantFor([laplace], 'replaceOne').name).toBe('pure-composition');
    expect(accountantFor([gaussian, laplace], 'zeroOut').name).toBe('exact-gaussian+pure-composition');
    expect(accountantFor([gaussian, laplace], 'zeroOut').neighboringRelation).toBe('zeroOut');
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
