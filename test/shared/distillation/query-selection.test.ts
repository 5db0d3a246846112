import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { syntheticExamples } from '../../../shared/datasets/synthetic.ts';
import { nearestQueryVotes, nearestVoteSensitivity } from '../../../shared/distillation/nearest-query-votes.ts';
import { embed, fitPublicEmbedding, squaredDistance } from '../../../shared/distillation/public-embedding.ts';
import { nearestRows, queryPlan, selectQueries } from '../../../shared/distillation/query-selection.ts';
import { FederationError } from '../../../shared/errors.ts';
import { selectExamples, type Examples, type Matrix } from '../../../shared/types/matrix.ts';

const matrix = (rows: number[][]): Matrix => ({ rows: rows.length, columns: rows[0]!.length, values: Float32Array.from(rows.flat()) });

/** 30 points in each of these places, a little apart. */
function blobs(centers: number[][], seed = 1): Matrix {
  const generator = new SeededGenerator(seed);
  return matrix(centers.flatMap((center) => Array.from({ length: 30 }, () => center.map((value) => value + 0.1 * generator.gaussian()))));
}

/** An image with a vertical, horizontal or diagonal stroke, moved to the right. */
function stroke(kind: 'vertical' | 'horizontal', moved: number): number[] {
  return Array.from({ length: 28 * 28 }, (_, at) => {
    const [row, column] = [Math.floor(at / 28), (at % 28) - moved];
    const [along, across] = kind === 'vertical' ? [row, column] : [column, row];
    return along >= 6 && along < 22 && across >= 12 && across < 15 ? 1 : 0;
  });
}

describe('public embedding', () => {
  it('finds the directions of the largest variance', () => {
    const generator = new SeededGenerator(3);
    const spreads = [0.1, 5, 0.2, 2];
    const values = Float32Array.from({ length: 400 * 4 }, (_, at) => 7 + spreads[at % 4]! * generator.gaussian());
    const { axes, mean } = fitPublicEmbedding({ count: 400, shape: [4], values }, { components: 2, seed: 1 });
    expect(Math.abs(axes.values[1]!)).toBeGreaterThan(0.99);
    expect(Math.abs(axes.values[4 + 3]!)).toBeGreaterThan(0.99);
    mean.forEach((value) => expect(Math.abs(value - 7)).toBeLessThan(1));
  });

  it('has orthonormal axes, no more than there are features', () => {
    const { examples } = syntheticExamples({ size: 50, seed: 1, centerSeed: 2, exampleShape: [6], numClasses: 3 });
    const { axes } = fitPublicEmbedding(examples, { seed: 1 });
    expect(axes.rows).toBe(6);
    for (let i = 0; i < 6; i++) {
      for (let j = 0; j < 6; j++) {
        let dot = 0;
        for (let c = 0; c < 6; c++) dot += axes.values[i * 6 + c]! * axes.values[j * 6 + c]!;
        expect(dot).toBeCloseTo(i === j ? 1 : 0, 5);
      }
    }
  });

  it('keeps a stroke near to the same stroke a pixel aside, which pixels do not', () => {
    const kinds = ['vertical', 'horizontal'] as const;
    const images: Examples = { count: 10, shape: [28, 28, 1], values: Float32Array.from(kinds.flatMap((kind) => [-2, -1, 0, 1, 2].flatMap((moved) => stroke(kind, moved)))) };
    const points = embed(fitPublicEmbedding(images, { seed: 1 }), images);
    for (let moved = 0; moved < 4; moved++) {
      expect(squaredDistance(points, moved, points, moved + 1)).toBeLessThan(0.5 * squaredDistance(points, moved, points, 5 + moved));
    }
  });

  it('takes images of one color, and refuses another shape or a single example', () => {
    const flat: Examples = { count: 3, shape: [8, 8, 1], values: new Float32Array(3 * 64) };
    expect(embed(fitPublicEmbedding(flat, { seed: 1 }), flat).values.every((value) => value === 0)).toBe(true);
    const embedding = fitPublicEmbedding(flat, { seed: 1 });
    expect(() => embed(embedding, { count: 1, shape: [4], values: new Float32Array(4) })).toThrow(FederationError);
    expect(() => fitPublicEmbedding(selectExamples(flat, [0]), { seed: 1 })).toThrow(FederationError);
  });
});

