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
import { spent } from './ledger.ts';
import type { MechanismName, ReleaseEvents, ReleaseParameters } from './release.ts';
import { releaseEvents } from './release.ts';

/** What the coordinator gets to see; see `TaskConfig.privacy.trustMode`. */
export type TrustMode = 'sealed' | 'clear' | 'secure-aggregation';

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
  /** Everything this client has released so far: `PrivacyLedger.entries()`. */
  readonly ledger: readonly { readonly events: ReleaseEvents }[];
}

export type PolicyDecision =
  /** `epsilonAfter`: what the ledger will stand at when this release is charged (replace-one, the policy's delta). */
  | { readonly kind: 'accept'; readonly epsilonAfter: Epsilon }
  | {
      readonly kind: 'refuse';
      readonly code: Extract<ProblemCode, 'policy-refused' | 'budget-exhausted'>;
      /** One or two sentences for the owner of the data. */
      readonly reason: string;
      /** The rule that refused. */
      readonly field: keyof ClientPolicy | 'trustMode';
      readonly expected: string;
      readonly got: string;
    };

export function decide(policy: ClientPolicy, proposal: ReleaseProposal): PolicyDecision {
  const { parameters, trustMode } = proposal;
  if (trustMode === 'secure-aggregation') {
    return refuse('trustMode', 'The task asks for secure aggregation, which this version does not offer, so nothing is sent.', 'sealed', trustMode);
  }
  if (trustMode === 'clear' && !policy.allowClear) {
    return refuse('allowClear', 'The task would send predictions without encrypting them for the coordinator, and your settings do not allow that.', 'sealed', trustMode);
  }
  if (!policy.allowedMechanisms.includes(parameters.mechanism)) {
    const what = parameters.mechanism === 'none' ? 'no protective noise at all' : `${parameters.mechanism} noise`;
    return refuse('allowedMechanisms', `The task uses ${what}, and your settings do not allow that.`, policy.allowedMechanisms.join(', ') || 'nothing', parameters.mechanism);
  }
  const fewest = Math.min(proposal.cohortSize, proposal.quorum);
  if (!(fewest >= policy.minCohort)) {
    return refuse('minCohort', `Only ${fewest} clients may end up in this round, and you asked for at least ${policy.minCohort}.`, `>= ${policy.minCohort} clients`, `${fewest} clients`);
  }
  if (!(proposal.roundsDone < policy.maxRounds)) {
    return refuse('maxRounds', `You have taken part in ${proposal.roundsDone} rounds of this task, which is as many as your settings allow.`, `< ${policy.maxRounds} rounds`, `${proposal.roundsDone} rounds`);
  }
  const before = spent(proposal.ledger, 'replaceOne', policy.delta);
  const after = spent([...proposal.ledger, { events: releaseEvents(parameters) }], 'replaceOne', policy.delta);
  // Not `after > maxEpsilon`: a NaN on either side must refuse.
  if (after <= policy.maxEpsilon) return { kind: 'accept', epsilonAfter: after };
  return {
    kind: 'refuse',
    code: 'budget-exhausted',
    reason:
      after === Infinity
        ? `Predictions without noise give no differential privacy (epsilon is infinite), and your limit is ${policy.maxEpsilon}.`
        : `Sending this would raise your total privacy loss from epsilon ${roundedUp(before)} to ${roundedUp(after)}, above your limit of ${policy.maxEpsilon} (everything of one client, replace-one, delta ${policy.delta}).`,
    field: 'maxEpsilon',
    expected: `<= ${policy.maxEpsilon}`,
    got: String(after),
  };
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

function refuse(field: keyof ClientPolicy | 'trustMode', reason: string, expected: string, got: string): PolicyDecision {
  return { kind: 'refuse', code: 'policy-refused', reason, field, expected, got };
}
