/** What the platform's primitives give in the place of the portable ones: the same bytes, and the same refusals. */
import { afterEach, describe, expect, it } from 'vitest';
import { accelerate } from '../../../shared/crypto/accelerator.ts';
import { sha256 } from '../../../shared/crypto/digest.ts';
import { boxKeysFromSecret, openBox, sealBox } from '../../../shared/crypto/sealed-box.ts';
import { identityFromSeed, signMessage, verifySignature } from '../../../shared/crypto/signature.ts';
import { nodeCrypto } from '../../../shared/node/node-crypto.ts';
import { fromHex } from '../../../shared/types/bytes.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';

afterEach(() => accelerate(undefined));

/** The same calls without and with node:crypto. */
function both<T>(run: (random: InsecureSeededRandom) => T): [T, T] {
  accelerate(undefined);
  const portable = run(new InsecureSeededRandom(8));
  accelerate(nodeCrypto);
  return [portable, run(new InsecureSeededRandom(8))];
}

const thrown = (run: () => unknown) => {
  try {
    return run();
  } catch (error) {
    return error instanceof RangeError ? 'RangeError' : 'another error';
  }
};

const prime = 2n ** 255n - 19n;
/** Of the group of Ed25519's base point. */
const groupOrder = 2n ** 252n + 27742317777372353535851937790883648493n;
const littleEndian = (integer: bigint) => Uint8Array.from({ length: 32 }, (_, i) => Number((integer >> BigInt(8 * i)) & 255n));
const integerOf = (bytes: Uint8Array) => bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);

describe('accelerated primitives', () => {
  it('hash, sign and derive keys to the same bytes', () => {
    const [portable, native] = both((random) => {
      const identity = identityFromSeed(random.bytes(32));
      const message = random.bytes(1000);
      return { identity, hash: sha256(message, message), signature: signMessage(message, identity), box: boxKeysFromSecret(random.bytes(32)) };
    });
    expect(native).toEqual(portable);
  });

  it('seal the same boxes, and open what the other sealed', () => {
    const [portable, native] = both((random) => {
      const [one, other] = [boxKeysFromSecret(random.bytes(32)), boxKeysFromSecret(random.bytes(32))];
      const [message, nonce] = [random.bytes(500), random.bytes(24)];
      const box = sealBox(message, nonce, other.publicKey, one.secretKey);
      const damaged = Uint8Array.from(box, (byte, i) => (i === 30 ? byte ^ 1 : byte));
      return { box, opened: openBox(box, nonce, one.publicKey, other.secretKey), message, damaged: openBox(damaged, nonce, one.publicKey, other.secretKey), short: openBox(box, nonce, one.publicKey.subarray(1), other.secretKey) };
    });
    expect(native).toEqual(portable);
    expect(native.opened).toEqual(native.message);
    expect([native.damaged, native.short]).toEqual([undefined, undefined]);
  });

  it('refuse what RFC 8032 and 7748 let differ between implementations: S + L, encodings of y and R at or above p, secret keys of another length', () => {
    const [portable, native] = both((random) => {
      const identity = identityFromSeed(random.bytes(32));
      const message = random.bytes(50);
      const signature = signMessage(message, identity);
      const malleated = [1n, 2n, 7n].map((times) => Uint8Array.of(...signature.subarray(0, 32), ...littleEndian(integerOf(signature.subarray(32)) + times * groupOrder)));
      // Zero points with S = 0, and others: a verifier that multiplies by the cofactor takes some of these.
      const odd = [0n, 1n, 3n, 18n].flatMap((y) => [prime + y, prime + y + 2n ** 255n].map(littleEndian)).flatMap((key) => [key, littleEndian(1n), littleEndian(prime + 1n)].map((point) => ({ key, signature: Uint8Array.of(...point, ...new Uint8Array(32)) })));
      return {
        malleated: malleated.map((forged) => verifySignature(message, forged, identity.publicKey)),
        odd: odd.map((forged) => verifySignature(message, forged.signature, forged.key)),
        shortKeys: [32, 63, 65].map((length) => thrown(() => signMessage(message, { ...identity, secretKey: new Uint8Array(length) })) instanceof Uint8Array),
        points: [2n, 9n, prime - 2n, prime + 9n, 2n ** 255n + 9n].map((u) => sealBox(message, new Uint8Array(24), littleEndian(u), random.bytes(32))),
      };
    });
    expect(native).toEqual(portable);
    expect(native.malleated).toEqual([false, false, false]);
    expect(native.odd).not.toContain(true);
    expect(native.shortKeys).toEqual([false, false, false]);
  });

  it('refuse keys of low order and signatures that do not fit', () => {
    const lowOrder = [new Uint8Array(32), Uint8Array.of(1, ...new Uint8Array(31)), fromHex('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800')!];
    const [portable, native] = both((random) => {
      const identity = identityFromSeed(random.bytes(32));
      const message = random.bytes(50);
      const signature = signMessage(message, identity);
      const malleated = signature.slice();
      malleated[63]! |= 0x20;
      return {
        seals: lowOrder.map((key) => thrown(() => sealBox(message, new Uint8Array(24), key, random.bytes(32)))),
        opens: lowOrder.map((key) => openBox(message, new Uint8Array(24), key, random.bytes(32))),
        verdicts: [verifySignature(message, signature, identity.publicKey), verifySignature(random.bytes(50), signature, identity.publicKey), verifySignature(message, malleated, identity.publicKey), verifySignature(message, signature, new Uint8Array(32)), verifySignature(message, signature.subarray(1), identity.publicKey)],
      };
    });
    expect(native).toEqual(portable);
    expect(native).toEqual({ seals: ['RangeError', 'RangeError', 'RangeError'], opens: [undefined, undefined, undefined], verdicts: [true, false, false, false, false] });
  });
});
