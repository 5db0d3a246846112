/** How texts become numbers: the keys that the data sources `text` and `spam-assassin` share. `datasets/text-features.ts` does it. */
import { z } from 'zod';

const length = z.int().min(1).max(8);

export const textFeatureKeys = {
  /**
   * `hashedNgrams`: which n-grams occur; `tokens`: the first words as ids for an embedding; `surface`: sixteen counts and shares of characters and words. A sum has
   * the columns of both, one after the other. How many n-grams' columns or tokens there are follows from the task's `data.exampleShape`.
   */
  features: z.enum(['hashedNgrams', 'tokens', 'surface', 'hashedNgrams+surface', 'tokens+surface']).default('hashedNgrams'),
  /** What an n-gram consists of. */
  units: z.enum(['words', 'characters']).default('words'),
  /** Units of the shortest and of the longest n-gram. */
  ngrams: z
    .tuple([length, length])
    .refine(([shortest, longest]) => shortest <= longest, 'expected [shortest, longest]')
    .default([1, 2]),
  /** Of the hash: everyone in a task needs the same one. */
  seed: z.int().min(0).max(0xffff_ffff).default(0),
};

export type TextFeatures = z.infer<z.ZodObject<typeof textFeatureKeys>>;
