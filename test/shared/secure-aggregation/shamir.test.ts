/** Shamir's sharing over GF(2^8): against a readable reference, exhaustively where the field is small enough. */
import { describe, expect, it } from 'vitest';
import { recoverSecret } from '../../../shared/secure-aggregation/recovery.ts';
import { combineShares, lagrangeWeights, multiply, splitSecret } from '../../../shared/secure-aggregation/shamir.ts';
import { equalBytes } from '../../../shared/types/bytes.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';

/** Schoolbook product of polynomials modulo x^8 + x^4 + x^3 + x + 1. */
function slowProduct(a: number, b: number): number {
  let product = 0;
  for (let i = 0; i < 8; i++) if ((b >> i) & 1) product ^= a << i;
  for (let i = 14; i >= 8; i--) if ((product >> i) & 1) product ^= 0x11b << (i - 8);
  return product;
}

const fixed = (bytes: readonly number[]) => ({ bytes: (length: number) => Uint8Array.from({ length }, (_, i) => bytes[i % bytes.length]!) });

describe('GF(2^8)', () => {
  it('multiplies as the schoolbook does, all 65,536 products', () => {
    let wrong = 0;
    for (let a = 0; a < 256; a++) for (let b = 0; b < 256; b++) if (multiply(a, b) !== slowProduct(a, b)) wrong++;
    expect(wrong).toBe(0);
    expect(multiply(0x57, 0x83)).toBe(0xc1); // FIPS 197 section 4.2
  });
});

describe('shares', () => {
  it.each([[1, 1], [2, 3], [3, 3], [19, 30], [61, 100], [85, 123], [255, 255]])('any %d of %d give the secret, fewer give something else', (threshold, count) => {
    const random = new InsecureSeededRandom(threshold * 1000 + count);
    const secret = random.bytes(64);
    const shares = splitSecret(secret, threshold, count, random);
    expect(shares).toHaveLength(count);
    for (let trial = 0; trial < 4; trial++) {
      const order = Array.from({ length: count }, (_, i) => i).sort((a, b) => (((a + 1) * 7919 * (trial + 1)) % 257) - (((b + 1) * 7919 * (trial + 1)) % 257));
      const chosen = order.slice(0, threshold);
      const combine = (indices: readonly number[]) => combineShares(indices.map((i) => shares[i]!), lagrangeWeights(indices.map((i) => i + 1)));
      expect(combine(chosen)).toEqual(secret);
      if (threshold > 1) expect(combine(chosen.slice(1))).not.toEqual(secret);
    }
  });

  it('evaluates the polynomial that the random bytes say, highest coefficient first', () => {
    // f(x) = 9 x^2 + 4 x + 200 in every byte.
    const shares = splitSecret(new Uint8Array(4).fill(200), 3, 5, { bytes: () => Uint8Array.of(9, 9, 9, 9, 4, 4, 4, 4) });
    shares.forEach((share, i) => expect([...share]).toEqual(Array<number>(4).fill(slowProduct(9, slowProduct(i + 1, i + 1)) ^ slowProduct(4, i + 1) ^ 200)));
  });

  it('one share of two reveals nothing: for every secret, every share value comes from exactly one coefficient', () => {
    for (const position of [1, 2, 255]) {
      for (const secret of [0, 1, 137, 255]) {
        const seen = new Set<number>();
        for (let coefficient = 0; coefficient < 256; coefficient++) seen.add(splitSecret(new Uint8Array(4).fill(secret), 2, Math.max(2, position), fixed([coefficient]))[position - 1]![0]!);
        expect(seen.size).toBe(256);
      }
    }
  });

  it('two shares of three reveal nothing: for every secret, all 65,536 pairs of values are equally likely', () => {
    for (const secret of [0, 91]) {
      const seen = new Uint8Array(65_536);
      for (let high = 0; high < 256; high++) {
        for (let low = 0; low < 256; low += 4) {
          // Four polynomials at a time: the bytes of a word are independent.
          const shares = splitSecret(new Uint8Array(4).fill(secret), 3, 3, { bytes: () => Uint8Array.of(high, high, high, high, low, low + 1, low + 2, low + 3) });
          for (let byte = 0; byte < 4; byte++) seen[shares[0]![byte]! * 256 + shares[2]![byte]!]!++;
        }
      }
      expect(seen.every((count) => count === 1)).toBe(true);
    }
  });

  it.each([[0, 3], [4, 3], [2, 256], [2, 0], [1.5, 3]])('refuses threshold %d of %d', (threshold, count) => {
    expect(() => splitSecret(new Uint8Array(4), threshold, count, fixed([1]))).toThrow(RangeError);
  });

  it('refuses repeated, zero and too large positions', () => {
    for (const positions of [[1, 1], [0, 1], [256]]) expect(() => lagrangeWeights(positions)).toThrow(RangeError);
    expect(() => combineShares([new Uint8Array(4)], [])).toThrow(RangeError);
    expect(() => splitSecret(new Uint8Array(5), 1, 1, fixed([1]))).toThrow(RangeError);
  });
});

