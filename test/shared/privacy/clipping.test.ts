import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkIntegerNorms, constrainContribution, constrainSensitivity, gridToPredictions } from '../../../shared/privacy/clipping.ts';
import type { ReleaseParameters } from '../../../shared/privacy/release.ts';
import { releaseSensitivity } from '../../../shared/privacy/release.ts';
import type { IntegerMatrix, Matrix, OutputKind } from '../../../shared/types/matrix.ts';

function release(outputKind: OutputKind, rows: number, columns: number, gridStep: number, rowClippingNorm = 2.71828): ReleaseParameters {
  return { mechanism: 'none', outputKind, rows, columns, gridStep, noise: null, ...(outputKind === 'logits' ? { rowClippingNorm } : {}) };
}
const matrix = (rows: number, columns: number, values: ArrayLike<number>): Matrix => ({ rows, columns, values: Float32Array.from(values) });
function distances(a: IntegerMatrix, b: IntegerMatrix): { l1: number; l2: number } {
  let l1 = 0;
  let squared = 0;
  a.values.forEach((value, i) => {
    const difference = value - b.values[i]!;
    l1 += Math.abs(difference);
    squared += difference * difference;
  });
  return { l1, l2: Math.sqrt(squared) };
}

/** Rows that sit on every edge: huge, tiny, one-hot, negative, uniform, exactly at the bound. */
const row = (columns: number) =>
  fc.oneof(
    fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: columns, maxLength: columns }),
    fc.array(fc.float({ min: 0, max: 1, noNaN: true }), { minLength: columns, maxLength: columns }),
    fc.integer({ min: 0, max: columns - 1 }).map((hot) => Array.from({ length: columns }, (_, i) => (i === hot ? 1 : 0))),
    fc.tuple(fc.integer({ min: 0, max: columns - 1 }), fc.constantFrom(-1e30, 1e30, 3.4e38, 1e-38)).map(([hot, size]) => Array.from({ length: columns }, (_, i) => (i === hot ? size : 0))),
    fc.constant(Array.from({ length: columns }, () => 1 / columns)),
    fc.constant(Array.from({ length: columns }, (_, i) => (i % 2 === 0 ? 1e6 : -1e6))),
  );
const neighbors = fc
  .record({
    outputKind: fc.constantFrom<OutputKind>('probabilities', 'logits'),
    rows: fc.integer({ min: 1, max: 12 }),
    columns: fc.integer({ min: 2, max: 12 }),
    gridStep: fc.constantFrom(1 / 4096, 1, 0.1, 0.0314159, 2 ** -20, 1 / 3),
    norm: fc.constantFrom(5, 0.271828, 3, 1e-3, 10),
  })
  .chain((shape) =>
    fc.tuple(
      fc.constant(shape),
      fc.array(row(shape.columns), { minLength: shape.rows, maxLength: shape.rows }),
      fc.array(row(shape.columns), { minLength: shape.rows, maxLength: shape.rows }),
    ),
  );

