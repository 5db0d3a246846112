import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PartitionSchema } from '../../../shared/config/partition-config.ts';
import type { PartitionSpec } from '../../../shared/config/partition-config.ts';
import { labelHistogram, partition } from '../../../shared/datasets/partition.ts';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { FederationError } from '../../../shared/errors.ts';

/** `size` labels, uniform over the classes. */
function uniformLabels(size: number, numClasses: number, seed = 17): Int32Array {
  const generator = new SeededGenerator(seed);
  return Int32Array.from({ length: size }, () => generator.integer(numClasses));
}

const labels = uniformLabels(6000, 10);
const specs = fc.oneof(
  fc.constant<PartitionSpec>({ kind: 'iid' }),
  fc.record({ kind: fc.constant('dirichlet' as const), alpha: fc.double({ min: 0.05, max: 100, noNaN: true }), minPerClient: fc.integer({ min: 1, max: 20 }) }),
  fc.record({ kind: fc.constant('dirichlet' as const), alpha: fc.double({ min: 0.05, max: 100, noNaN: true }), minPerClient: fc.integer({ min: 1, max: 20 }), balanced: fc.constant(true) }),
  fc.record({ kind: fc.constant('quantity' as const), alpha: fc.double({ min: 0.05, max: 100, noNaN: true }), minPerClient: fc.integer({ min: 1, max: 20 }) }),
  fc.record({ kind: fc.constant('shards' as const), classesPerClient: fc.integer({ min: 1, max: 5 }) }),
);

/** Share of a client's most frequent class, averaged over clients: 0.1 is balanced, 1 is one class each. */
function meanLargestShare(parts: readonly Uint32Array[]): number {
  const shares = parts.map((part) => Math.max(...labelHistogram(labels, 10, part)) / part.length);
  return shares.reduce((a, b) => a + b) / shares.length;
}

