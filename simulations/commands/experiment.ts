/** `fedstill experiment`: a sweep of scenarios over settings and seeds, each point in a process of its own. Points that have a result are not run again. */
import { appendFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { enginePreferences, selectEngine, type EnginePreference } from '../../shared/compute/select-engine.ts';
import { exitStatus } from '../../shared/errors.ts';
import { closeRun, freeRunDirectory, readRunManifest, writeRunManifest } from '../../shared/node/run-folder.ts';
import { printLine } from '../../shared/node/terminal.ts';
import { packageVersion } from '../../shared/node/version.ts';
import type { EventSink } from '../../shared/ports/event-sink.ts';
import { digestData } from '../experiment/data-digests.ts';
import { ExperimentFolder, readPoint } from '../experiment/experiment-folder.ts';
import { makePoints, type Point } from '../experiment/points.ts';
import { ExperimentProgress } from '../experiment/progress.ts';
import { isSuccess, type PointResult } from '../experiment/result.ts';
import { countDone, runExperiment } from '../experiment/run-experiment.ts';
import { describePoint, remarks, renderSummary, tellingPaths } from '../experiment/summary-table.ts';
import { summarizeResults } from '../experiment/summary.ts';
import { readSweep, scenarioCopyName, sweepCopyName, type SweepFile } from '../experiment/sweep-files.ts';
import { interruptible } from './interruptible.ts';

export interface ExperimentCommandOptions {
  readonly run?: string;
  readonly engine: EnginePreference;
  /** Processes at a time; default: one for each core. */
  readonly workers?: number;
  readonly dryRun: boolean;
  readonly json: boolean;
}

export function experimentCommand(): Command {
  return new Command('experiment')
    .description('run a scenario with many settings and seeds, and put the results side by side')
    .argument('<sweep>', 'sweep file (YAML); see docs/experiments.md')
    .option('--run <dir>', 'folder of the experiment; results that are in it already are kept (default: runs/<experiment>-<number>)')
    .addOption(new Option('--engine <name>', 'compute engine').choices([...enginePreferences]).default('auto'))
    .option('--workers <n>', 'points that are computed at a time, each in a process of its own; the results do not depend on it (default: one for each core)', (text) => {
      const workers = Number(text);
      if (!Number.isInteger(workers) || workers < 1 || workers > 256) throw new InvalidArgumentError('expected a whole number from 1 to 256');
      return workers;
    })
    .option('--dry-run', 'check everything and list the points; nothing is run or written', false)
    .option('--json', 'JSON lines instead of text', false)
    .action(async (file: string, options: ExperimentCommandOptions) => experiment(await readSweep(file), options));
}

/** Runs what has no result yet. Resolves also when interrupted, with the exit status set. */
export async function experiment(file: SweepFile, options: ExperimentCommandOptions): Promise<void> {
  const { sweep, baseDir } = file;
  const engine = await nameOfEngine(options.engine);
  const points = await makePoints(sweep, file.base, file.fileName, { version: packageVersion, engine, dataDigests: digestData(baseDir) });
  if (options.dryRun) return listPoints(points, sweep.experiment, options);

  const directory = options.run ?? freeRunDirectory(sweep.experiment);
  const folder = await ExperimentFolder.open(directory);
  const interrupt = interruptible();
  try {
    await prepareFolder(folder, file, engine, options);
    const workers = options.workers ?? availableParallelism();
    const progress = new ExperimentProgress(points, (line) => void process.stderr.write(`${line}\n`));
    const events: EventSink = {
      emit: (event) => {
        const line = JSON.stringify({ ...event, at: Date.now() });
        appendFileSync(join(directory, 'events.jsonl'), `${line}\n`);
        if (options.json) printLine(line);
        else progress.tell(event);
      },
    };
    const onResult = options.json ? undefined : (result: PointResult, seconds: number) => progress.note(result, seconds);
    const results = await runExperiment({ points, folder, baseDir, version: packageVersion, engine, workers, events, signal: interrupt.signal, ...(onResult === undefined ? {} : { onResult }) }).finally(() => progress.end());
    await conclude(directory, results, events, options.json);
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    process.stderr.write(`Stopped. Every point that has a result is kept; go on with:\n  fedstill resume ${directory}\n`);
    process.exitCode = interrupt.exitStatus();
  } finally {
    interrupt.release();
    await folder.close();
  }
}

async function conclude(directory: string, results: readonly PointResult[], events: EventSink, json: boolean): Promise<void> {
  const failed = results.filter((result) => !isSuccess(result));
  const summary = summarizeResults(results);
  events.emit({ event: 'experiment-done', directory, points: results.length, done: countDone(results), failed: failed.length });
  await closeRun(directory, failed.length === 0 ? 'done' : 'failed', failed.length === 0 ? 'points-done' : 'points-failed');
  if (failed.length > 0) process.exitCode = exitStatus.peer;
  if (json) {
    printLine(JSON.stringify({ summary }));
    return;
  }
  process.stdout.write(`\n${renderSummary(summary)}`);
  for (const line of remarks(results)) printLine(line);
  printLine(`Results: ${join(directory, 'results.csv')} and results.jsonl in the same folder${failed.length === 0 ? '' : `; try the failed points again with: fedstill resume ${directory}`}`);
}

/** What a resume needs, whatever becomes of the sweep's own file. */
async function prepareFolder(folder: ExperimentFolder, { sweep, fileName, text, scenarioText, baseDir }: SweepFile, engine: string, { workers }: ExperimentCommandOptions): Promise<void> {
  await folder.writeText(sweepCopyName, text);
  if (scenarioText !== undefined) await folder.writeText(scenarioCopyName, scenarioText);
  const before = await readRunManifest(folder.directory);
  const createdAt = before?.createdAt ?? new Date().toISOString();
  // The sweep's own file, for reports: a resume reads the copy in the folder.
  const options = { file: before?.options['file'] ?? fileName, baseDir, engine, ...(workers === undefined ? {} : { workers }) };
  await writeRunManifest(folder.directory, { format: 'fedstill-run/1', kind: 'experiment', name: sweep.experiment, createdAt, version: packageVersion, state: 'running', outcome: null, options });
}

async function listPoints(points: readonly Point[], name: string, { run, json }: ExperimentCommandOptions): Promise<void> {
  const paths = tellingPaths(points);
  let found = 0;
  for (const point of points) {
    const isFound = run !== undefined && (await readPoint(run, point)) !== undefined;
    if (isFound) found++;
    const { index, key, seed, settings } = point;
    printLine(json ? JSON.stringify({ index, point: key, case: point.case, seed, settings, found: isFound }) : `${String(index).padStart(5)}  ${key}  ${describePoint(point, paths)}${isFound ? '  (has a result)' : ''}`);
  }
  if (!json) printLine(`${name}: ${points.length} ${points.length === 1 ? 'point' : 'points'}${run === undefined ? '' : `, ${found} with a result in ${run}`}; nothing was run.`);
}

/** `auto` may mean another engine elsewhere, whose results differ in their last bits: the engine is part of what a result is kept under. */
async function nameOfEngine(preference: EnginePreference): Promise<string> {
  const engine = await selectEngine(preference);
  await engine.dispose();
  return engine.name;
}
