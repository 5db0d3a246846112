/** Teachers that vote on the transfer set and a student that learns what they elect: one tier of FedKT, and all of PATE. */
import { argmax } from '../../shared/distillation/evaluation.ts';
import type { VoteHistogram } from '../../shared/distillation/plurality.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { FederationError } from '../../shared/errors.ts';
import { selectExamples, selectLabelled, type LabelledExamples } from '../../shared/types/matrix.ts';
import type { OpenModel } from '../../shared/compute/engine.ts';
import { trainOnLabels, withModel, zooModel, type BaselineOptions, type LabelTraining } from './setting.ts';
import { elected } from './votes.ts';

/** Disjoint parts of the records, in random order and as even as can be. Throws `data-invalid` when there are fewer records than parts. */
export function randomParts({ examples: { count } }: LabelledExamples, parts: number, seed: number, owner: string): Uint32Array[] {
  if (count < parts) {
    throw new FederationError('data-invalid', `The ${count} records of ${owner} cannot be split among ${parts} teachers.`, { field: 'algorithm.teachers', expected: `at most ${count}`, got: String(parts), next: 'Lower algorithm.teachers, or raise clients.partition.minPerClient.' });
  }
  const order = new SeededGenerator(seed).permutation(count);
  return Array.from({ length: parts }, (_, i) => order.slice(Math.floor((count * i) / parts), Math.floor((count * (i + 1)) / parts)));
}

/** Trains a model of this name on some of the records and gives its vote on every transfer example. */
export async function teacherVotes(records: LabelledExamples, part: Uint32Array, model: string, seed: number, training: LabelTraining, options: BaselineOptions): Promise<Int32Array> {
  return withModel(options.engine, zooModel(options.scenario, model), seed, async (teacher) => {
    await trainOnLabels(teacher, selectLabelled(records, part), training, options);
    return argmax(await teacher.predict(options.data.transferSet));
  });
}

/** Trains a model on the transfer set with the labels that were elected. */
export async function learnFromVotes(student: OpenModel, votes: VoteHistogram, training: LabelTraining, options: BaselineOptions): Promise<void> {
  const { transferSet } = options.data;
  const { rows, labels } = elected(votes);
  await trainOnLabels(student, { examples: rows.length === transferSet.count ? transferSet : selectExamples(transferSet, rows), labels }, training, options);
}
