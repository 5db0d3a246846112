/**
 * The client's own rules: whether this client takes part in a proposed release. Pure; the client asks before it trains, and
 * again before it sends, with the ledger as it then is.
 *
 * A policy limits what this client gives away. It can't check what the coordinator says about others: the cohort size is
 * the coordinator's word.
 */
import type { ProblemCode } from '../errors.ts';
import { FederationError } from '../errors.ts';
import type { Delta, Epsilon } from '../types/units.ts';
import type { ChargedRelease } from './ledger.ts';
import { chargedRelease, ledgerUnit, spent } from './ledger.ts';
import type { MechanismName, PrivacyUnit, ReleaseParameters } from './release.ts';
import { checkSumFits, releaseUnit } from './release.ts';

/** What the coordinator gets to see; see `TaskConfig.privacy.trustMode`. */
export type TrustMode = 'sealed' | 'clear' | 'secure-aggregation';

/** How many honest clients a secure sum must certainly have, unless the owner of the data says otherwise. */
export const DEFAULT_MIN_HONEST = 5;

export interface ClientPolicy {
  /** Most that everything this client ever sends may cost, over all tasks, replace-one. `Infinity` to allow releases without noise. */
  readonly maxEpsilon: Epsilon;
  /** The delta at which `maxEpsilon` is meant. */
  readonly delta: Delta;
  /** Fewest clients in the cohort, and in the quorum of a round. */
  readonly minCohort: number;
  readonly allowedMechanisms: readonly MechanismName[];
  /** Whether predictions may travel without sealing (trust mode `clear`). */
  readonly allowClear: boolean;
  /** Most rounds of one task. */
  readonly maxRounds: number;
  /**
   * Under secure aggregation: fewest clients that are certainly in a sum and certainly honest, `minSurvivors - maxCorrupt`. Fewer hide too little.
   * Usually `DEFAULT_MIN_HONEST`.
   */
  readonly minHonest: number;
  /** What a release must protect at least; default `record`, i.e. either. `client`: everything of this client. */
  readonly unit?: PrivacyUnit;
}

/** Who is certainly in a secure sum, in the words of the signed documents. */
export interface SecureCohort {
  /** Fewest clients whose contributions are summed. */
  readonly minSurvivors: number;
  /** Of them, as many may work with the coordinator. */
  readonly maxCorrupt: number;
}

export interface ReleaseProposal {
  readonly trustMode: TrustMode;
  readonly parameters: ReleaseParameters;
  /** Rounds of this task for which this client was charged, accepted or not. */
  readonly roundsDone: number;
  /** Clients invited to the round. */
  readonly cohortSize: number;
  /** Fewest contributions with which the round succeeds. */
  readonly quorum: number;
  /** Needed for the trust mode `secure-aggregation`. */
  readonly secureAggregation?: SecureCohort | null | undefined;
  /** Everything this client has released so far: `PrivacyLedger.entries()`. */
  readonly ledger: readonly ChargedRelease[];
}

/** A rule of the policy, or one that no policy can switch off. */
type RuleName = keyof ClientPolicy | 'trustMode' | 'shares' | 'gridStep';

export type PolicyDecision =
  /** `epsilonAfter`: what the ledger will stand at when this release is charged (replace-one, the policy's delta). */
  | { readonly kind: 'accept'; readonly epsilonAfter: Epsilon }
  | {
      readonly kind: 'refuse';
      readonly code: Extract<ProblemCode, 'policy-refused' | 'budget-exhausted'>;
      /** One or two sentences for the owner of the data. */
      readonly reason: string;
      /** The rule that refused. */
      readonly field: RuleName;
      readonly expected: string;
      readonly got: string;
    };

