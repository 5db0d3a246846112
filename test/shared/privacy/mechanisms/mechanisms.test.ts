import { describe, expect, it } from 'vitest';
import { addNoise } from '../../../../shared/privacy/mechanisms/mechanism.ts';
import { mechanismFor } from '../../../../shared/privacy/mechanisms/mechanism-for.ts';
import type { MechanismName } from '../../../../shared/privacy/release.ts';
import { planRelease, releaseEvents } from '../../../../shared/privacy/release.ts';
import type { Matrix } from '../../../../shared/types/matrix.ts';
import { InsecureSeededRandom } from '../../../../simulations/insecure-seeded-random.ts';

const [rows, columns] = [200, 10];
const plan = (mechanism: MechanismName) => planRelease({ mechanism, outputKind: 'probabilities', rows, columns, gridStep: 1 / 256, epsilon: 3.14159, delta: 1e-5, releases: 3, shares: 1 });
const predictions: Matrix = { rows, columns, values: new Float32Array(rows * columns).fill(0.1) };

describe.each(['none', 'gaussian', 'laplace', 'discreteGaussian'] as const)('mechanism %s', (name) => {
  const parameters = plan(name);
  const mechanism = mechanismFor(parameters);

  it('describes itself with the events of its parameters', () => {
    expect(mechanism.parameters).toEqual(parameters);
    expect(mechanism.events).toEqual(releaseEvents(parameters));
  });

  it('bounds predictions and adds one value of noise a coordinate', () => {
    const { grid } = mechanism.constrainSensitivity(predictions);
    expect([...grid.values]).toEqual(new Array(rows * columns).fill(25));
    const noise = mechanism.noiseShare({ rows, columns }, 1, new InsecureSeededRandom(1));
    const sent = addNoise(grid, noise);
    sent.values.forEach((value, i) => expect(value).toBe(25 + noise[i]!));
  });

  it('has the noise that its parameters publish, whatever the number of survivors', () => {
    const noise = mechanism.noiseShare({ rows, columns }, 1000, new InsecureSeededRandom(2));
    const meanSquare = noise.reduce((sum, value) => sum + value * value, 0) / noise.length;
    const expected = parameters.mechanism === 'none' || parameters.mechanism === 'dpSgd' ? 0 : parameters.mechanism === 'laplace' ? 2 * parameters.noise.scaleGrid ** 2 : parameters.noise.sigmaGrid ** 2 + (parameters.mechanism === 'gaussian' ? 1 / 12 : 0);
    // 5 standard errors of a mean of 2000 squares (kurtosis 3 and 6).
    expect(Math.abs(meanSquare - expected)).toBeLessThanOrEqual(expected * 5 * Math.sqrt((parameters.mechanism === 'laplace' ? 5 : 2) / noise.length));
  });

  it('draws new noise for every release', () => {
    if (name === 'none') return;
    const random = new InsecureSeededRandom(3);
    const [first, second] = [1, 2].map(() => mechanism.noiseShare({ rows, columns }, 1, random));
    const equal = first!.filter((value, i) => value === second![i]).length;
    expect(equal).toBeLessThan(rows * columns * 0.02);
  });

  it('refuses a shape or a number of survivors that can not be meant', () => {
    const random = new InsecureSeededRandom(4);
    expect(() => mechanism.noiseShare({ rows: 1, columns }, 1, random)).toThrow(expect.objectContaining({ code: 'shape-mismatch' }));
    expect(() => mechanism.noiseShare({ rows, columns }, 0, random)).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  });
});

describe('mechanismFor', () => {
  it('refuses noise that could overflow', () => {
    expect(() => mechanismFor({ ...plan('gaussian'), mechanism: 'gaussian', noise: { sigmaGrid: 2 ** 29 } })).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  });
});

