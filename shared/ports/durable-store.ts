/**
 * Durable state of one party: named blobs and append-only logs. When a promise resolves, what it wrote survives a
 * killed process and a power cut. Names are relative paths of `a-z 0-9 . - _ /`.
 */
export interface DurableStore {
  /** Replaces the blob atomically: a reader sees the old bytes or the new ones, never a mixture. */
  putBlob(name: string, bytes: Uint8Array): Promise<void>;
  getBlob(name: string): Promise<Uint8Array | undefined>;
  /** No error when there is none. */
  deleteBlob(name: string): Promise<void>;
  /** Appends one JSON line durably. */
  append(log: string, record: object): Promise<void>;
  /** All whole lines, in order. A last line that a crash cut short was never acknowledged: it is dropped. */
  readLog(log: string): Promise<readonly unknown[]>;
  close(): Promise<void>;
}
