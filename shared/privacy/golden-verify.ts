/**
 * Checks a file of reference values (the format of test/vectors/dp-golden.json) case by case against this project's formulas.
 *
 * Every number that a case expects must be compared or be explained: a group, a mechanism or a quantity that nobody here knows is
 * a failure, never skipped. A comparison says how it was made, because some references are upper bounds and not values:
 * docs/privacy-accounting.md lists the formula behind each group.
 */
import { z } from 'zod';
import { FederationError } from '../errors.ts';
import type { Delta } from '../types/units.ts';
import type { PrivacyAccountant } from './accountants/accountant.ts';
import { calibrateParameter } from './accountants/calibration.ts';
import { GaussianAccountant } from './accountants/gaussian-accountant.ts';
import { calibrateNoiseMultiplier, gaussianEpsilon } from './accountants/numerics.ts';
import * as pate from './accountants/pate.ts';
import { PldAccountant } from './accountants/pld.ts';
import { PureAccountant } from './accountants/pure-accountant.ts';
import { discreteGaussianSumDistance, laplaceRdp } from './accountants/rdp-curves.ts';
import { DEFAULT_ORDERS, RdpAccountant, rdpToEpsilon, rdpToEpsilonMironov } from './accountants/rdp.ts';
import { poissonSampledGaussianRdp } from './accountants/subsampled-gaussian.ts';
import { ZcdpAccountant, largestRho, zcdpToEpsilon, zcdpToEpsilonBunSteinke } from './accountants/zcdp.ts';
import { membershipAuditLowerBound, oneRunAuditLowerBound } from './audit.ts';
import type { AccountedRelation, DpEvent } from './dp-event.ts';
import { bestSubsetSize, randomizedResponseLaw, randomizedResponseVariance, reportVariance, subsetSelectionLaw, unaryEncodingVariance } from './local-votes.ts';
import { discreteGaussianPmf, discreteGaussianVariance, discreteLaplacePmf, discreteLaplaceVariance, skellamPmf } from './noise-pmf.ts';
import { conditionalRoundingNorms } from './rounding.ts';
import { meanNoise } from './soft-label-release.ts';

const number = z.union([z.number(), z.enum(['inf', '-inf']).transform((text) => (text === 'inf' ? Infinity : -Infinity))]);
const GoldenCaseSchema = z.object({
  id: z.string().min(1),
  group: z.string().min(1),
  mechanism: z.string().min(1),
  params: z.record(z.string(), z.unknown()),
  expected: z.record(z.string(), z.union([number, z.array(number)])),
  rel_tol: z.number().min(0).lt(1).optional(),
});
export type GoldenCase = z.infer<typeof GoldenCaseSchema>;

/** For cases that state no tolerance. */
export const DEFAULT_TOLERANCE = 1e-6;
/** Cases of a file that are read; more is a mistake. */
const MAX_CASES = 100_000;

const GoldenFileSchema = z.object({ cases: z.array(GoldenCaseSchema).min(1).max(MAX_CASES) });

export type ComparisonRule =
  /** `|got - expected| <= tolerance * |expected|`. */
  | 'relative'
  | 'absolute'
  /** The reference is an upper bound: ours may be lower, up to `tolerance` (relative) higher. */
  | 'notAbove'
  /** The reference is a lower bound. */
  | 'notBelow'
  /** The reference is a valid bound at most `tolerance` (absolute) above the true value, which ours must be. */
  | 'atMostAbove'
  | 'equal';

export interface Comparison {
  /** The name in the case's `expected`. */
  readonly quantity: string;
  readonly rule: ComparisonRule;
  readonly expected: number;
  readonly got: number;
  readonly tolerance: number;
  readonly passed: boolean;
}

export interface CaseResult {
  readonly id: string;
  readonly group: string;
  readonly passed: boolean;
  readonly comparisons: readonly Comparison[];
  /** Why the case failed without a number to show: an unknown group, an unusable parameter, a quantity that was not checked. */
  readonly problem?: string;
}

export interface GroupResult {
  readonly group: string;
  readonly passed: number;
  readonly failed: number;
}

export interface VerifyReport {
  readonly passed: number;
  readonly failed: number;
  readonly groups: readonly GroupResult[];
  readonly cases: readonly CaseResult[];
}

/** Fills `checks` with the comparisons of one case. Throws when the case can't be computed. */
export type GroupChecker = (item: GoldenCase, checks: Checks) => void;

