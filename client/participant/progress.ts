/**
 * What a participant must still know after it was killed: which announcement it has seen last and what became of it. One small blob, replaced
 * atomically. The student's own progress is in its checkpoint (`training.ts`), what was charged is in the ledger.
 */
import { z } from 'zod';
import { FederationError } from '../../shared/errors.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import { DigestSchema, RoundIdSchema } from '../../shared/protocol/messages.ts';
import { fromUtf8, utf8 } from '../../shared/types/bytes.ts';
import type { Digest, RoundId } from '../../shared/types/ids.ts';

const blob = 'progress.json';

/**
 * - `announced`: verified and accepted by the policy; work may be under way.
 * - `accepted`: the coordinator has the contribution.
 * - `declined`: we said, or will say, that we do not contribute.
 * - `closed`: over, whatever came of it.
 */
export const roundStates = ['announced', 'accepted', 'declined', 'closed'] as const;
export type RoundState = (typeof roundStates)[number];

export const ProgressSchema = z.strictObject({
  format: z.literal('fedstill-client-progress/1'),
  taskDigest: DigestSchema,
  /** The highest round that was ever announced to us. */
  last: z.strictObject({ round: RoundIdSchema, transcript: DigestSchema, state: z.enum(roundStates) }).nullable(),
  /** Rounds whose contribution was accepted. */
  contributions: z.int().min(0),
  /** The highest round of secure aggregation for which keys were, or may have been, advertised; 0 for none. */
  lastAdvertised: z.int().min(0).max(0xffff_ffff).default(0),
});
export type ProgressRecord = z.infer<typeof ProgressSchema>;

export class Progress {
  readonly #store: DurableStore;
  #record: ProgressRecord;
  /** Writes happen in the order in which they were asked for. */
  #writes: Promise<void> = Promise.resolve();

  private constructor(store: DurableStore, record: ProgressRecord) {
    this.#store = store;
    this.#record = record;
  }

  /** Throws `state-mismatch` for a damaged record and for that of another task. */
  static async open(store: DurableStore, taskDigest: Digest): Promise<Progress> {
    const bytes = await store.getBlob(blob);
    if (bytes === undefined) return new Progress(store, { format: 'fedstill-client-progress/1', taskDigest, last: null, contributions: 0, lastAdvertised: 0 });
    const record = parse(bytes);
    if (record.taskDigest !== taskDigest) {
      throw new FederationError('state-mismatch', 'This client has taken part in a task of the same name at the same coordinator, which has been changed since.', {
        field: 'taskDigest',
        expected: record.taskDigest,
        got: taskDigest,
        next: 'Choose another state folder, or remove the folder of this task below `tasks/`. Keep the ledger.',
      });
    }
    return new Progress(store, record);
  }

  get last(): ProgressRecord['last'] {
    return this.#record.last;
  }

  get contributions(): number {
    return this.#record.contributions;
  }

  get lastAdvertised(): number {
    return this.#record.lastAdvertised;
  }

  /** Before keys for a round are advertised: whoever is started again does not advertise a second time. */
  advertise(round: RoundId): Promise<void> {
    return this.#write({ ...this.#record, lastAdvertised: Math.max(round, this.#record.lastAdvertised) });
  }

  /** A new announcement, before it is acknowledged. */
  announce(round: RoundId, transcript: Digest, state: 'announced' | 'declined'): Promise<void> {
    return this.#write({ ...this.#record, last: { round, transcript, state } });
  }

  /**
   * What became of a round. `closed` is final; after `accepted` only `closed` follows. To be called once with `accepted` by each process: the
   * coordinator's yes may arrive after the round has closed, and counts all the same.
   */
  async settle(round: RoundId, state: RoundState): Promise<void> {
    const { last, contributions } = this.#record;
    if (last === null || last.round < round || last.state === state) return;
    const counted = contributions + (state === 'accepted' ? 1 : 0);
    const isFinal = last.round > round || last.state === 'closed' || (last.state === 'accepted' && state !== 'closed');
    if (!isFinal) await this.#write({ ...this.#record, last: { ...last, state }, contributions: counted });
    else if (state === 'accepted') await this.#write({ ...this.#record, contributions: counted });
  }

  #write(record: ProgressRecord): Promise<void> {
    this.#record = record;
    const written = this.#writes.then(() => this.#store.putBlob(blob, utf8(JSON.stringify(record))));
    this.#writes = written.catch(() => undefined);
    return written;
  }
}

function parse(bytes: Uint8Array): ProgressRecord {
  try {
    return ProgressSchema.parse(JSON.parse(fromUtf8(bytes)));
  } catch (cause) {
    throw new FederationError('state-mismatch', 'The progress record of this task is damaged.', { field: blob, next: 'Restore it from a backup, or remove the folder of this task below `tasks/`. Keep the ledger.', cause });
  }
}