describe('distributed noise', () => {
  const parameters = planRelease({ mechanism: 'discreteGaussian', outputKind: 'probabilities', rows: 200, columns: 10, gridStep: 1 / 256, epsilon: 3.14159, delta: 1e-5, releases: 3, shares: 5 });
  if (parameters.mechanism !== 'discreteGaussian') throw new Error('expected discreteGaussian');
  const mechanism = mechanismFor(parameters);

  it('is in the sum what the release counts, when corrupt clients add none and others drop out', () => {
    // Of 9 clients one drops out and three are corrupt: five shares are left.
    const sum = new Float64Array(rows * columns);
    for (let client = 0; client < 5; client++) mechanism.noiseShare({ rows, columns }, 5, new InsecureSeededRandom(client)).forEach((value, i) => (sum[i]! += value));
    const variance = sum.reduce((total, value) => total + value * value, 0) / sum.length;
    const claimed = 5 * parameters.noise.sigmaGrid ** 2;
    // 5 standard errors of a mean of 2000 squares.
    expect(Math.abs(variance / claimed - 1)).toBeLessThan(5 * Math.sqrt(2 / sum.length));
    // One share alone is far less than what the release claims.
    expect(parameters.noise.sigmaGrid ** 2).toBeLessThan(claimed / 4.9);
  });

  it('is not drawn where fewer honest clients are sure to be in a sum than the release counts', () => {
    expect(() => mechanism.noiseShare({ rows, columns }, 4, new InsecureSeededRandom(1))).toThrow(expect.objectContaining({ code: 'policy-refused', field: 'release.noise.shares' }));
  });

  it('bounds the matrices of shards one by one, before they are summed', () => {
    const sharded = mechanismFor(planRelease({ mechanism: 'none', outputKind: 'probabilities', rows: 1, columns: 2, gridStep: 1 / 4, delta: 1e-5, releases: 1, shards: 3 }));
    const shard = (...values: number[]): Matrix => ({ rows: 1, columns: 2, values: Float32Array.from(values) });
    expect([...sharded.constrainSensitivity(shard(1, 0), shard(100, 0), shard(0.5, 0.5)).grid.values]).toEqual([10, 2]);
  });
});

describe('addNoise', () => {
  it('wraps modulo 2^32, as a function of the true sum', () => {
    const grid = { rows: 1, columns: 2, values: Int32Array.of(2, -2) };
    expect([...addNoise(grid, Int32Array.of(2 ** 31 - 1, -(2 ** 31))).values]).toEqual([-(2 ** 31) + 1, 2 ** 31 - 2]);
  });

  it('refuses noise of another size, so that no coordinate leaves without', () => {
    expect(() => addNoise({ rows: 1, columns: 2, values: new Int32Array(2) }, new Int32Array(1))).toThrow(expect.objectContaining({ code: 'internal' }));
  });
});

describe('a distinguisher', () => {
  /** Fraction of trials in which the projection on the difference of two neighbors guesses the world correctly. */
  function accuracy(name: MechanismName, epsilon: number, shares = 4): number {
    const parameters = planRelease({ mechanism: name, outputKind: 'probabilities', rows: 20, columns: 2, gridStep: 1 / 64, epsilon, delta: 1e-5, releases: 1, shares });
    const mechanism = mechanismFor(parameters);
    const random = new InsecureSeededRandom(99);
    const oneHot = (hot: number): Matrix => ({ rows: 20, columns: 2, values: Float32Array.from({ length: 40 }, (_, i) => (i % 2 === hot ? 1 : 0)) });
    let correct = 0;
    for (let trial = 0; trial < 4000; trial++) {
      const world = trial % 2;
      // Of distributed noise the adversary sees a sum with as many shares as are counted; all other inputs are known to it.
      let sent = mechanism.constrainSensitivity(oneHot(world)).grid;
      for (let share = 0; share < (name === 'discreteGaussian' ? shares : 1); share++) sent = addNoise(sent, mechanism.noiseShare({ rows: 20, columns: 2 }, shares, random));
      const score = sent.values.reduce((sum, value, i) => sum + (i % 2 === 1 ? value : -value), 0);
      if (score > 0 === (world === 1)) correct++;
    }
    return correct / 4000;
  }

  it('is held to what (epsilon, delta) allows with noise, and wins without', () => {
    // (epsilon, delta)-DP: accuracy <= (e^epsilon + delta) / (1 + e^epsilon) (Kairouz, Oh & Viswanath 2015); plus 5 standard errors.
    const epsilon = 1;
    const limit = (Math.exp(epsilon) + 1e-5) / (1 + Math.exp(epsilon)) + 5 * Math.sqrt(0.25 / 4000);
    expect(accuracy('gaussian', epsilon)).toBeLessThan(limit);
    expect(accuracy('laplace', epsilon)).toBeLessThan(limit);
    expect(accuracy('discreteGaussian', epsilon)).toBeLessThan(limit);
    expect(accuracy('none', epsilon)).toBe(1);
    expect(accuracy('gaussian', 100)).toBeGreaterThan(0.99);
  });
});
