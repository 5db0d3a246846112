/** Every intermediate value of one session and one contribution, against a second implementation (test/vectors/fdp1.md). */
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../shared/crypto/digest.ts';
import { boxKeysFromSecret } from '../../../shared/crypto/sealed-box.ts';
import { identityFromSeed, signMessage, verifySignature } from '../../../shared/crypto/signature.ts';
import { canonicalJson, type Json } from '../../../shared/protocol/canonical-json.ts';
import { envelopeBytes, openEnvelope, sealEnvelope, verifyEnvelope } from '../../../shared/protocol/envelope.ts';
import { clientIdOf, fingerprint, helloTranscript, joinTranscript, tokenProof } from '../../../shared/protocol/identity.ts';
import { decodeIndices } from '../../../shared/protocol/indices.ts';
import { assertContribution, decodeFrame, encodeGrid } from '../../../shared/protocol/matrix-frame.ts';
import { FinishedDocumentSchema, RoundDocumentSchema, TaskDocumentSchema } from '../../../shared/protocol/messages.ts';
import { documentHash, openDocument, signDocument, type DocumentKind, type SignedDocument } from '../../../shared/protocol/signed-document.ts';
import { fromHex, toHex } from '../../../shared/types/bytes.ts';
import type { Digest } from '../../../shared/types/ids.ts';
import { InsecureFixedRandom, readVectors } from './fixtures.ts';

interface GoldenDocument {
  readonly value: Json;
  readonly signed: SignedDocument;
  readonly hash: Digest;
}
interface GoldenHandshake {
  readonly identities: Record<'coordinator' | 'client', { readonly seed: string; readonly publicKey: string; readonly fingerprint: string }>;
  readonly session: Record<'clientNonce' | 'serverNonce' | 'token' | 'helloTranscript' | 'helloSignature' | 'joinTranscript' | 'joinSignature' | 'tokenProof', string>;
  readonly documents: Record<DocumentKind, GoldenDocument>;
  readonly envelope: Record<'roundBoxSecret' | 'roundBoxKey' | 'ephemeralSecret' | 'ephemeralKey' | 'nonce' | 'frame' | 'context' | 'box' | 'signedMessage' | 'envelope' | 'digest', string>;
}

const golden = readVectors<GoldenHandshake>('fdp1-handshake.json');
const hex = (text: string) => fromHex(text)!;
const coordinator = identityFromSeed(hex(golden.identities.coordinator.seed));
const client = identityFromSeed(hex(golden.identities.client.seed));
const nonces = { coordinatorKey: coordinator.publicKey, clientKey: client.publicKey, clientNonce: hex(golden.session.clientNonce), serverNonce: hex(golden.session.serverNonce) };
const { documents } = golden;

describe('golden session', () => {
  it('has these identities', () => {
    for (const [name, keys] of [['coordinator', coordinator], ['client', client]] as const) {
      expect({ seed: golden.identities[name].seed, publicKey: toHex(keys.publicKey), fingerprint: fingerprint(keys.publicKey) }).toEqual(golden.identities[name]);
    }
    expect(clientIdOf(client.publicKey)).toBe(golden.identities.client.fingerprint);
  });

  it.each(['task', 'round', 'finished'] as const)('has this %s document, signature and hash', (kind) => {
    const { value, signed, hash } = documents[kind];
    expect(canonicalJson(value)).toBe(signed.document);
    expect(signDocument(kind, value, coordinator)).toEqual(signed);
    expect(documentHash(kind, signed.document)).toBe(hash);
    const schema = { task: TaskDocumentSchema, round: RoundDocumentSchema, finished: FinishedDocumentSchema }[kind];
    expect(openDocument<unknown>(kind, signed, coordinator.publicKey, schema).hash).toBe(hash);
  });

  it('has these transcripts, signatures and token proof', () => {
    const hello = helloTranscript(nonces, documents.task.hash);
    const join = joinTranscript(nonces, documents.task.hash);
    expect({
      ...golden.session,
      helloTranscript: toHex(hello),
      helloSignature: toHex(signMessage(hello, coordinator)),
      joinTranscript: toHex(join),
      joinSignature: toHex(signMessage(join, client)),
      tokenProof: toHex(tokenProof(golden.session.token, nonces)),
    }).toEqual(golden.session);
    expect(verifySignature(hello, hex(golden.session.helloSignature), coordinator.publicKey)).toBe(true);
    expect(verifySignature(join, hex(golden.session.joinSignature), client.publicKey)).toBe(true);
  });
});

describe('golden contribution', () => {
  const vector = golden.envelope;
  const round = openDocument('round', documents.round.signed, coordinator.publicKey, RoundDocumentSchema);
  const context = { taskDigest: round.value.taskDigest, round: round.value.round, stage: 'contribution', transcript: round.hash } as const;

  it('belongs to the announced round', () => {
    expect(context.taskDigest).toBe(documents.task.hash);
    expect(toHex(round.value.boxKey)).toBe(vector.roundBoxKey);
    expect(toHex(boxKeysFromSecret(hex(vector.roundBoxSecret)).publicKey)).toBe(vector.roundBoxKey);
    expect(decodeIndices(round.value.query, 4, 'query')).toEqual(Uint32Array.of(0, 1, 3));
  });

  it('is this frame', () => {
    const values = Int32Array.of(4096, -9123, 17, 0, 1, -1, 2147483647, -2147483648, 8192);
    expect(toHex(encodeGrid({ rows: 3, columns: 3, values }))).toBe(vector.frame);
    assertContribution(decodeFrame(hex(vector.frame)), 'grid', round.value.release.rows, round.value.release.columns);
  });

  it('is sealed into these bytes when the random source gives these', () => {
    const random = new InsecureFixedRandom(hex(vector.ephemeralSecret), hex(vector.nonce));
    const envelope = sealEnvelope(hex(vector.frame), context, round.value.boxKey, client, random);
    expect(toHex(envelope)).toBe(vector.envelope);
    expect(digestOf(envelope)).toBe(vector.digest);
    expect(envelope.length).toBe(envelopeBytes(vector.frame.length / 2));
    // The fields, where the page says that they are.
    expect(toHex(envelope.subarray(44, 76))).toBe(vector.ephemeralKey);
    expect(toHex(envelope.subarray(76, 100))).toBe(vector.nonce);
    expect(toHex(envelope.subarray(104, -64))).toBe(vector.box);
    expect(verifySignature(hex(vector.signedMessage), envelope.subarray(-64), client.publicKey)).toBe(true);
  });

  it('is accepted and opens to the frame', () => {
    verifyEnvelope(hex(vector.envelope), context, client.publicKey, vector.frame.length / 2);
    expect(toHex(openEnvelope(hex(vector.envelope), context, client.publicKey, hex(vector.roundBoxSecret)))).toBe(vector.frame);
  });
});
