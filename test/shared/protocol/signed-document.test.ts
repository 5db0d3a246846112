import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { signMessage } from '../../../shared/crypto/signature.ts';
import type { Json } from '../../../shared/protocol/canonical-json.ts';
import { RoundDocumentSchema, TaskDocumentSchema } from '../../../shared/protocol/messages.ts';
import { documentHash, malformedMessage, openDocument, signDocument, SignedDocumentSchema, type DocumentKind, type SignedDocument } from '../../../shared/protocol/signed-document.ts';
import { concatBytes, fromBase64, toBase64, utf8 } from '../../../shared/types/bytes.ts';
import { coordinator, federationError, roundDocument, stranger, taskDocument } from './fixtures.ts';

const kinds: readonly DocumentKind[] = ['task', 'round', 'finished'];
const anything = z.unknown();

const roundJson = () => roundDocument() as unknown as Json;

/** Signs any text, whatever it is: what a coordinator with a bug, or another language, may send. */
function signText(kind: DocumentKind, document: string): SignedDocument {
  return { document, signature: toBase64(signMessage(concatBytes(utf8(`fdp/1 ${kind}\n`), utf8(document)), coordinator)) };
}

describe('a signed document', () => {
  it('comes back with the hash of its exact text', () => {
    const signed = signDocument('round', roundJson(), coordinator);
    const opened = openDocument('round', signed, coordinator.publicKey, RoundDocumentSchema);
    expect(opened.value.round).toBe(2);
    expect(opened.hash).toBe(documentHash('round', signed.document));
  });

  it('is the same for the same value, whatever the order of members', () => {
    const value = taskDocument() as Json;
    const reversed = Object.fromEntries(Object.entries(taskDocument()).reverse()) as Json;
    expect(signDocument('task', reversed, coordinator)).toEqual(signDocument('task', value, coordinator));
  });

  it('of one kind does not verify, and does not hash, as another', () => {
    for (const signedAs of kinds) {
      const signed = signDocument(signedAs, { a: 1 }, coordinator);
      for (const openedAs of kinds) {
        if (openedAs === signedAs) expect(openDocument(openedAs, signed, coordinator.publicKey, anything).value).toEqual({ a: 1 });
        else federationError(() => openDocument(openedAs, signed, coordinator.publicKey, anything), 'signature-invalid');
      }
    }
    expect(new Set(kinds.map((kind) => documentHash(kind, '{}'))).size).toBe(3);
  });

  it('is hashed as it was sent, white space and member order included', () => {
    const spaced = signText('round', '{ "b": 1, "a": 2 }');
    const opened = openDocument('round', spaced, coordinator.publicKey, anything);
    expect(opened.value).toEqual({ a: 2, b: 1 });
    expect(opened.hash).toBe(documentHash('round', '{ "b": 1, "a": 2 }'));
    expect(opened.hash).not.toBe(documentHash('round', '{"a":2,"b":1}'));
  });

  it('may hold members that a receiver does not know', () => {
    const signed = signDocument('task', { ...taskDocument(), later: { version: 2 } }, coordinator);
    expect(openDocument('task', signed, coordinator.publicKey, TaskDocumentSchema).value).not.toHaveProperty('later');
  });
});

describe('a document is refused', () => {
  const signed = signDocument('round', roundJson(), coordinator);

  it('before it is parsed, when its signature is wrong', () => {
    const poison = z.unknown().refine(() => expect.fail('parsed before it was verified'));
    for (const document of ['{', '{}', signed.document.replace('"round":2', '"round":3'), `${signed.document} `]) {
      federationError(() => openDocument('round', { document, signature: signed.signature }, coordinator.publicKey, poison), 'signature-invalid');
    }
    federationError(() => openDocument('round', signed, stranger.publicKey, poison), 'signature-invalid');
  });

  it('when any character of it is changed', () => {
    fc.assert(
      fc.property(fc.nat(signed.document.length - 1), fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }), (at, character) => {
        fc.pre(signed.document[at] !== character);
        const document = signed.document.slice(0, at) + character + signed.document.slice(at + 1);
        federationError(() => openDocument('round', { ...signed, document }, coordinator.publicKey, anything), 'signature-invalid');
      }),
      { numRuns: 40 },
    );
  });

  it.each(['', 'AAAA', '?'.repeat(88), 'A'.repeat(88), toBase64(new Uint8Array(64))])('when its signature is %j', (signature) => {
    federationError(() => openDocument('round', { ...signed, signature }, coordinator.publicKey, anything), 'signature-invalid');
  });

  it('when its signature is spelt with stray bits, so that a signature has one text', () => {
    const last = signed.signature.at(-3)!;
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
    const respelt = `${signed.signature.slice(0, -3)}${alphabet[alphabet.indexOf(last) + 1]!}==`;
    expect(Buffer.from(respelt, 'base64')).toEqual(Buffer.from(fromBase64(signed.signature)!));
    federationError(() => openDocument('round', { ...signed, signature: respelt }, coordinator.publicKey, anything), 'signature-invalid');
  });

  it('when a lone surrogate stands in for a U+FFFD that was signed: both have the same UTF-8 bytes', () => {
    const honest = signText('round', '{"a":"\ufffd"}');
    const swapped = { ...honest, document: '{"a":"\ud800"}' };
    expect(documentHash('round', swapped.document)).toBe(documentHash('round', honest.document));
    expect(openDocument('round', honest, coordinator.publicKey, anything).value).toEqual({ a: '\ufffd' });
    federationError(() => openDocument('round', swapped, coordinator.publicKey, anything), 'signature-invalid');
  });

  it('when it is signed and is not JSON, or not this document', () => {
    for (const document of ['', '{', 'undefined', '{"a":1}{}', "{'a':1}"]) {
      federationError(() => openDocument('round', signText('round', document), coordinator.publicKey, anything), 'message-malformed');
    }
    const error = federationError(() => openDocument('task', signText('task', '[]'), coordinator.publicKey, TaskDocumentSchema), 'message-malformed');
    expect(error.field).toBe('(whole message)');
  });

  it('when it is longer than its limit, already by the schema of the message', () => {
    const signature = 'A'.repeat(88);
    expect(SignedDocumentSchema.safeParse({ document: 'a'.repeat(12 * 1024 * 1024), signature }).success).toBe(true);
    expect(SignedDocumentSchema.safeParse({ document: 'a'.repeat(12 * 1024 * 1024 + 1), signature }).success).toBe(false);
  });
});

describe('the error of a malformed message', () => {
  it('names members, not values, and stays short', () => {
    const schema = z.strictObject({ a: z.int(), b: z.string() });
    const parsed = schema.safeParse({ a: 'secret value', b: 3, ['x'.repeat(100_000)]: 1 });
    const error = malformedMessage('event', parsed.error!);
    expect(error.code).toBe('message-malformed');
    expect(error.field).toBe('a');
    expect(error.message).toContain('b: ');
    expect(error.message).not.toContain('secret');
    expect(error.message.length).toBeLessThan(1000);
  });
});
