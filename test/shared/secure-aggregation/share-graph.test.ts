/** The graph: thresholds, symmetry, and that a cut ring can't be summed in pieces. */
import { describe, expect, it } from 'vitest';
import { FederationError } from '../../../shared/errors.ts';
import { nodeCrypto } from '../../../shared/node/node-crypto.ts';
import { findGraphParameters } from '../../../shared/secure-aggregation/graph.ts';
import { areNeighbors, completeThreshold, graphShape, holdersOf, neighborsOf, shareGraph, type GraphRequest } from '../../../shared/secure-aggregation/share-graph.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';
import { fixedHash } from '../../support/secure-aggregation.ts';

const ringOf = (clients: number, manifest = 1, root = 2) => shareGraph({ clients, minSurvivors: Math.ceil(0.95 * clients), maxCorrupt: Math.floor(0.05 * clients) }, fixedHash(manifest), fixedHash(root), nodeCrypto);

describe('thresholds', () => {
  it.each([[3, 0, 2], [5, 1, 4], [10, 2, 7], [30, 6, 19], [100, 20, 61]])('n = %d, c = %d: t = %d (Bonawitz et al. 2017, malicious coordinator)', (clients, corrupt, threshold) => {
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

  // The table of docs/secure-aggregation.md, section "Parameters".
  it.each([[1000, 50, 950, '52/37', '68/51'], [1000, 100, 900, '96/67', '126/92'], [10_000, 500, 9500, '62/44', '88/66'], [10_000, 1000, 9000, '122/85', '170/124']])('n = %d, c = %d, minSurvivors = %d: %s without, %s with grinding', (clients, maxCorrupt, minSurvivors, without, withGrinding) => {
    const bare = findGraphParameters({ clients, corruptRate: maxCorrupt / clients, dropoutRate: 1 - minSurvivors / clients, adversary: 'semiMalicious' });
    const shape = graphShape({ clients, maxCorrupt, minSurvivors });
    expect(`${bare.degree}/${bare.threshold}`).toBe(without);
    expect(shape.kind === 'ring' && `${shape.degree}/${shape.threshold}`).toBe(withGrinding);
  });

  it('are those of exact integer arithmetic: rates are floats, but no client gets lost or counted twice', () => {
    const random = new InsecureSeededRandom(4);
    for (let trial = 0; trial < 12; trial++) {
      const [a, b, c] = random.bytes(3) as unknown as [number, number, number];
      const clients = 256 + a;
      const request = { clients, maxCorrupt: Math.floor((clients * b) / 2000), minSurvivors: clients - Math.floor((clients * c) / 2500) };
      const shape = graphShape(request);
      expect({ ...request, ...shape }).toEqual({ ...request, kind: 'ring', ...exactParameters(request, 80 + Math.ceil(Math.log2(clients)), 20) });
    }
    for (let clients = 256; clients <= 16_384; clients += clients < 400 ? 1 : 997) {
      for (let count = 0; count <= clients; count++) if (Math.floor((count / clients + 1e-14) * clients) !== count) throw new Error(`${count} of ${clients}`);
    }
  }, 30_000);

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

/** The search of `findGraphParameters`, with counts of sets instead of logarithms of probabilities. */
function exactParameters({ clients, maxCorrupt, minSurvivors }: GraphRequest, securityBits: number, correctnessBits: number): { degree: number; threshold: number } | undefined {
  const [n, security, correctness] = [BigInt(clients), 2n ** BigInt(securityBits + 1), 2n ** BigInt(correctnessBits)];
  const bad = maxCorrupt + clients - minSurvivors;
  for (let degree = 2; degree < clients - 1; degree += 2) {
    const all = binomial(clients, degree);
    if (n * BigInt(clients - degree - 1) * binomial(bad, degree) * security >= 2n * all) continue;
    const sets = (marked: number, x: number) => binomial(marked, x) * binomial(clients - marked, degree - x);
    let most = degree;
    for (let tail = sets(maxCorrupt, most); tail * n * security < all; tail += sets(maxCorrupt, --most));
    let fewest = 0;
    for (let head = sets(minSurvivors, 0); head * n * correctness < all; head += sets(minSurvivors, ++fewest));
    // ceil((most + degree - 1.25) / 2)
    const below = Math.floor((most + degree) / 2);
    if (fewest > below) return { degree, threshold: below + 1 };
  }
  return undefined;
}

function binomial(n: number, k: number): bigint {
  if (k < 0 || k > n) return 0n;
  let value = 1n;
  for (let i = 1; i <= k; i++) value = (value * BigInt(n - k + i)) / BigInt(i);
  return value;
}
