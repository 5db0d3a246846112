/**
 * One release, as the signed manifest of a round describes it: its parameters, the sensitivity they imply, the event to
 * account for, and the plan that meets a target epsilon.
 *
 * Everything here follows from public parameters. Proofs of the sensitivities: docs/privacy-model.md, section 3. The
 * sensitivity is that of a WHOLE matrix: one private record changes the trained student and with it every row, so noise
 * calibrated to one row would not be a guarantee for anybody. The unit is the client, or with `shards` or `recordVotes` the record.
 *
 * `dpSgd` is the exception: the noise is in the training (docs/privacy-model.md, "Private training"), the unit is the record, and predictions leave as they are.
 */
import { z } from 'zod';
import { FederationError } from '../errors.ts';
import type { OutputKind } from '../types/matrix.ts';
import type { Delta } from '../types/units.ts';
import { checkDelta } from './accountants/accountant.ts';
import { calibrateParameter } from './accountants/calibration.ts';
import { accountantFor } from './accountants/composite-accountant.ts';
import { roundDown } from './accountants/numerics.ts';
import { RdpAccountant } from './accountants/rdp.ts';
import type { AccountedRelation, NeighboringRelation, ReleaseEvent } from './dp-event.ts';
import { MAX_SIGMA } from './sampling/discrete-gaussian.ts';

/** Largest matrix that is ever allocated for one release. */
export const MAX_COORDINATES = 2 ** 26;
/** Largest magnitude of an integer on the wire. */
const MAX_INT32 = 2 ** 31 - 1;
/** A Gaussian coordinate leaves +-12 sigma with probability below 2^-107. */
const GAUSSIAN_TAIL_SIGMAS = 12;
/** A discrete Laplace coordinate leaves +-80 scales with probability below 2^-115. */
const LAPLACE_TAIL_SCALES = 80;
/** Smallest standard deviation of one share of distributed noise, in grid steps: from here on a sum of shares is a discrete Gaussian up to a distance of 1e-35. */
export const MIN_SHARE_SIGMA = 3;
/** Most shards of one client. */
export const MAX_SHARDS = 10_000;
/** Most noise shares that one release counts. */
const MAX_SHARES = 100_000;
/** Most records of one client that vote: counts up to here are exact in float32. */
export const MAX_VOTING_RECORDS = 2 ** 24;
/** Sums of squares of integers up to here are exact in float64, so the norm check on integers has no rounding error. */
const MAX_SQUARED_NORM = 2 ** 52;
/**
 * Published sensitivities are this much (relative) above the mathematical bound: rows are clipped in float64, whose error
 * for up to 1000 columns stays below 2^-42. Makes the exact integer check in `clipping.ts` impossible to trip.
 */
export const FLOAT_SLACK = 2 ** -36;

const common = {
  outputKind: z.enum(['probabilities', 'logits']),
  /** Transfer examples in this release. */
  rows: z.int().min(1).max(2 ** 20),
  /** Classes. */
  columns: z.int().min(1).max(1000),
  /** L2 bound of one row, in units of the predictions. Logits only: a row of probabilities is bounded by 1 without it. */
  rowClippingNorm: z.number().positive().max(1e6).optional(),
  /** Grid step of the integers on the wire, in units of the predictions. */
  gridStep: z.number().min(2 ** -24).max(1),
  /**
   * Sample-and-aggregate: the matrix is the SUM of this many matrices, each from a model of one shard of the client's records. One record is in
   * one shard, so the sensitivity is that of one such matrix, and the unit is the record.
   */
  shards: z.int().min(2).max(MAX_SHARDS).optional(),
  /** Each row (of each shard) is one-hot, or all zero: one vote, or none. Probabilities only. */
  votes: z.literal(true).optional(),
  /**
   * The matrix is a histogram: each of the client's first records, up to this many, casts one vote in one cell, and none anywhere else. The unit is the record,
   * and the sensitivity that of one vote, whatever the number of rows. Probabilities only.
   */
  recordVotes: z.int().min(1).max(MAX_VOTING_RECORDS).optional(),
};
/** Calibrated noise multipliers are multiples of this: short decimal numbers that all parties read alike. */
const NOISE_MULTIPLIER_STEP = 2 ** -10;
/** Noise multipliers among which one is searched: below the first there is next to no privacy, beyond the last next to no signal. */
const NOISE_MULTIPLIER_RANGE = [2 ** -4, 2 ** 14] as const;

