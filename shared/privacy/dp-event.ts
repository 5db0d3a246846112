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

const noiseMultiplier = z.number().min(0).max(1e300);

/** One release by one client: the events that a ledger records. */
export const ReleaseEventSchema = z.discriminatedUnion('kind', [
  /** Something left without noise: epsilon is infinite. */
  z.strictObject({ kind: z.literal('nonPrivate') }),
  /**
   * `x + N(0, sigma^2 I)`, or any function of it (the rounded Gaussian on the wire is one), where
   * `noiseMultiplier = sigma / Delta_2` and `Delta_2` is the largest L2 distance between the `x` of two neighbors.
   */
  z.strictObject({ kind: z.literal('gaussian'), noiseMultiplier }),
  /**
   * `x + Laplace(b)` per coordinate, continuous, or discrete with integer `x` and the same `b`, where
   * `noiseMultiplier = b / Delta_1` and `Delta_1` is the largest L1 distance between the `x` of two neighbors.
   */
  z.strictObject({ kind: z.literal('laplace'), noiseMultiplier }),
]);
export type ReleaseEvent = z.infer<typeof ReleaseEventSchema>;

export type DpEvent =
  | ReleaseEvent
  /** All of `events`, each chosen after seeing the earlier ones (adaptive composition). */
  | { readonly kind: 'composed'; readonly events: readonly DpEvent[] }
  /** `event`, `count` times (an integer >= 0), each with fresh noise. */
  | { readonly kind: 'selfComposed'; readonly event: DpEvent; readonly count: number };