/** Reads a file's content. Throws `data-invalid` with the place at fault. */
export function parseGoldenFile(content: unknown): readonly GoldenCase[] {
  const parsed = GoldenFileSchema.safeParse(content);
  if (parsed.success) return parsed.data.cases;
  const issue = parsed.error.issues[0];
  throw new FederationError('data-invalid', 'the file is not a list of reference cases', {
    field: issue?.path.join('.') || 'cases',
    expected: issue?.message ?? 'cases with id, group, mechanism, params, expected',
    next: 'Give a file in the format of test/vectors/dp-golden.json.',
  });
}

/** Checks all cases. `moreGroups`: checkers for groups outside this folder. */
export function verifyGolden(cases: readonly GoldenCase[], moreGroups: Readonly<Record<string, GroupChecker>> = {}): VerifyReport {
  const results = cases.map((item) => verifyCase(item, moreGroups));
  const names = [...new Set(results.map((result) => result.group))];
  const groups = names.map((group) => {
    const own = results.filter((result) => result.group === group);
    const passed = own.filter((result) => result.passed).length;
    return { group, passed, failed: own.length - passed };
  });
  const passed = results.filter((result) => result.passed).length;
  return { passed, failed: results.length - passed, groups, cases: results };
}

export function verifyCase(item: GoldenCase, moreGroups: Readonly<Record<string, GroupChecker>> = {}): CaseResult {
  const all: Readonly<Record<string, GroupChecker>> = { ...groupCheckers, ...moreGroups };
  const checker = Object.hasOwn(all, item.group) ? all[item.group] : undefined;
  const checks = new Checks(item);
  let problem: string | undefined;
  if (checker === undefined) problem = `unknown group ${item.group}`;
  else {
    try {
      checker(item, checks);
      const unchecked = checks.unchecked();
      if (unchecked.length > 0) problem = `not checked: ${unchecked.join(', ')}`;
      else if (checks.comparisons.length === 0) problem = 'nothing to compare';
    } catch (error) {
      problem = error instanceof Error ? error.message : String(error);
    }
  }
  const passed = problem === undefined && checks.comparisons.every((comparison) => comparison.passed);
  return { id: item.id, group: item.group, passed, comparisons: checks.comparisons, ...(problem === undefined ? {} : { problem }) };
}

/** Collects the comparisons of one case, and knows what was left out. */
export class Checks {
  readonly comparisons: Comparison[] = [];
  readonly #item: GoldenCase;
  readonly #done = new Set<string>();

  constructor(item: GoldenCase) {
    this.#item = item;
  }

  get tolerance(): number {
    return this.#item.rel_tol ?? DEFAULT_TOLERANCE;
  }

  unchecked(): readonly string[] {
    return Object.keys(this.#item.expected).filter((quantity) => !this.#done.has(quantity));
  }

  /** Computes and compares, if the case expects this quantity. */
  close(quantity: string, got: () => number, tolerance = this.tolerance): void {
    this.#compare(quantity, 'relative', got, tolerance, (value, expected) => value === expected || Math.abs(value - expected) <= tolerance * Math.abs(expected));
  }

  near(quantity: string, got: () => number, tolerance: number): void {
    this.#compare(quantity, 'absolute', got, tolerance, (value, expected) => Math.abs(value - expected) <= tolerance);
  }

  notAbove(quantity: string, got: () => number, tolerance = this.tolerance): void {
    this.#compare(quantity, 'notAbove', got, tolerance, (value, expected) => value <= expected * (1 + tolerance));
  }

  notBelow(quantity: string, got: () => number): void {
    this.#compare(quantity, 'notBelow', got, 0, (value, expected) => value >= expected);
  }

  atMostAbove(quantity: string, got: () => number, tolerance: number): void {
    this.#compare(quantity, 'atMostAbove', got, tolerance, (value, expected) => value <= expected * (1 + this.tolerance) && expected - value <= tolerance + this.tolerance * expected);
  }

  equal(quantity: string, got: () => number): void {
    this.#compare(quantity, 'equal', got, 0, (value, expected) => value === expected);
  }

  /** One comparison for each entry of an expected list. */
  closeList(quantity: string, got: (index: number) => number): void {
    const expected = this.#item.expected[quantity];
    if (expected === undefined) return;
    this.#done.add(quantity);
    if (!Array.isArray(expected)) throw new Error(`${quantity} expected a list`);
    for (const [index, value] of expected.entries()) {
      const own = got(index);
      this.comparisons.push({ quantity: `${quantity}[${index}]`, rule: 'relative', expected: value, got: own, tolerance: this.tolerance, passed: Math.abs(own - value) <= this.tolerance * Math.abs(value) });
    }
  }

  /** Not a reference for us; the reason stands in the caller. */
  leaveOut(quantity: string): void {
    this.#done.add(quantity);
  }

  #compare(quantity: string, rule: ComparisonRule, got: () => number, tolerance: number, isPassed: (got: number, expected: number) => boolean): void {
    const expected = this.#item.expected[quantity];
    if (expected === undefined) return;
    this.#done.add(quantity);
    if (Array.isArray(expected)) throw new Error(`${quantity} expected a number`);
    const value = got();
    this.comparisons.push({ quantity, rule, expected, got: value, tolerance, passed: isPassed(value, expected) });
  }
}

