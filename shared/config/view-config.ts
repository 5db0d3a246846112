/** Views, as files and the command line write them: a public function of one example, in steps. `datasets/views.ts` applies them. */
import { z } from 'zod';

/** [from, to): the first position that is kept, and the first one after it that is not. */
const range = z.tuple([z.int().min(0).max(65_535), z.int().min(1).max(65_536)]).refine(([from, to]) => from < to, 'expected [from, to] with from below to');

export const ViewStepSchema = z.discriminatedUnion('kind', [
  /** Keeps these rows and columns of an image, or these positions (`columns`) of a vector. */
  z.strictObject({ kind: z.literal('crop'), rows: range.optional(), columns: range.optional() }),
  /** Means of squares of `factor` x `factor` pixels. */
  z.strictObject({ kind: z.literal('downsample'), factor: z.int().min(2).max(256) }),
  /** Central differences of each channel, along rows and along columns: two channels for one. */
  z.strictObject({ kind: z.literal('gradient') }),
]);
export type ViewStep = z.infer<typeof ViewStepSchema>;

/** The steps of a view, first to last; none: the example as it is. */
export const ViewSchema = z.array(ViewStepSchema).max(8);
export type View = z.infer<typeof ViewSchema>;
