/** Checks that stand behind another one in the attacks of malicious-coordinator.test.ts: here each of them is the only one that refuses. */
import { describe, expect, it } from 'vitest';
import { nodeCrypto } from '../../../shared/node/node-crypto.ts';
import * as aggregator from '../../../shared/secure-aggregation/aggregator.ts';
import { decodeDelivery, encodeConsistency, encodeDelivery, encodeSignatures, encodeSurvivors } from '../../../shared/secure-aggregation/messages.ts';
import * as participant from '../../../shared/secure-aggregation/participant.ts';
import { neighborsOf } from '../../../shared/secure-aggregation/share-graph.ts';
import { equalBytes } from '../../../shared/types/bytes.ts';
import { insecureFakeCrypto } from '../../support/insecure-fake-crypto.ts';
import { inputOf, runRound, type Client, type RoundRecord } from '../../support/secure-aggregation.ts';

const indexIn = (record: RoundRecord, { tools }: Client) => record.rosterState.roster.adverts.findIndex(({ identity }) => equalBytes(identity, tools.identity.publicKey));
const rootOf = (record: RoundRecord) => record.rosterState.roster.keyContext.rosterRoot;

describe('more survivors asked for than the threshold', () => {
  const options = { clients: 6, minSurvivors: 6, maxCorrupt: 0 };

  it('too few sharers, or none of them the client itself', () => {
    const record = runRound(options, 'shareKeys');
    const victim = record.clients[0]!;
    const own = indexIn(record, victim);
    const { sharers, shares } = decodeDelivery(record.deliveries.get(own)!, record.context, rootOf(record), 6);
    const maskWith = (members: readonly number[]) =>
      participant.maskInput(victim.state!, encodeDelivery(record.context, rootOf(record), members, shares.filter(({ peer }) => members.includes(peer))), inputOf(0, 4), victim.tools);
    expect(() => maskWith(sharers.filter((sharer) => sharer !== shares[0]!.peer))).toThrow(expect.objectContaining({ code: 'quorum-missed', field: 'clients that shared keys' }));
    expect(() => maskWith(sharers.filter((sharer) => sharer !== own))).toThrow(/not among them/);
  });

  it('too few survivors, though more than the threshold', () => {
    const record = runRound(options, 'maskedInput');
    const victim = record.clients[0]!;
    const own = indexIn(record, victim);
    const list = [0, 1, 2, 3, 4, 5].filter((i) => i !== (own + 1) % 6);
    expect(() => participant.signSurvivors(victim.state!, encodeSurvivors(record.context, rootOf(record), list), victim.tools)).toThrow(expect.objectContaining({ code: 'quorum-missed', field: 'survivors' }));
  });
});

it('on the ring: too few survivors among the neighbors, though enough in all', () => {
  const record = runRound({ clients: 256, minSurvivors: 226, maxCorrupt: 0, dimension: 1, crypto: insecureFakeCrypto }, 'maskedInput');
  const { graph } = record.rosterState.roster;
  const victim = record.clients[0]!;
  const own = indexIn(record, victim);
  const neighbors = neighborsOf(graph, own);
  const missing = new Set(neighbors.slice(0, neighbors.length - graph.shape.threshold + 1));
  expect(missing.size).toBeLessThanOrEqual(30);
  const list = Array.from({ length: 256 }, (_, i) => i).filter((i) => !missing.has(i));
  expect(() => participant.signSurvivors(victim.state!, encodeSurvivors(record.context, rootOf(record), list), victim.tools)).toThrow(expect.objectContaining({ field: 'survivors among the neighbors' }));
}, 60_000);

it('signatures of the client itself, or of a client that is no survivor, do not make a quorum', () => {
  const record = runRound({ clients: 6, minSurvivors: 5, maxCorrupt: 2, drops: { maskedInput: new Set([5]) } }, 'consistencyCheck');
  const victim = record.clients[0]!;
  const own = indexIn(record, victim);
  const { digest } = victim.state as participant.SignedState;
  const gone = record.clients[5]!;
  const genuine = record.consistency.map((message) => aggregator.acceptConsistency(record.survivorsState, message, nodeCrypto)).map(({ sender, signature }) => ({ signer: sender, signature }));
  const others = genuine.filter(({ signer }) => signer !== own);
  const stranger = { signer: indexIn(record, gone), signature: encodeConsistency(record.context, rootOf(record), digest, gone.tools.identity, nodeCrypto).slice(-64) };
  const unmaskWith = (signatures: typeof genuine) =>
    participant.unmask(victim.state!, encodeSignatures(record.context, rootOf(record), digest, [...signatures].sort((a, b) => a.signer - b.signer)), victim.tools);
  expect(unmaskWith(others).state.phase).toBe('answered');
  expect(() => unmaskWith([...others.slice(1), stranger])).toThrow(/signed the same survivors/);
  expect(() => unmaskWith([...others.slice(1), ...genuine.filter(({ signer }) => signer === own)])).toThrow(/signed the same survivors/);
});

it('a wrong share of a dropout\'s mask secret is detected by its mask key', () => {
  const record = runRound({ clients: 5, minSurvivors: 4, maxCorrupt: 1, drops: { maskedInput: new Set([2]) } }, 'unmask');
  const accepted = record.answers.map((message) => aggregator.acceptUnmask(record.survivorsState, message, nodeCrypto));
  const spoiled = accepted.map((answer, i) => (i === 0 ? { ...answer, shares: answer.shares.map((share) => (share.kind === 'maskSecret' ? { ...share, share: share.share.map((byte) => byte ^ 1) } : share)) } : answer));
  expect(() => aggregator.closeUnmask(record.survivorsState, spoiled, nodeCrypto)).toThrow(/do not fit together/);
});
