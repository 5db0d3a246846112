/**
 * How much longer a vector can get when its coordinates are rounded to integers, as the distributed mechanisms need it for their
 * sensitivity. This project's own grid rounds toward zero (`clipping.ts`), which adds nothing; these bounds are for the published
 * mechanisms, which round at random.
 */

export interface RoundedNorms {
  readonly l2: number;
  readonly l1: number;
}

/**
 * Conditional stochastic rounding: rounded again until the norm is within this bound, which happens with probability at least
 * `1 - beta` each time: `min{c + sqrt d, sqrt(c^2 + d/4 + sqrt(2 ln(1/beta)) (c + sqrt d / 2))}`, `c` the norm before, in grid steps
 * (Kairouz, Liu & Steinke 2021, conditional randomized rounding). `beta = 0`: the first bound only. An integer vector has L1 norm at
 * most `min(sqrt d, l2) * l2`.
 */
export function conditionalRoundingNorms(l2Scaled: number, dimension: number, beta: number): RoundedNorms {
  const root = Math.sqrt(dimension);
  const always = l2Scaled + root;
  const usual = beta > 0 ? Math.sqrt(l2Scaled ** 2 + dimension / 4 + Math.sqrt(-2 * Math.log(beta)) * (l2Scaled + root / 2)) : Infinity;
  const l2 = Math.min(always, usual);
  return { l2, l1: l2 * Math.min(root, l2) };
}
