import { describe, expect, it } from 'vitest';
import type { ClientPolicy, ReleaseProposal } from '../../../shared/privacy/client-policy.ts';
import { decide, refusalError } from '../../../shared/privacy/client-policy.ts';
import { planRelease, releaseEvents } from '../../../shared/privacy/release.ts';
import type { Delta, Epsilon } from '../../../shared/types/units.ts';

const plan = (mechanism: 'gaussian' | 'laplace' | 'none') =>
  planRelease({ mechanism, outputKind: 'probabilities', rows: 50, columns: 10, gridStep: 1 / 256, epsilon: 4, delta: 1e-5, releases: 3 });
const policy: ClientPolicy = { maxEpsilon: 4 as Epsilon, delta: 1e-5 as Delta, minCohort: 3, allowedMechanisms: ['gaussian'], allowClear: false, maxRounds: 10 };
const proposal: ReleaseProposal = { trustMode: 'sealed', parameters: plan('gaussian'), roundsDone: 0, cohortSize: 5, quorum: 3, ledger: [] };
const charged = (count: number) => Array.from({ length: count }, () => ({ events: releaseEvents(plan('gaussian')) }));

describe('decide', () => {
  it('accepts every planned round and refuses the one after', () => {
    for (const done of [0, 1, 2]) expect(decide(policy, { ...proposal, roundsDone: done, ledger: charged(done) }).kind).toBe('accept');
    const refused = decide(policy, { ...proposal, roundsDone: 3, ledger: charged(3) });
    expect(refused).toMatchObject({ kind: 'refuse', code: 'budget-exhausted', field: 'maxEpsilon' });
    if (refused.kind === 'refuse') expect(refused.reason).toMatch(/total privacy loss from epsilon 4\.000 to 4\.\d+, above your limit of 4/);
  });

  it('counts releases that failed rounds have cost, whatever the coordinator says about rounds', () => {
    expect(decide(policy, { ...proposal, roundsDone: 0, ledger: charged(3) })).toMatchObject({ code: 'budget-exhausted' });
  });

  it('holds the budget for replace-one: a budget that only zero-out would meet is refused', () => {
    const between = decide({ ...policy, maxEpsilon: 2 as Epsilon }, { ...proposal, parameters: planRelease({ mechanism: 'gaussian', outputKind: 'probabilities', rows: 50, columns: 10, gridStep: 1 / 256, epsilon: 2.5, delta: 1e-5, releases: 1 }) });
    expect(between).toMatchObject({ code: 'budget-exhausted' });
  });

  it.each<[string, Partial<ReleaseProposal>, string]>([
    ['secure aggregation, which is not built', { trustMode: 'secure-aggregation' }, 'trustMode'],
    ['clear mode', { trustMode: 'clear' }, 'allowClear'],
    ['a mechanism that is not allowed', { parameters: plan('laplace') }, 'allowedMechanisms'],
    ['no noise', { parameters: plan('none') }, 'allowedMechanisms'],
    ['a small cohort', { cohortSize: 2 }, 'minCohort'],
    ['a small quorum', { quorum: 2 }, 'minCohort'],
    ['a cohort that is no number', { cohortSize: NaN }, 'minCohort'],
    ['too many rounds', { roundsDone: 10 }, 'maxRounds'],
  ])('refuses %s', (_what, change, field) => {
    const decision = decide(policy, { ...proposal, ...change });
    expect(decision).toMatchObject({ kind: 'refuse', code: 'policy-refused', field });
    if (decision.kind !== 'refuse') throw new Error('expected a refusal');
    expect(decision.reason).toMatch(/^[A-Z].*\.$/);
    expect(refusalError(decision)).toMatchObject({ code: 'policy-refused', exitStatus: 3, field });
  });

  it('refuses no noise under a finite limit even when the mechanism is allowed, and accepts it under none', () => {
    const permissive: ClientPolicy = { ...policy, allowedMechanisms: ['none'] };
    const refused = decide(permissive, { ...proposal, parameters: plan('none') });
    expect(refused).toMatchObject({ code: 'budget-exhausted' });
    if (refused.kind === 'refuse') expect(refused.reason).toContain('no differential privacy');
    expect(decide({ ...permissive, maxEpsilon: Infinity as Epsilon }, { ...proposal, parameters: plan('none') })).toEqual({ kind: 'accept', epsilonAfter: Infinity });
  });

  it('refuses when a limit is no number', () => {
    expect(decide({ ...policy, maxEpsilon: NaN as Epsilon }, proposal).kind).toBe('refuse');
    expect(decide({ ...policy, maxRounds: NaN }, proposal).kind).toBe('refuse');
    expect(decide({ ...policy, minCohort: NaN }, proposal).kind).toBe('refuse');
  });
});
