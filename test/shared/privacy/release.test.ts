import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { accountantFor } from '../../../shared/privacy/accountants/composite-accountant.ts';
import type { ReleasePlanRequest } from '../../../shared/privacy/release.ts';
import { checkSumFits, contributionStep, largestSum, MIN_SHARE_SIGMA, planCost, planRelease, ReleaseParametersSchema, releaseEvent, releaseSensitivity, releaseUnit } from '../../../shared/privacy/release.ts';
import type { Delta } from '../../../shared/types/units.ts';

const request: ReleasePlanRequest = { mechanism: 'gaussian', outputKind: 'probabilities', rows: 271, columns: 10, gridStep: 1 / 4096, epsilon: 2.71828, delta: 1e-5, releases: 7 };
const account = (parameters: ReturnType<typeof planRelease>, releases: number, delta: number, relation: 'replaceOne' | 'zeroOut' = 'replaceOne') =>
  accountantFor([{ kind: 'selfComposed', event: releaseEvent(parameters, relation), count: releases }], relation).epsilon(delta as Delta);
const noiseOf = (parameters: ReturnType<typeof planRelease>) => (parameters.mechanism === 'gaussian' ? parameters.noise.sigmaGrid : parameters.mechanism === 'laplace' ? parameters.noise.scaleGrid : 0);

const requests = fc.record({
  mechanism: fc.constantFrom('gaussian' as const, 'laplace' as const),
  outputKind: fc.constantFrom('probabilities' as const, 'logits' as const),
  rows: fc.integer({ min: 1, max: 300 }),
  columns: fc.integer({ min: 2, max: 20 }),
  rowClippingNorm: fc.double({ min: 0.1, max: 20, noNaN: true }),
  gridStep: fc.constantFrom(1 / 64, 0.0314159, 1 / 256),
  epsilon: fc.double({ min: 0.2, max: 30, noNaN: true }),
  delta: fc.constantFrom(1e-9, 2.71828e-6, 1e-5),
  releases: fc.integer({ min: 1, max: 20 }),
});

describe('planRelease', () => {
  it('calibrates one-sided, and to the smallest integer that does', () => {
    fc.assert(
      fc.property(requests, (item) => {
        let plan;
        try {
          plan = planRelease(item);
        } catch (error) {
          expect(error).toMatchObject({ code: 'config-invalid', field: 'gridStep' });
          return;
        }
        expect(account(plan, item.releases, item.delta)).toBeLessThanOrEqual(item.epsilon);
        expect(account(plan, item.releases, item.delta, 'zeroOut')).toBeLessThan(item.epsilon);
        const noise = noiseOf(plan);
        if (noise === 1) return;
        const weaker = plan.mechanism === 'gaussian' ? { ...plan, noise: { sigmaGrid: noise - 1 } } : { ...plan, noise: { scaleGrid: noise - 1 } };
        expect(account(weaker as typeof plan, item.releases, item.delta)).toBeGreaterThan(item.epsilon);
      }),
      { numRuns: 150, seed: 271828 },
    );
  });

  it('notices halved noise: half the planned sigma costs clearly more than the target', () => {
    const plan = planRelease(request);
    if (plan.mechanism !== 'gaussian') throw new Error('expected gaussian');
    const halved = { ...plan, noise: { sigmaGrid: Math.floor(plan.noise.sigmaGrid / 2) } };
    expect(account(halved, request.releases, request.delta)).toBeGreaterThan(1.8 * request.epsilon!);
  });

  it('notices row-level sensitivity: noise for one row costs far more than the target for the matrix', () => {
    const forOneRow = planRelease({ ...request, rows: 1 });
    expect(account({ ...forOneRow, rows: request.rows }, request.releases, request.delta)).toBeGreaterThan(10 * request.epsilon!);
  });

  it('reproduces the design note: (1, 1e-5) noise for one row is epsilon 71.3 zero-out over 1000 rows, 122 replace-one', () => {
    // Noise calibrated zero-out to one row of probabilities, in grid steps fine enough for four digits.
    const gridStep = 2 ** -16;
    const parameters = ReleaseParametersSchema.parse({ mechanism: 'gaussian', outputKind: 'probabilities', rows: 1000, columns: 10, gridStep, noise: { sigmaGrid: Math.round(3.7306316348159374 / gridStep) } });
    expect(account(parameters, 1, 1e-5, 'zeroOut')).toBeCloseTo(71.3, 0);
    expect(account(parameters, 1, 1e-5, 'replaceOne')).toBeCloseTo(122, -1);
  });

  it.each(['gaussian', 'laplace'] as const)('%s: needs more noise, or costs more, with more rows and more releases', (mechanism) => {
    const base = { ...request, mechanism, rows: 20, releases: 2 };
    const plan = planRelease(base);
    expect(noiseOf(planRelease({ ...base, rows: 40 }))).toBeGreaterThan(1.4 * noiseOf(plan));
    expect(noiseOf(planRelease({ ...base, releases: 4 }))).toBeGreaterThan(1.4 * noiseOf(plan));
    expect(account({ ...plan, rows: 40 }, 2, 1e-5)).toBeGreaterThan(account(plan, 2, 1e-5));
    expect(account(plan, 3, 1e-5)).toBeGreaterThan(account(plan, 2, 1e-5));
  });

  it('says what to change when the noise does not fit 32-bit integers', () => {
    const tooFine = { ...request, gridStep: 2 ** -20, rows: 1000, epsilon: 0.01 };
    expect(() => planRelease(tooFine)).toThrow(expect.objectContaining({ code: 'config-invalid', field: 'gridStep', next: expect.stringContaining('coarser grid') as string }));
    expect(() => planRelease({ ...tooFine, gridStep: 2 ** -10 })).not.toThrow();
  });

  it.each([
    ['a missing epsilon', { epsilon: undefined }],
    ['an epsilon of 0', { epsilon: 0 }],
    ['a delta of 1', { delta: 1 }],
    ['no release', { releases: 0 }],
    ['half a release', { releases: 1.5 }],
    ['logits without a norm', { outputKind: 'logits' as const }],
    ['no rows', { rows: 0 }],
    ['a matrix beyond the limit', { rows: 2 ** 20, columns: 1000 }],
    ['rows that are no number', { rows: NaN }],
  ])('refuses %s', (_what, change) => {
    expect(() => planRelease({ ...request, ...change })).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  });

  it('plans no noise for the mechanism none, and its event is not private', () => {
    const plan = planRelease({ ...request, mechanism: 'none', epsilon: undefined });
    expect(plan.noise).toBeNull();
    expect(releaseEvent(plan, 'replaceOne')).toEqual({ kind: 'nonPrivate' });
  });
});

