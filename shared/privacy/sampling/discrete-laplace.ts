/**
 * The discrete Laplace: `P[k] = (e^(1/b) - 1) / (e^(1/b) + 1) * exp(-|k| / b)` on the integers, `b` an integer, sampled
 * EXACTLY from uniform bits (Canonne, Kamath & Steinke, "The Discrete Gaussian for Differential Privacy", 2020, Alg. 2 with
 * s = 1, t = b). Integer arithmetic only.
 *
 * Not constant time: how long a sample takes depends on its value. Do not expose timings per coordinate.
 */
import type { RandomSource } from '../../ports/random-source.ts';
import { UniformBits } from './uniform-bits.ts';

/** Independent samples. Beyond +-2^31 (more than 80 scales, see `release.ts`) they wrap modulo 2^32. */
export function sampleDiscreteLaplaces(count: number, scaleGrid: number, random: RandomSource): Int32Array {
  if (!Number.isInteger(scaleGrid) || scaleGrid < 1 || scaleGrid >= 2 ** 31) {
    throw new RangeError(`"scaleGrid" expected an integer in [1, 2^31), got ${scaleGrid}`);
  }
  const bits = new UniformBits(random);
  const samples = new Int32Array(count);
  for (let i = 0; i < count; i++) samples[i] = sampleOne(scaleGrid, bits);
  return samples;
}

function sampleOne(scale: number, bits: UniformBits): number {
  for (;;) {
    // magnitude = scale * quotient + remainder has probability proportional to exp(-magnitude / scale).
    const remainder = bits.below(scale);
    if (!bits.bernoulliExp(remainder, scale)) continue;
    let quotient = 0;
    while (bits.bernoulliExp(1, 1)) quotient++;
    const magnitude = scale * quotient + remainder;
    const isNegative = bits.bit();
    // Zero has two signs and must be counted once.
    if (isNegative && magnitude === 0) continue;
    return isNegative ? -magnitude : magnitude;
  }
}
