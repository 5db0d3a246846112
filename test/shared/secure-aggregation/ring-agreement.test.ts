/**
 * What the ring's promise rests on: one set of survivors for everybody who answers, and honest survivors that hang together. Attacks that neighbors' signatures alone
 * would not stop, and the exact condition for a cut, over all small rings.
 */
import { describe, expect, it } from 'vitest';
import { encodeSignatures, encodeSurvivors } from '../../../shared/secure-aggregation/messages.ts';
import * as participant from '../../../shared/secure-aggregation/participant.ts';
import { agreementQuorum, graphShape, holdersOf, neighborsOf } from '../../../shared/secure-aggregation/share-graph.ts';
import { insecureFakeCrypto } from '../../support/insecure-fake-crypto.ts';
import { runRound } from '../../support/secure-aggregation.ts';

describe('agreement', () => {
  it('two quorums have more clients in common than may be corrupt, and survivors are always enough for one', () => {
    for (let clients = 2; clients < 400; clients++) {
      for (let corrupt = 0; corrupt < clients; corrupt += 1 + (clients >> 4)) {
        const quorum = agreementQuorum(clients, corrupt);
        expect(2 * quorum - clients).toBeGreaterThan(corrupt);
        for (const minSurvivors of [corrupt + 1, Math.ceil(0.9 * clients), clients]) {
          let accepted = true;
          try {
            graphShape({ clients, minSurvivors, maxCorrupt: corrupt });
          } catch {
            accepted = false;
          }
          if (accepted) expect(quorum).toBeLessThanOrEqual(minSurvivors);
        }
      }
    }
  }, 30_000);

  it('two arcs of a ring that are shown different survivors: their neighbors agree, nobody answers', () => {
    const [n, minSurvivors, maxCorrupt] = [256, 244, 0];
    const record = runRound({ clients: n, minSurvivors, maxCorrupt, crypto: insecureFakeCrypto, dimension: 1 }, 'maskedInput');
    const { graph, adverts, keyContext } = record.rosterState.roster;
    if (graph.shape.kind !== 'ring') throw new Error('expected a ring');
    const { threshold } = graph.shape;
    // Each half of the ring is told that every tenth client of it is gone, and nobody of the other half.
    const arcOf = (client: number) => (graph.positions[client]! < n / 2 ? 0 : 1);
    const gone = [0, 1].map((arc) => new Set(Array.from({ length: n - minSurvivors }, (_, i) => graph.order[(arc * n) / 2 + 4 + 10 * i]!)));
    const everyone = Array.from({ length: n }, (_, i) => i);
    const lists = gone.map((missing) => everyone.filter((client) => !missing.has(client)));
    expect(lists.map((list) => list.length)).toEqual([minSurvivors, minSurvivors]);

    // Counted on neighbors' signatures, all clients honest: who answers, and what then opens.
    const isAlive = (client: number) => !gone[arcOf(client)]!.has(client);
    const signers = (client: number) => neighborsOf(graph, client).filter((other) => arcOf(other) === arcOf(client) && isAlive(other)).length;
    const answers = everyone.filter((client) => isAlive(client) && signers(client) >= threshold);
    const says = (owner: number, alive: boolean) => answers.filter((holder) => holdersOf(graph, owner).includes(holder) && gone[arcOf(holder)]!.has(owner) !== alive).length;
    const summed = everyone.filter((owner) => says(owner, true) >= threshold);
    const unmasked = everyone.filter((owner) => says(owner, false) >= threshold);
    expect(summed.length + unmasked.length).toBe(n);
    expect(summed.length).toBe(232);
    expect(summed.length).toBeLessThan(minSurvivors - maxCorrupt);

    // What the real clients do with the same lists and all signatures there are.
    const indexed = new Map(record.clients.map((client) => [adverts.findIndex(({ identity }) => identity.every((byte, b) => byte === client.tools.identity.publicKey[b])), client]));
    const steps = everyone.filter(isAlive).map((index) => {
      const client = indexed.get(index)!;
      const { state, message } = participant.signSurvivors(client.state!, encodeSurvivors(record.context, keyContext.rosterRoot, lists[arcOf(index)]!), client.tools);
      return { client, state, entry: { signer: index, signature: message.slice(-64) } };
    });
    const all = steps.map(({ entry }) => entry);
    for (const { client, state } of steps) {
      expect(() => participant.unmask(state, encodeSignatures(record.context, keyContext.rosterRoot, state.digest, all), client.tools)).toThrow(/signed the same survivors/);
    }
  }, 60_000);
});

