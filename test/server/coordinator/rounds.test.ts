import { describe, expect, it } from 'vitest';
import { FederationError } from '../../../shared/errors.ts';
import type { DurableStore } from '../../../shared/ports/durable-store.ts';
import type { CoordinatorMessage } from '../../../shared/protocol/messages.ts';
import type { RoundEvent } from '../../../shared/rounds/state.ts';
import type { Teacher } from '../../../server/coordinator/teacher.ts';
import { MemoryStore } from '../../../simulations/memory-store.ts';
import { expectedConsensus, frameOf, largestDifference } from './predictions.ts';
import { beginMessage, connectDirectly, problemAck, ProtocolClient, refusal, takePart, TestFederation, type FederationOptions, type OpenRound } from './protocol-client.ts';

interface Parts {
  readonly federation: TestFederation;
  /** Client number `n`. */
  readonly client: (n: number) => ProtocolClient;
  readonly all: readonly ProtocolClient[];
}

/** A coordinator with clients 1 to 3, not yet connected. */
async function within(options: FederationOptions, work: (parts: Parts) => Promise<void>): Promise<void> {
  const federation = new TestFederation(options);
  const all = [1, 2, 3].map((number) => new ProtocolClient(federation, number));
  await federation.run(async () => {
    await federation.start();
    await work({ federation, all, client: (n) => all[n - 1]! });
  });
}

const arriveAll = async (clients: readonly ProtocolClient[]) => {
  for (const client of clients) await client.arrive();
};

async function contribute(client: ProtocolClient, number: number, round?: OpenRound): Promise<OpenRound> {
  const open = round ?? (await client.nextRound());
  await client.upload(open.document.round, client.seal(frameOf(number, open.document), open));
  return open;
}

const closed = async (client: ProtocolClient) => (await client.next('round-closed')) as CoordinatorMessage<'round-closed'>;
const journalOf = async ({ store }: TestFederation) => (await store.readLog('journal')) as readonly RoundEvent[];

