/** Every reference case through the code behind `fedstill privacy verify`; origin of the values: test/vectors/README.md. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { GoldenCase } from '../../../shared/privacy/golden-verify.ts';
import { parseGoldenFile, verifyCase, verifyGolden } from '../../../shared/privacy/golden-verify.ts';
import { graphChecker } from '../../../shared/secure-aggregation/golden-graph.ts';

const cases = parseGoldenFile(JSON.parse(readFileSync(new URL('../../vectors/dp-golden.json', import.meta.url), 'utf8')));
const more = { 'secagg-graph': graphChecker };
const byId = (id: string) => cases.find((item) => item.id === id)!;

describe('check 7: all golden values at their stated tolerances', () => {
  it('has all 24 groups', () => {
    expect(new Set(cases.map((item) => item.group)).size).toBe(24);
    expect(cases).toHaveLength(159);
  });

  it.each(cases)('$id', (item) => {
    const result = verifyCase(item, more);
    expect({ problem: result.problem, missed: result.comparisons.filter((comparison) => !comparison.passed) }).toEqual({ problem: undefined, missed: [] });
  });
});

describe('closer than the cases ask for', () => {
  it.each(['dpsgd-01', 'dpsgd-17', 'dpsgd-19'])('%s: PLD agrees with dp_accounting to 1e-6, not only to 0.01', (id) => {
    const pld = verifyCase(byId(id)).comparisons.find((comparison) => comparison.quantity === 'epsilon_pld')!;
    expect(Math.abs(pld.got / pld.expected - 1)).toBeLessThan(1e-6);
  });
});

describe('verify', () => {
  const light = (id: string, change: Partial<GoldenCase>): GoldenCase => ({ ...byId(id), ...change });

  it('fails for a group that nobody knows', () => {
    expect(verifyCase(light('conv-01', { group: 'astrology' }), more)).toMatchObject({ passed: false, problem: 'unknown group astrology' });
    expect(verifyCase(byId('secagg-graph-01'))).toMatchObject({ passed: false });
  });

  it('fails for a quantity that nobody checks, and for a case with nothing to compare', () => {
    const item = byId('conv-01');
    expect(verifyCase({ ...item, expected: { ...item.expected, luck: 7 } }, more)).toMatchObject({ passed: false, problem: 'not checked: luck' });
    expect(verifyCase({ ...item, expected: {} }, more)).toMatchObject({ passed: false, problem: 'nothing to compare' });
  });

  it('fails for a mechanism, an order list or a parameter that it does not know', () => {
    expect(verifyCase(light('conv-01', { mechanism: 'other' }), more).passed).toBe(false);
    expect(verifyCase(light('ddg-01', { params: { ...byId('ddg-01').params, rdp_orders: '2..64' } }), more).passed).toBe(false);
    expect(verifyCase(light('agm-eps-01', { params: { noise_multiplier: 'much', delta: 1e-5 } }), more).problem).toContain('params.noise_multiplier');
  });

  it.each(['agm-sigma-01', 'agm-eps-02', 'laplace-05', 'dgauss-02', 'sampler-02', 'rounding-02', 'ddg-08', 'skellam-02', 'gnmax-04', 'cgnmax-04', 'pate-ss-02', 'krr-05', 'ldp-ss-02', 'conv-11', 'rdp-point-10', 'audit1-04', 'auditcp-02', 'release-02', 'secagg-graph-31'])(
    'notices a changed value: %s',
    (id) => {
      const item = byId(id);
      for (const [quantity, value] of Object.entries(item.expected)) {
        // Upper bounds may only be too low, and tau is 0 in most cases.
        if (Array.isArray(value) || value === 0) continue;
        const result = verifyCase({ ...item, expected: { ...item.expected, [quantity]: value * 0.98 } }, more);
        expect([quantity, result.passed]).toEqual([quantity, false]);
      }
    },
  );

  it('counts by group', () => {
    const report = verifyGolden([byId('conv-01'), light('conv-02', { expected: { epsilon_cks: 1 } }), byId('rounding-01')], more);
    expect(report).toMatchObject({ passed: 2, failed: 1 });
    expect(report.groups).toEqual([
      { group: 'conv', passed: 1, failed: 1 },
      { group: 'rounding', passed: 1, failed: 0 },
    ]);
  });

  it.each([null, [], {}, { cases: [] }, { cases: [{ id: 'x' }] }])('refuses a file that is no list of cases: %j', (content) => {
    expect(() => parseGoldenFile(content)).toThrow(expect.objectContaining({ code: 'data-invalid' }));
  });
});
