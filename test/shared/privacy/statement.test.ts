import { describe, expect, it } from 'vitest';
import { chargedRelease } from '../../../shared/privacy/ledger.ts';
import { planRelease } from '../../../shared/privacy/release.ts';
import type { PrivacyStatement } from '../../../shared/privacy/statement.ts';
import { buildStatement, PrivacyStatementSchema, renderStatement } from '../../../shared/privacy/statement.ts';
import type { Delta } from '../../../shared/types/units.ts';

const delta = 1e-5 as Delta;
const plan = (mechanism: 'gaussian' | 'laplace' | 'none') =>
  planRelease({ mechanism, outputKind: 'logits', rows: 50, columns: 10, rowClippingNorm: 5, gridStep: 1 / 64, epsilon: 4, delta, releases: 3 });
const build = (mechanism: 'gaussian' | 'laplace' | 'none', trustMode: 'sealed' | 'clear' = 'sealed') =>
  buildStatement({ trustMode, parameters: plan(mechanism), delta, ledger: [1, 2, 3].map(() => chargedRelease(plan(mechanism))) });

describe('the privacy statement', () => {
  it.each(['gaussian', 'laplace'] as const)('%s: prints an epsilon only with everything that gives it meaning', (mechanism) => {
    const text = renderStatement(build(mechanism));
    const lines = text.split('\n').filter((line) => line.includes('epsilon'));
    expect(lines).toHaveLength(4);
    for (const line of lines) expect(line).toMatch(/^(One release|Lifetime, 3 releases charged): epsilon <= [\d.]+ at delta 0\.00001; unit client; adjacency (replace-one|zero-out) .*; accountant [a-z+-]+ version 1\.$/);
    expect(text).toMatch(/Adversary: everyone who sees/);
    expect(text).toMatch(/50 transfer rows x 10 classes per release/);
    expect(text).toMatch(/Sensitivity of the whole matrix \(L[12]\): [\d.]+ grid steps replace-one, [\d.]+ zero-out/);
    expect(text).toMatch(/fresh for every release/);
    expect(text).toMatch(/Not protected:\n {2}- that a client takes part/);
  });

  it('prints upper bounds: nothing is rounded down', () => {
    const statement = build('gaussian');
    if (statement.claim !== 'differentialPrivacy') throw new Error('expected a claim');
    const printed = [...renderStatement(statement).matchAll(/epsilon <= ([\d.]+)/g)].map((match) => Number(match[1]));
    statement.guarantees.forEach((guarantee, i) => {
      expect(printed[i]).toBeGreaterThanOrEqual(guarantee.epsilon as number);
      expect(printed[i]! / (guarantee.epsilon as number)).toBeLessThan(1.002);
    });
    expect(statement.guarantees.find((item) => item.scope === 'lifetime' && item.adjacency === 'replaceOne')!.epsilon).toBeLessThanOrEqual(4);
  });

  it('says in plain words that mechanism none gives no differential privacy', () => {
    const statement = build('none');
    expect(statement).toMatchObject({ claim: 'none', epsilon: 'infinite' });
    const text = renderStatement(statement);
    expect(text).toContain('NO DIFFERENTIAL PRIVACY');
    expect(text).toContain('There is no differential privacy here: epsilon is infinite');
    expect(text).not.toMatch(/epsilon <=/);
  });

  it('claims nothing in clear mode, noise or not', () => {
    expect(build('gaussian', 'clear')).toMatchObject({ claim: 'none', reason: expect.stringContaining('clear mode') as string });
  });

  it('does not hide an earlier release without noise behind a later one with it', () => {
    const statement = buildStatement({ trustMode: 'sealed', parameters: plan('gaussian'), delta, ledger: [chargedRelease(plan('none')), chargedRelease(plan('gaussian'))] });
    expect(renderStatement(statement)).toMatch(/Lifetime, 2 releases charged: epsilon is infinite/);
  });

  it('goes through JSON unchanged', () => {
    for (const mechanism of ['gaussian', 'laplace', 'none'] as const) {
      const statement = build(mechanism);
      expect(PrivacyStatementSchema.parse(JSON.parse(JSON.stringify(statement)))).toEqual(statement);
    }
  });
});