describe('partition', () => {
  it('is a partition: every example at most once, every one unless `shards` leaves classes out, minimum kept, or a clear error', () => {
    fc.assert(fc.property(specs, fc.integer({ min: 1, max: 12 }), fc.integer({ min: 0, max: 0xffff_ffff }), fc.integer({ min: 1, max: 400 }), (spec, clients, seed, size) => {
      const some = labels.slice(0, size);
      let parts: Uint32Array[];
      try {
        parts = partition(some, 10, spec, clients, seed);
      } catch (error) {
        expect(error).toBeInstanceOf(FederationError);
        return;
      }
      expect(parts).toHaveLength(clients);
      const all = parts.flatMap((part) => [...part]);
      expect(new Set(all).size).toBe(all.length);
      expect(all.every((index) => index < size)).toBe(true);
      if (spec.kind !== 'shards') expect(all).toHaveLength(size);
      const minimum = 'minPerClient' in spec ? spec.minPerClient! : 1;
      for (const part of parts) expect(part.length).toBeGreaterThanOrEqual(minimum);
      expect(partition(some, 10, spec, clients, seed)).toEqual(parts);
    }), { numRuns: 150 });
  });

  it('differs by seed', () => {
    expect(partition(labels, 10, { kind: 'iid' }, 5, 1)).not.toEqual(partition(labels, 10, { kind: 'iid' }, 5, 2));
  });

  it('iid: equal sizes and every class everywhere', () => {
    const parts = partition(labels, 10, { kind: 'iid' }, 7, 1);
    const sizes = parts.map((part) => part.length);
    expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
    for (const part of parts) expect(Math.min(...labelHistogram(labels, 10, part))).toBeGreaterThan(50);
  });

  it('balanced dirichlet: a client that has its even share before a class gets nothing of it', () => {
    for (let seed = 0; seed < 20; seed++) {
      const parts = partition(labels, 10, { kind: 'dirichlet', alpha: 0.5, balanced: true }, 10, seed);
      for (const part of parts) {
        const histogram = labelHistogram(labels, 10, part);
        // Classes are dealt in order: whatever the client had before its last one was below the even share.
        const last = histogram.findLastIndex((count) => count > 0);
        expect(part.length - histogram[last]!).toBeLessThan(600);
        expect(part.length).toBeGreaterThanOrEqual(10);
      }
      expect(parts.reduce((sum, part) => sum + part.length, 0)).toBe(6000);
    }
  });

  it('counts: each client has just as many of each class as it says, none twice', () => {
    const counts = [[3, 0, 41, 0, 0, 0, 0, 0, 0, 7], [100, 1, 0, 0, 0, 0, 0, 0, 0, 500]];
    const parts = partition(labels, 10, { kind: 'counts', counts }, 2, 5);
    expect(parts.map((part) => [...labelHistogram(labels, 10, part)])).toEqual(counts);
    expect(new Set(parts.flatMap((part) => [...part])).size).toBe(652);
    expect(partition(labels, 10, { kind: 'counts', counts }, 2, 6)).not.toEqual(parts);
    // In random order: the first of a client are not all of one class.
    expect(new Set(parts[1]!.slice(0, 40).map((i) => labels[i]!)).size).toBeGreaterThan(1);
  });

  it('counts: refuses other numbers of clients or classes, clients without examples, and more examples than there are', () => {
    const row = (count: number) => new Array<number>(10).fill(count);
    const refused = (counts: number[][], clients = 2) => {
      try {
        partition(labels, 10, { kind: 'counts', counts }, clients, 1);
      } catch (error) {
        return error as FederationError;
      }
      throw new Error('expected a FederationError');
    };
    expect(refused([row(1)])).toMatchObject({ code: 'config-invalid', expected: '2 rows (clients) of 10 numbers (classes)', got: '1 rows' });
    expect(refused([row(1), [1, 2]])).toMatchObject({ code: 'config-invalid', got: 'a row of 2' });
    expect(refused([row(1), row(0)])).toMatchObject({ code: 'config-invalid', field: 'partition.counts[1]' });
    expect(refused([row(1), [6001, 0, 0, 0, 0, 0, 0, 0, 0, 0]])).toMatchObject({ code: 'data-invalid', got: '6002' });
  });

  it('dirichlet: the lower alpha, the stronger the skew', () => {
    const share = (alpha: number) => meanLargestShare(partition(labels, 10, { kind: 'dirichlet', alpha }, 10, 5));
    expect(share(0.1)).toBeGreaterThan(0.4);
    expect(share(1)).toBeLessThan(share(0.1));
    expect(share(1)).toBeGreaterThan(share(100));
    expect(share(100)).toBeLessThan(0.16);
  });

  it('quantity: sizes differ, classes do not', () => {
    const parts = partition(labels, 10, { kind: 'quantity', alpha: 0.5 }, 10, 5);
    const sizes = parts.map((part) => part.length);
    expect(Math.max(...sizes)).toBeGreaterThan(5 * Math.min(...sizes));
    const [largest] = parts.toSorted((a, b) => b.length - a.length);
    expect(Math.max(...labelHistogram(labels, 10, largest)) / largest!.length).toBeLessThan(0.15);
  });

  it('shards: each client holds exactly its number of classes, and each class has about as many holders', () => {
    for (const classesPerClient of [1, 2, 3, 10]) {
      const parts = partition(labels, 10, { kind: 'shards', classesPerClient }, 20, 3);
      const holders = new Uint32Array(10);
      for (const part of parts) {
        const held = [...labelHistogram(labels, 10, part).entries()].filter(([, count]) => count > 0);
        expect(held).toHaveLength(classesPerClient);
        for (const [label] of held) holders[label]!++;
      }
      expect(Math.max(...holders) - Math.min(...holders)).toBeLessThanOrEqual(1);
    }
  });

  it('shards: a client number that does not divide evenly still gives distinct classes', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 10 }), fc.nat(1000), (clients, classesPerClient, seed) => {
      for (const part of partition(labels, 10, { kind: 'shards', classesPerClient }, clients, seed)) {
        expect(labelHistogram(labels, 10, part).filter((count) => count > 0)).toHaveLength(classesPerClient);
      }
    }));
  });

  it('gives a client its examples in random order, not class after class', () => {
    const [part] = partition(labels, 10, { kind: 'dirichlet', alpha: 100 }, 2, 1);
    const firstTenth = part!.slice(0, Math.floor(part!.length / 10));
    expect(labelHistogram(labels, 10, firstTenth).filter((count) => count > 0).length).toBeGreaterThan(7);
  });

  it.each<[string, PartitionSpec, number, string]>([
    ['more clients than examples', { kind: 'iid' }, 6001, 'data-invalid'],
    ['a minimum that all data together miss', { kind: 'quantity', alpha: 1, minPerClient: 601 }, 10, 'data-invalid'],
    ['a skew that never reaches the minimum', { kind: 'dirichlet', alpha: 0.001, minPerClient: 100 }, 50, 'data-invalid'],
    ['more classes than there are', { kind: 'shards', classesPerClient: 11 }, 2, 'data-invalid'],
    ['more holders of a class than examples of it', { kind: 'shards', classesPerClient: 10 }, 5000, 'data-invalid'],
    ['an alpha of 0', { kind: 'dirichlet', alpha: 0 }, 2, 'config-invalid'],
    ['no clients', { kind: 'iid' }, 0, 'config-invalid'],
  ])('refuses %s', (_, spec, clients, code) => {
    try {
      partition(labels, 10, spec, clients, 1);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(FederationError);
      expect((error as FederationError).code).toBe(code);
      expect((error as FederationError).next).toBeTruthy();
    }
  });

  it('has a default minimum of 10', () => {
    expect(PartitionSchema.parse({ kind: 'dirichlet', alpha: 0.5 })).toEqual({ kind: 'dirichlet', alpha: 0.5, minPerClient: 10, balanced: false });
  });
});

describe('labelHistogram', () => {
  it('counts all labels, or those at some positions', () => {
    const few = Int32Array.of(2, 0, 2, 1);
    expect([...labelHistogram(few, 4)]).toEqual([1, 1, 2, 0]);
    expect([...labelHistogram(few, 4, [0, 2])]).toEqual([0, 0, 2, 0]);
    expect(() => labelHistogram(few, 2)).toThrow(RangeError);
  });
});