describe('planRelease, for distributed noise', () => {
  const distributed: ReleasePlanRequest = { ...request, mechanism: 'discreteGaussian', shares: 7 };
  const noiseIn = (change: object = {}) => {
    const plan = planRelease({ ...distributed, ...change });
    if (plan.mechanism !== 'discreteGaussian') throw new Error('expected discreteGaussian');
    return plan.noise;
  };

  it('calibrates one-sided, to the smallest integer from 3 on that does, for clients and for records', () => {
    const item = fc.record({
      rows: fc.integer({ min: 1, max: 300 }),
      columns: fc.integer({ min: 2, max: 20 }),
      gridStep: fc.constantFrom(1 / 64, 1 / 256, 1),
      epsilon: fc.double({ min: 0.2, max: 60, noNaN: true }),
      delta: fc.constantFrom(1e-9, 1e-5),
      releases: fc.integer({ min: 1, max: 20 }),
      shares: fc.constantFrom(1, 2, 5, 1000),
      shards: fc.constantFrom(undefined, 2, 50),
      votes: fc.boolean(),
    });
    fc.assert(
      fc.property(item, (change) => {
        const plan = planRelease({ ...distributed, ...change });
        if (plan.mechanism !== 'discreteGaussian') throw new Error('expected discreteGaussian');
        const { noise } = plan;
        expect(noise.shares).toBe(change.shares);
        expect(account(plan, change.releases, change.delta)).toBeLessThanOrEqual(change.epsilon);
        expect(account(plan, change.releases, change.delta, 'zeroOut')).toBeLessThanOrEqual(change.epsilon);
        if (noise.sigmaGrid === MIN_SHARE_SIGMA) return;
        expect(account({ ...plan, noise: { ...noise, sigmaGrid: noise.sigmaGrid - 1 } }, change.releases, change.delta)).toBeGreaterThan(change.epsilon);
      }),
      { numRuns: 60, seed: 141421 },
    );
  });

  it('needs more noise, or costs more, with more rows and more releases: soft labels, votes of clients, votes of shards', () => {
    for (const change of [{}, { votes: true }, { votes: true, shards: 25 }]) {
      const base = { ...change, rows: 20, releases: 2 };
      const plan = planRelease({ ...distributed, ...base });
      expect(noiseIn({ ...base, rows: 40 }).sigmaGrid).toBeGreaterThan(1.4 * noiseIn(base).sigmaGrid);
      expect(noiseIn({ ...base, releases: 4 }).sigmaGrid).toBeGreaterThan(1.35 * noiseIn(base).sigmaGrid);
      expect(account({ ...plan, rows: 40 }, 2, 1e-5)).toBeGreaterThan(account(plan, 2, 1e-5));
      expect(account(plan, 3, 1e-5)).toBeGreaterThan(account(plan, 2, 1e-5));
    }
  });

  it('counts honest survivors: four times as many halve each share, and a floor that is ignored costs clearly more', () => {
    expect(noiseIn({ shares: 20 }).sigmaGrid / noiseIn({ shares: 5 }).sigmaGrid).toBeCloseTo(0.5, 2);
    // Planned for all 20 survivors of which 10 are corrupt, or know their own noise: what is certainly there is half of that.
    const plan = planRelease({ ...distributed, shares: 20 });
    if (plan.mechanism !== 'discreteGaussian') throw new Error('expected discreteGaussian');
    expect(account({ ...plan, noise: { ...plan.noise, shares: 10 } }, request.releases, request.delta)).toBeGreaterThan(1.3 * request.epsilon!);
  });

  it('knows no gain from sampling clients: the cohort changes neither noise nor cost', () => {
    const plans = [7, 100, 1000].map((clients) => planRelease({ ...distributed, clients }));
    expect(plans[1]).toEqual(plans[0]);
    expect(plans[2]).toEqual(plans[0]);
    expect(JSON.stringify(releaseEvent(plans[0]!, 'replaceOne'))).not.toMatch(/sampl/i);
  });

  it('has a cost that does not depend on the number of shards, which only share the noise out', () => {
    expect(noiseIn({ shards: 200 })).toEqual(noiseIn({ shards: 2 }));
    const plan = planRelease({ ...distributed, shards: 200 });
    expect(releaseUnit(plan)).toBe('record');
    expect(releaseEvent(plan, 'zeroOut')).toEqual(releaseEvent(plan, 'replaceOne'));
    expect(contributionStep(plan)).toBe(plan.gridStep / 200);
  });

  it('notices row-level sensitivity and a quarter of the noise', () => {
    const plan = planRelease(distributed);
    if (plan.mechanism !== 'discreteGaussian') throw new Error('expected discreteGaussian');
    expect(account({ ...planRelease({ ...distributed, rows: 1 }), rows: request.rows }, request.releases, request.delta)).toBeGreaterThan(10 * request.epsilon!);
    expect(account({ ...plan, noise: { ...plan.noise, sigmaGrid: Math.ceil(plan.noise.sigmaGrid / 4) } }, request.releases, request.delta)).toBeGreaterThan(3 * request.epsilon!);
  });

  it('fits sums into the ring for as many clients as it is told, and says what to change when it can\'t', () => {
    const plan = planRelease({ ...distributed, shards: 1000, clients: 500 });
    expect(largestSum(plan, 500)).toBeLessThan(2 ** 31);
    expect(() => checkSumFits(plan, 500)).not.toThrow();
    expect(() => checkSumFits(plan, 600)).toThrow(expect.objectContaining({ code: 'config-invalid', field: 'gridStep' }));
    expect(() => planRelease({ ...distributed, shards: 1000, clients: 600 })).toThrow(expect.objectContaining({ code: 'config-invalid', next: expect.stringContaining('coarser grid') as string }));
    // The bound is that of the worst honest inputs: all of them the same one-hot rows.
    expect(largestSum(plan, 500)).toBeGreaterThanOrEqual(500 * 1000 * 4096);
  });

  it.each([
    ['no shares', { shares: undefined }],
    ['nobody honest', { shares: 0 }],
    ['half a share', { shares: 1.5 }],
    ['one shard', { shards: 1 }],
    ['votes among logits', { votes: true, outputKind: 'logits' as const, rowClippingNorm: 1 }],
  ])('refuses %s', (_what, change) => {
    expect(() => planRelease({ ...distributed, ...change })).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  });
});

