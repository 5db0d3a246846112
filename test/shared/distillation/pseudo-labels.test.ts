import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { plurality, trustedRows } from '../../../shared/distillation/plurality.ts';
import { agreement, confidentRows, neighborGraph, pseudoLabelsOf, spreadVotes, surestRows } from '../../../shared/distillation/pseudo-labels.ts';
import { queryPlan, selectQueries } from '../../../shared/distillation/query-selection.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';

const matrix = (rows: number[][]): Matrix => ({ rows: rows.length, columns: rows[0]!.length, values: Float32Array.from(rows.flat()) });

/** Two half moons in the plane, one around the other's end: 60 points each, class 0 first. */
function halfMoons(): Matrix {
  const generator = new SeededGenerator(2);
  return matrix(
    [0, 1].flatMap((moon) =>
      Array.from({ length: 60 }, (_, i) => {
        const angle = (Math.PI * i) / 59;
        const [x, y] = moon === 0 ? [Math.cos(angle), Math.sin(angle)] : [1 - Math.cos(angle), 0.5 - Math.sin(angle)];
        return [x + 0.04 * generator.gaussian(), y + 0.04 * generator.gaussian()];
      }),
    ),
  );
}

/** Solves A x = b by elimination with pivots: the reference for the iteration. */
function solve(a: number[][], b: number[]): number[] {
  const rows = a.map((row, i) => [...row, b[i]!]);
  rows.forEach((_, column) => {
    const pivot = rows.slice(column).reduce((best, row, i) => (Math.abs(row[column]!) > Math.abs(rows[best]![column]!) ? column + i : best), column);
    [rows[column], rows[pivot]] = [rows[pivot]!, rows[column]!];
    rows.forEach((row, i) => {
      if (i === column) return;
      const factor = row[column]! / rows[column]![column]!;
      row.forEach((_value, at) => (row[at]! -= factor * rows[column]![at]!));
    });
  });
  return rows.map((row, i) => row.at(-1)! / row[i]!);
}

describe('plurality', () => {
  it('names the class with most votes, by how much, and the first of equal ones', () => {
    const { labels, margins } = plurality({ rows: 3, columns: 3, values: [1, 7.5, 3, -4, -2, -2.5, 5, 5, 0] });
    expect([...labels]).toEqual([1, 1, 0]);
    expect([...margins]).toEqual([4.5, 0.5, 0]);
  });

  it('trusts leads that noise does not explain', () => {
    const counted = plurality({ rows: 3, columns: 2, values: [10, 0, 4, 0, 0, 9] });
    expect([...trustedRows(counted, 2)]).toEqual([0, 2]);
    expect([...trustedRows(counted, 0)]).toEqual([0, 1, 2]);
    expect([...trustedRows(counted, 1, 7)]).toEqual([0]);
    expect(() => trustedRows(counted, NaN)).toThrow(RangeError);
  });

  it('calls a tie a lead about once in 370 rows', () => {
    const generator = new SeededGenerator(1);
    const rows = 100_000;
    const noise = plurality({ rows, columns: 2, values: Float64Array.from({ length: 2 * rows }, () => 5 * generator.gaussian()) });
    // Either class may lead: both tails of three standard deviations, 0.0027.
    expect(trustedRows(noise, 5).length / rows).toBeGreaterThan(0.0022);
    expect(trustedRows(noise, 5).length / rows).toBeLessThan(0.0032);
  });

  it('refuses a histogram that is none', () => {
    expect(() => plurality({ rows: 2, columns: 3, values: [1, 2, 3] })).toThrow(expect.objectContaining({ code: 'data-invalid', field: 'votes' }));
    expect(() => plurality({ rows: 1, columns: 1, values: [1] })).toThrow(expect.objectContaining({ code: 'data-invalid' }));
    expect(() => plurality({ rows: 1, columns: 2, values: [1, NaN] })).toThrow(expect.objectContaining({ code: 'data-invalid', field: 'votes[1]' }));
  });
});

