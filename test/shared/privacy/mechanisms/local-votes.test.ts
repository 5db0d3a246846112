/** Local votes: exact odds, samples against them, estimates. Fixed seeds; false-positive rate over seeds 1e-6 a test, or five standard deviations. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Delta } from '../../../../shared/types/units.ts';
import { accountantFor } from '../../../../shared/privacy/accountants/composite-accountant.ts';
import { bestSubsetSize, randomizedResponseLaw, randomizedResponseVariance, reportVariance, subsetSelectionLaw } from '../../../../shared/privacy/local-votes.ts';
import { randomizedResponseEvent, randomizedResponseOdds, randomizeResponses } from '../../../../shared/privacy/mechanisms/k-randomized-response.ts';
import { selectSubsets, subsetSelectionEvent, subsetSelectionOdds } from '../../../../shared/privacy/mechanisms/subset-selection.ts';
import { estimateVotes, MAX_VOTE_EPSILON, voteLaw, voteOdds, type VoteOdds } from '../../../../shared/privacy/mechanisms/vote-odds.ts';
import type { IntegerMatrix } from '../../../../shared/types/matrix.ts';
import { InsecureSeededRandom } from '../../../../simulations/insecure-seeded-random.ts';
import { chiSquare, chiSquareLimit } from '../../../support/chi-square.ts';

const golden = (JSON.parse(readFileSync(new URL('../../../vectors/dp-golden.json', import.meta.url), 'utf8')) as { cases: { id: string; group: string; params: { epsilon_local: number; k: number }; expected: { p_truth: number; q_other: number; subset_size: number; p_true_in: number; q_other_in: number } }[] }).cases;

/** A float as a fraction. */
function fraction(x: number): readonly [bigint, bigint] {
  let denominator = 1n;
  while (!Number.isInteger(x)) {
    x *= 2;
    denominator *= 2n;
  }
  return [BigInt(x), denominator];
}

/** Whether `a / b <= e^epsilon`, decided with rational numbers: a partial sum of the exponential series is below e^epsilon. */
function isAtMostExp(a: bigint, b: bigint, epsilon: number): boolean {
  const [p, q] = fraction(epsilon);
  let [numerator, denominator, factor] = [1n, 1n, 1n];
  for (let n = 1n; n <= 120n; n++) {
    factor *= p;
    numerator = numerator * q * n + factor;
    denominator *= q * n;
  }
  return a * denominator <= b * numerator;
}

const settings = [0, 1e-9, 0.1, 0.5, 1, Math.LN2, Math.E, Math.PI, 8, 15, MAX_VOTE_EPSILON].flatMap((epsilon) => [2, 3, 10, 100, 1000].map((categories) => ({ epsilon, categories })));

describe('odds', () => {
  it.each(settings)('epsilon $epsilon, $categories classes: no report is more than e^epsilon times as likely for one value as for another', ({ epsilon, categories }) => {
    for (const subsetSize of new Set([1, bestSubsetSize(epsilon, categories)])) {
      const { favored, unit, total } = voteOdds(epsilon, categories, subsetSize);
      expect(isAtMostExp(BigInt(favored), BigInt(unit), epsilon)).toBe(true);
      expect(favored).toBeGreaterThanOrEqual(unit);
      expect(total).toBe(subsetSize * favored + (categories - subsetSize) * unit);
      expect(total).toBeLessThanOrEqual(2 ** 32);
      // And hardly less: one unit of weight.
      expect((favored + 1) / unit).toBeGreaterThan(Math.exp(epsilon) * (1 - 1e-14));
      expect(Math.log(favored / unit)).toBeGreaterThan(epsilon - 1e-3);
    }
  });

  it('a check that would let a ratio above e^epsilon pass does not', () => {
    const { favored, unit } = voteOdds(1, 10, 1);
    expect(isAtMostExp(BigInt(favored) + 1n, BigInt(unit), 1)).toBe(false);
    expect(isAtMostExp(2n, 1n, Math.LN2)).toBe(false);
  });

  it('a set is as likely as its law says: all sets of 3 out of 6 add up to 1, with ratio favored to unit', () => {
    const odds = voteOdds(1.3, 6, 3);
    const chosen = (n: number, r: number): bigint => Array.from({ length: r }, (_, i) => i).reduce((product, i) => (product * BigInt(n - i)) / BigInt(i + 1), 1n);
    // Weight of one set times C(5, 2) C(5, 3), so that it stays an integer.
    const withOwn = BigInt(odds.subsetSize * odds.favored) * chosen(5, 3);
    const without = BigInt(3 * odds.unit) * chosen(5, 2);
    expect(withOwn * BigInt(odds.unit)).toBe(without * BigInt(odds.favored));
    expect(withOwn * chosen(5, 2) + without * chosen(5, 3)).toBe(BigInt(odds.total) * chosen(5, 2) * chosen(5, 3));
  });

  it('agree with the reference values', () => {
    for (const { params, expected } of golden.filter(({ group }) => group === 'krr')) {
      const { forTrue, forOther } = voteLaw(randomizedResponseOdds(params.epsilon_local, params.k));
      expect(forTrue).toBeCloseTo(expected.p_truth, 8);
      expect(forOther).toBeCloseTo(expected.q_other, 8);
    }
    for (const { params, expected } of golden.filter(({ group }) => group === 'ldp-ss')) {
      const odds = subsetSelectionOdds(params.epsilon_local, params.k);
      expect(odds.subsetSize).toBe(expected.subset_size);
      expect(voteLaw(odds).forTrue).toBeCloseTo(expected.p_true_in, 8);
      expect(voteLaw(odds).forOther).toBeCloseTo(expected.q_other_in, 8);
    }
  });

  it('are refused where they do not exist', () => {
    for (const [epsilon, categories, size] of [[-1, 3, 1], [NaN, 3, 1], [21, 3, 1], [1, 1, 1], [1, 1001, 1], [1, 3, 0], [1, 3, 3], [1, 3, 1.5], [20, 1000, 10]] as const) {
      expect(() => voteOdds(epsilon, categories, size)).toThrow(/not possible/);
    }
  });
});

