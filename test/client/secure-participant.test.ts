/** The participant in rounds of secure aggregation, against a coordinator that does as it should. */
import { describe, expect, it, vi } from 'vitest';
import { digestOf } from '../../shared/crypto/digest.ts';
import { generateBoxKeys } from '../../shared/crypto/sealed-box.ts';
import { secureStageNames, type Ack, type SecureStageName } from '../../shared/protocol/messages.ts';
import { decodeMaskedInput } from '../../shared/secure-aggregation/messages.ts';
import type { Delta, Epsilon } from '../../shared/types/units.ts';
import { rejection } from './harness.ts';
import type { OpenRound } from './secure-coordinator.ts';
import { SecureScene } from './secure-harness.ts';

vi.mock(import('../../shared/crypto/signature.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../shared/crypto/sealed-box.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastBoxes(await original()));

describe('a round of secure aggregation', () => {
  it('ends with the sum of all inputs, and tells the coordinator nothing else', async () => {
    const scene = new SecureScene({ task: { rounds: 2 } });
    const summaries = await scene.run();
    const { coordinator, clients } = scene;
    expect(coordinator.aborted).toEqual([]);
    expect(coordinator.sums.map(({ round, survivors }) => [round, survivors.length])).toEqual([[1, 5], [2, 5]]);
    expect(summaries.map(({ contributedRounds, rounds }) => [contributedRounds, rounds])).toEqual(Array(5).fill([2, 2]));
    // Probabilities: every row of every client sums to 1 on the grid, but for rounding toward zero.
    const [first] = coordinator.sums;
    for (let row = 0; row < 12; row++) {
      const sum = [0, 1, 2].reduce((total, column) => total + first!.sum[3 * row + column]!, 0) * 2 ** -12;
      expect(sum).toBeLessThanOrEqual(5);
      expect(sum).toBeGreaterThan(5 - 5 * 3 * 2 ** -12);
    }
    for (const client of clients) {
      expect(scene.sentBy(client).map(({ stage }) => stage)).toEqual([...secureStageNames, ...secureStageNames]);
      expect(client.ledger.entries().map(({ round }) => round)).toEqual([1, 2]);
      // Charged is what was sent: the digest of the masked input's frame.
      expect(client.ledger.entries().map(({ contribution }) => contribution)).toEqual(scene.sentBy(client, 'maskedInput').map(({ message }) => digestOf(message)));
    }
    expect(scene.violations()).toEqual([]);
    // What one client's message holds looks like noise of 32 bits.
    const { rosterState, context } = coordinator.history[0]!;
    const { elements } = decodeMaskedInput(scene.sentBy(clients[0]!, 'maskedInput')[0]!.message, context, rosterState!.roster.keyContext.rosterRoot);
    expect(elements.filter((element) => element > 2 ** 24 && element < 2 ** 32 - 2 ** 24).length).toBeGreaterThan(30);
  });
});

describe('stages', () => {
  it('are answered in order, once, and only in a round that is open', async () => {
    const scene = new SecureScene({ task: { rounds: 1 } });
    const { coordinator, clients } = scene;
    const [client] = clients;
    const { id } = client!;
    const answers: Record<string, string> = {};
    const code = (ack: Ack | undefined) => (ack?.ok === true ? 'ok' : ack?.ok === false ? ack.problem.code : 'none');
    const tell = async (name: string, payload: object) => (answers[name] = code(await coordinator.send(id, 'stage', payload)));
    const probe = (stage: SecureStageName, open: OpenRound) => async () => {
      const data = open.opening.get(stage)!.get(id)!;
      await tell(`${stage} again`, { round: 1, stage, data });
      await tell(`${stage} again, changed`, { round: 1, stage, data: data.map((byte) => byte ^ 1) });
    };
    coordinator.lie = (stage, to, data, open) => {
      if (to !== id) return data;
      if (stage === 'shareKeys') {
        // Before it: a stage that is not next, another round, nothing at all.
        void tell('unmask first', { round: 1, stage: 'unmask', data });
        void tell('round 2', { round: 2, stage, data });
        void tell('empty', { round: 1, stage, data: new Uint8Array(0) });
        void tell('contribution', { round: 1, stage: 'contribution', data });
      }
      scene.clock.schedule(0, () => void probe(stage, open)());
      return data;
    };
    await scene.run();
    expect(answers).toEqual({
      'unmask first': 'stage-mismatch',
      'round 2': 'round-unknown',
      empty: 'message-malformed',
      contribution: 'message-malformed',
      'shareKeys again': 'ok',
      'shareKeys again, changed': 'context-mismatch',
      'maskedInput again': 'ok',
      'maskedInput again, changed': 'context-mismatch',
      'consistencyCheck again': 'ok',
      'consistencyCheck again, changed': 'context-mismatch',
      'unmask again': 'ok',
      'unmask again, changed': 'context-mismatch',
    });
    expect(coordinator.sums).toHaveLength(1);
    expect(scene.violations()).toEqual([]);
    expect(scene.named(client!, 'stage').map(({ round, stage }) => [round, stage])).toEqual(secureStageNames.map((stage) => [1, stage]));
    expect(scene.named(client!, 'charged')).toMatchObject([{ round: 1, epsilonSpent: 'infinite' }]);
  });

  it('of a closed round are refused, and a stage that was never announced', async () => {
    const scene = new SecureScene({ task: { rounds: 2 } });
    const { coordinator, clients } = scene;
    const id = clients[0]!.id;
    const codes: (string | undefined)[] = [];
    const tell = async (round: number) => {
      const ack = await coordinator.send(id, 'stage', { round, stage: 'unmask', data: new Uint8Array(200) });
      codes.push(ack?.ok === false ? ack.problem.code : 'ok');
    };
    coordinator.lie = (stage, to, data, open) => {
      if (to === id && open.round === 2 && stage === 'shareKeys') void tell(1);
      return data;
    };
    await scene.run();
    expect(codes).toEqual(['round-closed']);
    expect(coordinator.sums).toHaveLength(2);
  });
});

describe('connections', () => {
  it('that are lost in every stage cost nothing: the same bytes are sent again', async () => {
    const scene = new SecureScene({ task: { rounds: 1 } });
    const { coordinator, clients } = scene;
    const dropped = new Set<string>();
    // Each client loses its connection in each stage: one before its message, one when all of it but the end was sent.
    coordinator.onRequest = (id, event, payload) => {
      const index = clients.findIndex((client) => client.id === id);
      const isBegin = event === 'upload-begin';
      if (index < 0 || !(isBegin ? index % 2 === 0 : event === 'upload-end' && index % 2 === 1)) return;
      const key = `${index} ${isBegin ? String(payload['stage']) : coordinator.open?.stage}`;
      if (dropped.has(key)) return;
      dropped.add(key);
      coordinator.drop(id);
    };
    await scene.run();
    expect(dropped.size).toBe(25);
    expect(coordinator.sums.map(({ survivors }) => survivors.length)).toEqual([5]);
    expect(coordinator.declined).toEqual([]);
    expect(scene.violations()).toEqual([]);
    for (const client of clients) {
      const offered = coordinator.received.filter(({ client: id, event }) => id === client.id && event === 'upload-begin').map(({ payload }) => `${String(payload['stage'])} ${String(payload['digest'])}`);
      expect(new Set(offered).size).toBe(5);
    }
  });
});

describe('clients that vanish', () => {
  it.each(secureStageNames)('before %s are missing, and the others get their sum', async (stage) => {
    // Two of seven may go in each stage: t = 5.
    const scene = new SecureScene({ clients: 5, puppets: 2, secure: { minSurvivors: 5, maxCorrupt: 1 }, task: { rounds: 1 } });
    const { coordinator } = scene;
    coordinator.puppetsLeave = { [stage]: [0, 1] };
    await scene.run();
    const [result] = coordinator.sums;
    expect(coordinator.aborted).toEqual([]);
    expect(result!.survivors.length).toBe(secureStageNames.indexOf(stage) > 2 ? 7 : 5);
    // Puppets send zeros: the sum is that of the five either way.
    expect(Math.round(result!.sum.reduce((total, value) => total + value, 0) / 12 * 2 ** -12)).toBe(5);
    expect(scene.violations()).toEqual([]);
  });

  it('in too great a number end the round without a sum; who had sent nothing was not charged, and the next round is another one', async () => {
    for (const [stage, charges] of [['shareKeys', 1], ['consistencyCheck', 2]] as const) {
      const scene = new SecureScene({ clients: 4, puppets: 3, secure: { minSurvivors: 5, maxCorrupt: 1 }, task: { rounds: 2 } });
      const { coordinator, clients } = scene;
      const openRound = coordinator.openRound.bind(coordinator);
      coordinator.openRound = async (...args) => {
        coordinator.puppetsLeave = coordinator.history.length === 0 ? { [stage]: [0, 1, 2] } : {};
        return openRound(...args);
      };
      await scene.run();
      expect(coordinator.aborted).toEqual([{ round: 1, code: 'quorum-missed' }]);
      expect(coordinator.sums.map(({ round }) => round)).toEqual([2]);
      for (const client of clients) expect(client.ledger.entries()).toHaveLength(charges);
      expect(scene.violations()).toEqual([]);
    }
  });
});

describe('the policy', () => {
  it('refuses a task whose sums may hold too few honest clients, before it joins', async () => {
    const scene = new SecureScene({ policy: { minHonest: 6 } });
    const error = await rejection(scene.clock.runUntil(scene.participant(scene.clients[0]!).run()));
    expect(error).toMatchObject({ code: 'policy-refused', field: 'minHonest', exitStatus: 3 });
    expect(scene.coordinator.received.map(({ event }) => event)).toEqual(['hello']);
  });

  it('is asked again before the charge: who cannot pay any more leaves after sharing keys, and the others go on', async () => {
    const scene = new SecureScene({ clients: 6, secure: { minSurvivors: 5, maxCorrupt: 0 }, task: { rounds: 1, mechanism: 'discreteGaussian', epsilon: 8 }, policy: { maxEpsilon: 9 as Epsilon } });
    const { coordinator, clients } = scene;
    const poor = clients[0]!;
    coordinator.lie = (stage, to, data) => {
      // Something else is sent from the same state meanwhile.
      if (stage === 'maskedInput' && to === poor.id) void poor.ledger.charge({ task: 'other' as never, round: 1 as never, contribution: digestOf(new Uint8Array(1)), parameters: coordinator.base.release, at: scene.clock.now() });
      return data;
    };
    await scene.run();
    expect(coordinator.declined).toEqual([{ client: poor.id, round: 1, code: 'budget-exhausted' }]);
    expect(scene.sentBy(poor).map(({ stage }) => stage)).toEqual(['advertiseKeys', 'shareKeys']);
    expect(poor.ledger.entries()).toHaveLength(1);
    expect(coordinator.sums.map(({ survivors }) => survivors.length)).toEqual([5]);
    const rich = clients[1]!.ledger;
    expect(rich.spent('replaceOne', 1e-5 as Delta)).toBeLessThanOrEqual(8);
    expect(rich.entries()[0]!.events.replaceOne).toMatchObject({ kind: 'distributedDiscreteGaussian', shares: 5 });
    expect(scene.violations()).toEqual([]);
  });

  it.each([
    ['fewer survivors than the task', { secureAggregation: { minCohort: 5, minSurvivors: 4, maxCorrupt: 0, stageDeadlineMs: 1000 } }, 'context-mismatch'],
    ['more corrupt clients than the task', { secureAggregation: { minCohort: 5, minSurvivors: 5, maxCorrupt: 2, stageDeadlineMs: 1000 } }, 'context-mismatch'],
    ['another quorum', { cohort: { size: 7, quorum: 4 } }, 'context-mismatch'],
    ['no parameters', { secureAggregation: null }, 'message-malformed'],
    ['stages of another mode', { stages: ['contribution'] }, 'stage-mismatch'],
    ['a stage less', { stages: ['advertiseKeys', 'shareKeys', 'maskedInput', 'unmask'] }, 'stage-mismatch'],
  ] as const)('refuses an announcement with %s', async (_what, changes, expected) => {
    const scene = new SecureScene({ clients: 1, task: { rounds: 1 } });
    const { coordinator, clients } = scene;
    coordinator.autopilot = false;
    const stop = new AbortController();
    const ended = scene.participant(clients[0]!).run(stop.signal).catch(() => undefined);
    await scene.pass(10);
    const ack = await coordinator.send(clients[0]!.id, 'round', coordinator.signRound(1, generateBoxKeys(coordinator.base.random), changes));
    expect(ack).toMatchObject({ ok: false, problem: { code: expected } });
    stop.abort(new Error('stop'));
    await scene.clock.runUntil(ended);
    expect(coordinator.learned).toEqual([]);
    expect(clients[0]!.ledger.entries()).toEqual([]);
  });
});
