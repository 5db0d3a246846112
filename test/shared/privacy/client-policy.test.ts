import { describe, expect, it } from 'vitest';
import type { ClientPolicy, ReleaseProposal } from '../../../shared/privacy/client-policy.ts';
import { decide, DEFAULT_MIN_HONEST, refusalError } from '../../../shared/privacy/client-policy.ts';
import { chargedRelease } from '../../../shared/privacy/ledger.ts';
import { planRelease } from '../../../shared/privacy/release.ts';
import { DEFAULT_MIN_HONEST as CORE_MIN_HONEST } from '../../../shared/secure-aggregation/parameters.ts';
import type { Delta, Epsilon } from '../../../shared/types/units.ts';

const plan = (mechanism: 'gaussian' | 'laplace' | 'none') =>
  planRelease({ mechanism, outputKind: 'probabilities', rows: 50, columns: 10, gridStep: 1 / 256, epsilon: 4, delta: 1e-5, releases: 3 });
const policy: ClientPolicy = { maxEpsilon: 4 as Epsilon, delta: 1e-5 as Delta, minCohort: 3, allowedMechanisms: ['gaussian'], allowClear: false, maxRounds: 10, minHonest: DEFAULT_MIN_HONEST };
const proposal: ReleaseProposal = { trustMode: 'sealed', parameters: plan('gaussian'), roundsDone: 0, cohortSize: 5, quorum: 3, ledger: [] };
const charged = (count: number) => Array.from({ length: count }, () => chargedRelease(plan('gaussian')));

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
    ['local noise under secure aggregation', { trustMode: 'secure-aggregation', secureAggregation: { minSurvivors: 6, maxCorrupt: 1 } }, 'trustMode'],
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

describe('decide, for secure sums', () => {
  const distributed = (change: object = {}) =>
    planRelease({ mechanism: 'discreteGaussian', outputKind: 'probabilities', rows: 50, columns: 10, gridStep: 1 / 4096, epsilon: 4, delta: 1e-5, releases: 3, shares: 5, ...change });
  const open: ClientPolicy = { ...policy, allowedMechanisms: ['gaussian', 'discreteGaussian'] };
  const sum: ReleaseProposal = { ...proposal, trustMode: 'secure-aggregation', parameters: distributed(), secureAggregation: { minSurvivors: 6, maxCorrupt: 1 }, cohortSize: 8, quorum: 6 };

  it('accepts shares of honest survivors, for clients and for records', () => {
    expect(decide(open, sum)).toMatchObject({ kind: 'accept' });
    expect(decide(open, { ...sum, parameters: distributed({ shards: 25, votes: true }) })).toMatchObject({ kind: 'accept' });
  });

  it.each<[string, Partial<ClientPolicy>, Partial<ReleaseProposal>, string, RegExp]>([
    ['a sum of unknown clients', {}, { secureAggregation: undefined }, 'trustMode', /does not say how many clients/],
    ['fewer honest clients than the owner wants', { minHonest: 6 }, {}, 'minHonest', /Only 5 honest clients are sure to be in a sum/],
    ['fewer than the default', {}, { secureAggregation: { minSurvivors: 5, maxCorrupt: 1 }, parameters: distributed({ shares: 4 }) }, 'minHonest', /Only 4 honest clients/],
    ['more shares than honest survivors (the floor ignored)', {}, { parameters: distributed({ shares: 6 }) }, 'shares', /counts the noise of 6 clients, and only 5 honest ones/],
    ['corrupt clients that are no number', {}, { secureAggregation: { minSurvivors: 6, maxCorrupt: NaN } }, 'minHonest', /honest/],
    ['a limit that is no number', { minHonest: NaN }, {}, 'minHonest', /honest/],
    ['a share of noise outside a sum', {}, { trustMode: 'sealed' }, 'trustMode', /share of the noise outside a secure sum/],
    ['a share of noise in the clear', { allowClear: true }, { trustMode: 'clear' }, 'trustMode', /share of the noise/],
    ['records only, where everything was to be protected', { unit: 'client' }, { parameters: distributed({ shards: 25 }) }, 'unit', /single records/],
    ['no noise, unless it is allowed', {}, { parameters: plan('none') }, 'allowedMechanisms', /no protective noise/],
    ['a cohort whose sum would wrap', {}, { cohortSize: 400, parameters: distributed({ shards: 10_000, gridStep: 1 / 4096 }) }, 'gridStep', /would not fit its 32-bit integers/],
    ['a mechanism that is not allowed', { allowedMechanisms: ['gaussian'] }, {}, 'allowedMechanisms', /discreteGaussian noise/],
    ['a small quorum', { minCohort: 7 }, {}, 'minCohort', /Only 6 clients/],
  ])('refuses %s', (_what, ownPolicy, change, field, reason) => {
    const decision = decide({ ...open, ...ownPolicy }, { ...sum, ...change });
    expect(decision).toMatchObject({ kind: 'refuse', code: 'policy-refused', field });
    if (decision.kind === 'refuse') expect(decision.reason).toMatch(reason);
  });

  it('accepts masks alone only from an owner who allows no noise', () => {
    const none = { ...sum, parameters: plan('none') };
    expect(decide({ ...open, allowedMechanisms: ['none'], maxEpsilon: Infinity as Epsilon }, none)).toEqual({ kind: 'accept', epsilonAfter: Infinity });
  });

  it('names the unit of the total in a refusal for the budget', () => {
    const records = distributed({ shards: 25 });
    const decision = decide(open, { ...sum, parameters: records, ledger: [1, 2, 3].map(() => chargedRelease(records)) });
    expect(decision).toMatchObject({ code: 'budget-exhausted', reason: expect.stringContaining('(one record, replace-one, delta 0.00001)') as string });
  });

  it('has the default of the core', () => {
    expect(DEFAULT_MIN_HONEST).toBe(CORE_MIN_HONEST);
  });
});
