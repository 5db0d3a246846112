import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FederationError } from '../../../shared/errors.ts';
import { countConsistentVotes, countVotes, elected } from '../../../simulations/baselines/votes.ts';

const classes = 4;
/** Parties with the same number of students, each with a vote on every row. */
const parties = fc
  .tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 12 }))
  .chain(([count, students, rows]) => fc.array(fc.array(fc.array(fc.integer({ min: 0, max: classes - 1 }), { minLength: rows, maxLength: rows }), { minLength: students, maxLength: students }), { minLength: count, maxLength: count }))
  .map((drawn) => drawn.map((students) => students.map((votes) => Int32Array.from(votes))));

describe('votes', () => {
  it('count each voter once for each example', () => {
    expect(countVotes([Int32Array.of(0, 2), Int32Array.of(3, 2), Int32Array.of(0, 1)], classes)).toEqual({ rows: 2, columns: 4, values: Uint32Array.of(2, 0, 0, 1, 0, 1, 2, 0) });
  });

  it('of a party count all or nothing when they have to be consistent', () => {
    fc.assert(
      fc.property(parties, (drawn) => {
        const { rows, columns, values } = countConsistentVotes(drawn, classes);
        for (let row = 0; row < rows; row++) {
          const expected = new Array<number>(columns).fill(0);
          for (const students of drawn) {
            const said = new Set(students.map((votes) => votes[row]!));
            if (said.size === 1) expected[[...said][0]!]! += students.length;
          }
          expect(Array.from(values).slice(row * columns, (row + 1) * columns)).toEqual(expected);
        }
      }),
    );
  });

  it('of parties with one student are the plain counts', () => {
    fc.assert(fc.property(parties, (drawn) => {
      const alone = drawn.map(([student]) => [student!]);
      expect(countConsistentVotes(alone, classes)).toEqual(countVotes(alone.flat(), classes));
    }));
  });

  it('elect the first of equal classes, and nobody where there is no vote', () => {
    const values = Uint32Array.of(0, 2, 2, 0, /* none */ 0, 0, 0, 0, 1, 0, 0, 3);
    expect(elected({ rows: 3, columns: 4, values })).toEqual({ rows: Uint32Array.of(0, 2), labels: Int32Array.of(1, 3) });
  });

  it('are refused when voters saw different examples, or none', () => {
    expect(() => countVotes([Int32Array.of(0, 2), Int32Array.of(3)], classes)).toThrow(FederationError);
    expect(() => countConsistentVotes([], classes)).toThrow('at least one');
  });
});
