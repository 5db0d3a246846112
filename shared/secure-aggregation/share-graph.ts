/**
 * Who shares keys with whom in one round, and how many shares open a secret.
 *
 * Up to 255 clients everybody is everybody's neighbor. Above, clients lie on a ring in a random order and each is the neighbor of the
 * `degree / 2` before and after it (a Harary graph; Bell et al. 2020; parameters: `graph.ts`). Every client computes the graph itself, from hashes that it has checked; nobody is ever sent one.
 *
 * What the ring's parameters promise holds for an order that nobody steers. A coordinator can try manifests, and rosters with other adverts of its corrupt clients, until it likes the order:
 * there are bits to spare for 2^40 tries.
 */
import type { CryptoProvider } from '../crypto/provider.ts';
import { FederationError } from '../errors.ts';
import { concatBytes, utf8 } from '../types/bytes.ts';
import { findGraphParameters, type GraphParameters } from './graph.ts';
import { MAX_SHARES } from './shamir.ts';

/** Largest roster. */
export const MAX_COHORT = 16_384;

/** But for this probability (as a power of 1/2) the order of a ring is safe for all its clients ... */
const SECURITY_BITS = 40;
/** ... even when the coordinator picked the best of 2^40. */
const GRINDING_BITS = 40;

/** The smallest threshold of a complete graph with 2t > n + c (Bonawitz et al. 2017, Theorem 6.5): n shares, of which a client keeps one itself. */
export function completeThreshold(clients: number, maxCorrupt: number): number {
  return Math.max(2, Math.floor((clients + maxCorrupt) / 2) + 1);
}

/**
 * How many clients must have signed one set of survivors, on the ring too: any two sets of as many have more than `maxCorrupt` in common, hence an honest client, which signs once.
 * Signatures of neighbors alone are not enough: half of a ring could agree on one set, and half on another.
 */
export const agreementQuorum = completeThreshold;

export interface GraphRequest {
  /** Clients in the roster. */
  readonly clients: number;
  /** Fewest clients whose inputs are in the sum. */
  readonly minSurvivors: number;
  /** Clients that may collude with the coordinator. */
  readonly maxCorrupt: number;
}

export type GraphShape = { readonly kind: 'complete'; readonly threshold: number } | ({ readonly kind: 'ring' } & GraphParameters);

/** The graph's shape follows from three public numbers; throws `policy-refused` when no shape is secure and can finish. */
export function graphShape({ clients, minSurvivors, maxCorrupt }: GraphRequest): GraphShape {
  const refuse = (why: string) =>
    new FederationError('policy-refused', `Secure aggregation is not possible: ${why}.`, {
      field: 'secureAggregation',
      expected: 'parameters with 2t > n + c and t <= minSurvivors',
      got: `clients ${clients}, minSurvivors ${minSurvivors}, maxCorrupt ${maxCorrupt}`,
      next: 'Raise minSurvivors, or lower maxCorrupt or the number of clients that may drop out.',
    });
  const isCount = (value: number, from: number) => Number.isInteger(value) && value >= from;
  if (!isCount(clients, 2) || clients > MAX_COHORT || !isCount(minSurvivors, 2) || minSurvivors > clients || !isCount(maxCorrupt, 0) || maxCorrupt >= minSurvivors) throw refuse('the numbers of clients do not fit');
  if (clients <= MAX_SHARES) {
    const threshold = completeThreshold(clients, maxCorrupt);
    if (threshold > minSurvivors) throw refuse('too many clients may drop out or collude');
    return { kind: 'complete', threshold };
  }
  if (agreementQuorum(clients, maxCorrupt) > minSurvivors) throw refuse('too many clients may drop out or collude');
  try {
    // A cut of the ring takes two places, each with half of the corrupt neighbors that one client may have: as many pairs of places as clients squared, where the finder counts clients.
    const securityBits = SECURITY_BITS + GRINDING_BITS + Math.ceil(Math.log2(clients));
    const ring = findGraphParameters({ clients, corruptRate: maxCorrupt / clients, dropoutRate: (clients - minSurvivors) / clients, adversary: 'semiMalicious', securityBits });
    if (ring.degree <= MAX_SHARES) return { kind: 'ring', ...ring };
  } catch (error) {
    if (!(error instanceof FederationError)) throw error;
  }
  throw refuse('no ring of up to 255 neighbors is safe');
}

