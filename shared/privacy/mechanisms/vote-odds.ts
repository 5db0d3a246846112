/**
 * Local votes with exact probabilities. A report is one of finitely many; those that hold the true value have `favored` units of weight each, the others `unit`, and a uniform integer
 * picks. So the odds are a fraction of integers, and the privacy of a report is that fraction, not a float: `favored / unit <= e^epsilon`, always.
 *
 * A fraction below e^epsilon is a report at epsilon that is thrown away for a uniform one with some probability: post-processing, so accounting for epsilon covers it.
 */
import { FederationError } from '../../errors.ts';
import type { IntegerMatrix } from '../../types/matrix.ts';
import { roundDown } from '../accountants/numerics.ts';
import { reportVariance, type ReportLaw } from '../local-votes.ts';

/** Uniform integers are drawn below at most this. */
const TOTAL = 2 ** 32;
/** Largest epsilon of one report: above, a unit of weight could be less than one. */
export const MAX_VOTE_EPSILON = 20;
/** Largest number of classes, as for any release. */
const MAX_CATEGORIES = 1000;

export interface VoteOdds {
  readonly categories: number;
  /** Values in one report: 1 for randomized response. */
  readonly subsetSize: number;
  /** Weight of the true value: the report holds it with probability `subsetSize * favored / total`. */
  readonly favored: number;
  /** Weight of each other value. */
  readonly unit: number;
  /** `subsetSize * favored + (categories - subsetSize) * unit`, at most 2^32. */
  readonly total: number;
}

/**
 * The odds of subset selection (Ye & Barg 2018): the true value is in a set of w out of k with probability `w e^epsilon / (w e^epsilon + k - w)`; w = 1 is randomized response. A set that holds the
 * true value is `e^epsilon` times as likely as one that does not: `(w R / C(k-1, w-1)) : ((k - w) / C(k-1, w)) = R`. Here `R = favored / unit`, the largest fraction of this
 * unit not above e^epsilon. The exponential, and its product with the unit, are off by at most 2^-52 each (relative), and `roundDown` takes 2^-50 off.
 */
export function voteOdds(epsilon: number, categories: number, subsetSize: number): VoteOdds {
  const refuse = (field: string, expected: string, got: number) =>
    new FederationError('config-invalid', 'a vote with these odds is not possible', { field, expected, got: String(got), next: 'Correct the privacy section of the task.' });
  if (!(epsilon >= 0 && epsilon <= MAX_VOTE_EPSILON)) throw refuse('epsilon', `a number in [0, ${MAX_VOTE_EPSILON}]`, epsilon);
  if (!Number.isInteger(categories) || categories < 2 || categories > MAX_CATEGORIES) throw refuse('categories', `an integer in [2, ${MAX_CATEGORIES}]`, categories);
  if (!Number.isInteger(subsetSize) || subsetSize < 1 || subsetSize >= categories) throw refuse('subsetSize', `an integer in [1, ${categories - 1}]`, subsetSize);
  const ratio = epsilon === 0 ? 1 : Math.max(1, roundDown(Math.exp(epsilon)));
  const unit = Math.floor(TOTAL / (subsetSize * Math.ceil(ratio) + categories - subsetSize));
  if (unit < 1) throw refuse('subsetSize', 'a smaller set at this epsilon', subsetSize);
  const favored = Math.floor(unit * ratio);
  return { categories, subsetSize, favored, unit, total: subsetSize * favored + (categories - subsetSize) * unit };
}

/** Probabilities of the reports with these odds, not of those at epsilon: what estimates must divide by. */
export function voteLaw({ categories, subsetSize, favored, total }: VoteOdds): ReportLaw {
  const forTrue = (subsetSize * favored) / total;
  return { forTrue, forOther: (forTrue * (subsetSize - 1) + (1 - forTrue) * subsetSize) / (categories - 1) };
}

export interface VoteEstimates {
  /** Unbiased estimate of the share of clients that meant each class, [rows x classes]. May lie outside [0, 1]: cutting it off would bias it. */
  readonly frequencies: Float64Array;
  /** Variance of an estimate where the share is `frequency`: 0 gives the smallest of all, `q (1 - q) / (n (p - q)^2)`. */
  readonly variance: (frequency: number) => number;
}

/** Estimates from `counts`, the sum of the reports of `clients` clients: `(count / n - q) / (p - q)`. */
export function estimateVotes(counts: IntegerMatrix, clients: number, odds: VoteOdds): VoteEstimates {
  if (!Number.isInteger(clients) || clients < 1) throw new RangeError(`"clients" expected an integer >= 1, got ${clients}`);
  if (counts.columns !== odds.categories) throw new RangeError(`"counts" expected ${odds.categories} columns, got ${counts.columns}`);
  const law = voteLaw(odds);
  const { forTrue: p, forOther: q } = law;
  if (odds.favored === odds.unit) throw new RangeError('"odds" expected an epsilon above 0: these reports say nothing');
  const forOthers = reportVariance(law) / clients;
  const forOwn = (p * (1 - p)) / (p - q) ** 2 / clients;
  return {
    frequencies: Float64Array.from(counts.values, (count) => (count / clients - q) / (p - q)),
    variance: (frequency) => frequency * forOwn + (1 - frequency) * forOthers,
  };
}

/** Throws unless every choice is a class. */
export function checkChoices(choices: Int32Array, { categories }: VoteOdds): void {
  const wrong = choices.find((choice) => choice < 0 || choice >= categories);
  if (wrong !== undefined) throw new RangeError(`"choices" expected integers in [0, ${categories}), got ${wrong}`);
}