/**
 * The private training that one release pays for (DP-SGD): what the noise of a step is, and how many steps a client may make for each release. How many records
 * it has is not in it.
 */
export const PrivateTrainingSchema = z.strictObject({
  /** L2 bound of one record's gradient. */
  clippingNorm: z.number().positive().max(1e6),
  /** Standard deviation of the noise on a step's sum of gradients, as a multiple of `clippingNorm`. */
  noiseMultiplier: z.number().positive().max(1e6),
  /** Probability with which a record is in a step's batch. */
  samplingRate: z.number().positive().max(1),
  /** Steps that are charged with one release. */
  steps: z.int().min(1).max(1_000_000),
});
export type PrivateTrainingNoise = z.infer<typeof PrivateTrainingSchema>;

const noiseInteger = z.int().min(1).max(MAX_INT32);

/** What a round manifest says about one release. Noise is in grid steps, and integer, so that all parties agree on it exactly. */
export const ReleaseParametersSchema = z
  .discriminatedUnion('mechanism', [
    z.strictObject({ mechanism: z.literal('none'), ...common, noise: z.null() }),
    /** `sigmaGrid`: standard deviation of the Gaussian before rounding, per coordinate. */
    z.strictObject({ mechanism: z.literal('gaussian'), ...common, noise: z.strictObject({ sigmaGrid: noiseInteger }) }),
    /** `scaleGrid`: the scale `b` of the discrete Laplace, `P[k] ~ exp(-|k|/b)`, per coordinate. */
    z.strictObject({ mechanism: z.literal('laplace'), ...common, noise: z.strictObject({ scaleGrid: noiseInteger }) }),
    /**
     * Distributed noise, for sums that only secure aggregation opens. `sigmaGrid`: parameter of ONE client's discrete Gaussian, per coordinate.
     * `shares`: how many of them are certainly in every sum, i.e. honest survivors; only these are accounted for.
     */
    z.strictObject({
      mechanism: z.literal('discreteGaussian'),
      ...common,
      noise: z.strictObject({ sigmaGrid: z.int().min(MIN_SHARE_SIGMA).max(MAX_SIGMA - 1), shares: z.int().min(1).max(MAX_SHARES) }),
    }),
    /** Predictions of a student that has seen records in private training only; nothing is clipped or added to them. */
    z.strictObject({ mechanism: z.literal('dpSgd'), ...common, noise: PrivateTrainingSchema }),
  ])
  .superRefine((parameters, context) => {
    const problem = findReleaseProblem(parameters);
    if (problem) context.addIssue({ code: 'custom', path: [problem.field], message: `${problem.message}: expected ${problem.expected}, got ${problem.got}` });
  });
export type ReleaseParameters = z.infer<typeof ReleaseParametersSchema>;
export type MechanismName = ReleaseParameters['mechanism'];
export type GaussianRelease = Extract<ReleaseParameters, { mechanism: 'gaussian' }>;
export type LaplaceRelease = Extract<ReleaseParameters, { mechanism: 'laplace' }>;
export type DiscreteGaussianRelease = Extract<ReleaseParameters, { mechanism: 'discreteGaussian' }>;
export type PrivateTrainingRelease = Extract<ReleaseParameters, { mechanism: 'dpSgd' }>;
export type NoiselessRelease = Extract<ReleaseParameters, { mechanism: 'none' }>;

/** What one guarantee protects: everything of one client, or one record (example) of it. */
export type PrivacyUnit = 'client' | 'record';

/** The unit that a release protects by itself, not by what a task says of it. */
export function releaseUnit({ shards, recordVotes, mechanism }: Pick<ReleaseParameters, 'shards' | 'recordVotes' | 'mechanism'>): PrivacyUnit {
  return shards === undefined && recordVotes === undefined && mechanism !== 'dpSgd' ? 'client' : 'record';
}

