import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestOf, sha256 } from '../../../shared/crypto/digest.ts';
import { boxKeysFromSecret, sealBox } from '../../../shared/crypto/sealed-box.ts';
import { signMessage, type IdentityKeys } from '../../../shared/crypto/signature.ts';
import { envelopeBytes, openEnvelope, sealEnvelope, verifyEnvelope, type EnvelopeContext } from '../../../shared/protocol/envelope.ts';
import { encodeGrid } from '../../../shared/protocol/matrix-frame.ts';
import { concatBytes, fromHex, utf8 } from '../../../shared/types/bytes.ts';
import type { RoundId } from '../../../shared/types/ids.ts';
import { client, federationError, InsecureFixedRandom, roundBox, stranger } from './fixtures.ts';

const context: EnvelopeContext = { taskDigest: digestOf(utf8('task')), round: 7 as RoundId, stage: 'contribution', transcript: digestOf(utf8('round 7')) };
const frame = encodeGrid({ rows: 2, columns: 2, values: Int32Array.of(1, -2, 3, -4) });
/** As long as one seal needs, and different for each call. */
let sealed = 0;
const random = () => new InsecureFixedRandom(sha256(Uint8Array.of(sealed++)), new Uint8Array(24).fill(sealed));
const seal = (over: Partial<EnvelopeContext> = {}, sender = client, boxKey = roundBox.publicKey, content = frame) => sealEnvelope(content, { ...context, ...over }, boxKey, sender, random());
/** All that a coordinator does with an envelope. */
const receive = (envelope: Uint8Array, over: Partial<EnvelopeContext> = {}, sender = client.publicKey, boxSecret = roundBox.secretKey) => {
  verifyEnvelope(envelope, { ...context, ...over }, sender, frame.length);
  return openEnvelope(envelope, { ...context, ...over }, sender, boxSecret);
};
/** A client's own signature over bytes that it made up: the outside is right, the inside is a lie. */
function signEnvelope(unsigned: Uint8Array, sender: IdentityKeys): Uint8Array {
  return concatBytes(unsigned, signMessage(concatBytes(utf8('fdp/1 envelope\n'), fromHex(context.transcript.slice(7))!, sha256(unsigned)), sender));
}

const others: ReadonlyArray<readonly [string, Partial<EnvelopeContext>]> = [
  ['another task', { taskDigest: digestOf(utf8('another task')) }],
  ['another round', { round: 8 as RoundId }],
  ['another transcript of the same round', { transcript: digestOf(utf8('round 7, announced twice')) }],
];

describe('a sealed envelope', () => {
  it('comes back for any frame, and is as long as announced', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (content) => {
        const envelope = seal({}, client, roundBox.publicKey, content);
        expect(envelope.length).toBe(envelopeBytes(content.length));
        verifyEnvelope(envelope, context, client.publicKey, content.length);
        expect(openEnvelope(envelope, context, client.publicKey, roundBox.secretKey)).toEqual(content);
      }),
      { numRuns: 20 },
    );
  });

  it('has the length of the sample session', () => {
    expect(envelopeBytes(16 + 8 + 2000 * 10 * 4 + 4)).toBe(80_316);
  });

  it('takes 32 and 24 random bytes and no more, and never looks the same twice', () => {
    const fixed = new InsecureFixedRandom(new Uint8Array(56).fill(9));
    sealEnvelope(frame, context, roundBox.publicKey, client, fixed);
    expect(fixed.left).toBe(0);
    expect(seal()).not.toEqual(seal());
  });

  it('shows neither the frame nor the task', () => {
    const envelope = Buffer.from(seal());
    expect(envelope.includes(Buffer.from(frame))).toBe(false);
    expect(envelope.includes(Buffer.from(context.taskDigest.slice(7), 'hex'))).toBe(false);
  });

  it('is read from a view into a larger buffer, as sockets give it', () => {
    const envelope = seal();
    const padded = concatBytes(new Uint8Array(5), envelope, new Uint8Array(5));
    expect(receive(padded.subarray(5, 5 + envelope.length))).toEqual(frame);
  });
});