describe('cuts', () => {
  /** 0 honest survivor, 1 honest dropout, 2 corrupt: the positions of a ring. */
  type Role = 0 | 1 | 2;

  /** Every honest survivor has `threshold` survivors or corrupt ones among its neighbors, as it checks itself. */
  const isAccepted = (roles: readonly Role[], half: number, threshold: number) =>
    roles.every((role, p) => {
      if (role !== 0) return true;
      let holders = 0;
      for (let step = 1; step <= half; step++) holders += Number(roles[(p + step) % roles.length] !== 1) + Number(roles[(p + roles.length - step) % roles.length] !== 1);
      return holders >= threshold;
    });

  /** Honest survivors whose masks only the coordinator's clients know fall into as many sums as there are gaps of `half` positions without one. */
  const cutsOf = (roles: readonly Role[], half: number) => {
    const honest = roles.flatMap((role, p) => (role === 0 ? [p] : []));
    return honest.flatMap((p, i) => ((honest[(i + 1) % honest.length]! - p + roles.length - 1) % roles.length >= half ? [p] : []));
  };

  it.each([[10, 2, 3], [10, 2, 4], [11, 3, 4], [11, 3, 5]])('a ring of %d with %d neighbors a side and t = %d comes apart only at places with t - k/2 corrupt clients in a row of k/2', (n, half, threshold) => {
    let apart = 0;
    const roles = Array<Role>(n).fill(0);
    for (let code = 0; code < 3 ** n; code++) {
      for (let p = 0, rest = code; p < n; p++, rest = Math.floor(rest / 3)) roles[p] = (rest % 3) as Role;
      const cuts = cutsOf(roles, half);
      if (cuts.length < 2 || !isAccepted(roles, half, threshold)) continue;
      apart++;
      const corruptAfter = cuts.map((p) => Array.from({ length: half }, (_, i) => roles[(p + 1 + i) % n]).filter((role) => role === 2).length);
      if (corruptAfter.some((count) => count < threshold - half)) throw new Error(`${roles.join('')}: ${cuts.join()}`);
    }
    // The condition is not empty: there are rings that come apart.
    expect(apart).toBeGreaterThan(0);
  });

  it('has no room for such a pair of places, whichever the corrupt clients are, but for a probability below 2^-81', () => {
    for (const [clients, minSurvivors, maxCorrupt] of [[300, 285, 15], [1000, 900, 100], [1000, 950, 50], [10_000, 9000, 1000], [16_384, 15_500, 800]] as const) {
      const shape = graphShape({ clients, minSurvivors, maxCorrupt });
      if (shape.kind !== 'ring') throw new Error('expected a ring');
      const { degree, threshold } = shape;
      // Two places have degree clients, 2 (t - k/2) of them corrupt; clients^2 / 2 pairs of places.
      const [tail, all] = [hypergeometricTail(clients, maxCorrupt, degree, 2 * threshold - degree), binomial(clients, degree)];
      expect(tail * BigInt(clients) ** 2n * 2n ** 81n < 2n * all).toBe(true);
      // And no honest client has so many corrupt neighbors that both its secrets open: 2t <= k + corrupt.
      expect(hypergeometricTail(clients, maxCorrupt, degree, 2 * threshold - degree) * BigInt(clients) * 2n ** 81n < all).toBe(true);
    }
  });
});

function binomial(n: number, k: number): bigint {
  let value = 1n;
  for (let i = 1; i <= k; i++) value = (value * BigInt(n - k + i)) / BigInt(i);
  return value;
}

/** Sets of `drawn` of `total` that have at least `least` of the `marked`: exactly. */
function hypergeometricTail(total: number, marked: number, drawn: number, least: number): bigint {
  let sum = 0n;
  for (let x = least; x <= Math.min(marked, drawn); x++) sum += binomial(marked, x) * binomial(total - marked, drawn - x);
  return sum;
}
