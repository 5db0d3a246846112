/**
 * What a noised histogram of votes says: the class with most votes in each row, and by how much. Post-processing of what was released, so it
 * costs no privacy (Papernot et al. 2017 name this label "the plurality of the noised votes").
 */
import { FederationError } from '../errors.ts';

/** Votes [rows x classes], row-major; noise makes them negative or fractional. */
export interface VoteHistogram {
  readonly rows: number;
  readonly columns: number;
  /** length = rows * columns */
  readonly values: ArrayLike<number>;
}

export interface Plurality {
  /** The class with most votes in each row; of equal ones the first. */
  readonly labels: Int32Array;
  /** Votes between the first and the second of each row, >= 0. */
  readonly margins: Float64Array;
}

export function plurality(votes: VoteHistogram): Plurality {
  checkHistogram(votes);
  const { rows, columns, values } = votes;
  const labels = new Int32Array(rows);
  const margins = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let [first, second] = [-Infinity, -Infinity];
    for (let c = 0; c < columns; c++) {
      const count = values[row * columns + c]!;
      if (count > first) {
        [first, second] = [count, first];
        labels[row] = c;
      } else if (count > second) second = count;
    }
    margins[row] = first - second;
  }
  return { labels, margins };
}

/**
 * Rows whose first class leads by more than noise of this standard deviation (of one cell, in votes) explains: by `factor` standard deviations of
 * a difference of two cells. With the default of 3 a tie of two classes is taken for a lead about once in 370 rows.
 */
export function trustedRows({ margins }: Plurality, sigma: number, factor = 3): Uint32Array {
  if (!(sigma >= 0) || !(factor >= 0)) throw new RangeError(`"sigma" and "factor" expected numbers >= 0, got ${sigma} and ${factor}`);
  return Uint32Array.from(margins.keys()).filter((row) => margins[row]! > factor * Math.SQRT2 * sigma);
}

/** Throws `data-invalid` unless there are two classes or more, as many values as the shape says, and all of them finite. */
export function checkHistogram({ rows, columns, values }: VoteHistogram): void {
  if (columns < 2 || values.length !== rows * columns) {
    throw new FederationError('data-invalid', 'A histogram of votes does not have the values that its shape says.', { field: 'votes', expected: 'rows * columns values, at least 2 columns', got: `[${rows} x ${columns}] with ${values.length} values` });
  }
  for (let at = 0; at < values.length; at++) {
    if (!Number.isFinite(values[at])) throw new FederationError('data-invalid', 'A histogram of votes holds a value that is not a finite number.', { field: `votes[${at}]`, expected: 'a finite number', got: String(values[at]) });
  }
}
