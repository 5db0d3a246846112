/**
 * Local votes: each client randomizes one of k values, and the collector estimates how often each was meant. Probabilities and
 * variances of the three mechanisms, for planning and for checking reference values.
 *
 * Variances are per client and for a value that nobody has (`f = 0`), the usual comparison; the estimate of a frequency from n
 * clients has `1/n` of it.
 */

export interface ReportLaw {
  /** Probability that the report speaks for the true value. */
  readonly forTrue: number;
  /** Probability that it speaks for one given other value. */
  readonly forOther: number;
}

/** k-ary randomized response (Kairouz, Bonawitz & Ramage 2016). */
export function randomizedResponseLaw(epsilon: number, categories: number): ReportLaw {
  const share = Math.exp(-epsilon);
  const forTrue = 1 / (1 + (categories - 1) * share);
  return { forTrue, forOther: share * forTrue };
}

/** `(e^eps + k - 2) / (e^eps - 1)^2` (Wang, Blocki, Li & Jha 2017). */
export function randomizedResponseVariance(epsilon: number, categories: number): number {
  return (Math.exp(epsilon) + categories - 2) / Math.expm1(epsilon) ** 2;
}

/** Optimized unary encoding: `4 e^eps / (e^eps - 1)^2` (ibid.), for any number of values. */
export function unaryEncodingVariance(epsilon: number): number {
  return (4 * Math.exp(epsilon)) / Math.expm1(epsilon) ** 2;
}

/** The set size with the smallest variance: `k / (e^eps + 1)`, rounded (Ye & Barg 2018). */
export function bestSubsetSize(epsilon: number, categories: number): number {
  return Math.min(categories - 1, Math.max(1, Math.round(categories / (Math.exp(epsilon) + 1))));
}

export function subsetSelectionLaw(epsilon: number, categories: number, subsetSize: number): ReportLaw {
  const [k, w] = [categories, subsetSize];
  const forTrue = w / (w + (k - w) * Math.exp(-epsilon));
  return { forTrue, forOther: (forTrue * (w - 1) + (1 - forTrue) * w) / (k - 1) };
}

/** `q (1 - q) / (p - q)^2`, for any report that speaks for a value with probability p when true and q when not. */
export function reportVariance({ forTrue, forOther }: ReportLaw): number {
  return (forOther * (1 - forOther)) / (forTrue - forOther) ** 2;
}
