/**
 * The discrete Fourier transform of a power-of-two length, radix 2, in place, on separate real and imaginary parts.
 *
 * Rounding: with twiddle factors that are each computed directly, the error of every output is below
 * `4 * 2^-53 * log2(n)` times the sum of the magnitudes of the inputs (Higham 2002, Thm 24.2, which bounds the 2-norm; compared with
 * the direct sum in the tests).
 */

/** Largest length that `pld.ts` asks for; 16 bytes an entry and buffer. */
export const MAX_FFT_LENGTH = 2 ** 21;

/** Relative error of one transform of length `n`, in units of the 1-norm of its input. */
export function fftError(n: number): number {
  return 4 * 2 ** -53 * Math.log2(Math.max(2, n));
}

/** Replaces `(real, imaginary)` by its transform `X_j = sum_k x_k e^(-2 pi i jk/n)`; `inverse`: with `+`, and divided by n. */
export function fft(real: Float64Array, imaginary: Float64Array, inverse = false): void {
  const n = real.length;
  if (n !== imaginary.length || n < 1 || (n & (n - 1)) !== 0 || n > MAX_FFT_LENGTH) throw new RangeError(`expected two arrays of one power-of-two length, got ${n} and ${imaginary.length}`);
  reverseBits(real, imaginary);
  const { cosines, sines } = twiddles(n);
  const sign = inverse ? 1 : -1;
  for (let half = 1; half < n; half *= 2) {
    const stride = n / (2 * half);
    for (let start = 0; start < n; start += 2 * half) {
      for (let k = 0, twiddle = 0; k < half; k++, twiddle += stride) {
        const c = cosines[twiddle]!;
        const s = sign * sines[twiddle]!;
        const even = start + k;
        const odd = even + half;
        const r = real[odd]! * c - imaginary[odd]! * s;
        const i = real[odd]! * s + imaginary[odd]! * c;
        real[odd] = real[even]! - r;
        imaginary[odd] = imaginary[even]! - i;
        real[even]! += r;
        imaginary[even]! += i;
      }
    }
  }
  if (!inverse) return;
  for (let k = 0; k < n; k++) {
    real[k]! /= n;
    imaginary[k]! /= n;
  }
}

interface Twiddles {
  readonly n: number;
  readonly cosines: Float64Array;
  readonly sines: Float64Array;
}

/** Of the last length only: a composition transforms many arrays of one length. A function of n, so nothing can go stale. */
let lastTwiddles: Twiddles = { n: 0, cosines: new Float64Array(0), sines: new Float64Array(0) };

function twiddles(n: number): Twiddles {
  if (lastTwiddles.n === n) return lastTwiddles;
  const cosines = new Float64Array(n / 2);
  const sines = new Float64Array(n / 2);
  for (let k = 0; k < n / 2; k++) {
    const angle = (2 * Math.PI * k) / n;
    cosines[k] = Math.cos(angle);
    sines[k] = Math.sin(angle);
  }
  lastTwiddles = { n, cosines, sines };
  return lastTwiddles;
}

function reverseBits(real: Float64Array, imaginary: Float64Array): void {
  const n = real.length;
  for (let k = 1, reversed = 0; k < n; k++) {
    let bit = n >> 1;
    for (; reversed & bit; bit >>= 1) reversed ^= bit;
    reversed ^= bit;
    if (k >= reversed) continue;
    [real[k], real[reversed]] = [real[reversed]!, real[k]!];
    [imaginary[k], imaginary[reversed]] = [imaginary[reversed]!, imaginary[k]!];
  }
}