describe('neighbor graph', () => {
  it('is symmetric, without loops, and has everybody\'s nearest points', () => {
    const points = halfMoons();
    const { neighbors, weights } = neighborGraph(points, 5);
    neighbors.forEach((ids, i) => {
      expect(ids.length).toBeGreaterThanOrEqual(5);
      ids.forEach((j, at) => {
        expect(j).not.toBe(i);
        expect(weights[j]![neighbors[j]!.indexOf(i)]).toBe(weights[i]![at]);
      });
    });
  });

  it('has weights whose largest eigenvalue is 1', () => {
    const { neighbors, weights } = neighborGraph(halfMoons(), 5);
    let vector = Float64Array.from({ length: 120 }, () => 1);
    let norm = 0;
    for (let step = 0; step < 300; step++) {
      const next = vector.map((_, i) => neighbors[i]!.reduce((sum, j, at) => sum + weights[i]![at]! * vector[j]!, 0));
      norm = Math.sqrt(next.reduce((sum, value) => sum + value * value, 0));
      vector = next.map((value) => value / norm);
    }
    expect(norm).toBeCloseTo(1, 6);
  });

  it('takes equal points and fewer points than neighbors, but not a single one', () => {
    const { weights } = neighborGraph(matrix([[1], [1], [1]]), 10);
    expect(weights.every((row) => row.length === 2 && row.every((weight) => Math.abs(weight - 0.5) < 1e-12))).toBe(true);
    expect(() => neighborGraph(matrix([[1]]))).toThrow(expect.objectContaining({ code: 'data-invalid' }));
  });
});

describe('spreading votes', () => {
  const points = halfMoons();
  const graph = neighborGraph(points, 6);
  const truth = Int32Array.from({ length: 120 }, (_, i) => Math.floor(i / 60));
  const right = (labels: Int32Array) => labels.reduce((sum, label, i) => sum + (label === truth[i] ? 1 : 0), 0);

  const votesFor = (rows: Uint32Array, vote: (label: number) => number[]) => ({ rows: rows.length, columns: 2, values: [...rows].flatMap((row) => vote(truth[row]!)) });

  it('follows a half moon around the other one, where the nearest query would be wrong', () => {
    const plan = selectQueries(points, 8, 1);
    const votes = votesFor(plan.rows, (label) => (label === 0 ? [1, 0] : [0, 1]));
    const { labels } = plurality(votes);
    expect(right(Int32Array.from(plan.nearest, (query) => labels[query]!))).toBeLessThan(120);
    expect(right(spreadVotes({ graph, plan, votes, votesOf: 'query' }).labels)).toBe(120);
  });

  it('averages out noise that makes a quarter of the queries wrong by themselves', () => {
    const plan = selectQueries(points, 24, 1);
    const generator = new SeededGenerator(4);
    let [alone, together] = [0, 0];
    for (let draw = 0; draw < 20; draw++) {
      const votes = votesFor(plan.rows, (label) => [label === 0 ? 10 : 0, label === 1 ? 10 : 0].map((count) => count + 10 * generator.gaussian()));
      plurality(votes).labels.forEach((label, query) => (alone += (label === truth[plan.rows[query]!] ? 1 : 0) / 24 / 20));
      together += right(spreadVotes({ graph, plan, votes, votesOf: 'query', retention: 0.99 }).labels) / 120 / 20;
    }
    expect(alone).toBeLessThan(0.8);
    expect(1 - together).toBeLessThan((1 - alone) / 2);
  });

  it('is the solution of (I - a S) F = (1 - a) Y, squared and scaled', () => {
    const few = matrix([[0], [1], [2.5], [3], [7], [8]]);
    const small = neighborGraph(few, 2);
    const plan = queryPlan(few, Uint32Array.of(0, 3, 5));
    const votes = { rows: 3, columns: 2, values: [9, 1, 2, 6, 0, 4] };
    const retention = 0.5;
    const sizes = [0, 1, 2].map((query) => plan.nearest.filter((nearest) => nearest === query).length);
    const system = Array.from({ length: 6 }, (_, i) => Array.from({ length: 6 }, (_value, j) => (i === j ? 1 : 0) - retention * (small.weights[i]![small.neighbors[i]!.indexOf(j)] ?? 0)));
    for (const votesOf of ['cluster', 'query'] as const) {
      const solved = [0, 1].map((c) => solve(system, Array.from(plan.nearest, (query) => ((1 - retention) * votes.values[2 * query + c]!) / (votesOf === 'cluster' ? sizes[query]! : 1))));
      const { probabilities } = spreadVotes({ graph: small, plan, votes, votesOf, retention });
      for (let row = 0; row < 6; row++) {
        const [a, b] = [solved[0]![row]! ** 2, solved[1]![row]! ** 2];
        expect(probabilities.values[2 * row]).toBeCloseTo(a / (a + b), 5);
      }
    }
  });

  it('refuses votes for other queries and other graphs', () => {
    const plan = selectQueries(points, 8, 1);
    expect(() => spreadVotes({ graph, plan, votes: { rows: 7, columns: 2, values: new Float64Array(14) }, votesOf: 'query' })).toThrow(expect.objectContaining({ code: 'data-invalid' }));
    expect(() => spreadVotes({ graph: neighborGraph(matrix([[1], [2]])), plan, votes: { rows: 8, columns: 2, values: new Float64Array(16) }, votesOf: 'query' })).toThrow(expect.objectContaining({ code: 'data-invalid' }));
    expect(() => spreadVotes({ graph, plan, votes: { rows: 8, columns: 2, values: new Float64Array(16) }, votesOf: 'query', retention: 1 })).toThrow(RangeError);
  });
});

