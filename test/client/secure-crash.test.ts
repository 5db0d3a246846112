/**
 * A participant that is killed in a round of secure aggregation, at every durable operation and around every message in turn; another process goes on with what it has left. Whatever the step: a
 * message of a stage has one form, what was sent was charged once, keys are advertised once, `unmask` is answered once, and the next round has everybody again.
 */
import { describe, expect, it, vi } from 'vitest';
import { secureStageNames, type Ack } from '../../shared/protocol/messages.ts';
import { Doomed } from './doomed.ts';
import type { OpenRound } from './secure-coordinator.ts';
import { SecureScene, type SecureClient } from './secure-harness.ts';

vi.mock(import('../../shared/crypto/signature.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../shared/crypto/sealed-box.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastBoxes(await original()));

/** One real client and four of the protocol's functions alone: n = 5, t = 3, and the others can do without the client. */
function makeScene(rounds = 2): { readonly scene: SecureScene; readonly client: SecureClient } {
  const scene = new SecureScene({ clients: 1, puppets: 4, secure: { minSurvivors: 4, maxCorrupt: 0 }, task: { rounds, mechanism: 'discreteGaussian', epsilon: 8 } });
  return { scene, client: scene.clients[0]! };
}

interface Outcome {
  readonly names: readonly string[];
  /** Clients in the sum of round 1; 0 without one. */
  readonly survivors: number;
  /** Stages of which the coordinator has the client's message in round 1. */
  readonly stages: readonly string[];
  readonly charges: readonly number[];
}

/** A federation whose client is killed once at step `at`; `Infinity`: not at all. Checks what must hold at every instant. */
async function federation(at: number, isDoneFirst: boolean): Promise<Outcome> {
  const { scene, client } = makeScene();
  const { coordinator, clock } = scene;
  coordinator.onBytes = (_client, round, stage) => {
    if (stage === 'maskedInput') expect(client.ledger.entries().some((entry) => entry.round === round), `round ${round} was charged before it was sent`).toBe(true);
  };
  const doomed = new Doomed(at, isDoneFirst, () => coordinator.drop(client.id, false));
  const first = scene.participant(client, { store: doomed.store(client.store), ledger: doomed.ledger(client.ledger), connector: doomed.connector(coordinator.connector()) });
  const run = first.run();
  run.catch(() => undefined);
  const ending = await clock.runUntil(Promise.race([run, doomed.died.promise]));
  if (ending === 'died') await clock.runUntil(scene.participant(client).run());

  expect(scene.violations()).toEqual([]);
  const offered = new Map<string, Set<string>>();
  for (const { event, payload } of coordinator.received) {
    if (event !== 'upload-begin') continue;
    const key = `${String(payload['round'])} ${String(payload['stage'])}`;
    offered.set(key, (offered.get(key) ?? new Set()).add(String(payload['digest'])));
  }
  for (const [key, digests] of offered) expect(digests.size, `envelopes of ${key}`).toBe(1);
  for (const round of [1, 2]) for (const kind of ['round', 'answer']) expect(await client.store.getBlob(`outbox/${kind}-${round}`)).toBeUndefined();
  expect(coordinator.sums.find(({ round }) => round === 2)?.survivors).toHaveLength(5);
  return {
    names: doomed.names,
    survivors: coordinator.sums.find(({ round }) => round === 1)?.survivors.length ?? 0,
    stages: scene.sentBy(client).filter(({ round }) => round === 1).map(({ stage }) => stage),
    charges: client.ledger.entries().map(({ round }) => round),
  };
}

const isWorthDying = (name: string) => /^(put|append|delete|charge|upload-end)/.test(name);

describe('a participant that is killed in a secure round', () => {
  it.each([
    ['before', false],
    ['after', true],
  ])('%s any step leaves one form of every message, and one charge', async (_when, isDoneFirst) => {
    const undisturbed = await federation(Infinity, isDoneFirst);
    expect(undisturbed).toMatchObject({ survivors: 5, stages: secureStageNames, charges: [1, 2] });
    const end = undisturbed.names.findIndex((name) => name.startsWith('delete outbox/answer-1')) + 1;
    expect(end).toBeGreaterThan(20);
    const stored = undisturbed.names.indexOf('put outbox/round-1');
    const answered = undisturbed.names.indexOf('put outbox/answer-1');
    const advertised = undisturbed.names.findIndex((name, i) => name === 'put progress.json' && undisturbed.names[i + 1] === 'upload-begin');
    expect([advertised, stored, answered].every((step, i, all) => step > (all[i - 1] ?? 0))).toBe(true);
    for (let at = 0; at < end; at++) {
      if (!isWorthDying(undisturbed.names[at]!)) continue;
      const crashed = await federation(at, isDoneFirst);
      const where = `killed at step ${at}, ${undisturbed.names[at]}`;
      // From the moment that its masked input is stored the client is in the sum, and before that it is not: unless nothing was advertised yet.
      const isIn = (step: number) => at > step || (at === step && isDoneFirst);
      const counts = isIn(stored) || !isIn(advertised);
      expect(crashed.survivors, where).toBe(counts ? 5 : 4);
      expect(crashed.charges, where).toEqual(counts ? [1, 2] : [2]);
      // Its secrets die with it: what it had not stored it does not send.
      expect(crashed.stages.includes('unmask'), where).toBe(isIn(answered) || !isIn(advertised));
    }
  }, 180_000);

  it('does not answer a second unmask query, for other survivors, after a restart', async () => {
    const { scene, client } = makeScene(1);
    const { coordinator, clock } = scene;
    // Dies when its answer is stored, before a byte of it is sent.
    let asked: { readonly open: OpenRound; readonly data: Uint8Array } | undefined;
    const names = await undisturbedNames();
    const doomed = new Doomed(names.indexOf('put outbox/answer-1'), true, () => coordinator.drop(client.id, false));
    const acks: (Ack | undefined)[] = [];
    coordinator.lie = (stage, id, data, open) => {
      if (stage === 'unmask' && id === client.id) asked = { open, data };
      return data;
    };
    const first = scene.participant(client, { store: doomed.store(client.store), ledger: doomed.ledger(client.ledger), connector: doomed.connector(coordinator.connector()) });
    first.run().catch(() => undefined);
    await clock.runUntil(doomed.died.promise);
    expect(await client.store.getBlob('outbox/answer-1')).toBeDefined();
    expect(scene.sentBy(client, 'unmask')).toEqual([]);
    // The coordinator names other survivors first.
    const { open, data } = asked!;
    const other = data.slice();
    other[100]! ^= 1;
    open.opening.get('unmask')!.set(client.id, other);
    coordinator.takeOver = () => true; // the round stays open
    const run = scene.participant(client).run();
    await scene.pass(100);
    acks.push(coordinator.acks.at(-1)?.ack);
    expect(scene.sentBy(client, 'unmask')).toEqual([]);
    // And any other stage.
    for (const stage of ['shareKeys', 'maskedInput', 'consistencyCheck'] as const) acks.push(await coordinator.send(client.id, 'stage', { round: 1, stage, data: open.opening.get(stage)!.get(client.id)! }));
    expect(acks.map((ack) => (ack?.ok === false ? ack.problem.code : 'ok'))).toEqual(['context-mismatch', 'declined', 'declined', 'declined']);
    coordinator.abort(open, 'quorum-missed');
    await clock.runUntil(run);
    expect(scene.sentBy(client, 'unmask')).toEqual([]);
    expect(scene.violations()).toEqual([]);
  });

  it('is a dropout of the round when it is started again between two stages, says so at once, and makes no second keys', async () => {
    const { scene, client } = makeScene(2);
    const { coordinator, clock } = scene;
    const stop = new AbortController();
    coordinator.lie = (stage, _id, data, open) => {
      if (stage === 'shareKeys' && open.round === 1) stop.abort(new Error('killed'));
      return data;
    };
    const started = clock.now();
    await clock.runUntil(scene.participant(client).run(stop.signal).catch(() => undefined));
    coordinator.drop(client.id, false);
    const [summary] = await scene.run();
    expect(summary!.contributedRounds).toBe(1);
    expect(coordinator.declined).toEqual([{ client: client.id, round: 1, code: 'declined' }]);
    expect(scene.sentBy(client).filter(({ round }) => round === 1).map(({ stage }) => stage).filter((stage) => stage === 'advertiseKeys')).toHaveLength(1);
    expect(coordinator.sums.map(({ survivors }) => survivors.length)).toEqual([4, 5]);
    expect(clock.now() - started).toBeLessThan(30_000);
    expect(scene.violations()).toEqual([]);
  });
});

/** Steps of a client whom nobody kills. */
async function undisturbedNames(): Promise<readonly string[]> {
  const { scene, client } = makeScene(1);
  const doomed = new Doomed(Infinity, false, () => undefined);
  await scene.clock.runUntil(scene.participant(client, { store: doomed.store(client.store), ledger: doomed.ledger(client.ledger), connector: doomed.connector(scene.coordinator.connector()) }).run());
  return doomed.names;
}
