/**
 * Schemas of every message (docs/protocol.md). Events refuse unknown members; acknowledgements and signed documents
 * ignore them, so that a newer peer can say more.
 */
import { z } from 'zod';
import { isOnGrid, MAX_VOTING_RECORDS, PrivateTrainingSchema, ReleaseParametersSchema } from '../privacy/release.ts';
import { fromBase64 } from '../types/bytes.ts';
import type { ClientId, Digest, RoundId, TaskId } from '../types/ids.ts';
import { floatEncodings, isBitsEncoding } from './matrix-frame.ts';
import { maxChunkBytes, maxEnvelopeBytes, maxQueryRows, maxStageBytes } from './limits.ts';
import { ProblemSchema } from './problems.ts';
import { SignedDocumentSchema } from './signed-document.ts';

/** Base64 text of exactly `length` bytes, decoded. */
const bytesOf = (length: number) =>
  z
    .string()
    .length(4 * Math.ceil(length / 3))
    .transform((text, context) => {
      const bytes = fromBase64(text);
      if (bytes?.length === length) return bytes;
      context.addIssue({ code: 'custom', message: `expected base64 of ${length} bytes` });
      return z.NEVER;
    });

export const DigestSchema = z.string().regex(/^sha256:[0-9a-f]{64}$/, 'expected sha256:<64 hexadecimal digits>').transform((text) => text as Digest);
export const RoundIdSchema = z.int().min(1).max(0xffff_ffff).transform((round) => round as RoundId);
const TaskIdSchema = z.string().regex(/^[a-z0-9][a-z0-9_-]{0,63}$/).transform((task) => task as TaskId);
const fingerprintText = z.string().regex(/^[a-z2-7]{26}$/);
const count = z.int().min(0).max(0xffff_ffff);

/** Stages of a round of secure aggregation, in order (docs/secure-aggregation.md). */
export const secureStageNames = ['advertiseKeys', 'shareKeys', 'maskedInput', 'consistencyCheck', 'unmask'] as const;
export type SecureStageName = (typeof secureStageNames)[number];
/** Every stage that exists: a round has the first one alone, or all the others. */
export const stageNames = ['contribution', ...secureStageNames] as const;
export type StageName = (typeof stageNames)[number];
/** The byte that stands for a stage in an envelope. */
export const stageCodes: Record<StageName, number> = { contribution: 1, advertiseKeys: 2, shareKeys: 3, maskedInput: 4, consistencyCheck: 5, unmask: 6 };
const StageSchema = z.enum(stageNames);

const trustModes = ['sealed', 'clear', 'secure-aggregation'] as const;
export type TrustMode = (typeof trustModes)[number];
/** The stages that a round of this trust mode has, in order: its `stages` are these and no others. */
export function stagesOf(trustMode: TrustMode): readonly StageName[] {
  return trustMode === 'secure-aggregation' ? secureStageNames : ['contribution'];
}

const indicesText = z.string().max(4 * Math.ceil((maxQueryRows * 4) / 3));
const indexMembers = { count: z.int().min(1).max(maxQueryRows), indices: indicesText.optional(), bitmap: indicesText.optional() };
const hasOneForm = ({ indices, bitmap }: { readonly indices?: string | undefined; readonly bitmap?: string | undefined }) => (indices === undefined) !== (bitmap === undefined);
const oneForm = { path: ['indices'], message: 'expected either indices or a bitmap' };
const IndicesSchema = z.object(indexMembers).refine(hasOneForm, oneForm);

export const SoftLabelsRefSchema = z.object({
  digest: DigestSchema,
  kind: z.enum(['logits', 'probabilities']),
  ...indexMembers,
  /** Whoever remembers these labels may be spared them later. */
  keep: z.boolean().optional(),
  /** Only these rows differ from what was announced for the same transfer examples last; their frame is beside that of all. */
  changed: z
    .object({
      /** Dtype of both frames. */
      encoding: z.enum(floatEncodings),
      count: z.int().min(0).max(maxQueryRows),
      /** One bit for every row of the labels: 1 = changed. */
      rows: indicesText,
      /** Of the frame of changed rows; null when there are none. */
      digest: DigestSchema.nullable(),
    })
    .optional(),
}).refine(hasOneForm, oneForm);
export type SoftLabelsRef = z.infer<typeof SoftLabelsRefSchema>;

// --- signed documents ---

const OptimizerSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('adam'), learningRate: z.number().positive() }),
  z.object({ kind: z.literal('sgd'), learningRate: z.number().positive(), momentum: z.number().min(0).lt(1) }),
]);

/** What a task promises about privacy, once for all its rounds. */
const TaskPrivacySchema = z
  .object({
    trustMode: z.enum(trustModes),
    mechanism: z.enum(['none', 'gaussian', 'laplace', 'discreteGaussian', 'dpSgd']),
    /** What the epsilon protects: everything of one client, or one of its records. */
    unit: z.enum(['client', 'record']),
    epsilon: z.number().positive().nullable(),
    delta: z.number().positive().lt(1),
    releases: z.int().min(1),
    /** There exactly when the trust mode is `secure-aggregation`. Every round has these numbers. */
    secureAggregation: z.object({ minSurvivors: z.int().min(2), maxCorrupt: z.int().min(0) }).nullable().default(null),
    /** There exactly with the mechanism `dpSgd`: how a client trains on its records, and on which terms every release is made. */
    dpSgd: PrivateTrainingSchema.extend({ learningRate: z.number().positive().max(10) }).nullable().default(null),
    /** With the unit `record` there is this, `sampleAndAggregate` or `dpSgd`: each of a client's first `maxRecords` records casts one vote. */
    recordVotes: z.object({ maxRecords: z.int().min(1).max(MAX_VOTING_RECORDS) }).nullable().default(null),
    /** How a client predicts that trains models of shards, see docs/privacy-model.md. */
    sampleAndAggregate: z
      .object({
        shards: z.int().min(2).max(10_000),
        votes: z.boolean(),
        /** A name from the model zoo. */
        model: z.string().min(1).max(64),
        inputs: z.enum(['examples', 'embedding']),
        epochs: z.int().min(1).max(10_000),
        batchSize: z.int().min(1).max(65_536),
        learningRate: z.number().positive().max(10),
        l2: z.number().min(0).max(10),
        minConfidence: z.number().min(0).max(1).default(0),
      })
      .nullable()
      .default(null),
  })
  .superRefine(({ trustMode, mechanism, unit, secureAggregation, sampleAndAggregate, recordVotes, dpSgd }, context) => {
    const contradiction = (field: string, message: string) => context.addIssue({ code: 'custom', path: [field], message });
    if ((trustMode === 'secure-aggregation') !== (secureAggregation !== null)) contradiction('secureAggregation', 'expected exactly with the trust mode secure-aggregation');
    if (secureAggregation !== null && secureAggregation.maxCorrupt >= secureAggregation.minSurvivors) contradiction('secureAggregation', 'expected maxCorrupt below minSurvivors');
    if (mechanism !== 'none' && (mechanism === 'discreteGaussian') !== (trustMode === 'secure-aggregation')) contradiction('mechanism', 'expected discreteGaussian exactly with the trust mode secure-aggregation');
    if ((mechanism === 'dpSgd') !== (dpSgd !== null)) contradiction('dpSgd', 'expected exactly with the mechanism dpSgd');
    if (dpSgd !== null && sampleAndAggregate !== null) contradiction('sampleAndAggregate', 'expected nothing with the mechanism dpSgd');
    if (recordVotes !== null && (sampleAndAggregate !== null || dpSgd !== null)) contradiction('recordVotes', 'expected nothing beside shards or the mechanism dpSgd');
    if ((unit === 'record') !== (sampleAndAggregate !== null || recordVotes !== null || dpSgd !== null)) contradiction('sampleAndAggregate', 'expected, or votes of records, or the mechanism dpSgd, exactly with the unit record');
  });

export const TaskDocumentSchema = z.object({
  protocol: z.literal('fdp/1'),
  task: TaskIdSchema,
  coordinator: fingerprintText,
  seed: z.int().min(0).max(0xffff_ffff),
  numClasses: z.int().min(2).max(1000),
  exampleShape: z.array(z.int().min(1).max(65_536)).min(1).max(4),
  transferSet: z.object({ digest: DigestSchema, rows: z.int().min(1) }),
  student: z.object({
    model: z.string(),
    optimizer: OptimizerSchema,
    batchSize: z.int().min(1),
    pretrainEpochs: z.int().min(0),
    digestEpochs: z.int().min(0),
    revisitEpochs: z.int().min(0),
    l2: z.number().min(0),
    dropout: z.number().min(0).lt(1),
    earlyStoppingPatience: z.int().min(0),
  }),
  distillation: z.object({ temperature: z.number().positive(), alpha: z.number().min(0).lt(1), loss: z.enum(['kl', 'logitMae']) }),
  privacy: TaskPrivacySchema,
  schedule: z.object({ rounds: z.int().min(1), minClients: z.int().min(1), quorum: z.int().min(1), roundDeadlineMs: z.number().positive() }),
  admission: z.enum(['open', 'token', 'allow-list']),
});
export type TaskDocument = z.infer<typeof TaskDocumentSchema>;

