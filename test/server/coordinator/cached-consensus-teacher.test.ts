import { describe, expect, it } from 'vitest';
import type { RoundId } from '../../../shared/types/ids.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';
import { CachedConsensusTeacher } from '../../../server/coordinator/cached-consensus-teacher.ts';
import { MemoryStore } from '../../../simulations/memory-store.ts';

const batches: Readonly<Record<number, number[]>> = { 1: [0, 2, 4], 2: [2, 3, 4], 4: [0, 2, 5], 5: [2, 5] };
const batchOf = (round: RoundId) => Uint32Array.from(batches[round]!);
const round = (number: number) => number as RoundId;
/** A row says which example and round it is of. */
const consensus = (indices: Uint32Array, of: number): Matrix => ({ rows: indices.length, columns: 2, values: Float32Array.from([...indices].flatMap((index) => [index, of])) });

async function play(teacher: CachedConsensusTeacher, number: number): Promise<number[]> {
  const query = teacher.queryOf(batchOf(round(number)), round(number));
  await teacher.learn(round(number), query, { consensus: consensus(query, number), kind: 'probabilities' });
  return [...query];
}

describe('a consensus with a cache', () => {
  it('asks for what it does not know or has known for too long, and labels the whole batch', async () => {
    const store = new MemoryStore();
    const teacher = await CachedConsensusTeacher.open(store, 3, batchOf);
    expect(await teacher.labels()).toBeUndefined();
    expect(await play(teacher, 1)).toEqual([0, 2, 4]);
    expect(await play(teacher, 2)).toEqual([3]);
    expect(await teacher.labels()).toEqual({ indices: Uint32Array.of(2, 3, 4), matrix: { rows: 3, columns: 2, values: Float32Array.of(2, 1, 3, 2, 4, 1) }, kind: 'probabilities' });
    // Round 3 failed; those of round 1 are three rounds old.
    expect(await play(teacher, 4)).toEqual([0, 2, 5]);
    // All are young: the oldest, of equal ones the first.
    expect(await play(teacher, 5)).toEqual([2]);
    expect((await teacher.labels())!.matrix.values).toEqual(Float32Array.of(2, 5, 5, 4));
  });

  it('is the same after a restart, and learns from a round once', async () => {
    const store = new MemoryStore();
    const teacher = await CachedConsensusTeacher.open(store, 3, batchOf);
    await play(teacher, 1);
    await play(teacher, 2);
    const again = await CachedConsensusTeacher.open(store, 3, batchOf);
    expect(await again.labels()).toEqual(await teacher.labels());
    await again.learn(round(2), Uint32Array.of(3), { consensus: consensus(Uint32Array.of(3), 99), kind: 'probabilities' });
    expect(await again.labels()).toEqual(await teacher.labels());
    expect([...again.queryOf(batchOf(round(4)), round(4))]).toEqual([...teacher.queryOf(batchOf(round(4)), round(4))]);
  });

  it('says nothing of examples that nobody had an opinion on', async () => {
    const teacher = await CachedConsensusTeacher.open(new MemoryStore(), 3, batchOf);
    await teacher.learn(round(1), Uint32Array.of(2), { consensus: consensus(Uint32Array.of(2), 1), kind: 'probabilities' });
    expect([...(await teacher.labels())!.indices]).toEqual([2]);
  });
});