describe('recovery from wrong shares', () => {
  const random = new InsecureSeededRandom(5);
  const secret = random.bytes(32);
  const shares = splitSecret(secret, 6, 10, random).map((share, i) => ({ holder: 100 + i, position: i + 1, share }));
  const spoil = (...wrong: readonly number[]) => shares.map((entry, i) => (wrong.includes(i) ? { ...entry, share: entry.share.map((byte) => byte ^ 1) } : entry));
  const recover = (entries: typeof shares, suspects = new Set<number>()) => ({ secret: recoverSecret(entries, 6, (candidate) => equalBytes(candidate, secret), suspects, new Map()), suspects });

  it.each([[[0]], [[5]], [[0, 3]], [[4, 5]], [[2, 9]]])('detects wrong shares %j, finds the secret without them and names their holders', (wrong) => {
    const result = recover(spoil(...wrong));
    expect(result.secret).toEqual(secret);
    expect([...result.suspects].sort()).toEqual(wrong.filter((i) => i < 10).map((i) => 100 + i).sort());
  });

  it.each([[30, 19, 5], [100, 61, 19], [255, 150, 52]])('finds as many wrong shares as half of those to spare: %d shares, threshold %d, %d wrong', (count, threshold, wrong) => {
    const many = splitSecret(secret, threshold, count, random).map((share, i) => ({ holder: i, position: i + 1, share: i % 2 === 0 && i < 2 * wrong ? random.bytes(32) : share }));
    const suspects = new Set<number>();
    expect(recoverSecret(many, threshold, (candidate) => equalBytes(candidate, secret), suspects, new Map())).toEqual(secret);
    expect([...suspects].sort((a, b) => a - b)).toEqual(Array.from({ length: wrong }, (_, i) => 2 * i));
  });

  it('one wrong share with one to spare, which no decoder finds without knowing the secret', () => {
    expect(recover(spoil(3).slice(0, 7))).toMatchObject({ secret, suspects: new Set([103]) });
    expect(recover(spoil(0, 1).slice(0, 8))).toMatchObject({ secret, suspects: new Set([100, 101]) });
  });

  it('an owner that dealt a wrong share makes its honest holder a suspect: nobody may be punished for being one', () => {
    const dealt = splitSecret(secret, 6, 10, random).map((share, i) => ({ holder: 100 + i, position: i + 1, share: i === 4 ? random.bytes(32) : share }));
    expect(recover(dealt)).toMatchObject({ secret, suspects: new Set([104]) });
  });

  it('finds many wrong shares when their holders were caught before', () => {
    expect(recover(spoil(0, 1, 2, 3)).secret).toBeUndefined();
    expect(recover(spoil(0, 1, 2, 3), new Set([100, 101, 102, 103])).secret).toEqual(secret);
  });

  it('gives up, never a wrong secret, when too few shares are right', () => {
    expect(recover(spoil(0, 1).slice(0, 7)).secret).toBeUndefined();
  });
});
