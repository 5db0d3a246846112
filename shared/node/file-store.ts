/**
 * A `DurableStore` on a folder of a local disk. Blobs are files, replaced by rename; logs are files of JSON lines, kept open for appending. Files
 * have mode 0600, folders 0700. One process at a time: `.lock`.
 *
 * Appends that are waiting while a flush is under way are written and flushed together (group commit), in the order of the calls.
 *
 * Assumes a local file system that honours fsync. Deleting a blob removes its name; it does NOT scrub the disk's blocks.
 */
import { open, readFile, rename, rm, unlink, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FederationError } from '../errors.ts';
import type { DurableStore } from '../ports/durable-store.ts';
import { concatBytes, fromUtf8, utf8 } from '../types/bytes.ts';
import { diskError, guardDisk, isMissing } from './disk-errors.ts';
import { makeDirectory, syncDirectory } from './durable-files.ts';
import { acquireProcessLock, type ProcessLock } from './process-lock.ts';
import { checkStoreName, encodeRecord } from './store-rules.ts';

// Start with a dot, as no blob or log can.
const temporaryFolder = '.tmp';
const lockName = '.lock';
const newline = 0x0a;

/**
 * Opens the store in this folder, making it when needed. Throws `state-locked` when another process has it, `file-unreadable` or `disk-full`.
 */
export async function openFileStore(directory: string): Promise<FileStore> {
  await guardDisk(directory, () => makeDirectory(directory));
  const lock = await acquireProcessLock(join(directory, lockName), `the folder ${directory}`);
  try {
    await guardDisk(directory, async () => {
      const temporaries = join(directory, temporaryFolder);
      await rm(temporaries, { recursive: true, force: true }); // half-written files of a process that died
      await makeDirectory(temporaries);
    });
  } catch (error) {
    await lock.release();
    throw error;
  }
  return new FileStore(directory, lock);
}

export class FileStore implements DurableStore {
  readonly #directory: string;
  readonly #lock: ProcessLock;
  readonly #logs = new Map<string, LogFile>();
  /** The last operation on each blob that has one under way: a blob's operations happen in the order of the calls. */
  readonly #blobs = new Map<string, Promise<unknown>>();
  /** Folders that are there, and durably so. */
  readonly #madeDirectories = new Set<string>();
  #temporaries = 0;
  #closing: Promise<void> | undefined;

  /** Use `openFileStore`, which holds the lock. */
  constructor(directory: string, lock: ProcessLock) {
    this.#directory = directory;
    this.#lock = lock;
  }

  putBlob(name: string, bytes: Uint8Array): Promise<void> {
    const copy = bytes.slice(); // the caller may go on using its bytes while this waits
    return this.#onBlob(name, async (path) => {
      const folder = await this.#folderOf(path);
      const temporary = join(this.#directory, temporaryFolder, String(this.#temporaries++));
      try {
        await writeDurably(temporary, copy);
        await rename(temporary, path);
      } catch (error) {
        await rm(temporary, { force: true }).catch(() => undefined);
        throw error;
      }
      await syncDirectory(folder);
    });
  }

  getBlob(name: string): Promise<Uint8Array | undefined> {
    return this.#onBlob(name, async (path) => {
      try {
        return Uint8Array.from(await readFile(path));
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    });
  }

  deleteBlob(name: string): Promise<void> {
    return this.#onBlob(name, async (path) => {
      try {
        await unlink(path);
      } catch (error) {
        if (isMissing(error)) return;
        throw error;
      }
      await syncDirectory(dirname(path));
    });
  }

  async append(log: string, record: object): Promise<void> {
    return this.#log(log).append(utf8(encodeRecord(record)));
  }

  async readLog(log: string): Promise<readonly unknown[]> {
    return this.#log(log).read();
  }

  /** Waits for what is under way, then gives the folder back. Calls after it are refused. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      await Promise.allSettled(this.#blobs.values());
      await Promise.allSettled([...this.#logs.values()].map((log) => log.close()));
      await this.#lock.release();
    })();
    return this.#closing;
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new FederationError('internal', 'The store is closed.', { field: this.#directory });
  }

  #log(name: string): LogFile {
    this.#checkOpen();
    checkStoreName(name);
    let log = this.#logs.get(name);
    if (log === undefined) {
      const path = join(this.#directory, name);
      log = new LogFile(path, () => this.#folderOf(path));
      this.#logs.set(name, log);
    }
    return log;
  }

  /** Runs `work` after everything asked for this blob before. */
  async #onBlob<T>(name: string, work: (path: string) => Promise<T>): Promise<T> {
    this.#checkOpen();
    const path = join(this.#directory, checkStoreName(name));
    const before = this.#blobs.get(name) ?? Promise.resolve();
    const result = before.catch(() => undefined).then(() => guardDisk(path, () => work(path)));
    this.#blobs.set(name, result);
    try {
      return await result;
    } finally {
      if (this.#blobs.get(name) === result) this.#blobs.delete(name);
    }
  }

  async #folderOf(path: string): Promise<string> {
    const folder = dirname(path);
    if (!this.#madeDirectories.has(folder)) {
      await makeDirectory(folder);
      this.#madeDirectories.add(folder);
    }
    return folder;
  }
}

