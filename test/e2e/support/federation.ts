/** A small federation of real processes, and what must be true of the files that it leaves. */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { fedstill, type End, type Fedstill } from './processes.ts';

export const clientNames = ['one', 'two', 'three'] as const;
/** Of a federation with secure aggregation. */
export const fiveNames = [...clientNames, 'four', 'five'] as const;
export type ClientName = (typeof fiveNames)[number];

export interface Schedule {
  readonly rounds: number;
  readonly minClients: number;
  readonly quorum: number;
  readonly roundDeadlineSeconds: number;
  readonly reconnectGraceSeconds: number;
  readonly maxFailedRounds: number;
}

/** Nobody is given up while a test restarts it. */
const patient: Schedule = { rounds: 3, minClients: 3, quorum: 2, roundDeadlineSeconds: 300, reconnectGraceSeconds: 120, maxFailedRounds: 3 };

/** Local noise, so that two contributions to one round cannot be equal by accident. */
const localNoise = '{mechanism: gaussian, epsilon: 1000}';
/** Four of five must survive, and all may be honest: t = 3. */
export const secureTask = { privacy: '{trustMode: secure-aggregation, mechanism: discreteGaussian, epsilon: 1000, secureAggregation: {maxCorrupt: 0, stageDeadlineSeconds: 120}}', schedule: { minClients: 5, quorum: 4 } };

const taskText = (schedule: Schedule, privacy: string) => `
task: small
data: {numClasses: 3, exampleShape: [8]}
transferSet: {source: synthetic, size: 40, seed: 5}
evaluationSet: {source: synthetic, size: 40, seed: 6}
teacher: {kind: learner, model: softmax-regression, epochs: 2}
student: {model: softmax-regression, pretrainEpochs: 1}
privacy: ${privacy}
schedule: ${JSON.stringify(schedule)}
`;

interface JournalEvent {
  readonly type: string;
  readonly round?: number;
  readonly client?: string;
  readonly stage?: string;
  readonly digest?: string;
}

export interface LedgerEntry {
  readonly task: string;
  readonly round: number;
  readonly contribution: string;
}

/** A temporary folder with a task, a run folder and the state of some clients. */
export class Federation {
  readonly folder: string;
  readonly run: string;
  readonly #joinUrls: string[] = [];

  private constructor(folder: string) {
    this.folder = folder;
    this.run = join(folder, 'run');
  }