describe('a round', () => {
  it('is announced with another box key each time, and with the transcript of the round before', () =>
    within({}, async ({ all }) => {
      await arriveAll(all);
      const rounds: OpenRound[] = [];
      for (let n = 0; n < 3; n++) rounds.push((await Promise.all(all.map((client, i) => contribute(client, i + 1))))[0]!);
      expect(rounds.map(({ document }) => document.previous)).toEqual([null, rounds[0]!.context.transcript, rounds[1]!.context.transcript]);
      expect(new Set(rounds.map(({ document }) => Buffer.from(document.boxKey).toString('hex'))).size).toBe(3);
    }));

  it('in which too many decline is aborted and repeated under a new number', () =>
    within({}, async ({ all, client, federation }) => {
      await arriveAll(all);
      const round = await client(1).nextRound();
      await contribute(client(1), 1, round);
      await client(2).request('decline', { round: 1, code: 'policy-refused' });
      await client(3).request('decline', { round: 1, code: 'policy-refused' });
      const notice = await closed(client(1));
      expect(notice).toMatchObject({ round: 1, outcome: 'aborted', code: 'quorum-missed', contributions: 1, nextRound: 2 });
      const again = await client(1).nextRound();
      expect(again.document).toMatchObject({ round: 2, labels: null });
      expect(Buffer.from(again.document.boxKey)).not.toEqual(Buffer.from(round.document.boxKey));
      expect(await federation.store.getBlob('rounds/1/box-secret')).toBeUndefined();
      expect(federation.events.filter(({ event }) => event === 'client-declined')).toHaveLength(2);
    }));

  it('counts a refusal of the announcement as declining, and a client that does not answer as gone', () =>
    within({}, async ({ all, client, federation }) => {
      client(3).answer = async ({ event }) => (event === 'round' ? problemAck('budget-exhausted') : { ok: true });
      await arriveAll(all);
      await contribute(client(1), 1);
      await contribute(client(2), 2);
      expect(await closed(client(1))).toMatchObject({ round: 1, outcome: 'released', contributions: 2 });
      client(3).answer = () => new Promise(() => undefined);
      await contribute(client(1), 1);
      await contribute(client(2), 2);
      expect(await closed(client(1))).toMatchObject({ round: 2, outcome: 'released', contributions: 2 });
      expect(client(3).disconnectReason).toBe('closed by the coordinator');
      expect(federation.events).toContainEqual(expect.objectContaining({ event: 'client-declined', code: 'budget-exhausted' }));
    }));

  it('tells no text of a peer as a code', () =>
    within({}, async ({ all, client, federation }) => {
      await arriveAll(all);
      await client(1).nextRound();
      await client(1).request('decline', { round: 1, code: '\u001b[31m<script>' });
      await client(1).request('decline', { round: 1, code: 'declined' }); // again
      await client(1).request('decline', { round: 7, code: 'declined' }); // no such round
      expect(federation.events.filter(({ event }) => event === 'client-declined')).toEqual([expect.objectContaining({ code: 'declined', round: 1 })]);
    }));

  it('goes on at its deadline with those who contributed', () =>
    within({}, async ({ all, client, federation }) => {
      await arriveAll(all);
      const begun = federation.clock.now();
      await contribute(client(1), 1);
      await contribute(client(3), 3);
      expect(await closed(client(2))).toMatchObject({ round: 1, outcome: 'released', contributions: 2 });
      expect(federation.clock.now() - begun).toBeGreaterThanOrEqual(60_000);
      expect(await refusal(client(2).upload(1, client(2).seal(frameOf(2, (await client(1).nextRound()).document), await client(3).nextRound())))).toBe('round-closed');
    }));

  it('without a quorum at its deadline is aborted; after too many in a row the task ends', () =>
    within({ schedule: { maxFailedRounds: 1 } }, async ({ all, client, federation }) => {
      await arriveAll(all);
      await contribute(client(1), 1);
      expect(await closed(client(1))).toMatchObject({ round: 1, outcome: 'aborted', code: 'quorum-missed', contributions: 1, nextRound: 2 });
      expect(await closed(client(1))).toMatchObject({ round: 2, outcome: 'aborted', code: 'quorum-missed', contributions: 0 });
      expect(await client(1).nextFinished()).toMatchObject({ reason: 'quorum-missed', rounds: 0, labels: null });
      expect(await federation.coordinator.finished).toBe('quorum-missed');
      expect((await client(2).arrive()).finished).not.toBeNull();
      expect(await refusal(client(2).request('upload-begin', { ...beginMessage(2, new Uint8Array(9)) }))).toBe('task-finished');
    }));

  it('that failed uses up budget when somebody had contributed', () =>
    within({ privacy: { mechanism: 'gaussian', epsilon: 40 }, schedule: { rounds: 2 } }, async ({ all, client }) => {
      await arriveAll(all);
      await contribute(client(1), 1);
      expect(await closed(client(1))).toMatchObject({ round: 1, outcome: 'aborted' });
      for (const other of [client(2), client(3)]) await other.nextRound(); // the one that they missed
      const opened = await Promise.all(all.map((one, i) => contribute(one, i + 1)));
      const finished = await client(1).nextFinished();
      expect(finished).toMatchObject({ reason: 'budget-exhausted', rounds: 1 });
      const { matrix } = await client(1).labels('/finished/soft-labels', finished.labels!);
      expect(largestDifference(matrix.values, expectedConsensus([1, 2, 3], opened[0]!.document, { aggregator: 'meanProbabilities', eraTemperature: 1, eraExponent: 2 }))).toBeLessThan(1e-6);
    }));

  it('asks a sample of the clients, and refuses the others', () =>
    within({ schedule: { cohortSize: 2 } }, async ({ all, federation }) => {
      await arriveAll(all);
      const asked: ProtocolClient[] = [];
      await federation.sleep(100);
      for (const client of all) if (client.notices.some(({ event }) => event === 'round')) asked.push(client);
      expect(asked).toHaveLength(2);
      const round = await asked[0]!.nextRound();
      expect(round.document.cohort).toEqual({ size: 2, quorum: 2 });
      const other = all.find((client) => !asked.includes(client))!;
      expect(await refusal(other.upload(1, other.seal(frameOf(9, round.document), round)))).toBe('not-in-cohort');
    }));

  it('fails when the teacher does, without harm to what was released before', () => {
    const refused = new Set([2]);
    const teacher = (store: DurableStore): Teacher => {
      let calls = 0;
      let last: Awaited<ReturnType<Teacher['labels']>>;
      void store;
      return {
        labels: async () => {
          if (refused.has(++calls)) throw new FederationError('worker-failed', 'The worker is gone.');
          return last;
        },
        learn: async (_round, indices, { consensus, kind }) => {
          last = { indices, matrix: consensus, kind };
          return { accuracy: null, nll: null };
        },
        model: () => undefined,
        dispose: async () => undefined,
      };
    };
    return within({ teacher }, async ({ all, federation }) => {
      const finished = await Promise.all(all.map((client, i) => takePart(client, (document) => frameOf(i + 1, document))));
      expect(finished[0]).toMatchObject({ reason: 'rounds-done', rounds: 3 });
      expect([...federation.transcripts.keys()]).toEqual([1, 3, 4]);
      expect(federation.events).toContainEqual(expect.objectContaining({ event: 'round-aborted', round: 2, code: 'worker-failed' }));
    });
  });

  it('ends the task, without labels, when they cannot be made any more', () => {
    let calls = 0;
    const teacher = (): Teacher => ({
      labels: async () => {
        if (++calls === 1) return undefined;
        throw new FederationError('value-out-of-range', 'The teacher has diverged.');
      },
      learn: async () => ({ accuracy: null, nll: null }),
      model: () => undefined,
      dispose: async () => undefined,
    });
    return within({ teacher, schedule: { maxFailedRounds: 1 } }, async ({ all }) => {
      const finished = await Promise.all(all.map((client, i) => takePart(client, (document) => frameOf(i + 1, document))));
      expect(finished[0]).toMatchObject({ reason: 'failed', rounds: 1, labels: null });
    });
  });
});

