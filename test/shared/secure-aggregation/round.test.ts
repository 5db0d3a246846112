/** Sums: right for every set of dropouts within the limit, refused above it. */
import { describe, expect, it } from 'vitest';
import { portableCrypto } from '../../../shared/crypto/provider.ts';
import * as aggregator from '../../../shared/secure-aggregation/aggregator.ts';
import { graphShape } from '../../../shared/secure-aggregation/share-graph.ts';
import { toRing, toSigned } from '../../../shared/secure-aggregation/modulus.ts';
import { decodeMaskedInput } from '../../../shared/secure-aggregation/messages.ts';
import * as participant from '../../../shared/secure-aggregation/participant.ts';
import { toHex } from '../../../shared/types/bytes.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';
import { chiSquare, chiSquareLimit } from '../../support/chi-square.ts';
import { insecureFakeCrypto } from '../../support/insecure-fake-crypto.ts';
import { contextFor, inputOf, lenient, makeClients, plainSum, runRound, stages, type RoundOptions, type Stage } from '../../support/secure-aggregation.ts';

/** `count` clients, each vanishing at a random stage. */
function randomDrops(clients: number, count: number, seed: number): Record<Stage, Set<number>> {
  const words = new Uint32Array(new InsecureSeededRandom(seed).bytes(4 * (clients + count)).buffer);
  const order = Array.from({ length: clients }, (_, i) => i).sort((a, b) => words[a]! - words[b]!);
  const drops = Object.fromEntries(stages.map((stage) => [stage, new Set<number>()])) as Record<Stage, Set<number>>;
  for (let i = 0; i < count; i++) drops[stages[words[clients + i]! % 4]!].add(order[i]!);
  return drops;
}

function expectRightSum(options: RoundOptions): void {
  const { result } = runRound(options);
  const gone = new Set([...(options.drops?.shareKeys ?? []), ...(options.drops?.maskedInput ?? [])]);
  const members = Array.from({ length: options.clients }, (_, i) => i).filter((i) => !gone.has(i));
  expect(result.survivors).toHaveLength(members.length);
  expect(result.sum).toEqual(plainSum(members, options.dimension ?? 4));
  expect(result.suspects).toEqual([]);
}

describe('the sum equals the plain sum modulo 2^32', () => {
  it.each([[3, 2, 0, 1], [5, 4, 1, 1], [10, 7, 2, 3], [64, 41, 16, 23]])('n = %d, minSurvivors = %d, c = %d, up to %d dropouts in any stage', (clients, minSurvivors, maxCorrupt, limit) => {
    const crypto = clients > 20 ? insecureFakeCrypto : undefined;
    for (let seed = 0; seed < 4; seed++) {
      const count = seed === 0 ? 0 : limit;
      expectRightSum({ clients, minSurvivors, maxCorrupt, dimension: 5, seed: seed + 1, drops: randomDrops(clients, count, seed), ...(crypto && { crypto }) });
    }
  });

  it.each(stages)('all dropouts at once before %s', (stage) => {
    expectRightSum({ clients: 10, minSurvivors: 7, maxCorrupt: 2, drops: { [stage]: new Set([0, 4, 9]) } });
  });

  it.each([[300, 285, 15], [1000, 950, 20]])('n = %d on the ring, dropouts at random stages', (clients, minSurvivors, maxCorrupt) => {
    expect(graphShape({ clients, minSurvivors, maxCorrupt }).kind).toBe('ring');
    expectRightSum({ clients, minSurvivors, maxCorrupt, dimension: 8, crypto: insecureFakeCrypto, drops: randomDrops(clients, clients - minSurvivors, 3) });
  }, 120_000);

  it('with tweetnacl as with node:crypto', () => {
    expectRightSum({ clients: 3, minSurvivors: 2, crypto: portableCrypto, drops: { maskedInput: new Set([1]) } });
  });

  it('wraps like the ring', () => {
    expect(toSigned(toRing(Int32Array.of(-1, 2 ** 31 - 1, -(2 ** 31))))).toEqual(Int32Array.of(-1, 2 ** 31 - 1, -(2 ** 31)));
  });
});

