/** Both crypto providers: published vectors, and the same bytes for the same input. */
import nacl from 'tweetnacl';
import { describe, expect, it } from 'vitest';
import { hsalsa20, openWithSharedPoint, portableCrypto, sealWithSharedPoint, wordsOf } from '../../../shared/crypto/provider.ts';
import { identityFromSeed } from '../../../shared/crypto/signature.ts';
import { isLowOrderKey, isSmallOrderPoint } from '../../../shared/crypto/small-order.ts';
import { nodeCrypto } from '../../../shared/node/node-crypto.ts';
import { fromHex, toHex, utf8 } from '../../../shared/types/bytes.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';

const hex = (text: string) => fromHex(text)!;
const random = new InsecureSeededRandom(31);
const providers = [portableCrypto, nodeCrypto].map((crypto) => ({ name: crypto.name, crypto }));

/** Low-order u coordinates: cr.yp.to/ecdh.html. */
const lowOrder = ['00', '01', 'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800', '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157', `ec${'ff'.repeat(30)}7f`, `ed${'ff'.repeat(30)}7f`, `ee${'ff'.repeat(30)}7f`].map((text) => hex(text.padEnd(64, '0')));

/** Salsa20/20 as its specification says it (Bernstein 2005), in a few slow lines: block `counter` under the nonce 0. */
function referenceBlock(key: Uint8Array, counter: number): Uint32Array {
  const k = wordsOf(Uint8Array.from(key));
  const c = wordsOf(utf8('expand 32-byte k'));
  const input = Uint32Array.of(c[0]!, k[0]!, k[1]!, k[2]!, k[3]!, c[1]!, 0, 0, counter, 0, c[2]!, k[4]!, k[5]!, k[6]!, k[7]!, c[3]!);
  let x = input.slice();
  const quarter = (a: number, b: number, d: number, e: number) => {
    const mix = (to: number, one: number, other: number, by: number) => {
      const sum = (x[one]! + x[other]!) >>> 0;
      x[to] = x[to]! ^ ((sum << by) | (sum >>> (32 - by)));
    };
    mix(b, a, e, 7);
    mix(d, b, a, 9);
    mix(e, d, b, 13);
    mix(a, e, d, 18);
  };
  const transpose = () => (x = x.map((_, i) => x[(i % 4) * 4 + Math.floor(i / 4)]!));
  for (let round = 0; round < 20; round++) {
    // A column round, then the transposed matrix: the next one is a row round.
    for (let column = 0; column < 4; column++) quarter(5 * column, ((column + 1) % 4) * 4 + column, ((column + 2) % 4) * 4 + column, ((column + 3) % 4) * 4 + column);
    transpose();
  }
  return x.map((word, i) => word + input[i]!);
}

