import { describe, expect, it } from 'vitest';
import { fft, fftError } from '../../../../shared/privacy/accountants/fft.ts';
import { LogSum, log1mExp, log1pExp, logAddExp, logBinomial, logExpm1, logGamma } from '../../../../shared/privacy/accountants/log-space.ts';
import { eventLoss } from '../../../../shared/privacy/accountants/privacy-loss.ts';
import type { LossDistribution } from '../../../../shared/privacy/accountants/privacy-loss.ts';
import type { DpEvent, SingleEvent } from '../../../../shared/privacy/dp-event.ts';

describe('fft', () => {
  it('is the sum of the definition, within the stated error, and inverts', () => {
    const n = 256;
    const real = Float64Array.from({ length: n }, (_, k) => Math.sin(k * k));
    const imaginary = Float64Array.from({ length: n }, (_, k) => Math.cos(3 * k));
    const [a, b] = [real.slice(), imaginary.slice()];
    fft(a, b);
    const norm = real.reduce((sum, value, k) => sum + Math.hypot(value, imaginary[k]!), 0);
    for (const j of [0, 1, 77, 255]) {
      let [sumReal, sumImaginary] = [0, 0];
      for (let k = 0; k < n; k++) {
        const angle = (-2 * Math.PI * ((j * k) % n)) / n;
        sumReal += real[k]! * Math.cos(angle) - imaginary[k]! * Math.sin(angle);
        sumImaginary += real[k]! * Math.sin(angle) + imaginary[k]! * Math.cos(angle);
      }
      expect(Math.hypot(a[j]! - sumReal, b[j]! - sumImaginary)).toBeLessThan(2 * fftError(n) * norm);
    }
    fft(a, b, true);
    for (let k = 0; k < n; k++) expect(Math.hypot(a[k]! - real[k]!, b[k]! - imaginary[k]!)).toBeLessThan(1e-13);
  });

  it.each([0, 3, 12])('refuses the length %d', (n) => {
    expect(() => fft(new Float64Array(n), new Float64Array(n))).toThrow(RangeError);
  });
});

describe('log space', () => {
  it('agrees with plain arithmetic where that works', () => {
    expect(logAddExp(1, 2)).toBeCloseTo(Math.log(Math.E + Math.E ** 2), 14);
    expect(logAddExp(-Infinity, 3)).toBe(3);
    expect(log1pExp(0.5)).toBeCloseTo(Math.log(1 + Math.exp(0.5)), 14);
    expect(log1mExp(-0.3)).toBeCloseTo(Math.log(1 - Math.exp(-0.3)), 14);
    expect(logExpm1(1e-10)).toBeCloseTo(Math.log(1e-10), 8);
    const sum = new LogSum();
    for (const term of [1000, 1001, -5]) sum.add(term);
    expect(sum.log).toBeCloseTo(1001 + Math.log1p(Math.exp(-1)), 12);
    expect(new LogSum().log).toBe(-Infinity);
  });

  it('has the gamma function of factorials, halves and large arguments', () => {
    expect(logGamma(1)).toBeCloseTo(0, 13);
    expect(logGamma(0.5)).toBeCloseTo(Math.log(Math.sqrt(Math.PI)), 13);
    expect(logGamma(21) / Math.log(2_432_902_008_176_640_000)).toBeCloseTo(1, 14);
    expect(logGamma(1e6) / 12_815_504.569_147_9).toBeCloseTo(1, 12);
    expect(Math.exp(logBinomial(52, 5))).toBeCloseTo(2_598_960, 4);
  });
});

describe('privacy loss on a grid', () => {
  const events: ReadonlyArray<{ name: string; event: SingleEvent; relation: 'replaceOne' | 'addOrRemoveRecord' }> = [
    { name: 'sampled Gaussian', event: { kind: 'poissonSampled', samplingProbability: 0.1, event: { kind: 'gaussian', noiseMultiplier: 1.3 } }, relation: 'addOrRemoveRecord' },
    { name: 'sampled Laplace', event: { kind: 'poissonSampled', samplingProbability: 0.3, event: { kind: 'continuousLaplace', noiseMultiplier: 0.7, dimension: 1 } }, relation: 'addOrRemoveRecord' },
    { name: 'discrete Laplace', event: { kind: 'discreteLaplace', scale: 3, l1Sensitivity: 7, dimension: 1 }, relation: 'replaceOne' },
    { name: 'discrete Gaussian', event: { kind: 'discreteGaussian', sigma: 4, l2Sensitivity: 3, dimension: 1 }, relation: 'replaceOne' },
    { name: 'subset selection', event: { kind: 'subsetSelection', epsilon: 1, categories: 10, subsetSize: 3 }, relation: 'replaceOne' },
    { name: 'unary encoding', event: { kind: 'unaryEncoding', epsilon: 1, categories: 10 }, relation: 'replaceOne' },
  ];
  const directions = (event: DpEvent & SingleEvent, relation: 'replaceOne' | 'addOrRemoveRecord'): LossDistribution[] => {
    const loss = eventLoss(event, relation);
    if (loss?.kind !== 'pair') throw new Error('expected a pair');
    return [loss.forward, loss.backward];
  };

  it.each(events)('$name: keeps the mass of P and of Q, and is pessimistic for every epsilon', ({ event, relation }) => {
    for (const distribution of directions(event, relation)) {
      const step = 0.0173;
      const grid = distribution.onGrid(step, 1e-20);
      const points = distribution.points(1e-20);
      const losses = Array.from(grid.masses, (_, index) => (grid.first + index) * step);
      const total = grid.masses.reduce((sum, mass) => sum + mass, grid.infinityMass);
      const other = grid.masses.reduce((sum, mass, index) => sum + mass * Math.exp(-losses[index]!), 0);
      expect(total).toBeCloseTo(1, 12);
      // Q has no more than 1; what is missing is where P has nothing.
      expect(other).toBeCloseTo(points.masses.reduce((sum, mass, index) => sum + mass * Math.exp(-points.losses[index]!), 0), 11);
      const delta = (values: ArrayLike<number>, masses: Float64Array, epsilon: number) => masses.reduce((sum, mass, index) => sum + mass * Math.max(0, -Math.expm1(epsilon - values[index]!)), 0);
      for (const epsilon of [0, 0.01, 0.31, 0.9]) {
        const exact = delta(points.losses, points.masses, epsilon);
        const pessimistic = delta(losses, grid.masses, epsilon);
        // The quadrature behind `points` has a kink at epsilon: compared to 1e-5 from below.
        expect(pessimistic).toBeGreaterThanOrEqual(exact - 1e-5);
        expect(pessimistic).toBeLessThan(exact + step / 4 + 1e-5);
      }
    }
  });
});
