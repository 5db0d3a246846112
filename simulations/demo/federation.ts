/** The demo's federations: one coordinator process and five client processes on loopback each, and one live line a round. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ClientMetricsSchema, type ClientMetrics } from '../../client/participant/metrics.ts';
import type { EnginePreference } from '../../shared/compute/select-engine.ts';
import { FederationError } from '../../shared/errors.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { PrivacyStatementSchema } from '../../shared/privacy/statement.ts';
import type { RoundMetrics } from '../run-simulation.ts';
import { mean } from '../spread.ts';
import { startFedstill, type JsonProcess } from './processes.ts';
import { demoSeeds } from './settings.ts';

export interface DemoClient {
  readonly name: string;
  readonly model: string;
  /** Its private data, an IDX folder. */
  readonly directory: string;
}

export interface FederationOptions {
  /** Of this federation alone: its task, its coordinator's run, its clients' states and all logs. */
  readonly runDirectory: string;
  /** Labelled images on which clients measure their students, an IDX folder. */
  readonly testDirectory: string;
  /** What the owners allow, e.g. `--allow none`. */
  readonly ownerFlags: readonly string[];
  /** Also trains students that never distil. */
  readonly baseline: boolean;
  readonly seed: number;
  readonly clients: readonly DemoClient[];
  readonly engine: EnginePreference;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

/** Where the federation with a guarantee for every record keeps everything. */
export const recordRunDirectory = (runDirectory: string) => join(runDirectory, 'records');
const coordinatorFolder = (runDirectory: string) => join(runDirectory, 'coordinator');
const stateFolder = (runDirectory: string, client: string) => join(runDirectory, 'clients', client);

/** Runs the federation to its end, or from where it was stopped. Throws when it ends badly; every process has ended then. */
export async function runFederation(options: FederationOptions): Promise<void> {
  const { runDirectory, testDirectory, ownerFlags, baseline, seed, clients, engine, say, signal } = options;
  const logs = join(runDirectory, 'logs');
  await mkdir(logs, { recursive: true });
  const watcher = new RoundWatcher(clients.length, say);
  const processes: JsonProcess[] = [];
  const stopAll = () => processes.forEach((child) => child.stop());
  signal.addEventListener('abort', stopAll, { once: true });
  try {
    let found: ((joinUrl: string) => void) | undefined;
    const joinUrl = new Promise<string>((resolve) => (found = resolve));
    const coordinator = startFedstill(
      'coordinator',
      ['serve', '--task', join(runDirectory, 'task.yaml'), '--run', coordinatorFolder(runDirectory), '--port', '0', '--engine', engine, '--json'],
      join(logs, 'coordinator.log'),
      (event) => {
        if (typeof event['joinUrl'] === 'string') found?.(event['joinUrl']);
        watcher.onCoordinator(event);
      },
    );
    processes.push(coordinator);
    const url = await Promise.race([joinUrl, coordinator.ended.then(() => undefined)]);
    if (url === undefined) throw failed(coordinator, await coordinator.ended, logs);
    say(`coordinator listening, join URL ${url}`);
    for (const client of clients) {
      if (signal.aborted) break;
      processes.push(
        startFedstill(
          client.name,
          [
            ...['join', url, '--data', client.directory, '--model', client.model, '--state', stateFolder(runDirectory, client.name), '--name', client.name],
            ...['--test-data', testDirectory, ...(baseline ? ['--baseline'] : []), ...ownerFlags, '--seed', String(demoSeeds.student(seed, client.name)), '--engine', engine, '--json'],
          ],
          join(logs, `${client.name}.log`),
          (event) => watcher.onClient(client.name, event),
        ),
      );
    }
    const statuses = await Promise.all(processes.map(async (child) => ({ child, status: await child.ended })));
    signal.throwIfAborted();
    const bad = statuses.find(({ status }) => status !== 0);
    if (bad !== undefined) throw failed(bad.child, bad.status, logs);
  } finally {
    signal.removeEventListener('abort', stopAll);
    stopAll();
    await Promise.allSettled(processes.map((child) => child.ended));
  }
}

function failed(child: JsonProcess, status: number, logs: string): FederationError {
  return new FederationError('worker-failed', `The process ${child.name} of the demo ended with status ${status}.`, { field: child.name, expected: 'status 0', got: String(status), next: `Its log is ${join(logs, `${child.name}.log`)}.` });
}

/** Turns the events of all processes into one line a round. */
class RoundWatcher {
  readonly #clients: number;
  readonly #say: (line: string) => void;
  /** Newest test accuracy of each client's student. */
  readonly #accuracies = new Map<string, number>();
  #pretrained = 0;
  #sharded = 0;

