/** `dpSgd`: the student learns from records by private steps alone, every one of them is paid for, and its predictions leave as they are. */
import { describe, expect, it, vi } from 'vitest';
import { PrivateReleases } from '../../client/participant/private-releases.ts';
import { FederationError } from '../../shared/errors.ts';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';
import { chargedRelease, ledgerUnit, spent } from '../../shared/privacy/ledger.ts';
import { MemoryLedger } from '../../shared/privacy/memory-ledger.ts';
import type { Digest, Instant, RoundId, TaskId } from '../../shared/types/ids.ts';
import type { Delta } from '../../shared/types/units.ts';
import { MemoryStore } from '../../simulations/memory-store.ts';
import { privateLearningRate, privateTraining } from './fake-coordinator.ts';
import { rejection, Scene, toyData } from './harness.ts';

vi.mock(import('../../shared/crypto/signature.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../shared/crypto/sealed-box.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastBoxes(await original()));

const delta = 1e-5 as Delta;
const scene = (changes = {}, policy = {}) => new Scene({ mechanism: 'dpSgd', outputKind: 'probabilities', labelKind: 'probabilities', ...changes }, { allowedMechanisms: ['dpSgd'], ...policy });
const own = { trackLocalOnly: false } as const;
/** Steps that the ledger was charged. */
const charged = (ledger: PrivacyLedger) => ledger.entries().reduce((sum, { parameters }) => sum + (parameters.mechanism === 'dpSgd' ? parameters.noise.steps : 0), 0);
/** Steps that were made, of all processes. */
const made = ({ engine }: Scene) => engine.privateFits.reduce((sum, { options }) => sum + options.steps, 0);

/** A ledger on a disk that is full. */
const dyingLedger = (ledger: PrivacyLedger): PrivacyLedger => ({
  entries: () => ledger.entries(),
  spent: (adjacency, at) => ledger.spent(adjacency, at),
  charge: () => Promise.reject(new FederationError('disk-full', 'The process dies here.')),
  close: () => ledger.close(),
});

describe('a participant of a task with private training', () => {
  it('touches private records by private steps alone, with the task\'s numbers, and charges as many as it made', async () => {
    const { steps } = privateTraining;
    const run = scene();
    const { noise } = run.coordinator.release;
    const summary = await run.run(run.participant(own));
    expect(summary).toMatchObject({ reason: 'rounds-done', contributedRounds: 3 });
    // Soft labels alone: 2 rounds and the end.
    expect(run.engine.fits.map(({ isSoft, data }) => [isSoft, data.hard])).toEqual(Array.from({ length: 3 }, () => [true, undefined]));
    // Those of the first round are made before it.
    expect(run.engine.privateFits.map(({ options }) => options.steps)).toEqual([steps, steps, steps]);
    for (const { options, data } of run.engine.privateFits) {
      expect(options).toMatchObject({ ...(noise as object), optimizer: { kind: 'adam', learningRate: privateLearningRate } });
      expect(data).toEqual({ hard: toyData(20) });
    }
    expect(charged(run.ledger)).toBe(made(run));
    expect(ledgerUnit(run.ledger.entries())).toBe('record');
    expect(summary.epsilonSpent).toBe(run.ledger.spent('replaceOne', delta));
    expect(summary.epsilonSpent).toBeGreaterThan(4);
    expect(summary.epsilonSpent).toBeLessThanOrEqual(8);
  });

  it('charges before the first byte leaves, and more steps than the student has made never leave', async () => {
    const run = scene();
    const seen: number[] = [];
    run.coordinator.onBytes = () => {
      expect(charged(run.ledger)).toBeGreaterThanOrEqual(made(run));
      seen.push(charged(run.ledger));
    };
    await run.run(run.participant(own));
    expect(new Set(seen).size).toBe(3);
  });

  it('charges a round anew after one whose contribution came too late', async () => {
    const run = scene();
    run.coordinator.autopilot = false;
    const stop = new AbortController();
    const ended = run.participant(own).run(stop.signal).catch((error: unknown) => error);
    await run.pass(10);
    run.coordinator.onRequest = (event) => {
      if (event === 'upload-begin') throw new FederationError('round-closed', 'The round is closed.');
    };
    await run.coordinator.openRound();
    await run.pass(50);
    expect([made(run), charged(run.ledger)]).toEqual([6, 6]); // it may have been seen: spent
    run.coordinator.onRequest = () => undefined;
    await run.coordinator.closeRound('aborted');
    await run.coordinator.openRound();
    await run.pass(50);
    expect([made(run), charged(run.ledger)]).toEqual([12, 12]);
    stop.abort(new Error('stop'));
    await run.clock.runUntil(ended);
  });

  it('a process killed after training, after sealing or after charging goes on without another step, and nothing is under-counted', async () => {
    for (const moment of ['before the charge', 'after the charge'] as const) {
      const run = scene();
      const broken: PrivacyLedger = {
        entries: () => run.ledger.entries(),
        spent: (adjacency, at) => run.ledger.spent(adjacency, at),
        charge: async (release) => {
          if (moment === 'after the charge') await run.ledger.charge(release);
          throw new FederationError('disk-full', 'The process dies here.');
        },
        close: () => run.ledger.close(),
      };
      await rejection(run.run(run.participant({ ...own, ledger: broken })));
      expect(made(run)).toBe(6);
      expect(run.coordinator.accepted.size).toBe(0);
      const summary = await run.run(run.participant(own));
      expect(summary.contributedRounds).toBe(3);
      expect([made(run), charged(run.ledger)]).toEqual([18, 18]);
      expect(run.ledger.entries().length).toBe(3);
    }
  });

  it('pays in the next round for steps that were made for a round that closed before they were charged', async () => {
    const run = scene();
    run.coordinator.autopilot = false;
    const full: PrivacyLedger = {
      entries: () => run.ledger.entries(),
      spent: (adjacency, at) => run.ledger.spent(adjacency, at),
      charge: () => Promise.reject(new FederationError('disk-full', 'The process dies here.')),
      close: () => run.ledger.close(),
    };
    const died = run.participant({ ...own, ledger: full }).run().catch((error: unknown) => error);
    await run.pass(10);
    await run.coordinator.openRound();
    await run.clock.runUntil(died);
    await run.coordinator.closeRound('aborted');
    expect([made(run), charged(run.ledger)]).toEqual([6, 0]);
    const stop = new AbortController();
    const ended = run.participant(own).run(stop.signal).catch((error: unknown) => error);
    await run.pass(10);
    await run.coordinator.openRound();
    await run.pass(50);
    expect([made(run), charged(run.ledger)]).toEqual([6, 6]);
    expect(run.coordinator.accepted.size).toBe(1);
    stop.abort(new Error('stop'));
    await run.clock.runUntil(ended);
  });

  it('a personal student stays at home: when the coordinator asks on, nothing is sent', async () => {
    const run = scene({ rounds: 1 });
    await run.run(run.participant({ ...own, personalize: true }));
    expect(run.engine.fits.at(-1)?.data.hard).toBeDefined();
    const again = scene({ rounds: 1 });
    // The same state at a coordinator that announces another round of the same task.
    again.coordinator.autopilot = false;
    const stop = new AbortController();
    const ended = again.participant({ ...own, store: run.store }).run(stop.signal).catch((error: unknown) => error);
    await again.pass(10);
    await again.coordinator.openRound();
    await again.coordinator.closeRound('aborted');
    await again.coordinator.openRound();
    await again.pass(50);
    expect(again.coordinator.accepted.size).toBe(0);
    expect(again.ledger.entries()).toEqual([]);
    expect(again.coordinator.declined.map(({ code }) => code)).toContain('policy-refused');
    stop.abort(new Error('stop'));
    await again.clock.runUntil(ended);
  });

  it('does not train again on what has paid for a student that is gone, or for one that was later', async () => {
    for (const setBack of ['lost', 'as after the first steps'] as const) {
      const run = scene({ rounds: 2 });
      await rejection(run.run(run.participant({ ...own, ledger: dyingLedger(run.ledger) })));
      const first = (await run.store.getBlob('student'))!;
      await run.run(run.participant(own));
      expect([made(run), charged(run.ledger)]).toEqual([12, 12]);
      if (setBack === 'lost') await run.store.deleteBlob('student');
      else await run.store.putBlob('student', first);
      expect(await rejection(run.run(run.participant(own)))).toMatchObject({ code: 'state-mismatch', field: 'student', expected: 'at least 12 private steps' });
      expect([made(run), charged(run.ledger)]).toEqual([12, 12]);
    }
  });

  it('whose private training diverges takes part all the same, stays as it was, and pays for the steps: that it diverged is not to be seen', async () => {
    const run = scene();
    run.engine.divergesOnRecords = true;
    const summary = await run.run(run.participant(own));
    expect(summary).toMatchObject({ reason: 'rounds-done', contributedRounds: 3 });
    expect([made(run), charged(run.ledger)]).toEqual([18, 18]);
    expect(run.named('student-diverged').map((event) => [event['round'], event['step']])).toEqual([[0, 'pretrain'], [2, 'revisit'], [3, 'revisit']]);
  });

  it('that predicts no numbers takes part too, and pays', async () => {
    const run = scene();
    const open = run.engine.open.bind(run.engine);
    run.engine.open = async (source, seed) => {
      const model = await open(source, seed);
      model.predict = async ({ count }) => ({ rows: count, columns: 3, values: new Float32Array(count * 3).fill(NaN) });
      return model;
    };
    expect(await run.run(run.participant(own))).toMatchObject({ reason: 'rounds-done', contributedRounds: 3 });
    expect(charged(run.ledger)).toBe(18);
  });

  it('trains the baseline privately too, with as many steps', async () => {
    const run = scene();
    await run.run();
    expect(run.engine.fits.every(({ data }) => data.hard === undefined)).toBe(true);
    // Pretraining is copied; each of the two others once for both.
    expect(run.engine.privateFits.map(({ options }) => options.steps)).toEqual([6, 6, 6, 6, 6]);
    expect(charged(run.ledger)).toBe(18);
  });

  it('refuses a task that would look at records without noise, and an announcement with other numbers', async () => {
    expect(await rejection(scene({ alpha: 0.5 }).run())).toMatchObject({ code: 'context-mismatch', field: 'distillation.alpha' });
    const run = scene();
    run.coordinator.autopilot = false;
    const stop = new AbortController();
    const ended = run.participant(own).run(stop.signal).catch((error: unknown) => error);
    await run.pass(10);
    const { release } = run.coordinator;
    const noise = release.noise as unknown as Record<string, number>;
    for (const change of [{ steps: 7 }, { noiseMultiplier: 9 }, { samplingRate: 0.5 }, { clippingNorm: 2 }]) {
      const answer = await run.coordinator.send('round', run.coordinator.sign(1, { release: { ...release, noise: { ...noise, ...change } } as never }));
      expect(answer).toMatchObject({ ok: false, problem: { code: 'context-mismatch' } });
    }
    stop.abort(new Error('stop'));
    await run.clock.runUntil(ended);
  });

  it('is refused by a policy that does not allow it, and by one that wants everything of a client protected', async () => {
    expect(await rejection(scene({}, { allowedMechanisms: ['gaussian'] }).run())).toMatchObject({ code: 'policy-refused', field: 'allowedMechanisms' });
    expect(await rejection(scene({}, { unit: 'client' }).run())).toMatchObject({ code: 'policy-refused', field: 'unit' });
  });
});

describe('the balance of a private student', () => {
  const release = scene().coordinator.release;
  const [one, two] = ['1', '2'].map((digit) => `sha256:${digit.repeat(64)}` as Digest) as [Digest, Digest];
  const entry = (contribution: Digest, round = 1) => ({ task: 'toy' as TaskId, round: round as RoundId, contribution, parameters: release, at: 0 as Instant });

  it('counts what was charged for this student, and not what was for another one of the same name', async () => {
    const [store, ledger] = [new MemoryStore(), new MemoryLedger()];
    await ledger.charge(entry(one));
    const releases = await PrivateReleases.open(store, 'toy' as TaskId, ledger);
    expect(releases.allowance({ privateSteps: 6 }, release)).toBe(0);
    await releases.remember(2 as RoundId, two);
    expect(releases.allowance({ privateSteps: 6 }, release)).toBe(0); // remembered, not charged
    await ledger.charge(entry(two, 2));
    expect(releases.allowance({ privateSteps: 6 }, release)).toBe(6);
    expect((await PrivateReleases.open(store, 'toy' as TaskId, ledger)).allowance({ privateSteps: 7 }, release)).toBe(5);
  });

  it('lets nothing leave that is not paid for', async () => {
    const releases = await PrivateReleases.open(new MemoryStore(), 'toy' as TaskId, new MemoryLedger());
    expect(() => releases.check({ privateSteps: 6, sawRecords: false }, release)).not.toThrow();
    expect(() => releases.check({ privateSteps: 7, sawRecords: false }, release)).toThrow(expect.objectContaining({ code: 'policy-refused', got: '7' }));
    expect(() => releases.check({ privateSteps: 0, sawRecords: true }, release)).toThrow(expect.objectContaining({ code: 'policy-refused' }));
  });

  it('costs the same for any number of transfer rows', () => {
    const costs = [1, 12, 5000].map((rows) => spent([chargedRelease({ ...release, rows })], 'replaceOne', delta));
    expect(new Set(costs).size).toBe(1);
    expect(costs[0]).toBeGreaterThan(0);
  });
});
