/**
 * The cheapest teacher of all: a single record. It knows one thing, its own label, and one place where that may help, the public query
 * nearest to it; there it casts one vote, and abstains everywhere else. A client adds up its records' votes, the federation the clients'.
 *
 * It is sample-and-aggregate with a shard for every record and one vote a shard. **One record is in one cell**: replacing it moves one vote, so
 * whatever the number of queries, two neighbors' whole matrices differ by at most `sqrt(2)` in L2 norm (by 1 when a record is added or left
 * out), where shards that vote on all of Q queries differ by `sqrt(2 Q)`. A client that has no record of a class never votes against it, so
 * that clients with few classes do no harm.
 *
 * What it takes: a distance under which public and private examples of a class lie together (`public-embedding.ts`), and which is public.
 * Without noise these votes are a histogram of private data and protect nobody.
 */
import { FederationError } from '../errors.ts';
import type { IntegerMatrix, Matrix } from '../types/matrix.ts';
import { nearestRows } from './query-selection.ts';

/** L2 distance of the votes of two datasets, in votes: of which one record differs, or which one has and the other has not. */
export const nearestVoteSensitivity = { replaceOne: Math.SQRT2, addOrRemove: 1 } as const;

/** Votes [queries x classes]: how many of these records, of this class, are nearest to this query. `records` and `queries` are points of one embedding. */
export function nearestQueryVotes(records: Matrix, labels: Int32Array, queries: Matrix, numClasses: number): IntegerMatrix {
  if (labels.length !== records.rows) {
    throw new FederationError('data-invalid', 'Every record needs a label to vote.', { field: 'labels', expected: `${records.rows} labels`, got: String(labels.length) });
  }
  const votes = new Int32Array(queries.rows * numClasses);
  nearestRows(records, queries).forEach((query, record) => {
    const label = labels[record]!;
    if (label < 0 || label >= numClasses) throw new FederationError('data-invalid', 'A record has a label outside the classes.', { field: `labels[${record}]`, expected: `an integer in [0, ${numClasses})`, got: String(label) });
    votes[query * numClasses + label]!++;
  });
  return { rows: queries.rows, columns: numClasses, values: votes };
}
