/**
 * Kills the coordinator before and after every single operation on its store, in a whole task, and starts it again on what is there. The
 * clients only reconnect and resend the bytes that they sealed first.
 */
import { describe, expect, it, vi } from 'vitest';
import type { RoundDocument } from '../../../shared/protocol/messages.ts';
import type { RoundEvent } from '../../../shared/rounds/state.ts';
import { MemoryStore } from '../../../simulations/memory-store.ts';
import { CrashStore, type Failure } from './crash-store.ts';
import { expectedConsensus, frameOf, largestDifference } from './predictions.ts';
import { ProtocolClient, takePart, TestFederation } from './protocol-client.ts';

vi.mock(import('../../../shared/crypto/signature.ts'), async (original) => {
  const { memoized } = await import('./memoized-crypto.ts');
  const real = await original();
  return { ...real, signMessage: memoized(real.signMessage), verifySignature: memoized(real.verifySignature) };
});
vi.mock(import('../../../shared/crypto/sealed-box.ts'), async (original) => {
  const { memoized } = await import('./memoized-crypto.ts');
  const real = await original();
  const boxKeysFromSecret = memoized(real.boxKeysFromSecret);
  return { ...real, boxKeysFromSecret, generateBoxKeys: (random) => boxKeysFromSecret(random.bytes(32)), sealBox: memoized(real.sealBox), openBox: memoized(real.openBox) };
});

const clients = [1, 2, 3];

interface Outcome {
  readonly consensus: Float32Array;
  /** Announcements that clients saw, by round. */
  readonly documents: ReadonlyMap<number, RoundDocument>;
  readonly journal: readonly RoundEvent[];
  readonly metrics: readonly { readonly round: number; readonly contributions: number }[];
  readonly announcements: ReadonlyMap<number, number>;
  readonly operations: readonly string[];
  readonly hasFailed: boolean;
  /** Box secrets and contributions of rounds that are over. */
  readonly leftovers: readonly string[];
}

/** A whole task in which the store fails once; a coordinator that died or gave up is started again two seconds later. */
async function runTask(failure?: Failure): Promise<Outcome> {
  const disk = { contents: new MemoryStore() };
  const federation = new TestFederation();
  const failing = new CrashStore(disk.contents, failure, () => {
    if (failure?.how === 'dies') federation.kill();
  });
  federation.store = failing;
  return federation.run(async () => {
    const keepRunning = async () => {
      for (;;) {
        try {
          const coordinator = await Promise.race([federation.start(), whenKilled(federation, failing, failure)]);
          if (coordinator !== undefined) {
            const reason = await Promise.race([coordinator.finished, whenKilled(federation, failing, failure)]);
            if (reason !== undefined) {
              await federation.sleep(1000); // what runs in the background
              if (!(federation.store === failing && failing.hasFailed && failure?.how !== 'hiccups')) return;
            }
          }
        } catch {
          await federation.sleep(1000); // it gave up
        }
        federation.kill();
        await federation.sleep(2000);
        disk.contents = disk.contents.reopen();
        federation.store = disk.contents;
      }
    };
    const members = clients.map((number) => ({ number, client: new ProtocolClient(federation, number) }));
    const documents = new Map<number, RoundDocument>();
    const frameFor = (number: number) => (document: RoundDocument) => {
      documents.set(document.round, document);
      return frameOf(number, document);
    };
    const running = keepRunning();
    const finished = await Promise.all(members.map(({ number, client }) => takePart(client, frameFor(number))));
    await running;

    for (const { reason, rounds } of finished) expect([reason, rounds]).toEqual(['rounds-done', 3]);
    const { contents } = disk;
    const operations = [...failing.names];
    await federation.coordinator.close(); // tries once more to erase
    const journal = (await contents.readLog('journal')) as RoundEvent[];
    const lastRound = Math.max(...federation.transcripts.keys());
    const names = Array.from({ length: lastRound + 1 }, (_, round) => [`rounds/${round + 1}/box-secret`, ...members.map(({ client }) => `rounds/${round + 1}/contributions/${client.id}`)]).flat();
    const leftovers: string[] = [];
    for (const name of names) if ((await contents.getBlob(name)) !== undefined) leftovers.push(name);
    const metrics = (await contents.readLog('metrics.jsonl')) as Outcome['metrics'];
    federation.kill();
    federation.store = contents.reopen();
    await federation.start(); // a task that is finished can still be asked
    const { client } = members[0]!;
    await client.arrive();
    return {
      consensus: (await client.labels('/finished/soft-labels', finished[0]!.labels!)).matrix.values,
      documents,
      journal,
      metrics,
      announcements: new Map([...federation.transcripts].map(([round, transcripts]) => [round, transcripts.size])),
      operations,
      hasFailed: failing.hasFailed,
      leftovers,
    };
  });
}

