/**
 * What was computed in a run, in one file that only grows: results under a hash of everything that they depend on. A run that is repeated after a kill finds them and goes
 * on from there. Losing any of it costs time and nothing else: a record that is broken, or does not fit any more, is computed again.
 */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, fstatSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from 'node:fs';

/** A result: numbers and names as JSON, and bytes. */
export interface Remembered {
  readonly json: unknown;
  readonly bytes: Uint8Array;
}

interface Place {
  readonly offset: number;
  readonly headBytes: number;
  readonly bodyBytes: number;
}

/** Two lengths of 32 bits, little-endian. */
const PREFIX_BYTES = 8;
/** Of SHA-256 over head and body. */
const CHECK_BYTES = 16;

export class ComputationJournal {
  readonly #path: string;
  readonly #file: number;
  readonly #limitBytes: number;
  /** Records of earlier runs, by key. */
  readonly #known = new Map<string, Place>();
  #size: number;
  #isFull = false;
  #isClosed = false;
  #hits = 0;

  /** `limitBytes`: records that would make the file longer are not kept; default 2 GiB. */
  constructor(path: string, { limitBytes = 2 ** 31 }: { readonly limitBytes?: number } = {}) {
    this.#path = path;
    this.#limitBytes = limitBytes;
    this.#file = openSync(path, existsSync(path) ? 'r+' : 'wx+', 0o600);
    this.#size = this.#scan(fstatSync(this.#file).size);
    // What a kill left of a record: the next one must not stand behind it.
    ftruncateSync(this.#file, this.#size);
  }

  /** Results of earlier runs. */
  get size(): number {
    return this.#known.size;
  }

  /** Results that were found so far. */
  get hits(): number {
    return this.#hits;
  }

  find(key: string): Remembered | undefined {
    const place = this.#known.get(key);
    if (place === undefined || this.#isClosed) return undefined;
    const { headBytes, bodyBytes } = place;
    const record = this.#read(place.offset, PREFIX_BYTES + headBytes + bodyBytes + CHECK_BYTES);
    const content = record.subarray(PREFIX_BYTES, PREFIX_BYTES + headBytes + bodyBytes);
    if (!record.subarray(PREFIX_BYTES + headBytes + bodyBytes).equals(checkOf(content))) {
      this.#known.delete(key);
      return undefined;
    }
    this.#hits++;
    const { json } = JSON.parse(content.toString('utf8', 0, headBytes)) as { json: unknown };
    return { json, bytes: Uint8Array.from(content.subarray(headBytes)) };
  }

  /** Keeps a result for the next run. Numbers that JSON does not have, or a disk that is full: it is not kept. */
  keep(key: string, { json, bytes }: Remembered): void {
    if (this.#isFull || this.#isClosed || !isExactInJson(json)) return;
    const head = Buffer.from(JSON.stringify({ key, json }));
    const content = Buffer.concat([head, bytes]);
    const prefix = Buffer.alloc(PREFIX_BYTES);
    prefix.writeUInt32LE(head.length, 0);
    prefix.writeUInt32LE(bytes.length, 4);
    const record = Buffer.concat([prefix, content, checkOf(content)]);
    if (this.#size + record.length > this.#limitBytes) {
      this.#isFull = true;
      return;
    }
    try {
      writeSync(this.#file, record, 0, record.length, this.#size);
      this.#size += record.length;
    } catch {
      // Others need the space more.
      this.#isFull = true;
      this.#known.clear();
      ftruncateSync(this.#file, 0);
    }
  }

  close(): void {
    if (!this.#isClosed) closeSync(this.#file);
    this.#isClosed = true;
  }

  /** Closes and deletes the file: the run is done. */
  remove(): void {
    this.close();
    rmSync(this.#path, { force: true });
  }

  /** Finds where whole records are. Returns where they end. */
  #scan(fileBytes: number): number {
    let offset = 0;
    while (offset + PREFIX_BYTES <= fileBytes) {
      const prefix = this.#read(offset, PREFIX_BYTES);
      const [headBytes, bodyBytes] = [prefix.readUInt32LE(0), prefix.readUInt32LE(4)];
      const next = offset + PREFIX_BYTES + headBytes + bodyBytes + CHECK_BYTES;
      if (next > fileBytes) break;
      try {
        const { key } = JSON.parse(this.#read(offset + PREFIX_BYTES, headBytes).toString('utf8')) as { key: string };
        this.#known.set(key, { offset, headBytes, bodyBytes });
      } catch {
        break;
      }
      offset = next;
    }
    return offset;
  }

  #read(offset: number, length: number): Buffer {
    const buffer = Buffer.alloc(length);
    readSync(this.#file, buffer, 0, length, offset);
    return buffer;
  }
}

function checkOf(content: Uint8Array): Buffer {
  return createHash('sha256').update(content).digest().subarray(0, CHECK_BYTES);
}

/** Whether a value is the same after it was written and read: JSON has no NaN and no infinities. */
function isExactInJson(value: unknown): boolean {
  if (typeof value === 'number') return Number.isFinite(value) && !Object.is(value, -0);
  if (typeof value !== 'object' || value === null) return value !== undefined;
  return Object.values(value).every(isExactInJson);
}
