/** PATE without noise, on everybody's records. */
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { qualityOf } from '../model-quality.ts';
import type { Outcome } from '../outcome.ts';
import type { BaselineConfig } from './algorithm.ts';
import { baselineOutcome, clientOutcome, recordBytes } from './result.ts';
import { evaluationAccuracy, forEachOf, partiesOf, testLogits, withModel, zooModel, type BaselineOptions } from './setting.ts';
import { learnFromVotes, randomParts, teacherVotes } from './vote-learning.ts';
import { countVotes } from './votes.ts';

export async function runPate({ teachers, teacherEpochs, studentEpochs, weightDecay, model: chosen }: Extract<BaselineConfig, { kind: 'pate' }>, options: BaselineOptions): Promise<Outcome> {
  const { scenario, data, engine } = options;
  const { seed, data: { numClasses } } = scenario.task;
  const parties = partiesOf(options);
  const name = chosen ?? parties[0]!.model;
  const parts = randomParts(data.pool, teachers, deriveSeed(seed, 'pate-parts'), 'all clients');
  const votes = await forEachOf(parts, 'teachers', options, (part, i) =>
    teacherVotes(data.pool, part, name, deriveSeed(seed, 'pate-teacher', i), { epochs: teacherEpochs, weightDecay, seed: deriveSeed(seed, 'pate-teacher-fit', i) }, options),
  );
  const [result] = await forEachOf([name], 'student', options, () =>
    withModel(engine, zooModel(scenario, name), deriveSeed(seed, 'pate-student'), async (model) => {
      await learnFromVotes(model, countVotes(votes, numClasses), { epochs: studentEpochs, weightDecay, seed: deriveSeed(seed, 'pate-student-fit') }, options);
      return { logits: await testLogits(model, options), accuracy: await evaluationAccuracy(model, options) };
    }),
  );
  return baselineOutcome({
    final: qualityOf(result!.logits, data.testSet),
    clients: parties.map((party) => clientOutcome(party, data)),
    rounds: [{ round: 1, contributions: parties.length, accuracy: result!.accuracy, meanClientAccuracy: null, bytesUp: recordBytes(data.pool), bytesDown: 0 }],
  });
}