describe('above the limit nothing is unmasked', () => {
  it.each(stages)('one dropout too many before %s ends the round', (stage) => {
    expect(() => runRound({ clients: 10, minSurvivors: 7, maxCorrupt: 2, drops: { [stage]: new Set([0, 3, 4, 9]) } })).toThrow(/Too few/);
  });

  it('on the ring too', () => {
    const drops = { maskedInput: new Set(Array.from({ length: 16 }, (_, i) => i * 7)) };
    expect(() => runRound({ clients: 300, minSurvivors: 285, maxCorrupt: 15, crypto: insecureFakeCrypto, drops })).toThrow(/Too few/);
  }, 60_000);
});

describe('masked inputs', () => {
  const elementsOf = (seed: number, round: number, value: number) => {
    const options = { clients: 3, minSurvivors: 3, dimension: 4096, seed, round };
    const record = runRound(options, 'shareKeys');
    const [client] = record.clients;
    const index = record.rosterState.roster.adverts.findIndex(({ identity }) => toHex(identity) === toHex(client!.tools.identity.publicKey));
    const { message } = participant.maskInput(client!.state!, record.deliveries.get(index)!, new Int32Array(4096).fill(value), client!.tools);
    return decodeMaskedInput(message, record.context, record.rosterState.roster.keyContext.rosterRoot).elements;
  };

  it('are uniform, whatever the input', () => {
    for (const [seed, value] of [[1, 0], [2, 1], [3, -(2 ** 31)]] as const) {
      const elements = elementsOf(seed, 1, value);
      const bytes = new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength);
      const cells = new Array<number>(256).fill(0);
      for (const byte of bytes) cells[byte]!++;
      expect(chiSquare(cells, cells.map(() => 1 / 256), bytes.length)).toBeLessThan(chiSquareLimit(255));
    }
  });

  it('of the same input share nothing between rounds', () => {
    const [a, b] = [elementsOf(1, 1, 5), elementsOf(1, 2, 5)];
    const cells = new Array<number>(64).fill(0);
    a.forEach((element, i) => cells[(element - b[i]!) >>> 26]!++);
    expect(chiSquare(cells, cells.map(() => 1 / 64), a.length)).toBeLessThan(chiSquareLimit(63));
  });
});

