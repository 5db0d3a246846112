/**
 * k-ary randomized response (Kairouz, Bonawitz & Ramage 2016): for each row a client reports one class, its own with probability e^epsilon / (e^epsilon + k - 1), else one of the others,
 * all alike. Exact: `vote-odds.ts`.
 *
 * Local: nobody has to be trusted with anything. One private record may change every row, so the rows compose.
 */
import type { RandomSource } from '../../ports/random-source.ts';
import type { IntegerMatrix } from '../../types/matrix.ts';
import type { DpEvent } from '../dp-event.ts';
import { UniformBits } from '../sampling/uniform-bits.ts';
import { checkChoices, voteOdds, type VoteOdds } from './vote-odds.ts';

/** `epsilon`: of one row. */
export function randomizedResponseOdds(epsilon: number, categories: number): VoteOdds {
  return voteOdds(epsilon, categories, 1);
}

/** Reports for the class of each row: one-hot, [rows x classes]. */
export function randomizeResponses(choices: Int32Array, odds: VoteOdds, random: RandomSource): IntegerMatrix {
  const { categories, subsetSize, favored, unit, total } = odds;
  if (subsetSize !== 1) throw new RangeError(`"odds" expected those of one class a report, got ${subsetSize}`);
  checkChoices(choices, odds);
  const bits = new UniformBits(random);
  const values = new Int32Array(choices.length * categories);
  choices.forEach((own, row) => {
    const drawn = bits.below(total);
    let reported = own;
    if (drawn >= favored) {
      const other = Math.floor((drawn - favored) / unit);
      reported = other < own ? other : other + 1;
    }
    values[row * categories + reported] = 1;
  });
  return { rows: choices.length, columns: categories, values };
}

/** The event of reporting `rows` rows. */
export function randomizedResponseEvent(epsilon: number, categories: number, rows: number): DpEvent {
  return { kind: 'selfComposed', event: { kind: 'randomizedResponse', epsilon, categories }, count: rows };
}
