/**
 * Votes of models on unlabelled examples, as counts without noise: who adds noise to such counts is `privacy/`.
 *
 * Source: Li, He & Song 2021, "Practical one-shot federated learning for cross-silo setting", section 3.2.
 */
import { plurality, type VoteHistogram } from '../../shared/distillation/plurality.ts';
import { FederationError } from '../../shared/errors.ts';

/** One class for each example from each voter: counts [examples x classes]. */
export function countVotes(votes: readonly Int32Array[], numClasses: number): VoteHistogram {
  const rows = checkedRows(votes);
  const values = new Uint32Array(rows * numClasses);
  for (const voter of votes) {
    for (let row = 0; row < rows; row++) values[row * numClasses + voter[row]!]!++;
  }
  return { rows, columns: numClasses, values };
}

/** As `countVotes` over the students of all parties, but a party whose students disagree about an example has no votes on it. `parties`: the students' votes of each. */
export function countConsistentVotes(parties: ReadonlyArray<readonly Int32Array[]>, numClasses: number): VoteHistogram {
  const rows = checkedRows(parties.flat());
  const values = new Uint32Array(rows * numClasses);
  for (const students of parties) {
    for (let row = 0; row < rows; row++) {
      const label = students[0]![row]!;
      if (students.every((student) => student[row] === label)) values[row * numClasses + label]! += students.length;
    }
  }
  return { rows, columns: numClasses, values };
}

/** Rows that got a vote, and the class with most votes in each; of equal ones the first. A row without any teaches nothing. */
export function elected(votes: VoteHistogram): { readonly rows: Uint32Array; readonly labels: Int32Array } {
  const { labels } = plurality(votes);
  const rows = Uint32Array.from(labels.keys()).filter((row) => {
    for (let c = 0; c < votes.columns; c++) if (votes.values[row * votes.columns + c]! > 0) return true;
    return false;
  });
  return { rows, labels: Int32Array.from(rows, (row) => labels[row]!) };
}

function checkedRows(votes: readonly Int32Array[]): number {
  const rows = votes[0]?.length ?? 0;
  const other = votes.find(({ length }) => length !== rows);
  if (rows === 0 || other !== undefined) {
    throw new FederationError('data-invalid', 'All voters must vote on the same examples, at least one.', { field: 'votes', expected: `${Math.max(rows, 1)} votes each`, got: String(other?.length ?? rows) });
  }
  return rows;
}