/** A number among the parameters of a case. */
export function numberParameter(item: GoldenCase, name: string): number {
  const value = item.params[name];
  if (typeof value !== 'number' || !Number.isFinite(value)) throw new Error(`params.${name} expected a number, got ${JSON.stringify(value)}`);
  return value;
}

function textParameter(item: GoldenCase, name: string): string {
  const value = item.params[name];
  if (typeof value !== 'string') throw new Error(`params.${name} expected a text, got ${JSON.stringify(value)}`);
  return value;
}

function numbersParameter(item: GoldenCase, name: string): readonly number[] {
  const parsed = z.array(z.number()).min(1).safeParse(item.params[name]);
  if (!parsed.success) throw new Error(`params.${name} expected a list of numbers`);
  return parsed.data;
}

function votesParameter(item: GoldenCase): ReadonlyArray<readonly number[]> {
  const parsed = z.array(z.array(z.number()).min(2)).min(1).safeParse(item.params['votes']);
  if (!parsed.success) throw new Error('params.votes expected a list of vote counts');
  return parsed.data;
}

/** Orders of Opacus: 1.1 to 10.9 in tenths, then 12 to 63. */
const OPACUS_ORDERS: readonly number[] = [...Array.from({ length: 99 }, (_, index) => 1 + (index + 1) / 10), ...Array.from({ length: 52 }, (_, index) => 12 + index)];
/** `2..128,256`: orders of google-research/federated. */
const INTEGER_ORDERS: readonly number[] = [...Array.from({ length: 127 }, (_, index) => index + 2), 256];
/** `2..100.5 step .5 plus logspace(100,500,100)`: orders of the PATE 2018 scripts. */
export const PATE_ORDERS: readonly number[] = [
  ...Array.from({ length: 198 }, (_, index) => 2 + index / 2),
  ...Array.from({ length: 100 }, (_, index) => 10 ** (2 + ((Math.log10(500) - 2) * index) / 99)),
];
/** dp_accounting rounds the losses of discrete mechanisms up to this grid: its epsilon is at most one step a release too high. */
const REFERENCE_STEP = 1e-4;
/** Tolerance for two-sided PRV estimates and PLD of DP-SGD, as stated by the cases. */
const PRV_ERROR = 0.01;

function rdpOf(event: DpEvent, count: number, delta: number, relation: AccountedRelation, orders = DEFAULT_ORDERS): { readonly epsilon: number; readonly order: number } {
  return new RdpAccountant(relation, orders).compose(event, count).epsilonAndOrder(delta as Delta);
}

function epsilonOf(accountant: PrivacyAccountant, event: DpEvent, count: number, delta: number): number {
  return accountant.compose(event, count).epsilon(delta as Delta);
}

function poissonSampled(samplingProbability: number, noiseMultiplier: number): DpEvent {
  return { kind: 'poissonSampled', samplingProbability, event: { kind: 'gaussian', noiseMultiplier } };
}

