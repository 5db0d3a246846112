/** A clock that stands still until a test moves it. */
import type { Clock, Timer } from '../../shared/ports/clock.ts';
import type { Instant } from '../../shared/types/ids.ts';

interface Scheduled {
  readonly due: number;
  readonly order: number;
  readonly callback: () => void;
}

/** More callbacks than this in one `advance` is a timer that starts itself again with no delay. */
const maxCallbacks = 100_000;

/**
 * Timers run on elapsed time and in the order of their due times (ties: first asked, first fired), as Node's do; `now` is a
 * wall clock that can be set, as an operator or NTP does.
 */
export class ManualClock implements Clock {
  #elapsed = 0;
  #wallAtZero: number;
  #order = 0;
  #scheduled: Scheduled[] = [];

  constructor(start = 1_700_000_000_000) {
    this.#wallAtZero = start;
  }

  now(): Instant {
    return (this.#wallAtZero + this.#elapsed) as Instant;
  }

  schedule(delayMs: number, callback: () => void): Timer {
    const scheduled: Scheduled = { due: this.#elapsed + Math.max(0, delayMs), order: this.#order++, callback };
    this.#scheduled.push(scheduled);
    return { cancel: () => this.#remove(scheduled) };
  }

  /** Timers that have neither fired nor been cancelled. */
  get pending(): number {
    return this.#scheduled.length;
  }

  /** Lets `ms` milliseconds pass; fires what falls due, also what those callbacks schedule. */
  advance(ms: number): void {
    const until = this.#elapsed + ms;
    for (let fired = 0; this.#fireNext(until); fired++) {
      if (fired >= maxCallbacks) throw new Error(`${maxCallbacks} timers fired within ${ms} ms: something spins`);
    }
    this.#elapsed = Math.max(this.#elapsed, until);
  }

  /** As `advance`, but lets promises settle before every timer and at the end: for code that awaits between timers. */
  async advanceSettled(ms: number): Promise<void> {
    const until = this.#elapsed + ms;
    await settle();
    for (let fired = 0; this.#fireNext(until); fired++) {
      if (fired >= maxCallbacks) throw new Error(`${maxCallbacks} timers fired within ${ms} ms: something spins`);
      await settle();
    }
    this.#elapsed = Math.max(this.#elapsed, until);
  }

  /** Moves time to the next timer and fires it; false when there is none. */
  runNext(): boolean {
    return this.#fireNext(Infinity);
  }

  /** Sets the wall clock forward or back. Timers do not notice. */
  setWall(byMs: number): void {
    this.#wallAtZero += byMs;
  }

  /** Forgets every timer: what a process has when it is killed. */
  clear(): void {
    this.#scheduled = [];
  }

  #fireNext(until: number): boolean {
    const next = this.#scheduled.reduce<Scheduled | undefined>((a, b) => (a === undefined || b.due < a.due || (b.due === a.due && b.order < a.order) ? b : a), undefined);
    if (next === undefined || next.due > until) return false;
    this.#remove(next);
    this.#elapsed = Math.max(this.#elapsed, next.due);
    next.callback();
    return true;
  }

  #remove(scheduled: Scheduled): void {
    this.#scheduled = this.#scheduled.filter((other) => other !== scheduled);
  }
}

const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
