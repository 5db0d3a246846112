/** Labels from noised votes. Fixed seeds; five standard deviations. */
import { describe, expect, it } from 'vitest';
import { ABSTAINED, confidentGnMax, gnMaxEvent, gnMaxLabels, labelsAbove } from '../../../../shared/privacy/mechanisms/gnmax.ts';
import { ReleaseEventSchema } from '../../../../shared/privacy/dp-event.ts';
import { sampleRoundedGaussians } from '../../../../shared/privacy/sampling/rounded-gaussian.ts';
import { logNormalCdf } from '../../../../shared/privacy/accountants/numerics.ts';
import type { IntegerMatrix } from '../../../../shared/types/matrix.ts';
import { InsecureSeededRandom } from '../../../../simulations/insecure-seeded-random.ts';

const matrix = (...rows: number[][]): IntegerMatrix => ({ rows: rows.length, columns: rows[0]!.length, values: Int32Array.from(rows.flat()) });
const repeated = (row: readonly number[], rows: number): IntegerMatrix => ({ rows, columns: row.length, values: Int32Array.from({ length: rows * row.length }, (_, i) => row[i % row.length]!) });
const phi = (x: number) => Math.exp(logNormalCdf(x));
const within = (got: number, p: number, n: number) => expect(Math.abs(got / n - p)).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / n));

describe('labels of a noised histogram', () => {
  it('are the first of the largest, negative counts included', () => {
    expect([...gnMaxLabels(matrix([1, 5, 5], [-7, -3, -9], [0, 0, 0], [2, 1, 3]))]).toEqual([1, 1, 0, 2]);
  });

  it('are withheld below the threshold, and given at it', () => {
    expect([...labelsAbove(matrix([1, 5, 4], [-7, -3, -9], [6, 0, 0]), 5)]).toEqual([1, ABSTAINED, 0]);
  });

  it('with two classes the second wins as often as the difference of the noises says', () => {
    const [rows, sigma] = [40_000, 5];
    const votes = repeated([34, 31], rows);
    const noise = sampleRoundedGaussians(2 * rows, sigma, new InsecureSeededRandom(3));
    const wrong = gnMaxLabels({ ...votes, values: votes.values.map((x, i) => x + noise[i]!) }).filter((label) => label === 1).length;
    // Second strictly above the first: the difference of two rounded Gaussians is above 3, near enough a Gaussian of sqrt(2 sigma^2 + 1/6) above 3.5.
    within(wrong, phi(-3.5 / Math.sqrt(2 * sigma ** 2 + 1 / 6)), rows);
  });

  it('are charged for the histogram', () => {
    expect(ReleaseEventSchema.parse(gnMaxEvent(4.5, 100))).toEqual({ kind: 'gnMax', sigma: 4.5, queries: 100 });
  });
});

describe('confident labels of clear votes', () => {
  const request = { threshold: 40, sigmaThreshold: 6, sigmaVotes: 3, maxAnswers: 1e6 };

  it('are given as often as the threshold and its noise say, and are then nearly always right', () => {
    const rows = 20_000;
    const { labels, answered } = confidentGnMax(repeated([5, 38, 7], rows), request, new InsecureSeededRandom(5));
    // round(N) >= 2.
    within(answered, phi(-1.5 / 6), rows);
    expect(labels.filter((label) => label !== ABSTAINED)).toHaveLength(answered);
    expect(labels.every((label) => label === 1 || label === ABSTAINED)).toBe(true);
  });

  it('the noise of the threshold is not that of the answer', () => {
    const rows = 20_000;
    const { labels, answered } = confidentGnMax(repeated([38, 35], rows), request, new InsecureSeededRandom(6));
    // Were it the same noise, answers above the threshold would favor the first class.
    within(labels.filter((label) => label === 1).length, phi(-3.5 / Math.sqrt(2 * 9 + 1 / 6)), answered);
  });

  it('end at the limit that is charged for, and are charged for the limit when fewer are given', () => {
    const { labels, answered, event } = confidentGnMax(repeated([100, 0], 50), { ...request, maxAnswers: 7 }, new InsecureSeededRandom(7));
    expect([...labels.subarray(0, 8)]).toEqual([0, 0, 0, 0, 0, 0, 0, ABSTAINED]);
    expect(labels.subarray(7).every((label) => label === ABSTAINED)).toBe(true);
    expect([answered, event]).toEqual([7, { kind: 'confidentGnMax', sigmaThreshold: 6, sigmaVotes: 3, queries: 50, answered: 7 }]);
    expect(confidentGnMax(repeated([0, 0], 50), { ...request, maxAnswers: 7 }, new InsecureSeededRandom(7))).toMatchObject({ answered: 0, event: { answered: 7 } });
    expect(ReleaseEventSchema.safeParse(event).success).toBe(true);
  });

  it('need noise, a threshold and a limit', () => {
    for (const wrong of [{ sigmaThreshold: 0 }, { sigmaVotes: 1.5 }]) expect(() => confidentGnMax(repeated([100, 0], 1), { ...request, ...wrong }, new InsecureSeededRandom(1))).toThrow(RangeError);
    for (const wrong of [{ threshold: NaN }, { maxAnswers: -1 }, { maxAnswers: 0.5 }]) expect(() => confidentGnMax(repeated([100, 0], 1), { ...request, ...wrong }, new InsecureSeededRandom(1))).toThrow(/not possible/);
  });
});
