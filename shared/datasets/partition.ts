/**
 * Splits one labelled dataset among clients, to simulate owners whose data differ. Deterministic by seed; no example
 * goes to two clients.
 *
 * Sources: Hsu, Qi & Brown 2019 (Dirichlet label skew); Li et al. 2022, "Federated learning on non-IID data silos"
 * (per-class proportions, a minimum size by drawing again, quantity skew); Li, He & Song 2021, "Practical one-shot federated
 * learning for cross-silo setting" (`balanced`, as in the code its authors published); McMahan et al. 2017 (few classes a client).
 */
import { PartitionSchema } from '../config/partition-config.ts';
import type { PartitionSpec } from '../config/partition-config.ts';
import { FederationError, unreachable } from '../errors.ts';
import { deriveSeed, SeededGenerator } from './seeded-generator.ts';

/** How often a skewed split is drawn before it is called impossible. */
export const MAX_DRAWS = 1000;

/**
 * Positions into `labels`, one array a client, in random order. Every example is used, except that `shards` leaves out
 * classes no client was dealt, and `counts` whatever it does not count. A client's split depends on the whole of (labels, spec, clients, seed).
 *
 * Throws `data-invalid` when the data can't be split so, `config-invalid` for a spec or client number out of range.
 */
export function partition(labels: Int32Array, numClasses: number, spec: PartitionSpec, clients: number, seed: number): Uint32Array[] {
  const parsed = PartitionSchema.safeParse(spec);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const field = ['partition', ...issue.path.map(String)].join('.');
    throw new FederationError('config-invalid', `${field}: ${issue.message}`, { field, next: 'Correct the partition.' });
  }
  if (!Number.isInteger(clients) || clients < 1) {
    throw new FederationError('config-invalid', `expected at least 1 client, got ${clients}`, { field: 'clients', expected: 'an integer >= 1', got: `${clients}`, next: 'Raise the number of clients.' });
  }
  const resolved = parsed.data;
  const minPerClient = 'minPerClient' in resolved ? resolved.minPerClient : 1;
  if (labels.length < clients * minPerClient) {
    throw new FederationError('data-invalid', `${labels.length} examples can't give ${clients} clients ${minPerClient} each`, {
      field: 'partition', expected: `at least ${clients * minPerClient} examples`, got: `${labels.length}`, next: 'Use fewer clients, more data, or a lower minPerClient.',
    });
  }
  const generator = new SeededGenerator(deriveSeed(seed, 'partition', resolved.kind));
  switch (resolved.kind) {
    case 'iid': {
      const sizes = evenCuts(labels.length, clients);
      return deal([generator.permutation(labels.length)], [sizes], clients, generator);
    }
    case 'quantity': {
      const [cuts] = drawCuts([labels.length], clients, resolved, generator);
      return deal([generator.permutation(labels.length)], [cuts!], clients, generator);
    }
    case 'dirichlet': {
      const groups = byClass(labels, numClasses);
      const cuts = drawCuts(groups.map((group) => group.length), clients, resolved, generator);
      groups.forEach((group) => generator.shuffle(group));
      return deal(groups, cuts, clients, generator);
    }
    case 'shards':
      return dealClasses(byClass(labels, numClasses), resolved.classesPerClient, clients, generator);
    case 'counts': {
      const groups = byClass(labels, numClasses);
      const cuts = cutsOfCounts(resolved.counts, groups, clients);
      groups.forEach((group) => generator.shuffle(group));
      return deal(groups, cuts, clients, generator);
    }
    default:
      return unreachable(resolved);
  }
}

/** Number of examples of each class: of all of them, or of those at these positions. length = numClasses */
export function labelHistogram(labels: Int32Array, numClasses: number, indices?: ArrayLike<number>): Uint32Array {
  const counts = new Uint32Array(numClasses);
  const length = indices?.length ?? labels.length;
  for (let i = 0; i < length; i++) {
    const label = labels[indices === undefined ? i : indices[i]!];
    if (label === undefined || label < 0 || label >= numClasses) throw new RangeError(`"labels" expected integers in [0, ${numClasses}), got ${label}`);
    counts[label]!++;
  }
  return counts;
}

/** Positions of the examples of each class, ascending. */
function byClass(labels: Int32Array, numClasses: number): Uint32Array[] {
  const groups = Array.from(labelHistogram(labels, numClasses), (count) => new Uint32Array(count));
  const filled = new Uint32Array(numClasses);
  labels.forEach((label, i) => {
    groups[label]![filled[label]!++] = i;
  });
  return groups;
}

/** Ends of `parts` slices of a group, as even as can be: `cuts[i]` is where part i ends. */
function evenCuts(length: number, parts: number): Uint32Array {
  return Uint32Array.from({ length: parts }, (_, i) => Math.floor((length * (i + 1)) / parts));
}

/**
 * Ends of slices in Dirichlet proportions for every group, drawn again until each client's slices reach the minimum. `balanced`: clients that have their even
 * share of all examples before a group take no part in it; the proportions of the others are scaled up to 1.
 */
