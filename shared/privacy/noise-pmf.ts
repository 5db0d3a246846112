/**
 * Probabilities of the integer noise laws, for tests of samplers and for checking reference values. Float64; the samplers
 * themselves (`sampling/`) compute with integers and do not use these.
 */
import { logGamma } from './accountants/log-space.ts';

/** `P[X = k] ~ e^(-k^2 / (2 sigma^2))`. */
export function discreteGaussianPmf(sigma: number, k: number): number {
  return weight(sigma, k) / discreteGaussianTotal(sigma, 0);
}

export function discreteGaussianVariance(sigma: number): number {
  return discreteGaussianTotal(sigma, 2) / discreteGaussianTotal(sigma, 0);
}

function weight(sigma: number, k: number): number {
  return Math.exp(-(k * k) / (2 * sigma * sigma));
}

/** `sum_j |j|^power e^(-j^2 / (2 sigma^2))`, smallest terms first. */
function discreteGaussianTotal(sigma: number, power: 0 | 2): number {
  let sum = 0;
  for (let j = Math.ceil(40 * sigma) + 1; j >= 1; j--) sum += 2 * j ** power * weight(sigma, j);
  return power === 0 ? sum + 1 : sum;
}

/** The difference of two Poisson variables of mean `variance / 2`: `e^-mu I_k(mu)`, `mu = variance`, by its series (DLMF 10.25.2). */
export function skellamPmf(variance: number, k: number): number {
  const rate = variance / 2;
  const n = Math.abs(k);
  let term = Math.exp(-variance + n * Math.log(rate) - logGamma(n + 1));
  let sum = term;
  for (let j = 1; term > sum * 2 ** -60 || j < rate; j++) {
    term *= (rate * rate) / (j * (j + n));
    sum += term;
  }
  return sum;
}

/** `P[X = k] = tanh(a/2) e^(-a |k|)`: the discrete Laplace with scale `1/a`. */
export function discreteLaplacePmf(a: number, k: number): number {
  return Math.tanh(a / 2) * Math.exp(-a * Math.abs(k));
}

export function discreteLaplaceVariance(a: number): number {
  return (2 * Math.exp(-a)) / Math.expm1(-a) ** 2;
}