describe('query selection', () => {
  const centers = [[0, 0], [5, 0], [0, 5], [5, 5], [9, 9]];

  it('asks once in each cluster', () => {
    const points = blobs(centers);
    for (const seed of [1, 2, 3, 4]) {
      const { rows, nearest } = selectQueries(points, centers.length, seed);
      expect([...rows].map((row) => Math.floor(row / 30))).toEqual([0, 1, 2, 3, 4]);
      expect([...nearest]).toEqual(Array.from({ length: points.rows }, (_, row) => Math.floor(row / 30)));
    }
  });

  it('asks for the middle of a cluster', () => {
    const points = blobs([[1, 2]]);
    const { rows } = selectQueries(points, 1, 1);
    expect(squaredDistance(points, rows[0]!, matrix([[1, 2]]), 0)).toBeLessThan(0.01);
  });

  it('never asks twice, not even among equal examples', () => {
    const points = matrix(Array.from({ length: 12 }, () => [1, 1]));
    expect([...selectQueries(points, 5, 1).rows]).toHaveLength(5);
    expect(new Set(selectQueries(points, 12, 1).rows).size).toBe(12);
  });

  it('is the same for the same seed, and can be rebuilt from its rows', () => {
    const points = blobs(centers, 8);
    const plan = selectQueries(points, 20, 3);
    expect(selectQueries(points, 20, 3)).toEqual(plan);
    expect(queryPlan(points, plan.rows)).toEqual(plan);
    expect([...plan.rows]).toEqual([...new Set(plan.rows)].sort((a, b) => a - b));
  });

  it('refuses numbers of queries and rows that are not there', () => {
    const points = blobs([[0, 0]]);
    for (const count of [0, 31, 1.5]) expect(() => selectQueries(points, count, 1)).toThrow(expect.objectContaining({ code: 'config-invalid', field: 'queries' }));
    expect(() => queryPlan(points, Uint32Array.of(30))).toThrow(RangeError);
  });

  it('finds what a plain search finds nearest', () => {
    const generator = new SeededGenerator(9);
    const random = (rows: number) => matrix(Array.from({ length: rows }, () => [generator.gaussian(), generator.gaussian(), generator.gaussian()]));
    const [points, candidates] = [random(50), random(7)];
    nearestRows(points, candidates).forEach((nearest, row) => {
      const distances = Array.from({ length: 7 }, (_, candidate) => squaredDistance(points, row, candidates, candidate));
      expect(distances[nearest]).toBe(Math.min(...distances));
    });
  });
});

describe('nearest-query votes', () => {
  const queries = matrix([[0, 0], [4, 0], [0, 4]]);
  const record = fc.record({ at: fc.tuple(fc.integer({ min: -5, max: 9 }), fc.integer({ min: -5, max: 9 })), label: fc.integer({ min: 0, max: 3 }) });
  const votesOf = (records: readonly { at: readonly [number, number]; label: number }[]) =>
    nearestQueryVotes({ rows: records.length, columns: 2, values: Float32Array.from(records.flatMap(({ at }) => at)) }, Int32Array.from(records, ({ label }) => label), queries, 4);
  const distance = (a: Int32Array, b: Int32Array) => Math.sqrt(a.reduce((sum, value, at) => sum + (value - b[at]!) ** 2, 0));

  it('counts each record once, at its nearest query under its label', () => {
    const votes = votesOf([{ at: [1, 0], label: 2 }, { at: [5, 1], label: 0 }, { at: [0, 3], label: 3 }, { at: [0, 1], label: 2 }]);
    expect([...votes.values]).toEqual([0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
  });

  it('differs by at most sqrt(2) when a record is replaced and by 1 when one is added, whatever the records', () => {
    let widest = 0;
    fc.assert(
      fc.property(fc.array(record, { minLength: 1, maxLength: 12 }), record, fc.nat(), (records, other, position) => {
        const replaced = records.with(position % records.length, other);
        const difference = distance(votesOf(records).values, votesOf(replaced).values);
        widest = Math.max(widest, difference);
        expect(difference).toBeLessThanOrEqual(nearestVoteSensitivity.replaceOne);
        expect(distance(votesOf(records).values, votesOf([...records, other]).values)).toBe(nearestVoteSensitivity.addOrRemove);
      }),
    );
    // The bound is reached: it is not larger than it has to be.
    expect(widest).toBe(nearestVoteSensitivity.replaceOne);
  });

  it('refuses labels that are missing or out of range', () => {
    expect(() => nearestQueryVotes(queries, Int32Array.of(0, 1), queries, 4)).toThrow(expect.objectContaining({ code: 'data-invalid', field: 'labels' }));
    expect(() => nearestQueryVotes(queries, Int32Array.of(0, 1, 4), queries, 4)).toThrow(expect.objectContaining({ code: 'data-invalid', field: 'labels[2]' }));
  });
});