async function writeDurably(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

interface Waiting {
  readonly line: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** One log. Its file is opened, and a torn last line cut off, on first use. */
class LogFile {
  readonly #path: string;
  readonly #makeFolder: () => Promise<string>;
  /** Reads and batches of appends, one after the other. */
  #queue: Promise<unknown> = Promise.resolve();
  #waiting: Waiting[] = [];
  #file: FileHandle | undefined;
  /** Length of the whole lines, in bytes. */
  #length = 0;
  /** Set when the file may hold what was never acknowledged: nothing may be appended behind it. */
  #broken: Error | undefined;

  constructor(path: string, makeFolder: () => Promise<string>) {
    this.#path = path;
    this.#makeFolder = makeFolder;
  }

  append(line: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ line, resolve, reject });
      // The first in line has the batch written; whoever comes before that happens goes with it.
      if (this.#waiting.length === 1) void this.#enqueue(() => this.#writeWaiting());
    });
  }

  read(): Promise<readonly unknown[]> {
    return this.#enqueue(() =>
      guardDisk(this.#path, async () => {
        const bytes = await this.#readBytes();
        if (bytes === undefined) return [];
        const { records, length } = parseLines(bytes, this.#path);
        if (length < bytes.length) await (await this.#openFile()).truncate(length);
        return records;
      }),
    );
  }

  close(): Promise<void> {
    return this.#enqueue(async () => {
      await this.#file?.close();
      this.#file = undefined;
    });
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  /** Never rejects: each caller is told. */
  async #writeWaiting(): Promise<void> {
    const batch = this.#waiting;
    this.#waiting = [];
    try {
      await this.#write(concatBytes(...batch.map(({ line }) => line)));
      for (const { resolve } of batch) resolve();
    } catch (error) {
      const known = diskError(error, this.#path);
      for (const { reject } of batch) reject(known);
    }
  }

  async #write(lines: Uint8Array): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    const file = await this.#openFile();
    try {
      await writeAll(file, lines, this.#length);
    } catch (error) {
      // Half a line may be there (a full disk): the next append must not land behind it.
      await file.truncate(this.#length).catch(() => (this.#broken = asError(error)));
      throw error;
    }
    try {
      await file.datasync();
    } catch (error) {
      // After a failed fsync nobody knows what is on the disk, and a second one may succeed without writing.
      this.#broken = asError(error);
      throw error;
    }
    this.#length += lines.length;
  }

  async #openFile(): Promise<FileHandle> {
    if (this.#file !== undefined) return this.#file;
    const folder = await this.#makeFolder();
    const bytes = await this.#readBytes();
    const length = bytes === undefined ? 0 : parseLines(bytes, this.#path).length;
    const file = await open(this.#path, bytes === undefined ? 'wx' : 'r+', 0o600);
    try {
      if (bytes === undefined) await syncDirectory(folder);
      else if (length < bytes.length) await file.truncate(length);
      await file.sync();
    } catch (error) {
      await file.close();
      throw error;
    }
    this.#file = file;
    this.#length = length;
    return file;
  }

  async #readBytes(): Promise<Uint8Array | undefined> {
    try {
      return await readFile(this.#path);
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let written = 0; written < bytes.length; ) {
    written += (await file.write(bytes, written, bytes.length - written, position + written)).bytesWritten;
  }
}

/**
 * The records of the whole lines, and where those lines end. A last line that has no newline or is no record was cut short by a crash and never
 * acknowledged. A broken line with others behind it is damage: throws `state-mismatch`.
 */
function parseLines(bytes: Uint8Array, path: string): { readonly records: unknown[]; readonly length: number } {
  const records: unknown[] = [];
  let length = 0;
  for (let end = bytes.indexOf(newline, length); end !== -1; end = bytes.indexOf(newline, length)) {
    const record = parseRecord(bytes.subarray(length, end));
    if (record === undefined) {
      if (end + 1 === bytes.length) break;
      throw new FederationError('state-mismatch', 'A log is damaged in the middle; going on would forget what was acknowledged.', {
        field: path,
        expected: 'one JSON object a line',
        got: `something else in line ${records.length + 1}`,
        next: 'Restore the folder from a backup, or start a new run.',
      });
    }
    records.push(record);
    length = end + 1;
  }
  return { records, length };
}

function parseRecord(line: Uint8Array): object | undefined {
  try {
    const value: unknown = JSON.parse(fromUtf8(line));
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
