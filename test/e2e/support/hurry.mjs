/**
 * `node --import hurry.mjs main.js ...`: a client that waits a fortieth as long before it connects again, so that a test with many restarts takes seconds.
 * Timers of 10 s and more, such as deadlines and heartbeats, stay as they are.
 */
import { isMainThread } from 'node:worker_threads';

const { setTimeout: original } = globalThis;
if (isMainThread) globalThis.setTimeout = Object.assign((callback, delayMs, ...rest) => original(callback, delayMs < 10_000 ? delayMs / 40 : delayMs, ...rest), original);