describe('a client that comes and goes', () => {
  it('finds the round in progress when it joins again, with the same announcement', () =>
    within({}, async ({ all, client }) => {
      await arriveAll(all);
      const round = await client(1).nextRound();
      await client(1).close();
      const ack = await client(1).arrive();
      expect(ack).toMatchObject({ nextRound: 1, finished: null });
      expect(ack.round).toEqual(round.signed);
      await contribute(client(1), 1, round);
      expect(await client(1).arrive()).toMatchObject({ nextRound: 2, round: null });
    }));

  it('is told as its next round the one that it may still contribute to, although that one is open already', () =>
    within({}, async ({ all, client }) => {
      await arriveAll(all);
      for (const number of [1, 2]) {
        await Promise.all(all.map((one, i) => contribute(one, i + 1)));
        expect(await closed(client(1))).toMatchObject({ round: number, outcome: 'released', nextRound: number + 1 });
      }
    }));

  it('holds one timer of the coordinator, not one per connection', () =>
    within({ schedule: { minClients: 3, reconnectGraceSeconds: 600 } }, async ({ client, federation }) => {
      for (let n = 0; n < 20; n++) {
        await client(1).arrive();
        await client(1).close();
      }
      await federation.sleep(100);
      expect(federation.coordinatorTimers).toBeLessThanOrEqual(1);
    }));

  it('may say that it leaves as often as it likes: the journal takes one line', () =>
    within({}, async ({ client, federation }) => {
      await client(1).arrive();
      for (let n = 0; n < 50; n++) expect(await client(1).request('leave', {})).toEqual({ ok: true });
      expect((await journalOf(federation)).filter(({ type }) => type === 'client-left')).toHaveLength(1);
      expect(federation.events.filter(({ event }) => event === 'client-left')).toHaveLength(1);
    }));

  it('cannot fill the disk with its mistakes', () =>
    within({}, async ({ client, federation }) => {
      await client(1).arrive();
      const lines = (await journalOf(federation)).length;
      const connection = connectDirectly(client(2));
      for (let n = 0; n < 1000; n++) await federation.coordinator.receive(connection, 'nonsense', {});
      expect((await journalOf(federation)).length).toBe(lines);
      expect(federation.events.length).toBeLessThan(250);
    }));
});

