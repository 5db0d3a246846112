/**
 * Public keys that give every partner the same, known secret, or a signature that fits everything: points whose order divides 8. An encoding is
 * listed with and without the redundant top bit, and in its forms not below p = 2^255 - 19.
 */
import { fromHex, toHex } from '../types/bytes.ts';

/** Ed25519: y coordinates, little-endian, without the sign bit: 0, 1, p - 1, the two of order 8, and 0 and 1 again as p and p + 1. */
const edwards: ReadonlySet<string> = new Set([
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
]);

/** X25519: u coordinates, little-endian: 0, 1, the two of order 8, p - 1, and 0 and 1 again as p and p + 1 (cr.yp.to/ecdh.html, "validate"). */
const montgomery: ReadonlySet<string> = new Set([
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
]);

/** The first six bytes: enough to tell almost every key apart from those in a list, without writing it as text. */
export function keyPrefix(key: Uint8Array): number {
  return key[0]! + key[1]! * 2 ** 8 + key[2]! * 2 ** 16 + key[3]! * 2 ** 24 + key[4]! * 2 ** 32 + key[5]! * 2 ** 40;
}
const prefixes: ReadonlySet<number> = new Set([...edwards, ...montgomery].map((text) => keyPrefix(fromHex(text)!)));

function isListed(list: ReadonlySet<string>, key: Uint8Array): boolean {
  if (!prefixes.has(keyPrefix(key))) return false;
  const coordinate = Uint8Array.from(key);
  coordinate[31]! &= 0x7f;
  return list.has(toHex(coordinate));
}

/** An Ed25519 public key of small order. */
export function isSmallOrderPoint(publicKey: Uint8Array): boolean {
  return isListed(edwards, publicKey);
}

/** An X25519 public key of low order. */
export function isLowOrderKey(publicKey: Uint8Array): boolean {
  return isListed(montgomery, publicKey);
}