/** What an accountant is asked for: a record that is missing leaves its position empty, which is to remove it and keep what batches are scaled by. */
export function accountedRelation(unit: PrivacyUnit, adjacency: NeighboringRelation): AccountedRelation {
  if (unit === 'client') return adjacency;
  return adjacency === 'replaceOne' ? 'replaceRecord' : 'addOrRemoveRecord';
}

/** Whether a contribution is integers of the grid, with noise added to each; else it is the predictions themselves. */
export function isOnGrid({ mechanism }: Pick<ReleaseParameters, 'mechanism'>): boolean {
  return mechanism !== 'none' && mechanism !== 'dpSgd';
}

/** Largest norms of one integer matrix, before noise, in grid steps: of a client's, or with `shards` of one shard's. */
export interface MatrixNorms {
  readonly l2: number;
  readonly l1: number;
  /** Largest magnitude of one coordinate. */
  readonly maxAbsolute: number;
}

/** Largest distance between what two neighbors release before noise, in grid steps: of the whole integer matrix. */
export interface ReleaseSensitivity {
  readonly l2: Readonly<Record<NeighboringRelation, number>>;
  readonly l1: Readonly<Record<NeighboringRelation, number>>;
  /** Largest magnitude of one coordinate of a client's matrix. */
  readonly maxAbsolute: number;
}

type ReleaseShape = Pick<ReleaseParameters, 'outputKind' | 'rows' | 'columns' | 'rowClippingNorm' | 'gridStep' | 'shards' | 'recordVotes'>;

/** What one vote is worth at most, in grid steps. */
function voteBound({ gridStep }: Pick<ReleaseParameters, 'gridStep'>): number {
  return (1 / gridStep) * (1 + FLOAT_SLACK);
}

/**
 * Per row: probabilities (and votes, which are some) are non-negative with L1 norm <= 1, hence L2 norm <= 1; logits have L2 norm <= s,
 * hence L1 norm <= s sqrt(columns). Rounding toward zero only shrinks. A histogram of records: all may be in one cell.
 */
export function matrixNorms(parameters: ReleaseShape): MatrixNorms {
  const { rows, columns, gridStep, outputKind, recordVotes } = parameters;
  if (recordVotes !== undefined) {
    const most = recordVotes * voteBound(parameters);
    return { l2: most, l1: most, maxAbsolute: most };
  }
  const rowNorm = ((outputKind === 'probabilities' ? 1 : requireRowClippingNorm(parameters)) / gridStep) * (1 + FLOAT_SLACK);
  return { l2: rowNorm * Math.sqrt(rows), l1: rowNorm * (outputKind === 'probabilities' ? 1 : Math.sqrt(columns)) * rows, maxAbsolute: rowNorm };
}

/**
 * Sensitivities in grid steps (docs/privacy-model.md, section 3).
 *
 * With `shards` the unit is the record: replaced by another (`replaceOne`), or taken away with its position left empty (`zeroOut`). Both change the
 * matrix of one shard to any other one, so both have the replace-one sensitivity of one matrix, whatever the number of shards.
 *
 * With `recordVotes` too: a record that is another moves one vote from one cell to another, one that is missing takes its vote away.
 */
export function releaseSensitivity(parameters: ReleaseShape): ReleaseSensitivity {
  const { l2, l1, maxAbsolute } = matrixNorms(parameters);
  if (parameters.recordVotes !== undefined) {
    const vote = voteBound(parameters);
    return { l2: { zeroOut: vote, replaceOne: Math.SQRT2 * vote }, l1: { zeroOut: vote, replaceOne: 2 * vote }, maxAbsolute };
  }
  // Two vectors with non-negative coordinates: ||g - g'||^2 = ||g||^2 + ||g'||^2 - 2<g, g'> <= 2 l2^2.
  const l2Replace = (parameters.outputKind === 'probabilities' ? Math.SQRT2 : 2) * l2;
  const { shards } = parameters;
  if (shards !== undefined) return { l2: { zeroOut: l2Replace, replaceOne: l2Replace }, l1: { zeroOut: 2 * l1, replaceOne: 2 * l1 }, maxAbsolute: shards * maxAbsolute };
  return { l2: { zeroOut: l2, replaceOne: l2Replace }, l1: { zeroOut: l1, replaceOne: 2 * l1 }, maxAbsolute };
}