describe('whole-matrix sensitivity, on the integers that are sent', () => {
  it('bounds every pair of neighbors, random and adversarial, replace-one and zero-out', () => {
    fc.assert(
      fc.property(neighbors, ([shape, rowsA, rowsB]) => {
        const parameters = release(shape.outputKind, shape.rows, shape.columns, shape.gridStep, shape.norm);
        const bound = releaseSensitivity(parameters);
        const a = constrainSensitivity(matrix(shape.rows, shape.columns, rowsA.flat()), parameters).grid;
        const b = constrainSensitivity(matrix(shape.rows, shape.columns, rowsB.flat()), parameters).grid;
        const zero = { ...a, values: new Int32Array(a.values.length) };
        expect(distances(a, b).l2).toBeLessThanOrEqual(bound.l2.replaceOne);
        expect(distances(a, b).l1).toBeLessThanOrEqual(bound.l1.replaceOne);
        expect(distances(a, zero).l2).toBeLessThanOrEqual(bound.l2.zeroOut);
        expect(distances(a, zero).l1).toBeLessThanOrEqual(bound.l1.zeroOut);
        expect(Math.max(...a.values.map(Math.abs))).toBeLessThanOrEqual(bound.maxAbsolute);
      }),
      { numRuns: 3000, seed: 314159 },
    );
  });

  it('is reached, so a smaller published bound (row-level, or halved) would be wrong', () => {
    const rows = 50;
    for (const outputKind of ['probabilities', 'logits'] as const) {
      const parameters = release(outputKind, rows, 2, 1 / 4096, 1);
      const first = matrix(rows, 2, Array.from({ length: rows }, () => [1, 0]).flat());
      const second = matrix(rows, 2, Array.from({ length: rows }, () => (outputKind === 'logits' ? [-1, 0] : [0, 1])).flat());
      const { l2 } = distances(constrainSensitivity(first, parameters).grid, constrainSensitivity(second, parameters).grid);
      const bound = releaseSensitivity(parameters).l2.replaceOne;
      expect(l2 / bound).toBeGreaterThan(1 - 1e-9);
      const rowLevel = releaseSensitivity({ ...parameters, rows: 1 }).l2.replaceOne;
      expect(l2).toBeGreaterThan(7 * rowLevel);
    }
  });

  it('refuses integers beyond the bound, one step past it', () => {
    const parameters = release('probabilities', 2, 2, 1 / 4);
    const grid = (values: number[]) => ({ rows: 2, columns: 2, values: Int32Array.from(values) });
    expect(() => checkIntegerNorms(grid([4, 0, 0, 4]), parameters)).not.toThrow();
    for (const beyond of [[5, 0, 0, 0], [4, 1, 0, 4], [-1, 0, 0, 0], [4, 0, 0, 5]]) {
      expect(() => checkIntegerNorms(grid(beyond), parameters)).toThrow(expect.objectContaining({ code: 'internal' }));
    }
  });
});

/** The matrices of all shards, and another one for one of them: random, adversarial, or a shard that has no opinion. */
const shardNeighbors = fc
  .record({
    outputKind: fc.constantFrom<OutputKind>('probabilities', 'logits'),
    votes: fc.boolean(),
    rows: fc.integer({ min: 1, max: 6 }),
    columns: fc.integer({ min: 2, max: 6 }),
    shards: fc.integer({ min: 2, max: 9 }),
    gridStep: fc.constantFrom(1 / 4096, 1, 0.1, 0.0314159, 1 / 3),
  })
  .chain((shape) => {
    const rows = fc.array(fc.oneof(row(shape.columns), fc.constant(new Array<number>(shape.columns).fill(0))), { minLength: shape.rows, maxLength: shape.rows });
    return fc.tuple(fc.constant(shape), fc.array(rows, { minLength: shape.shards, maxLength: shape.shards }), rows, fc.nat({ max: shape.shards - 1 }));
  });

