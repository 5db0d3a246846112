/** The rules of a task's rounds, derived from its configuration once. All times in milliseconds. */
import type { TaskConfig } from '../config/task-config.ts';
import { stagesOf, type StageName } from '../protocol/messages.ts';

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
  /** How long one stage waits for its messages. */
  readonly stageDeadlineMs: number;
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
    reconnectGraceMs: schedule.reconnectGraceSeconds * 1000,
    maxFailedRounds: schedule.maxFailedRounds,
    maxReleases: privacy.mechanism === 'none' ? undefined : schedule.rounds,
    convergencePatience: schedule.convergencePatience,
    convergenceDelta: schedule.convergenceDelta,
  };
}