/** The event of sending one release. Noise multipliers are rounded down. */
export function releaseEvent(parameters: ReleaseParameters, adjacency: NeighboringRelation): ReleaseEvent {
  const sensitivity = releaseSensitivity(parameters);
  switch (parameters.mechanism) {
    case 'none':
      return { kind: 'nonPrivate' };
    case 'gaussian':
      // round(g + N) with integer g is a function of the Gaussian mechanism's output (docs/privacy-model.md, section 4).
      return { kind: 'gaussian', noiseMultiplier: roundDown(parameters.noise.sigmaGrid / sensitivity.l2[adjacency]) };
    case 'laplace':
      return { kind: 'laplace', noiseMultiplier: roundDown(parameters.noise.scaleGrid / sensitivity.l1[adjacency]) };
    case 'discreteGaussian':
      return {
        kind: 'distributedDiscreteGaussian',
        sigma: parameters.noise.sigmaGrid,
        shares: parameters.noise.shares,
        l2Sensitivity: sensitivity.l2[adjacency],
        l1Sensitivity: sensitivity.l1[adjacency],
        dimension: parameters.rows * parameters.columns,
      };
    case 'dpSgd': {
      // Whatever is computed from the weights is post-processing: the shape of the matrix does not count.
      const { noiseMultiplier, samplingRate, steps } = parameters.noise;
      return { kind: 'privateTraining', samplingProbability: samplingRate, noiseMultiplier, steps };
    }
  }
}

/** The events of one release for both relations: what a ledger entry and a statement hold. */
export type ReleaseEvents = Readonly<Record<NeighboringRelation, ReleaseEvent>>;

export function releaseEvents(parameters: ReleaseParameters): ReleaseEvents {
  return { zeroOut: releaseEvent(parameters, 'zeroOut'), replaceOne: releaseEvent(parameters, 'replaceOne') };
}

/** Throws `config-invalid` unless the release can be computed and sent without overflow. */
export function checkRelease(parameters: ReleaseParameters): void {
  const problem = findReleaseProblem(parameters);
  if (problem) throw new FederationError('config-invalid', problem.message, problem);
}

export interface ReleasePlanRequest {
  readonly mechanism: MechanismName;
  readonly outputKind: OutputKind;
  readonly rows: number;
  readonly columns: number;
  /** Ignored for probabilities. */
  readonly rowClippingNorm?: number | undefined;
  readonly gridStep: number;
  /** Target over all `releases`, replace-one. Needed unless the mechanism is `none`. */
  readonly epsilon?: number | undefined;
  readonly delta: number;
  /** How many releases one client may send: rounds, and every retried round counts again. */
  readonly releases: number;
  /** Noise shares that are certainly in every sum: fewest survivors less the corrupt ones. Needed for `discreteGaussian`, and only for it. */
  readonly shares?: number | undefined;
  readonly shards?: number | undefined;
  /** Default false. */
  readonly votes?: boolean | undefined;
  readonly recordVotes?: number | undefined;
  /** Most clients in one sum: the plan then fits the ring. For secure aggregation. */
  readonly clients?: number | undefined;
  /** Needed for `dpSgd`, and only for it. Without a noise multiplier the smallest one is searched. */
  readonly privateTraining?: (Omit<PrivateTrainingNoise, 'noiseMultiplier'> & { readonly noiseMultiplier?: number | undefined }) | undefined;
}

/**
 * The smallest noise (integer, but for `dpSgd`) for which `releases` releases meet (epsilon, delta), replace-one. A search over the same
 * accountant that accounts for the run, so planning and accounting can't disagree: `accounted epsilon <= epsilon` always.
 */