describe('planRelease for private training', () => {
  const training: ReleasePlanRequest = { ...request, mechanism: 'dpSgd', privateTraining: { clippingNorm: 1.5, samplingRate: 0.05, steps: 40 } };
  const plan = planRelease(training);
  const costOf = (noiseMultiplier: number) => {
    if (plan.mechanism !== 'dpSgd') throw new Error('expected dpSgd');
    return planCost({ ...plan, noise: { ...plan.noise, noiseMultiplier } }, request.releases, request.delta as Delta);
  };

  it('finds the smallest noise that meets the target over all steps of all releases, replace-one-record', () => {
    if (plan.mechanism !== 'dpSgd') throw new Error('expected dpSgd');
    const { noiseMultiplier } = plan.noise;
    expect(plan.noise).toMatchObject({ clippingNorm: 1.5, samplingRate: 0.05, steps: 40 });
    expect(costOf(noiseMultiplier)).toBeLessThanOrEqual(request.epsilon!);
    expect(costOf(noiseMultiplier - 2 ** -9)).toBeGreaterThan(request.epsilon!);
    expect(releaseUnit(plan)).toBe('record');
    expect(ReleaseParametersSchema.parse(JSON.parse(JSON.stringify(plan)))).toEqual(plan);
  });

  it('costs the same for any number of rows, and more for more steps or rounds', () => {
    expect(planRelease({ ...training, rows: 1 }).noise).toEqual(plan.noise);
    const noiseFor = (changes: Partial<ReleasePlanRequest>) => (planRelease({ ...training, ...changes }).noise as { noiseMultiplier: number }).noiseMultiplier;
    expect(noiseFor({ releases: 14 })).toBe(noiseFor({ privateTraining: { ...training.privateTraining!, steps: 80 } }));
    expect(noiseFor({ releases: 14 })).toBeGreaterThan(noiseFor({}));
    expect(noiseFor({ privateTraining: { ...training.privateTraining!, samplingRate: 0.1 } })).toBeGreaterThan(noiseFor({}));
  });

  it('takes a given noise multiplier that is enough, and refuses one that is not', () => {
    expect(planRelease({ ...training, privateTraining: { ...training.privateTraining!, noiseMultiplier: 50 } }).noise).toMatchObject({ noiseMultiplier: 50 });
    expect(() => planRelease({ ...training, privateTraining: { ...training.privateTraining!, noiseMultiplier: 0.5 } })).toThrow(expect.objectContaining({ code: 'config-invalid', field: 'privacy.dpSgd.noiseMultiplier' }));
    expect(() => planRelease({ ...training, privateTraining: undefined })).toThrow(expect.objectContaining({ code: 'config-invalid', field: 'privacy.dpSgd' }));
    expect(() => planRelease({ ...training, shards: 5 })).toThrow(expect.objectContaining({ code: 'config-invalid', field: 'shards' }));
  });
});

