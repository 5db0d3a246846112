import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { calibrateNoiseMultiplier, erfcx, gaussianEpsilon, gaussianLogDelta, logNormalCdf } from '../../../../shared/privacy/accountants/numerics.ts';

interface Truth {
  erfcx: [number, number][];
  logNormalCdf: [number, number][];
  gaussianEpsilon: { noiseMultiplier: number; delta: number; epsilon: number }[];
}
const truth = JSON.parse(readFileSync(new URL('../../../vectors/gaussian-mpmath.json', import.meta.url), 'utf8')) as Truth;
const relativeError = (got: number, expected: number) => Math.abs(got - expected) / Math.abs(expected);

describe('numerics against 50-digit values', () => {
  it.each(truth.erfcx)('erfcx(%d) is within the error that the bounds assume', (x, expected) => {
    expect(relativeError(erfcx(x), expected)).toBeLessThan(5e-15);
  });

  it.each(truth.logNormalCdf)('ln Phi(%d)', (x, expected) => {
    expect(relativeError(logNormalCdf(x), expected)).toBeLessThan(1e-13);
  });

  it.each(truth.gaussianEpsilon)('epsilon of noise multiplier $noiseMultiplier at delta $delta is tight and not below the truth', ({ noiseMultiplier, delta, epsilon }) => {
    const got = gaussianEpsilon(delta, 1 / noiseMultiplier);
    expect(got).toBeGreaterThanOrEqual(epsilon * (1 - 1e-15));
    expect(got - epsilon).toBeLessThanOrEqual(1e-8 * epsilon);
  });
});

describe('the Gaussian privacy profile', () => {
  it('stays finite and one-sided over sigma 1e-3 to 1e6 and delta down to 1e-300', () => {
    for (let exponent = -3; exponent <= 6; exponent += 0.37) {
      const noiseMultiplier = 10 ** exponent;
      let previous = Infinity;
      for (const delta of [1e-300, 1e-100, 1e-30, 1e-10, 1e-5, 0.3]) {
        const epsilon = gaussianEpsilon(delta, 1 / noiseMultiplier);
        expect(Number.isFinite(epsilon)).toBe(true);
        expect(epsilon).toBeGreaterThanOrEqual(0);
        expect(epsilon).toBeLessThanOrEqual(previous);
        expect(gaussianLogDelta(epsilon, 1 / noiseMultiplier)).toBeLessThanOrEqual(Math.log(delta));
        previous = epsilon;
      }
    }
  });

  it('costs nothing without a release and everything without noise', () => {
    expect(gaussianEpsilon(1e-5, 0)).toBe(0);
    expect(gaussianEpsilon(1e-5, Infinity)).toBe(Infinity);
    expect(gaussianEpsilon(1e-5, 1e300)).toBe(Infinity);
    expect(gaussianEpsilon(0, 0.5)).toBe(Infinity);
  });

  it('calibrates one-sided: accounting for the calibrated noise never exceeds the target', () => {
    for (const epsilon of [0.0271828, 0.314159, 1, 1.618033988749895, 2.718281828459045, 8, 31.4159]) {
      for (const delta of [1e-30, 2.718281828459045e-9, 1e-5, 0.01]) {
        const noiseMultiplier = calibrateNoiseMultiplier(epsilon, delta);
        expect(gaussianEpsilon(delta, 1 / noiseMultiplier)).toBeLessThanOrEqual(epsilon);
        expect(gaussianEpsilon(delta, 1 / (noiseMultiplier * (1 - 1e-9)))).toBeGreaterThan(epsilon);
      }
    }
  });
});