export function planRelease(request: ReleasePlanRequest): ReleaseParameters {
  const { mechanism, outputKind, rows, columns, gridStep, releases, shards, clients } = request;
  const rowClippingNorm = outputKind === 'logits' ? requireRowClippingNorm(request) : undefined;
  const base = {
    outputKind, rows, columns, gridStep,
    ...(rowClippingNorm === undefined ? {} : { rowClippingNorm }),
    ...(shards === undefined ? {} : { shards }),
    ...(request.votes === true ? { votes: true as const } : {}),
    ...(request.recordVotes === undefined ? {} : { recordVotes: request.recordVotes }),
  };
  const finished = (parameters: ReleaseParameters): ReleaseParameters => {
    const plan = parsePlan(parameters);
    if (clients !== undefined) checkSumFits(plan, clients);
    return plan;
  };
  if (mechanism === 'none') return finished({ mechanism, ...base, noise: null });

  const epsilon = request.epsilon;
  if (epsilon === undefined || !(epsilon > 0)) {
    throw new FederationError('config-invalid', `the ${mechanism} mechanism needs a target epsilon`, {
      field: 'privacy.epsilon',
      expected: 'a number > 0',
      got: String(epsilon),
      next: 'Set privacy.epsilon, or choose privacy.mechanism: none.',
    });
  }
  checkDelta(request.delta);
  if (!Number.isSafeInteger(releases) || releases < 1) {
    throw new FederationError('config-invalid', 'the number of releases is not usable', { field: 'schedule.rounds', expected: 'an integer >= 1', got: String(releases) });
  }
  if (mechanism === 'dpSgd') return finished({ mechanism, ...base, noise: planPrivateTraining(request, epsilon) });
  const shares = mechanism === 'discreteGaussian' ? requireShares(request) : 1;
  const withNoise = (noise: number): ReleaseParameters => {
    switch (mechanism) {
      case 'gaussian':
        return { mechanism, ...base, noise: { sigmaGrid: noise } };
      case 'laplace':
        return { mechanism, ...base, noise: { scaleGrid: noise } };
      case 'discreteGaussian':
        return { mechanism, ...base, noise: { sigmaGrid: noise, shares } };
    }
  };
  const isEnough = (noise: number) => planCost(withNoise(noise), releases, request.delta as Delta) <= epsilon;
  const [least, most] = mechanism === 'discreteGaussian' ? [MIN_SHARE_SIGMA, MAX_SIGMA - 1] : [1, MAX_INT32];
  // The shape must be sound before anything is computed from it.
  parsePlan(withNoise(least));
  if (!isEnough(most)) throw new FederationError('config-invalid', `no ${mechanism} noise on 32-bit integers meets epsilon ${epsilon}`, noiseTooLarge(mechanism, 'more'));
  let tooSmall = least - 1;
  let enough: number = most;
  while (enough - tooSmall > 1) {
    const middle = Math.floor((tooSmall + enough) / 2);
    if (isEnough(middle)) enough = middle;
    else tooSmall = middle;
  }
  return finished(withNoise(enough));
}

/** The epsilon that these releases cost together, replace-one, for the unit that they protect. */
export function planCost(parameters: ReleaseParameters, releases: number, delta: Delta): number {
  const run = { kind: 'selfComposed', event: releaseEvent(parameters, 'replaceOne'), count: releases } as const;
  return accountantFor([run], accountedRelation(releaseUnit(parameters), 'replaceOne')).epsilon(delta);
}

/** All steps of all releases within epsilon. Throws `config-invalid` for a given noise multiplier that is too small. */
function planPrivateTraining({ privateTraining, releases, delta }: ReleasePlanRequest, epsilon: number): PrivateTrainingNoise {
  if (privateTraining === undefined) {
    throw new FederationError('config-invalid', 'the dpSgd mechanism needs to know how a client trains', { field: 'privacy.dpSgd', expected: 'clippingNorm, samplingRate and stepsPerRound', got: 'nothing', next: 'Set privacy.dpSgd.' });
  }
  const { clippingNorm, samplingRate, steps } = privateTraining;
  const event = (noiseMultiplier: number) =>
    ({ kind: 'selfComposed', event: { kind: 'privateTraining', samplingProbability: samplingRate, noiseMultiplier, steps }, count: releases }) as const;
  const accountant = new RdpAccountant('replaceRecord');
  const given = privateTraining.noiseMultiplier;
  if (given === undefined) {
    const least = calibrateParameter({ accountant, event, epsilon, delta, range: NOISE_MULTIPLIER_RANGE, tolerance: 1e-4 });
    return { clippingNorm, noiseMultiplier: Math.ceil(least / NOISE_MULTIPLIER_STEP) * NOISE_MULTIPLIER_STEP, samplingRate, steps };
  }
  const cost = accountant.compose(event(given)).epsilon(delta as Delta);
  if (cost <= epsilon) return { clippingNorm, noiseMultiplier: given, samplingRate, steps };
  throw new FederationError('config-invalid', 'this noise multiplier does not meet the target epsilon', {
    field: 'privacy.dpSgd.noiseMultiplier',
    expected: `an epsilon of at most ${epsilon} for ${releases} releases of ${steps} steps`,
    got: `epsilon ${cost.toFixed(3)}`,
    next: 'Leave noiseMultiplier out, so that it is calibrated, or raise it, or raise privacy.epsilon.',
  });
}