describe('an envelope is refused', () => {
  it.each(others)('in %s', (_name, other) => {
    const error = federationError(() => receive(seal(), other));
    expect(['context-mismatch', 'signature-invalid']).toContain(error.code);
    // Opening alone, without the check of signature and header, refuses it too: the context is inside the box.
    federationError(() => openEnvelope(seal(), { ...context, ...other }, client.publicKey, roundBox.secretKey), 'context-mismatch');
  });

  it.each(others)('when it is re-signed with this round outside and %s inside the box', (_name, other) => {
    const inside = seal(other);
    const graft = Uint8Array.from(inside.subarray(0, -64));
    new DataView(graft.buffer).setUint32(8, context.round, true);
    const envelope = signEnvelope(graft, client);
    verifyEnvelope(envelope, context, client.publicKey, frame.length); // the outside is in order
    federationError(() => openEnvelope(envelope, context, client.publicKey, roundBox.secretKey), 'context-mismatch');
  });

  it('as the contribution of somebody else', () => {
    federationError(() => receive(seal(), {}, stranger.publicKey), 'context-mismatch');
    // A thief who puts the own name on a copied box: the box still names its sender.
    const stolen = Uint8Array.from(seal().subarray(0, -64));
    stolen.set(stranger.publicKey, 12);
    const envelope = signEnvelope(stolen, stranger);
    verifyEnvelope(envelope, context, stranger.publicKey, frame.length);
    federationError(() => openEnvelope(envelope, context, stranger.publicKey, roundBox.secretKey), 'context-mismatch');
  });

  it('when a stranger signs for the client', () => {
    federationError(() => receive(signEnvelope(seal().subarray(0, -64), stranger)), 'signature-invalid');
  });

  it('when the box is for another key', () => {
    const other = boxKeysFromSecret(new Uint8Array(32).fill(77));
    const envelope = seal({}, client, other.publicKey);
    verifyEnvelope(envelope, context, client.publicKey, frame.length);
    federationError(() => openEnvelope(envelope, context, client.publicKey, roundBox.secretKey), 'envelope-invalid');
    federationError(() => receive(seal(), {}, client.publicKey, other.secretKey), 'envelope-invalid');
  });

  it('when its ephemeral key has low order, with a box that anyone could have made', () => {
    const envelope = Uint8Array.from(seal().subarray(0, -64));
    envelope.fill(0, 44, 76);
    const forged = signEnvelope(envelope, client);
    verifyEnvelope(forged, context, client.publicKey, frame.length);
    federationError(() => openEnvelope(forged, context, client.publicKey, roundBox.secretKey), 'envelope-invalid');
  });

  it('when the box is too short to hold a context', () => {
    const ephemeral = boxKeysFromSecret(new Uint8Array(32).fill(8));
    const nonce = new Uint8Array(24);
    const box = sealBox(utf8('short'), nonce, roundBox.publicKey, ephemeral.secretKey);
    const unsigned = concatBytes(seal().subarray(0, 44), ephemeral.publicKey, nonce, Uint8Array.of(box.length, 0, 0, 0), box);
    federationError(() => receive(signEnvelope(unsigned, client)), 'shape-mismatch');
    federationError(() => openEnvelope(signEnvelope(unsigned, client), context, client.publicKey, roundBox.secretKey), 'context-mismatch');
  });

  it('at any other length, before anything else is looked at', () => {
    const envelope = seal();
    for (const length of [0, 1, 103, 104, 168, envelope.length - 1]) federationError(() => receive(envelope.subarray(0, length)), 'shape-mismatch');
    federationError(() => receive(concatBytes(envelope, Uint8Array.of(0))), 'shape-mismatch');
    federationError(() => receive(seal({}, client, roundBox.publicKey, concatBytes(frame, Uint8Array.of(0)))), 'shape-mismatch');
  });

  it('with any single byte changed, and nothing but a FederationError is thrown', () => {
    const envelope = seal();
    for (let i = 0; i < envelope.length; i++) {
      const tampered = Uint8Array.from(envelope);
      tampered[i]! ^= 1 << (i % 8);
      federationError(() => verifyEnvelope(tampered, context, client.publicKey, frame.length));
      if (i >= 44 && i < 100) federationError(() => openEnvelope(tampered, context, client.publicKey, roundBox.secretKey), 'envelope-invalid');
    }
  });

  it.each([
    ['magic', 0, 'context-mismatch'],
    ['version', 4, 'context-mismatch'],
    ['stage', 5, 'context-mismatch'],
    ['reserved bytes', 7, 'context-mismatch'],
    ['round', 8, 'context-mismatch'],
    ['sender', 12, 'context-mismatch'],
    ['ephemeral key', 44, 'signature-invalid'],
    ['nonce', 76, 'signature-invalid'],
    ['box length', 100, 'context-mismatch'],
    ['box', 104, 'signature-invalid'],
  ] as const)('with its own code when the %s is changed', (_name, at, code) => {
    const tampered = Uint8Array.from(seal());
    tampered[at]! ^= 3;
    federationError(() => receive(tampered), code);
  });

  it('as random bytes of the right length', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: envelopeBytes(frame.length), maxLength: envelopeBytes(frame.length) }), (bytes) => {
        federationError(() => receive(bytes));
        federationError(() => openEnvelope(bytes, context, client.publicKey, roundBox.secretKey));
      }),
      { numRuns: 50 },
    );
  });
});

describe('a client', () => {
  it('does not seal to a round key of low order', () => {
    expect(() => seal({}, client, new Uint8Array(32))).toThrow(RangeError);
  });
});
