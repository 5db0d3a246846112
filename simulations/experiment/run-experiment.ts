/** Runs the points of a sweep that have no outcome yet, and keeps the files of its folder up to date. Knows neither terminal nor signals. */
import { cpus } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { EventSink } from '../../shared/ports/event-sink.ts';
import { isSuccess, type PointFailure, type PointResult } from './result.ts';
import { lineOf, type ExperimentFolder } from './experiment-folder.ts';
import type { Point } from './points.ts';
import { runPoints, type Attempt } from './run-points.ts';
import { startPoint } from './start-point.ts';

export interface ExperimentOptions {
  readonly points: readonly Point[];
  readonly folder: ExperimentFolder;
  /** What relative paths of the scenario are relative to. */
  readonly baseDir: string;
  /** Of fedstill. */
  readonly version: string;
  /** Name of the compute engine. */
  readonly engine: string;
  /** Processes at a time. */
  readonly workers: number;
  readonly events: EventSink;
  /** A point was settled by this run, and its result is on the disk. */
  readonly onResult?: (result: PointResult, seconds: number) => void;
  readonly signal: AbortSignal;
}

/** Results of all points in the order of the sweep. Rejects with the signal's reason when stopped; what was done by then is kept. */
export async function runExperiment({ points, folder, baseDir, version, engine, workers, events, onResult, signal }: ExperimentOptions): Promise<readonly PointResult[]> {
  const results: (PointResult | undefined)[] = await Promise.all(points.map((point) => folder.readPoint(point)));
  const found = results.filter((result) => result !== undefined).length;
  // Points that are the same computation run once.
  const first = new Map<string, Point>();
  for (const point of points) if (!first.has(point.key)) first.set(point.key, point);
  const pending = [...first.values()].filter(({ index }) => results[index] === undefined);
  const writer = new ResultsWriter(folder, () => results.filter((result) => result !== undefined));
  writer.touch();
  folder.writeTiming({ event: 'session', at: now(), workers, engine, machine: { cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length, node: process.version, platform: `${process.platform} ${process.arch}` } });
  events.emit({ event: 'experiment-started', points: points.length, found, pending: pending.length, workers, engine });

  const settle = async (point: Point, what: { readonly outcome: Extract<Attempt['end'], { kind: 'outcome' }>['outcome'] } | { readonly error: PointFailure['error'] }) => {
    if ('outcome' in what) await folder.keepOutcome(point, what.outcome, { version, engine });
    points.forEach((other, i) => {
      if (other.key === point.key) results[i] = { ...lineOf(other), ...what };
    });
    writer.touch();
  };
  const endLine = ({ point, attempt, seconds }: Omit<Attempt, 'end'>, end: 'done' | 'failed' | 'died' | 'stopped') => folder.writeTiming({ event: 'end', at: now(), point: point.key, index: point.index, attempt, seconds, end });
  await runPoints({
    points: pending,
    workers,
    signal,
    start: (point) => {
      const attempt = folder.beginAttempt(point);
      const process = startPoint({ scenario: point.scenario, baseDir, engine, journalPath: folder.journalPath(point) }, ({ round, rounds, accuracy }) => events.emit({ event: 'point-round', index: point.index, round, rounds, accuracy }));
      events.emit({ event: 'point-started', index: point.index, point: point.key, attempt, pid: process.pid });
      return { attempt, process };
    },
    onSettled: async (done) => {
      const { point, end, seconds } = done;
      if (end.kind === 'outcome') {
        await settle(point, { outcome: end.outcome });
        endLine(done, 'done');
        events.emit({ event: 'point-done', index: point.index, point: point.key, seconds });
      } else {
        const error = end.kind === 'error' ? end.error : { code: 'worker-failed', message: `Its process ended twice without a result, at last with ${end.how}.` };
        await settle(point, { error });
        endLine(done, end.kind === 'error' ? 'failed' : 'died');
        events.emit({ event: 'point-failed', index: point.index, point: point.key, seconds, ...error });
      }
      onResult?.(results[point.index]!, seconds);
    },
    onDied: async (done) => {
      endLine(done, 'died');
      events.emit({ event: 'point-died', index: done.point.index, point: done.point.key, attempt: done.attempt, how: done.end.kind === 'died' ? done.end.how : '' });
    },
    onStopped: async (done) => endLine(done, 'stopped'),
  }).finally(() => writer.finish());
  return results as PointResult[];
}

/** How many of these results have an outcome. */
export function countDone(results: readonly PointResult[]): number {
  return results.filter(isSuccess).length;
}

/** A write is followed by a pause of this many times its duration: files of many points are large, and are written again for each. */
const PAUSE_FACTOR = 20;

/** Keeps the files of all results up to date without holding up who makes them. */
class ResultsWriter {
  readonly #folder: ExperimentFolder;
  readonly #results: () => readonly PointResult[];
  readonly #hurry = new AbortController();
  #isDirty = false;
  #loop: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(folder: ExperimentFolder, results: () => readonly PointResult[]) {
    this.#folder = folder;
    this.#results = results;
  }

  /** There is something new. Throws what an earlier write failed with. */
  touch(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
    this.#isDirty = true;
    this.#loop ??= this.#write().finally(() => (this.#loop = undefined));
  }

  /** Resolves when the files hold everything. */
  async finish(): Promise<void> {
    this.#hurry.abort();
    await this.#loop;
    this.touch();
    await this.#loop;
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #write(): Promise<void> {
    try {
      while (this.#isDirty) {
        this.#isDirty = false;
        const startedAt = performance.now();
        await this.#folder.writeResults(this.#results());
        await delay(PAUSE_FACTOR * (performance.now() - startedAt), undefined, { signal: this.#hurry.signal }).catch(() => undefined);
      }
    } catch (error) {
      this.#failure = { error };
    }
  }
}

function now(): string {
  return new Date().toISOString();
}
