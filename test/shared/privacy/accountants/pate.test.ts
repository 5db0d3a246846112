/** Values of the authors' unit test (tensorflow/privacy, research/pate_2018/smooth_sensitivity_test.py, Apache-2.0), and what a data-dependent account refuses. */
import { describe, expect, it } from 'vitest';
import { gnMaxDataDependentRdp, gnMaxLocalSensitivities, gnMaxLogFailure, gnMaxRdp, normalQuantile, smoothConditionsHold, smoothReleaseRdp, smoothSensitivity, thresholdLocalSensitivities } from '../../../../shared/privacy/accountants/pate.ts';
import { logNormalCdf } from '../../../../shared/privacy/accountants/numerics.ts';
import { PrivateVoteAccount } from '../../../../shared/privacy/pate-data-dependent.ts';
import type { Delta } from '../../../../shared/types/units.ts';

function expectAll(got: Float64Array, expected: readonly number[]): void {
  expect(got).toHaveLength(expected.length);
  for (const [index, value] of expected.entries()) expect(Math.abs(got[index]! - value)).toBeLessThanOrEqual(1e-8 * Math.abs(value) + 1e-30);
}
const repeat = (value: number, count: number) => new Array<number>(count).fill(value);

describe('local sensitivity of the data-dependent bound', () => {
  it('GNMax, away from the winner and toward it', () => {
    expectAll(gnMaxLocalSensitivities([10, 0, 0], 10, 0.5, 1.5), [3.135_036_46e-17, 1.601_782_8e-8, 5.906_817_86e-3, ...repeat(5.999_813_08, 7)]);
    const left = gnMaxLocalSensitivities([1000, 500, 300, 200, 0], 2000, 250, 10);
    expectAll(left, [...repeat(0, 298), 2.776_934_505_48e-7, 2.108_539_795_48e-6, ...repeat(2.731_136_239_88e-6, 1700)]);
  });

  it('threshold test', () => {
    const rising = [1.484_541_29e-4, 1.478_268_7e-2, 3.941_532_41e-2, 6.457_756_97e-2];
    expectAll(thresholdLocalSensitivities([20, 10, 0], 30, 16, 2, 10), [
      0, 0, 0, ...rising, 9.015_432_66e-2, 1.160_54e-1, 1.421_804_52e-1, 1.421_804_52e-1, ...rising, 9.015_432_66e-2, 1.160_54e-1, 1.421_804_52e-1, 1.683_021_06e-1, 1.931_278_6e-1, ...repeat(0, 10),
    ]);
  });

  it('its conditions hold where the authors found them to hold, and only there', () => {
    expect(smoothConditionsHold(20, 25, 10)).toEqual({ rises: true, growthRises: false });
    expect(smoothConditionsHold(30, 25, 10)).toEqual({ rises: true, growthRises: true });
  });

  it('bounds the change of the bound when a vote moves', () => {
    const [sigma, order, clients] = [20, 14, 100];
    const rdp = (votes: readonly number[]) => gnMaxDataDependentRdp(gnMaxLogFailure(votes, sigma), sigma, order);
    for (const votes of [[90, 6, 4], [60, 30, 10], [98, 1, 1]]) {
      const local = gnMaxLocalSensitivities(votes, clients, sigma, order)[0]!;
      for (const [from, to] of [[0, 1], [1, 0], [2, 0], [0, 2]] as const) {
        const moved = [...votes];
        moved[from]! -= 1;
        moved[to]! += 1;
        expect(Math.abs(rdp(moved) - rdp(votes))).toBeLessThanOrEqual(local * (1 + 1e-9));
      }
    }
  });

  it('smooth sensitivity is at least the local one, and shrinks with beta', () => {
    const local = gnMaxLocalSensitivities([90, 6, 4], 100, 20, 14);
    expect(smoothSensitivity(0.02, local)).toBeGreaterThanOrEqual(local[0]!);
    expect(smoothSensitivity(0.03, local)).toBeLessThanOrEqual(smoothSensitivity(0.02, local));
    expect(() => smoothReleaseRdp(0.05, 6, 10)).toThrow(RangeError);
  });

  it('never exceeds the data-independent bound', () => {
    for (const votes of [[250, 0], [200, 50], [126, 124], [125, 125]]) for (const order of [1.5, 8, 40, 300]) expect(gnMaxDataDependentRdp(gnMaxLogFailure(votes, 40), 40, order)).toBeLessThanOrEqual(gnMaxRdp(40, order));
  });

  it('the normal quantile inverts the distribution, far into the tail', () => {
    for (const x of [-100, -8.5, -1, -1e-3, 0.5, 3]) expect(normalQuantile(logNormalCdf(x))).toBeCloseTo(x, 8);
  });
});

describe('check 5: the data-dependent account', () => {
  const account = new PrivateVoteAccount({ clients: 250, classes: 3, sigmaVotes: 40 }, [{ votes: [230, 15, 5], isAnswered: true }, { votes: [120, 100, 30], isAnswered: false }]);
  const options = { delta: 1e-5 as Delta, order: 14, beta: 0.02, sigmaSmooth: 6, standardNormal: 0 };

  it('is never given against the coordinator', () => {
    expect(() => account.publish({ ...options, adversary: 'coordinator' })).toThrow(expect.objectContaining({ code: 'policy-refused', field: 'adversary' }));
  });

  it('is never written out without noise', () => {
    expect(() => JSON.stringify(account)).toThrow(expect.objectContaining({ code: 'policy-refused' }));
    expect(Object.keys(account)).toEqual([]);
  });

  it('is published with noise scaled to the smooth sensitivity, and charges for it', () => {
    const middle = account.publish({ ...options, adversary: 'labelRecipients' });
    const higher = account.publish({ ...options, adversary: 'labelRecipients', standardNormal: 1 });
    const sensitivity = smoothSensitivity(options.beta, gnMaxLocalSensitivities([230, 15, 5], 250, 40, 14));
    expect(higher.epsilonEstimate - middle.epsilonEstimate).toBeCloseTo(6 * sensitivity, 12);
    expect(middle.publicationRdp).toBe(smoothReleaseRdp(0.02, 6, 14));
    expect(middle).toMatchObject({ adversary: 'labelRecipients', answered: 1, queries: 2, order: 14 });
  });

  it('refuses an order at which the sensitivity is not known to be valid', () => {
    const few = new PrivateVoteAccount({ clients: 50, classes: 10, sigmaVotes: 20 }, []);
    expect(() => few.publish({ ...options, order: 25, beta: 0.01, adversary: 'labelRecipients' })).toThrow(expect.objectContaining({ code: 'policy-refused', field: 'order' }));
  });

  it('refuses votes that can not be', () => {
    expect(() => new PrivateVoteAccount({ clients: 3, classes: 2, sigmaVotes: 1 }, [{ votes: [3, 1], isAnswered: true }])).toThrow(expect.objectContaining({ code: 'data-invalid' }));
  });
});
