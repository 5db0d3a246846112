/**
 * One point of a sweep in a process of its own: takes a task over IPC, runs it with one computing thread, sends what came of it, and waits to be let go. It writes
 * nothing but its journal, so it may be killed at any time; when the experiment's process is gone it ends at once.
 */
import type { EnginePreference } from '../../shared/compute/select-engine.ts';
import { openWorkerPool } from '../../shared/compute/worker-pool.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { FederationError } from '../../shared/errors.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { ComputationJournal } from '../computation-journal.ts';
import { InsecureSeededRandom } from '../insecure-seeded-random.ts';
import { loadScenarioData } from '../load-scenario.ts';
import { ContentHashes, rememberingEngine } from '../remembering-engine.ts';
import { runScenario } from '../run-scenario.ts';
import { checkScenario } from '../scenario.ts';
import { PointTaskSchema, type PointReport } from './point-messages.ts';

/** Many points run at a time. */
const JOURNAL_BYTES = 2 ** 29;

// Let go, or left behind. A signal, because a polite end waits for threads that compute.
process.once('disconnect', () => void process.kill(process.pid, 'SIGKILL'));
// Ctrl-C in a terminal reaches every process of the group; the experiment decides what becomes of this one.
process.on('SIGINT', () => undefined);
process.once('message', (task) => void run(task));

async function run(message: unknown): Promise<void> {
  let report: PointReport;
  try {
    const { scenario: value, baseDir, engine: preference, journalPath } = PointTaskSchema.parse(message);
    const scenario = checkScenario(value, 'point');
    const engine = await openWorkerPool({ workers: 1, engine: preference as EnginePreference });
    const data = await loadScenarioData(scenario, baseDir);
    const journal = new ComputationJournal(journalPath, { limitBytes: JOURNAL_BYTES });
    const hashes = new ContentHashes([data.pool, data.testSet, data.evaluationSet].flatMap((set) => (set === undefined ? [] : [set.examples.values, set.labels])));
    const outcome = await runScenario({
      scenario,
      data,
      engine,
      random: (party) => new InsecureSeededRandom(deriveSeed(scenario.task.seed, 'insecure', party)),
      events: { emit: (event) => tellRound(event, scenario.task.schedule.rounds) },
      remember: (own) => rememberingEngine(own, journal, hashes),
    });
    report = { kind: 'outcome', outcome };
  } catch (error) {
    report = { kind: 'error', error: { code: error instanceof FederationError ? error.code : 'internal', message: error instanceof Error ? error.message : String(error) } };
    if (!(error instanceof FederationError) && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  }
  send(report);
}

function tellRound({ party, event, round, teacherAccuracy }: RunEvent, rounds: number): void {
  if (party !== 'coordinator' || event !== 'round-aggregated' || typeof round !== 'number') return;
  send({ kind: 'round', round, rounds, accuracy: typeof teacherAccuracy === 'number' ? teacherAccuracy : null });
}

function send(report: PointReport): void {
  // A channel that is gone has ended this process already.
  process.send?.(report, undefined, undefined, () => undefined);
}
