/** Fidelity, classes and maps: what compares a student with its teacher. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fidelity } from '../../../shared/evaluation/fidelity.ts';
import { largestChange, perClass, recallGap } from '../../../shared/evaluation/per-class.ts';
import { mapShape, rankCorrelation, saliencyAgreement, saliencyMaps, topOverlap } from '../../../shared/evaluation/saliency.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';

function matrix(rows: readonly (readonly number[])[]): Matrix {
  return { rows: rows.length, columns: rows[0]!.length, values: Float32Array.from(rows.flat()) };
}

describe('fidelity', () => {
  // The teacher says 0 0 1 1; labels 0 1 1 0, so it is wrong on the second and the last.
  const teacher = matrix([[2, 0], [1, 0], [0, 3], [0, 1]]);
  const labels = Int32Array.of(0, 1, 1, 0);

  it('counts agreement, also where the teacher is wrong', () => {
    const student = matrix([[1, 0], [5, 0], [1, 0], [1, 0]]); // 0 0 0 0
    expect(fidelity(teacher, student, labels)).toMatchObject({ agreement: 0.5, agreementWhereTeacherRight: 0.5, agreementWhereTeacherWrong: 0.5, teacherWrong: 2 });
  });

  it('KL of two Bernoulli predictions, by hand', () => {
    // p = (3/4, 1/4), q = (1/2, 1/2): KL = ln 2 - H(3/4) = 0.130812
    const one = fidelity(matrix([[Math.log(3), 0]]), matrix([[7, 7]]), Int32Array.of(0));
    expect(one.meanKl).toBeCloseTo(0.75 * Math.log(1.5) + 0.25 * Math.log(0.5), 6);
    expect(one).toMatchObject({ agreementWhereTeacherRight: 1, agreementWhereTeacherWrong: null });
  });

  it('is perfect with itself, and never negative', () => {
    const logits = fc.array(fc.array(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: 3, maxLength: 3 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(logits, logits, (a, b) => {
        const own = Int32Array.from(a, () => 1);
        expect(fidelity(matrix(a), matrix(a), own)).toMatchObject({ agreement: 1, meanKl: 0 });
        if (a.length === b.length) expect(fidelity(matrix(a), matrix(b), own).meanKl).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  it('compares only the same examples', () => {
    expect(() => fidelity(teacher, matrix([[1, 0]]), labels)).toThrow(expect.objectContaining({ code: 'data-invalid' }));
  });
});

describe('classes', () => {
  const predicted = matrix([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]); // 0 0 1 0 2
  const classes = perClass(predicted, Int32Array.of(0, 0, 1, 1, 1));

  it('recall and precision of each, null where there is nothing to divide by', () => {
    expect(classes.map(({ support, recall, predicted: taken, precision }) => [support, recall, taken, precision])).toEqual([
      [2, 1, 3, 2 / 3],
      [3, 1 / 3, 1, 1],
      [0, null, 1, 0],
      [0, null, 0, null],
    ]);
  });

  it('the gap from best to worst, over the classes that have examples', () => {
    expect(recallGap(classes)).toEqual({ best: 0, worst: 1, gap: 1 - 1 / 3 });
    expect(recallGap(classes.slice(1))).toBeNull();
  });

  it('the largest change against a reference', () => {
    const reference = perClass(matrix([[0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]), Int32Array.of(0, 0, 1, 1, 1)); // recalls 1/2, 1
    const { class: changed, change } = largestChange(classes, reference)!;
    expect(changed).toBe(1);
    expect(change).toBeCloseTo(-2 / 3, 12);
  });
});

describe('saliency maps', () => {
  it('are absolute gradients, the largest over the channels of an image', () => {
    const maps = saliencyMaps(Float32Array.of(1, -3, 2, 0, -1, 1, 0, 4), [2, 1, 2]);
    expect(mapShape([2, 1, 2])).toEqual([2, 1]);
    expect(maps).toEqual({ rows: 2, columns: 2, values: Float32Array.of(3, 2, 1, 4) });
    expect(saliencyMaps(Float32Array.of(1, -3), [2])).toEqual({ rows: 1, columns: 2, values: Float32Array.of(1, 3) });
  });

  it('rank correlation: 1, -1, ties with mean ranks, and none for a flat map', () => {
    expect(rankCorrelation([1, 2, 3, 10], [0, 1, 5, 6])).toBeCloseTo(1, 12);
    expect(rankCorrelation([1, 2, 3], [3, 2, 1])).toBeCloseTo(-1, 12);
    // Ranks 1 2.5 2.5 4 against 1 2 3 4: covariance 4.5, variances 4.5 and 5.
    expect(rankCorrelation([1, 2, 2, 3], [1, 2, 3, 4])).toBeCloseTo(4.5 / Math.sqrt(4.5 * 5), 12);
    expect(rankCorrelation([1, 1], [1, 2])).toBeNull();
  });

  it('overlap of the largest places', () => {
    expect(topOverlap([9, 8, 1, 0], [9, 0, 8, 1], 2)).toBe(0.5);
    expect(topOverlap([1, 1, 1, 1], [1, 1, 1, 1], 3)).toBe(1);
  });

  it('any rising rescaling of the values keeps both measures', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(50), fc.nat(50)), { minLength: 2, maxLength: 30 }), (pairs) => {
        const [a, b] = [pairs.map(([x]) => x), pairs.map(([, y]) => y)];
        const moved = a.map((x) => Math.sqrt(x) * 3 - 1);
        expect(rankCorrelation(moved, b)).toEqual(rankCorrelation(a, b));
        expect(topOverlap(moved, b, 2)).toBe(topOverlap(a, b, 2));
        const correlation = rankCorrelation(a, b);
        expect(correlation === null || Math.abs(correlation) <= 1).toBe(true);
        expect(rankCorrelation(b, a)).toEqual(correlation);
      }),
    );
  });

  it('agreement passes over flat maps, and its control pairs different examples', () => {
    const a = matrix([[1, 2, 3, 4], [0, 0, 0, 0], [4, 3, 2, 1], [1, 2, 3, 4]]);
    const agreement = saliencyAgreement(a, a, 0.25);
    expect(agreement.perExample).toEqual([1, null, 1, 1]);
    expect(agreement).toMatchObject({ compared: 3, rankCorrelation: { mean: 1, stddev: 0 }, topOverlap: { mean: 1, stddev: 0 }, topPlaces: 1 });
    // first with third: -1 and 0; third with last: -1 and 0; last with first: 1 and 1.
    expect(agreement.control!.rankCorrelation).toBeCloseTo(-1 / 3, 12);
    expect(agreement.control!.topOverlap).toBeCloseTo(1 / 3, 12);
    expect(saliencyAgreement(matrix([[1, 1]]), matrix([[1, 2]]))).toMatchObject({ compared: 0, rankCorrelation: null, control: null });
  });
});