const groupCheckers: Readonly<Record<string, GroupChecker>> = {
  'agm-sigma'(item, checks) {
    const [epsilon, delta, sensitivity] = ['epsilon', 'delta', 'sensitivity_l2'].map((name) => numberParameter(item, name)) as [number, number, number];
    const sigma = () => sensitivity * calibrateNoiseMultiplier(epsilon, delta);
    checks.close('sigma', sigma);
    checks.close('sigma_mpmath', sigma);
    // Proven only for epsilon < 1: a contrast, not used anywhere.
    checks.close('sigma_classic_dwork_roth', () => (sensitivity * Math.sqrt(2 * Math.log(1.25 / delta))) / epsilon);
  },

  'agm-eps'(item, checks) {
    const [z, delta] = [numberParameter(item, 'noise_multiplier'), numberParameter(item, 'delta')];
    checks.close('epsilon', () => gaussianEpsilon(delta, 1 / z));
    checks.close('epsilon_mpmath', () => gaussianEpsilon(delta, 1 / z));
    checks.close('rho_zcdp', () => 1 / (2 * z * z));
    checks.close('epsilon_from_zcdp', () => zcdpToEpsilon(1 / (2 * z * z), delta));
  },

  'gauss-comp'(item, checks) {
    const [noiseMultiplier, steps, delta] = ['noise_multiplier', 'steps', 'delta'].map((name) => numberParameter(item, name)) as [number, number, number];
    const event: DpEvent = { kind: 'gaussian', noiseMultiplier };
    checks.close('epsilon_rdp', () => rdpOf(event, steps, delta, 'replaceOne').epsilon);
    checks.close('rdp_order', () => rdpOf(event, steps, delta, 'replaceOne').order);
    checks.close('epsilon_pld', () => epsilonOf(new PldAccountant('replaceOne'), event, steps, delta));
    checks.close('epsilon_exact', () => epsilonOf(new GaussianAccountant('replaceOne'), event, steps, delta));
    checks.close('rho_zcdp', () => new ZcdpAccountant('replaceOne').compose(event, steps).rho);
    checks.close('epsilon_zcdp', () => epsilonOf(new ZcdpAccountant('replaceOne'), event, steps, delta));
  },

  dpsgd(item, checks) {
    const [q, z, steps, delta] = ['sampling_probability', 'noise_multiplier', 'steps', 'delta'].map((name) => numberParameter(item, name)) as [number, number, number, number];
    const relation = textParameter(item, 'relation');
    if (relation !== 'add_or_remove_one') throw new Error(`params.relation expected add_or_remove_one, got ${relation}`);
    const event = poissonSampled(q, z);
    const opacus = rdpOf(event, steps, delta, 'addOrRemoveRecord', OPACUS_ORDERS);
    checks.close('epsilon_rdp_opacus', () => opacus.epsilon);
    checks.close('rdp_order_opacus', () => opacus.order);
    // dp_accounting adds |binom(a, i)| at fractional orders, so its value is an upper bound, and its order not the best one.
    checks.notAbove('epsilon_rdp', () => rdpOf(event, steps, delta, 'addOrRemoveRecord').epsilon);
    checks.leaveOut('rdp_order');
    const pld = epsilonOf(new PldAccountant('addOrRemoveRecord'), event, steps, delta);
    checks.near('epsilon_pld', () => pld, PRV_ERROR);
    checks.notBelow('epsilon_prv_ms_lower', () => pld);
    checks.near('epsilon_prv_ms_est', () => pld, PRV_ERROR);
    checks.notAbove('epsilon_prv_ms_upper', () => pld);
    checks.notAbove('epsilon_prv_opacus', () => pld);
  },

  wor(item, checks) {
    const event: DpEvent = {
      kind: 'sampledWithoutReplacement',
      sampleSize: numberParameter(item, 'batch_size'),
      datasetSize: numberParameter(item, 'dataset_size'),
      event: { kind: 'gaussian', noiseMultiplier: numberParameter(item, 'noise_multiplier') },
    };
    const result = rdpOf(event, numberParameter(item, 'steps'), numberParameter(item, 'delta'), 'replaceRecord');
    checks.close('epsilon_rdp', () => result.epsilon);
    checks.close('rdp_order', () => result.order);
  },

  laplace(item, checks) {
    const [steps, delta] = [numberParameter(item, 'steps'), numberParameter(item, 'delta')];
    let event: DpEvent;
    let relation: AccountedRelation = 'replaceOne';
    if (item.mechanism === 'discrete_laplace_composed') {
      event = { kind: 'discreteLaplace', scale: 1 / numberParameter(item, 'a'), l1Sensitivity: numberParameter(item, 'sensitivity'), dimension: 1 };
    } else {
      const laplace = { kind: 'continuousLaplace', noiseMultiplier: numberParameter(item, 'scale_over_l1_sensitivity'), dimension: 1 } as const;
      event = laplace;
      if (item.mechanism === 'poisson_subsampled_laplace') {
        relation = 'addOrRemoveRecord';
        event = { kind: 'poissonSampled', samplingProbability: numberParameter(item, 'sampling_probability'), event: laplace };
      } else if (item.mechanism !== 'laplace_composed') throw new Error(`unknown mechanism ${item.mechanism}`);
    }
    checks.close('epsilon_pure', () => epsilonOf(new PureAccountant(relation), event, steps, delta));
    checks.close('epsilon_rdp', () => rdpOf(event, steps, delta, relation).epsilon);
    checks.close('rdp_order', () => rdpOf(event, steps, delta, relation).order);
    checks.close('epsilon_pld', () => epsilonOf(new PldAccountant(relation), event, steps, delta));
  },

  dgauss(item, checks) {
    const [steps, delta] = [numberParameter(item, 'steps'), numberParameter(item, 'delta')];
    const event: DpEvent = { kind: 'discreteGaussian', sigma: numberParameter(item, 'sigma'), l2Sensitivity: numberParameter(item, 'sensitivity'), dimension: numberParameter(item, 'dimension') };
    const pld = () => epsilonOf(new PldAccountant('replaceOne'), event, steps, delta);
    checks.close('epsilon_rdp', () => rdpOf(event, steps, delta, 'replaceOne').epsilon);
    checks.close('rdp_order', () => rdpOf(event, steps, delta, 'replaceOne').order);
    checks.close('rho_zcdp', () => new ZcdpAccountant('replaceOne').compose(event, steps).rho);
    checks.close('epsilon_zcdp', () => epsilonOf(new ZcdpAccountant('replaceOne'), event, steps, delta));
    checks.atMostAbove('epsilon_pld', pld, steps * REFERENCE_STEP);
    checks.close('epsilon_exact_ibm', pld);
  },

  sampler(item, checks) {
    if (item.mechanism === 'discrete_gaussian_pmf') {
      const sigma = numberParameter(item, 'sigma');
      checks.closeList('pmf_0_to_6', (k) => discreteGaussianPmf(sigma, k));
      checks.close('variance', () => discreteGaussianVariance(sigma));
    } else if (item.mechanism === 'skellam_pmf') {
      const variance = numberParameter(item, 'variance_mu');
      checks.closeList('pmf_0_to_6', (k) => skellamPmf(variance, k));
      checks.close('variance', () => variance);
    } else if (item.mechanism === 'discrete_laplace_pmf') {
      const a = numberParameter(item, 'a');
      checks.closeList('pmf_0_to_6', (k) => discreteLaplacePmf(a, k));
      checks.close('variance', () => discreteLaplaceVariance(a));
    } else throw new Error(`unknown mechanism ${item.mechanism}`);
  },

  rounding(item, checks) {
    const norms = conditionalRoundingNorms(numberParameter(item, 'l2_scaled'), numberParameter(item, 'dim'), numberParameter(item, 'beta'));
    checks.close('l2_after', () => norms.l2);
    checks.close('l1_after', () => norms.l1);
  },

  ddg(item, checks) {
    const [gamma, stddev, shares, clip, dimension, steps, delta] = ['gamma', 'local_stddev', 'num_clients', 'l2_clip', 'dim', 'steps', 'delta'].map((name) => numberParameter(item, name)) as [number, number, number, number, number, number, number];
    checkOrders(item, '2..128,256', 'rdp_orders');
    const norms = conditionalRoundingNorms(clip / gamma, dimension, numberParameter(item, 'beta'));
    const event: DpEvent = { kind: 'distributedDiscreteGaussian', sigma: stddev / gamma, shares, l2Sensitivity: norms.l2, l1Sensitivity: norms.l1, dimension };
    const result = rdpOf(event, steps, delta, 'replaceOne', INTEGER_ORDERS);
    checks.close('epsilon_rdp', () => result.epsilon);
    checks.close('rdp_order', () => result.order);
    checks.close('tau', () => discreteGaussianSumDistance(stddev / gamma, shares));
    checks.close('epsilon_central_gaussian', () => gaussianEpsilon(delta, (clip * Math.sqrt(steps)) / (stddev * Math.sqrt(shares))));
  },

  skellam(item, checks) {
    const [scale, stddev, clip, dimension, steps, delta] = ['scale', 'central_stddev', 'l2_clip', 'dim', 'steps', 'delta'].map((name) => numberParameter(item, name)) as [number, number, number, number, number, number];
    checkOrders(item, '2..128,256', 'rdp_orders');
    const norms = conditionalRoundingNorms(clip * scale, dimension, numberParameter(item, 'beta'));
    const event: DpEvent = { kind: 'skellam', variance: (stddev * scale) ** 2, l2Sensitivity: norms.l2, l1Sensitivity: norms.l1 };
    const result = rdpOf(event, steps, delta, 'replaceOne', INTEGER_ORDERS);
    checks.close('epsilon_rdp', () => result.epsilon);
    checks.close('rdp_order', () => result.order);
    checks.close('epsilon_central_gaussian', () => gaussianEpsilon(delta, (clip * Math.sqrt(steps)) / stddev));
  },

  gnmax(item, checks) {
    const [votes, sigma] = [numbersParameter(item, 'votes'), numberParameter(item, 'sigma')];
    const logFailure = pate.gnMaxLogFailure(votes, sigma);
    checks.close('logq', () => logFailure);
    for (const quantity of checks.unchecked()) {
      const match = /^rdp_(dep|ind)_a(\d+)$/.exec(quantity);
      if (!match) continue;
      const order = Number(match[2]);
      checks.close(quantity, () => (match[1] === 'dep' ? pate.gnMaxDataDependentRdp(logFailure, sigma, order) : pate.gnMaxRdp(sigma, order)));
    }
  },

  cgnmax(item, checks) {
    const [threshold, sigma1, sigma2, delta] = ['threshold', 'sigma1', 'sigma2', 'delta'].map((name) => numberParameter(item, name)) as [number, number, number, number];
    checkOrders(item, '2..100.5 step .5 plus logspace(100,500,100)', 'orders');
    const run = expectedVoteCosts(votesParameter(item), { threshold, sigmaThreshold: sigma1, sigmaVotes: sigma2 });
    const mironov = rdpToEpsilonMironov(PATE_ORDERS, run.dataDependent, delta);
    const mironovIndependent = rdpToEpsilonMironov(PATE_ORDERS, run.dataIndependent, delta);
    checks.close('expected_answered', () => run.expectedAnswered);
    checks.close('epsilon_data_dependent_mironov_conv', () => mironov.epsilon);
    checks.close('order', () => mironov.order);
    checks.close('epsilon_data_independent_mironov_conv', () => mironovIndependent.epsilon);
    checks.close('order_ind', () => mironovIndependent.order);
    checks.close('epsilon_data_dependent_cks_conv', () => rdpToEpsilon(PATE_ORDERS, run.dataDependent, delta).epsilon);
    checks.close('epsilon_data_independent_cks_conv', () => rdpToEpsilon(PATE_ORDERS, run.dataIndependent, delta).epsilon);
  },

  'pate-ss'(item, checks) {
    const [sigma, order, beta, clients] = ['sigma', 'order', 'beta', 'num_clients'].map((name) => numberParameter(item, name)) as [number, number, number, number];
    const sensitivities = pate.gnMaxLocalSensitivities(numbersParameter(item, 'votes'), clients, sigma, order);
    checks.closeList('ls_first5', (index) => sensitivities[index]!);
    checks.close('smooth_sensitivity', () => pate.smoothSensitivity(beta, sensitivities));
    checks.close('rdp_gnss_sigma6', () => pate.smoothReleaseRdp(beta, 6, order));
  },

  krr(item, checks) {
    const [epsilon, categories, reports, delta] = ['epsilon_local', 'k', 'reports', 'delta'].map((name) => numberParameter(item, name)) as [number, number, number, number];
    const event: DpEvent = { kind: 'randomizedResponse', epsilon, categories };
    const law = randomizedResponseLaw(epsilon, categories);
    checks.close('p_truth', () => law.forTrue);
    checks.close('q_other', () => law.forOther);
    checks.close('uniform_resample_prob', () => categories * law.forOther);
    checks.close('epsilon_pure', () => epsilonOf(new PureAccountant('replaceOne'), event, reports, delta));
    checks.close('epsilon_rdp', () => rdpOf(event, reports, delta, 'replaceOne').epsilon);
    checks.close('rdp_order', () => rdpOf(event, reports, delta, 'replaceOne').order);
    checks.atMostAbove('epsilon_pld', () => epsilonOf(new PldAccountant('replaceOne'), event, reports, delta), reports * REFERENCE_STEP);
    checks.close('var_freq_per_user_zero', () => randomizedResponseVariance(epsilon, categories));
    checks.close('var_oue_per_user', () => unaryEncodingVariance(epsilon));
  },

  'ldp-ss'(item, checks) {
    const [epsilon, categories] = [numberParameter(item, 'epsilon_local'), numberParameter(item, 'k')];
    const subsetSize = bestSubsetSize(epsilon, categories);
    const law = subsetSelectionLaw(epsilon, categories, subsetSize);
    checks.equal('subset_size', () => subsetSize);
    checks.close('p_true_in', () => law.forTrue);
    checks.close('q_other_in', () => law.forOther);
    checks.close('var_freq_per_user_zero', () => reportVariance(law));
    checks.close('var_krr', () => randomizedResponseVariance(epsilon, categories));
    checks.close('var_oue', () => unaryEncodingVariance(epsilon));
  },

  conv(item, checks) {
    const delta = numberParameter(item, 'delta');
    if (item.mechanism === 'zcdp_to_adp') {
      const rho = numberParameter(item, 'rho');
      checks.close('epsilon_cks', () => zcdpToEpsilon(rho, delta));
      checks.close('epsilon_bun_steinke', () => zcdpToEpsilonBunSteinke(rho, delta));
    } else if (item.mechanism === 'adp_to_zcdp_rho') {
      checks.close('rho', () => largestRho(numberParameter(item, 'epsilon'), delta));
    } else if (item.mechanism === 'rdp_to_adp') {
      const [orders, rdp] = [numbersParameter(item, 'orders'), numbersParameter(item, 'rdp')];
      checks.close('epsilon_cks', () => rdpToEpsilon(orders, rdp, delta).epsilon);
      checks.close('order', () => rdpToEpsilon(orders, rdp, delta).order);
      checks.close('epsilon_mironov', () => rdpToEpsilonMironov(orders, rdp, delta).epsilon);
    } else throw new Error(`unknown mechanism ${item.mechanism}`);
  },

  'rdp-point'(item, checks) {
    const order = numberParameter(item, 'order');
    if (item.mechanism === 'laplace_rdp') {
      const rdp = () => laplaceRdp(1 / numberParameter(item, 'scale_over_l1'), order);
      checks.close('rdp', rdp);
      checks.close('rdp_mpmath', rdp);
      return;
    }
    if (item.mechanism !== 'poisson_subsampled_gaussian_rdp' && item.mechanism !== 'poisson_subsampled_gaussian_rdp_fractional') throw new Error(`unknown mechanism ${item.mechanism}`);
    const rdp = () => poissonSampledGaussianRdp(numberParameter(item, 'q'), numberParameter(item, 'sigma'), [order])[0]!;
    for (const quantity of ['rdp', 'rdp_mpmath', 'rdp_opacus', 'rdp_quadrature']) checks.close(quantity, rdp);
    // The |binom| series again.
    checks.notAbove('rdp_dpacc_upper_bound', rdp);
  },

  audit1(item, checks) {
    const [canaries, guesses, correct, delta, significance] = ['m', 'r', 'v', 'delta', 'p'].map((name) => numberParameter(item, name)) as [number, number, number, number, number];
    const lower = oneRunAuditLowerBound({ canaries, guesses, correct, delta, significance });
    checks.close('epsilon_lower', () => lower);
    // Three printed digits.
    checks.near('epsilon_published', () => lower, 1e-3);
  },

  auditcp(item, checks) {
    const [truePositives, falsePositives, members, nonMembers, delta, significance] = ['tp', 'fp', 'n_in', 'n_out', 'delta', 'p'].map((name) => numberParameter(item, name)) as [number, number, number, number, number, number];
    const bound = membershipAuditLowerBound({ members, truePositives, nonMembers, falsePositives, delta, significance });
    checks.close('tpr_lower', () => bound.truePositiveRateLower);
    checks.close('fpr_upper', () => bound.falsePositiveRateUpper);
    checks.close('epsilon_lower', () => bound.epsilonLower);
  },

  mixed(item, checks) {
    const delta = numberParameter(item, 'delta');
    const event = parseMixture(textParameter(item, 'description'));
    const isSampled = event.events.some((part) => part.kind === 'selfComposed' && part.event.kind === 'poissonSampled');
    const relation: AccountedRelation = isSampled ? 'addOrRemoveRecord' : 'replaceOne';
    const result = rdpOf(event, 1, delta, relation);
    if (isSampled) checks.notAbove('epsilon_rdp', () => result.epsilon);
    checks.close('epsilon_rdp', () => result.epsilon, isSampled ? 1e-3 : checks.tolerance);
    checks.close('rdp_order', () => result.order);
    checks.close('epsilon_pld', () => epsilonOf(new PldAccountant(relation), event, 1, delta));
  },

  calib(item, checks) {
    const [epsilon, delta, q, steps] = ['epsilon', 'delta', 'sampling_probability', 'steps'].map((name) => numberParameter(item, name)) as [number, number, number, number];
    const calibrate = (accountant: PrivacyAccountant, low: number, high: number) =>
      calibrateParameter({ accountant, event: (z) => ({ kind: 'selfComposed', event: poissonSampled(q, z), count: steps }), epsilon, delta, range: [low, high], tolerance: 1e-6 });
    const rdp = calibrate(new RdpAccountant('addOrRemoveRecord'), 0.5, 1e6);
    // dp_accounting's fractional orders cost too much, so its noise multiplier may be too large by a little.
    if (q < 1) checks.notAbove('noise_multiplier_rdp', () => rdp);
    checks.close('noise_multiplier_rdp', () => rdp, q < 1 ? 1e-3 : checks.tolerance);
    checks.close('noise_multiplier_pld', () => calibrate(new PldAccountant('addOrRemoveRecord'), rdp / 2, rdp));
  },

  release(item, checks) {
    const [epsilon, delta, rows, classes, clients, releases] = ['epsilon', 'delta', 'n_pub', 'classes', 'clients', 'releases'].map((name) => numberParameter(item, name)) as [number, number, number, number, number, number];
    const adjacency = textParameter(item, 'adjacency');
    if (adjacency !== 'zero_out' && adjacency !== 'replace_one') throw new Error(`params.adjacency expected zero_out or replace_one, got ${adjacency}`);
    const noise = meanNoise({ epsilon, delta, rows, classes, clients, releases, relation: adjacency === 'zero_out' ? 'zeroOut' : 'replaceOne', isCentered: true });
    checks.close('l2_sensitivity', () => noise.sensitivity);
    checks.close('noise_multiplier', () => noise.noiseMultiplier);
    checks.close('sum_noise_std', () => noise.sumStddev);
    checks.close('mean_noise_std_per_coordinate', () => noise.meanStddev);
  },
};

