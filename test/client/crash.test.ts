/**
 * The participant is killed at every step in turn: before or after each call to its store, its ledger, its connection. Another process then goes on with what
 * the first has left. Whatever the step, the outside sees one federation without a crash: the same bytes for a round, one charge for each, a
 * student that has made every training step once.
 */
import { describe, expect, it } from 'vitest';
import { deferred } from '../../client/participant/deferred.ts';
import type { Connector, CoordinatorConnection } from '../../shared/ports/transport.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';
import type { Epsilon } from '../../shared/types/units.ts';
import { Scene } from './harness.ts';

const never = <T>() => new Promise<T>(() => undefined);

/** Ports of a process that dies at step `at`. */
class Doomed {
  steps = 0;
  readonly died = deferred<'died'>();
  readonly names: string[] = [];
  #isDead = false;
  readonly #at: number;
  readonly #isDoneFirst: boolean;
  readonly #onDeath: () => void;

  constructor(at: number, isDoneFirst: boolean, onDeath: () => void) {
    this.#at = at;
    this.#isDoneFirst = isDoneFirst;
    this.#onDeath = onDeath;
  }

  async #step<T>(name: string, work: () => Promise<T>): Promise<T> {
    if (this.#isDead) return never();
    this.names.push(name);
    const isLast = this.steps++ === this.#at;
    if (isLast && !this.#isDoneFirst) return this.#die();
    const result = await work();
    if (isLast) return this.#die();
    return this.#isDead ? never() : result;
  }

  #die(): Promise<never> {
    this.#isDead = true;
    this.#onDeath();
    this.died.resolve('died');
    return never();
  }

  store(inner: DurableStore): DurableStore {
    return {
      putBlob: (name, bytes) => this.#step(`put ${name}`, () => inner.putBlob(name, bytes)),
      getBlob: (name) => this.#step(`get ${name}`, () => inner.getBlob(name)),
      deleteBlob: (name) => this.#step(`delete ${name}`, () => inner.deleteBlob(name)),
      append: (log, record) => this.#step(`append ${log}`, () => inner.append(log, record)),
      readLog: (log) => this.#step(`read ${log}`, () => inner.readLog(log)),
      close: () => inner.close(),
    };
  }

  ledger(inner: PrivacyLedger): PrivacyLedger {
    return {
      charge: (charge) => this.#step('charge', () => inner.charge(charge)),
      entries: () => inner.entries(),
      spent: (adjacency, delta) => inner.spent(adjacency, delta),
      close: () => inner.close(),
    };
  }

  connector(inner: Connector): Connector {
    return {
      connect: async () => {
        const connection = await this.#step('connect', () => inner.connect());
        const guarded: CoordinatorConnection = {
          request: (event, payload) => this.#step(event, () => connection.request(event, payload)),
          fetchFrame: (path, token, maxBytes) => this.#step(`GET ${path}`, () => connection.fetchFrame(path, token, maxBytes)),
          onEvent: (handler) => connection.onEvent((event, payload) => (this.#isDead ? never() : handler(event, payload))),
          onDisconnect: (handler) => connection.onDisconnect((reason) => (this.#isDead ? undefined : handler(reason))),
          close: () => connection.close(),
        };
        return guarded;
      },
    };
  }
}

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
