/**
 * What was released, as data. An event holds what is necessary and sufficient to account for it; what it costs is an
 * accountant's business (`accountants/`). Events are never removed or redefined: ledgers of old runs hold them.
 *
 * An event says nothing about how well the noise was sampled, or about metrics, timing and participation, which are
 * separate releases that nobody accounts for (docs/privacy-model.md, "What is not protected").
 */
import { z } from 'zod';

/**
 * Which two worlds a guarantee can't tell apart, for the privacy unit `client` (everything of one client):
 * - `replaceOne`: one client's whole private dataset is replaced by any other.
 * - `zeroOut`: one client's contribution is replaced by the all-zero matrix. Weaker; the roster is public in both.
 */
export type NeighboringRelation = 'zeroOut' | 'replaceOne';

export const neighboringRelations: readonly NeighboringRelation[] = ['replaceOne', 'zeroOut'];

/**
 * The same for the privacy unit `record` (one example of one client), used for what a client does inside its own training:
 * - `addOrRemoveRecord`: one record is there or not; the number of records that scales the batch (`q * N`) stays the same.
 * - `replaceRecord`: one record is replaced by any other; the number of records is public.
 */
export type RecordRelation = 'addOrRemoveRecord' | 'replaceRecord';

/** Every relation that an accountant can be asked about. A ledger's totals are asked for by a `NeighboringRelation`, of a client or of a record (`accountedRelation`). */
export type AccountedRelation = NeighboringRelation | RecordRelation;

export const accountedRelations: readonly AccountedRelation[] = ['replaceOne', 'zeroOut', 'addOrRemoveRecord', 'replaceRecord'];

const noiseMultiplier = z.number().min(0).max(1e300);
/** A scale, a standard deviation or a distance: not negative, and small enough that its square is finite. */
const magnitude = z.number().min(0).max(1e150);
const dimension = z.int().min(1).max(2 ** 53 - 1);
const categories = z.int().min(2).max(2 ** 31 - 1);
const localEpsilon = z.number().min(0).max(700);
const queries = z.int().min(0).max(2 ** 53 - 1);

const gaussian = z.strictObject({ kind: z.literal('gaussian'), noiseMultiplier });
const continuousLaplace = z.strictObject({ kind: z.literal('continuousLaplace'), noiseMultiplier, dimension });

