import { describe, expect, it } from 'vitest';
import type { SecureExchange } from '../../client/participant/secure-exchange.ts';
import { identityFromSeed } from '../../shared/crypto/signature.ts';
import { nodeCrypto } from '../../shared/node/node-crypto.ts';
import * as aggregator from '../../shared/secure-aggregation/aggregator.ts';
import type { RoundContext } from '../../shared/secure-aggregation/parameters.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { SecureThreads } from '../../simulations/secure-threads.ts';
import { sharedCrypto } from '../../simulations/shared-work.ts';

const clients = 5;
const context: RoundContext = { round: 1, manifestHash: new Uint8Array(32).fill(7), parameters: { dimension: 6, minCohort: clients, minSurvivors: 4, maxCorrupt: 0 } };
const document = { release: { mechanism: 'none', outputKind: 'probabilities', rows: 2, columns: 3, gridStep: 2 ** -12 }, cohort: { size: clients, quorum: 4 }, trustMode: 'secure-aggregation', secureAggregation: { minCohort: clients, minSurvivors: 4, maxCorrupt: 0, stageDeadlineMs: 1000 } } as unknown as Parameters<SecureExchange['contribution']>[0]['document'];

/** A whole round, computed in so many threads: every message, and the sum. */
async function round(threads: number): Promise<{ readonly messages: readonly Uint8Array[]; readonly sum: Int32Array; readonly inputs: readonly Int32Array[]; readonly refusal: unknown }> {
  const pool = new SecureThreads(threads);
  const crypto = sharedCrypto(nodeCrypto);
  const messages: Uint8Array[] = [];
  const keep = (all: readonly Uint8Array[]) => {
    messages.push(...all);
    return all;
  };
  try {
    const identities = Array.from({ length: clients }, (_, i) => identityFromSeed(new Uint8Array(32).fill(i + 1)));
    const exchanges = identities.map((identity, i) => pool.forClient(i, (work) => work())(context, { minHonest: 1, lastRound: 0 }, { identity, random: new InsecureSeededRandom(i), crypto }));
    const all = (step: (exchange: SecureExchange, i: number) => Uint8Array | Promise<Uint8Array>) => Promise.all(exchanges.map(async (exchange, i) => step(exchange, i))).then(keep);
    const opened = aggregator.closeAdvertiseKeys(context, (await all((exchange) => exchange.advertiseKeys())).map((message) => aggregator.acceptAdvert(context, message, crypto)), crypto);
    const places = identities.map(({ publicKey }) => opened.state.roster.adverts.findIndex(({ identity }) => Buffer.compare(identity, publicKey) === 0));
    const sharing = aggregator.closeShareKeys(opened.state, (await all((exchange) => exchange.shareKeys(opened.message))).map((message) => aggregator.acceptShares(opened.state, message, crypto)));
    const inputs = await Promise.all(exchanges.map(async (exchange, i) => exchange.contribution({ document, predictions: [{ rows: 2, columns: 3, values: Float32Array.of(i, 1, 2, 0, i, 1) }] })));
    const masked = await all((exchange, i) => exchange.maskInput(sharing.deliveries.get(places[i]!)!, inputs[i]!));
    const surviving = aggregator.closeMaskedInput(sharing.state, masked.map((message) => aggregator.acceptMaskedInput(sharing.state, message, crypto)), crypto);
    const consistent = aggregator.closeConsistency(surviving.state, (await all((exchange) => exchange.signSurvivors(surviving.message))).map((message) => aggregator.acceptConsistency(surviving.state, message, crypto)));
    const answers = await all((exchange, i) => exchange.unmask(consistent.messages.get(places[i]!)!));
    const { sum } = aggregator.closeUnmask(surviving.state, answers.map((message) => aggregator.acceptUnmask(surviving.state, message, crypto)), crypto);
    const refusal = await Promise.resolve()
      .then(() => exchanges[0]!.unmask(consistent.messages.get(places[0]!)!))
      .catch((error: unknown) => error);
    for (const exchange of exchanges) exchange.leave();
    return { messages, sum, inputs, refusal };
  } finally {
    await pool.dispose();
  }
}

describe('secure aggregation in threads', () => {
  it('sends the same bytes with none, one and two, adds up exactly, and refuses what is out of turn', { timeout: 60_000 }, async () => {
    const here = await round(0);
    expect([...here.sum]).toEqual([...here.sum].map((_, i) => here.inputs.reduce((total, input) => total + input[i]!, 0)));
    expect(here.refusal).toMatchObject({ code: 'stage-mismatch' });
    for (const threads of [1, 2]) {
      const { messages, sum, refusal } = await round(threads);
      expect(messages).toEqual(here.messages);
      expect(sum).toEqual(here.sum);
      expect(refusal).toMatchObject({ code: 'stage-mismatch', field: 'stage' });
    }
  });
});
