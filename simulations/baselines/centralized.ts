/** One model on everybody's records. */
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { qualityOf } from '../model-quality.ts';
import type { Outcome } from '../outcome.ts';
import type { BaselineConfig } from './algorithm.ts';
import { baselineOutcome, clientOutcome, recordBytes } from './result.ts';
import { evaluationAccuracy, forEachOf, localPasses, partiesOf, testLogits, trainOnLabels, withModel, zooModel, type BaselineOptions } from './setting.ts';

export async function runCentralized(algorithm: Extract<BaselineConfig, { kind: 'centralized' }>, options: BaselineOptions): Promise<Outcome> {
  const { scenario, data, engine } = options;
  const { seed } = scenario.task;
  const parties = partiesOf(options);
  const [result] = await forEachOf([algorithm.model ?? parties[0]!.model], 'model', options, (name) =>
    withModel(engine, zooModel(scenario, name), deriveSeed(seed, 'centralized'), async (model) => {
      await trainOnLabels(model, { examples: data.pool.examples, labels: data.pool.labels }, { epochs: algorithm.epochs ?? localPasses(scenario), weightDecay: algorithm.weightDecay, seed: deriveSeed(seed, 'centralized-fit') }, options);
      return { logits: await testLogits(model, options), accuracy: await evaluationAccuracy(model, options) };
    }),
  );
  return baselineOutcome({
    final: qualityOf(result!.logits, data.testSet),
    clients: parties.map((party) => clientOutcome(party, data)),
    rounds: [{ round: 1, contributions: parties.length, accuracy: result!.accuracy, meanClientAccuracy: null, bytesUp: recordBytes(data.pool), bytesDown: 0 }],
  });
}
