/**
 * Data sets that several threads read: one copy of each in shared memory, made when it is first posted and found again by the
 * identity of the caller's array. The least recently used copies are let go when they have too many bytes together.
 *
 * Memory that is shared already is posted as it is: whoever makes it promises not to write to it while it is used.
 */
import type { Carry, PortableArray } from './worker-arguments.ts';

interface Entry {
  readonly copy: PortableArray;
  readonly bytes: number;
}

export interface SharedArraysOptions {
  /** Copies kept, in bytes. */
  readonly limitBytes: number;
  /** Smaller arrays are copied for each call. */
  readonly leastBytes: number;
}

export class SharedArrays {
  readonly #limitBytes: number;
  readonly #leastBytes: number;
  readonly #ids = new WeakMap<PortableArray, number>();
  /** By id, least recently used first. */
  readonly #entries = new Map<number, Entry>();
  /** A copy of what nobody has any more is of no use. */
  readonly #finished = new FinalizationRegistry<number>((id) => this.#drop(id));
  #lastId = 0;
  #bytes = 0;

  constructor({ limitBytes, leastBytes }: SharedArraysOptions) {
    this.#limitBytes = limitBytes;
    this.#leastBytes = leastBytes;
  }

  /** Bytes of the copies that are kept. */
  get bytes(): number {
    return this.#bytes;
  }

  readonly carry: Carry = (array) => {
    if (array.buffer instanceof SharedArrayBuffer) return array;
    if (array.byteLength < this.#leastBytes) return array.slice() as typeof array;
    return this.#share(array);
  };

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  #share<T extends PortableArray>(array: T): T {
    let id = this.#ids.get(array);
    const known = id === undefined ? undefined : this.#entries.get(id);
    if (known !== undefined) {
      this.#entries.delete(id!);
      // The caller may have written to its array since: then this is another data set.
      if (bytesOf(known.copy).equals(bytesOf(array))) {
        this.#entries.set(id!, known);
        return known.copy as T;
      }
      this.#bytes -= known.bytes;
    }
    const type = array.constructor as new (buffer: SharedArrayBuffer) => T;
    const copy = new type(new SharedArrayBuffer(array.byteLength));
    copy.set(array);
    if (array.byteLength > this.#limitBytes) return copy;
    if (id === undefined) {
      id = ++this.#lastId;
      this.#ids.set(array, id);
      this.#finished.register(array, id);
    }
    this.#entries.set(id, { copy, bytes: array.byteLength });
    this.#bytes += array.byteLength;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#limitBytes) break;
      this.#drop(oldest);
    }
    return copy;
  }

  #drop(id: number): void {
    this.#bytes -= this.#entries.get(id)?.bytes ?? 0;
    this.#entries.delete(id);
  }
}

/** Arrays of one length. */
const mostSpare = 4;

/** Shared memory that nobody uses at the moment, by length. */
export class SpareArrays {
  readonly #spare = new Map<number, Uint8Array[]>();

  /** What it holds is of no use. */
  take(bytes: number): Uint8Array {
    return this.#spare.get(bytes)?.pop() ?? new Uint8Array(new SharedArrayBuffer(bytes));
  }

  /** Nobody may read it from now on. Memory that is not shared is left to the garbage collection. */
  give(array: Uint8Array): void {
    if (!(array.buffer instanceof SharedArrayBuffer) || array.byteLength !== array.buffer.byteLength) return;
    const others = this.#spare.get(array.byteLength) ?? [];
    this.#spare.set(array.byteLength, others);
    if (others.length < mostSpare) others.push(array);
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: PortableArray): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
