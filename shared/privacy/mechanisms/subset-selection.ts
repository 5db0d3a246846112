/**
 * Subset selection (Ye & Barg 2018): for each row a client reports a set of w classes that holds its own with probability w e^epsilon / (w e^epsilon + k - w) and is uniform otherwise. Fewer
 * errors than randomized response for small epsilon and many classes. Exact: `vote-odds.ts`.
 *
 * Local: nobody has to be trusted with anything. One private record may change every row, so the rows compose.
 */
import type { RandomSource } from '../../ports/random-source.ts';
import type { IntegerMatrix } from '../../types/matrix.ts';
import type { DpEvent } from '../dp-event.ts';
import { bestSubsetSize } from '../local-votes.ts';
import { UniformBits } from '../sampling/uniform-bits.ts';
import { checkChoices, voteOdds, type VoteOdds } from './vote-odds.ts';

/** `epsilon`: of one row. `subsetSize`: by default the one with the smallest variance. */
export function subsetSelectionOdds(epsilon: number, categories: number, subsetSize = bestSubsetSize(epsilon, categories)): VoteOdds {
  return voteOdds(epsilon, categories, subsetSize);
}

/** Reports for the class of each row: w ones a row, [rows x classes]. */
export function selectSubsets(choices: Int32Array, odds: VoteOdds, random: RandomSource): IntegerMatrix {
  const { categories, subsetSize, favored, total } = odds;
  checkChoices(choices, odds);
  const bits = new UniformBits(random);
  const values = new Int32Array(choices.length * categories);
  choices.forEach((own, row) => {
    const holdsOwn = bits.below(total) < subsetSize * favored;
    if (holdsOwn) values[row * categories + own] = 1;
    // A uniform set of the others: the front of a shuffle.
    const others = Array.from({ length: categories - 1 }, (_, i) => (i < own ? i : i + 1));
    const wanted = holdsOwn ? subsetSize - 1 : subsetSize;
    for (let i = 0; i < wanted; i++) {
      const j = i + bits.below(others.length - i);
      values[row * categories + others[j]!] = 1;
      others[j] = others[i]!;
    }
  });
  return { rows: choices.length, columns: categories, values };
}

/** The event of reporting `rows` rows. */
export function subsetSelectionEvent(epsilon: number, categories: number, subsetSize: number, rows: number): DpEvent {
  return { kind: 'selfComposed', event: { kind: 'subsetSelection', epsilon, categories, subsetSize }, count: rows };
}
