/** FedAvg, and FedDF, which is FedAvg and a distillation at the server after each average. */
import type { OpenModel, SavedModel } from '../../shared/compute/engine.ts';
import { deriveSeed, SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { meanLogits } from '../../shared/distillation/aggregation.ts';
import type { Matrix } from '../../shared/types/matrix.ts';
import { qualityOf } from '../model-quality.ts';
import type { Outcome, RoundOutcome } from '../outcome.ts';
import { mean } from '../spread.ts';
import type { BaselineConfig } from './algorithm.ts';
import { averageWeights, checkAveraged } from './average-weights.ts';
import { baselineOutcome, clientOutcome, measured } from './result.ts';
import { evaluationAccuracy, forEachOf, partiesOf, testLogits, trainOnLabels, withModel, zooModel, type BaselineOptions, type Party } from './setting.ts';

type FedDf = Extract<BaselineConfig, { kind: 'fedDf' }>;
type FedAvg = Extract<BaselineConfig, { kind: 'fedAvg' }>;

/** What a client gives to the server. */
interface Update {
  readonly saved: SavedModel;
  readonly records: number;
  /** On the transfer set, computed by the server from the weights; only for FedDF. */
  readonly publicLogits: Matrix | undefined;
  /** Of the client's model before the average. */
  readonly accuracy: number | null;
}

export async function runFedAvg(algorithm: FedAvg | FedDf, options: BaselineOptions): Promise<Outcome> {
  const { scenario, data, engine } = options;
  const { task } = scenario;
  const parties = partiesOf(options);
  const source = zooModel(scenario, parties[0]!.model);
  return withModel(engine, source, deriveSeed(task.seed, 'global'), async (global) => {
    checkAveraged(await global.save());
    const rounds: RoundOutcome[] = [];
    let [bytesUp, bytesDown] = [0, 0];
    for (let round = 1; round <= task.schedule.rounds; round++) {
      const cohort = sampleCohort(parties, task.schedule.cohortSize ?? parties.length, deriveSeed(task.seed, 'cohort', round));
      const start = await global.save();
      const updates = await forEachOf(cohort, `clients of round ${round}`, options, (party) =>
        withModel(engine, source, 0, async (model): Promise<Update> => {
          await model.load(start);
          await trainOnLabels(model, party.records, { epochs: algorithm.localEpochs, weightDecay: algorithm.weightDecay, seed: deriveSeed(task.seed, 'fed-avg-fit', party.name, round) }, options);
          return {
            saved: await model.save(),
            records: party.records.examples.count,
            publicLogits: algorithm.kind === 'fedDf' ? await model.predict(data.transferSet) : undefined,
            accuracy: measured(await testLogits(model, options), data.testSet),
          };
        }),
      );
      await global.load(averageWeights(updates.map(({ saved }) => saved), updates.map(({ records }) => records)));
      if (algorithm.kind === 'fedDf') {
        await distilEnsemble(global, updates.map(({ publicLogits }) => publicLogits!), algorithm, deriveSeed(task.seed, 'fed-df-fit', round), options);
      }
      bytesUp += cohort.length * global.summary.weightBytes;
      bytesDown += cohort.length * global.summary.weightBytes;
      const accuracies = updates.flatMap(({ accuracy }) => accuracy ?? []);
      rounds.push({
        round,
        contributions: cohort.length,
        accuracy: await evaluationAccuracy(global, options),
        meanClientAccuracy: accuracies.length === 0 ? null : mean(accuracies),
        bytesUp,
        bytesDown,
      });
      options.events.emit({ event: 'baseline-round', ...rounds.at(-1)! });
    }
    return baselineOutcome({ final: qualityOf(await testLogits(global, options), data.testSet), clients: parties.map((party) => clientOutcome(party, data)), rounds });
  });
}

/** Minimizes KL(softmax(mean of the logits) || softmax(student)) on the transfer set, from the weights that the student has (Lin et al. 2020, eq. 1). */
export async function distilEnsemble(student: OpenModel, logits: readonly Matrix[], { distillationSteps, distillationBatchSize, distillationLearningRate }: Omit<FedDf, 'kind' | 'localEpochs' | 'weightDecay'>, seed: number, { data: { transferSet }, signal }: Pick<BaselineOptions, 'data' | 'signal'>): Promise<void> {
  const { consensus, kind } = meanLogits(logits);
  await student.fit(
    { soft: { examples: transferSet, targets: consensus, targetKind: kind } },
    {
      epochs: Math.ceil(distillationSteps / Math.ceil(transferSet.count / distillationBatchSize)),
      batchSize: distillationBatchSize,
      loss: { distance: 'kl', temperature: 1, alpha: 0 },
      optimizer: { kind: 'adam', learningRate: distillationLearningRate },
      learningRateSchedule: { kind: 'cosine' },
      seed,
      ...(signal === undefined ? {} : { signal }),
    },
  );
}

/** `size` parties drawn without replacement, in the order of the scenario. */
function sampleCohort(parties: readonly Party[], size: number, seed: number): Party[] {
  if (size >= parties.length) return [...parties];
  return [...new SeededGenerator(seed).permutation(parties.length).subarray(0, size).sort()].map((i) => parties[i]!);
}
