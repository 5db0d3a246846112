/** `fedstill simulate`: a scenario with all its clients in this process, in virtual time. */
import { appendFileSync, closeSync, openSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { enginePreferences, type EnginePreference } from '../../shared/compute/select-engine.ts';
import { openWorkerPool } from '../../shared/compute/worker-pool.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { exitStatus } from '../../shared/errors.ts';
import { closeRun, freeRunDirectory, writeRunManifest } from '../../shared/node/run-folder.ts';
import { packageVersion } from '../../shared/node/version.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { secureCohortOf } from '../../shared/config/secure-cohort.ts';
import { chargedRelease } from '../../shared/privacy/ledger.ts';
import { buildStatement, renderStatement } from '../../shared/privacy/statement.ts';
import type { Delta } from '../../shared/types/units.ts';
import { ComputationJournal } from '../computation-journal.ts';
import { InsecureSeededRandom } from '../insecure-seeded-random.ts';
import { loadScenarioData, readScenario, type ScenarioFile } from '../load-scenario.ts';
import { baselineNotice, runBaseline } from '../baselines/run-baseline.ts';
import type { Outcome } from '../outcome.ts';
import { Progress } from '../progress.ts';
import { metricsLines, runSimulation, type SimulationOptions, type SimulationResult } from '../run-simulation.ts';
import { federationOutcome } from '../run-scenario.ts';
import { ContentHashes, rememberingEngine } from '../remembering-engine.ts';
import { meanAndSpread } from '../spread.ts';
import type { Scenario } from '../scenario.ts';

export interface SimulateOptions {
  readonly run?: string;
  readonly engine: EnginePreference;
  /** Threads that compute; default: one for each core. */
  readonly workers?: number;
  readonly json: boolean;
}

export function simulateCommand(): Command {
  return new Command('simulate')
    .description('run a scenario with all its clients in this process, in virtual time')
    .argument('<scenario>', 'scenario file (YAML); see docs/simulate.md')
    .option('--run <dir>', 'run folder (default: runs/<scenario>-<number>)')
    .addOption(new Option('--engine <name>', 'compute engine').choices([...enginePreferences]).default('auto'))
    .option('--workers <n>', 'threads that compute; the results do not depend on it (default: one for each core)', (text) => {
      const workers = Number(text);
      if (!Number.isInteger(workers) || workers < 1 || workers > 256) throw new InvalidArgumentError('expected a whole number from 1 to 256');
      return workers;
    })
    .option('--json', 'JSON lines instead of text', false)
    .action(async (file: string, options: SimulateOptions) => simulate(await readScenario(file), options));
}

/** Runs a scenario and leaves a run folder. */
export async function simulate({ scenario, text, baseDir }: ScenarioFile, options: SimulateOptions): Promise<void> {
  const runDirectory = options.run ?? freeRunDirectory(scenario.scenario);
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  await writeFile(join(runDirectory, 'scenario.yaml'), text);
  await writeRunManifest(runDirectory, { format: 'fedstill-run/1', kind: 'simulate', name: scenario.scenario, createdAt: new Date().toISOString(), version: packageVersion, state: 'running', outcome: null, options: { baseDir, engine: options.engine, ...(options.workers === undefined ? {} : { workers: options.workers }) } });
  const say = (line: string) => {
    if (!options.json) process.stdout.write(`${line}\n`);
  };
  const engine = await openWorkerPool({ workers: options.workers ?? availableParallelism(), engine: options.engine });
  const eventsFile = openSync(join(runDirectory, 'events.jsonl'), 'w');
  const journal = new ComputationJournal(join(runDirectory, journalName));
  const abort = new AbortController();
  const onSignal = (signal: NodeJS.Signals) => abort.abort(new Interrupted(signal));
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  const { algorithm } = scenario;
  say(`${scenario.scenario}: ${scenario.task.schedule.rounds} rounds, engine ${engine.name} (${engine.reason})`);
  if (algorithm.kind !== 'federation') say(baselineNotice(algorithm.kind));
  else say('Noise and keys are seeded so that the run can be repeated: they protect nobody. Real federations use the system\'s generator.');
  if (journal.size > 0) say(`Goes on: ${journal.size} computations of the run that was interrupted are known and not repeated.`);
  const progress = options.json || !process.stderr.isTTY ? undefined : new Progress({ rounds: scenario.task.schedule.rounds, now: () => performance.now(), say: (line) => process.stderr.write(`  ${line}\n`) });
  try {
    const data = await loadScenarioData(scenario, baseDir);
    const hashes = new ContentHashes([data.pool, data.testSet, data.evaluationSet].flatMap((set) => (set === undefined ? [] : [set.examples.values, set.labels])));
    const simulation: SimulationOptions = {
      scenario,
      data,
      engine,
      random: (party) => new InsecureSeededRandom(deriveSeed(scenario.task.seed, 'insecure', party)),
      events: {
        emit: (event) => {
          appendFileSync(eventsFile, `${JSON.stringify(event)}\n`);
          if (options.json) process.stdout.write(`${JSON.stringify(event)}\n`);
          else describeEvent(event, scenario, say);
          progress?.see(event);
        },
      },
      remember: (own) => rememberingEngine(own, journal, hashes),
      signal: abort.signal,
    };
    if (algorithm.kind !== 'federation') {
      await writeBaseline(runDirectory, await runBaseline(algorithm, simulation), say);
      journal.remove();
      return;
    }
    const result = await runSimulation(simulation);
    await writeFile(join(runDirectory, 'metrics.jsonl'), metricsLines(result).map((line) => `${JSON.stringify(line)}\n`).join(''));
    await writeFile(join(runDirectory, 'outcome.json'), `${JSON.stringify(federationOutcome(simulation, result), undefined, 2)}\n`);
    await writeOutcome(runDirectory, scenario, result, say);
    await closeRun(runDirectory, result.reason === 'rounds-done' || result.reason === 'converged' ? 'done' : 'failed', result.reason);
    journal.remove();
    if (result.reason === 'budget-exhausted') process.exitCode = exitStatus.refused;
    else if (result.reason !== 'rounds-done' && result.reason !== 'converged') process.exitCode = exitStatus.peer;
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error;
    say(`Interrupted. What was computed is kept; go on with\n  fedstill resume ${runDirectory}`);
    process.exitCode = error.exitStatus;
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    closeSync(eventsFile);
    await engine.dispose();
    journal.close();
  }
}

/** Trainings and predictions, for a run that goes on after a kill; deleted when it is done. */
const journalName = 'computations';

/** Ctrl-C, or a polite request to end. */
class Interrupted extends Error {
  readonly exitStatus: number;
  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal}`);
    this.exitStatus = signal === 'SIGINT' ? 130 : 143;
  }
}

function describeEvent(event: RunEvent, { task }: Scenario, say: (line: string) => void): void {
  const { party, event: name } = event;
  if (name === 'baseline-progress') say(`${String(event['stage'])}: ${String(event['done'])} of ${String(event['of'])}`);
  if (party !== 'coordinator') return;
  if (name === 'round-aggregated') {
    const accuracy = event['teacherAccuracy'];
    say(`round ${String(event['round'])}/${task.schedule.rounds}: ${String(event['contributions'])} contributions${typeof accuracy === 'number' ? `, teacher ${(100 * accuracy).toFixed(1)} %` : ''}, ${(Number(event['at']) / 1000).toFixed(1)} s of virtual time`);
  } else if (name === 'round-aborted') {
    say(`round ${String(event['round'])} aborted: ${String(event['code'])}`);
  }
}

/** Leaves the whole outcome, and its rounds as metrics. There is no privacy.json: nothing is claimed. */
async function writeBaseline(runDirectory: string, outcome: Outcome, say: (line: string) => void): Promise<void> {
  await writeFile(join(runDirectory, 'outcome.json'), `${JSON.stringify(outcome, undefined, 2)}\n`);
  await writeFile(join(runDirectory, 'metrics.jsonl'), outcome.rounds.map((round) => `${JSON.stringify({ party: 'coordinator', ...round })}\n`).join(''));
  const accuracies = outcome.clients.flatMap(({ accuracy }) => accuracy ?? []);
  const accuracy = outcome.final?.accuracy ?? null;
  if (accuracy !== null) say(`final model: ${(100 * accuracy).toFixed(1)} % of the test set`);
  if (accuracies.length > 0) say(`models of the clients: ${meanAndSpread(accuracies)} (mean and standard deviation over ${accuracies.length} clients)`);
  say(`bytes that would have moved: ${outcome.bytesUp} up, ${outcome.bytesDown} down`);
  say('Nothing is claimed about privacy.');
  await closeRun(runDirectory, 'done', outcome.reason);
  say(`Run folder: ${runDirectory}`);
}

/** Where clients see examples in several ways: how good each way is, and would be alone. */
function viewLines({ clients }: SimulationResult): string[] {
  const views = [...new Set(clients.map(({ view }) => view))];
  if (views.length < 2) return [];
  return views.flatMap((view) => {
    const summaries = clients.flatMap((client) => (client.view === view && client.summary !== undefined ? [client.summary] : []));
    const finals = summaries.flatMap(({ finalAccuracy }) => finalAccuracy ?? []);
    const locals = summaries.flatMap(({ localOnlyAccuracy }) => localOnlyAccuracy ?? []);
    return finals.length === 0 ? [] : [`  seen as ${view}: ${meanAndSpread(finals)}${locals.length === 0 ? '' : `, local training only ${meanAndSpread(locals)}`}`];
  });
}

async function writeOutcome(runDirectory: string, { task }: Scenario, result: SimulationResult, say: (line: string) => void): Promise<void> {
  for (const { name, error } of result.clients) if (error !== undefined) say(`${name} failed: ${error.message} (${error.code})`);
  const finals = result.clients.flatMap(({ summary }) => summary?.finalAccuracy ?? []);
  const locals = result.clients.flatMap(({ summary }) => summary?.localOnlyAccuracy ?? []);
  if (finals.length > 0) say(`students after federation: ${meanAndSpread(finals)} (mean and standard deviation over ${finals.length} clients)`);
  if (locals.length > 0) say(`the same students, local training only: ${meanAndSpread(locals)}`);
  for (const line of viewLines(result)) say(line);
  const releases = Array.from({ length: result.opened }, () => chargedRelease(result.release));
  const run = { trustMode: task.privacy.trustMode, parameters: result.release, secureAggregation: secureCohortOf(task), delta: task.privacy.delta as Delta, ledger: releases };
  const statement = buildStatement({ ...run, isNoiseSeeded: true });
  const real = buildStatement(run);
  await writeFile(join(runDirectory, 'privacy.json'), `${JSON.stringify(statement, undefined, 2)}\n`);
  say('');
  say(renderStatement(statement));
  if (real.claim !== 'none') say(`With noise of the system's generator, as real clients draw it, the same releases would have this statement:\n\n${renderStatement(real)}`);
  say(`Run folder: ${runDirectory}`);
}
