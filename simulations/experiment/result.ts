/**
 * One line of an experiment's `results.jsonl`: a point of the sweep and what became of it. No times and no machine: a sweep that was interrupted and resumed has
 * the same lines, byte for byte, as one that ran through.
 */
import { z } from 'zod';
import { OutcomeSchema } from '../outcome.ts';

const common = {
  format: z.literal('fedstill-result/1'),
  /** Hash of everything that the outcome depends on; the name of the point's folder. */
  point: z.string().regex(/^[0-9a-f]{16}$/),
  /** Position in the order of the sweep, from 0. */
  index: z.int().min(0),
  /** The point's `task.seed`. Points that differ in nothing else are repetitions of one setting. */
  seed: z.int().min(0).max(0xffff_ffff),
  /** Label of the sweep's case; null for a sweep without cases. */
  case: z.string().nullable(),
  /** Everything that the sweep varies, without the seed: dotted path and the value in the point's scenario with defaults filled in, null where it has no such key. */
  settings: z.record(z.string(), z.json()),
};

export const PointSuccessSchema = z.strictObject({ ...common, outcome: OutcomeSchema });
export const PointFailureSchema = z.strictObject({
  ...common,
  /** Why there is no outcome: a stable code and the message. */
  error: z.strictObject({ code: z.string().min(1), message: z.string() }),
});
export const PointResultSchema = z.union([PointSuccessSchema, PointFailureSchema]);
export type PointSuccess = z.infer<typeof PointSuccessSchema>;
export type PointFailure = z.infer<typeof PointFailureSchema>;
export type PointResult = z.infer<typeof PointResultSchema>;

export function isSuccess(result: PointResult): result is PointSuccess {
  return 'outcome' in result;
}

/** The text of a `results.jsonl`, as results. Throws a zod or JSON error for a damaged line. */
export function parseResults(text: string): PointResult[] {
  return text.split('\n').flatMap((line) => (line === '' ? [] : [PointResultSchema.parse(JSON.parse(line))]));
}
