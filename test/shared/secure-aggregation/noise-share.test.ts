/** Noise shares: enough with the corrupt ones' missing, and never a wrap. */
import { describe, expect, it } from 'vitest';
import { checkSumFits, maxAbsoluteSum, noiseSampler, noiseSamplingDelta, noiseShare, noiseShareSigma } from '../../../shared/secure-aggregation/noise-share.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';

describe('noise shares', () => {
  it.each([[2.71828, 314.159, 41], [0.5, 4096 * Math.sqrt(1000), 5], [10, 100, 1]])('z = %d, S = %d: h = %d honest shares give at least z S, and hardly more', (noiseMultiplier, l2Sensitivity, honest) => {
    const sigma = noiseShareSigma({ noiseMultiplier, l2Sensitivity, minSurvivors: honest + 20, maxCorrupt: 20 });
    expect(Number.isInteger(sigma)).toBe(true);
    expect(Math.sqrt(honest) * sigma).toBeGreaterThanOrEqual(noiseMultiplier * l2Sensitivity);
    expect(Math.sqrt(honest) * (sigma - 1)).toBeLessThan(noiseMultiplier * l2Sensitivity * (1 + 2 ** -39));
  });

  it('with c_max clients omitting noise and d_max dropped the noise in the sum is still what is claimed', () => {
    const [clients, dropouts, corrupt, z, sensitivity, d] = [30, 8, 4, 1.618, 1000, 5000];
    const sigma = noiseShareSigma({ noiseMultiplier: z, l2Sensitivity: sensitivity, minSurvivors: clients - dropouts, maxCorrupt: corrupt });
    const sum = new Float64Array(d);
    for (let i = 0; i < clients - dropouts - corrupt; i++) noiseShare(d, sigma, new InsecureSeededRandom(i)).forEach((x, j) => (sum[j]! += x));
    const deviation = Math.sqrt(sum.reduce((total, x) => total + x * x, 0) / d);
    expect(deviation / (z * sensitivity)).toBeGreaterThan(1 - 5 / Math.sqrt(2 * d));
    expect(deviation / (z * sensitivity)).toBeLessThan(1.01 + 5 / Math.sqrt(2 * d));
  });

  it('refuses noise that is too small for the grid, too large, or without an honest client', () => {
    const request = { noiseMultiplier: 1, l2Sensitivity: 100, minSurvivors: 10, maxCorrupt: 1 };
    expect(() => noiseShareSigma({ ...request, l2Sensitivity: 5 })).toThrow(/does not fit/);
    expect(() => noiseShareSigma({ ...request, l2Sensitivity: 1e9 })).toThrow(/does not fit/);
    expect(() => noiseShareSigma({ ...request, maxCorrupt: 10 })).toThrow(/not usable/);
    expect(() => noiseShareSigma({ ...request, noiseMultiplier: 0 })).toThrow(/not usable/);
  });
});

describe('how noise is drawn', () => {
  it('from a table when asked, and exactly above the largest table', () => {
    const sampling = noiseSampler('table', 271);
    const noise = noiseShare(20_000, 271, new InsecureSeededRandom(3), sampling);
    const variance = noise.reduce((total, x) => total + x * x, 0) / noise.length;
    expect(Math.abs(variance / 271 ** 2 - 1)).toBeLessThan(5 * Math.sqrt(2 / noise.length));
    expect([noiseSampler('table', 100_001), noiseSampler('exact', 271)]).toEqual([{ sampler: 'exact' }, { sampler: 'exact' }]);
    expect(() => noiseShare(1, 272, new InsecureSeededRandom(3), sampling)).toThrow(/table of sigma 272/);
  });

  it('costs delta only from a table, for every sample of every client and release', () => {
    const request = { epsilon: 8, dimension: 10_000, clients: 1000, releases: 20 };
    expect(noiseSamplingDelta({ sampler: 'exact' }, request)).toBe(0);
    const sampling = noiseSampler('table', 271);
    const delta = noiseSamplingDelta(sampling, request);
    expect(delta).toBeGreaterThan((1 + Math.exp(8)) * 2e8 * 3600 * 2 ** -128);
    expect(delta).toBeLessThan(1e-22);
  });
});

describe('wrap-around', () => {
  it('is excluded for 10,000 clients on the grid 1/4096', () => {
    const bounds = { clients: 10_000, maxAbsolute: 4096, sigma: 100_000 };
    expect(maxAbsoluteSum(bounds)).toBe(4096e4 + 12 * 100 * 100_000);
    expect(() => checkSumFits(bounds)).not.toThrow();
  });

  it('is refused one step beyond the bound', () => {
    expect(() => checkSumFits({ clients: 1, maxAbsolute: 2 ** 31 - 1, sigma: 0 })).not.toThrow();
    expect(() => checkSumFits({ clients: 1, maxAbsolute: 2 ** 31, sigma: 0 })).toThrow(/32-bit/);
    expect(() => checkSumFits({ clients: 4, maxAbsolute: 0, sigma: 2 ** 31 / 24 })).toThrow(/32-bit/);
    expect(() => checkSumFits({ clients: NaN, maxAbsolute: 1, sigma: 1 })).toThrow(/32-bit/);
  });
});
