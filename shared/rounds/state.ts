/**
 * The coordinator's state: plain data, serialisable, small (contributions are blobs named by their digest). docs/round-states.md
 * draws it; the names there and here are the same.
 */
import type { FinishReason, StageName } from '../protocol/messages.ts';
import type { ClientId, Digest, Instant, RoundId } from '../types/ids.ts';
import type { ProblemCode } from '../errors.ts';

/** What the coordinator knows of a client that has ever joined and not left. */
export interface Member {
  readonly connected: boolean;
  /** When it connected, or lost its connection. */
  readonly since: Instant;
}

export interface Contribution {
  readonly client: ClientId;
  /** Digest of the stored message. */
  readonly digest: Digest;
}

/** A stage that is over. What comes after it is a function of these, for ever: also after a restart. */
export interface ClosedStage {
  readonly stage: StageName;
  /** Sorted by client. */
  readonly received: readonly Contribution[];
}

export type RoundPhase =
  /** Between rounds: waiting until enough clients are connected, and for the grace time from `since` for those that were lost. */
  | { readonly phase: 'gathering'; readonly since: Instant }
  /** The cohort is fixed; keys, soft labels and the announcement are being made. */
  | { readonly phase: 'opening'; readonly round: RoundId; readonly cohort: readonly ClientId[] }
  /** A stage of the round waits for one message from each of `expected`. */
  | {
      readonly phase: 'collecting';
      readonly round: RoundId;
      readonly transcript: Digest;
      readonly cohort: readonly ClientId[];
      /** The stages before, in order. */
      readonly closed: readonly ClosedStage[];
      readonly stage: StageName;
      /** Fewest messages with which this stage may close. */
      readonly quorum: number;
      /** Who was asked in this stage: the cohort, later the survivors of the stage before. */
      readonly expected: readonly ClientId[];
      readonly received: readonly Contribution[];
      /** Said that they will not contribute. */
      readonly declined: readonly ClientId[];
      /** Lost their connection for longer than the grace time. They may still come back before the stage closes. */
      readonly lost: readonly ClientId[];
      readonly deadline: Instant;
    }
  /** Every stage is over; the aggregate is being computed. `survivors`: whose contributions it is made of, which were fixed when their stage closed. */
  | {
      readonly phase: 'aggregating';
      readonly round: RoundId;
      readonly transcript: Digest;
      readonly cohort: readonly ClientId[];
      readonly closed: readonly ClosedStage[];
      readonly survivors: readonly Contribution[];
    }
  | { readonly phase: 'finished'; readonly reason: FinishReason };

export interface FederationState {
  readonly members: Readonly<Record<string, Member>>;
  /** Number of the next round: every round that was opened has a lower one. */
  readonly nextRound: RoundId;
  /** Transcript hash of the round announced last. */
  readonly previous: Digest | null;
  /** Rounds released. */
  readonly released: number;
  /** Rounds that were announced and are over, released or not: what clients may have been charged for. */
  readonly collected: number;
  readonly failedInRow: number;
  /** Best evaluation accuracy (0 to 1) so far, and the rounds since it rose. */
  readonly best: number | null;
  readonly roundsWithoutGain: number;
  readonly current: RoundPhase;
}

export function initialState(at: Instant): FederationState {
  return {
    members: {},
    nextRound: 1 as RoundId,
    previous: null,
    released: 0,
    collected: 0,
    failedInRow: 0,
    best: null,
    roundsWithoutGain: 0,
    current: { phase: 'gathering', since: at },
  };
}

/** A timer that the machine has asked for; it is named by what it means, so that an old one that fires is recognised. */
export type RoundTimer =
  | { readonly kind: 'stage'; readonly round: RoundId; readonly stage: StageName }
  | { readonly kind: 'grace'; readonly client: ClientId };

/** What happened. Every event is journalled before it is applied. */
export type RoundEvent =
  | { readonly type: 'client-connected'; readonly client: ClientId; readonly at: Instant }
  | { readonly type: 'client-disconnected'; readonly client: ClientId; readonly at: Instant }
  | { readonly type: 'client-left'; readonly client: ClientId; readonly at: Instant }
  /** The announcement is signed and stored. */
  | { readonly type: 'round-opened'; readonly round: RoundId; readonly transcript: Digest; readonly at: Instant }
  /** A verified message is stored durably. */
  | { readonly type: 'contribution-stored'; readonly client: ClientId; readonly round: RoundId; readonly stage: StageName; readonly digest: Digest; readonly at: Instant }
  | { readonly type: 'client-declined'; readonly client: ClientId; readonly round: RoundId; readonly at: Instant }
  | { readonly type: 'timer-fired'; readonly timer: RoundTimer; readonly at: Instant }
  /** The aggregate, and what the teacher learned from it, are stored. `accuracy` is that of the evaluation set. */
  | { readonly type: 'round-aggregated'; readonly round: RoundId; readonly accuracy: number | null; readonly at: Instant }
  | { readonly type: 'round-failed'; readonly round: RoundId; readonly code: ProblemCode; readonly at: Instant }
  /** The process was started again: nobody is connected. */
  | { readonly type: 'restarted'; readonly at: Instant };

/** What to do next. Each effect may run twice (after a crash) and must not mind. */
export type RoundEffect =
  | { readonly type: 'start-timer'; readonly timer: RoundTimer; readonly at: Instant }
  /** Make keys, pick the transfer batch, publish soft labels, sign the announcement; then report `round-opened`. */
  | { readonly type: 'open-round'; readonly round: RoundId; readonly cohort: readonly ClientId[]; readonly previous: Digest | null }
  | { readonly type: 'announce'; readonly round: RoundId; readonly clients: readonly ClientId[] }
  /** Publish what the stage before collected and ask `clients` for the messages of `stage`. */
  | { readonly type: 'open-stage'; readonly round: RoundId; readonly stage: StageName; readonly clients: readonly ClientId[]; readonly closed: readonly ClosedStage[] }
  /** Open and combine the survivors' contributions; then report `round-aggregated` or `round-failed`. */
  | { readonly type: 'aggregate'; readonly round: RoundId; readonly survivors: readonly Contribution[]; readonly closed: readonly ClosedStage[] }
  | {
      readonly type: 'close-round';
      readonly round: RoundId;
      readonly outcome: 'released' | 'aborted';
      readonly code: ProblemCode | null;
      /** Counted in the aggregate; of an aborted round, the messages of the stage in which it ended. */
      readonly contributions: number;
      readonly cohort: readonly ClientId[];
      /** The stage in which an aborted round ended, and how many messages that one needed; `undefined` for a round that was not announced, or is released. */
      readonly ended: { readonly stage: StageName; readonly quorum: number } | undefined;
    }
  | { readonly type: 'finish'; readonly reason: FinishReason };
