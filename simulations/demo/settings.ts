/**
 * What the demo does, in one place. Small enough to end in a minute on two cores, large enough to show the effect: five owners with few and
 * unlike records, three architectures, and a public transfer set without labels.
 */
import type { PartitionSpec } from '../../shared/config/partition-config.ts';
import { TaskConfigSchema, type TaskConfig } from '../../shared/config/task-config.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';

export const demoModels = ['mlp-small', 'mlp-medium', 'cnn-small', 'mlp-medium', 'cnn-wide'] as const;
/** Labelled records of all clients together: the first of MNIST's training set. */
export const privateRecords = 5000;
/** Few of some classes and many of others: what one hospital or branch sees. */
export const demoPartition: PartitionSpec = { kind: 'dirichlet', alpha: 0.5, minPerClient: 100 };
/** Unlabelled public images: MNIST's training set from 50,000 on. */
export const transferExamples = 3000;
/** Images of MNIST's test set on which everything is measured. */
export const testExamples = 2000;
/** Rounds with noise: each costs a share of the budget. */
export const noisyRounds = 2;
/** Epsilons over all noisy rounds, replace-one, unit client. */
export const noisyEpsilons = [8] as const;

/**
 * The federation that protects every record: its clients' shards vote on few queries, only the noised sum of all votes is ever seen, and everything else is learned
 * from public images. All of these are constants of the method (docs/semi-supervised.md), none is chosen by looking at the run's data.
 */
export const recordLevel = { epsilon: 4, delta: 1e-5, queries: 60, shards: 40, minSurvivors: 4, maxCorrupt: 1 } as const;

/** The task without noise, or with local Gaussian noise for this epsilon. */
export function demoTask(seed: number, noisyEpsilon?: number): TaskConfig {
  return TaskConfigSchema.parse({
    task: noisyEpsilon === undefined ? 'demo' : 'demo-noisy',
    seed,
    data: { numClasses: 10, exampleShape: [28, 28, 1] },
    transferSet: { source: 'mnist', offset: 50_000, size: transferExamples },
    evaluationSet: { source: 'mnist', split: 'test', size: testExamples },
    teacher: { kind: 'learner', model: 'mlp-large', epochs: 5 },
    student: { model: 'mlp-small', pretrainEpochs: 6, digestEpochs: 2, revisitEpochs: 1 },
    distillation: { temperature: 3, loss: 'kl' },
    privacy: noisyEpsilon === undefined ? { mechanism: 'none' } : { mechanism: 'gaussian', epsilon: noisyEpsilon, delta: 1e-5 },
    aggregation: { aggregator: 'entropyReduction', encoding: 'float16' },
    schedule: { rounds: noisyEpsilon === undefined ? 4 : noisyRounds, minClients: demoModels.length, quorum: 3, roundDeadlineSeconds: 120, reconnectGraceSeconds: 20 },
  }) as TaskConfig;
}

/** The task whose guarantee is for every record, against the coordinator: one round of votes in a secure sum. */
export function demoRecordTask(seed: number): TaskConfig {
  const { epsilon, delta, queries, shards, minSurvivors, maxCorrupt } = recordLevel;
  const base = demoTask(seed);
  return TaskConfigSchema.parse({
    task: 'demo-records',
    seed,
    data: base.data,
    transferSet: base.transferSet,
    evaluationSet: base.evaluationSet,
    teacher: { kind: 'semiSupervised', model: 'cnn-medium' },
    // As many passes over labels as in the rounds of the other federation: they all come at the end.
    student: { ...base.student, digestEpochs: 8 },
    distillation: base.distillation,
    privacy: {
      trustMode: 'secure-aggregation',
      mechanism: 'discreteGaussian',
      unit: 'record',
      epsilon,
      delta,
      gridStep: 1 / 64,
      secureAggregation: { maxCorrupt, stageDeadlineSeconds: 30 },
      sampleAndAggregate: { shards, votes: true, model: 'softmax-regression', inputs: 'embedding', epochs: 40, batchSize: 20, learningRate: 0.03, l2: 0.001, minConfidence: 0.8 },
    },
    aggregation: { aggregator: 'meanVotes' },
    schedule: { rounds: 1, transferBatch: queries, querySelection: 'clusterMiddles', minClients: demoModels.length, quorum: minSurvivors, roundDeadlineSeconds: 120, reconnectGraceSeconds: 20 },
  }) as TaskConfig;
}

/** Seeds shared by the processes and by the simulations that they are compared with. */
export const demoSeeds = {
  partition: (seed: number) => deriveSeed(seed, 'partition'),
  student: (seed: number, client: string) => deriveSeed(seed, 'student', client),
};
