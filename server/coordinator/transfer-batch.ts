/** Which transfer examples a round is about. Public: drawn from the task's seed, not from anybody's data. */
import type { TaskConfig } from '../../shared/config/task-config.ts';
import { deriveSeed, SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import type { RoundId } from '../../shared/types/ids.ts';

/** A uniformly random subset of the transfer set, ascending; all of it when the batch is as large. */
export function transferBatch({ schedule, seed }: Pick<TaskConfig, 'schedule' | 'seed'>, available: number, round: RoundId): Uint32Array {
  const size = schedule.transferBatch ?? available;
  if (size >= available) return Uint32Array.from({ length: available }, (_, index) => index);
  return new SeededGenerator(deriveSeed(seed, 'transfer-batch', round)).permutation(available).slice(0, size).sort();
}