/** `quorum` survivors, of which `maxCorrupt` may add no noise, or know their own. */
function requireShares({ shares }: ReleasePlanRequest): number {
  if (shares !== undefined && Number.isSafeInteger(shares) && shares >= 1 && shares <= MAX_SHARES) return shares;
  throw new FederationError('config-invalid', 'distributed noise needs honest survivors to add it', {
    field: 'schedule.quorum',
    expected: `schedule.quorum - privacy.secureAggregation.maxCorrupt in [1, ${MAX_SHARES}]`,
    got: String(shares),
    next: 'Raise schedule.quorum, or lower privacy.secureAggregation.maxCorrupt.',
  });
}

/**
 * Largest magnitude of a coordinate of the sum of `clients` honest contributions, but for a probability below 2^-100. Discrete Gaussians, and so
 * their sums, are subgaussian with their sigma^2 as variance proxy (Canonne, Kamath & Steinke 2020, Fact 20).
 */
export function largestSum(parameters: ReleaseParameters, clients: number): number {
  return clients * releaseSensitivity(parameters).maxAbsolute + Math.sqrt(clients) * noiseTail(parameters);
}

/** Throws `config-invalid` unless a sum of this many honest contributions fits [-2^31, 2^31). A wrap would cost accuracy, never privacy. */
export function checkSumFits(parameters: ReleaseParameters, clients: number): void {
  const largest = largestSum(parameters, clients);
  if (largest < MAX_INT32) return;
  throw new FederationError('config-invalid', `a sum of ${clients} noised predictions would not fit 32-bit integers`, { ...noiseTooLarge(parameters.mechanism, largest.toExponential(3)), expected: `largest sum <= ${MAX_INT32}` });
}

/** What one grid step of a contribution is worth in units of the predictions: with shards, a contribution is their sum. */
export function contributionStep({ gridStep, shards = 1 }: Pick<ReleaseParameters, 'gridStep' | 'shards'>): number {
  return gridStep / shards;
}

interface ReleaseProblem {
  readonly field: string;
  readonly message: string;
  readonly expected: string;
  readonly got: string;
  readonly next: string;
}

function findReleaseProblem(parameters: ReleaseParameters): ReleaseProblem | undefined {
  const { outputKind, rows, columns, rowClippingNorm } = parameters;
  if ((outputKind === 'logits') !== (rowClippingNorm !== undefined)) {
    return {
      field: 'rowClippingNorm',
      message: 'a row clipping norm belongs to logits, and only to them',
      expected: outputKind === 'logits' ? 'a number > 0' : 'no value for probabilities',
      got: String(rowClippingNorm),
      next: 'Set privacy.rowClippingNorm exactly when predictions are logits.',
    };
  }
  if (parameters.mechanism === 'dpSgd' && parameters.shards !== undefined) {
    return { field: 'shards', message: 'private training has no shards', expected: 'no shards', got: String(parameters.shards), next: 'Remove privacy.sampleAndAggregate, or choose another mechanism.' };
  }
  if (parameters.votes === true && outputKind !== 'probabilities') {
    return { field: 'votes', message: 'votes are probabilities', expected: 'outputKind probabilities', got: outputKind, next: 'Aggregate with meanProbabilities or entropyReduction, or set privacy.sampleAndAggregate.votes to false.' };
  }
  const problem = findRecordVotesProblem(parameters);
  if (problem !== undefined) return problem;
  if (rows * columns > MAX_COORDINATES) {
    return { field: 'rows', message: 'the matrix is too large', expected: `rows * columns <= ${MAX_COORDINATES}`, got: String(rows * columns), next: 'Lower schedule.transferBatch.' };
  }
  const { l2 } = matrixNorms(parameters);
  if (l2 ** 2 > MAX_SQUARED_NORM) {
    return {
      field: 'gridStep',
      message: 'the grid is too fine for an exact norm check',
      ...(parameters.recordVotes === undefined
        ? { expected: `rows * (row norm / gridStep)^2 <= ${MAX_SQUARED_NORM}`, next: 'Raise privacy.gridStep, or lower schedule.transferBatch or privacy.rowClippingNorm.' }
        : { expected: `(recordVotes / gridStep)^2 <= ${MAX_SQUARED_NORM}`, next: 'Raise privacy.gridStep, or lower privacy.recordVotes.maxRecords.' }),
      got: (l2 ** 2).toExponential(3),
    };
  }
  // No wrap-around: |g| + tail fits an int32, except with probability < 2^-100 per coordinate. (A wrap costs accuracy, never privacy.)
  const largest = largestInteger(parameters);
  if (largest > MAX_INT32) return { message: 'noised predictions would not fit 32-bit integers', ...noiseTooLarge(parameters.mechanism, largest.toExponential(3)) };
  return undefined;
}

