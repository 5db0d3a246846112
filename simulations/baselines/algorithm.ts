/**
 * What a scenario may say under `algorithm`: the federation itself, or a way of learning that it is held against. Baselines move weights or records and claim no
 * privacy: they exist in simulations alone. docs/algorithms.md is the user's page.
 *
 * Optimizer, learning rate, batch size and dropout are those of `task.student`, rounds and cohorts those of `task.schedule`; what is here is what else an
 * algorithm has, with its paper's values as defaults.
 */
import { z } from 'zod';
import type { ConfigRule } from '../../shared/config/config-rule.ts';
import type { TaskConfig } from '../../shared/config/task-config.ts';

const epochs = z.int().min(1).max(10_000);
/** A name from the model zoo. */
const model = z.string().min(1).optional();
/** Adds `weightDecay * w` to every gradient, as PyTorch's optimizers do. */
const weightDecay = z.number().min(0).max(10);

export const AlgorithmSchema = z.discriminatedUnion('kind', [
  /** The real protocol, with everything that `task` says. */
  z.strictObject({ kind: z.literal('federation') }),

  /** One model on the records of all clients together: what no federation may do, as an upper bound. */
  z.strictObject({
    kind: z.literal('centralized'),
    /** Default: the clients' model. */
    model,
    /** Passes over all records; default: as many local passes as a client of the task makes. */
    epochs: epochs.optional(),
    weightDecay: weightDecay.default(0),
  }),

  /** Each client alone with its own records (SOLO in Li, He & Song 2021); the result is the mean over clients. */
  z.strictObject({
    kind: z.literal('localOnly'),
    /** Passes over a client's records; default: as many as a client of the task makes. */
    epochs: epochs.optional(),
    weightDecay: weightDecay.default(0),
  }),

  /**
   * McMahan, Moore, Ramage, Hampson & Arcas 2017, "Communication-efficient learning of deep networks from decentralized data", algorithm 1: clients start from the global
   * weights, train, and the mean of their weights, by numbers of records, is the next global model.
   */
  z.strictObject({
    kind: z.literal('fedAvg'),
    /** E of the paper: passes over a client's records in a round. Its experiments use 1, 5 and 20. */
    localEpochs: epochs.default(5),
    weightDecay: weightDecay.default(0),
  }),

  /**
   * Lin, Kong, Stich & Jaggi 2020, "Ensemble distillation for robust model fusion in federated learning", algorithm 1: FedAvg, then the average learns the mean of the
   * clients' logits on the transfer set. The server's optimizer is Adam with a cosine schedule, as in section 4.1. The paper stops when the accuracy on a validation set has
   * not risen for 1,000 steps; here nobody has labels to stop by, so all steps are made.
   */
  z.strictObject({
    kind: z.literal('fedDf'),
    localEpochs: epochs.default(40),
    /** Most distillation steps of a round, rounded up to whole passes over the transfer set. */
    distillationSteps: z.int().min(1).max(1_000_000).default(10_000),
    distillationBatchSize: z.int().min(1).max(65_536).default(128),
    distillationLearningRate: z.number().positive().max(10).default(0.001),
    /** Of the clients' training. */
    weightDecay: weightDecay.default(0),
  }),

  /**
   * Li, He & Song 2021, "Practical one-shot federated learning for cross-silo setting", algorithm 1. Each client splits its records `partitions` times at random into
   * `teachers` parts; the teachers of one partition vote on the transfer set and a student learns the majority. All students of all clients vote again, and the
   * final model learns that majority. One round; class ids move.
   */
  z.strictObject({
    kind: z.literal('fedKt'),
    /** s of the paper. */
    partitions: z.int().min(1).max(100).default(2),
    /** t of the paper: teachers of one partition. */
    teachers: z.int().min(1).max(1000).default(5),
    teacherEpochs: epochs.default(100),
    studentEpochs: epochs.default(100),
    finalEpochs: epochs.default(100),
    /** A client's votes on an example count only when all its students agree. */
    consistentVoting: z.boolean().default(true),
    /** The final model; default: the clients' model. */
    model,
    weightDecay: weightDecay.default(0.00001),
  }),

  /**
   * Papernot, Abadi, Erlingsson, Goodfellow & Talwar 2017, "Semi-supervised knowledge transfer for deep learning from private training data", without noise and with a plain
   * student: teachers on disjoint parts of all records together vote on the transfer set, a student learns the majority. Centralized: the bound of FedKT's table.
   */
  z.strictObject({
    kind: z.literal('pate'),
    /** The paper has 250 for MNIST. */
    teachers: z.int().min(1).max(10_000).default(250),
    teacherEpochs: epochs.default(100),
    studentEpochs: epochs.default(100),
    /** Of the teachers and the student; default: the clients' model. */
    model,
    weightDecay: weightDecay.default(0),
  }),
]);
export type AlgorithmConfig = z.infer<typeof AlgorithmSchema>;
/** Everything but the federation. */
export type BaselineConfig = Exclude<AlgorithmConfig, { kind: 'federation' }>;

/** What the rules below look at. */
interface Sections {
  readonly algorithm: AlgorithmConfig;
  readonly task: Pick<TaskConfig, 'privacy' | 'schedule'>;
  readonly clients: { readonly groups: readonly { readonly count: number; readonly model: string; readonly view?: readonly unknown[] | undefined }[] };
}

export const algorithmRules: readonly ConfigRule<Sections>[] = [
  {
    reads: ['algorithm', 'task.privacy'],
    check({ algorithm, task }) {
      if (algorithm === undefined || algorithm.kind === 'federation' || task?.privacy === undefined || task.privacy.mechanism === 'none') return undefined;
      return { path: 'task.privacy.mechanism', expected: `none with the algorithm ${algorithm.kind}`, got: task.privacy.mechanism, hint: 'baselines add no noise and claim no privacy; choose the algorithm federation' };
    },
  },
  {
    reads: ['algorithm', 'clients.groups'],
    check({ algorithm, clients }) {
      if (algorithm === undefined || algorithm.kind === 'federation' || clients?.groups === undefined) return undefined;
      const viewed = clients.groups.findIndex(({ view = [] }) => view.length > 0);
      if (viewed !== -1) return { path: `clients.groups[${viewed}].view`, expected: `none with the algorithm ${algorithm.kind}`, got: 'a view', hint: 'models of baselines see examples as they are' };
      const models = [...new Set(clients.groups.map((group) => group.model))];
      if (models.length === 1) return undefined;
      if (algorithm.kind === 'fedAvg' || algorithm.kind === 'fedDf') {
        return { path: 'clients.groups', expected: `one model for all clients with the algorithm ${algorithm.kind}`, got: models.join(', '), hint: 'weights of different architectures have no average; federated distillation needs none' };
      }
      if (algorithm.kind !== 'localOnly' && algorithm.model === undefined) {
        return { path: 'algorithm.model', expected: 'a name from the model zoo, because the clients have different ones', got: 'nothing' };
      }
      return undefined;
    },
  },
];
