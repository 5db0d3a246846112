/** Fingerprints, join URLs and the signed transcripts of `hello` and `join` (docs/protocol.md sections 2 and 6). */
import { digestBytes, hmacSha256, sha256 } from '../crypto/digest.ts';
import { FederationError } from '../errors.ts';
import { concatBytes, toBase32, utf8 } from '../types/bytes.ts';
import type { ClientId, Digest } from '../types/ids.ts';

/** 26 base32 characters (130 bits) of a hash of the key. */
export function fingerprint(publicKey: Uint8Array): string {
  return toBase32(sha256(utf8('fdp/1 identity\n'), publicKey)).slice(0, 26);
}

export function clientIdOf(publicKey: Uint8Array): ClientId {
  return fingerprint(publicKey) as ClientId;
}

export interface SessionNonces {
  readonly coordinatorKey: Uint8Array;
  readonly clientKey: Uint8Array;
  readonly clientNonce: Uint8Array;
  readonly serverNonce: Uint8Array;
}

/** What the coordinator signs in the acknowledgement of `hello`. */
export function helloTranscript(nonces: SessionNonces, taskDigest: Digest): Uint8Array {
  return concatBytes(utf8('fdp/1 hello\n'), nonces.clientKey, nonces.clientNonce, nonces.serverNonce, digestBytes(taskDigest));
}

/** What the client signs in `join`. */
export function joinTranscript(nonces: SessionNonces, taskDigest: Digest): Uint8Array {
  const { coordinatorKey, clientKey, clientNonce, serverNonce } = nonces;
  return concatBytes(utf8('fdp/1 join\n'), coordinatorKey, clientKey, clientNonce, serverNonce, digestBytes(taskDigest));
}

/** Proof that the client knows the join token, bound to this one connection. */
export function tokenProof(token: string, nonces: SessionNonces): Uint8Array {
  const { coordinatorKey, clientKey, clientNonce, serverNonce } = nonces;
  return hmacSha256(utf8(token), concatBytes(utf8('fdp/1 token\n'), coordinatorKey, clientKey, clientNonce, serverNonce));
}

/** Where a coordinator is and which key it must have. */
export interface JoinTarget {
  /** E.g. `http://127.0.0.1:7070`, without a trailing slash. */
  readonly origin: string;
  readonly coordinatorFingerprint: string;
}

export function formatJoinUrl(target: JoinTarget): string {
  return `${target.origin}/join/${target.coordinatorFingerprint}`;
}

/** Parses a join URL; throws `usage-invalid`. */
export function parseJoinUrl(text: string): JoinTarget {
  const expected = 'http(s)://HOST:PORT/join/FINGERPRINT, as `fedstill serve` prints it';
  const fail = (why: string) =>
    new FederationError('usage-invalid', `The join URL ${why}.`, { field: 'URL', expected, got: text, next: 'Copy the whole URL that the coordinator printed.' });
  if (!URL.canParse(text)) throw fail('is not a URL');
  const url = new URL(text);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw fail('must start with http:// or https://');
  const match = /^\/join\/([a-z2-7]{26})\/?$/.exec(url.pathname);
  if (!match) throw fail('has no coordinator fingerprint (26 characters of a-z and 2-7 after /join/)');
  return { origin: url.origin, coordinatorFingerprint: match[1]! };
}
