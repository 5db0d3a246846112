/** The graph: thresholds, symmetry, and that a cut ring can't be summed in pieces. */
import { describe, expect, it } from 'vitest';
import { FederationError } from '../../../shared/errors.ts';
import { nodeCrypto } from '../../../shared/node/node-crypto.ts';
import { areNeighbors, completeThreshold, graphShape, holdersOf, neighborsOf, shareGraph } from '../../../shared/secure-aggregation/share-graph.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';
import { fixedHash } from '../../support/secure-aggregation.ts';

const ringOf = (clients: number, manifest = 1, root = 2) => shareGraph({ clients, minSurvivors: Math.ceil(0.95 * clients), maxCorrupt: Math.floor(0.05 * clients) }, fixedHash(manifest), fixedHash(root), nodeCrypto);

describe('thresholds', () => {
  it.each([[3, 0, 2], [5, 1, 4], [10, 2, 7], [30, 6, 19], [100, 20, 61]])('n = %d, c = %d: t = %d (privacy-design.md 4.3)', (clients, corrupt, threshold) => {
    expect(completeThreshold(clients, corrupt)).toBe(threshold);
    expect(2 * threshold).toBeGreaterThan(clients + corrupt);
    expect(graphShape({ clients, maxCorrupt: corrupt, minSurvivors: threshold })).toEqual({ kind: 'complete', threshold });
    expect(() => graphShape({ clients, maxCorrupt: corrupt, minSurvivors: threshold - 1 })).toThrow(FederationError);
  });

  it('is complete up to 255 clients and a ring above, with bits to spare for grinding', () => {
    expect(graphShape({ clients: 255, maxCorrupt: 10, minSurvivors: 200 }).kind).toBe('complete');
    expect(graphShape({ clients: 256, maxCorrupt: 10, minSurvivors: 230 }).kind).toBe('ring');
    // n = 1000, 10 % corrupt, 10 % dropouts: golden secagg-graph-28 has 96 neighbors and a threshold of 67 for 2^-40; here for 2^-90.
    expect(graphShape({ clients: 1000, maxCorrupt: 100, minSurvivors: 900 })).toEqual({ kind: 'ring', degree: 126, threshold: 92 });
  });

  it('refuses parameters outside', () => {
    // golden secagg-graph-34 needs 302 neighbors: more than there are shares.
    for (const request of [
      { clients: 1000, maxCorrupt: 200, minSurvivors: 800 },
      { clients: 1000, maxCorrupt: 450, minSurvivors: 600 },
      { clients: 3, maxCorrupt: 3, minSurvivors: 3 },
      { clients: 3, maxCorrupt: 0, minSurvivors: 4 },
      { clients: 1, maxCorrupt: 0, minSurvivors: 1 },
      { clients: 20_000, maxCorrupt: 0, minSurvivors: 20_000 },
    ]) expect(() => graphShape(request)).toThrow(/not possible/);
  });
});

describe('ring', () => {
  const graph = ringOf(600);

  it('is k-regular, symmetric and without loops', () => {
    if (graph.shape.kind !== 'ring') throw new Error('expected a ring');
    for (let client = 0; client < 600; client++) {
      const neighbors = neighborsOf(graph, client);
      expect(new Set(neighbors).size).toBe(graph.shape.degree);
      expect(neighbors).not.toContain(client);
      for (const neighbor of neighbors) if (!areNeighbors(graph, neighbor, client) || !areNeighbors(graph, client, neighbor)) throw new Error(`${client} and ${neighbor}`);
      expect(holdersOf(graph, client)).toEqual(neighbors);
    }
  });

  it('is another one for another manifest or roster, and the same for the same', () => {
    expect(ringOf(600)).toEqual(graph);
    expect(ringOf(600, 3).order).not.toEqual(graph.order);
    expect(ringOf(600, 1, 3).order).not.toEqual(graph.order);
    expect([...graph.order].sort((a, b) => a - b)).toEqual(Array.from({ length: 600 }, (_, i) => i));
  });

  it('survivors that each have t surviving neighbors are connected, whoever vanishes', () => {
    const { shape } = graph;
    if (shape.kind !== 'ring') throw new Error('expected a ring');
    const random = new InsecureSeededRandom(8);
    for (let trial = 0; trial < 60; trial++) {
      // Worst cases are arcs that vanish, not single clients: two arcs and some others.
      const alive = new Uint8Array(600).fill(1);
      const [first, second, ...others] = new Uint16Array(random.bytes(2 * 22).buffer);
      for (let i = 0; i < shape.degree * 0.7; i++) alive[(first! + i) % 600] = alive[(second! + i) % 600] = 0;
      for (const other of others) alive[other % 600] = 0;
      const client = (position: number) => graph.order[position]!;
      // Those with too few neighbors refuse, which may leave others with too few.
      for (let changed = true; changed; ) {
        changed = false;
        for (let p = 0; p < 600; p++) {
          if (alive[p] && neighborsOf(graph, client(p)).filter((v) => alive[graph.positions[v]!]).length < shape.threshold) {
            alive[p] = 0;
            changed = true;
          }
        }
      }
      const left = Array.from({ length: 600 }, (_, p) => p).filter((p) => alive[p]);
      if (left.length === 0) continue;
      const reached = new Set([left[0]!]);
      for (const p of reached) for (const v of neighborsOf(graph, client(p))) if (alive[graph.positions[v]!]) reached.add(graph.positions[v]!);
      expect(reached.size).toBe(left.length);
    }
  });
});

describe('complete graph', () => {
  it('everybody is a neighbor, and holds a share of itself', () => {
    const graph = shareGraph({ clients: 4, minSurvivors: 3, maxCorrupt: 0 }, fixedHash(1), fixedHash(2), nodeCrypto);
    expect(neighborsOf(graph, 2)).toEqual([0, 1, 3]);
    expect(holdersOf(graph, 2)).toEqual([0, 1, 2, 3]);
    expect(areNeighbors(graph, 2, 2)).toBe(false);
  });
});
