import { createHash, createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestBytes, digestOf, formatDigest, hmacSha256, sha256 } from '../../../shared/crypto/digest.ts';
import { fromHex, toHex, utf8 } from '../../../shared/types/bytes.ts';
import type { Digest } from '../../../shared/types/ids.ts';

describe('SHA-256', () => {
  it.each([
    ['', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
    ['abc', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
    ['abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq', '248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1'],
  ])('gives the FIPS 180 example of "%s"', (text, hex) => {
    expect(toHex(sha256(utf8(text)))).toBe(hex);
  });

  it('gives the FIPS 180 example of a million times "a"', () => {
    expect(toHex(sha256(new Uint8Array(1_000_000).fill(0x61)))).toBe('cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0');
  });

  it('of parts is that of their concatenation, and agrees with Node', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 4 }), (parts) => {
        expect(toHex(sha256(...parts))).toBe(createHash('sha256').update(Buffer.concat(parts)).digest('hex'));
      }),
    );
  });
});

describe('HMAC-SHA-256', () => {
  /** RFC 4231 sections 4.2 to 4.8, without the truncated case 5. */
  it.each([
    ['case 1', '0b'.repeat(20), '4869205468657265', 'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7'],
    ['case 2', '4a656665', '7768617420646f2079612077616e7420666f72206e6f7468696e673f', '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843'],
    ['case 3', 'aa'.repeat(20), 'dd'.repeat(50), '773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe'],
    ['case 4', '0102030405060708090a0b0c0d0e0f10111213141516171819', 'cd'.repeat(50), '82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b'],
    ['case 6', 'aa'.repeat(131), toHex(utf8('Test Using Larger Than Block-Size Key - Hash Key First')), '60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54'],
    ['case 7', 'aa'.repeat(131), toHex(utf8('This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.')), '9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2'],
  ])('gives the answer of RFC 4231 %s', (_name, key, message, mac) => {
    expect(toHex(hmacSha256(fromHex(key)!, fromHex(message)!))).toBe(mac);
  });

  it('agrees with Node for any key length, the empty key included', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 140 }), fc.uint8Array({ maxLength: 200 }), (key, message) => {
        expect(toHex(hmacSha256(key, message))).toBe(createHmac('sha256', key).update(message).digest('hex'));
      }),
    );
  });
});

describe('a written digest', () => {
  it('comes back as its 32 bytes', () => {
    const digest = digestOf(utf8('a'), utf8('bc'));
    expect(digest).toBe('sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    expect(formatDigest(digestBytes(digest))).toBe(digest);
  });

  it.each(['', 'sha256:', 'sha256:00', `sha256:${'0'.repeat(66)}`, `sha256:${'G'.repeat(64)}`, `sha256:${'A'.repeat(64)}`])('is refused when it is %j', (text) => {
    expect(() => digestBytes(text as Digest)).toThrow(TypeError);
  });
});
