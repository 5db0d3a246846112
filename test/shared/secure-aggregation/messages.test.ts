/** The bytes: a second encoder written from docs/secure-aggregation.md alone, a golden round, and refusals of everything that is not canonical. */
import { createHash, createPrivateKey, createPublicKey, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { portableCrypto } from '../../../shared/crypto/provider.ts';
import { nodeCrypto } from '../../../shared/node/node-crypto.ts';
import * as messages from '../../../shared/secure-aggregation/messages.ts';
import { toHex } from '../../../shared/types/bytes.ts';
import { plainSum, runRound, type RoundOptions } from '../../support/secure-aggregation.ts';

const options: RoundOptions = { clients: 3, minSurvivors: 2, dimension: 3, seed: 12, drops: { maskedInput: new Set([2]) } };
const record = runRound(options);
const root = record.rosterState.roster.keyContext.rosterRoot;

/** Independent: Buffer and DataView-free, straight from the table in the document. */
const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const head = (kind: number) => Buffer.concat([Buffer.from('FDPS'), Buffer.of(1, kind, 0, 0), u32(1), Buffer.alloc(32, 7)]);
function signWith(seed: Uint8Array, unsigned: Buffer): Buffer {
  const key = createPrivateKey({ key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]), format: 'der', type: 'pkcs8' });
  return Buffer.concat([unsigned, sign(null, Buffer.concat([Buffer.from('fdp/1 secagg message\n'), createHash('sha256').update(unsigned).digest()]), key)]);
}

describe('two encoders give the same bytes', () => {
  const { identity } = record.clients[0]!.tools;
  const seed = identity.secretKey.subarray(0, 32);
  const pk = Buffer.from(identity.publicKey);
  const fill = (byte: number, length = 32) => new Uint8Array(length).fill(byte);
  const c = record.context;

  it('clients\' messages', () => {
    expect(createPublicKey(createPrivateKey({ key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]), format: 'der', type: 'pkcs8' })).export({ format: 'der', type: 'spki' }).subarray(12)).toEqual(pk);
    const both: [Uint8Array, Buffer, number][] = [
      [messages.encodeAdvert(c, { channelKey: fill(1), maskKey: fill(2), commitment: fill(3) }, identity, nodeCrypto), Buffer.concat([head(1), pk, fill(1), fill(2), fill(3)]), messages.clientMessageBytes.advert],
      [messages.encodeShares(c, root, [{ peer: 258, nonce: fill(4, 24), box: fill(5, 208) }], identity, nodeCrypto), Buffer.concat([head(3), pk, root, u32(1), u32(258), fill(4, 24), fill(5, 208)]), messages.clientMessageBytes.shares(1)],
      [messages.encodeMaskedInput(c, root, Uint32Array.of(1, 2 ** 32 - 1, 0x01020304), identity, nodeCrypto), Buffer.concat([head(5), pk, root, u32(3), Buffer.from('01000000ffffffff04030201', 'hex')]), messages.clientMessageBytes.maskedInput(3)],
      [messages.encodeConsistency(c, root, fill(6), identity, nodeCrypto), Buffer.concat([head(7), pk, root, fill(6)]), messages.clientMessageBytes.consistency],
      [
        messages.encodeUnmask(c, root, fill(6), [{ owner: 1, kind: 'selfSeed', share: fill(7) }, { owner: 2, kind: 'maskSecret', share: fill(8) }], identity, portableCrypto),
        Buffer.concat([head(9), pk, root, fill(6), u32(2), u32(1), Buffer.of(1, 0, 0, 0), fill(7), u32(2), Buffer.of(2, 0, 0, 0), fill(8)]),
        messages.clientMessageBytes.unmask(2),
      ],
    ];
    for (const [ours, unsigned, length] of both) {
      expect(toHex(ours)).toBe(signWith(seed, unsigned).toString('hex'));
      expect(ours.length).toBe(length);
    }
  });

  it('the coordinator\'s messages', () => {
    const adverts = messages.decodeRoster(record.roster, c);
    expect(toHex(record.roster)).toBe(Buffer.concat([head(2), u32(3), ...adverts.map(({ bytes }) => bytes)]).toString('hex'));
    expect(toHex(messages.encodeDelivery(c, root, [0, 2], [{ peer: 2, nonce: fill(4, 24), box: fill(5, 208) }]))).toBe(Buffer.concat([head(4), root, u32(2), u32(0), u32(2), u32(1), u32(2), fill(4, 24), fill(5, 208)]).toString('hex'));
    expect(toHex(messages.encodeSurvivors(c, root, [0, 2]))).toBe(Buffer.concat([head(6), root, u32(2), u32(0), u32(2)]).toString('hex'));
    expect(toHex(messages.encodeSignatures(c, root, fill(6), [{ signer: 2, signature: fill(9, 64) }]))).toBe(Buffer.concat([head(8), root, fill(6), u32(1), u32(2), fill(9, 64)]).toString('hex'));
  });

  it('rosterRoot as documented', () => {
    const adverts = messages.decodeRoster(record.roster, c);
    expect(toHex(root)).toBe(createHash('sha256').update(Buffer.concat([Buffer.from('fdp/1 secagg roster\n'), Buffer.alloc(32, 7), u32(3), ...adverts.map(({ bytes }) => bytes)])).digest('hex'));
  });
});

