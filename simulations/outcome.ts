/**
 * What one way of learning left behind, whichever it was: a federation, a baseline, one model on everything. The same fields for all, so that an experiment can
 * put them side by side. No times: equal scenarios have equal outcomes, bit for bit.
 */
import { z } from 'zod';
import { PrivacyStatementSchema } from '../shared/privacy/statement.ts';

/** In [0, 1]; null where there were no labels to measure with. */
const share = z.number().min(0).max(1).nullable();
/** Mean negative log-likelihood in nats. */
const nats = z.number().min(0).nullable();
const bytes = z.int().min(0);

/** A bar of a reliability diagram: confidences in (low, high]. */
const ReliabilityBinSchema = z.strictObject({ low: z.number(), high: z.number(), count: z.int().min(0), meanConfidence: share, accuracy: share });

/** A model, measured on the scenario's test set. */
export const ModelQualitySchema = z.strictObject({
  accuracy: share,
  nll: nats,
  /** Expected calibration error over 15 bins of equal width. */
  calibrationError: share,
  reliability: z.array(ReliabilityBinSchema),
});
export type ModelQuality = z.infer<typeof ModelQualitySchema>;

export const ClientOutcomeSchema = z.strictObject({
  name: z.string(),
  /** Name in the model zoo. */
  model: z.string(),
  privateRecords: z.int().min(0),
  accuracy: share,
  nll: nats,
  /** Of a student that trained as often on the client's own records alone. */
  localOnlyAccuracy: share,
  /** What made it fail, else null: a stable code and the message. */
  error: z.strictObject({ code: z.string(), message: z.string() }).nullable(),
});
export type ClientOutcome = z.infer<typeof ClientOutcomeSchema>;

export const RoundOutcomeSchema = z.strictObject({
  round: z.int().min(0),
  /** Clients whose predictions (or weights) are in what was released. */
  contributions: z.int().min(0),
  /** Of the coordinator's model after this round, on the task's evaluation set. */
  accuracy: share,
  /** Mean over clients that measure themselves: of the models whose predictions (or weights) went into this round; round 0: after pretraining. */
  meanClientAccuracy: share,
  /** Payload bytes of all clients since the start. */
  bytesUp: bytes,
  bytesDown: bytes,
});
export type RoundOutcome = z.infer<typeof RoundOutcomeSchema>;

export const OutcomeSchema = z.strictObject({
  /** Why it ended: `rounds-done`, `converged`, `budget-exhausted`, ... */
  reason: z.string(),
  /** The model that the coordinator (or the baseline) ends with; null when only clients have one. */
  final: ModelQualitySchema.nullable(),
  clients: z.array(ClientOutcomeSchema),
  rounds: z.array(RoundOutcomeSchema),
  bytesUp: bytes,
  bytesDown: bytes,
  /** What the same releases guarantee with noise of the system's generator; null for baselines, which claim nothing. */
  statement: PrivacyStatementSchema.nullable(),
});
export type Outcome = z.infer<typeof OutcomeSchema>;
