/**
 * A `DurableStore` in memory. It outlives a simulated process: `close` and a crash lose nothing, and `reopen` is the same state for the process
 * that follows. Values are copied in and out, as a disk would.
 */
import { FederationError } from '../shared/errors.ts';
import { checkStoreName, encodeRecord } from '../shared/node/store-rules.ts';
import type { DurableStore } from '../shared/ports/durable-store.ts';

interface Contents {
  readonly blobs: Map<string, Uint8Array>;
  /** JSON texts by log. */
  readonly logs: Map<string, string[]>;
}

export class MemoryStore implements DurableStore {
  readonly #contents: Contents;
  #isClosed = false;

  constructor(contents: Contents = { blobs: new Map(), logs: new Map() }) {
    this.#contents = contents;
  }

  /** A store with the same state; this one is closed, as by a process that was killed. */
  reopen(): MemoryStore {
    this.#isClosed = true;
    return new MemoryStore(this.#contents);
  }

  async putBlob(name: string, bytes: Uint8Array): Promise<void> {
    this.#check(name);
    this.#contents.blobs.set(name, bytes.slice());
  }

  async getBlob(name: string): Promise<Uint8Array | undefined> {
    this.#check(name);
    return this.#contents.blobs.get(name)?.slice();
  }

  async deleteBlob(name: string): Promise<void> {
    this.#check(name);
    this.#contents.blobs.delete(name);
  }

  async append(log: string, record: object): Promise<void> {
    this.#check(log);
    const lines = this.#contents.logs.get(log) ?? [];
    lines.push(encodeRecord(record));
    this.#contents.logs.set(log, lines);
  }

  async readLog(log: string): Promise<readonly unknown[]> {
    this.#check(log);
    return (this.#contents.logs.get(log) ?? []).map((line) => JSON.parse(line) as unknown);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }

  #check(name: string): void {
    if (this.#isClosed) throw new FederationError('internal', 'The store is closed.');
    checkStoreName(name);
  }
}