/** Parameters of secure aggregation, but for the dimension, which is that of the release. */
export const SecureRoundSchema = z.object({
  minCohort: z.int().min(2),
  minSurvivors: z.int().min(2),
  maxCorrupt: z.int().min(0),
  /** How long each stage after the first is open. */
  stageDeadlineMs: z.number().positive(),
});
export type SecureRound = z.infer<typeof SecureRoundSchema>;

const RoundMembersSchema = z.object({
  protocol: z.literal('fdp/1'),
  task: TaskIdSchema,
  taskDigest: DigestSchema,
  round: RoundIdSchema,
  previous: DigestSchema.nullable(),
  trustMode: z.enum(trustModes),
  stages: z.array(StageSchema).min(1).max(8),
  boxKey: bytesOf(32),
  query: IndicesSchema,
  labels: SoftLabelsRefSchema.nullable(),
  release: ReleaseParametersSchema,
  encoding: z.enum(floatEncodings),
  /** Which rows a client may leave out of predictions without noise; null: it shares all. */
  sharing: z.object({ minConfidence: z.number().min(0).max(1), maxEntropy: z.number().min(0).max(1) }).nullable().default(null),
  cohort: z.object({ size: z.int().min(1), quorum: z.int().min(1) }),
  releases: z.int().min(1),
  /** Until the first stage closes, from the announcement. */
  deadlineMs: z.number().positive(),
  /** There exactly when the trust mode is `secure-aggregation`. */
  secureAggregation: SecureRoundSchema.optional(),
});
/** Whether contributions are frames of predictions, without noise of their own and without masks. */
function leavesAsItIs({ release, trustMode }: Pick<z.infer<typeof RoundMembersSchema>, 'release' | 'trustMode'>): boolean {
  return !isOnGrid(release) && trustMode !== 'secure-aggregation';
}

/** Whether `stages` are those of the trust mode is for the reader to check: another list has a code of its own. */
export const RoundDocumentSchema = RoundMembersSchema
  .refine(({ trustMode, secureAggregation }) => (trustMode === 'secure-aggregation') === (secureAggregation !== undefined), { path: ['secureAggregation'], message: 'expected exactly with the trust mode secure-aggregation' })
  .refine((round) => round.sharing === null || leavesAsItIs(round), { path: ['sharing'], message: 'expected nothing where predictions carry noise or masks' })
  .refine((round) => !isBitsEncoding(round.encoding) || (leavesAsItIs(round) && round.release.outputKind === 'probabilities'), { path: ['encoding'], message: 'expected few bits only for probabilities without noise or masks' });
export type RoundDocument = z.infer<typeof RoundDocumentSchema>;

export const finishReasons = ['rounds-done', 'converged', 'budget-exhausted', 'quorum-missed', 'failed'] as const;
export type FinishReason = (typeof finishReasons)[number];

export const FinishedDocumentSchema = z.object({
  protocol: z.literal('fdp/1'),
  task: TaskIdSchema,
  taskDigest: DigestSchema,
  reason: z.enum(finishReasons),
  rounds: count,
  previous: DigestSchema.nullable(),
  labels: SoftLabelsRefSchema.nullable(),
});
export type FinishedDocument = z.infer<typeof FinishedDocumentSchema>;

// --- events from client to coordinator ---

export const HelloSchema = z.strictObject({ protocols: z.array(z.string().max(32)).min(1).max(16), clientKey: bytesOf(32), clientNonce: bytesOf(32) });
export const JoinSchema = z.strictObject({ signature: bytesOf(64), tokenProof: bytesOf(32).optional() });
export const UploadBeginSchema = z.strictObject({ round: RoundIdSchema, stage: StageSchema, bytes: z.int().min(1).max(maxEnvelopeBytes), digest: DigestSchema });
export const UploadChunkSchema = z.strictObject({
  upload: z.string().max(64),
  offset: count,
  data: z.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length > 0 && value.length <= maxChunkBytes, `expected 1 to ${maxChunkBytes} bytes`),
});
export const UploadEndSchema = z.strictObject({ upload: z.string().max(64) });
export const DeclineSchema = z.strictObject({ round: RoundIdSchema, code: z.string().max(64) });
export const LeaveSchema = z.strictObject({});

