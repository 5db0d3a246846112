/** FedKT: votes of teachers within each client, votes of students across clients, one round. */
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { argmax } from '../../shared/distillation/evaluation.ts';
import { qualityOf } from '../model-quality.ts';
import type { Outcome } from '../outcome.ts';
import { mean } from '../spread.ts';
import type { BaselineConfig } from './algorithm.ts';
import { baselineOutcome, classIdBytes, clientOutcome, measured } from './result.ts';
import { evaluationAccuracy, forEachOf, partiesOf, testLogits, withModel, zooModel, type BaselineOptions, type Party } from './setting.ts';
import { learnFromVotes, randomParts, teacherVotes } from './vote-learning.ts';
import { countConsistentVotes, countVotes } from './votes.ts';

type FedKt = Extract<BaselineConfig, { kind: 'fedKt' }>;

/** What one student is good for. */
interface StudentVotes {
  /** Its class for every transfer example. */
  readonly votes: Int32Array;
  readonly accuracy: number | null;
}

export async function runFedKt(algorithm: FedKt, options: BaselineOptions): Promise<Outcome> {
  const { scenario, data, engine } = options;
  const { seed, data: { numClasses } } = scenario.task;
  const parties = partiesOf(options);
  const tiers = parties.flatMap((party) => Array.from({ length: algorithm.partitions }, (_, partitionIndex) => ({ party, partitionIndex })));
  const students = await forEachOf(tiers, 'students', options, ({ party, partitionIndex }) => localStudent(party, partitionIndex, algorithm, options));

  const byParty = parties.map((_, i) => students.slice(i * algorithm.partitions, (i + 1) * algorithm.partitions).map(({ votes }) => votes));
  const votes = algorithm.consistentVoting ? countConsistentVotes(byParty, numClasses) : countVotes(byParty.flat(), numClasses);
  const [result] = await forEachOf([algorithm.model ?? parties[0]!.model], 'final model', options, (name) =>
    withModel(engine, zooModel(scenario, name), deriveSeed(seed, 'fed-kt-final'), async (model) => {
      await learnFromVotes(model, votes, { epochs: algorithm.finalEpochs, weightDecay: algorithm.weightDecay, seed: deriveSeed(seed, 'fed-kt-final-fit') }, options);
      return { logits: await testLogits(model, options), accuracy: await evaluationAccuracy(model, options) };
    }),
  );
  const accuracies = students.flatMap(({ accuracy }) => accuracy ?? []);
  return baselineOutcome({
    final: qualityOf(result!.logits, data.testSet),
    clients: parties.map((party) => clientOutcome(party, data)),
    rounds: [{
      round: 1,
      contributions: parties.length,
      accuracy: result!.accuracy,
      meanClientAccuracy: accuracies.length === 0 ? null : mean(accuracies),
      bytesUp: tiers.length * classIdBytes(data.transferSet.count, numClasses),
      bytesDown: 0,
    }],
  });
}

/** Teachers on a random split of the party's records, and the student that learns what they elect. */
async function localStudent({ name, model, records }: Party, partitionIndex: number, { teachers, teacherEpochs, studentEpochs, weightDecay }: FedKt, options: BaselineOptions): Promise<StudentVotes> {
  const { scenario, data, engine } = options;
  const { seed, data: { numClasses } } = scenario.task;
  const derive = (label: string, teacher = 0) => deriveSeed(seed, 'fed-kt', label, name, partitionIndex, teacher);
  const votes: Int32Array[] = [];
  for (const [teacher, part] of randomParts(records, teachers, derive('parts'), name).entries()) {
    votes.push(await teacherVotes(records, part, model, derive('teacher', teacher), { epochs: teacherEpochs, weightDecay, seed: derive('teacher-fit', teacher) }, options));
  }
  return withModel(engine, zooModel(scenario, model), derive('student'), async (student) => {
    await learnFromVotes(student, countVotes(votes, numClasses), { epochs: studentEpochs, weightDecay, seed: derive('student-fit') }, options);
    return { votes: argmax(await student.predict(data.transferSet)), accuracy: measured(await testLogits(student, options), data.testSet) };
  });
}
