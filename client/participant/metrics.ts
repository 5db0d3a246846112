/**
 * What this client measures about itself: lines of `metrics.jsonl` in its own store, and never a message. No times, so that a simulation writes the
 * same lines again.
 */
import { z } from 'zod';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { StudentQuality } from './training.ts';

const log = 'metrics.jsonl';
const share = z.number().min(0).max(1).nullable();
const nats = z.number().min(0).nullable();

export const ClientMetricsSchema = z.object({
  /** 0 for `pretrain`; the last released round for `final`. */
  round: z.int().min(0),
  phase: z.enum(['pretrain', 'round', 'final']),
  /** Whether the coordinator has this round's contribution. */
  contributed: z.boolean(),
  /** On the owner's test set, in [0, 1]; null without one. */
  testAccuracy: share,
  /** Mean negative log-likelihood in nats; null without a test set. */
  testNll: nats,
  /** Of a student with the same seed that trained as often on the private dataset, and never distilled; null when it is not tracked. */
  localOnlyTestAccuracy: share,
  localOnlyTestNll: nats,
  /** Replace-one, at the policy's delta, over everything in the ledger. */
  epsilonSpent: z.union([z.number().min(0), z.literal('infinite')]),
  /** Payload bytes since the participant started. */
  bytesUp: z.int().min(0),
  bytesDown: z.int().min(0),
});
export type ClientMetrics = z.infer<typeof ClientMetricsSchema>;

export class ClientMetricsLog {
  readonly #store: DurableStore;
  readonly #lines: ClientMetrics[];

  private constructor(store: DurableStore, lines: ClientMetrics[]) {
    this.#store = store;
    this.#lines = lines;
  }

  static async open(store: DurableStore): Promise<ClientMetricsLog> {
    const records = await store.readLog(log);
    return new ClientMetricsLog(store, records.flatMap((record) => ClientMetricsSchema.safeParse(record).data ?? []));
  }

  find(phase: ClientMetrics['phase'], round?: number): ClientMetrics | undefined {
    return this.#lines.find((line) => line.phase === phase && (round === undefined || line.round === round));
  }

  /** Appends a line, unless there is one for this round and phase: work that is repeated after a crash is measured once. */
  async append(line: ClientMetrics): Promise<void> {
    if (this.find(line.phase, line.round) !== undefined) return;
    this.#lines.push(line);
    await this.#store.append(log, line);
  }
}

export function qualityFields(quality: StudentQuality | undefined, localOnly: StudentQuality | undefined): Pick<ClientMetrics, 'testAccuracy' | 'testNll' | 'localOnlyTestAccuracy' | 'localOnlyTestNll'> {
  return { testAccuracy: quality?.accuracy ?? null, testNll: quality?.nll ?? null, localOnlyTestAccuracy: localOnly?.accuracy ?? null, localOnlyTestNll: localOnly?.nll ?? null };
}

/** JSON has no infinity. */
export function writeEpsilon(epsilon: number): ClientMetrics['epsilonSpent'] {
  return epsilon === Infinity ? 'infinite' : epsilon;
}