describe.each(providers)('$name', ({ crypto }) => {
  it('gives the X25519 of RFC 7748 sections 5.2 and 6.1', () => {
    expect(toHex(crypto.x25519(hex('a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4'), hex('e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c'))!)).toBe('c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552');
    const alice = hex('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a');
    const bob = hex('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb');
    expect(toHex(crypto.x25519PublicKey(alice))).toBe('8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a');
    expect(toHex(crypto.x25519PublicKey(bob))).toBe('de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f');
    expect(toHex(crypto.x25519(alice, crypto.x25519PublicKey(bob))!)).toBe('4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742');
  });

  it('gives the HSalsa20 of the NaCl paper, and Salsa20 as its specification says', () => {
    expect(toHex(hsalsa20(hex('4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742')))).toBe('1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389');
    const key = random.bytes(32);
    const subkey = hsalsa20(key);
    expect([...crypto.keyStream(key, 40)]).toEqual([...referenceBlock(subkey, 0), ...referenceBlock(subkey, 1), ...referenceBlock(subkey, 2).subarray(0, 8)]);
  });

  it('gives the HKDF-SHA-512 of the inputs of RFC 5869 A.1', () => {
    const output = crypto.hkdfSha512(new Uint8Array(22).fill(0x0b), hex('000102030405060708090a0b0c'), hex('f0f1f2f3f4f5f6f7f8f9'));
    expect(toHex(output)).toBe('832390086cda71fb47625bb5ceb168e4c8e26a1a16ed34d9fc7fe92c14815793');
  });

  it('signs as RFC 8032 section 7.1, test 3', () => {
    const keys = identityFromSeed(hex('c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7'));
    const signature = crypto.sign(hex('af82'), keys);
    expect(toHex(signature)).toBe('6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a');
    expect(crypto.verify(hex('af82'), signature, keys.publicKey)).toBe(true);
    expect(crypto.verify(hex('af83'), signature, keys.publicKey)).toBe(false);
  });

  it('refuses malleated signatures, keys of small order and lengths that do not fit', () => {
    const keys = identityFromSeed(random.bytes(32));
    const message = utf8('once');
    const signature = crypto.sign(message, keys);
    const order = hex('edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010');
    const malleated = signature.slice();
    let carry = 0;
    for (let i = 0; i < 32; i++) {
      const sum = malleated[32 + i]! + order[i]! + carry;
      malleated[32 + i] = sum & 255;
      carry = sum >> 8;
    }
    expect(nacl.sign.detached.verify(message, malleated, keys.publicKey)).toBe(true);
    expect(crypto.verify(message, malleated, keys.publicKey)).toBe(false);
    const identity = hex('01'.padEnd(64, '0'));
    const forged = new Uint8Array(64);
    forged[0] = 1;
    expect(isSmallOrderPoint(identity)).toBe(true);
    expect(crypto.verify(message, forged, identity)).toBe(false);
    expect(crypto.verify(message, signature.subarray(1), keys.publicKey)).toBe(false);
    expect(crypto.verify(message, signature, keys.publicKey.subarray(1))).toBe(false);
  });

  it.each(lowOrder.map((key) => ({ name: toHex(key), key })))('finds no shared point with the low-order key $name', ({ key }) => {
    expect(isLowOrderKey(key)).toBe(true);
    const withTopBit = key.slice();
    withTopBit[31]! |= 0x80;
    expect(isLowOrderKey(withTopBit)).toBe(true);
    expect(crypto.x25519(new Uint8Array(32).fill(9), key)).toBeUndefined();
    expect(crypto.x25519(new Uint8Array(32).fill(9), withTopBit)).toBeUndefined();
  });

  it('refuses keys of another length', () => {
    expect(() => crypto.keyStream(new Uint8Array(31), 1)).toThrow(RangeError);
  });
});

describe('the two providers', () => {
  it('agree byte for byte', () => {
    for (let i = 0; i < 10; i++) {
      const [a, b] = [random.bytes(32), random.bytes(32)];
      const publicKey = nodeCrypto.x25519PublicKey(b);
      expect(publicKey).toEqual(portableCrypto.x25519PublicKey(b));
      expect(nodeCrypto.x25519(a, publicKey)).toEqual(portableCrypto.x25519(a, publicKey));
      const info = random.bytes(i * 7);
      expect(nodeCrypto.hkdfSha512(a, b, info)).toEqual(portableCrypto.hkdfSha512(a, b, info));
      expect(nodeCrypto.sha256(info)).toEqual(portableCrypto.sha256(info));
      const words = 1 + i * 37;
      expect(nodeCrypto.keyStream(a, words)).toEqual(portableCrypto.keyStream(a, words));
      const keys = identityFromSeed(a);
      expect(nodeCrypto.sign(info, keys)).toEqual(portableCrypto.sign(info, keys));
    }
    expect(nodeCrypto.keyStream(random.bytes(32), 0)).toHaveLength(0);
    const key = random.bytes(32);
    expect(nodeCrypto.keyStream(key, 100_003)).toEqual(portableCrypto.keyStream(key, 100_003));
  });

  it('seal boxes that nacl.box opens', () => {
    const [a, b, nonce] = [nacl.box.keyPair.fromSecretKey(random.bytes(32)), nacl.box.keyPair.fromSecretKey(random.bytes(32)), random.bytes(24)];
    const point = nodeCrypto.x25519(a.secretKey, b.publicKey)!;
    const box = sealWithSharedPoint(utf8('share'), nonce, point);
    expect(nacl.box.open(box, nonce, a.publicKey, b.secretKey)).toEqual(utf8('share'));
    expect(openWithSharedPoint(nacl.box(utf8('share'), nonce, a.publicKey, b.secretKey), nonce, point)).toEqual(utf8('share'));
    box[20]! ^= 1;
    expect(openWithSharedPoint(box, nonce, point)).toBeUndefined();
  });
});