describe('over a long simulation', () => {
  it('keys, seeds, commitments and nonces are never used twice', () => {
    const seen = new Map<string, number>();
    const note = (bytes: Uint8Array) => seen.set(toHex(bytes), (seen.get(toHex(bytes)) ?? 0) + 1);
    let streams = 0;
    const crypto: typeof insecureFakeCrypto = {
      ...insecureFakeCrypto,
      keyStream(key, words) {
        streams++;
        note(key);
        return insecureFakeCrypto.keyStream(key, words);
      },
    };
    const clients = makeClients({ clients: 5, minSurvivors: 4, crypto });
    for (let round = 1; round <= 20; round++) {
      const record = runRound({ clients: 5, minSurvivors: 5, round, crypto }, 'consistencyCheck', clients);
      for (const { channelKey, maskKey, commitment } of record.rosterState.roster.adverts) [channelKey, maskKey, commitment].forEach(note);
      for (const message of record.shares) for (let i = 0; i < 4; i++) note(message.subarray(112 + 236 * i + 4, 112 + 236 * i + 28));
      expect(record.clients.every(({ state }) => !('maskSecret' in state!) && !('selfSeed' in state!))).toBe(true);
    }
    // Every pairwise key is expanded by both owners, every self key by one.
    expect(streams).toBe(20 * (20 + 5));
    const counts = [...seen.values()].sort();
    expect(counts.filter((count) => count === 2)).toHaveLength(20 * 10);
    expect(counts.every((count) => count <= 2)).toBe(true);
  });

  it('states survive serialisation, and the last one holds no secret', () => {
    const clients = makeClients({ clients: 3, minSurvivors: 3 });
    const record = runRound({ clients: 3, minSurvivors: 3 }, 'consistencyCheck', clients);
    const copy = structuredClone(clients[0]!.state!);
    expect(copy).toEqual(clients[0]!.state);
    expect(structuredClone(record.survivorsState)).toEqual(record.survivorsState);
    const message = [...record.signatures.values()][record.rosterState.roster.adverts.findIndex(({ identity }) => toHex(identity) === toHex(clients[0]!.tools.identity.publicKey))]!;
    const { state } = participant.unmask(copy, message, clients[0]!.tools);
    expect(Object.keys(state).sort()).toEqual(['answered', 'phase', 'round']);
  });

  it('the coordinator\'s state after a crash is that before it: a function of stored messages', () => {
    const record = runRound({ clients: 5, minSurvivors: 4, maxCorrupt: 1, drops: { maskedInput: new Set([2]) } });
    const { context, clients } = record;
    const { crypto } = clients[0]!.tools;
    const again = aggregator.closeAdvertiseKeys(context, [...record.adverts].reverse().map((message) => aggregator.acceptAdvert(context, message, crypto)), crypto);
    expect(again.message).toEqual(record.roster);
    const shared = aggregator.closeShareKeys(again.state, [...record.shares].reverse().map((message) => aggregator.acceptShares(again.state, message, crypto)));
    expect(shared.deliveries).toEqual(new Map([...record.deliveries].sort(([a], [b]) => a - b)));
    const masked = aggregator.closeMaskedInput(shared.state, [...record.maskedInputs].reverse().map((message) => aggregator.acceptMaskedInput(shared.state, message, crypto)), crypto);
    expect(masked).toEqual({ state: record.survivorsState, message: record.survivorsMessage });
    const result = aggregator.closeUnmask(masked.state, record.answers.map((message) => aggregator.acceptUnmask(masked.state, message, crypto)), crypto);
    expect(result).toEqual(record.result);
  });

  it('a corrupt client\'s wrong share is detected by the commitment, and named', () => {
    const record = runRound({ clients: 5, minSurvivors: 4, maxCorrupt: 1, drops: { maskedInput: new Set([2]) } }, 'unmask');
    const { crypto } = record.clients[0]!.tools;
    const accepted = record.answers.map((message) => aggregator.acceptUnmask(record.survivorsState, message, crypto));
    // With a threshold of 4 and 4 survivors there is no share to spare: nothing is released, least of all a wrong sum.
    const spoiled = accepted.map((answer, i) => (i === 0 ? { ...answer, shares: answer.shares.map((share) => ({ ...share, share: share.share.map((byte) => byte ^ 1) })) } : answer));
    expect(() => aggregator.closeUnmask(record.survivorsState, spoiled, crypto)).toThrow(/do not fit together/);
    const full = runRound({ clients: 5, minSurvivors: 4, maxCorrupt: 1 }, 'unmask');
    const answers = full.answers.map((message) => aggregator.acceptUnmask(full.survivorsState, message, crypto));
    const liar = answers[1]!;
    const result = aggregator.closeUnmask(full.survivorsState, answers.map((answer) => (answer === liar ? { ...answer, shares: answer.shares.map((share) => ({ ...share, share: new Uint8Array(32) })) } : answer)), crypto);
    expect(result.sum).toEqual(plainSum([0, 1, 2, 3, 4], 4));
    expect(result.suspects).toEqual([liar.sender]);
  });

  it('inputs of another length are refused', () => {
    const record = runRound({ clients: 3, minSurvivors: 3 }, 'shareKeys');
    expect(() => participant.maskInput(record.clients[0]!.state!, [...record.deliveries.values()][0]!, inputOf(0, 5), record.clients[0]!.tools)).toThrow(RangeError);
    expect(() => participant.advertiseKeys(contextFor({ clients: 3, minSurvivors: 3, dimension: 0 }), lenient, record.clients[0]!.tools)).toThrow(/dimension/);
  });
});
