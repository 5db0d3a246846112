/**
 * Empirical lower bounds on epsilon from an attack's success: what a privacy audit measured, with its confidence.
 *
 * A lower bound for one attack on one configuration. Above the claimed epsilon it proves a bug (at that confidence); below it, it
 * proves nothing, and its ceiling (all guesses right) says how much the audit could have found at all.
 */
import { LogSum, logBinomial } from './accountants/log-space.ts';

export interface OneRunAudit {
  /** Canaries, each included with probability 1/2, independently. */
  readonly canaries: number;
  /** Guesses that the auditor made; the others were abstained from. Fixed in advance. */
  readonly guesses: number;
  readonly correct: number;
  readonly delta: number;
  /** Probability that the bound is wrong, e.g. 0.05. */
  readonly significance: number;
}

/**
 * The largest epsilon that the guesses refute: Steinke, Nasr & Jagielski 2023 (arXiv:2305.08846), Thm 5.2 and App. D. If the
 * mechanism were (epsilon, delta)-DP, at least `correct` right guesses would have a probability of at most
 * `Pr[W >= v] + 2 m delta max_{1 <= i <= v} Pr[v - i <= W < v] / i`, `W ~ Binomial(r, e^epsilon / (e^epsilon + 1))`.
 */
export function oneRunAuditLowerBound(audit: OneRunAudit): number {
  checkOneRunAudit(audit);
  const isRefuted = (epsilon: number) => oneRunPValue(audit, epsilon) < audit.significance;
  if (!isRefuted(0)) return 0;
  let refuted = 0;
  let possible = 1;
  while (isRefuted(possible)) {
    refuted = possible;
    possible *= 2;
    if (possible > 1e3) return refuted;
  }
  for (let step = 0; step < 60; step++) {
    const middle = (refuted + possible) / 2;
    if (isRefuted(middle)) refuted = middle;
    else possible = middle;
  }
  return refuted;
}

/** What the bound would be had every guess been right: the most that this audit could have found. */
export function oneRunAuditCeiling(audit: Omit<OneRunAudit, 'correct'>): number {
  return oneRunAuditLowerBound({ ...audit, correct: audit.guesses });
}

export interface ScoredCanaries {
  /** Of each canary, higher where the auditor takes it for included. */
  readonly scores: ArrayLike<number>;
  /** Whether it was: drawn with probability 1/2 each, independently of everything else. */
  readonly isIncluded: ArrayLike<unknown>;
  /** Guesses to make, an even number of them, fixed before the scores are looked at. */
  readonly guesses: number;
  readonly delta: number;
  readonly significance: number;
}

export interface OneRunFinding {
  readonly correct: number;
  readonly lowerBound: number;
  readonly ceiling: number;
}

/** Calls the canaries with the highest scores included, as many with the lowest not included, and abstains from the rest. Equal scores in the order of the canaries. */
export function auditScoredCanaries({ scores, isIncluded, guesses, delta, significance }: ScoredCanaries): OneRunFinding {
  const canaries = scores.length;
  if (isIncluded.length !== canaries || !(guesses % 2 === 0) || guesses > canaries) {
    throw new RangeError(`expected a score and a truth for each canary and an even number of guesses, got ${canaries}, ${isIncluded.length} and ${guesses}`);
  }
  const order = Array.from({ length: canaries }, (_, canary) => canary).sort((a, b) => scores[b]! - scores[a]!);
  let correct = 0;
  for (let rank = 0; rank < guesses / 2; rank++) {
    if (isIncluded[order[rank]!]) correct++;
    if (!isIncluded[order[canaries - 1 - rank]!]) correct++;
  }
  const audit = { canaries, guesses, delta, significance };
  return { correct, lowerBound: oneRunAuditLowerBound({ ...audit, correct }), ceiling: oneRunAuditCeiling(audit) };
}

