import { createPublicKey, verify } from 'node:crypto';
import fc from 'fast-check';
import nacl from 'tweetnacl';
import { describe, expect, it } from 'vitest';
import { generateIdentity, identityFromSeed, identitySeedBytes, signMessage, verifySignature } from '../../../shared/crypto/signature.ts';
import { concatBytes, fromHex, toHex, utf8 } from '../../../shared/types/bytes.ts';

const hex = (text: string) => fromHex(text)!;

/** RFC 8032 section 7.1. */
const vectors = [
  {
    name: 'TEST 1',
    seed: '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60',
    publicKey: 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
    message: '',
    signature: 'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
  },
  {
    name: 'TEST 2',
    seed: '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb',
    publicKey: '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c',
    message: '72',
    signature: '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
  },
  {
    name: 'TEST 3',
    seed: 'c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7',
    publicKey: 'fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025',
    message: 'af82',
    signature: '6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a',
  },
  {
    name: 'TEST SHA(abc)',
    seed: '833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42',
    publicKey: 'ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf',
    message: 'ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f',
    signature: 'dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704',
  },
];

const order = 2n ** 252n + 27742317777372353535851937790883648493n;
const p = 2n ** 255n - 19n;
const toInteger = (bytes: Uint8Array) => BigInt(`0x${toHex(Uint8Array.from(bytes).reverse())}`);
const littleEndian = (value: bigint) => hex(value.toString(16).padStart(64, '0')).reverse();

describe('Ed25519', () => {
  it.each(vectors)('gives the key and the signature of RFC 8032 $name', ({ seed, publicKey, message, signature }) => {
    const keys = identityFromSeed(hex(seed));
    expect(toHex(keys.publicKey)).toBe(publicKey);
    expect(toHex(signMessage(hex(message), keys))).toBe(signature);
    expect(verifySignature(hex(message), hex(signature), hex(publicKey))).toBe(true);
  });

  it('makes an identity from exactly one draw of the random source', () => {
    const draws: number[] = [];
    const keys = generateIdentity({
      bytes(length) {
        draws.push(length);
        return new Uint8Array(length).fill(3);
      },
    });
    expect(draws).toEqual([identitySeedBytes]);
    expect(keys).toEqual(identityFromSeed(new Uint8Array(32).fill(3)));
  });
});

describe('a signature is refused', () => {
  const keys = identityFromSeed(new Uint8Array(32).fill(1));
  const message = utf8('fdp/1 round\n{}');
  const signature = signMessage(message, keys);

  it.each([1n, 2n, 3n, 14n])('when S + %d L stands in for S, which tweetnacl alone would take for 1 L', (times) => {
    const malleated = toInteger(signature.subarray(32)) + times * order;
    expect(malleated < 2n ** 256n).toBe(true);
    const forged = concatBytes(signature.subarray(0, 32), littleEndian(malleated));
    if (times === 1n) expect(nacl.sign.detached.verify(message, forged, keys.publicKey)).toBe(true);
    expect(verifySignature(message, forged, keys.publicKey)).toBe(false);
  });

  it.each([order, order + 1n, 2n ** 253n - 1n, 2n ** 256n - 1n])('when its scalar is %d, not below the group order', (scalar) => {
    expect(verifySignature(message, concatBytes(signature.subarray(0, 32), littleEndian(scalar)), keys.publicKey)).toBe(false);
  });

  it('when any bit of it, of the message or of the key is flipped', () => {
    const flip = (bytes: Uint8Array, bit: number) => {
      const copy = Uint8Array.from(bytes);
      copy[bit >> 3]! ^= 1 << (bit & 7);
      return copy;
    };
    for (let bit = 0; bit < 512; bit += 3) expect(verifySignature(message, flip(signature, bit), keys.publicKey)).toBe(false);
    for (let bit = 0; bit < message.length * 8; bit += 5) expect(verifySignature(flip(message, bit), signature, keys.publicKey)).toBe(false);
    for (let bit = 0; bit < 256; bit += 5) expect(verifySignature(message, signature, flip(keys.publicKey, bit))).toBe(false);
  });

  it('without throwing, when lengths do not fit', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.uint8Array({ maxLength: 70 }), (anySignature, anyKey) => {
        expect(verifySignature(message, anySignature, anyKey)).toBe(false);
        expect(verifySignature(message, anySignature, keys.publicKey)).toBe(false);
        if (anyKey.length !== 32) expect(verifySignature(message, signature, anyKey)).toBe(false);
      }),
      { numRuns: 60 },
    );
  });

  it('when its key has small order: one forged signature would fit every message', () => {
    // Under the neutral element A, [S]B = R + h A holds for every message with S = 1 and R = B.
    const basePoint = hex('5866666666666666666666666666666666666666666666666666666666666666');
    const forged = concatBytes(basePoint, littleEndian(1n));
    const neutral = littleEndian(1n);
    expect(nacl.sign.detached.verify(utf8('anything'), forged, neutral)).toBe(true);
    expect(verifySignature(utf8('anything'), forged, neutral)).toBe(false);
  });

  it('for every encoding of the eight points of small order', () => {
    const order8 = toInteger(hex('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05'));
    const keysOfSmallOrder = [0n, 1n, p - 1n, p, p + 1n, order8, p - order8].flatMap((y) => [littleEndian(y), littleEndian(y + 2n ** 255n)]);
    const forged = concatBytes(hex('5866666666666666666666666666666666666666666666666666666666666666'), littleEndian(1n));
    let forgeable = 0;
    for (const key of keysOfSmallOrder) {
      // h A takes at most eight values, so the same signature fits some message soon.
      const attempts = Array.from({ length: 40 }, (_, i) => utf8(`attempt ${i}`));
      const fitting = attempts.find((attempt) => nacl.sign.detached.verify(attempt, forged, key));
      if (fitting !== undefined) forgeable++;
      expect(verifySignature(fitting ?? attempts[0]!, forged, key)).toBe(false);
    }
    expect(forgeable).toBeGreaterThanOrEqual(8);
  });
});

describe('signatures', () => {
  it('verify with OpenSSL too', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.uint8Array({ maxLength: 200 }), (seed, message) => {
        const keys = identityFromSeed(seed);
        const spki = createPublicKey({ key: Buffer.concat([hex('302a300506032b6570032100'), keys.publicKey]), format: 'der', type: 'spki' });
        expect(verify(null, message, spki, signMessage(message, keys))).toBe(true);
      }),
      { numRuns: 25 },
    );
  });
});
