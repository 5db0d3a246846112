import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { accountantFor } from '../../../shared/privacy/accountants/composite-accountant.ts';
import type { ReleasePlanRequest } from '../../../shared/privacy/release.ts';
import { planRelease, ReleaseParametersSchema, releaseEvent, releaseSensitivity } from '../../../shared/privacy/release.ts';
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