function checkOneRunAudit({ canaries, guesses, correct, delta, significance }: OneRunAudit): void {
  const isCount = (value: number) => Number.isSafeInteger(value) && value >= 0;
  if (!isCount(canaries) || !isCount(guesses) || !isCount(correct) || correct > guesses || guesses > canaries) {
    throw new RangeError(`expected counts with correct <= guesses <= canaries, got ${correct}, ${guesses}, ${canaries}`);
  }
  if (!(delta >= 0 && delta < 1) || !(significance > 0 && significance < 1)) throw new RangeError(`expected delta in [0, 1) and significance in (0, 1), got ${delta} and ${significance}`);
}

function oneRunPValue({ canaries, guesses, correct, delta }: OneRunAudit, epsilon: number): number {
  const logRight = -Math.log1p(Math.exp(-epsilon));
  const logWrong = -Math.log1p(Math.exp(epsilon));
  const logPmf = (right: number) => logBinomial(guesses, right) + right * logRight + (guesses - right) * logWrong;
  const tail = new LogSum();
  for (let right = correct; right <= guesses; right++) tail.add(logPmf(right));
  let below = 0;
  let worst = 0;
  if (delta > 0) {
    for (let distance = 1; distance <= correct; distance++) {
      below += Math.exp(logPmf(correct - distance));
      worst = Math.max(worst, below / distance);
    }
  }
  return Math.min(1, Math.exp(tail.log) + 2 * canaries * delta * worst);
}

export interface MembershipAudit {
  /** Runs (or canaries) with the target, and how many of them the attack called members. */
  readonly members: number;
  readonly truePositives: number;
  /** Those without, and how many of them the attack called members. */
  readonly nonMembers: number;
  readonly falsePositives: number;
  readonly delta: number;
  /** Probability that the bound is wrong; half of it for each rate (Bonferroni). */
  readonly significance: number;
}

export interface MembershipBound {
  readonly truePositiveRateLower: number;
  readonly falsePositiveRateUpper: number;
  readonly epsilonLower: number;
}

/** `max{ln((TPR_lo - delta)/FPR_hi), ln((TNR_lo - delta)/FNR_hi)}` with exact one-sided bounds (Clopper & Pearson 1934; Jagielski et al. 2020). */
export function membershipAuditLowerBound(audit: MembershipAudit): MembershipBound {
  const { members, truePositives, nonMembers, falsePositives, delta, significance } = audit;
  const truePositiveRateLower = proportionLower(truePositives, members, significance / 2);
  const falsePositiveRateUpper = proportionUpper(falsePositives, nonMembers, significance / 2);
  const ratio = (hit: number, miss: number) => (hit > delta ? Math.log((hit - delta) / miss) : -Infinity);
  return {
    truePositiveRateLower,
    falsePositiveRateUpper,
    epsilonLower: Math.max(0, ratio(truePositiveRateLower, falsePositiveRateUpper), ratio(1 - falsePositiveRateUpper, 1 - truePositiveRateLower)),
  };
}

/** Clopper-Pearson: the p at which `successes` or more of `trials` have probability `significance`. */
export function proportionLower(successes: number, trials: number, significance: number): number {
  checkProportion(successes, trials);
  if (successes === 0) return 0;
  return 1 - proportionUpper(trials - successes, trials, significance);
}

/** Clopper-Pearson: the p at which `successes` or fewer of `trials` have probability `significance`. */
export function proportionUpper(successes: number, trials: number, significance: number): number {
  checkProportion(successes, trials);
  if (successes === trials) return 1;
  let low = 0;
  let high = 1;
  for (let step = 0; step < 200 && high - low > 1e-16; step++) {
    const p = (low + high) / 2;
    const sum = new LogSum();
    for (let k = 0; k <= successes; k++) sum.add(logBinomial(trials, k) + k * Math.log(p) + (trials - k) * Math.log1p(-p));
    if (sum.log > Math.log(significance)) low = p;
    else high = p;
  }
  return (low + high) / 2;
}

function checkProportion(successes: number, trials: number): void {
  if (!Number.isSafeInteger(successes) || !Number.isSafeInteger(trials) || trials < 1 || successes < 0 || successes > trials) {
    throw new RangeError(`expected 0 <= successes <= trials, got ${successes} of ${trials}`);
  }
}
