/** Ports of a process that dies at one step: before or after a call to its store, its ledger, its connection. */
import { deferred } from '../../client/participant/deferred.ts';
import type { Connector, CoordinatorConnection } from '../../shared/ports/transport.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';

const never = <T>() => new Promise<T>(() => undefined);

/** Dies at step `at`, counted from 0. */
export class Doomed {
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