export function decide(policy: ClientPolicy, proposal: ReleaseProposal): PolicyDecision {
  const { parameters, trustMode } = proposal;
  if (trustMode === 'clear' && !policy.allowClear) {
    return refuse('allowClear', 'The task would send predictions without encrypting them for the coordinator, and your settings do not allow that.', 'sealed', trustMode);
  }
  if (!policy.allowedMechanisms.includes(parameters.mechanism)) {
    const what = parameters.mechanism === 'none' ? 'no protective noise at all' : `${parameters.mechanism} noise`;
    return refuse('allowedMechanisms', `The task uses ${what}, and your settings do not allow that.`, policy.allowedMechanisms.join(', ') || 'nothing', parameters.mechanism);
  }
  const isDistributed = parameters.mechanism === 'discreteGaussian';
  if (isDistributed !== (trustMode === 'secure-aggregation') && parameters.mechanism !== 'none') {
    return isDistributed
      ? refuse('trustMode', 'The task would send a share of the noise outside a secure sum, where it protects next to nothing.', 'secure-aggregation', trustMode)
      : refuse('trustMode', `The task would add ${parameters.mechanism} noise under secure aggregation, which is not a mechanism of this version.`, 'sealed', trustMode);
  }
  if (trustMode === 'secure-aggregation') {
    const refusal = judgeSecureSum(policy, proposal);
    if (refusal !== undefined) return refusal;
  }
  const unit = releaseUnit(parameters);
  if (policy.unit === 'client' && unit === 'record' && parameters.mechanism !== 'none') {
    return refuse('unit', 'The task protects single records of yours, and you asked for protection of everything together.', 'client', unit);
  }
  const fewest = Math.min(proposal.cohortSize, proposal.quorum);
  if (!(fewest >= policy.minCohort)) {
    return refuse('minCohort', `Only ${fewest} clients may end up in this round, and you asked for at least ${policy.minCohort}.`, `>= ${policy.minCohort} clients`, `${fewest} clients`);
  }
  if (!(proposal.roundsDone < policy.maxRounds)) {
    return refuse('maxRounds', `You have taken part in ${proposal.roundsDone} rounds of this task, which is as many as your settings allow.`, `< ${policy.maxRounds} rounds`, `${proposal.roundsDone} rounds`);
  }
  const before = spent(proposal.ledger, 'replaceOne', policy.delta);
  const charged = [...proposal.ledger, chargedRelease(parameters)];
  const after = spent(charged, 'replaceOne', policy.delta);
  // Not `after > maxEpsilon`: a NaN on either side must refuse.
  if (after <= policy.maxEpsilon) return { kind: 'accept', epsilonAfter: after };
  return {
    kind: 'refuse',
    code: 'budget-exhausted',
    reason:
      after === Infinity
        ? `Predictions without noise give no differential privacy (epsilon is infinite), and your limit is ${policy.maxEpsilon}.`
        : `Sending this would raise your total privacy loss from epsilon ${roundedUp(before)} to ${roundedUp(after)}, above your limit of ${policy.maxEpsilon} (${ledgerUnit(charged) === 'client' ? 'everything of one client' : 'one record'}, replace-one, delta ${policy.delta}).`,
    field: 'maxEpsilon',
    expected: `<= ${policy.maxEpsilon}`,
    got: String(after),
  };
}

/** What may refuse a secure sum, whatever it costs. */
function judgeSecureSum(policy: ClientPolicy, { parameters, secureAggregation, cohortSize }: ReleaseProposal): PolicyDecision | undefined {
  if (secureAggregation === undefined || secureAggregation === null) {
    return refuse('trustMode', 'The task asks for secure aggregation, but does not say how many clients are in a sum.', 'minSurvivors and maxCorrupt', 'nothing');
  }
  const honest = secureAggregation.minSurvivors - secureAggregation.maxCorrupt;
  if (!(honest >= policy.minHonest)) {
    return refuse('minHonest', `Only ${honest} honest clients are sure to be in a sum, and you asked for at least ${policy.minHonest}.`, `>= ${policy.minHonest} honest clients`, `${honest} honest clients`);
  }
  if (parameters.mechanism === 'discreteGaussian' && !(parameters.noise.shares <= honest)) {
    return refuse('shares', `The task counts the noise of ${parameters.noise.shares} clients, and only ${honest} honest ones are sure to add theirs: there would be less noise than it promises.`, `<= ${honest} shares`, `${parameters.noise.shares} shares`);
  }
  try {
    checkSumFits(parameters, cohortSize);
  } catch (error) {
    if (!(error instanceof FederationError)) throw error;
    return refuse('gridStep', `A sum of ${cohortSize} clients would not fit its 32-bit integers: your budget would be spent on a result that is no use to anybody.`, error.expected ?? 'a sum that fits', error.got ?? 'one that does not');
  }
  return undefined;
}

/** The refusal as an error, for callers that stop on it. */
export function refusalError(decision: Extract<PolicyDecision, { kind: 'refuse' }>): FederationError {
  return new FederationError(decision.code, decision.reason, {
    field: decision.field,
    expected: decision.expected,
    got: decision.got,
    next: 'Change your policy if you accept this, or stay out of this task.',
  });
}

/** Three decimals, never below `epsilon`. */
function roundedUp(epsilon: number): string {
  return (Math.ceil(epsilon * 1000) / 1000).toFixed(3);
}

function refuse(field: RuleName, reason: string, expected: string, got: string): PolicyDecision {
  return { kind: 'refuse', code: 'policy-refused', reason, field, expected, got };
}