const total = (reports: IntegerMatrix, column: number) => {
  let sum = 0;
  for (let row = 0; row < reports.rows; row++) sum += reports.values[row * reports.columns + column]!;
  return sum;
};

describe('randomized response', () => {
  it.each([[0, 4, 1], [Math.E, 10, 7], [0.3, 2, 0], [1.5, 50, 49]])('epsilon %d, %d classes: reports for class %d fit the exact probabilities', (epsilon, categories, own) => {
    const [rows, odds] = [100_000, randomizedResponseOdds(epsilon, categories)];
    const reports = randomizeResponses(new Int32Array(rows).fill(own), odds, new InsecureSeededRandom(17));
    const counts = Array.from({ length: categories }, (_, column) => total(reports, column));
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(rows);
    const probabilities = counts.map((_, column) => (column === own ? odds.favored : odds.unit) / odds.total);
    expect(chiSquare(counts, probabilities, rows)).toBeLessThan(chiSquareLimit(Math.max(3, categories - 1)));
  });

  it('reports one class a row, and refuses what is no class', () => {
    const odds = randomizedResponseOdds(2, 3);
    const reports = randomizeResponses(Int32Array.of(0, 1, 2, 2), odds, new InsecureSeededRandom(1));
    for (let row = 0; row < 4; row++) expect([...reports.values.subarray(3 * row, 3 * row + 3)].sort()).toEqual([0, 0, 1]);
    expect(() => randomizeResponses(Int32Array.of(3), odds, new InsecureSeededRandom(1))).toThrow(RangeError);
    expect(() => randomizeResponses(Int32Array.of(-1), odds, new InsecureSeededRandom(1))).toThrow(RangeError);
    expect(() => randomizeResponses(Int32Array.of(1), subsetSelectionOdds(0.1, 4, 2), new InsecureSeededRandom(1))).toThrow(/one class/);
  });
});

describe('subset selection', () => {
  it('every set of 2 out of 5 is as frequent as its exact probability', () => {
    const [rows, own, odds] = [200_000, 3, subsetSelectionOdds(1.1, 5, 2)];
    const reports = selectSubsets(new Int32Array(rows).fill(own), odds, new InsecureSeededRandom(23));
    const counts = new Map<string, number>();
    for (let row = 0; row < rows; row++) {
      const set = [...reports.values.subarray(5 * row, 5 * row + 5)].join('');
      counts.set(set, (counts.get(set) ?? 0) + 1);
    }
    const sets = [...counts.keys()].sort();
    expect(sets).toHaveLength(10);
    // 4 sets with the own class, 6 without.
    const probabilities = sets.map((set) => (set[own] === '1' ? (2 * odds.favored) / odds.total / 4 : (3 * odds.unit) / odds.total / 6));
    expect(chiSquare(sets.map((set) => counts.get(set)!), probabilities, rows)).toBeLessThan(chiSquareLimit(9));
  });

  it.each([[0.5, 10], [1, 100], [4, 10]])('epsilon %d, %d classes: each class is reported as often as its law says', (epsilon, categories) => {
    const [rows, own, odds] = [20_000, 2, subsetSelectionOdds(epsilon, categories)];
    const reports = selectSubsets(new Int32Array(rows).fill(own), odds, new InsecureSeededRandom(29));
    const { forTrue, forOther } = voteLaw(odds);
    for (let column = 0; column < categories; column++) {
      const p = column === own ? forTrue : forOther;
      expect(Math.abs(total(reports, column) / rows - p)).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / rows));
    }
    for (let row = 0; row < rows; row++) expect(reports.values.subarray(categories * row, categories * (row + 1)).reduce((sum, x) => sum + x, 0)).toBe(odds.subsetSize);
  });
});

