/**
 * The folder of an experiment: what each point came to, kept under its hash, and the files that are made of all of them (docs/experiments.md). A result is written
 * once, atomically and durably; everything else can be made again from the results.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { FederationError } from '../../shared/errors.ts';
import { diskError, guardDisk } from '../../shared/node/disk-errors.ts';
import { makeDirectory, replaceFile } from '../../shared/node/durable-files.ts';
import { acquireProcessLock, type ProcessLock } from '../../shared/node/process-lock.ts';
import { readRunManifest } from '../../shared/node/run-folder.ts';
import { OutcomeSchema, type Outcome } from '../outcome.ts';
import type { Point } from './points.ts';
import { isSuccess, type PointResult, type PointSuccess } from './result.ts';
import { resultsCsv } from './results-csv.ts';

const StoredOutcomeSchema = z.object({ point: z.string(), outcome: OutcomeSchema });

/** A line of `timings.jsonl`, which is about this machine and these hours. */
export type TimingLine =
  /** A run of the experiment began. */
  | { readonly event: 'session'; readonly at: string; readonly workers: number; readonly engine: string; readonly machine: { readonly cpu: string; readonly cores: number; readonly node: string; readonly platform: string } }
  | { readonly event: 'attempt'; readonly at: string; readonly point: string; readonly index: number; readonly attempt: number }
  /** `died`: without a word; `stopped`: with the experiment. */
  | { readonly event: 'end'; readonly at: string; readonly point: string; readonly index: number; readonly attempt: number; readonly seconds: number; readonly end: 'done' | 'failed' | 'died' | 'stopped' };

export class ExperimentFolder {
  readonly directory: string;
  readonly #lock: ProcessLock;
  /** Attempts so far, by key. */
  readonly #attempts: Map<string, number>;

  private constructor(directory: string, lock: ProcessLock) {
    this.directory = directory;
    this.#lock = lock;
    this.#attempts = countAttempts(join(directory, 'timings.jsonl'));
  }

  /** Makes the folder when it is missing. Throws `state-locked` while another process has it, `state-mismatch` for a folder that is something else. */
  static async open(directory: string): Promise<ExperimentFolder> {
    const manifest = await readRunManifest(directory);
    const isForeign = manifest === undefined ? existsSync(directory) && (await readdir(directory)).some((name) => name !== 'points' && !name.startsWith('lock')) : manifest.kind !== 'experiment';
    if (isForeign) {
      throw new FederationError('state-mismatch', `${directory} is not the folder of an experiment.`, { field: '--run', expected: 'a new folder, or that of an experiment', got: manifest === undefined ? 'a folder with other files' : `a run of ${manifest.kind}`, next: 'Choose another folder.' });
    }
    await guardDisk(directory, () => makeDirectory(join(directory, 'points')));
    return new ExperimentFolder(directory, await acquireProcessLock(join(directory, 'lock'), `the folder ${directory}`));
  }

  close(): Promise<void> {
    return this.#lock.release();
  }

  async writeText(name: string, text: string): Promise<void> {
    const path = join(this.directory, name);
    await guardDisk(path, () => replaceFile(path, text));
  }

  readPoint(point: Point): Promise<PointSuccess | undefined> {
    return readPoint(this.directory, point);
  }

  async keepOutcome(point: Point, outcome: Outcome, made: { readonly version: string; readonly engine: string }): Promise<void> {
    const path = resultPath(this.directory, point);
    await guardDisk(path, async () => {
      await makeDirectory(dirname(path));
      await replaceFile(path, `${JSON.stringify({ format: 'fedstill-point/1', point: point.key, ...made, scenario: point.scenario, outcome })}\n`);
      await rm(this.journalPath(point), { force: true });
    });
  }

  /** An absolute path; the file is gone once the point has an outcome. */
  journalPath(point: Point): string {
    return resolve(dirname(resultPath(this.directory, point)), 'computations');
  }

  /** The number of a new attempt, from 1. Written before the attempt begins. */
  beginAttempt(point: Point): number {
    const attempt = (this.#attempts.get(point.key) ?? 0) + 1;
    this.#attempts.set(point.key, attempt);
    mkdirSync(dirname(this.journalPath(point)), { recursive: true, mode: 0o700 });
    this.writeTiming({ event: 'attempt', at: new Date().toISOString(), point: point.key, index: point.index, attempt });
    return attempt;
  }

  writeTiming(line: TimingLine): void {
    const path = join(this.directory, 'timings.jsonl');
    try {
      appendFileSync(path, `${JSON.stringify(line)}\n`);
    } catch (error) {
      throw diskError(error, path);
    }
  }

  /** `results.jsonl` and `results.csv`, from these results in the order of the sweep. */
  async writeResults(results: readonly PointResult[]): Promise<void> {
    await this.writeText('results.jsonl', results.map((result) => `${JSON.stringify(result)}\n`).join(''));
    await this.writeText('results.csv', resultsCsv(results));
  }
}

/** What a point came to, read without the folder's lock; `undefined` when that is not known. One that failed is not kept: the next run tries it again. */
export async function readPoint(directory: string, point: Point): Promise<PointSuccess | undefined> {
  const stored = await readJson(resultPath(directory, point), StoredOutcomeSchema);
  return stored?.point === point.key ? { ...lineOf(point), outcome: stored.outcome } : undefined;
}

function resultPath(directory: string, point: Point): string {
  return join(directory, 'points', point.key, 'result.json');
}

/** What the line of a point says beside its outcome or error, always in this order: equal results are equal texts. */
export function lineOf(point: Point): Omit<PointSuccess, 'outcome'> {
  const { key, index, seed, settings } = point;
  return { format: 'fedstill-result/1', point: key, index, seed, case: point.case, settings: { ...settings } as PointSuccess['settings'] };
}

/** Points with an outcome in a folder's `results.jsonl`. */
export async function countResults(directory: string): Promise<number> {
  const text = await readFile(join(directory, 'results.jsonl'), 'utf8').catch(() => '');
  return text.split('\n').filter((line) => {
    try {
      return line !== '' && isSuccess(JSON.parse(line) as PointResult);
    } catch {
      return false;
    }
  }).length;
}

async function readJson<S extends z.ZodType>(path: string, schema: S): Promise<z.infer<S> | undefined> {
  try {
    return schema.safeParse(JSON.parse(await readFile(path, 'utf8'))).data;
  } catch {
    return undefined;
  }
}

/** The highest attempt of each point. The last line may be broken by a kill; it is ended, so that the next one stands alone. */
function countAttempts(path: string): Map<string, number> {
  const attempts = new Map<string, number>();
  if (!existsSync(path)) return attempts;
  const text = readFileSync(path, 'utf8');
  if (text !== '' && !text.endsWith('\n')) appendFileSync(path, '\n');
  for (const line of text.split('\n')) {
    try {
      const { event, point, attempt } = JSON.parse(line) as { event?: unknown; point?: unknown; attempt?: unknown };
      if (event === 'attempt' && typeof point === 'string' && typeof attempt === 'number') attempts.set(point, Math.max(attempt, attempts.get(point) ?? 0));
    } catch {
      // Broken, or the empty text after the last line.
    }
  }
  return attempts;
}
