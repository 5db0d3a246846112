/** Signed documents (docs/protocol.md section 5): verified over the exact bytes, and only then parsed. */
import { z } from 'zod';
import { formatDigest, sha256 } from '../crypto/digest.ts';
import { signMessage, verifySignature, type IdentityKeys } from '../crypto/signature.ts';
import { FederationError } from '../errors.ts';
import { concatBytes, fromBase64, isWellFormed, toBase64, utf8 } from '../types/bytes.ts';
import type { Digest } from '../types/ids.ts';
import { canonicalJson, type Json } from './canonical-json.ts';
import { maxDocumentLength } from './limits.ts';

export type DocumentKind = 'task' | 'round' | 'finished';

export const SignedDocumentSchema = z.strictObject({
  document: z.string().max(maxDocumentLength),
  signature: z.string().length(88),
});
export type SignedDocument = z.infer<typeof SignedDocumentSchema>;

function signedBytes(kind: DocumentKind, document: string): Uint8Array {
  return concatBytes(utf8(`fdp/1 ${kind}\n`), utf8(document));
}

/** SHA-256 over kind and exact text: the task digest, or a round's transcript hash. */
export function documentHash(kind: DocumentKind, document: string): Digest {
  return formatDigest(sha256(signedBytes(kind, document)));
}

export function signDocument(kind: DocumentKind, value: Json, keys: IdentityKeys): SignedDocument {
  const document = canonicalJson(value);
  return { document, signature: toBase64(signMessage(signedBytes(kind, document), keys)) };
}

/** Verifies, then parses; throws `signature-invalid` or `message-malformed`. */
export function openDocument<T>(kind: DocumentKind, signed: SignedDocument, publicKey: Uint8Array, schema: z.ZodType<T>): { readonly value: T; readonly hash: Digest } {
  const signature = fromBase64(signed.signature);
  // Texts with lone surrogates have no bytes of their own: one could stand in for the text that was signed.
  if (signature === undefined || !isWellFormed(signed.document) || !verifySignature(signedBytes(kind, signed.document), signature, publicKey)) {
    throw new FederationError('signature-invalid', `The ${kind} document is not signed by the coordinator whose key is pinned.`, { field: 'signature', next: 'Do not go on; ask the coordinator\'s operator.' });
  }
  let json: unknown;
  try {
    json = JSON.parse(signed.document);
  } catch (cause) {
    throw new FederationError('message-malformed', `The ${kind} document is not JSON.`, { field: 'document', cause });
  }
  const parsed = schema.safeParse(json);
  if (!parsed.success) throw malformedMessage(`${kind} document`, parsed.error);
  return { value: parsed.data, hash: documentHash(kind, signed.document) };
}

/** One `message-malformed` error that names the first wrong members, without repeating what was sent. */
export function malformedMessage(what: string, error: z.ZodError): FederationError {
  const issues = error.issues.slice(0, 5).map((issue) => ({ path: issue.path.map(String).join('.').slice(0, 200) || '(whole message)', message: issue.message.slice(0, 200) }));
  const first = issues[0]!;
  return new FederationError('message-malformed', `The ${what} is malformed: ${issues.map((issue) => `${issue.path}: ${issue.message}`).join('; ')}.`, {
    field: first.path,
    expected: first.message,
    next: 'See docs/protocol.md for the members of each message.',
  });
}
