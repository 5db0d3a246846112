/** Every client alone. */
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import type { Outcome } from '../outcome.ts';
import { mean } from '../spread.ts';
import type { BaselineConfig } from './algorithm.ts';
import { baselineOutcome, clientOutcome } from './result.ts';
import { forEachOf, localPasses, partiesOf, testLogits, trainOnLabels, withModel, zooModel, type BaselineOptions } from './setting.ts';

export async function runLocalOnly(algorithm: Extract<BaselineConfig, { kind: 'localOnly' }>, options: BaselineOptions): Promise<Outcome> {
  const { scenario, data, engine } = options;
  const { seed } = scenario.task;
  const clients = await forEachOf(partiesOf(options), 'clients', options, (party) =>
    withModel(engine, zooModel(scenario, party.model), deriveSeed(seed, 'local-only', party.name), async (model) => {
      await trainOnLabels(model, party.records, { epochs: algorithm.epochs ?? localPasses(scenario), weightDecay: algorithm.weightDecay, seed: deriveSeed(seed, 'local-only-fit', party.name) }, options);
      const client = clientOutcome(party, data, await testLogits(model, options));
      return { ...client, localOnlyAccuracy: client.accuracy };
    }),
  );
  const accuracies = clients.flatMap(({ accuracy }) => accuracy ?? []);
  return baselineOutcome({
    final: null,
    clients,
    rounds: [{ round: 1, contributions: 0, accuracy: null, meanClientAccuracy: accuracies.length === 0 ? null : mean(accuracies), bytesUp: 0, bytesDown: 0 }],
  });
}