describe('decoders', () => {
  it('refuse every message that is one byte shorter or longer, or of another version', () => {
    const { context: c } = record;
    const digest = record.survivorsState.digest;
    const decoders: [Uint8Array, (bytes: Uint8Array) => unknown][] = [
      [record.adverts[0]!, (bytes) => messages.decodeAdvert(bytes, c)],
      [record.roster, (bytes) => messages.decodeRoster(bytes, c)],
      [record.shares[0]!, (bytes) => messages.decodeShares(bytes, c, root, 3)],
      [[...record.deliveries.values()][0]!, (bytes) => messages.decodeDelivery(bytes, c, root, 3)],
      [record.maskedInputs[0]!, (bytes) => messages.decodeMaskedInput(bytes, c, root)],
      [record.survivorsMessage, (bytes) => messages.decodeSurvivors(bytes, c, root, 3)],
      [record.consistency[0]!, (bytes) => messages.decodeConsistency(bytes, c, root, digest)],
      [[...record.signatures.values()][0]!, (bytes) => messages.decodeSignatures(bytes, c, root, digest, 3)],
      [record.answers[0]!, (bytes) => messages.decodeUnmask(bytes, c, root, digest, 3)],
    ];
    for (const [message, decode] of decoders) {
      expect(() => decode(message)).not.toThrow();
      for (const wrong of [message.subarray(0, -1), Uint8Array.from([...message, 0]), message.map((byte, i) => (i === 4 ? 2 : byte)), message.map((byte, i) => (i === 6 ? 1 : byte)), new Uint8Array(0)]) {
        expect(() => decode(wrong)).toThrow(/form of/);
      }
    }
  });

  it('refuse counts and indices beyond the roster before they allocate', () => {
    const huge = record.survivorsMessage.slice();
    huge.set([255, 255, 255, 255], 76);
    expect(() => messages.decodeSurvivors(huge, record.context, root, 3)).toThrow(/form of/);
    expect(() => messages.decodeSurvivors(messages.encodeSurvivors(record.context, root, [1, 0]), record.context, root, 3)).toThrow(/form of/);
    const roster = record.roster.slice();
    roster.set([255, 255, 255, 255], 44);
    expect(() => messages.decodeRoster(roster, record.context)).toThrow(/form of/);
  });
});

describe('a golden round with fixed randomness', () => {
  it('gives every message of test/vectors/secagg-round.json, with either provider', () => {
    const vectors = JSON.parse(readFileSync(new URL('../../vectors/secagg-round.json', import.meta.url), 'utf8')) as Record<string, unknown>;
    for (const crypto of [nodeCrypto, portableCrypto]) {
      const { adverts, roster, shares, deliveries, maskedInputs, survivorsMessage, consistency, signatures, answers, result } = runRound({ ...options, crypto });
      const byIndex = (map: ReadonlyMap<number, Uint8Array>) => Object.fromEntries([...map].map(([index, message]) => [index, toHex(message)]));
      expect({
        adverts: adverts.map(toHex),
        roster: toHex(roster),
        shares: shares.map(toHex),
        deliveries: byIndex(deliveries),
        maskedInputs: maskedInputs.map(toHex),
        survivors: toHex(survivorsMessage),
        consistency: consistency.map(toHex),
        signatures: byIndex(signatures),
        answers: answers.map(toHex),
        digest: toHex(result.digest),
        sum: [...result.sum],
      }).toEqual(vectors);
      expect(result.sum).toEqual(plainSum([0, 1], 3));
    }
  });
});