/** Resolves with `undefined` once the failure has killed the process. */
async function whenKilled(federation: TestFederation, store: CrashStore, failure: Failure | undefined): Promise<undefined> {
  if (federation.store !== store || failure?.how !== 'dies') return new Promise(() => undefined);
  while (!store.hasFailed) await federation.sleep(100);
  return undefined;
}

function stored(journal: readonly RoundEvent[]): string[] {
  return journal.flatMap((event) => (event.type === 'contribution-stored' ? [`${event.round} ${event.client}`] : []));
}

function releasedRounds(journal: readonly RoundEvent[]): number[] {
  return journal.flatMap((event) => (event.type === 'round-aggregated' ? [event.round] : []));
}

/** What holds after every failure. */
function checkOutcome(outcome: Outcome): void {
  const counted = stored(outcome.journal);
  expect(new Set(counted).size).toBe(counted.length); // nothing counted twice
  expect([...outcome.announcements.values()].every((count) => count === 1)).toBe(true); // no number used twice
  expect(outcome.leftovers).toEqual([]);
  const released = releasedRounds(outcome.journal);
  expect(outcome.metrics.map(({ round }) => round).filter((round) => released.includes(round))).toEqual(released);
  const last = outcome.documents.get(released.at(-1)!)!;
  expect(largestDifference(outcome.consensus, expectedConsensus(clients, last, new TestFederation().config.aggregation))).toBeLessThan(1e-6);
}

const undisturbed = await runTask();
const operations = undisturbed.operations.length;

describe(`a coordinator whose store fails at one of its ${operations} operations`, () => {
  it('ends the undisturbed task with three releases', () => {
    checkOutcome(undisturbed);
    expect(releasedRounds(undisturbed.journal)).toEqual([1, 2, 3]);
    expect(undisturbed.metrics).toHaveLength(3);
  });

  it.each([
    { how: 'dies', when: 'before' },
    { how: 'dies', when: 'after' },
    { how: 'throws', when: 'before' },
    { how: 'throws', when: 'after' },
  ] as const)('goes on with the very same rounds when it $how $when any operation', async (failure) => {
    for (let operation = 0; operation < operations; operation++) {
      const outcome = await runTask({ ...failure, operation });
      const what = `operation ${operation}: ${undisturbed.operations[operation]}`;
      try {
        expect(outcome.hasFailed).toBe(true);
        checkOutcome(outcome);
        expect(outcome.metrics.map(({ round, contributions }) => [round, contributions])).toEqual([[1, 3], [2, 3], [3, 3]]);
        expect(releasedRounds(outcome.journal)).toEqual([1, 2, 3]);
        expect([...outcome.consensus]).toEqual([...undisturbed.consensus]);
      } catch (error) {
        throw new Error(what, { cause: error });
      }
    }
  });

  it('ends the task when one operation fails and the disk works again', async () => {
    for (let operation = 0; operation < operations; operation++) {
      const outcome = await runTask({ how: 'hiccups', when: 'before', operation });
      try {
        checkOutcome(outcome);
        expect(releasedRounds(outcome.journal)).toHaveLength(3);
        expect(outcome.metrics).toHaveLength(3);
      } catch (error) {
        throw new Error(`operation ${operation}: ${undisturbed.operations[operation]}`, { cause: error });
      }
    }
  });
});
