/**
 * The participant is killed at every step in turn: before or after each call to its store, its ledger, its connection. Another process then goes on with what
 * the first has left. Whatever the step, the outside sees one federation without a crash: the same bytes for a round, one charge for each, a
 * student that has made every training step once.
 */
import { describe, expect, it, vi } from 'vitest';
import type { Epsilon } from '../../shared/types/units.ts';
import { Doomed } from './doomed.ts';
import { Scene } from './harness.ts';

vi.mock(import('../../shared/crypto/signature.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../shared/crypto/sealed-box.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastBoxes(await original()));

interface Outcome {
  readonly steps: number;
  readonly names: readonly string[];
  readonly student: Uint8Array;
  readonly localOnly: Uint8Array;
  /** Phase and round of each line of metrics. */
  readonly measured: readonly string[];
  readonly rounds: readonly number[];
}

/** A federation whose client is killed once at step `at`; `Infinity`: not at all. Checks what must hold at every instant. */
async function federation(at: number, isDoneFirst: boolean): Promise<Outcome> {
  // The budget is exactly that of the task: after the last charge there is nothing left, and what was charged must still be sent.
  const scene = new Scene({ rounds: 2, epsilon: 8 }, { maxEpsilon: 8 as Epsilon });
  const { coordinator, ledger } = scene;
  coordinator.onBytes = (round) => {
    // Before the first word about a contribution, its charge is in the ledger.
    expect(ledger.entries().some((entry) => entry.round === round), `round ${round} was charged before it was sent`).toBe(true);
  };
  const doomed = new Doomed(at, isDoneFirst, () => coordinator.drop(false));
  const first = scene.participant({ store: doomed.store(scene.store), ledger: doomed.ledger(ledger), connector: doomed.connector(coordinator.connector()) });
  const run = first.run();
  run.catch(() => undefined);
  const ending = await scene.clock.runUntil(Promise.race([run, doomed.died.promise]));
  if (ending === 'died') await scene.run();

  for (const [round, digests] of coordinator.offered) expect(digests.size, `envelopes of round ${round}`).toBe(1);
  const charges = ledger.entries().map((entry) => entry.round);
  expect(new Set(charges).size, 'charges of one round').toBe(charges.length);
  for (const [round, frame] of coordinator.accepted) expect(ledger.entries().find((entry) => entry.round === round)?.contribution, `what was charged for round ${round}`).toBe(frame);
  expect(await scene.store.getBlob('outbox/round-1')).toBeUndefined();
  return {
    steps: doomed.steps,
    names: doomed.names,
    student: (await scene.store.getBlob('student'))!,
    localOnly: (await scene.store.getBlob('student-local-only'))!,
    measured: ((await scene.metrics()) as { phase: string; round: number }[]).map(({ phase, round }) => `${phase} ${round}`),
    rounds: [...coordinator.accepted.keys()],
  };
}

describe('a participant that is killed', () => {
  it.each([
    ['before', false],
    ['after', true],
  ])('%s any step of the protocol changes nothing that anybody can see', async (_when, isDoneFirst) => {
    const undisturbed = await federation(Infinity, isDoneFirst);
    expect(undisturbed.rounds).toEqual([1, 2]);
    expect(undisturbed.steps).toBeGreaterThan(40);
    for (let at = 0; at < undisturbed.steps; at++) {
      const crashed = await federation(at, isDoneFirst);
      const where = `killed at step ${at}, ${undisturbed.names[at]}`;
      expect(crashed.rounds, where).toEqual([1, 2]);
      expect(crashed.student, where).toEqual(undisturbed.student);
      expect(crashed.localOnly, where).toEqual(undisturbed.localOnly);
      expect(new Set(crashed.measured).size, where).toBe(crashed.measured.length);
      expect(crashed.measured.at(-1), where).toBe('final 2');
    }
  }, 180_000);
});
