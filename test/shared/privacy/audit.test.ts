/** Published and reference values are golden (audit1, auditcp); here: what an audit may say at all. */
import { describe, expect, it } from 'vitest';
import { auditScoredCanaries, membershipAuditLowerBound, oneRunAuditCeiling, oneRunAuditLowerBound, proportionLower, proportionUpper } from '../../../shared/privacy/audit.ts';

describe('one-run audit', () => {
  const audit = { canaries: 1000, guesses: 100, delta: 0, significance: 0.05 };

  it('says nothing about guesses that chance explains', () => {
    expect(oneRunAuditLowerBound({ ...audit, correct: 50 })).toBe(0);
    expect(oneRunAuditLowerBound({ ...audit, correct: 0 })).toBe(0);
  });

  it('grows with right guesses up to a ceiling that grows with their number', () => {
    let previous = 0;
    for (const correct of [60, 75, 90, 100]) {
      const bound = oneRunAuditLowerBound({ ...audit, correct });
      expect(bound).toBeGreaterThan(previous);
      previous = bound;
    }
    expect(previous).toBe(oneRunAuditCeiling(audit));
    // The ceilings of the design review: with all guesses right.
    expect([50, 100, 500, 1000].map((guesses) => Number(oneRunAuditCeiling({ ...audit, guesses }).toFixed(2)))).toEqual([2.78, 3.49, 5.11, 5.81]);
  });

  it('is lower with a larger delta and with more confidence', () => {
    const bound = oneRunAuditLowerBound({ ...audit, correct: 80 });
    expect(oneRunAuditLowerBound({ ...audit, correct: 80, delta: 1e-4 })).toBeLessThan(bound);
    expect(oneRunAuditLowerBound({ ...audit, correct: 80, significance: 0.01 })).toBeLessThan(bound);
  });

  it.each([{ correct: 101 }, { correct: 1.5 }, { correct: 50, guesses: 2000 }, { correct: 50, delta: 1 }, { correct: 50, significance: 0 }])('refuses %j', (change) => {
    expect(() => oneRunAuditLowerBound({ ...audit, ...change })).toThrow(RangeError);
  });
});

describe('scored canaries', () => {
  const settings = { guesses: 4, delta: 0, significance: 0.4 };

  it('are called by the extremes, whatever the middle says', () => {
    const scores = [5, -3, 0.1, 4, -0.1, -9];
    expect(auditScoredCanaries({ ...settings, scores, isIncluded: [true, false, false, true, true, false] }).correct).toBe(4);
    expect(auditScoredCanaries({ ...settings, scores, isIncluded: [true, true, false, false, true, false] }).correct).toBe(2);
  });

  it('have the bound of their right guesses, and its ceiling', () => {
    const scores = Float64Array.from({ length: 1000 }, (_, i) => i);
    const isIncluded = Array.from(scores, (score) => score >= 500 || score < 25);
    const finding = auditScoredCanaries({ scores, isIncluded, guesses: 100, delta: 1e-4, significance: 0.05 });
    const audit = { canaries: 1000, guesses: 100, delta: 1e-4, significance: 0.05 };
    expect(finding).toEqual({ correct: 75, lowerBound: oneRunAuditLowerBound({ ...audit, correct: 75 }), ceiling: oneRunAuditCeiling(audit) });
    // The published value.
    expect(finding.lowerBound).toBeCloseTo(0.673, 3);
  });

  it.each([{ guesses: 3 }, { guesses: 8 }, { isIncluded: [true] }])('are refused with %j', (change) => {
    expect(() => auditScoredCanaries({ ...settings, scores: [1, 2, 3, 4, 5, 6], isIncluded: [1, 0, 1, 0, 1, 0], ...change })).toThrow(RangeError);
  });
});

describe('membership audit', () => {
  it('has the exact bounds of a proportion', () => {
    expect(proportionUpper(0, 100, 0.05)).toBeCloseTo(1 - 0.05 ** (1 / 100), 12);
    expect(proportionLower(100, 100, 0.05)).toBeCloseTo(0.05 ** (1 / 100), 12);
    expect([proportionLower(0, 5, 0.05), proportionUpper(5, 5, 0.05)]).toEqual([0, 1]);
  });

  it('finds nothing in a fair coin, and as much in a mirrored attack', () => {
    const fair = { members: 100, truePositives: 50, nonMembers: 100, falsePositives: 50, delta: 1e-5, significance: 0.05 };
    expect(membershipAuditLowerBound(fair).epsilonLower).toBe(0);
    const good = membershipAuditLowerBound({ ...fair, truePositives: 30, falsePositives: 0 });
    const mirrored = membershipAuditLowerBound({ ...fair, truePositives: 100, falsePositives: 70 });
    expect(good.epsilonLower).toBeCloseTo(mirrored.epsilonLower, 10);
    expect(good.epsilonLower).toBeGreaterThan(1);
  });
});