/** One vote a record is a way of its own to fill a matrix: it goes with no other one. */
function findRecordVotesProblem({ recordVotes, shards, votes, outputKind, mechanism }: ReleaseParameters): ReleaseProblem | undefined {
  if (recordVotes === undefined) return undefined;
  const other = shards !== undefined ? 'shards' : votes === true ? 'votes' : outputKind !== 'probabilities' ? 'outputKind' : mechanism === 'dpSgd' ? 'mechanism' : undefined;
  if (other === undefined) return undefined;
  return {
    field: 'recordVotes',
    message: 'one vote a record does not go with other predictions',
    expected: 'no shards, votes, logits or private training',
    got: other,
    next: 'Remove privacy.recordVotes, or privacy.sampleAndAggregate and logits, or choose another mechanism.',
  };
}

/** Largest magnitude of a noised integer: an honest client exceeds it with probability below 2^-100 a coordinate. */
export function largestInteger(parameters: ReleaseParameters): number {
  return releaseSensitivity(parameters).maxAbsolute + noiseTail(parameters);
}

function noiseTail(parameters: ReleaseParameters): number {
  switch (parameters.mechanism) {
    case 'none':
    case 'dpSgd':
      return 0;
    case 'gaussian':
    case 'discreteGaussian':
      return GAUSSIAN_TAIL_SIGMAS * parameters.noise.sigmaGrid;
    case 'laplace':
      return LAPLACE_TAIL_SCALES * parameters.noise.scaleGrid;
  }
}

function noiseTooLarge(mechanism: MechanismName, got: string) {
  const tail = mechanism === 'laplace' ? `${LAPLACE_TAIL_SCALES} scaleGrid` : `${GAUSSIAN_TAIL_SIGMAS} sigmaGrid`;
  return {
    field: 'gridStep',
    expected: `largest prediction / gridStep + ${tail} <= ${MAX_INT32}`,
    got,
    next: 'Raise privacy.gridStep (a coarser grid), raise privacy.epsilon, or lower the rounds, the shards, privacy.recordVotes.maxRecords or schedule.transferBatch.',
  };
}

function parsePlan(parameters: ReleaseParameters): ReleaseParameters {
  checkRelease(parameters);
  const result = ReleaseParametersSchema.safeParse(parameters);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new FederationError('config-invalid', 'the release parameters are not valid', {
    field: issue?.path.join('.') ?? 'release',
    expected: issue?.message ?? 'valid release parameters',
    next: 'Correct the privacy section of the task.',
  });
}

function requireRowClippingNorm(parameters: { readonly rowClippingNorm?: number | undefined }): number {
  const norm = parameters.rowClippingNorm;
  if (norm !== undefined && norm > 0 && Number.isFinite(norm)) return norm;
  throw new FederationError('config-invalid', 'logits need a row clipping norm', {
    field: 'privacy.rowClippingNorm',
    expected: 'a number > 0',
    got: String(norm),
    next: 'Set privacy.rowClippingNorm.',
  });
}