describe('estimates', () => {
  it.each([
    { name: 'randomized response', odds: randomizedResponseOdds(1.2, 5), report: randomizeResponses, variance: randomizedResponseVariance(1.2, 5) },
    { name: 'subset selection', odds: subsetSelectionOdds(0.7, 5), report: selectSubsets, variance: reportVariance(subsetSelectionLaw(0.7, 5, subsetSelectionOdds(0.7, 5).subsetSize)) },
  ])('$name: unbiased, with the variance that they say', ({ odds, report, variance }) => {
    // Rows are repetitions: 60 clients with the same choices in each.
    const [clients, rows] = [60, 4000];
    const shares = [0.5, 0.3, 0.2, 0, 0];
    const random = new InsecureSeededRandom(37);
    const counts = { rows, columns: 5, values: new Int32Array(rows * 5) };
    for (let client = 0; client < clients; client++) {
      const choice = client < 30 ? 0 : client < 48 ? 1 : 2;
      report(new Int32Array(rows).fill(choice), odds, random).values.forEach((x, i) => (counts.values[i]! += x));
    }
    const { frequencies, variance: varianceOf } = estimateVotes(counts, clients, odds);
    expect(varianceOf(0) * clients).toBeCloseTo(variance, 5);
    for (const [column, share] of shares.entries()) {
      const values = Array.from({ length: rows }, (_, row) => frequencies[5 * row + column]!);
      const mean = values.reduce((sum, x) => sum + x, 0) / rows;
      expect(Math.abs(mean - share)).toBeLessThan(5 * Math.sqrt(varianceOf(share) / rows));
      const spread = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (rows - 1);
      expect(Math.abs(spread / varianceOf(share) - 1)).toBeLessThan(5 * Math.sqrt(2.5 / rows));
    }
  });

  it('of counts as the law expects them are the shares', () => {
    const odds = voteOdds(2, 4, 1);
    const { forTrue, forOther } = voteLaw(odds);
    expect(forTrue).toBeCloseTo(randomizedResponseLaw(2, 4).forTrue, 8);
    const clients = 1e6;
    const counts = Int32Array.of(1, 0, 0, 0).map((own) => Math.round(clients * (own === 1 ? forTrue : forOther)));
    const { frequencies } = estimateVotes({ rows: 1, columns: 4, values: counts }, clients, odds);
    [1, 0, 0, 0].forEach((share, i) => expect(frequencies[i]).toBeCloseTo(share, 5));
  });

  it('are refused for reports that say nothing, or for other classes', () => {
    const counts = { rows: 1, columns: 4, values: new Int32Array(4) };
    expect(() => estimateVotes(counts, 5, voteOdds(0, 4, 1))).toThrow(/say nothing/);
    expect(() => estimateVotes(counts, 5, voteOdds(1, 5, 1))).toThrow(/columns/);
    expect(() => estimateVotes(counts, 0, voteOdds(1, 4, 1))).toThrow(/clients/);
  });
});

describe('accounting', () => {
  const cost = (event: ReturnType<typeof randomizedResponseEvent>) => accountantFor([event], 'replaceOne').epsilon(1e-5 as Delta);

  it('composes over rows: at most rows times epsilon, and more for more rows', () => {
    for (const event of [(rows: number) => randomizedResponseEvent(0.5, 10, rows), (rows: number) => subsetSelectionEvent(0.5, 10, 4, rows)]) {
      const one: VoteOdds = voteOdds(0.5, 10, 1);
      // The accountant rounds sums up.
      expect(cost(event(1))).toBeLessThanOrEqual(0.5 * (1 + 1e-12));
      expect(cost(event(1))).toBeGreaterThan(Math.log(one.favored / one.unit) - 1e-3);
      expect(cost(event(20))).toBeLessThanOrEqual(10 * (1 + 1e-12));
      expect(cost(event(20))).toBeGreaterThan(cost(event(10)));
    }
  });

  it('knows no add or remove of a vote', () => {
    expect(() => accountantFor([randomizedResponseEvent(0.5, 10, 3)], 'zeroOut').epsilon(1e-5 as Delta)).toThrow();
  });
});
