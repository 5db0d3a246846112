/** The rules of a task's rounds, derived from its configuration once. All times in milliseconds. */
import type { TaskConfig } from '../config/task-config.ts';
import { FederationError } from '../errors.ts';
import { stagesOf, type StageName } from '../protocol/messages.ts';
import { MAX_SHARES } from '../secure-aggregation/shamir.ts';
import { completeThreshold, graphShape, MAX_COHORT } from '../secure-aggregation/share-graph.ts';

export interface RoundPolicy {
  /** Seeds cohort sampling. */
  readonly seed: number;
  /** Stages of a round, in order. */
  readonly stages: readonly StageName[];
  /** Rounds to release. */
  readonly rounds: number;
  /** Clients that must be connected before the first round. */
  readonly minClients: number;
  /** Clients sampled for a round; `undefined`: everyone connected. */
  readonly cohortSize: number | undefined;
  /** Fewest contributions for a release. */
  readonly quorum: number;
  /** How long a stage waits for its messages. */
  readonly stageDeadlineMs: number;
  /** Rounds of secure aggregation; `undefined` for every other trust mode. */
  readonly secureAggregation: SecurePolicy | undefined;
  /** How long a lost client is waited for, in a round and before one. */
  readonly reconnectGraceMs: number;
  /** Failed rounds in a row that are tried again; one more ends the task. */
  readonly maxFailedRounds: number;
  /**
   * Rounds that may be announced before the budget for which the noise was calibrated is used up; `undefined` where no
   * privacy is claimed. A failed round counts: what was sent was released, whether or not it arrived.
   */
  readonly maxReleases: number | undefined;
  /** Rounds without a gain of `convergenceDelta` after which the task has converged; 0 = never. */
  readonly convergencePatience: number;
  /** Smallest rise of the evaluation accuracy (0 to 1) that counts as a gain. */
  readonly convergenceDelta: number;
}

export interface SecurePolicy {
  /** Clients that may work with the coordinator. */
  readonly maxCorrupt: number;
  /** How long a stage after the first waits: clients have trained by then, and only compute keys and masks. */
  readonly stageDeadlineMs: number;
}

/**
 * The stage whose senders are counted: whose messages are aggregated. What comes after `maskedInput` only unmasks the sum, and who misses that is in
 * it all the same.
 */
export function countedStage({ stages, secureAggregation }: RoundPolicy): StageName {
  return secureAggregation === undefined ? stages.at(-1)! : 'maskedInput';
}

/**
 * Fewest messages with which a stage may close. `advertised`: how many clients sent the message of the first stage. Never throws: a roster that no graph is
 * safe for is refused by whoever makes the graph.
 */
export function stageQuorum({ quorum, secureAggregation }: RoundPolicy, stage: StageName, advertised: number): number {
  if (secureAggregation === undefined || (stage !== 'consistencyCheck' && stage !== 'unmask')) return quorum;
  const { maxCorrupt } = secureAggregation;
  const shape = stage === 'unmask' && advertised > MAX_SHARES ? shapeFor(advertised, quorum, maxCorrupt) : undefined;
  // On a ring each secret needs shares of its own neighbors: fewer answers than these are too few for any secret.
  return shape?.threshold ?? completeThreshold(advertised, maxCorrupt);
}

export function stageDeadlineMs(policy: RoundPolicy, stage: StageName): number {
  return stage === policy.stages[0] ? policy.stageDeadlineMs : (policy.secureAggregation?.stageDeadlineMs ?? policy.stageDeadlineMs);
}

/** Most clients of `available` that a round can have: with more of them, the quorum would be too few to agree on one set of survivors. */
export function largestCohort({ cohortSize, quorum, secureAggregation }: RoundPolicy, available: number): number {
  const wanted = Math.min(available, cohortSize ?? available);
  if (secureAggregation === undefined) return wanted;
  const { maxCorrupt } = secureAggregation;
  // The largest n with floor((n + c) / 2) + 1 <= quorum.
  const largest = Math.min(wanted, Math.max(quorum, 2 * quorum - 1 - maxCorrupt), MAX_COHORT);
  if (largest <= MAX_SHARES || shapeFor(largest, quorum, maxCorrupt) !== undefined) return largest;
  let [safe, unsafe] = [Math.max(quorum, MAX_SHARES), largest];
  while (unsafe - safe > 1) {
    const middle = (safe + unsafe) >> 1;
    if (shapeFor(middle, quorum, maxCorrupt) === undefined) unsafe = middle;
    else safe = middle;
  }
  return safe;
}

function shapeFor(clients: number, minSurvivors: number, maxCorrupt: number) {
  try {
    return graphShape({ clients, minSurvivors, maxCorrupt });
  } catch (error) {
    if (error instanceof FederationError) return undefined;
    throw error;
  }
}

export function roundPolicyOf(config: TaskConfig): RoundPolicy {
  const { schedule, privacy } = config;
  return {
    seed: config.seed,
    stages: stagesOf(privacy.trustMode),
    rounds: schedule.rounds,
    minClients: schedule.minClients,
    cohortSize: schedule.cohortSize,
    quorum: schedule.quorum,
    stageDeadlineMs: schedule.roundDeadlineSeconds * 1000,
    secureAggregation:
      privacy.trustMode === 'secure-aggregation' ? { maxCorrupt: privacy.secureAggregation.maxCorrupt, stageDeadlineMs: privacy.secureAggregation.stageDeadlineSeconds * 1000 } : undefined,
    reconnectGraceMs: schedule.reconnectGraceSeconds * 1000,
    maxFailedRounds: schedule.maxFailedRounds,
    maxReleases: privacy.mechanism === 'none' ? undefined : schedule.rounds,
    convergencePatience: schedule.convergencePatience,
    convergenceDelta: schedule.convergenceDelta,
  };
}
