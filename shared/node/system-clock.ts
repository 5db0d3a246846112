/**
 * The machine's time. `now` is the wall clock, which an operator or NTP may set; timers run on elapsed time and don't notice.
 * A pending timer keeps the process alive: whoever asks for one cancels it when it closes.
 */
import type { Clock, Timer } from '../ports/clock.ts';
import type { Instant } from '../types/ids.ts';

/** Node fires a timer at once when its delay is longer than this: 2^31 - 1 ms, 24.8 days. */
const MAX_NODE_DELAY_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now() as Instant,
  schedule(delayMs: number, callback: () => void): Timer {
    if (Number.isNaN(delayMs)) throw new RangeError('"delayMs" expected a number of milliseconds, got NaN');
    const due = performance.now() + delayMs;
    let timer: NodeJS.Timeout;
    const wait = () => {
      const left = Math.max(0, due - performance.now());
      timer = left > MAX_NODE_DELAY_MS ? setTimeout(wait, MAX_NODE_DELAY_MS) : setTimeout(callback, left);
    };
    wait();
    return { cancel: () => clearTimeout(timer) };
  },
};
