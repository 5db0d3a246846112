/** Runs points, several at a time. A process that dies without a word is started once more; what it says is final. */
import type { PointEnd, PointProcess } from './start-point.ts';
import type { Point } from './points.ts';

/** Processes that one point may take with it in one run of the experiment. */
const MAX_DEATHS = 2;

export interface Attempt {
  readonly point: Point;
  /** From 1, over all runs of this experiment. */
  readonly attempt: number;
  readonly end: PointEnd;
  readonly seconds: number;
}

export interface RunPointsOptions {
  readonly points: readonly Point[];
  /** Processes at a time. */
  readonly workers: number;
  /** Starts the process of a point; the number of the attempt is its own to count. */
  readonly start: (point: Point) => { readonly attempt: number; readonly process: PointProcess };
  /** A point has its outcome, or will have none: by its own word, or because its process died twice. */
  readonly onSettled: (attempt: Attempt) => Promise<void>;
  /** An attempt that is followed by another one. */
  readonly onDied: (attempt: Attempt) => Promise<void>;
  /** What an attempt came to that was stopped. */
  readonly onStopped: (attempt: Omit<Attempt, 'end'>) => Promise<void>;
  readonly signal: AbortSignal;
}

/** Rejects with the signal's reason, or with the first error of a callback, after every process has ended. */
export async function runPoints({ points, workers, start, onSettled, onDied, onStopped, signal }: RunPointsOptions): Promise<void> {
  const stop = new AbortController();
  const all = AbortSignal.any([signal, stop.signal]);
  const waiting = [...points];
  const lane = async () => {
    for (let point = waiting.shift(); point !== undefined && !all.aborted; point = waiting.shift()) await runPoint(point);
  };
  const runPoint = async (point: Point) => {
    for (let deaths = 0; ; ) {
      const startedAt = performance.now();
      const { attempt, process } = start(point);
      const onAbort = () => process.stop();
      all.addEventListener('abort', onAbort, { once: true });
      const end = await process.ended;
      all.removeEventListener('abort', onAbort);
      const done = { point, attempt, seconds: (performance.now() - startedAt) / 1000 };
      // What was said before the end counts even now.
      if (end.kind !== 'died') return onSettled({ ...done, end });
      if (all.aborted) return onStopped(done);
      if (++deaths === MAX_DEATHS) return onSettled({ ...done, end });
      await onDied({ ...done, end });
      if (all.aborted) return;
    }
  };
  const lanes = Array.from({ length: Math.min(workers, points.length) }, () =>
    lane().catch((error: unknown) => {
      stop.abort();
      throw error;
    }),
  );
  const ends = await Promise.allSettled(lanes);
  const failed = ends.find((end) => end.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  signal.throwIfAborted();
}
