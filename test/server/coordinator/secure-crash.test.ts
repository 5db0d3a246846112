/**
 * Kills the coordinator before and after every single operation on its store, in a round of secure aggregation, and starts it again on what is there. The clients keep
 * their state of the key exchange, reconnect, and resend the bytes that they sealed first.
 */
import { describe, expect, it, vi } from 'vitest';
import type { RoundEvent } from '../../../shared/rounds/state.ts';
import { secureStageNames, type SecureStageName, type StageName } from '../../../shared/protocol/messages.ts';
import { MemoryStore } from '../../../simulations/memory-store.ts';
import { CrashStore, type Failure } from './crash-store.ts';
import { ProtocolClient, TestFederation } from './protocol-client.ts';
import { takeSecurePart } from './secure-client.ts';

vi.mock(import('../../../shared/crypto/signature.ts'), async (original) => (await import('./fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../../shared/crypto/sealed-box.ts'), async (original) => (await import('./fast-crypto.ts')).fastBoxes(await original()));

const clients = [1, 2, 3];
const stageFolders = [2, 3, 4, 5, 6];

interface Outcome {
  readonly reason: string;
  /** Of the last soft labels; empty without any. */
  readonly consensus: readonly number[];
  readonly journal: readonly RoundEvent[];
  readonly metrics: readonly { readonly round: number; readonly contributions: number }[];
  readonly operations: readonly string[];
  readonly hasFailed: boolean;
  readonly leftovers: readonly string[];
  /** Openings of stages that a client saw more than once; `takeSecurePart` has compared their bytes. */
  readonly repeats: number;
}

/** A task of one release in which the store fails once. `vanishes`: the third client sends nothing from this stage on, in every round. */
async function runTask(failure?: Failure, vanishes?: SecureStageName): Promise<Outcome> {
  const disk = { contents: new MemoryStore() };
  const federation = new TestFederation({
    schedule: { rounds: 1, minClients: 3, quorum: 2, roundDeadlineSeconds: 60, reconnectGraceSeconds: 10, maxFailedRounds: 3 },
    privacy: { trustMode: 'secure-aggregation', mechanism: 'none', secureAggregation: { maxCorrupt: 0, stageDeadlineSeconds: 5 } },
  });
  const failing = new CrashStore(disk.contents, failure, () => {
    if (failure?.how === 'dies') federation.kill();
  });
  federation.store = failing;
  return federation.run(async () => {
    const keepRunning = async () => {
      for (;;) {
        try {
          const coordinator = await Promise.race([federation.start(), whenKilled(federation, failing, failure)]);
          if (coordinator !== undefined && (await Promise.race([coordinator.finished, whenKilled(federation, failing, failure)])) !== undefined) {
            await federation.sleep(1000); // what runs in the background
            if (!(federation.store === failing && failing.hasFailed && failure?.how !== 'hiccups')) return;
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
    const members = clients.map((number) => new ProtocolClient(federation, number));
    const isGone = (number: number) => (_round: number, stage: SecureStageName) => number === 3 && vanishes !== undefined && secureStageNames.indexOf(stage) >= secureStageNames.indexOf(vanishes);
    const running = keepRunning();
    const finished = await Promise.all(members.map((client, i) => takeSecurePart(client, i + 1, isGone(i + 1))));
    await running;
    const { contents } = disk;
    await federation.coordinator.close(); // tries once more to erase
    const journal = (await contents.readLog('journal')) as RoundEvent[];
    const leftovers: string[] = [];
    for (const round of federation.transcripts.keys()) {
      const names = [`rounds/${round}/box-secret`, ...stageFolders.flatMap((stage) => members.map(({ id }) => `rounds/${round}/stage-${stage}/${id}`))];
      for (const name of names) if ((await contents.getBlob(name)) !== undefined) leftovers.push(name);
    }
    for (const [round, transcripts] of federation.transcripts) expect(transcripts.size, `announcements of round ${round}`).toBe(1);
    const labels = await contents.getBlob('finished-labels');
    return {
      reason: finished[0]!.reason,
      consensus: labels === undefined ? [] : [...labels],
      journal,
      metrics: (await contents.readLog('metrics.jsonl')) as Outcome['metrics'],
      operations: [...failing.names],
      hasFailed: failing.hasFailed,
      leftovers,
      repeats: finished.reduce((sum, { repeats }) => sum + repeats, 0),
    };
  });
}

/** Resolves with `undefined` once the failure has killed the process. */
async function whenKilled(federation: TestFederation, store: CrashStore, failure: Failure | undefined): Promise<undefined> {
  if (federation.store !== store || failure?.how !== 'dies') return new Promise(() => undefined);
  while (!store.hasFailed) await federation.sleep(100);
  return undefined;
}

/** Clients whose message of a stage the journal counts, by round. */
function counted(journal: readonly RoundEvent[], stage: StageName): Map<number, string[]> {
  const rounds = new Map<number, string[]>();
  for (const event of journal) if (event.type === 'contribution-stored' && event.stage === stage) rounds.set(event.round, [...(rounds.get(event.round) ?? []), event.client]);
  return rounds;
}

/** What holds after every failure: nobody counted twice, one sum, nothing left of anybody. */
function checkOutcome(outcome: Outcome): void {
  for (const stage of secureStageNames) for (const [round, members] of counted(outcome.journal, stage)) expect(new Set(members).size, `${stage} of round ${round}`).toBe(members.length);
  const released = outcome.journal.flatMap((event) => (event.type === 'round-aggregated' ? [event.round] : []));
  expect(released).toHaveLength(1);
  expect(outcome.reason).toBe('rounds-done');
  expect(outcome.metrics.filter(({ round }) => round === released[0])).toEqual([expect.objectContaining({ contributions: counted(outcome.journal, 'maskedInput').get(released[0]!)!.length })]);
  expect(outcome.leftovers).toEqual([]);
}

const undisturbed = await runTask();
const operations = undisturbed.operations.length;

describe(`a coordinator whose store fails at one of its ${operations} operations in a round of secure aggregation`, () => {
  it.each([
    { how: 'dies', when: 'before' },
    { how: 'dies', when: 'after' },
    { how: 'throws', when: 'after' },
  ] as const)('comes to the same one sum in the same round when it $how $when any operation', async (failure) => {
    let repeats = 0;
    for (let operation = 0; operation < operations; operation++) {
      const outcome = await runTask({ ...failure, operation });
      try {
        expect(outcome.hasFailed).toBe(true);
        checkOutcome(outcome);
        expect(outcome.metrics.map(({ round, contributions }) => [round, contributions])).toEqual([[1, 3]]);
        expect(outcome.consensus).toEqual(undisturbed.consensus);
        repeats += outcome.repeats;
      } catch (error) {
        throw new Error(`operation ${operation}: ${undisturbed.operations[operation]}`, { cause: error });
      }
    }
    expect(repeats).toBeGreaterThan(operations / 10); // stages that a second process opened again, with the same bytes
  });

  it('ends with one sum when one operation fails and the disk works again', async () => {
    for (let operation = 0; operation < operations; operation++) {
      const outcome = await runTask({ how: 'hiccups', when: 'before', operation });
      try {
        checkOutcome(outcome);
      } catch (error) {
        throw new Error(`operation ${operation}: ${undisturbed.operations[operation]}`, { cause: error });
      }
    }
  });

  it.each(['maskedInput', 'unmask'] as const)('keeps the survivors that it had when it dies after any operation and a client vanishes before %s', async (stage) => {
    const calm = await runTask(undefined, stage);
    checkOutcome(calm);
    expect(calm.metrics).toMatchObject([{ contributions: stage === 'maskedInput' ? 2 : 3 }]);
    for (let operation = 0; operation < calm.operations.length; operation++) {
      const outcome = await runTask({ how: 'dies', when: 'after', operation }, stage);
      try {
        checkOutcome(outcome);
        expect(outcome.consensus).toEqual(calm.consensus);
      } catch (error) {
        throw new Error(`operation ${operation}: ${calm.operations[operation]}`, { cause: error });
      }
    }
  });
});
