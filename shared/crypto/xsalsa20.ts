/**
 * The XSalsa20 key stream (Bernstein, "Salsa20 specification" and "Extending the Salsa20 nonce") as 32-bit words, under the nonce 0: what tweetnacl's
 * `crypto_stream` gives, at several times its speed, because words never become bytes. Additions, rotations and XOR only: no table, no branch on a secret.
 */
import { hsalsa20, wordsOf } from './provider.ts';

/** Fills `output` with the first words of the stream of a 32-byte key; a stream longer than 2^32 blocks does not fit memory. */
export function xsalsa20Words(key: Uint8Array, output: Uint32Array): void {
  if (key.length !== 32) throw new RangeError(`"key" expected 32 bytes, got ${key.length}`);
  const k = wordsOf(hsalsa20(key));
  const block = new Int32Array(16);
  const length = output.length;
  for (let offset = 0, counter = 0; offset < length; offset += 16, counter++) {
    salsa20Block(k, counter, block);
    const count = Math.min(16, length - offset);
    for (let i = 0; i < count; i++) output[offset + i] = block[i]!;
  }
}

/** One block of Salsa20/20: key words at 1-4 and 11-14, "expand 32-byte k" on the diagonal, nonce (0) at 6-7, counter at 8-9. */
function salsa20Block(k: Uint32Array, counter: number, output: Int32Array): void {
  const j1 = k[0]! | 0, j2 = k[1]! | 0, j3 = k[2]! | 0, j4 = k[3]! | 0, j11 = k[4]! | 0, j12 = k[5]! | 0, j13 = k[6]! | 0, j14 = k[7]! | 0;
  const j0 = 0x61707865, j5 = 0x3320646e, j10 = 0x79622d32, j15 = 0x6b206574, j8 = counter | 0;
  let x0 = j0, x1 = j1, x2 = j2, x3 = j3, x4 = j4, x5 = j5, x6 = 0, x7 = 0, x8 = j8, x9 = 0, x10 = j10, x11 = j11, x12 = j12, x13 = j13, x14 = j14, x15 = j15;
  let u: number;
  for (let round = 0; round < 20; round += 2) {
    u = (x0 + x12) | 0; x4 ^= (u << 7) | (u >>> 25);
    u = (x4 + x0) | 0; x8 ^= (u << 9) | (u >>> 23);
    u = (x8 + x4) | 0; x12 ^= (u << 13) | (u >>> 19);
    u = (x12 + x8) | 0; x0 ^= (u << 18) | (u >>> 14);
    u = (x5 + x1) | 0; x9 ^= (u << 7) | (u >>> 25);
    u = (x9 + x5) | 0; x13 ^= (u << 9) | (u >>> 23);
    u = (x13 + x9) | 0; x1 ^= (u << 13) | (u >>> 19);
    u = (x1 + x13) | 0; x5 ^= (u << 18) | (u >>> 14);
    u = (x10 + x6) | 0; x14 ^= (u << 7) | (u >>> 25);
    u = (x14 + x10) | 0; x2 ^= (u << 9) | (u >>> 23);
    u = (x2 + x14) | 0; x6 ^= (u << 13) | (u >>> 19);
    u = (x6 + x2) | 0; x10 ^= (u << 18) | (u >>> 14);
    u = (x15 + x11) | 0; x3 ^= (u << 7) | (u >>> 25);
    u = (x3 + x15) | 0; x7 ^= (u << 9) | (u >>> 23);
    u = (x7 + x3) | 0; x11 ^= (u << 13) | (u >>> 19);
    u = (x11 + x7) | 0; x15 ^= (u << 18) | (u >>> 14);
    u = (x0 + x3) | 0; x1 ^= (u << 7) | (u >>> 25);
    u = (x1 + x0) | 0; x2 ^= (u << 9) | (u >>> 23);
    u = (x2 + x1) | 0; x3 ^= (u << 13) | (u >>> 19);
    u = (x3 + x2) | 0; x0 ^= (u << 18) | (u >>> 14);
    u = (x5 + x4) | 0; x6 ^= (u << 7) | (u >>> 25);
    u = (x6 + x5) | 0; x7 ^= (u << 9) | (u >>> 23);
    u = (x7 + x6) | 0; x4 ^= (u << 13) | (u >>> 19);
    u = (x4 + x7) | 0; x5 ^= (u << 18) | (u >>> 14);
    u = (x10 + x9) | 0; x11 ^= (u << 7) | (u >>> 25);
    u = (x11 + x10) | 0; x8 ^= (u << 9) | (u >>> 23);
    u = (x8 + x11) | 0; x9 ^= (u << 13) | (u >>> 19);
    u = (x9 + x8) | 0; x10 ^= (u << 18) | (u >>> 14);
    u = (x15 + x14) | 0; x12 ^= (u << 7) | (u >>> 25);
    u = (x12 + x15) | 0; x13 ^= (u << 9) | (u >>> 23);
    u = (x13 + x12) | 0; x14 ^= (u << 13) | (u >>> 19);
    u = (x14 + x13) | 0; x15 ^= (u << 18) | (u >>> 14);
  }
  output[0] = x0 + j0; output[1] = x1 + j1; output[2] = x2 + j2; output[3] = x3 + j3;
  output[4] = x4 + j4; output[5] = x5 + j5; output[6] = x6; output[7] = x7;
  output[8] = x8 + j8; output[9] = x9; output[10] = x10 + j10; output[11] = x11 + j11;
  output[12] = x12 + j12; output[13] = x13 + j13; output[14] = x14 + j14; output[15] = x15 + j15;
}
