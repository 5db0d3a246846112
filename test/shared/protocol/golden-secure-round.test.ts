/** The announcement, advert and envelope of a round of secure aggregation, against a second implementation (test/vectors/fdp1.md). */
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../shared/crypto/digest.ts';
import { portableCrypto } from '../../../shared/crypto/provider.ts';
import { identityFromSeed } from '../../../shared/crypto/signature.ts';
import type { Json } from '../../../shared/protocol/canonical-json.ts';
import { envelopeBytes, openEnvelope, sealEnvelope, verifyEnvelope } from '../../../shared/protocol/envelope.ts';
import { RoundDocumentSchema } from '../../../shared/protocol/messages.ts';
import { secureContextOf } from '../../../shared/protocol/secure-round.ts';
import { openDocument, signDocument, type SignedDocument } from '../../../shared/protocol/signed-document.ts';
import { acceptAdvert } from '../../../shared/secure-aggregation/aggregator.ts';
import { clientMessageBytes } from '../../../shared/secure-aggregation/messages.ts';
import { SecureRound } from '../../../shared/secure-aggregation/participant-round.ts';
import { fromHex, toHex } from '../../../shared/types/bytes.ts';
import type { Digest } from '../../../shared/types/ids.ts';
import { InsecureFixedRandom, readVectors } from './fixtures.ts';

const golden = readVectors<
  Record<'coordinatorSeed' | 'clientSeed' | 'channelSecret' | 'maskSecret' | 'selfSeed' | 'commitment' | 'advert' | 'roundBoxSecret' | 'ephemeralSecret' | 'nonce' | 'envelope' | 'digest', string> & {
    readonly value: Json;
    readonly signed: SignedDocument;
    readonly hash: Digest;
  }
>('fdp1-secure-round.json');
const hex = (text: string) => fromHex(text)!;
const coordinator = identityFromSeed(hex(golden.coordinatorSeed));
const client = identityFromSeed(hex(golden.clientSeed));

describe('golden round of secure aggregation', () => {
  const { value: document, hash } = openDocument('round', golden.signed, coordinator.publicKey, RoundDocumentSchema);
  const context = secureContextOf(document, hash);
  const envelopeContext = { taskDigest: document.taskDigest, round: document.round, stage: 'advertiseKeys', transcript: hash } as const;

  it('has this announcement', () => {
    expect(signDocument('round', golden.value, coordinator)).toEqual(golden.signed);
    expect(hash).toBe(golden.hash);
    expect(context).toMatchObject({ round: 3, parameters: { dimension: 9, minCohort: 4, minSurvivors: 4, maxCorrupt: 1 } });
  });

  it('is answered with this advert when the random source gives these secrets', () => {
    const random = new InsecureFixedRandom(hex(golden.channelSecret), hex(golden.maskSecret), hex(golden.selfSeed));
    const advert = new SecureRound(context, { minHonest: 3, lastRound: 2 }, { identity: client, random, crypto: portableCrypto }).advertiseKeys();
    expect(toHex(advert)).toBe(golden.advert);
    expect(toHex(acceptAdvert(context, advert, portableCrypto).commitment)).toBe(golden.commitment);
  });

  it('has the advert in this envelope of its stage', () => {
    const envelope = sealEnvelope(hex(golden.advert), envelopeContext, document.boxKey, client, new InsecureFixedRandom(hex(golden.ephemeralSecret), hex(golden.nonce)));
    expect(toHex(envelope)).toBe(golden.envelope);
    expect(digestOf(envelope)).toBe(golden.digest);
    expect(envelope.length).toBe(envelopeBytes(clientMessageBytes.advert));
    verifyEnvelope(envelope, envelopeContext, client.publicKey, clientMessageBytes.advert);
    expect(toHex(openEnvelope(envelope, envelopeContext, client.publicKey, hex(golden.roundBoxSecret)))).toBe(golden.advert);
    for (const stage of ['contribution', 'shareKeys', 'unmask'] as const) {
      expect(() => verifyEnvelope(envelope, { ...envelopeContext, stage }, client.publicKey, clientMessageBytes.advert)).toThrowError(expect.objectContaining({ code: 'context-mismatch' }));
    }
  });
});