function drawCuts(groupSizes: readonly number[], clients: number, { alpha, minPerClient, balanced = false }: { readonly alpha: number; readonly minPerClient: number; readonly balanced?: boolean }, generator: SeededGenerator): Uint32Array[] {
  let best = 0;
  const evenShare = groupSizes.reduce((sum, size) => sum + size, 0) / clients;
  for (let draw = 0; draw < MAX_DRAWS; draw++) {
    const totals = new Uint32Array(clients);
    const cuts = groupSizes.map((size) => {
      const drawn = generator.dirichlet(alpha, clients);
      const takePart = totals.map((total) => (!balanced || total < evenShare ? 1 : 0));
      const proportions = balanced ? amongThose(drawn, takePart) : drawn;
      const lastPart = takePart.lastIndexOf(1);
      const ends = new Uint32Array(clients);
      let cumulative = 0;
      for (let client = 0, before = 0; client < clients; client++) {
        cumulative += proportions[client]!;
        // The proportions sum to 1 only up to rounding; the last slice ends where the group does.
        const end = client >= lastPart ? size : Math.min(size, Math.floor(cumulative * size));
        totals[client]! += end - before;
        ends[client] = before = end;
      }
      return ends;
    });
    const smallest = totals.reduce((a, b) => Math.min(a, b));
    if (smallest >= minPerClient) return cuts;
    best = Math.max(best, smallest);
  }
  throw new FederationError('data-invalid', `no split with alpha ${alpha} gave each of ${clients} clients ${minPerClient} examples in ${MAX_DRAWS} draws (the best gave ${best})`, {
    field: 'partition', expected: `at least ${minPerClient} examples for each client`, got: `${best}`, next: 'Raise alpha, lower minPerClient, use fewer clients, or use more data.',
  });
}

/** Proportions of those with a 1 alone, so that their sum is 1; even ones when they were drawn nothing. */
function amongThose(proportions: Float64Array, takePart: Uint32Array): Float64Array {
  const kept = proportions.map((share, client) => share * takePart[client]!);
  const sum = kept.reduce((a, b) => a + b, 0);
  if (sum > 0) return kept.map((share) => share / sum);
  const parts = takePart.reduce((a, b) => a + b, 0);
  return kept.map((_, client) => takePart[client]! / parts);
}

/** Ends of the slices that give each client its number of each class. */
function cutsOfCounts(counts: readonly (readonly number[])[], groups: readonly Uint32Array[], clients: number): Uint32Array[] {
  const odd = counts.find((row) => row.length !== groups.length);
  if (counts.length !== clients || odd !== undefined) {
    const [expected, got] = [`${clients} rows (clients) of ${groups.length} numbers (classes)`, odd === undefined ? `${counts.length} rows` : `a row of ${odd.length}`];
    throw new FederationError('config-invalid', `partition.counts: expected ${expected}, got ${got}`, { field: 'partition.counts', expected, got, next: 'Give one row for each client, with one number for each class.' });
  }
  const empty = counts.findIndex((row) => row.every((count) => count === 0));
  if (empty !== -1) throw new FederationError('config-invalid', `partition.counts[${empty}]: expected at least one example, got none`, { field: `partition.counts[${empty}]`, expected: 'at least one example', got: '0', next: 'Give every client an example, or leave it out.' });
  return groups.map((group, label) => {
    let end = 0;
    const ends = Uint32Array.from(counts, (row) => (end += row[label]!));
    if (end > group.length) {
      throw new FederationError('data-invalid', `partition.counts: class ${label} has ${group.length} examples, and ${end} are to be dealt`, { field: 'partition.counts', expected: `at most ${group.length} examples of class ${label}`, got: String(end), next: 'Lower its numbers, or use more data.' });
    }
    return ends;
  });
}

/** Gives each client its slice of every group, in random order: sorted by class, a held-out tail would be one class. */
function deal(groups: readonly Uint32Array[], cuts: readonly Uint32Array[], clients: number, generator: SeededGenerator): Uint32Array[] {
  return Array.from({ length: clients }, (_, client) => {
    const slices = groups.map((group, i) => group.subarray(client === 0 ? 0 : cuts[i]![client - 1]!, cuts[i]![client]));
    return generator.shuffle(concatenate(slices));
  });
}

/** Exactly `classesPerClient` distinct classes for each client; the clients with a class share it evenly. */
function dealClasses(groups: readonly Uint32Array[], classesPerClient: number, clients: number, generator: SeededGenerator): Uint32Array[] {
  const present = Uint32Array.from(groups.keys()).filter((label) => groups[label]!.length > 0);
  if (classesPerClient > present.length) {
    throw new FederationError('data-invalid', `expected at least ${classesPerClient} classes in the data, got ${present.length}`, {
      field: 'partition.classesPerClient', expected: `at most ${present.length}`, got: `${classesPerClient}`, next: 'Lower classesPerClient.',
    });
  }
  // Classes are dealt like cards from shuffled decks, so that each is held by almost the same number of clients. A class
  // that a client holds already stays in the deck for the next one.
  const holders: number[][] = groups.map(() => []);
  const deck: number[] = [];
  for (let client = 0; client < clients; client++) {
    const hand = new Set<number>();
    while (hand.size < classesPerClient) {
      let at = deck.findIndex((label) => !hand.has(label));
      if (at === -1) {
        at = deck.length;
        deck.push(...generator.shuffle(present.slice()));
        at += deck.slice(at).findIndex((label) => !hand.has(label));
      }
      const [label] = deck.splice(at, 1);
      hand.add(label!);
      holders[label!]!.push(client);
    }
  }
  const slices: Uint32Array[][] = Array.from({ length: clients }, () => []);
  groups.forEach((group, label) => {
    const sharing = holders[label]!;
    if (group.length < sharing.length) {
      throw new FederationError('data-invalid', `class ${label} has ${group.length} examples for ${sharing.length} clients`, {
        field: 'partition', expected: `at least ${sharing.length} examples of class ${label}`, got: `${group.length}`, next: 'Lower classesPerClient, use fewer clients, or use more data.',
      });
    }
    generator.shuffle(group);
    const ends = evenCuts(group.length, sharing.length);
    sharing.forEach((client, i) => slices[client]!.push(group.subarray(i === 0 ? 0 : ends[i - 1]!, ends[i])));
  });
  return slices.map((parts) => generator.shuffle(concatenate(parts)));
}

function concatenate(parts: readonly Uint32Array[]): Uint32Array {
  const joined = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
