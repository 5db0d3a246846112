/** The object that clients hold: every stage is answered once, a refusal ends the round, and nothing secret shows. */
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import * as aggregator from '../../../shared/secure-aggregation/aggregator.ts';
import { encodeSurvivors } from '../../../shared/secure-aggregation/messages.ts';
import { SecureRound } from '../../../shared/secure-aggregation/participant-round.ts';
import { equalBytes, toHex } from '../../../shared/types/bytes.ts';
import { contextFor, inputOf, lenient, makeClients, plainSum, runRound, type RoundOptions } from '../../support/secure-aggregation.ts';

const options: RoundOptions = { clients: 3, minSurvivors: 3 };

function makeRounds() {
  const context = contextFor(options);
  const clients = makeClients(options);
  return { context, crypto: clients[0]!.tools.crypto, clients, rounds: clients.map(({ tools }) => new SecureRound(context, lenient, tools)) };
}

describe('a client in one round', () => {
  it('sends the bytes of the pure functions, stage by stage, and refuses every second call without a change', () => {
    const reference = runRound(options);
    const { context, crypto, clients, rounds } = makeRounds();
    const once = (round: SecureRound, phase: string, call: () => Uint8Array) => {
      const message = call();
      expect(round.phase).toBe(phase);
      expect(call).toThrow(expect.objectContaining({ code: 'stage-mismatch' }));
      expect(round.phase).toBe(phase);
      return message;
    };
    expect(rounds[0]!.phase).toBe('created');
    const adverts = rounds.map((round) => once(round, 'advertised', () => round.advertiseKeys()));
    expect(adverts).toEqual(reference.adverts);
    const opened = aggregator.closeAdvertiseKeys(context, adverts.map((message) => aggregator.acceptAdvert(context, message, crypto)), crypto);
    const indices = clients.map(({ tools }) => opened.state.roster.adverts.findIndex(({ identity }) => equalBytes(identity, tools.identity.publicKey)));
    const shares = rounds.map((round) => once(round, 'shared', () => round.shareKeys(opened.message)));
    expect(shares).toEqual(reference.shares);
    const shared = aggregator.closeShareKeys(opened.state, shares.map((message) => aggregator.acceptShares(opened.state, message, crypto)));
    const masked = rounds.map((round, i) => once(round, 'masked', () => round.maskInput(shared.deliveries.get(indices[i]!)!, inputOf(i, 4))));
    const { state, message } = aggregator.closeMaskedInput(shared.state, masked.map((input) => aggregator.acceptMaskedInput(shared.state, input, crypto)), crypto);
    expect(rounds[0]!.digest).toBeUndefined();
    const signed = rounds.map((round) => once(round, 'signed', () => round.signSurvivors(message)));
    const { messages } = aggregator.closeConsistency(state, signed.map((signature) => aggregator.acceptConsistency(state, signature, crypto)));
    const answers = rounds.map((round, i) => once(round, 'answered', () => round.unmask(messages.get(indices[i]!)!)));
    expect(answers).toEqual(reference.answers);
    const { sum, digest } = aggregator.closeUnmask(state, answers.map((answer) => aggregator.acceptUnmask(state, answer, crypto)), crypto);
    expect(sum).toEqual(plainSum([0, 1, 2], 4));
    for (const round of rounds) {
      expect(round.digest).toEqual(digest);
      round.leave();
      expect(round.phase).toBe('answered');
    }
  });

  it('ends with the first refusal: a roster, delivery, set of survivors or signature is not tried twice', () => {
    const record = runRound(options, 'advertiseKeys');
    const { rounds } = makeRounds();
    const [round] = rounds;
    round!.advertiseKeys();
    expect(() => round!.shareKeys(record.roster.subarray(1))).toThrow(expect.objectContaining({ code: 'message-malformed' }));
    expect(round!.phase).toBe('left');
    expect(() => round!.shareKeys(record.roster)).toThrow(expect.objectContaining({ code: 'stage-mismatch' }));

    const other = rounds[1]!;
    other.advertiseKeys();
    const state = record.rosterState;
    const shares = [other.shareKeys(record.roster), ...runRound(options, 'shareKeys').shares.filter((_, i) => i !== 1)];
    const { deliveries, state: sharers } = aggregator.closeShareKeys(state, shares.map((message) => aggregator.acceptShares(state, message, makeRounds().crypto)));
    const own = state.roster.adverts.findIndex(({ bytes }) => equalBytes(bytes, record.adverts[1]!));
    other.maskInput(deliveries.get(own)!, inputOf(1, 4));
    const survivors = (list: number[]) => encodeSurvivors(record.context, sharers.roster.keyContext.rosterRoot, list);
    expect(() => other.signSurvivors(survivors([0, 1, 2].filter((i) => i !== own)))).toThrow(/not among them/);
    expect(() => other.signSurvivors(survivors([0, 1, 2]))).toThrow(expect.objectContaining({ code: 'stage-mismatch' }));
    expect(other.digest).toBeUndefined();
  });

  it('refuses a round against its policy and can leave at any time', () => {
    const { context, clients } = makeRounds();
    const strict = new SecureRound(context, { lastRound: 0 }, clients[0]!.tools);
    expect(() => strict.advertiseKeys()).toThrow(expect.objectContaining({ code: 'policy-refused' }));
    expect(strict.phase).toBe('left');
    const round = new SecureRound(context, lenient, clients[0]!.tools);
    round.leave();
    expect(() => round.advertiseKeys()).toThrow(expect.objectContaining({ code: 'stage-mismatch' }));
  });

  it('refuses a call from within a call: a random source that calls back gets nothing', () => {
    const { context, clients } = makeRounds();
    const { tools } = clients[0]!;
    let inner: unknown;
    const round: SecureRound = new SecureRound(context, lenient, {
      ...tools,
      random: {
        bytes(length) {
          try {
            round.advertiseKeys();
          } catch (error) {
            inner = error;
          }
          return tools.random.bytes(length);
        },
      },
    });
    round.advertiseKeys();
    expect(inner).toMatchObject({ code: 'stage-mismatch' });
    expect(round.phase).toBe('advertised');
  });

  it('keeps what it was announced: a context that changes afterwards changes nothing', () => {
    const { clients } = makeRounds();
    const context = contextFor(options);
    const round = new SecureRound(context, lenient, clients[0]!.tools);
    context.manifestHash.fill(9);
    Object.assign(context.parameters, { minSurvivors: 1, maxCorrupt: 0 });
    expect(round.advertiseKeys()).toEqual(runRound(options, 'advertiseKeys').adverts[0]);
  });

  it('shows no secret as text, JSON or to a debugger', () => {
    const { context, clients } = makeRounds();
    const drawn: Uint8Array[] = [];
    const { tools } = clients[0]!;
    const round = new SecureRound(context, lenient, {
      ...tools,
      random: {
        bytes(length) {
          const bytes = tools.random.bytes(length);
          drawn.push(bytes.slice());
          return bytes;
        },
      },
    });
    round.advertiseKeys();
    const seen = [JSON.stringify(round), inspect(round, { depth: 9, showHidden: true, maxArrayLength: null })].join();
    expect(drawn).toHaveLength(3);
    expect(JSON.stringify(round)).toBe('{}');
    for (const bytes of [...drawn, tools.identity.secretKey]) for (const form of [toHex(bytes), bytes.join(), bytes.join(', ')]) expect(seen).not.toContain(form);
  });
});
