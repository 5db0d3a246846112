/** Published figures for PATE from the published votes: test/vectors/README.md. */
import { describe, expect, it } from 'vitest';
import { rdpToEpsilonMironov } from '../../../shared/privacy/accountants/rdp.ts';
import { PATE_ORDERS, expectedVoteCosts } from '../../../shared/privacy/golden-verify.ts';
import { readByteMatrix } from '../../support/npy.ts';

describe('the PATE table (Papernot et al. 2018), recomputed from the votes', () => {
  it.each([
    { name: 'MNIST', file: 'pate-votes-mnist-250x9000.npy', rows: 9000, threshold: 200, sigmaThreshold: 150, queries: 640, dependent: 1.9988, order: 14, answered: 282.72, independent: 3.1574, orderIndependent: 9 },
    { name: 'Adult', file: 'pate-votes-adult-250x16281.npy', rows: 16_281, threshold: 300, sigmaThreshold: 200, queries: 1500, dependent: 1.6782, order: 15.5, answered: 538.26, independent: 4.4018, orderIndependent: 6.5 },
  ])('$name', ({ file, rows, threshold, sigmaThreshold, queries, ...expected }) => {
    const votes = readByteMatrix(new URL(`../../vectors/${file}`, import.meta.url));
    expect(votes).toHaveLength(rows);
    expect(votes.every((counts) => counts.reduce((sum, count) => sum + count, 0) === 250)).toBe(true);
    const costs = expectedVoteCosts(votes.slice(0, queries), { threshold, sigmaThreshold, sigmaVotes: 40 });
    const dependent = rdpToEpsilonMironov(PATE_ORDERS, costs.dataDependent, 1e-5);
    const independent = rdpToEpsilonMironov(PATE_ORDERS, costs.dataIndependent, 1e-5);
    expect(Math.abs(dependent.epsilon - expected.dependent)).toBeLessThan(1e-4);
    expect(dependent.order).toBe(expected.order);
    expect(Math.abs(independent.epsilon - expected.independent)).toBeLessThan(1e-4);
    expect(independent.order).toBe(expected.orderIndependent);
    expect(costs.expectedAnswered).toBeCloseTo(expected.answered, 2);
  });
});