describe('the statement of private training', () => {
  const parameters = planRelease({ mechanism: 'dpSgd', outputKind: 'probabilities', rows: 50, columns: 10, gridStep: 1 / 4096, epsilon: 4, delta, releases: 3, privateTraining: { clippingNorm: 1.5, samplingRate: 0.05, steps: 40 } });
  const statement = buildStatement({ trustMode: 'sealed', parameters, delta, ledger: [1, 2, 3].map(() => chargedRelease(parameters)) });

  it('has everything that gives its epsilon a meaning: unit, adversary, noise, sampling, steps, accountant', () => {
    expect(statement).toMatchObject({ claim: 'privateTraining', mechanism: 'dpSgd', unit: 'record', shards: null, training: parameters.noise, stepsSoFar: 120 });
    expect(PrivacyStatementSchema.parse(JSON.parse(JSON.stringify(statement)))).toEqual(statement);
    const text = renderStatement(statement);
    const lines = text.split('\n').filter((line) => line.includes('epsilon'));
    expect(lines).toHaveLength(4);
    for (const line of lines) expect(line).toMatch(/^(One release|Lifetime, 3 releases charged): epsilon <= [\d.]+ at delta 0\.00001; unit record; adjacency (replace-one-record|remove-one-record) .*; accountant renyi version 1\.$/);
    expect(text).toMatch(/Unit: record \(one example of one client\)\./);
    expect(text).toMatch(/Adversary: everyone who sees the predictions/);
    expect(text).toMatch(/times the clipping norm 1\.5 on the sum/);
    expect(text).toMatch(/with probability 0\.05, independently \(Poisson\); 40 steps are charged with each release, 120 so far/);
    expect(text).toMatch(/low-order bits of weights/);
    expect(text).toMatch(/how many records a client has/);
    expect(text).not.toMatch(/grid steps/);
  });

  it('keeps its promise, and a missing record costs less than another one', () => {
    if (statement.claim !== 'privateTraining') throw new Error('expected a claim');
    const lifetime = (adjacency: string) => statement.guarantees.find((item) => item.scope === 'lifetime' && item.adjacency === adjacency)!.epsilon as number;
    expect(lifetime('replaceOne')).toBeLessThanOrEqual(4);
    expect(lifetime('zeroOut')).toBeLessThan(0.6 * lifetime('replaceOne'));
  });

  it('is one for records also over a ledger with releases that protect clients', () => {
    const mixed = buildStatement({ trustMode: 'sealed', parameters, delta, ledger: [chargedRelease(plan('gaussian')), chargedRelease(parameters)] });
    if (mixed.claim !== 'privateTraining') throw new Error('expected a claim');
    for (const item of mixed.guarantees) expect([item.unit, Number.isFinite(item.epsilon)]).toEqual(['record', true]);
    expect(mixed.stepsSoFar).toBe(40);
  });

  it('claims nothing for seeded noise, or in the clear', () => {
    const input = { parameters, delta, ledger: [] };
    expect(buildStatement({ ...input, trustMode: 'sealed', isNoiseSeeded: true }).claim).toBe('none');
    expect(buildStatement({ ...input, trustMode: 'clear' }).claim).toBe('none');
  });

  it('is none without one of its parts', () => {
    for (const change of [{ training: undefined }, { guarantees: [] }, { unit: 'client' }, { stepsSoFar: undefined }]) {
      expect(() => renderStatement({ ...statement, ...change } as PrivacyStatement)).toThrow(expect.objectContaining({ code: 'internal' }));
    }
  });
});

const distributed = (change: object = {}) =>
  planRelease({ mechanism: 'discreteGaussian', outputKind: 'probabilities', rows: 50, columns: 10, gridStep: 1 / 4096, epsilon: 4, delta, releases: 3, shares: 5, ...change });
const buildSum = (change: object = {}, maxCorrupt = 1, releases = [distributed(change), distributed(change), distributed(change)]) =>
  buildStatement({ trustMode: 'secure-aggregation', parameters: distributed(change), secureAggregation: { minSurvivors: 5 + maxCorrupt, maxCorrupt }, delta, ledger: releases.map(chargedRelease) });

