import type { Instant } from '../types/ids.ts';

/** A timer that was asked for; cancelling one that has fired does nothing. */
export interface Timer {
  cancel(): void;
}

/** Time as the rules see it: real in a federation, virtual in a simulation and in tests. */
export interface Clock {
  now(): Instant;
  /** Calls `callback` once, `delayMs` milliseconds from now (a negative delay counts as 0). */
  schedule(delayMs: number, callback: () => void): Timer;
}

/** Resolves after `delayMs` milliseconds of this clock; rejects with the signal's reason when aborted. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'));
      return;
    }
    const onAbort = () => {
      timer.cancel();
      reject(signal?.reason instanceof Error ? signal.reason : new Error('aborted'));
    };
    const timer = clock.schedule(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
