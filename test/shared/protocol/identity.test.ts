import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../shared/crypto/digest.ts';
import { clientIdOf, fingerprint, formatJoinUrl, helloTranscript, joinTranscript, parseJoinUrl, tokenProof, type SessionNonces } from '../../../shared/protocol/identity.ts';
import { toHex, utf8 } from '../../../shared/types/bytes.ts';
import { client, coordinator, federationError, stranger } from './fixtures.ts';

const pinned = fingerprint(coordinator.publicKey);
const nonces: SessionNonces = {
  coordinatorKey: coordinator.publicKey,
  clientKey: client.publicKey,
  clientNonce: new Uint8Array(32).fill(10),
  serverNonce: new Uint8Array(32).fill(11),
};
const task = digestOf(utf8('task'));

describe('a fingerprint', () => {
  it('is 26 characters of base32, one per key, and is the client id', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.nat(255), (key, bit) => {
        const other = Uint8Array.from(key);
        other[bit >> 3]! ^= 1 << (bit & 7);
        expect(fingerprint(key)).toMatch(/^[a-z2-7]{26}$/);
        expect(fingerprint(other)).not.toBe(fingerprint(key));
        expect(clientIdOf(key)).toBe(fingerprint(key));
      }),
    );
  });
});

describe('a join URL', () => {
  it.each([
    ['http://127.0.0.1:7070', 'http://127.0.0.1:7070'],
    ['https://fed.example.org', 'https://fed.example.org'],
    ['http://[::1]:80', 'http://[::1]'],
    ['HTTPS://Fed.Example.org:8443', 'https://fed.example.org:8443'],
  ])('of %s comes back', (origin, normal) => {
    const url = formatJoinUrl({ origin, coordinatorFingerprint: pinned });
    expect(parseJoinUrl(url)).toEqual({ origin: normal, coordinatorFingerprint: pinned });
    expect(parseJoinUrl(`${url}/`)).toEqual(parseJoinUrl(url));
  });

  it.each([
    '',
    'localhost:7070',
    '127.0.0.1:7070/join/abc',
    `ftp://host/join/${pinned}`,
    `javascript:alert(1)//join/${pinned}`,
    'http://host:7070',
    'http://host:7070/join/',
    `http://host:7070/join/${pinned.slice(1)}`,
    `http://host:7070/join/${pinned}a`,
    `http://host:7070/join/${pinned.toUpperCase()}`,
    `http://host:7070/join/${pinned.slice(0, 25)}1`,
    `http://host:7070/other/join/${pinned}`,
    `http://host:7070/join/${pinned}/more`,
    `http://host:99999/join/${pinned}`,
  ])('is refused with what to do about it when it is %j', (text) => {
    const error = federationError(() => parseJoinUrl(text), 'usage-invalid');
    expect(error.exitStatus).toBe(2);
    expect(error.next).toContain('Copy the whole URL');
  });
});

describe('what is signed in a session', () => {
  it('says which message it is, so that no signature serves for another', () => {
    const texts = [helloTranscript(nonces, task), joinTranscript(nonces, task)].map((bytes) => Buffer.from(bytes).toString('latin1'));
    expect(texts[0]).toMatch(/^fdp\/1 hello\n/);
    expect(texts[1]).toMatch(/^fdp\/1 join\n/);
    expect(helloTranscript(nonces, task).length).toBe(12 + 4 * 32);
    expect(joinTranscript(nonces, task).length).toBe(11 + 5 * 32);
  });

  it.each(['coordinatorKey', 'clientKey', 'clientNonce', 'serverNonce'] as const)('changes with %s: nothing can be replayed into another connection', (member) => {
    const other = { ...nonces, [member]: stranger.publicKey };
    expect(toHex(joinTranscript(other, task))).not.toBe(toHex(joinTranscript(nonces, task)));
    expect(toHex(tokenProof('token', other))).not.toBe(toHex(tokenProof('token', nonces)));
    // The coordinator's key is what the hello is verified with.
    if (member !== 'coordinatorKey') expect(toHex(helloTranscript(other, task))).not.toBe(toHex(helloTranscript(nonces, task)));
  });

  it('changes with the task', () => {
    const other = digestOf(utf8('another task'));
    expect(toHex(joinTranscript(nonces, other))).not.toBe(toHex(joinTranscript(nonces, task)));
    expect(toHex(helloTranscript(nonces, other))).not.toBe(toHex(helloTranscript(nonces, task)));
  });

  it('proves the token, and does not hold it', () => {
    const proof = tokenProof('open sesame', nonces);
    expect(proof.length).toBe(32);
    expect(toHex(tokenProof('open sesame ', nonces))).not.toBe(toHex(proof));
    expect(Buffer.from(proof).toString('latin1')).not.toContain('open sesame');
  });
});