/** One release by one client: the events that a ledger records. */
export const ReleaseEventSchema = z.discriminatedUnion('kind', [
  /** Something left without noise: epsilon is infinite. */
  z.strictObject({ kind: z.literal('nonPrivate') }),
  /**
   * `x + N(0, sigma^2 I)`, or any function of it (the rounded Gaussian on the wire is one), where
   * `noiseMultiplier = sigma / Delta_2` and `Delta_2` is the largest L2 distance between the `x` of two neighbors.
   */
  gaussian,
  /**
   * `x + Laplace(b)` per coordinate, continuous, or discrete with integer `x` and the same `b`, where
   * `noiseMultiplier = b / Delta_1` and `Delta_1` is the largest L1 distance between the `x` of two neighbors.
   */
  z.strictObject({ kind: z.literal('laplace'), noiseMultiplier }),
  /**
   * `x + Laplace(b)` per coordinate with continuous noise and `dimension` coordinates, `noiseMultiplier = b / Delta_1`. Says more
   * than `laplace`, which may be discrete, and so has tighter bounds.
   */
  continuousLaplace,
  /**
   * Integer `x` plus discrete Laplace noise, `P[k] ~ exp(-|k| / scale)`, per coordinate. `l1Sensitivity`: the largest L1 distance
   * between the integer `x` of two neighbors, an integer.
   */
  z.strictObject({ kind: z.literal('discreteLaplace'), scale: magnitude, l1Sensitivity: z.int().min(0).max(2 ** 53 - 1), dimension }),
  /**
   * Integer `x` plus discrete Gaussian noise, `P[k] ~ exp(-k^2 / (2 sigma^2))`, per coordinate. `l2Sensitivity`: the largest L2
   * distance between the integer `x` of two neighbors.
   */
  z.strictObject({ kind: z.literal('discreteGaussian'), sigma: magnitude, l2Sensitivity: magnitude, dimension }),
  /**
   * Integer `x` plus the sum of `shares` independent discrete Gaussians of parameter `sigma` each, per coordinate, seen as a
   * sum only (secure aggregation). `shares` counts the noise that is certainly there: honest survivors, not invited clients.
   * Sensitivities are those of the integer `x`, after rounding.
   */
  z.strictObject({
    kind: z.literal('distributedDiscreteGaussian'),
    sigma: magnitude,
    shares: z.int().min(1).max(10_000_000),
    l2Sensitivity: magnitude,
    l1Sensitivity: magnitude,
    dimension,
  }),
  /**
   * Integer `x` plus Skellam noise of variance `variance` in all (the difference of two Poissons; closed under sums), per
   * coordinate. Sensitivities are those of the integer `x`, after rounding.
   */
  z.strictObject({ kind: z.literal('skellam'), variance: magnitude, l2Sensitivity: magnitude, l1Sensitivity: magnitude }),
  /** k-ary randomized response: the true one of `categories` values with probability `e^epsilon / (e^epsilon + categories - 1)`, else one of the others. */
  z.strictObject({ kind: z.literal('randomizedResponse'), epsilon: localEpsilon, categories }),
  /**
   * Subset selection: a random set of `subsetSize` out of `categories` values, which holds the true one with probability
   * `w e^epsilon / (w e^epsilon + categories - w)`, `w = subsetSize`, and is uniform otherwise (Ye & Barg 2018).
   */
  z.strictObject({ kind: z.literal('subsetSelection'), epsilon: localEpsilon, categories, subsetSize: z.int().min(1).max(2 ** 31 - 2) }),
  /**
   * Optimized unary encoding of one of `categories` values: the bit of the true value is 1 with probability 1/2, every other
   * bit with probability `1 / (e^epsilon + 1)` (Wang et al. 2017).
   */
  z.strictObject({ kind: z.literal('unaryEncoding'), epsilon: localEpsilon, categories }),
  /**
   * `queries` answers `argmax_j (votes_j + N(0, sigma^2))`, or the noisy votes themselves, where a client has one vote per
   * query. What is accounted is the noisy histogram, so the bound holds against whoever sees it.
   */
  z.strictObject({ kind: z.literal('gnMax'), sigma: magnitude, queries }),
  /**
   * `queries` times `max_j votes_j + N(0, sigmaThreshold^2) >= threshold`, and where that holds, at most `answered` times in
   * all, a `gnMax` answer with `sigmaVotes`. `answered` is the limit at which the run stops, fixed in advance.
   */
  z.strictObject({ kind: z.literal('confidentGnMax'), sigmaThreshold: magnitude, sigmaVotes: magnitude, queries, answered: queries }),
  /**
   * `steps` steps of private training on one client's records (DP-SGD), and everything that is computed from the model alone: each adds noise to the sum of the
   * clipped gradients of a Poisson batch, `noiseMultiplier` = standard deviation / clipping norm. What is divided by afterwards does not depend on the record.
   * Of a record only, hence under `RecordRelation`s only.
   */
  z.strictObject({ kind: z.literal('privateTraining'), samplingProbability: z.number().min(0).max(1), noiseMultiplier, steps: z.int().min(0).max(2 ** 31 - 1) }),
  /** Anything that was proven rho-zCDP (Bun & Steinke 2016) for the relation that is accounted. */
  z.strictObject({ kind: z.literal('zcdp'), rho: z.number().min(0).max(1e300) }),
]);
export type ReleaseEvent = z.infer<typeof ReleaseEventSchema>;

/**
 * Steps of a private training run on the records of one client: record level, and not for a ledger. Sampling counts only
 * because nobody but the client knows which records were drawn; that is never so for clients in a cohort.
 */
export const SampledEventSchema = z.discriminatedUnion('kind', [
  /** `event` on a batch that holds each record independently with probability `samplingProbability`; sensitivities are those of adding or removing a record. */
  z.strictObject({ kind: z.literal('poissonSampled'), samplingProbability: z.number().min(0).max(1), event: z.discriminatedUnion('kind', [gaussian, continuousLaplace]) }),
  /** `event` on a uniformly random batch of `sampleSize` of `datasetSize` records; sensitivities are those of replacing a record. */
  z.strictObject({ kind: z.literal('sampledWithoutReplacement'), sampleSize: z.int().min(1), datasetSize: z.int().min(1), event: gaussian }),
]);
export type SampledEvent = z.infer<typeof SampledEventSchema>;

/** An event that is not a composition of others. */
export type SingleEvent = ReleaseEvent | SampledEvent;

export type DpEvent =
  | SingleEvent
  /** All of `events`, each chosen after seeing the earlier ones (adaptive composition). */
  | { readonly kind: 'composed'; readonly events: readonly DpEvent[] }
  /** `event`, `count` times (an integer >= 0), each with fresh noise. */
  | { readonly kind: 'selfComposed'; readonly event: DpEvent; readonly count: number };

/** For events that come from a file. */
export const DpEventSchema: z.ZodType<DpEvent> = z.lazy(() =>
  z.discriminatedUnion('kind', [
    ...ReleaseEventSchema.options,
    ...SampledEventSchema.options,
    z.strictObject({ kind: z.literal('composed'), events: z.array(DpEventSchema).max(100_000) }),
    z.strictObject({ kind: z.literal('selfComposed'), event: DpEventSchema, count: z.int().min(0) }),
  ]),
);
