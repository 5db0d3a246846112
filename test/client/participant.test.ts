import { describe, expect, it, vi } from 'vitest';
import { digestOf } from '../../shared/crypto/digest.ts';
import { generateIdentity } from '../../shared/crypto/signature.ts';
import { FederationError } from '../../shared/errors.ts';
import { clientEventSchemas, type ClientEvent } from '../../shared/protocol/messages.ts';
import { signDocument } from '../../shared/protocol/signed-document.ts';
import type { Delta, Epsilon } from '../../shared/types/units.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { numClasses, transferRows } from './fake-coordinator.ts';
import { rejection, Scene } from './harness.ts';

vi.mock(import('../../shared/crypto/signature.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../shared/crypto/sealed-box.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastBoxes(await original()));

/** A participant that has joined and waits; the coordinator does nothing by itself. */
async function waiting(scene: Scene) {
  scene.coordinator.autopilot = false;
  const stop = new AbortController();
  const ended = scene.participant().run(stop.signal).catch((error: unknown) => error);
  await scene.pass(10);
  return {
    stop: async () => {
      stop.abort(new Error('stop'));
      return scene.clock.runUntil(ended);
    },
  };
}

const code = (error: unknown) => (error as FederationError).code;

describe('a participant', () => {
  it('contributes to every round, distils the last labels, leaves, and says what it cost', async () => {
    const scene = new Scene();
    const summary = await scene.run();
    expect(summary).toMatchObject({ reason: 'rounds-done', rounds: 3, contributedRounds: 3, task: 'toy' });
    expect(summary.finalAccuracy).toBeTypeOf('number');
    expect(summary.pretrainedAccuracy).toBeTypeOf('number');
    expect(summary.localOnlyAccuracy).toBeTypeOf('number');
    expect(summary.epsilonSpent).toBe(scene.ledger.spent('replaceOne', 1e-5 as Delta));
    expect(summary.epsilonSpent).toBeLessThanOrEqual(8);
    expect(scene.coordinator.received.at(-1)?.event).toBe('leave');
    expect(scene.engine.openModels).toBe(0);
  });

  it('charges exactly what it sends, once a round', async () => {
    const scene = new Scene();
    await scene.run();
    const charged = scene.ledger.entries().map((entry) => [entry.round, entry.contribution]);
    expect(charged).toEqual([...scene.coordinator.accepted]);
  });

  it('trains in the order pretrain, then digest and revisit in each round, then the last digest; the baseline never distils', async () => {
    const scene = new Scene();
    await scene.run();
    const kinds = scene.engine.fits.map((fit) => `${fit.isSoft ? 'soft' : 'hard'} ${fit.epochs}`);
    const round = ['soft 2', 'hard 1', 'hard 1'];
    expect(kinds).toEqual(['hard 2', 'hard 1', 'hard 1', ...round, ...round, 'soft 2']);
  });

  it('trains student and baseline once more at the end when its owner wants a personal student', async () => {
    const scene = new Scene({ rounds: 1 });
    await scene.run(scene.participant({ personalize: true }));
    const kinds = scene.engine.fits.map((fit) => `${fit.isSoft ? 'soft' : 'hard'} ${fit.epochs}`);
    expect(kinds).toEqual(['hard 2', 'hard 1', 'hard 1', 'soft 2', 'hard 1', 'hard 1']);
  });

  it('distils logits at the temperature of the task and probabilities at temperature 1', async () => {
    for (const [labelKind, temperature] of [['logits', 3], ['probabilities', 1]] as const) {
      const scene = new Scene({ labelKind, outputKind: labelKind });
      await scene.run();
      const soft = scene.engine.fits.filter((fit) => fit.isSoft);
      expect(soft.map((fit) => fit.options.loss.temperature)).toEqual([temperature, temperature, temperature]);
      expect(soft.every((fit) => fit.data.hard === undefined)).toBe(true);
    }
  });

  it('mixes private examples into distillation when alpha is above 0', async () => {
    const scene = new Scene({ alpha: 0.3 });
    await scene.run();
    const soft = scene.engine.fits.filter((fit) => fit.isSoft);
    expect(soft.every((fit) => fit.data.hard?.examples.count === 20 && fit.options.loss.alpha === 0.3)).toBe(true);
  });

  it('writes the same metrics in a second run with the same seeds, and no time in them', async () => {
    const lines = async () => {
      const scene = new Scene();
      await scene.run();
      return scene.metrics();
    };
    const first = await lines();
    expect(first).toEqual(await lines());
    expect(first).toHaveLength(5);
    expect(first.map((line) => (line as { phase: string }).phase)).toEqual(['pretrain', 'round', 'round', 'round', 'final']);
    expect(JSON.stringify(first)).not.toMatch(/"at"|time|seconds/);
  });

  it('sends nothing but the events of the protocol: no metrics, no losses, no example counts', async () => {
    const scene = new Scene();
    await scene.run();
    for (const { event, payload } of scene.coordinator.received) {
      expect(clientEventSchemas[event as ClientEvent].safeParse(payload).success, event).toBe(true); // strict: unknown members fail
      expect(JSON.stringify(payload)).not.toMatch(/accuracy|loss|epoch|examples|epsilon|nll/i);
    }
    const events = new Set(scene.coordinator.received.map(({ event }) => event));
    expect([...events].sort()).toEqual(['hello', 'join', 'leave', 'upload-begin', 'upload-chunk', 'upload-end']);
  });

  it('fetches the transfer set once, also over restarts', async () => {
    const scene = new Scene();
    const { stop } = await waiting(scene);
    await stop();
    scene.coordinator.autopilot = true;
    await scene.run();
    expect(scene.coordinator.fetched.filter((path) => path === '/transfer-set')).toHaveLength(1);
  });

  it('finishes without the last labels when the coordinator is gone by then', async () => {
    const scene = new Scene({ rounds: 1 });
    scene.coordinator.onRequest = (event) => {
      if (event !== 'GET /finished/soft-labels') return;
      scene.coordinator.isUp = false;
      scene.coordinator.drop();
    };
    const summary = await scene.run();
    expect(summary.contributedRounds).toBe(1);
    expect(scene.named('last-labels-missed')).toHaveLength(1);
  });
});

describe('who is on the other side', () => {
  it('stops at a coordinator whose key is not the pinned one', async () => {
    const scene = new Scene();
    expect(code(await rejection(scene.run(scene.participant({ coordinatorFingerprint: 'a'.repeat(26) }))))).toBe('fingerprint-mismatch');
    expect(scene.coordinator.received.map(({ event }) => event)).toEqual(['hello']);
  });

  it('stops at a task document that was tampered with', async () => {
    const scene = new Scene();
    const tampered = { ...scene.coordinator.task, document: scene.coordinator.task.document.replace('"numClasses":3', '"numClasses":4') };
    Object.assign(scene.coordinator, { task: tampered });
    expect(code(await rejection(scene.run()))).toBe('signature-invalid');
  });

  it('stops at a genuine task that comes with a signature for another handshake', async () => {
    const scene = new Scene();
    const connector = scene.coordinator.connector();
    let first: unknown;
    const replaying = {
      connect: async () => {
        const connection = await connector.connect();
        return { ...connection, request: async (event: ClientEvent, payload: object) => {
          const answer = await connection.request(event, payload);
          return event === 'hello' ? (first ??= answer) : answer;
        } };
      },
    };
    scene.coordinator.onRequest = (event) => {
      if (event === 'join') scene.coordinator.drop();
    };
    expect(code(await rejection(scene.run(scene.participant({ connector: replaying }))))).toBe('signature-invalid');
  });

  it('stops when the task is replaced by another one while it takes part', async () => {
    const scene = new Scene();
    scene.coordinator.autopilot = false;
    const ended = rejection(scene.participant().run());
    await scene.pass(10);
    Object.assign(scene.coordinator, { task: signDocument('task', scene.coordinator.taskValue({ seed: 8 }), scene.coordinator.identity) });
    scene.coordinator.drop();
    expect(code(await scene.clock.runUntil(ended))).toBe('context-mismatch');
  });

  it('refuses to continue in a folder of a task that has changed', async () => {
    const scene = new Scene();
    await scene.run();
    Object.assign(scene.coordinator, { task: signDocument('task', scene.coordinator.taskValue({ seed: 8 }), scene.coordinator.identity) });
    expect(code(await rejection(scene.run()))).toBe('state-mismatch');
  });

  it('refuses a transfer set and soft labels that are not those that were signed', async () => {
    const scene = new Scene();
    scene.coordinator.transferFrame[40]! ^= 1;
    expect(code(await rejection(scene.run()))).toBe('digest-mismatch');

    const other = new Scene({ rounds: 2 });
    let isDamaged = false;
    other.coordinator.onRequest = (event) => {
      if (event !== 'GET /rounds/2/soft-labels' || isDamaged) return;
      isDamaged = true;
      other.coordinator.serve('/rounds/2/soft-labels', new Uint8Array(100));
    };
    const ended = other.participant().run().catch(() => undefined);
    await other.pass(1000);
    expect(other.coordinator.declined).toEqual([{ round: 2, code: 'digest-mismatch' }]);
    expect(other.ledger.entries()).toHaveLength(1);
    await other.coordinator.finish();
    await other.clock.runUntil(ended);
  });

  it('needs a token where the task does, proves it, and never sends it', async () => {
    const scene = new Scene({ admission: 'token' });
    expect(code(await rejection(scene.run()))).toBe('token-refused');
    await scene.run(scene.participant({ joinToken: 'open-sesame' }));
    const join = scene.coordinator.received.find(({ event, payload }) => event === 'join' && payload['tokenProof'] !== undefined);
    expect(join).toBeDefined();
    expect(JSON.stringify(scene.coordinator.received)).not.toContain('open-sesame');
  });

  it('stops for good when another session replaces this one', async () => {
    const scene = new Scene();
    scene.coordinator.autopilot = false;
    const ended = rejection(scene.participant().run());
    await scene.pass(10);
    await scene.coordinator.send('problem', { problem: { type: 'urn:fedstill:problem:session-replaced', code: 'session-replaced', title: 'Replaced.', status: 409 } });
    scene.coordinator.drop();
    expect(code(await scene.clock.runUntil(ended))).toBe('session-replaced');
    expect(scene.coordinator.connections).toBe(1);
  });

  it('stops at an admission refusal, and keeps trying while the coordinator is full', async () => {
    const refused = new Scene();
    refused.coordinator.onRequest = (event) => {
      if (event === 'join') throw new FederationError('not-admitted', 'Not you.');
    };
    expect(code(await rejection(refused.run()))).toBe('not-admitted');

    const full = new Scene();
    let attempts = 0;
    full.coordinator.onRequest = (event) => {
      if (event === 'join' && attempts++ < 3) throw new FederationError('capacity-exceeded', 'Full.');
    };
    expect((await full.run()).contributedRounds).toBe(3);
  });

  it('gives up on a coordinator that it has never reached after a minute, on one that it has lost after an hour', async () => {
    const scene = new Scene();
    scene.coordinator.isUp = false;
    const start = scene.clock.now();
    expect(code(await rejection(scene.run()))).toBe('unreachable');
    expect(scene.clock.now() - start).toBeGreaterThanOrEqual(60_000);
    expect(scene.clock.now() - start).toBeLessThan(75_000);

    const lost = new Scene();
    lost.coordinator.autopilot = false;
    const ended = rejection(lost.participant().run());
    await lost.pass(10);
    lost.coordinator.isUp = false;
    lost.coordinator.drop();
    const lostAt = lost.clock.now();
    expect(code(await lost.clock.runUntil(ended))).toBe('unreachable');
    expect(lost.clock.now() - lostAt).toBeGreaterThanOrEqual(3_600_000);
    const delays = lost.named('reconnecting').map((event) => event['delayMs'] as number);
    expect(Math.max(...delays)).toBeLessThanOrEqual(10_000);
    expect(delays[0]).toBeLessThanOrEqual(500);
    expect(new Set(delays).size).toBeGreaterThan(delays.length / 2); // jitter
  });
});

describe('announcements', () => {
  it('refuses each document that contradicts its task, and works on none of them', async () => {
    const scene = new Scene();
    const { stop } = await waiting(scene);
    const { coordinator } = scene;
    const attempt = async (changes: Parameters<typeof coordinator.sign>[1]) => {
      const ack = await coordinator.send('round', coordinator.sign(1, changes));
      return ack?.ok === false ? ack.problem.code : 'accepted';
    };
    expect(await attempt({ task: 'other' })).toBe('context-mismatch');
    expect(await attempt({ taskDigest: digestOf(new Uint8Array(1)) })).toBe('context-mismatch');
    expect(await attempt({ trustMode: 'clear' })).toBe('context-mismatch');
    expect(await attempt({ query: { count: 2, indices: 'AQAAAAAAAAA=' } })).toBe('value-out-of-range'); // 1, 0
    expect(await attempt({ query: { count: 1, indices: '/wAAAA==' } })).toBe('value-out-of-range'); // 255
    expect(await attempt({ query: { count: 1, indices: 'AAAAAA==' } })).toBe('shape-mismatch');
    expect(await attempt({ release: { ...coordinator.release, columns: numClasses + 1 } as never })).toBe('shape-mismatch');
    expect(await attempt({ release: { mechanism: 'none', outputKind: 'logits', rows: transferRows, columns: numClasses, rowClippingNorm: 5, gridStep: 2 ** -12, noise: null } })).toBe('context-mismatch');
    expect(await attempt({ cohort: { size: 1, quorum: 1 } })).toBe('policy-refused');
    const stranger = generateIdentity(new InsecureSeededRandom(3));
    const forged = await coordinator.send('round', coordinator.sign(1, {}, undefined, stranger));
    expect(forged).toMatchObject({ ok: false, problem: { code: 'signature-invalid' } });
    const signed = coordinator.sign(1);
    const tampered = await coordinator.send('round', { ...signed, document: signed.document.replace('"quorum":3', '"quorum":4') });
    expect(tampered).toMatchObject({ ok: false, problem: { code: 'signature-invalid' } });
    await stop();
    expect(scene.ledger.entries()).toHaveLength(0);
    expect(coordinator.offered.size).toBe(0);
  });

  it('answers an event that it does not know, and one that is malformed, with a problem', async () => {
    const scene = new Scene();
    const { stop } = await waiting(scene);
    expect(await scene.coordinator.send('give-me-your-weights', {})).toMatchObject({ ok: false, problem: { code: 'event-unknown' } });
    expect(await scene.coordinator.send('round', { document: 1 })).toMatchObject({ ok: false, problem: { code: 'message-malformed' } });
    await stop();
  });

  it('refuses a second, different announcement of a round, and a replay of an older one, also after a restart', async () => {
    const scene = new Scene();
    const { coordinator } = scene;
    let { stop } = await waiting(scene);
    expect(await coordinator.openRound()).toEqual({ ok: true });
    const first = await coordinator.send('round', coordinator.sign(1));
    expect(first).toMatchObject({ ok: false, problem: { code: 'context-mismatch' } });
    await scene.pass(100);
    await coordinator.closeRound();
    await coordinator.openRound();
    await stop();
    ({ stop } = await waiting(scene));
    expect(await coordinator.send('round', coordinator.sign(1))).toMatchObject({ ok: false, problem: { code: 'round-closed' } });
    expect(await coordinator.send('round', coordinator.sign(2))).toMatchObject({ ok: false, problem: { code: 'context-mismatch' } });
    await stop();
    expect([...coordinator.offered.values()].every((digests) => digests.size === 1)).toBe(true);
  });

  it('refuses a round again that was closed', async () => {
    const scene = new Scene();
    const { stop } = await waiting(scene);
    const signed = scene.coordinator.sign(4);
    scene.engine.gate = new Promise(() => undefined);
    expect(await scene.coordinator.send('round', signed)).toEqual({ ok: true });
    await scene.coordinator.send('round-closed', { round: 4, outcome: 'aborted', code: 'quorum-missed', contributions: 0, nextRound: 5 });
    expect(await scene.coordinator.send('round', signed)).toMatchObject({ ok: false, problem: { code: 'round-closed' } });
    await stop();
  });

  it('acknowledges before it trains', async () => {
    const scene = new Scene();
    const { stop } = await waiting(scene);
    scene.engine.gate = new Promise(() => undefined);
    expect(await scene.coordinator.openRound()).toEqual({ ok: true });
    await stop();
  });
});

describe('the policy', () => {
  it('refuses a task without noise at once, before it joins', async () => {
    const scene = new Scene({ mechanism: 'none', epsilon: null });
    const error = (await rejection(scene.run())) as FederationError;
    expect(error).toMatchObject({ code: 'policy-refused', field: 'allowedMechanisms', got: 'none', exitStatus: 3 });
    expect(scene.coordinator.received.map(({ event }) => event)).toEqual(['hello']);
  });

  it('takes part in a task without noise when its owner allows that', async () => {
    const scene = new Scene({ mechanism: 'none', epsilon: null, outputKind: 'probabilities', labelKind: 'probabilities' }, { allowedMechanisms: ['none'], maxEpsilon: Infinity as Epsilon });
    const summary = await scene.run();
    expect(summary.contributedRounds).toBe(3);
    expect(summary.epsilonSpent).toBe(Infinity);
    expect((await scene.metrics()).at(-1)).toMatchObject({ epsilonSpent: 'infinite' });
  });

  it('refuses trust mode clear, a small quorum and an epsilon that not even the first release meets', async () => {
    const refusal = async (scene: Scene) => ((await rejection(scene.run())) as FederationError).field;
    expect(await refusal(new Scene({ mechanism: 'none', epsilon: null, trustMode: 'clear' }, { allowedMechanisms: ['none'] }))).toBe('allowClear');
    expect(await refusal(new Scene({ quorum: 2 }, { minCohort: 3 }))).toBe('minCohort');
    const poor = new Scene({ epsilon: 8, rounds: 2 }, { maxEpsilon: 1 as Epsilon });
    expect(code(await rejection(poor.run()))).toBe('budget-exhausted');
  });

  it('declines the rounds that its budget does not cover, says so beforehand, and stays for the last labels', async () => {
    const scene = new Scene({ rounds: 3, epsilon: 8 }, { maxEpsilon: 6 as Epsilon });
    scene.coordinator.autopilot = false;
    const ended = scene.participant().run();
    await scene.pass(10);
    const acks = [];
    for (let round = 1; round <= 3; round++) {
      acks.push(await scene.coordinator.openRound());
      await scene.pass(100);
      await scene.coordinator.closeRound();
    }
    await scene.coordinator.finish();
    const summary = await scene.clock.runUntil(ended);
    const codes = acks.map((ack) => (ack?.ok === true ? 'ok' : ack?.ok === false ? ack.problem.code : 'none'));
    expect(codes.at(0)).toBe('ok');
    expect(codes.at(-1)).toBe('budget-exhausted');
    expect(scene.named('budget-short')).toHaveLength(1);
    expect(summary.contributedRounds).toBe(codes.filter((value) => value === 'ok').length);
    expect(summary.epsilonSpent).toBeLessThanOrEqual(6);
    expect(scene.engine.fits.at(-1)!.isSoft).toBe(true);
  });

  it('declines after it has acknowledged when the budget is gone by the time it wants to send', async () => {
    const scene = new Scene({ rounds: 1, epsilon: 8 }, { maxEpsilon: 9 as Epsilon });
    const { stop } = await waiting(scene);
    let open!: () => void;
    scene.engine.gate = new Promise((resolve) => (open = resolve));
    expect(await scene.coordinator.openRound()).toEqual({ ok: true });
    await scene.ledger.charge({ task: 'other-task' as never, round: 1 as never, contribution: digestOf(new Uint8Array(2)), parameters: scene.coordinator.release, at: scene.clock.now() });
    open();
    await scene.pass(100);
    expect(scene.coordinator.declined).toEqual([{ round: 1, code: 'budget-exhausted' }]);
    expect(scene.coordinator.offered.size).toBe(0);
    expect(scene.ledger.entries()).toHaveLength(1);
    await stop();
  });
});

describe('training that diverges on private records', () => {
  it('does not show where noise promises to hide records: the client goes on with the student as it was, and its owner is told', async () => {
    const scene = new Scene();
    scene.engine.divergesOnRecords = true;
    expect(await scene.run()).toMatchObject({ reason: 'rounds-done', contributedRounds: 3 });
    expect(scene.coordinator.accepted.size).toBe(3);
    expect(scene.named('student-diverged')[0]).toMatchObject({ round: 0, step: 'pretrain', reason: 'Training diverged.' });
  });

  it('does not show either when weights are numbers, and predictions are not', async () => {
    const scene = new Scene();
    const open = scene.engine.open.bind(scene.engine);
    scene.engine.open = async (source, seed) => {
      const model = await open(source, seed);
      model.predict = async ({ count }) => ({ rows: count, columns: numClasses, values: new Float32Array(count * numClasses).fill(Infinity) });
      return model;
    };
    expect(await scene.run()).toMatchObject({ reason: 'rounds-done', contributedRounds: 3 });
    expect(scene.coordinator.accepted.size).toBe(3);
  });

  it('ends the client with the reason in a task without noise', async () => {
    const scene = new Scene({ mechanism: 'none', epsilon: null, outputKind: 'probabilities', labelKind: 'probabilities' }, { allowedMechanisms: ['none'], maxEpsilon: Infinity as Epsilon });
    scene.engine.divergesOnRecords = true;
    expect(await rejection(scene.run())).toMatchObject({ code: 'model-invalid', message: 'Training diverged.' });
  });
});

describe('trouble in a round', () => {
  it('goes on with the same work after a lost connection, and trains nothing twice', async () => {
    const scene = new Scene({ rounds: 1 });
    let open!: () => void;
    scene.engine.gate = new Promise((resolve) => (open = resolve));
    const ended = scene.participant().run();
    await scene.pass(20);
    scene.coordinator.drop();
    await scene.pass(5000);
    expect(scene.coordinator.connections).toBe(2);
    open();
    const summary = await scene.clock.runUntil(ended);
    expect(summary.contributedRounds).toBe(1);
    // Pretraining, revisit, the baseline's revisit, the last digest.
    expect(scene.engine.fits.map((fit) => `${fit.isSoft ? 'soft' : 'hard'} ${fit.epochs}`)).toEqual(['hard 2', 'hard 1', 'hard 1', 'soft 2']);
  });

  it('resumes an upload where it stopped, with the same bytes', async () => {
    const scene = new Scene({ rounds: 1 });
    let chunks = 0;
    scene.coordinator.onRequest = (event) => {
      if (event === 'upload-end' && chunks++ === 0) scene.coordinator.drop();
    };
    expect((await scene.run()).contributedRounds).toBe(1);
    const sent = scene.coordinator.received.filter(({ event }) => event === 'upload-chunk');
    expect(sent).toHaveLength(1); // the bytes had arrived
    expect(scene.coordinator.offered.get(1)?.size).toBe(1);
  });

  it('begins an upload again that the coordinator has forgotten', async () => {
    const scene = new Scene({ rounds: 1 });
    let isForgotten = false;
    scene.coordinator.onRequest = (event) => {
      if (event !== 'upload-end' || isForgotten) return;
      isForgotten = true;
      scene.coordinator.forgetUploads();
    };
    expect((await scene.run()).contributedRounds).toBe(1);
    expect(scene.coordinator.received.filter(({ event }) => event === 'upload-begin')).toHaveLength(2);
  });

  it('backs off when it is told that it sends too much', async () => {
    const scene = new Scene({ rounds: 1 });
    let refusals = 0;
    scene.coordinator.onRequest = (event) => {
      if (event === 'upload-begin' && refusals++ < 4) throw new FederationError('rate-limited', 'Slower.');
    };
    const start = scene.clock.now();
    expect((await scene.run()).contributedRounds).toBe(1);
    expect(scene.clock.now() - start).toBeGreaterThan(2000);
    expect(scene.ledger.entries()).toHaveLength(1);
  });

  it('aborts the work of a round that closes, charges nothing for it, and takes the next one', async () => {
    const scene = new Scene();
    const { stop } = await waiting(scene);
    let open!: () => void;
    scene.engine.gate = new Promise((resolve) => (open = resolve));
    await scene.coordinator.openRound();
    await scene.pass(10);
    await scene.coordinator.closeRound('aborted');
    await scene.pass(10);
    expect(scene.named('round-missed')).toHaveLength(1);
    expect(scene.ledger.entries()).toHaveLength(0);
    open();
    scene.engine.gate = Promise.resolve();
    await scene.coordinator.openRound();
    await scene.pass(100);
    expect([...scene.coordinator.accepted.keys()]).toEqual([2]);
    await stop();
  });

  it('learns from join that its round has closed meanwhile', async () => {
    const scene = new Scene();
    const { stop } = await waiting(scene);
    scene.engine.gate = new Promise(() => undefined);
    await scene.coordinator.openRound();
    scene.coordinator.drop();
    await scene.coordinator.closeRound('aborted');
    await scene.pass(5000);
    expect(scene.named('round-missed')).toHaveLength(1);
    expect(scene.ledger.entries()).toHaveLength(0);
    await stop();
  });

  it('gives up a round whose contribution comes too late; what was charged stays charged', async () => {
    const scene = new Scene();
    const { stop } = await waiting(scene);
    scene.coordinator.onRequest = (event) => {
      if (event === 'upload-begin') throw new FederationError('round-closed', 'Late.');
    };
    await scene.coordinator.openRound();
    await scene.pass(100);
    expect(scene.ledger.entries()).toHaveLength(1);
    expect(scene.named('round-missed')).toHaveLength(1);
    expect(await scene.store.getBlob('outbox/round-1')).toBeUndefined();
    await stop();
  });

  it('drops the work of a round when the next one is announced without a closing notice', async () => {
    const scene = new Scene();
    const { stop } = await waiting(scene);
    scene.engine.gate = new Promise(() => undefined);
    await scene.coordinator.openRound();
    await scene.pass(10);
    scene.engine.gate = Promise.resolve();
    await scene.coordinator.openRound();
    await scene.pass(100);
    expect([...scene.coordinator.accepted.keys()]).toEqual([2]);
    await stop();
  });

  it('stops cleanly when it is told to, and goes on in another process', async () => {
    const scene = new Scene();
    scene.engine.gate = new Promise(() => undefined);
    const stop = new AbortController();
    const ended = rejection(scene.participant().run(stop.signal));
    await scene.pass(50);
    stop.abort(new Error('Ctrl-C'));
    expect(((await scene.clock.runUntil(ended)) as Error).message).toBe('Ctrl-C');
    expect(scene.engine.openModels).toBe(0);
    scene.engine.gate = Promise.resolve();
    expect((await scene.run()).contributedRounds).toBe(3);
  });

  it('sends nothing when the ledger cannot be written', async () => {
    const scene = new Scene();
    const broken = Object.assign(Object.create(scene.ledger) as typeof scene.ledger, {
      charge: () => Promise.reject(new FederationError('disk-full', 'No space.')),
      entries: () => scene.ledger.entries(),
      spent: () => 0,
    });
    expect(code(await rejection(scene.run(scene.participant({ ledger: broken }))))).toBe('disk-full');
    expect(scene.coordinator.offered.size).toBe(0);
    // The same envelope goes out once the disk has space again.
    const stored = (await scene.store.getBlob('outbox/round-1'))!;
    scene.coordinator.declined.length = 0;
    await scene.run();
    expect(scene.coordinator.offered.get(1)?.size).toBe(1);
    expect(stored.length).toBeGreaterThan(0);
  });
});