describe('a coordinator that starts again', () => {
  it('is in the same round, however much later it is and whenever the process began', () =>
    within({ schedule: { minClients: 2 } }, async ({ federation, client }) => {
      // A client goes away for good; the first round opens without it when its grace time is over, long after the start.
      await client(3).arrive();
      await federation.sleep(15_000);
      await client(3).close();
      await client(1).arrive();
      await client(2).arrive();
      const round = await client(1).nextRound();
      await contribute(client(1), 1, round);
      const before = federation.coordinator.status();
      await federation.sleep(3_000);
      await federation.restart();
      expect(federation.coordinator.status()).toMatchObject({ phase: before.phase, round: before.round });
      expect((await client(2).arrive()).round).toEqual(round.signed);
      expect((await client(1).arrive()).round).toBeNull(); // counted already
      await contribute(client(2), 2, round);
      expect(await closed(client(1))).toMatchObject({ round: 1, outcome: 'released', contributions: 2 });
    }));

  it('answers nobody before it is ready, so that nobody who has joined is taken for lost', async () => {
    const contents = new MemoryStore();
    let open: (() => void) | undefined;
    const slow = new Proxy(contents, {
      get: (target, key) => {
        if (key === 'append' && open !== undefined) return async (log: string, record: object) => {
          await new Promise<void>((resolve) => (open = resolve));
          return target.append(log, record);
        };
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
    const federation = new TestFederation({ store: slow });
    await federation.run(async () => {
      await federation.start();
      await new ProtocolClient(federation, 2).arrive();
      federation.kill();
      open = () => undefined;
      const starting = federation.start();
      await federation.sleep(10);
      const client = new ProtocolClient(federation, 1);
      expect(federation.coordinator.status().ready).toBe(false);
      expect(await refusal(client.arrive())).toBe('capacity-exceeded');
      const go = open;
      open = undefined;
      go?.();
      await starting;
      await client.arrive();
      expect(federation.coordinator.status()).toMatchObject({ ready: true, connected: 1 });
    });
  });

  it('refuses a run folder of another task', async () => {
    const store = new MemoryStore();
    await new TestFederation({ store }).start();
    const other = new TestFederation({ store, schedule: { rounds: 4 } });
    expect(await refusal(other.start())).toBe('state-mismatch');
  });

  it('gives a finished task the same last document', () =>
    within({}, async ({ all, client, federation }) => {
      await Promise.all(all.map((one, i) => takePart(one, (document) => frameOf(i + 1, document))));
      const first = (await client(1).arrive()).finished;
      await federation.restart();
      expect(await federation.coordinator.finished).toBe('rounds-done');
      expect((await client(1).arrive()).finished).toEqual(first);
    }));
});

describe('what goes wrong around a round', () => {
  it('an upload whose round closes while it is being checked is refused, and no key comes back', async () => {
    const contents = new MemoryStore();
    let hold: Promise<void> | undefined;
    const slow = new Proxy(contents, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key, target);
        if (key === 'getBlob') return async (name: string) => {
          if (name.endsWith('box-secret') && hold !== undefined) {
            const held = hold;
            hold = undefined; // only the upload is held
            await held;
          }
          return target.getBlob(name);
        };
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
    await within({ store: slow }, async ({ all, client, federation }) => {
      await arriveAll(all);
      const round = await client(3).nextRound();
      await contribute(client(1), 1);
      await contribute(client(2), 2);
      const late = connectDirectly(client(3));
      await (await client(3).hello()).join();
      const envelope = client(3).seal(frameOf(3, round.document), round);
      const { upload } = (await client(3).request('upload-begin', beginMessage(1, envelope))) as { upload: string };
      await client(3).request('upload-chunk', { upload, offset: 0, data: envelope });
      let release!: () => void;
      hold = new Promise((resolve) => (release = resolve));
      const end = federation.coordinator.receive(late, 'upload-end', { upload });
      federation.coordinator.disconnected(late); // its session is gone when the answer is made
      await closed(client(1)); // the grace time ended, and the round without it
      release();
      expect(await end).toMatchObject({ ok: false, problem: { code: 'round-closed' } });
      expect(await federation.store.getBlob('rounds/1/box-secret')).toBeUndefined();
      expect(await federation.store.getBlob(`rounds/1/contributions/${client(3).id}`)).toBeUndefined();
    });
  });

  it('a watcher that throws disturbs nothing', () =>
    within({ onEvent: () => { throw new Error('watcher'); } }, async ({ all }) => {
      const finished = await Promise.all(all.map((client, i) => takePart(client, (document) => frameOf(i + 1, document))));
      expect(finished[0]).toMatchObject({ reason: 'rounds-done', rounds: 3 });
    }));

  it('a full disk stops the coordinator, and it goes on when there is space', async () => {
    const contents = new MemoryStore();
    let isFull = false;
    const small = new Proxy(contents, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key, target);
        if (key === 'putBlob' && isFull) return async () => { throw new FederationError('disk-full', 'No space is left.'); };
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
    await within({ store: small }, async ({ all, client, federation }) => {
      await arriveAll(all);
      const round = await client(1).nextRound();
      isFull = true;
      expect(await refusal(contribute(client(1), 1, round))).toBe('disk-full');
      expect(await refusal(federation.coordinator.finished)).toBe('disk-full');
      expect(await refusal(contribute(client(2), 2))).toBe('capacity-exceeded');
      isFull = false;
      await federation.restart();
      const finished = await Promise.all(all.map((one, i) => takePart(one, (document) => frameOf(i + 1, document))));
      expect(finished[0]).toMatchObject({ reason: 'rounds-done', rounds: 3 });
      expect(federation.transcripts.get(1)?.size).toBe(1);
    });
  });
});
