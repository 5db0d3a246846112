/** The columns of a CSV file that are features, and how they become numbers. All of it is public: the same for every client of a task. */
import { z } from 'zod';

const header = z.string().min(1).max(256);

export const ColumnSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    /** One feature: (value - `mean`) / `scale`. */
    kind: z.literal('number'),
    name: header,
    mean: z.number().default(0),
    scale: z.number().positive().default(1),
    /** Stands in for a missing value, before scaling; without it a missing value is an error. */
    whenMissing: z.number().optional(),
  }),
  z.strictObject({
    /** One feature for each of `values`: 1 for the one that is there, else 0. */
    kind: z.literal('category'),
    name: header,
    values: z
      .array(z.string().min(1).max(256))
      .min(1)
      .max(10_000)
      .refine((values) => new Set(values).size === values.length, 'expected each value once'),
    /** A value that is not in the list: an error, or zeros in all features of this column. */
    whenUnknown: z.enum(['refuse', 'zeros']).default('refuse'),
    /** An empty cell: an error, or zeros in all features of this column. */
    whenMissing: z.enum(['refuse', 'zeros']).default('refuse'),
  }),
]);
export type Column = z.infer<typeof ColumnSchema>;
