/** Releases of one vote a record: their sensitivity, their noise, what they refuse, and what they state. */
import { describe, expect, it } from 'vitest';
import { chargedRelease, spent } from '../../../shared/privacy/ledger.ts';
import { constrainContribution } from '../../../shared/privacy/clipping.ts';
import { checkSumFits, largestSum, planCost, planRelease, ReleaseParametersSchema, releaseUnit, type ReleasePlanRequest } from '../../../shared/privacy/release.ts';
import { buildStatement, PrivacyStatementSchema, renderStatement } from '../../../shared/privacy/statement.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';
import type { Delta } from '../../../shared/types/units.ts';

const delta = 1e-5 as Delta;
const request: ReleasePlanRequest = { mechanism: 'discreteGaussian', outputKind: 'probabilities', rows: 100, columns: 10, gridStep: 1 / 64, epsilon: 0.5, delta, releases: 1, shares: 8, recordVotes: 10_000 };
const sigmaOf = (change: Partial<ReleasePlanRequest>): number => (planRelease({ ...request, ...change }).noise as { readonly sigmaGrid: number }).sigmaGrid;
const counts = (...values: number[]): Matrix => ({ rows: 100, columns: 10, values: Float32Array.from({ length: 1000 }, (_, i) => values[i] ?? 0) });

describe('one vote a record', () => {
  it('costs the same for any number of queries and records, more for more releases, and never more than was asked for', () => {
    const sigma = sigmaOf({});
    expect(sigmaOf({ rows: 10_000 })).toBe(sigma);
    expect(sigmaOf({ recordVotes: 1 })).toBe(sigma);
    expect(sigmaOf({ releases: 4 })).toBeGreaterThan(1.9 * sigma);
    expect(planCost(planRelease(request), 1, delta)).toBeLessThanOrEqual(0.5);
    expect(planCost({ ...planRelease(request), noise: { sigmaGrid: sigma - 1, shares: 8 } } as never, 1, delta)).toBeGreaterThan(0.5);
    // Votes of shards on as many queries: sqrt(rows) times the noise.
    expect(sigmaOf({ recordVotes: undefined, shards: 25, votes: true }) / sigma).toBeCloseTo(10, 1);
    expect(planRelease({ ...request, mechanism: 'laplace', shares: undefined }).noise).toEqual({ scaleGrid: Math.ceil((2 * 64 * (1 + 2 ** -36)) / 0.5) });
  });

  it('protects records', () => {
    const plan = planRelease(request);
    expect(releaseUnit(plan)).toBe('record');
    expect(ReleaseParametersSchema.parse(JSON.parse(JSON.stringify(plan)))).toEqual(plan);
    // With a release for the whole client, the total is one for records.
    const both = [chargedRelease(plan), chargedRelease(planRelease({ ...request, recordVotes: undefined }))];
    expect(spent(both, 'replaceOne', delta)).toBeGreaterThan(spent(both.slice(0, 1), 'replaceOne', delta));
  });

  it('is sized for the most records that may vote: all of them in one cell of every client', () => {
    const plan = planRelease(request);
    expect(largestSum(plan, 10)).toBeGreaterThan(10 * 10_000 * 64);
    expect(() => checkSumFits(plan, 3000)).not.toThrow();
    expect(() => checkSumFits(plan, 3400)).toThrow(expect.objectContaining({ code: 'config-invalid', next: expect.stringContaining('maxRecords') }));
    expect(() => planRelease({ ...request, gridStep: 2 ** -13 })).toThrow(expect.objectContaining({ field: 'gridStep', next: expect.stringContaining('maxRecords') }));
  });

  it.each([
    ['shards', { shards: 25 }],
    ['one vote a row', { votes: true }],
    ['logits', { outputKind: 'logits' as const, rowClippingNorm: 5 }],
    ['no record', { recordVotes: 0 }],
    ['half a record', { recordVotes: 1.5 }],
  ])('does not go with %s', (_what, change) => {
    expect(() => planRelease({ ...request, ...change })).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  });

  it('does not go with private training', () => {
    const training = { privateTraining: { clippingNorm: 1, samplingRate: 0.1, steps: 10 } };
    expect(() => planRelease({ ...request, mechanism: 'dpSgd', shares: undefined, ...training })).toThrow(expect.objectContaining({ code: 'config-invalid', field: 'recordVotes' }));
  });
});

describe('counts on the grid', () => {
  const plan = planRelease(request);

  it('are whole votes', () => {
    const { grid, wasClipped } = constrainContribution([counts(3, 0, 7)], plan);
    expect([...grid.values.subarray(0, 4)]).toEqual([192, 0, 448, 0]);
    expect(wasClipped).toBe(false);
    // A vote that is not a whole number of steps is cut short, never long.
    expect(constrainContribution([counts(2)], planRelease({ ...request, gridStep: 0.3 })).grid.values[0]).toBe(6);
  });

  it.each([
    ['a part of a vote', [0.5]],
    ['a negative count', [1, -1]],
    ['no number', [NaN]],
    ['more votes than records may cast', [10_001]],
    ['more votes in all', [6000, 4001]],
    ['so many that integers would wrap', [2 ** 26]],
  ])('are nothing else: %s stops the release', (_what, values) => {
    expect(() => constrainContribution([counts(...values)], plan)).toThrow(expect.objectContaining({ code: 'internal', message: expect.stringContaining('nothing was released') }));
  });

  it('are of the shape of the release, and one matrix', () => {
    expect(() => constrainContribution([{ ...counts(), rows: 50 }], plan)).toThrow(expect.objectContaining({ code: 'shape-mismatch' }));
    expect(() => constrainContribution([counts(), counts()], plan)).toThrow(expect.objectContaining({ code: 'shape-mismatch' }));
  });
});

describe('a statement of votes of records', () => {
  const parameters = planRelease(request);
  const statement = buildStatement({ trustMode: 'secure-aggregation', parameters, secureAggregation: { minSurvivors: 9, maxCorrupt: 1 }, delta, ledger: [chargedRelease(parameters)] });

  it('names the unit, the votes and the sensitivity of one', () => {
    expect(statement).toMatchObject({ claim: 'differentialPrivacy', unit: 'record', recordVotes: 10_000, shards: null, votes: false });
    const text = renderStatement(statement);
    expect(text).toContain('counts of votes, one of each of a client\'s first 10000 records, 100 transfer rows x 10 classes per release');
    expect(text).toContain('Sensitivity of the whole matrix (one vote moves, or is missing) (L2): 90.51 grid steps replace-one-record, 64.01 remove-one-record.');
    expect(text).toContain('only one record at a time is protected');
    for (const { unit, epsilon } of statement.claim === 'differentialPrivacy' ? statement.guarantees : []) {
      expect(unit).toBe('record');
      expect(epsilon).toBeLessThanOrEqual(0.5);
    }
  });

  it.each([
    ['the unit client', { unit: 'client' }],
    ['shards beside them', { shards: 5 }],
    ['no votes, and records nevertheless', { recordVotes: null }],
  ])('contradicts itself with %s', (_what, change) => {
    expect(PrivacyStatementSchema.safeParse({ ...statement, ...change }).success).toBe(false);
  });
});