describe('ReleaseParametersSchema', () => {
  const plan = planRelease(request);

  it('accepts what planRelease makes, through JSON', () => {
    expect(ReleaseParametersSchema.parse(JSON.parse(JSON.stringify(plan)))).toEqual(plan);
  });

  it.each([
    ['unknown fields', { ...plan, extra: 1 }],
    ['fractional sigma', { ...plan, noise: { sigmaGrid: 1.5 } }],
    ['zero sigma', { ...plan, noise: { sigmaGrid: 0 } }],
    ['noise of another mechanism', { ...plan, noise: { scaleGrid: 5 } }],
    ['noise for none', { ...plan, mechanism: 'none' }],
    ['noise that overflows', { ...plan, noise: { sigmaGrid: 2 ** 30 } }],
    ['a share of noise below 3 grid steps', { ...plan, mechanism: 'discreteGaussian', noise: { sigmaGrid: 2, shares: 5 } }],
    ['a share of noise that counts nobody', { ...plan, mechanism: 'discreteGaussian', noise: { sigmaGrid: 200, shares: 0 } }],
    ['distributed noise without shares', { ...plan, mechanism: 'discreteGaussian', noise: { sigmaGrid: 200 } }],
    ['shares of local noise', { ...plan, noise: { sigmaGrid: 200, shares: 5 } }],
    ['one shard', { ...plan, shards: 1 }],
    ['votes that are none', { ...plan, votes: false }],
    ['a row norm for probabilities', { ...plan, rowClippingNorm: 5 }],
    ['logits without a row norm', { ...plan, outputKind: 'logits' }],
    ['an infinite grid step', { ...plan, gridStep: Infinity }],
    ['a negative grid step', { ...plan, gridStep: -1 }],
  ])('refuses %s', (_what, raw) => {
    expect(ReleaseParametersSchema.safeParse(raw).success).toBe(false);
  });

  it('publishes the sensitivities of the whole matrix', () => {
    const probabilities = releaseSensitivity({ outputKind: 'probabilities', rows: 100, columns: 10, gridStep: 1 / 64 });
    expect(probabilities.l2.zeroOut / 640).toBeCloseTo(1, 9);
    expect(probabilities.l2.replaceOne / (640 * Math.SQRT2)).toBeCloseTo(1, 9);
    expect(probabilities.l1.replaceOne / 12_800).toBeCloseTo(1, 9);
    const logits = releaseSensitivity({ outputKind: 'logits', rows: 100, columns: 9, rowClippingNorm: 2, gridStep: 0.5 });
    expect(logits.l2.replaceOne / 80).toBeCloseTo(1, 9);
    expect(logits.l1.replaceOne / 2400).toBeCloseTo(1, 9);
  });
});
