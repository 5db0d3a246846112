/** How one labelled dataset is split among simulated clients: the schema of a scenario's `partition` section. */
import { z } from 'zod';

const concentration = z.number().positive().max(1e6);
/** Fewest examples a client may get; the split is drawn again until every client has them. */
const minPerClient = z.int().min(1).max(1_000_000).default(10);

export const PartitionSchema = z.discriminatedUnion('kind', [
  /** Equal sizes (up to one example), the same classes everywhere. */
  z.strictObject({ kind: z.literal('iid') }),
  /** Label skew: each class is dealt out in Dirichlet(alpha) proportions. 0.1 is severe, 100 is close to IID. */
  z.strictObject({
    kind: z.literal('dirichlet'),
    alpha: concentration,
    minPerClient,
    /** Who has an even share of all examples already gets none of the classes that are dealt after that, so that nobody has most of them (FedKT's split). */
    balanced: z.boolean().default(false),
  }),
  /** Each client holds exactly this many classes, and no other. */
  z.strictObject({ kind: z.literal('shards'), classesPerClient: z.int().min(1).max(1000) }),
  /** Quantity skew: sizes in Dirichlet(alpha) proportions, the same classes everywhere. */
  z.strictObject({ kind: z.literal('quantity'), alpha: concentration, minPerClient }),
  /** A split that is known by its numbers, e.g. a published one: examples of each class (columns) for each client (rows). Which examples is drawn. */
  z.strictObject({ kind: z.literal('counts'), counts: z.array(z.array(z.int().min(0).max(1e9)).min(1).max(1000)).min(1).max(10_000) }),
]);

/** A partition as written: what has a default may be left out. */
export type PartitionSpec = z.input<typeof PartitionSchema>;
