/**
 * Finding wrong shares at once: the shares of one byte of a secret are a Reed-Solomon code word, so up to half of the shares beyond the threshold may be wrong. Gao's decoder ("A new
 * algorithm for decoding Reed-Solomon codes", 2003). With tables, since a coordinator that decodes may know the secret.
 */
import { divideElements, multiplyElements } from './shamir.ts';

/** A polynomial over GF(2^8), constant first, without zeros at the end; empty for 0. */
type Polynomial = readonly number[];

function trimmed(coefficients: number[]): Polynomial {
  while (coefficients.length > 0 && coefficients.at(-1) === 0) coefficients.pop();
  return coefficients;
}

/** `a + factor x^shift b`, in place: in characteristic 2 also the difference. */
function addScaled(a: number[], b: Polynomial, factor: number, shift: number): void {
  for (let i = 0; i < b.length; i++) a[i + shift] = (a[i + shift] ?? 0) ^ multiplyElements(b[i]!, factor);
}

function divide(dividend: Polynomial, divisor: Polynomial): { readonly quotient: Polynomial; readonly remainder: Polynomial } {
  const rest = [...dividend];
  const quotient = Array<number>(Math.max(0, dividend.length - divisor.length + 1)).fill(0);
  for (let shift = quotient.length - 1; shift >= 0; shift--) {
    const factor = divideElements(rest[shift + divisor.length - 1]!, divisor.at(-1)!);
    quotient[shift] = factor;
    if (factor !== 0) addScaled(rest, divisor, factor, shift);
  }
  return { quotient: trimmed(quotient), remainder: trimmed(rest) };
}

function valueAt(polynomial: Polynomial, position: number): number {
  let value = 0;
  for (let i = polynomial.length - 1; i >= 0; i--) value = multiplyElements(value, position) ^ polynomial[i]!;
  return value;
}

/** A secret, and the places (indices into the shares) of wrong shares. */
export interface DecodedShares {
  readonly secret: Uint8Array;
  readonly wrong: readonly number[];
}

/**
 * The one secret whose polynomials of degree below `threshold` go through all shares but at most half of those beyond the threshold; `undefined` when there is none.
 * Takes time quadratic in the number of shares. Positions must be distinct and in [1, 255].
 */
export function decodeWithErrors(shares: readonly Uint8Array[], positions: readonly number[], threshold: number): DecodedShares | undefined {
  const count = positions.length;
  if (count < threshold) return undefined;
  // The product of all x + position, and for each position the polynomial that is 1 there and 0 at the others.
  let product: Polynomial = [1];
  for (const position of positions) product = Array.from({ length: product.length + 1 }, (_, i) => (product[i - 1] ?? 0) ^ multiplyElements(product[i] ?? 0, position));
  const basis = positions.map((position) => {
    const { quotient } = divide(product, [position, 1]);
    const scale = valueAt(quotient, position);
    return quotient.map((coefficient) => divideElements(coefficient, scale));
  });
  const secret = new Uint8Array(shares[0]?.length ?? 0);
  const wrong = new Set<number>();
  for (let byte = 0; byte < secret.length; byte++) {
    const through = Array<number>(count).fill(0);
    basis.forEach((polynomial, i) => addScaled(through, polynomial, shares[i]![byte]!, 0));
    let [before, remainder]: [Polynomial, Polynomial] = [product, trimmed(through)];
    let [factorBefore, factor]: [Polynomial, Polynomial] = [[], [1]];
    while (2 * (remainder.length - 1) >= count + threshold) {
      const step = divide(before, remainder);
      const next = [...factorBefore];
      step.quotient.forEach((coefficient, shift) => addScaled(next, factor, coefficient, shift));
      [before, remainder] = [remainder, step.remainder];
      [factorBefore, factor] = [factor, trimmed(next)];
    }
    const { quotient, remainder: left } = divide(remainder, factor);
    if (left.length > 0 || quotient.length > threshold) return undefined;
    secret[byte] = quotient[0] ?? 0;
    positions.forEach((position, i) => {
      if (valueAt(quotient, position) !== shares[i]![byte]) wrong.add(i);
    });
  }
  return { secret, wrong: [...wrong].sort((a, b) => a - b) };
}
