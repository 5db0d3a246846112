/** What the process of one point and the experiment say to each other. */
import { z } from 'zod';
import { OutcomeSchema } from '../outcome.ts';

export const PointTaskSchema = z.strictObject({
  /** A scenario with every default filled in. */
  scenario: z.unknown(),
  /** What its relative paths are relative to. */
  baseDir: z.string(),
  engine: z.string(),
  /** Where what was computed is kept, until there is a result. */
  journalPath: z.string(),
});
export type PointTask = z.infer<typeof PointTaskSchema>;

export const PointReportSchema = z.discriminatedUnion('kind', [
  /** A round was aggregated. */
  z.strictObject({ kind: z.literal('round'), round: z.int().min(0), rounds: z.int().min(1), accuracy: z.number().nullable() }),
  z.strictObject({ kind: z.literal('outcome'), outcome: OutcomeSchema }),
  /** There will be no outcome: trying again would end the same way. */
  z.strictObject({ kind: z.literal('error'), error: z.strictObject({ code: z.string().min(1), message: z.string() }) }),
]);
export type PointReport = z.infer<typeof PointReportSchema>;
export type RoundReport = Extract<PointReport, { kind: 'round' }>;
