/**
 * One record, one vote: every record of a client votes once in a release, with its own label, on the queried public example nearest to it, and what a release counts is the
 * histogram of these votes. A record that is another moves one vote, however many examples are queried and whichever (docs/privacy-model.md, section 3.3).
 *
 * For that proof the cell of a record may depend on that record and on public values alone: the embedding is fitted on the transfer set, the queries are announced, and a
 * record whose point is no number votes on the first query instead of failing the client. Nothing is trained and nothing is stored: the same records vote alike in every round.
 *
 * The student is another model: it learns from all records, and nothing of it is sent.
 */
import { embed, transferEmbedding, type PublicEmbedding } from '../../shared/distillation/public-embedding.ts';
import { nearestQueryVotes } from '../../shared/distillation/nearest-query-votes.ts';
import { FederationError } from '../../shared/errors.ts';
import type { ReleaseParameters } from '../../shared/privacy/release.ts';
import type { TaskDocument } from '../../shared/protocol/messages.ts';
import type { Examples, LabelledExamples, Matrix } from '../../shared/types/matrix.ts';

export interface RecordVotesInit {
  readonly task: TaskDocument;
  readonly privateDataset: LabelledExamples;
  /** Public: all that the embedding is fitted on. */
  readonly transferSet: Examples;
}

export class RecordVotes {
  readonly #embedding: PublicEmbedding;
  /** Of the records that vote, in the order of the private dataset. */
  readonly #points: Matrix;
  readonly #labels: Int32Array;
  readonly #numClasses: number;
  readonly #maxRecords: number;

  private constructor(embedding: PublicEmbedding, points: Matrix, { labels, numClasses }: LabelledExamples, maxRecords: number) {
    this.#embedding = embedding;
    this.#points = points;
    this.#labels = labels.subarray(0, points.rows);
    this.#numClasses = numClasses;
    this.#maxRecords = maxRecords;
  }

  /** Takes seconds for large transfer sets. Throws `data-invalid` for records of another shape than the transfer set's. */
  static open({ task, privateDataset, transferSet }: RecordVotesInit): RecordVotes {
    const settings = task.privacy.recordVotes;
    if (settings === null) throw new FederationError('internal', 'The task has no votes of records.', { field: 'privacy.recordVotes' });
    const embedding = transferEmbedding(transferSet, task.seed);
    return new RecordVotes(embedding, embed(embedding, firstRecords(privateDataset.examples, settings.maxRecords)), privateDataset, settings.maxRecords);
  }

  /** Records that vote. Private: how many there are is the owner's to tell. */
  get voting(): number {
    return this.#points.rows;
  }

  /** Votes [queries x classes], each record's in one cell. Throws `context-mismatch` for a release that counts something else. */
  count(queries: Examples, release: ReleaseParameters): Matrix {
    if (release.recordVotes !== this.#maxRecords) {
      throw new FederationError('context-mismatch', 'The release does not count the votes that the task names.', { field: 'release.recordVotes', expected: String(this.#maxRecords), got: String(release.recordVotes ?? 'nothing') });
    }
    const { rows, columns, values } = nearestQueryVotes(this.#points, this.#labels, embed(this.#embedding, queries), this.#numClasses);
    // Counts below 2^24: exact in float32.
    return { rows, columns, values: Float32Array.from(values) };
  }
}

/** By position: which records vote does not depend on what is in them. */
function firstRecords({ count, shape, values }: Examples, most: number): Examples {
  const kept = Math.min(count, most);
  return { count: kept, shape, values: values.subarray(0, (values.length / Math.max(1, count)) * kept) };
}