/** A graph on the clients 0..n-1 of a sorted roster. Plain data. */
export interface ShareGraph {
  readonly clients: number;
  readonly shape: GraphShape;
  /** Clients that must have signed one set of survivors before anybody helps to unmask it. */
  readonly quorum: number;
  /** Ring only: `order[position]` is a client. Empty for the complete graph. */
  readonly order: Uint32Array;
  /** Ring only: the inverse of `order`. */
  readonly positions: Uint32Array;
}

/** The graph of one roster of one round. */
export function shareGraph(request: GraphRequest, manifestHash: Uint8Array, rosterRoot: Uint8Array, crypto: CryptoProvider): ShareGraph {
  const shape = graphShape(request);
  const { clients } = request;
  const quorum = agreementQuorum(clients, request.maxCorrupt);
  if (shape.kind === 'complete') return { clients, shape, quorum, order: new Uint32Array(0), positions: new Uint32Array(0) };
  const key = crypto.sha256(concatBytes(utf8('fdp/1 secagg graph\n'), manifestHash, rosterRoot));
  const order = keyedPermutation(clients, crypto.keyStream(key, 2 * clients + 64));
  const positions = new Uint32Array(clients);
  for (let position = 0; position < clients; position++) positions[order[position]!] = position;
  return { clients, shape, quorum, order, positions };
}

/** Fisher and Yates's shuffle, without modulo bias: the words are uniform, and those at the ragged end of the range are skipped. */
function keyedPermutation(length: number, words: Uint32Array): Uint32Array {
  const order = Uint32Array.from({ length }, (_, index) => index);
  let next = 0;
  for (let i = length - 1; i > 0; i--) {
    const limit = 2 ** 32 - (2 ** 32 % (i + 1));
    while (next < words.length && words[next]! >= limit) next++;
    // One word in more than 2^18 is skipped, and there are twice as many as needed.
    if (next >= words.length) throw new FederationError('internal', 'The order of the ring ran out of key stream.');
    const j = words[next++]! % (i + 1);
    const moved = order[i]!;
    order[i] = order[j]!;
    order[j] = moved;
  }
  return order;
}

/** Neighbors of a client, ascending, without itself. */
export function neighborsOf(graph: ShareGraph, client: number): number[] {
  const { clients, shape, order, positions } = graph;
  if (shape.kind === 'complete') return Array.from({ length: clients - 1 }, (_, i) => (i < client ? i : i + 1));
  const neighbors: number[] = [];
  for (let step = 1; step <= shape.degree / 2; step++) {
    neighbors.push(order[(positions[client]! + step) % clients]!, order[(positions[client]! + clients - step) % clients]!);
  }
  return neighbors.sort((a, b) => a - b);
}

/**
 * Who holds a share of a client's secrets, ascending; a holder's place in this list is its share's position. In the complete graph a client keeps
 * one share of its own, on the ring it does not: `findGraphParameters` bounds k shares, not k + 1.
 */
export function holdersOf(graph: ShareGraph, owner: number): number[] {
  return graph.shape.kind === 'complete' ? Array.from({ length: graph.clients }, (_, i) => i) : neighborsOf(graph, owner);
}

export function areNeighbors(graph: ShareGraph, a: number, b: number): boolean {
  if (a === b) return false;
  if (graph.shape.kind === 'complete') return true;
  const distance = Math.abs(graph.positions[a]! - graph.positions[b]!);
  return Math.min(distance, graph.clients - distance) <= graph.shape.degree / 2;
}
