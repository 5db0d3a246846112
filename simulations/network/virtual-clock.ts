/**
 * Time that passes only when nothing is left to do: a simulation of an hour takes as long as its computations, and happens the same way every time.
 * Timers that fall due at the same instant fire in the order in which they were asked for.
 */
import type { Clock, Timer } from '../../shared/ports/clock.ts';
import type { Instant } from '../../shared/types/ids.ts';

interface Entry {
  readonly at: number;
  readonly order: number;
  /** `undefined` once it is cancelled: what it would have used is free at once, not when its time would have come. */
  callback: (() => void) | undefined;
}

export class VirtualClock implements Clock {
  #now: number;
  #order = 0;
  /** A binary heap by (at, order). */
  readonly #heap: Entry[] = [];
  /** Real work (a computation, a file) that is under way; time stands still meanwhile. */
  #busy = 0;
  #wake: (() => void) | undefined;

  constructor(start = 0) {
    this.#now = start;
  }

  now(): Instant {
    return this.#now as Instant;
  }

  schedule(delayMs: number, callback: () => void): Timer {
    // Whole milliseconds, as a real clock and the ledger have them.
    const entry: Entry = { at: this.#now + Math.ceil(Math.max(0, delayMs)), order: this.#order++, callback };
    this.#push(entry);
    this.#wake?.();
    return {
      cancel: () => {
        entry.callback = undefined;
      },
    };
  }

  /** Holds time while `work` runs. */
  async hold<T>(work: () => Promise<T>): Promise<T> {
    this.#busy++;
    try {
      return await work();
    } finally {
      this.#busy--;
      this.#wake?.();
    }
  }

  /** Runs timers, earliest first, until `done` has settled. Throws when nothing is left that could ever settle it. */
  async runUntil<T>(done: Promise<T>): Promise<T> {
    let settled = false;
    const watched = done.finally(() => {
      settled = true;
      this.#wake?.();
    });
    watched.catch(() => undefined);
    while (!settled) {
      await drainMicrotasks();
      if (settled) break;
      if (this.#busy > 0) {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        this.#wake = undefined;
        continue;
      }
      let entry = this.#pop();
      while (entry !== undefined && entry.callback === undefined) entry = this.#pop();
      if (entry?.callback === undefined) throw new Error('the simulation is stuck: nothing is scheduled and nothing is running');
      this.#now = entry.at;
      entry.callback();
    }
    return watched;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    heap.push(entry);
    let i = heap.length - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isEarlier(heap[i]!, heap[parent]!)) break;
      [heap[i], heap[parent]] = [heap[parent]!, heap[i]!];
      i = parent;
    }
  }

  #pop(): Entry | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    heap[0] = last;
    let i = 0;
    for (;;) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2]) if (child < heap.length && isEarlier(heap[child]!, heap[least]!)) least = child;
      if (least === i) return first;
      [heap[i], heap[least]] = [heap[least]!, heap[i]!];
      i = least;
    }
  }
}

function isEarlier(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** One turn of the event loop: every promise that can settle without a timer or I/O has settled. */
function drainMicrotasks(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
