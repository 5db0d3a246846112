import fc from 'fast-check';
import nacl from 'tweetnacl';
import { describe, expect, it } from 'vitest';
import { boxKeysFromSecret, boxNonceBytes, boxOverheadBytes, generateBoxKeys, openBox, sealBox } from '../../../shared/crypto/sealed-box.ts';
import { fromHex, toHex, utf8 } from '../../../shared/types/bytes.ts';

const hex = (text: string) => fromHex(text)!;

/** RFC 7748 section 6.1; the same keys as in NaCl's tests/box.c. */
const alice = { secret: hex('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a'), public: hex('8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a') };
const bob = { secret: hex('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb'), public: hex('de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f') };
/** NaCl tests/box.c. */
const nonce = hex('69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37');
const message = hex(
  'be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705',
);
const sealed = hex(
  'f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5',
);

describe('a box', () => {
  it('has the keys of RFC 7748 section 6.1', () => {
    expect(boxKeysFromSecret(alice.secret).publicKey).toEqual(alice.public);
    expect(boxKeysFromSecret(bob.secret).publicKey).toEqual(bob.public);
    expect(toHex(nacl.scalarMult(alice.secret, bob.public))).toBe('4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742');
  });

  it('is that of NaCl, and opens', () => {
    expect(toHex(sealBox(message, nonce, bob.public, alice.secret))).toBe(toHex(sealed));
    expect(openBox(sealed, nonce, alice.public, bob.secret)).toEqual(message);
    expect(sealed.length).toBe(message.length + boxOverheadBytes);
  });

  it('comes back for any message, the empty one included', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (text) => {
        expect(openBox(sealBox(text, nonce, bob.public, alice.secret), nonce, alice.public, bob.secret)).toEqual(text);
      }),
      { numRuns: 30 },
    );
  });

  it('draws its keys once from the random source', () => {
    const lengths: number[] = [];
    const keys = generateBoxKeys({ bytes: (length) => (lengths.push(length), Uint8Array.from(alice.secret)) });
    expect(lengths).toEqual([32]);
    expect(keys.publicKey).toEqual(alice.public);
  });
});

describe('a box does not open', () => {
  it('with any byte of it changed', () => {
    for (let i = 0; i < sealed.length; i++) {
      const tampered = Uint8Array.from(sealed);
      tampered[i]! ^= 1 << (i % 8);
      expect(openBox(tampered, nonce, alice.public, bob.secret)).toBeUndefined();
    }
  });

  it('with another nonce, sender or receiver', () => {
    const other = boxKeysFromSecret(new Uint8Array(32).fill(5));
    const otherNonce = Uint8Array.from(nonce);
    otherNonce[23]! ^= 1;
    expect(openBox(sealed, otherNonce, alice.public, bob.secret)).toBeUndefined();
    expect(openBox(sealed, nonce, other.publicKey, bob.secret)).toBeUndefined();
    expect(openBox(sealed, nonce, alice.public, other.secretKey)).toBeUndefined();
  });

  it('when it is cut short or longer, or nonce or key have another length; nothing throws', () => {
    for (let length = 0; length < sealed.length; length++) expect(openBox(sealed.subarray(0, length), nonce, alice.public, bob.secret)).toBeUndefined();
    expect(openBox(Uint8Array.of(...sealed, 0), nonce, alice.public, bob.secret)).toBeUndefined();
    for (const length of [0, boxNonceBytes - 1, boxNonceBytes + 1]) expect(openBox(sealed, new Uint8Array(length), alice.public, bob.secret)).toBeUndefined();
    for (const length of [0, 31, 33]) expect(openBox(sealed, nonce, new Uint8Array(length).fill(9), bob.secret)).toBeUndefined();
  });
});

describe('a public key of low order is refused, since anyone knows the shared secret', () => {
  const p = 2n ** 255n - 19n;
  const littleEndian = (value: bigint) => hex(value.toString(16).padStart(64, '0')).reverse();
  // https://cr.yp.to/ecdh.html#validate, with and without the top bit, which X25519 ignores (RFC 7748 section 5).
  const order8 = [325606250916557431795983626356110631294008115727848805560023387167927233504n, 39382357235489614581723060781553021112529911719440698176882885853963445705823n];
  const points = [0n, 1n, ...order8, p - 1n, p, p + 1n].flatMap((u) => [u, u + 2n ** 255n]);

  it.each(points.map((point) => toHex(littleEndian(point))))('%s', (text) => {
    const point = hex(text);
    expect(nacl.scalarMult(bob.secret, point)).toEqual(new Uint8Array(32));
    expect(() => sealBox(message, nonce, point, alice.secret)).toThrow(RangeError);
    // A box that anyone can make: to the all-zero shared secret.
    const forged = nacl.box.after(utf8('forged'), nonce, nacl.box.before(point, bob.secret));
    expect(nacl.box.open(forged, nonce, point, bob.secret)).toEqual(utf8('forged'));
    expect(openBox(forged, nonce, point, bob.secret)).toBeUndefined();
  });
});