describe('the sensitivity of shards, on the integers that are sent', () => {
  it('bounds every replaced or removed record: the sums differ by one shard, whole matrix, after rounding', () => {
    fc.assert(
      fc.property(shardNeighbors, ([shape, shards, other, changed]) => {
        const votes = shape.votes && shape.outputKind === 'probabilities' ? { votes: true as const } : {};
        const parameters: ReleaseParameters = { ...release(shape.outputKind, shape.rows, shape.columns, shape.gridStep), shards: shape.shards, ...votes };
        const bound = releaseSensitivity(parameters);
        const toMatrices = (all: readonly (readonly number[][])[]) => all.map((rows) => matrix(shape.rows, shape.columns, rows.flat()));
        const before = constrainContribution(toMatrices(shards), parameters).grid;
        const after = constrainContribution(toMatrices(shards.map((rows, i) => (i === changed ? other : rows))), parameters).grid;
        for (const relation of ['replaceOne', 'zeroOut'] as const) {
          expect(distances(before, after).l2).toBeLessThanOrEqual(bound.l2[relation]);
          expect(distances(before, after).l1).toBeLessThanOrEqual(bound.l1[relation]);
        }
        expect(Math.max(...before.values.map(Math.abs))).toBeLessThanOrEqual(bound.maxAbsolute);
        if (parameters.votes === true) {
          const one = Math.trunc((1 / shape.gridStep) * (1 + 2 ** -40));
          for (const value of before.values) expect(value % one).toBe(0);
        }
      }),
      { numRuns: 1500, seed: 161803 },
    );
  });

  it('is reached by votes, and by a record whose shard had no opinion at most by the root of a half of it', () => {
    const [rows, shards] = [50, 4];
    const parameters: ReleaseParameters = { ...release('probabilities', rows, 2, 1 / 4096), shards, votes: true };
    const votesFor = (hot: number) => matrix(rows, 2, Array.from({ length: 2 * rows }, (_, i) => (i % 2 === hot ? 1 : 0)));
    const none = matrix(rows, 2, new Float32Array(2 * rows));
    const sumWith = (first: Matrix) => constrainContribution([first, votesFor(0), votesFor(1), none], parameters).grid;
    const bound = releaseSensitivity(parameters).l2;
    expect(distances(sumWith(votesFor(0)), sumWith(votesFor(1))).l2 / bound.replaceOne).toBeCloseTo(1, 9);
    expect(distances(sumWith(votesFor(0)), sumWith(none)).l2 / bound.zeroOut).toBeCloseTo(Math.SQRT1_2, 9);
    expect(bound).toEqual(releaseSensitivity({ ...parameters, shards: 4000 }).l2);
    expect(bound.replaceOne).toBeGreaterThan(7 * releaseSensitivity({ ...parameters, rows: 1 }).l2.replaceOne);
  });

  it('casts one vote a row: for the first of the largest values, and none without an opinion', () => {
    const parameters: ReleaseParameters = { ...release('probabilities', 4, 3, 1 / 8), votes: true };
    const { grid } = constrainSensitivity(matrix(4, 3, [0.2, 0.5, 0.3, 7, 7, -1, 0.25, 0.25, 0.25, -3, -2, -9]), parameters);
    expect([...grid.values]).toEqual([0, 8, 0, 8, 0, 0, 0, 0, 0, 0, 8, 0]);
  });

  it.each([1, 3])('refuses %d matrices of two shards', (count) => {
    const parameters: ReleaseParameters = { ...release('probabilities', 1, 2, 1 / 4), shards: 2 };
    expect(() => constrainContribution(Array.from({ length: count }, () => matrix(1, 2, [1, 0])), parameters)).toThrow(expect.objectContaining({ code: 'shape-mismatch' }));
  });
});

describe('constrainSensitivity', () => {
  it('leaves predictions inside the bounds as they are, up to one grid step toward zero', () => {
    const values = [0.7, 0.2, 0.1, 0.25, 0.5, 0.25];
    const { grid, wasClipped } = constrainSensitivity(matrix(2, 3, values), release('probabilities', 2, 3, 1 / 4096));
    expect(wasClipped).toBe(false);
    gridToPredictions(grid, 1 / 4096).values.forEach((value, i) => {
      expect(value).toBeLessThanOrEqual(values[i]! + 1e-6);
      expect(value).toBeGreaterThan(values[i]! - 1 / 4096 - 1e-6);
    });
  });

  it('sends multiples of the grid step only, and keeps exact ones exact', () => {
    const { grid } = constrainSensitivity(matrix(2, 2, [1, 0, 0.5, 0.5]), release('probabilities', 2, 2, 1 / 4096));
    expect([...grid.values]).toEqual([4096, 0, 2048, 2048]);
    const logits = constrainSensitivity(matrix(1, 2, [6, -8]), release('logits', 1, 2, 0.5, 5));
    expect([...logits.grid.values]).toEqual([6, -8]);
    expect(logits.wasClipped).toBe(true);
  });

  it('rounds toward zero on both sides', () => {
    const { grid } = constrainSensitivity(matrix(1, 2, [0.99, -0.99]), release('logits', 1, 2, 0.5, 5));
    expect([...grid.values]).toEqual([1, -1]);
  });

  it('clips negative probabilities, renormalizes, and makes a row without mass uniform', () => {
    const { grid, wasClipped } = constrainSensitivity(matrix(2, 2, [-1, 3, -1, 0]), release('probabilities', 2, 2, 1 / 4));
    expect([...grid.values]).toEqual([0, 4, 2, 2]);
    expect(wasClipped).toBe(true);
  });

  it.each([NaN, Infinity, -Infinity])('refuses %d among the predictions', (bad) => {
    expect(() => constrainSensitivity(matrix(1, 2, [bad, 0]), release('probabilities', 1, 2, 1 / 4))).toThrow(expect.objectContaining({ code: 'data-invalid' }));
  });

  it('refuses another shape', () => {
    expect(() => constrainSensitivity(matrix(1, 2, [1, 0]), release('probabilities', 2, 2, 1 / 4))).toThrow(expect.objectContaining({ code: 'shape-mismatch' }));
  });
});