  constructor(clients: number, say: (line: string) => void) {
    this.#clients = clients;
    this.#say = say;
  }

  onClient(name: string, event: RunEvent): void {
    const accuracy = event['testAccuracy'];
    if (typeof accuracy === 'number') this.#accuracies.set(name, accuracy);
    if (event.event === 'pretrained' && ++this.#pretrained === this.#clients) this.#say(`all ${this.#clients} students pretrained on their own records: ${this.#students()}`);
    if (event.event === 'shards-trained' && ++this.#sharded === this.#clients) this.#say(`all ${this.#clients} clients trained a model on each of their ${String(event['shards'])} shards`);
    if (event.event === 'reconnecting') this.#say(`${name}: no connection, trying again`);
  }

  onCoordinator(event: RunEvent): void {
    if (event.event === 'round-aggregated') {
      const accuracy = event['teacherAccuracy'];
      this.#say(
        `round ${String(event['round'])}: ${String(event['contributions'])} of ${this.#clients} contributions, teacher ${typeof accuracy === 'number' ? `${(100 * accuracy).toFixed(1)} %` : 'not measured'}, ${this.#students()}, ${Number(event['seconds']).toFixed(1)} s`,
      );
    } else if (event.event === 'round-aborted') {
      this.#say(`round ${String(event['round'])} aborted: ${String(event['code'])}`);
    } else if (event.event === 'restarted') {
      this.#say(`coordinator continues after ${String(event['released'])} released rounds`);
    }
  }

  #students(): string {
    const values = [...this.#accuracies.values()];
    return values.length === 0 ? 'students not measured yet' : `students ${(100 * mean(values)).toFixed(1)} % on average`;
  }
}

/** What the coordinator measured, a line a round. */
export async function readRoundMetrics(runDirectory: string): Promise<readonly RoundMetrics[]> {
  return (await readLines(join(coordinatorFolder(runDirectory), 'metrics.jsonl'))) as readonly RoundMetrics[];
}

/** What a client measured on its own machine; none of it was ever sent. */
export async function readClientMetrics(runDirectory: string, client: string): Promise<readonly ClientMetrics[]> {
  const tasks = join(stateFolder(runDirectory, client), 'tasks');
  const [task] = existsSync(tasks) ? await readdir(tasks) : [];
  return task === undefined ? [] : (await readLines(join(tasks, task, 'metrics.jsonl'))).map((line) => ClientMetricsSchema.parse(line));
}

export async function readStatement(runDirectory: string): Promise<string> {
  return readFile(join(coordinatorFolder(runDirectory), 'privacy.txt'), 'utf8');
}

/** The noise of one client in its run's statement, in grid steps, and the grid step. */
export async function readNoise(runDirectory: string): Promise<{ readonly sigmaGrid: number; readonly gridStep: number }> {
  const statement = PrivacyStatementSchema.parse(JSON.parse(await readFile(join(coordinatorFolder(runDirectory), 'privacy.json'), 'utf8')));
  if (statement.claim !== 'differentialPrivacy') throw new FederationError('state-mismatch', 'The run with a guarantee for every record claims none.', { field: 'privacy.json', next: 'Start a new demo: npm start.' });
  return { sigmaGrid: statement.noise.parameterGrid, gridStep: statement.noise.gridStep };
}

async function readLines(path: string): Promise<unknown[]> {
  return (await readFile(path, 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown);
}
