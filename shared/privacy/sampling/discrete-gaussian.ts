/**
 * The discrete Gaussian: `P[k] ~ exp(-k^2 / (2 sigma^2))` on the integers, sampled EXACTLY from uniform bits (Canonne, Kamath & Steinke 2020,
 * Algorithm 3). Integer arithmetic only, so no delta is charged for sampling.
 *
 * Not constant time: how long a sample takes depends on its value. Do not expose timings per coordinate.
 */
import type { RandomSource } from '../../ports/random-source.ts';
import { sampleDiscreteLaplaces } from './discrete-laplace.ts';
import { UniformBits } from './uniform-bits.ts';

/** A sigma of `numerator / denominator`. */
export interface RationalSigma {
  readonly numerator: number;
  readonly denominator: number;
}

/** Largest sigma: the Laplace proposals of a larger one could leave 32 bits (80 scales). */
export const MAX_SIGMA = 2 ** 24;
/** Largest denominator. */
const MAX_DENOMINATOR = 2 ** 6;

/** Independent samples. `sigma`: an integer in [1, 2^24), or a fraction below 2^24 with a denominator of at most 64. */
export function sampleDiscreteGaussians(count: number, sigma: number | RationalSigma, random: RandomSource): Int32Array {
  const { numerator, denominator } = typeof sigma === 'number' ? { numerator: sigma, denominator: 1 } : sigma;
  if (!Number.isInteger(numerator) || numerator < 1 || numerator >= MAX_SIGMA) throw new RangeError(`"sigma" expected a numerator that is an integer in [1, 2^24), got ${numerator}`);
  if (!Number.isInteger(denominator) || denominator < 1 || denominator > MAX_DENOMINATOR) throw new RangeError(`"sigma" expected a denominator that is an integer in [1, ${MAX_DENOMINATOR}], got ${denominator}`);
  const scale = Math.ceil(numerator / denominator);
  const acceptance = acceptanceOf(numerator, denominator, scale);
  const bits = new UniformBits(random);
  const samples = new Int32Array(count);
  for (let filled = 0; filled < count; ) {
    // About three quarters of the proposals are accepted; those left over at the end are thrown away unseen.
    for (const proposal of sampleDiscreteLaplaces(Math.ceil((count - filled) * 1.5) + 16, scale, random)) {
      if (filled < count && isAccepted(Math.abs(proposal), acceptance, bits)) samples[filled++] = proposal;
    }
  }
  return samples;
}

/** `(|y| - sigma^2 / t)^2 / (2 sigma^2) = (|y| slope - offset)^2 / (2 divisor^2)`, in integers without a common factor. */
interface Acceptance {
  readonly slope: number;
  readonly offset: number;
  readonly divisor: number;
}

function acceptanceOf(a: number, b: number, t: number): Acceptance {
  // sigma = a / b: (|y| t b^2 - a^2)^2 / (2 (a b t)^2). All three are below 2^53 here.
  const [slope, offset, divisor] = [t * b * b, a * a, a * b * t];
  const common = greatestDivisor(greatestDivisor(slope, offset), divisor);
  const reduced = { slope: slope / common, offset: offset / common, divisor: divisor / common };
  if (reduced.divisor >= 2 ** 32 || 80 * t * reduced.slope > Number.MAX_SAFE_INTEGER) throw new RangeError(`"sigma" expected a simpler fraction than ${a}/${b}: use an integer`);
  return reduced;
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}

/** True with probability exp(-(distance / divisor)^2 / 2). With distance = q divisor + r: exp(-q^2/2) exp(-q r/divisor) exp(-(r/divisor)^2/2). */
function isAccepted(magnitude: number, { slope, offset, divisor }: Acceptance, bits: UniformBits): boolean {
  const distance = Math.abs(magnitude * slope - offset);
  const q = Math.floor(distance / divisor);
  const r = distance - q * divisor;
  for (let i = 0; i < q * q; i++) if (!bits.bernoulliExp(1, 2)) return false;
  for (let i = 0; i < q; i++) if (!bits.bernoulliExp(r, divisor)) return false;
  return bernoulliExpHalfSquare(r, divisor, bits);
}

/** True with probability exp(-(r / divisor)^2 / 2): Canonne, Kamath & Steinke 2020, Alg. 1, with gamma = (r/divisor) (r/divisor) (1/2) as three coins. */
function bernoulliExpHalfSquare(r: number, divisor: number, bits: UniformBits): boolean {
  let k = 1;
  while (bits.below(divisor) < r && bits.below(divisor) < r && bits.bit() && bits.below(k) === 0) k++;
  return k % 2 === 1;
}
