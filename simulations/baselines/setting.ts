/** What every baseline starts from: parties with their records, split as the federation splits them, and how a model is trained there. */
import type { ComputeEngine, FitOptions, FitReport, ModelSource, OpenModel } from '../../shared/compute/engine.ts';
import { isWorkerPool } from '../../shared/compute/worker-pool.ts';
import { partition } from '../../shared/datasets/partition.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { accuracy } from '../../shared/distillation/evaluation.ts';
import { selectLabelled, type Examples, type LabelledExamples, type Matrix } from '../../shared/types/matrix.ts';
import type { EventSink } from '../../shared/ports/event-sink.ts';
import type { ScenarioData } from '../run-simulation.ts';
import type { Scenario } from '../scenario.ts';

export interface BaselineOptions {
  readonly scenario: Scenario;
  readonly data: ScenarioData;
  /** A worker pool trains several models at a time, with the same results; another engine one after the other. */
  readonly engine: ComputeEngine;
  /** Gets `baseline-progress`: `done` of `of` models of a `stage`, in the same order with any number of workers. */
  readonly events: EventSink;
  readonly signal?: AbortSignal;
}

export interface Party {
  /** As in the federation: `client-1`, ... */
  readonly name: string;
  /** From the zoo. */
  readonly model: string;
  readonly records: LabelledExamples;
}

/** The clients of the scenario with the very records that they have in its federation. */
export function partiesOf({ scenario: { task, clients }, data: { pool } }: Pick<BaselineOptions, 'scenario' | 'data'>): Party[] {
  const models = clients.groups.flatMap(({ count, model }) => Array.from({ length: count }, () => model));
  const parts = partition(pool.labels, pool.numClasses, clients.partition, models.length, deriveSeed(task.seed, 'partition'));
  return models.map((model, i) => ({ name: `client-${i + 1}`, model, records: selectLabelled(pool, parts[i]!) }));
}

/** Local passes that a client of the task makes over its records in all. */
export function localPasses({ task: { student, schedule } }: Pick<Scenario, 'task'>): number {
  return Math.max(1, student.pretrainEpochs + schedule.rounds * student.revisitEpochs);
}

/** A zoo model for the examples of the task. */
export function zooModel({ task: { data, student } }: Pick<Scenario, 'task'>, name: string): ModelSource {
  return { kind: 'zoo', name, exampleShape: data.exampleShape, numClasses: data.numClasses, dropout: student.dropout };
}

/** How a model is trained on labels, beside the task's optimizer, batch size and penalty. */
export interface LabelTraining {
  readonly epochs: number;
  readonly weightDecay: number;
  /** Of shuffling and dropout. */
  readonly seed: number;
}

/** Trains on examples with labels, as the task trains students. Adam's moments start at zero. */
export function trainOnLabels(model: OpenModel, hard: { readonly examples: Examples; readonly labels: Int32Array }, { epochs, weightDecay, seed }: LabelTraining, { scenario: { task }, signal }: BaselineOptions): Promise<FitReport> {
  return model.fit({ hard: { examples: hard.examples, labels: hard.labels } }, { epochs, batchSize: task.student.batchSize, loss: crossEntropy, optimizer: task.student.optimizer, l2: task.student.l2, weightDecay, seed, ...(signal === undefined ? {} : { signal }) });
}

/** The loss for hard labels alone; what it says of distillation is not read. */
const crossEntropy: FitOptions['loss'] = { distance: 'kl', temperature: 1, alpha: 1 };

/** Opens a model for one use. */
export async function withModel<T>(engine: ComputeEngine, source: ModelSource, seed: number, use: (model: OpenModel) => Promise<T>): Promise<T> {
  const model = await engine.open(source, seed);
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}

/** Logits on the test set, if there is one. */
export async function testLogits(model: OpenModel, { data: { testSet } }: BaselineOptions): Promise<Matrix | undefined> {
  return testSet === undefined ? undefined : model.predict(testSet.examples);
}

/** On the task's evaluation set; null without one. */
export async function evaluationAccuracy(model: OpenModel, { data: { evaluationSet } }: BaselineOptions): Promise<number | null> {
  return evaluationSet === undefined ? null : accuracy(await model.predict(evaluationSet.examples), evaluationSet.labels);
}

/**
 * `work` for every item, its results in the order of the items. On a pool of n threads, n items are under way at a time (models and their records are made when their turn
 * comes, not all at once), elsewhere one. When one fails, no other is begun, and the error comes when those under way have ended. `stage` names the items in events.
 */
export async function forEachOf<T, R>(items: readonly T[], stage: string, { engine, events, signal }: BaselineOptions, work: (item: T, index: number) => Promise<R>): Promise<R[]> {
  const results = new Array<R>(items.length);
  const failures: unknown[] = [];
  let [next, done] = [0, 0];
  const lane = async () => {
    while (next < items.length && failures.length === 0) {
      const index = next++;
      try {
        signal?.throwIfAborted();
        results[index] = await work(items[index]!, index);
        events.emit({ event: 'baseline-progress', stage, done: ++done, of: items.length });
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: isWorkerPool(engine) ? engine.workers : 1 }, lane));
  if (failures.length > 0) throw failures[0];
  return results;
}
