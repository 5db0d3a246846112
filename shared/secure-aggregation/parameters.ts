/** What a round of secure aggregation is run with, and what a client accepts of it. */
import { FederationError } from '../errors.ts';
import { graphShape, MAX_COHORT } from './share-graph.ts';

/** In the signed round document. */
export interface SecureAggregationParameters {
  /** Coordinates of a contribution. */
  readonly dimension: number;
  /** Fewest clients in the roster. */
  readonly minCohort: number;
  /** Fewest clients whose inputs are summed. */
  readonly minSurvivors: number;
  /** Clients that may collude with the coordinator without learning more than a sum. */
  readonly maxCorrupt: number;
}

/** One round. Plain data. */
export interface RoundContext {
  /** In [1, 2^32). */
  readonly round: number;
  /** 32 bytes: hash of everything that the coordinator signed about the round, these parameters included. */
  readonly manifestHash: Uint8Array;
  readonly parameters: SecureAggregationParameters;
}

/** A client's own demands. */
export interface ParticipantPolicy {
  /** Fewest honest clients in a sum: `minSurvivors - maxCorrupt` must not be below. Default 5. */
  readonly minHonest?: number;
  /** Rounds up to this number are refused: a replay, or a second attempt. */
  readonly lastRound: number;
  /** Identity keys that may be in a roster; unknown (every signed advert counts) when absent. */
  readonly enrolled?: readonly Uint8Array[];
}

export const DEFAULT_MIN_HONEST = 5;
/** 64 MiB of masked input. */
export const MAX_DIMENSION = 2 ** 24;
/** Above 1000 clients, unmasking larger contributions takes the coordinator hours. */
export const MAX_DIMENSION_OF_LARGE_COHORT = 2 ** 20;
const LARGE_COHORT = 1000;

function refuse(field: string, expected: string, got: number, next: string): FederationError {
  return new FederationError('policy-refused', `The round's ${field} is refused.`, { field, expected, got: String(got), next });
}

/** Throws `policy-refused` unless a round with these parameters can be safe and can finish. */
export function checkParameters({ round, manifestHash, parameters }: RoundContext): void {
  const { dimension, minCohort, minSurvivors, maxCorrupt } = parameters;
  const next = 'Correct the secure aggregation section of the task.';
  if (!Number.isInteger(round) || round < 1 || round >= 2 ** 32) throw refuse('round', 'an integer in [1, 2^32)', round, next);
  if (manifestHash.length !== 32) throw refuse('manifestHash', '32 bytes', manifestHash.length, next);
  if (!Number.isInteger(dimension) || dimension < 1 || dimension > MAX_DIMENSION) throw refuse('dimension', `an integer in [1, ${MAX_DIMENSION}]`, dimension, next);
  if (!Number.isInteger(minCohort) || minCohort < 2 || minCohort > MAX_COHORT) throw refuse('minCohort', `an integer in [2, ${MAX_COHORT}]`, minCohort, next);
  graphShape({ clients: Math.max(minCohort, minSurvivors), minSurvivors, maxCorrupt });
}

/** Throws `policy-refused` unless the client takes part in such a round. */
export function checkPolicy(context: RoundContext, policy: ParticipantPolicy): void {
  checkParameters(context);
  const { minSurvivors, maxCorrupt } = context.parameters;
  const minHonest = policy.minHonest ?? DEFAULT_MIN_HONEST;
  if (context.round <= policy.lastRound) throw refuse('round', `a number above ${policy.lastRound}`, context.round, 'Announce a new round: keys, noise and numbers are used once.');
  if (minSurvivors - maxCorrupt < minHonest) throw refuse('honest floor', `minSurvivors - maxCorrupt >= ${minHonest}`, minSurvivors - maxCorrupt, 'Raise minSurvivors.');
}

/** Throws `policy-refused` unless this many clients may run the round. */
export function checkCohort(clients: number, { dimension, minCohort }: SecureAggregationParameters): void {
  if (clients < minCohort) throw refuse('roster', `at least ${minCohort} clients`, clients, 'Wait for more clients.');
  if (clients > LARGE_COHORT && dimension > MAX_DIMENSION_OF_LARGE_COHORT) throw refuse('dimension', `at most ${MAX_DIMENSION_OF_LARGE_COHORT} above ${LARGE_COHORT} clients`, dimension, 'Query fewer transfer examples.');
}