/** What a client may send, by event name. */
export const clientEventSchemas = {
  hello: HelloSchema,
  join: JoinSchema,
  'upload-begin': UploadBeginSchema,
  'upload-chunk': UploadChunkSchema,
  'upload-end': UploadEndSchema,
  decline: DeclineSchema,
  leave: LeaveSchema,
} as const;
export type ClientEvent = keyof typeof clientEventSchemas;
export type ClientMessage<E extends ClientEvent> = z.infer<(typeof clientEventSchemas)[E]>;
/** The same message as it is sent: bytes in base64 where the schema decodes them. */
export type ClientMessageWire<E extends ClientEvent> = z.input<(typeof clientEventSchemas)[E]>;

// --- their acknowledgements ---

export const HelloAckSchema = z.object({ protocol: z.string(), coordinatorKey: bytesOf(32), serverNonce: bytesOf(32), task: SignedDocumentSchema, signature: bytesOf(64) });
export const JoinAckSchema = z.object({
  clientId: fingerprintText.transform((id) => id as ClientId),
  sessionToken: z.string().min(1).max(256),
  nextRound: RoundIdSchema,
  round: SignedDocumentSchema.nullable(),
  finished: SignedDocumentSchema.nullable(),
});
export const UploadBeginAckSchema = z.union([z.object({ accepted: z.literal(true), duplicate: z.boolean() }), z.object({ upload: z.string().min(1).max(64), offset: count })]);
export const UploadChunkAckSchema = z.object({ offset: count });
export const UploadEndAckSchema = z.object({ accepted: z.literal(true), duplicate: z.boolean() });
export const EmptyAckSchema = z.object({});

export const clientAckSchemas = {
  hello: HelloAckSchema,
  join: JoinAckSchema,
  'upload-begin': UploadBeginAckSchema,
  'upload-chunk': UploadChunkAckSchema,
  'upload-end': UploadEndAckSchema,
  decline: EmptyAckSchema,
  leave: EmptyAckSchema,
} as const satisfies Record<ClientEvent, z.ZodType>;
/** What the coordinator answers, as it is sent (without `ok`). */
export type ClientAckWire<E extends ClientEvent> = z.input<(typeof clientAckSchemas)[E]>;
export type ClientAck<E extends ClientEvent> = z.infer<(typeof clientAckSchemas)[E]>;

// --- events from coordinator to client; each is acknowledged with {"ok": true} or a problem ---

export const RoundClosedSchema = z.strictObject({
  round: RoundIdSchema,
  outcome: z.enum(['released', 'aborted']),
  code: z.string().max(64).nullable(),
  contributions: count,
  nextRound: RoundIdSchema,
});
/** A later stage of a round of secure aggregation is open; `data` is the message of docs/secure-aggregation.md that opens it. */
export const StageOpenedSchema = z.strictObject({
  round: RoundIdSchema,
  stage: z.enum(secureStageNames),
  data: z.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length > 0 && value.length <= maxStageBytes, `expected 1 to ${maxStageBytes} bytes`),
});
export const coordinatorEventSchemas = {
  round: SignedDocumentSchema,
  stage: StageOpenedSchema,
  'round-closed': RoundClosedSchema,
  finished: SignedDocumentSchema,
  problem: z.strictObject({ problem: ProblemSchema }),
} as const;
export type CoordinatorEvent = keyof typeof coordinatorEventSchemas;
export type CoordinatorMessage<E extends CoordinatorEvent> = z.infer<(typeof coordinatorEventSchemas)[E]>;
export type CoordinatorMessageWire<E extends CoordinatorEvent> = z.input<(typeof coordinatorEventSchemas)[E]>;

/** Every acknowledgement on the wire. */
export type Ack<T extends object = object> = ({ readonly ok: true } & T) | { readonly ok: false; readonly problem: z.infer<typeof ProblemSchema> };
export const AckSchema = z.discriminatedUnion('ok', [z.looseObject({ ok: z.literal(true) }), z.object({ ok: z.literal(false), problem: ProblemSchema })]);