function checkOrders(item: GoldenCase, expected: string, name: string): void {
  const orders = item.params[name];
  if (orders !== expected) throw new Error(`params.${name} expected "${expected}", got ${JSON.stringify(orders)}`);
}

/** `dpsgd(q=.02,s=1,500)+gauss(s=8)x10`, `gauss(5)x10+laplace(20)x5`. */
function parseMixture(description: string): Extract<DpEvent, { kind: 'composed' }> {
  const events = description.split('+').map((term): DpEvent => {
    const match = /^(dpsgd|gauss|laplace)\(([^)]*)\)(?:x(\d+))?$/.exec(term.trim());
    if (!match) throw new Error(`params.description has an unknown part ${term}`);
    const values = match[2]!.split(',').map((value) => Number(value.replace(/^[a-z]+=/, '')));
    if (!values.every((value) => Number.isFinite(value))) throw new Error(`params.description has an unknown part ${term}`);
    if (match[1] === 'dpsgd') return { kind: 'selfComposed', event: poissonSampled(values[0]!, values[1]!), count: values[2]! };
    const noiseMultiplier = values[0]!;
    const event: DpEvent = match[1] === 'gauss' ? { kind: 'gaussian', noiseMultiplier } : { kind: 'continuousLaplace', noiseMultiplier, dimension: 1 };
    return { kind: 'selfComposed', event, count: Number(match[3] ?? 1) };
  });
  return { kind: 'composed', events };
}

