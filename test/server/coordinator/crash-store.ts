/** A store that fails at one chosen operation that changes it. Operations are numbered from 0. */
import type { DurableStore } from '../../../shared/ports/durable-store.ts';

export interface Failure {
  readonly operation: number;
  /** Whether the operation has taken effect. */
  readonly when: 'before' | 'after';
  /**
   * `dies`: the process is killed, nothing returns. `throws`: the operation rejects and every later one too, as on a broken disk. `hiccups`: it
   * rejects once.
   */
  readonly how: 'dies' | 'throws' | 'hiccups';
}

export class CrashStore implements DurableStore {
  operations = 0;
  /** What was done, by number. */
  readonly names: string[] = [];
  hasFailed = false;
  readonly #inner: DurableStore;
  readonly #failure: Failure | undefined;
  readonly #onFailure: () => void;

  constructor(inner: DurableStore, failure?: Failure, onFailure: () => void = () => undefined) {
    this.#inner = inner;
    this.#failure = failure;
    this.#onFailure = onFailure;
  }

  putBlob(name: string, bytes: Uint8Array): Promise<void> {
    return this.#change(`put ${name}`, () => this.#inner.putBlob(name, bytes));
  }

  deleteBlob(name: string): Promise<void> {
    return this.#change(`delete ${name}`, () => this.#inner.deleteBlob(name));
  }

  append(log: string, record: object): Promise<void> {
    return this.#change(`append ${log}`, () => this.#inner.append(log, record));
  }

  getBlob(name: string): Promise<Uint8Array | undefined> {
    return this.#read(() => this.#inner.getBlob(name));
  }

  readLog(log: string): Promise<readonly unknown[]> {
    return this.#read(() => this.#inner.readLog(log));
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  async #change(name: string, work: () => Promise<void>): Promise<void> {
    const failure = this.#failure;
    const isNow = this.operations++ === failure?.operation;
    this.names.push(name);
    if (this.hasFailed) await this.#afterFailure();
    if (!isNow) return work();
    if (failure.when === 'after') await work();
    this.hasFailed = true;
    this.#onFailure();
    if (failure.how === 'dies') await never();
    throw new Error(`the disk failed ${failure.when} operation ${failure.operation}: ${name}`);
  }

  async #read<T>(work: () => Promise<T>): Promise<T> {
    if (this.hasFailed) await this.#afterFailure();
    return work();
  }

  async #afterFailure(): Promise<void> {
    if (this.#failure?.how === 'dies') await never();
    if (this.#failure?.how === 'throws') throw new Error('the disk is broken');
  }
}

function never(): Promise<never> {
  return new Promise(() => undefined);
}