describe('pseudo-labels', () => {
  it('are rows that sum to 1, uniform where nothing is known', () => {
    const { probabilities, labels, confidences } = pseudoLabelsOf(matrix([[1, 3], [0, 0]]));
    expect([...probabilities.values]).toEqual([0.25, 0.75, 0.5, 0.5]);
    expect([...labels]).toEqual([1, 0]);
    expect([...confidences]).toEqual([0.75, 0.5]);
  });

  it('are picked by confidence or by rank', () => {
    const labels = pseudoLabelsOf(matrix([[9, 1], [5, 5], [2, 8], [3, 7]]));
    expect([...confidentRows(labels, 0.75)]).toEqual([0, 2]);
    expect([...confidentRows(labels, 1)]).toEqual([]);
    expect([...surestRows(labels, 0.75)]).toEqual([0, 2, 3]);
    expect([...surestRows(labels, 0.01)]).toEqual([0]);
  });

  it('agree on the product of two opinions, in which doubt lets the other one win', () => {
    const [sure, unsure] = [pseudoLabelsOf(matrix([[1, 0]])), pseudoLabelsOf(matrix([[0.2, 0.8]]))];
    expect(agreement({ labels: sure, doubt: 0 }, { labels: unsure, doubt: 0 }).labels[0]).toBe(0);
    expect(agreement({ labels: sure, doubt: 0.6 }, { labels: unsure, doubt: 0 }).labels[0]).toBe(1);
    fc.assert(
      fc.property(fc.double({ min: 0.01, max: 0.99, noNaN: true }), fc.double({ min: 0.01, max: 0.99, noNaN: true }), (p, q) => {
        const both = agreement({ labels: pseudoLabelsOf(matrix([[p, 1 - p]])), doubt: 0 }, { labels: pseudoLabelsOf(matrix([[q, 1 - q]])), doubt: 0 });
        expect(both.probabilities.values[0]).toBeCloseTo((p * q) / (p * q + (1 - p) * (1 - q)), 4);
      }),
    );
    expect(() => agreement({ labels: sure, doubt: 0 }, { labels: pseudoLabelsOf(matrix([[1, 0], [1, 0]])), doubt: 0 })).toThrow(expect.objectContaining({ code: 'data-invalid' }));
  });
});