  static async make(schedule: Partial<Schedule> = {}, privacy = localNoise): Promise<Federation> {
    const folder = await mkdtemp(join(tmpdir(), 'fedstill-e2e-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
    await writeFile(join(folder, 'task.yaml'), taskText({ ...patient, ...schedule }, privacy));
    await mkdir(join(folder, 'claims'));
    return new Federation(folder);
  }

  /** `serve`, or `resume` once there is something to resume. */
  coordinator({ dying }: { readonly dying?: string } = {}): Fedstill {
    const args = existsSync(join(this.run, 'run.json')) ? ['resume', 'run'] : ['serve', '--task', 'task.yaml', '--run', 'run', '--port', '0', '--engine', 'tfjs-wasm'];
    return this.#start([...args, '--json'], dying, []);
  }

  /** The same command every time. */
  client(name: ClientName, joinUrl: string, { dying, extra = [] }: { readonly dying?: string; readonly extra?: readonly string[] } = {}): Fedstill {
    const data = `synthetic:60:${fiveNames.indexOf(name) + 1}`;
    return this.#start(['join', joinUrl, '--data', data, '--state', join('clients', name), '--max-epsilon', '1000000', '--min-honest', '3', '--engine', 'tfjs-wasm', '--json', ...extra], dying, ['hurry.mjs']);
  }

  #start(args: readonly string[], dying: string | undefined, imports: readonly string[]): Fedstill {
    const env = { KILL_AT_CLAIMS: join(this.folder, 'claims'), KILL_AT_ROOT: this.folder, KILL_AT_TRACE: join(this.folder, 'sealed.jsonl'), KILL_AT_POINTS: dying ?? '^$' };
    return fedstill(args, { cwd: this.folder, env, imports: ['kill-at.mjs', ...imports] });
  }

  /** The coordinator's join URL; it stays the same over restarts. */
  async joinUrl(coordinator: Fedstill): Promise<string> {
    const url = String((await coordinator.event('listening'))['joinUrl']);
    this.#joinUrls.push(url);
    expect(new Set(this.#joinUrls).size).toBe(1);
    return url;
  }

  /** Where processes have died. */
  async deaths(): Promise<string[]> {
    return (await readdir(join(this.folder, 'claims'))).map(decodeURIComponent).sort();
  }

  async journal(): Promise<readonly JournalEvent[]> {
    return readLines<JournalEvent>(join(this.run, 'journal'));
  }

  async ledger(name: ClientName): Promise<readonly LedgerEntry[]> {
    return readLines<LedgerEntry>(join(this.folder, 'clients', name, 'ledger.jsonl'));
  }

  async clientId(name: ClientName): Promise<string> {
    return (await readFile(join(this.folder, 'clients', name, 'identity'), 'utf8')).split('\n')[2]!;
  }

  /** The client's own folder of the task. */
  async taskFolder(name: ClientName): Promise<string> {
    const tasks = join(this.folder, 'clients', name, 'tasks');
    const [only, ...others] = await readdir(tasks);
    expect(others).toEqual([]);
    return join(tasks, only!);
  }

  /** What no crash may break. `rounds`: released. */
  async check({ rounds = 3, cohort = 3 } = {}): Promise<void> {
    const journal = await this.journal();
    const stored = journal.filter(({ type }) => type === 'contribution-stored');
    expectUnique(stored.map(({ round, client, stage }) => `${round} ${client} ${stage}`));
    // What the ledger knows of: predictions, in the open or masked.
    const contributions = stored.filter(({ stage }) => stage === 'contribution' || stage === 'maskedInput');
    expectUnique(journal.filter(({ type }) => type === 'round-aggregated').map(({ round }) => round));

    const metrics = await readLines<{ round: number; cohort: number; contributions: number }>(join(this.run, 'metrics.jsonl'));
    expectUnique(metrics.map(({ round }) => round));
    expect(metrics).toHaveLength(rounds);
    for (const line of metrics) {
      expect(line.contributions).toBeLessThanOrEqual(Math.min(cohort, line.cohort));
      expect(line.contributions).toBe(contributions.filter(({ round }) => round === line.round).length);
    }

    // What was sealed, as it was seen on its way to the disk: envelope and noised matrix belong together.
    const sealed = await readLines<{ header: { round: number; contribution: string; envelope: string } }>(join(this.folder, 'sealed.jsonl'));
    const names = await readdir(join(this.folder, 'clients'));
    for (const name of names as ClientName[]) {
      const id = await this.clientId(name);
      const ledger = await this.ledger(name);
      const sent = contributions.filter(({ client }) => client === id);
      expect(ledger.length).toBeGreaterThanOrEqual(sent.length);
      expectUnique(ledger.map(({ contribution }) => contribution));
      expectUnique(ledger.map(({ round }) => round));
      for (const { round, digest } of sent) {
        const contribution = sealed.find(({ header }) => header.envelope === digest)?.header.contribution;
        expect(contribution).toBeDefined();
        expect(ledger.filter((entry) => entry.contribution === contribution && entry.round === round)).toHaveLength(1);
      }
      const lines = await readLines<{ round: number; phase: string }>(join(await this.taskFolder(name), 'metrics.jsonl'));
      expectUnique(lines.map(({ round, phase }) => `${phase} ${round}`));
    }
    expect((await readdir(join(this.run, 'rounds'))).length).toBeGreaterThanOrEqual(rounds);
  }
}

/** A process with all its restarts. */
export interface Life {
  /** How the last process ended. */
  readonly end: End;
  readonly kills: number;
  readonly last: Fedstill;
}

/** Starts a process again each time that it was killed, `until` it has done what it is for. */
export async function restarted(start: () => Fedstill, { onStart, until }: { readonly onStart?: (process: Fedstill) => void; readonly until?: (process: Fedstill) => boolean }): Promise<Life> {
  for (let kills = 0; ; ) {
    const process = start();
    onStart?.(process);
    const end = await process.ended;
    if (end === 'SIGKILL') kills++;
    if (end !== 'SIGKILL' || until?.(process) === true) return { end, kills, last: process };
  }
}

export async function readLines<T>(path: string): Promise<readonly T[]> {
  return (await readFile(path, 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T);
}

function expectUnique(values: readonly unknown[]): void {
  expect([...values].sort()).toEqual([...new Set(values)].sort());
}