export interface VoteCosts {
  readonly expectedAnswered: number;
  /** One value for each of `PATE_ORDERS`. Private: computed from the votes. */
  readonly dataDependent: readonly number[];
  readonly dataIndependent: readonly number[];
}

/**
 * What the published PATE tables add up: the threshold test for every query, and the answer times the probability that there is one.
 * An expectation, for reproducing those tables; a claim about a run charges the answers it was allowed to give (`confidentGnMax`).
 */
export function expectedVoteCosts(votes: ReadonlyArray<readonly number[]>, run: { readonly threshold: number; readonly sigmaThreshold: number; readonly sigmaVotes: number }): VoteCosts {
  const dataDependent = PATE_ORDERS.map(() => 0);
  const dataIndependent = PATE_ORDERS.map(() => 0);
  let expectedAnswered = 0;
  for (const counts of votes) {
    const logAnswered = pate.thresholdLogAnswered(run.threshold, run.sigmaThreshold, counts);
    const answered = Math.exp(logAnswered);
    const logFailure = pate.gnMaxLogFailure(counts, run.sigmaVotes);
    expectedAnswered += answered;
    for (const [index, order] of PATE_ORDERS.entries()) {
      dataDependent[index]! += pate.thresholdDataDependentRdp(logAnswered, run.sigmaThreshold, order) + answered * pate.gnMaxDataDependentRdp(logFailure, run.sigmaVotes, order);
      dataIndependent[index]! += pate.thresholdRdp(run.sigmaThreshold, order) + answered * pate.gnMaxRdp(run.sigmaVotes, order);
    }
  }
  return { expectedAnswered, dataDependent, dataIndependent };
}
