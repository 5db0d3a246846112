/** The values themselves are golden (group secagg-graph, golden-verify.test.ts); here: what must hold for all of them. */
import { describe, expect, it } from 'vitest';
import { findGraphParameters } from '../../../shared/secure-aggregation/graph.ts';

const base = { clients: 1000, corruptRate: 0.1, dropoutRate: 0.1, adversary: 'semiMalicious' } as const;

describe('neighbor graph parameters', () => {
  it('two disjoint sets of neighbors never both reach the threshold', () => {
    for (const clients of [100, 1000, 10_000]) {
      const { degree, threshold } = findGraphParameters({ ...base, clients });
      expect(2 * threshold).toBeGreaterThan(degree);
      expect(threshold).toBeLessThanOrEqual(degree * 0.9);
      expect(degree % 2).toBe(0);
    }
  });

  it('a stronger adversary, more corrupt clients, more dropouts and more security cost neighbors', () => {
    const degree = findGraphParameters(base).degree;
    expect(findGraphParameters({ ...base, adversary: 'curious' }).degree).toBeLessThan(degree);
    expect(findGraphParameters({ ...base, corruptRate: 0.2 }).degree).toBeGreaterThan(degree);
    expect(findGraphParameters({ ...base, dropoutRate: 0.2 }).degree).toBeGreaterThan(degree);
    expect(findGraphParameters({ ...base, securityBits: 80 }).degree).toBeGreaterThan(degree);
    expect(findGraphParameters({ ...base, correctnessBits: 40 }).degree).toBeGreaterThan(degree);
  });

  it.each([
    { ...base, clients: 0 },
    { ...base, clients: 2.5 },
    { ...base, clients: 2_000_000 },
    { ...base, corruptRate: 1 },
    { ...base, dropoutRate: -0.1 },
    { ...base, dropoutRate: 0.45 },
    { ...base, clients: 10, corruptRate: 0.4, dropoutRate: 0.2 },
  ])('refuses what can not work: %j', (requirements) => {
    expect(() => findGraphParameters(requirements)).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  });
});
