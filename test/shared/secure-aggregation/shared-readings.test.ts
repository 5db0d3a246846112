/** A simulation's clients share what they read, and still each of them refuses what was made for somebody else. */
import { expect, it } from 'vitest';
import { nodeCrypto } from '../../../shared/node/node-crypto.ts';
import { encodeSignatures, encodeSurvivors } from '../../../shared/secure-aggregation/messages.ts';
import * as participant from '../../../shared/secure-aggregation/participant.ts';
import { readOnce } from '../../../shared/secure-aggregation/shared-readings.ts';
import { sharedCrypto } from '../../../simulations/shared-work.ts';
import { runRound } from '../../support/secure-aggregation.ts';

it('signatures for other survivors are refused by a client that comes after one who read them', () => {
  const record = runRound({ clients: 5, minSurvivors: 4, maxCorrupt: 1, crypto: sharedCrypto(nodeCrypto), dimension: 1 }, 'maskedInput');
  const { adverts, keyContext } = record.rosterState.roster;
  const steps = record.clients.map(({ state, tools }) => {
    const signer = adverts.findIndex(({ identity }) => identity.every((byte, b) => byte === tools.identity.publicKey[b]));
    // The first of the roster is told that the last one is gone.
    const survivors = signer === 0 ? [0, 1, 2, 3] : [0, 1, 2, 3, 4];
    const signed = participant.signSurvivors(state!, encodeSurvivors(record.context, keyContext.rosterRoot, survivors), tools);
    return { signer, tools, state: signed.state, entry: { signer, signature: signed.message.slice(-64) } };
  });
  const [deceived, others] = [steps.find(({ signer }) => signer === 0)!, steps.filter(({ signer }) => signer !== 0)];
  const message = encodeSignatures(record.context, keyContext.rosterRoot, others[0]!.state.digest, others.map(({ entry }) => entry).sort((a, b) => a.signer - b.signer));
  for (const { state, tools } of others) expect(participant.unmask(state, message, tools).message.length).toBeGreaterThan(0);
  expect(() => participant.unmask(deceived.state, message, deceived.tools)).toThrow();
});

it('nothing is shared through a provider that nobody has told to', () => {
  const bytes = [Uint8Array.of(1)];
  expect([readOnce(nodeCrypto, bytes, () => 1), readOnce(nodeCrypto, bytes, () => 2)]).toEqual([1, 2]);
  const shared = sharedCrypto(nodeCrypto);
  expect([readOnce(shared, bytes, () => 1), readOnce(shared, bytes, () => 2), readOnce(sharedCrypto(nodeCrypto), bytes, () => 3)]).toEqual([1, 1, 3]);
});