describe('the statement of secure sums', () => {
  it('prints an epsilon only with everything that gives it meaning, against the coordinator and against other clients', () => {
    const text = renderStatement(buildSum({ shards: 25, votes: true }));
    const lines = text.split('\n').filter((line) => line.includes('epsilon'));
    expect(lines).toHaveLength(8);
    for (const line of lines) {
      expect(line).toMatch(/^(One release|Lifetime, 3 releases charged): epsilon <= [\d.]+ at delta 0\.00001; unit record; adjacency (replace-one-record|remove-one-record) \(.*\); against "(coordinator|participants)"; accountant renyi version 1\.$/);
    }
    expect(text).toMatch(/Adversary "coordinator": the coordinator, curious or malicious, together with up to 1 client of a round.*Computational.*Needs 5 honest clients/);
    expect(text).toMatch(/Adversary "participants": other clients, up to 1 of them working together/);
    expect(text).toMatch(/votes, summed over 25 shards of a client's records, 50 transfer rows x 10 classes per release, 150 rows per client so far, trust mode secure-aggregation \(sums over at least 6 clients, up to 1 of them corrupt\)/);
    expect(text).toMatch(/discrete Gaussian at each client, standard deviation \d+ grid steps.* 5 such shares are counted in a sum/);
    expect(text).toMatch(/Sensitivity of the whole matrix of one shard \(L2\)/);
    for (const gap of [/fill a round with clients of its own/, /integers that wrap around/, /set back to an earlier state/, /all records of a client have in common/]) expect(text).toMatch(gap);
  });

  it('counts one share less against a participant who knows its own, when nobody is assumed corrupt', () => {
    const lifetime = (maxCorrupt: number, adversary: string) => {
      const statement = buildSum({}, maxCorrupt);
      if (statement.claim !== 'differentialPrivacy') throw new Error('expected a claim');
      return statement.guarantees.find((item) => item.scope === 'lifetime' && item.adjacency === 'replaceOne' && item.adversary === adversary)!.epsilon as number;
    };
    expect(lifetime(0, 'coordinator')).toBeLessThanOrEqual(4);
    expect(lifetime(0, 'participants')).toBeGreaterThan(4);
    expect(lifetime(1, 'participants')).toBe(lifetime(1, 'coordinator'));
  });

  it('states the weaker unit for a lifetime that mixes clients and records, and takes no zero-out of theirs for a record', () => {
    const statement = buildSum({ shards: 25 }, 1, [distributed(), distributed({ shards: 25 })]);
    if (statement.claim !== 'differentialPrivacy') throw new Error('expected a claim');
    const lifetime = statement.guarantees.filter((item) => item.scope === 'lifetime' && item.adversary === 'coordinator');
    expect(lifetime.map((item) => item.unit)).toEqual(['record', 'record']);
    expect(lifetime[0]!.epsilon).toBe(lifetime[1]!.epsilon);
  });

  it('claims nothing for masks without noise, or for a share outside a sum', () => {
    const cohort = { minSurvivors: 6, maxCorrupt: 1 };
    const masked = buildStatement({ trustMode: 'secure-aggregation', parameters: plan('none'), secureAggregation: cohort, delta, ledger: [] });
    expect(masked).toMatchObject({ claim: 'none', epsilon: 'infinite', reason: expect.stringContaining('not differential privacy') as string });
    expect(renderStatement(masked)).not.toMatch(/epsilon <=/);
    expect(buildStatement({ trustMode: 'sealed', parameters: distributed(), delta, ledger: [] })).toMatchObject({ claim: 'none' });
    expect(buildStatement({ trustMode: 'secure-aggregation', parameters: plan('gaussian'), secureAggregation: cohort, delta, ledger: [] })).toMatchObject({ claim: 'none' });
  });

  it.each([
    ['no cohort', { secureAggregation: undefined }],
    ['a cohort of null', { secureAggregation: null }],
    ['fewer honest clients than shares that are counted', { secureAggregation: { minSurvivors: 5, maxCorrupt: 1 } }],
    ['honest clients that are no number', { secureAggregation: { minSurvivors: 6, maxCorrupt: NaN } }],
  ])('is not built with %s', (_what, change) => {
    expect(() => buildStatement({ trustMode: 'secure-aggregation', parameters: distributed(), delta, ledger: [], ...change })).toThrow(expect.objectContaining({ code: 'internal' }));
  });

  it.each([
    ['a sum without a cohort', { secureAggregation: null }],
    ['more shares than honest clients', { noise: { law: 'discrete Gaussian', parameterGrid: 1000, shares: 6, gridStep: 1 / 4096 } }],
    ['an adversary without guarantees', { guarantees: buildGuarantees().slice(0, 4) }],
    ['a guarantee twice, and another one missing', { guarantees: [...buildGuarantees().slice(0, 7), buildGuarantees()[0]] }],
    ['records without shards', { unit: 'record' }],
    ['local noise in a sum', { mechanism: 'gaussian' }],
  ])('is not printed with %s', (_what, change) => {
    expect(() => renderStatement({ ...buildSum(), ...change } as PrivacyStatement)).toThrow(expect.objectContaining({ code: 'internal' }));
  });
});

function buildGuarantees() {
  const statement = buildSum();
  return statement.claim === 'differentialPrivacy' ? statement.guarantees : [];
}

describe.each([['local', build('gaussian')], ['sum', buildSum({ shards: 25 })]] as const)('a statement of a %s', (_kind, statement) => {
  it('throws for every missing field, at every depth', () => {
    const drop = (value: unknown, path: readonly string[]): unknown => {
      const copy = structuredClone(value) as Record<string, unknown>;
      let target = copy;
      for (const key of path.slice(0, -1)) target = target[key] as Record<string, unknown>;
      delete target[path.at(-1)!];
      return copy;
    };
    const paths: string[][] = [];
    const walk = (value: unknown, path: string[]) => {
      if (path.length > 0 && !path.some((key) => key === 'notProtected' && path.at(-1) !== key)) paths.push(path);
      if (value !== null && typeof value === 'object') for (const [key, child] of Object.entries(value)) walk(child, [...path, key]);
    };
    walk(statement, []);
    expect(paths.length).toBeGreaterThan(40);
    for (const path of paths) expect(() => renderStatement(drop(statement, path) as PrivacyStatement), path.join('.')).toThrow(expect.objectContaining({ code: 'internal' }));
  });
});
