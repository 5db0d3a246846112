/** Reads what reports are made of: the folder of an experiment, or that of one simulation. */
import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { basename, isAbsolute, join, relative, resolve } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { FederationError } from '../../shared/errors.ts';
import { readRunManifest, type RunManifest } from '../../shared/node/run-folder.ts';
import { formatCommand, readFailure } from '../../shared/node/terminal.ts';
import { PointResultSchema, type PointResult } from '../experiment/result.ts';
import { sweepCopyName } from '../experiment/sweep-files.ts';
import { OutcomeSchema } from '../outcome.ts';
import type { Experiment } from './experiment-data.ts';
import { duration, plural } from './format.ts';

const resultsName = 'results.jsonl';
const outcomeName = 'outcome.json';
const scenarioName = 'scenario.yaml';

/** Throws `file-unreadable` where there is nothing, `data-invalid` for what is no experiment, is damaged or has no results. */
export async function loadExperiment(directory: string): Promise<Experiment> {
  const found = await stat(directory).catch((error: unknown) => {
    throw new FederationError('file-unreadable', `There is no folder ${directory}.`, { field: directory, expected: 'the folder of an experiment or a simulation', got: readFailure(error), next: '`fedstill ls` lists the runs on this machine.', cause: error });
  });
  if (!found.isDirectory()) throw new FederationError('file-unreadable', `${directory} is not a folder.`, { field: directory, expected: 'the folder of an experiment or a simulation', got: 'a file', next: 'Name the folder that holds it.' });
  const manifest = await readRunManifest(directory);
  const isSimulation = manifest?.kind === 'simulate';
  if (!existsSync(join(directory, isSimulation ? outcomeName : resultsName))) throw notReportable(directory, manifest);
  const results = isSimulation ? [await readSimulation(directory)] : await readResults(join(directory, resultsName));
  return {
    name: manifest?.name ?? basename(resolve(directory)),
    directory,
    results,
    isRunning: manifest?.state === 'running',
    command: commandOf(manifest),
    sweep: await readFile(join(directory, isSimulation ? scenarioName : sweepCopyName), 'utf8').catch(() => null),
    environment: [...(manifest === undefined ? [] : [['Version', `fedstill ${manifest.version}`] as const]), ...(await readEnvironment(join(directory, 'timings.jsonl')))],
  };
}

function notReportable(directory: string, manifest: RunManifest | undefined): FederationError {
  const init = { field: directory, expected: `${resultsName} of an experiment, or ${outcomeName} of a simulation` };
  if (manifest === undefined) return new FederationError('data-invalid', `${directory} is no experiment.`, { ...init, got: 'a folder without either', next: 'Name a folder that `fedstill experiment` or `fedstill simulate` made.' });
  if (manifest.kind === 'simulate') return new FederationError('data-invalid', `The simulation in ${directory} has no outcome yet.`, { ...init, got: `a simulation that is ${manifest.state}`, next: `Run it again with: fedstill resume ${directory}` });
  if (manifest.kind === 'demo') return new FederationError('data-invalid', `${directory} is a demo, which makes its own report.`, { ...init, got: 'a run of demo', next: `Open ${join(directory, 'report.html')}.` });
  return new FederationError('data-invalid', `${directory} has no results to report.`, { ...init, got: `a run of ${manifest.kind}`, next: manifest.kind === 'experiment' ? `Go on with: fedstill resume ${directory}` : 'Name the folder of an experiment or a simulation.' });
}

async function readResults(path: string): Promise<PointResult[]> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new FederationError('file-unreadable', `${path} cannot be read.`, { field: path, got: readFailure(error), next: 'Check the path and its permissions.', cause: error });
  });
  const results: PointResult[] = [];
  const lines = text.split('\n');
  for (const [i, line] of lines.entries()) {
    if (line === '' && i === lines.length - 1) break;
    results.push(parseLine(line, `${path}:${i + 1}`));
  }
  if (results.length === 0) throw new FederationError('data-invalid', `${path} has no results yet.`, { field: path, expected: 'at least one line', got: 'an empty file', next: 'Let the experiment finish its first point.' });
  const seen = new Map<number, number>();
  for (const [i, { index }] of results.entries()) {
    if (seen.has(index)) throw new FederationError('data-invalid', `${path} has the point ${index} twice.`, { field: `${path}:${i + 1}`, expected: 'every index once', got: `index ${index}, as in line ${seen.get(index)! + 1}`, next: 'Resume the experiment: it writes this file anew.' });
    seen.set(index, i);
  }
  return results;
}

function parseLine(line: string, place: string): PointResult {
  const damaged = (init: { readonly expected: string; readonly got: string; readonly cause: unknown }) => new FederationError('data-invalid', `${place} is damaged.`, { field: place, ...init, next: 'Resume the experiment: it writes this file anew from the results of its points.' });
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    throw damaged({ expected: 'a JSON object, one a line', got: line === '' ? 'an empty line' : 'something else, or only its beginning', cause });
  }
  const parsed = PointResultSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [path, problem] = firstProblem(parsed.error, json);
  throw damaged({ expected: `a result of the format fedstill-result/1 (${path}: ${problem})`, got: typeof json === 'object' && json !== null && 'format' in json ? `a line of the format ${String(json.format)}` : 'another object', cause: parsed.error });
}

/** Of the kind of line that it is, not of the union's first. */
function firstProblem(error: z.ZodError, line: unknown): [path: string, problem: string] {
  const issues = error.issues.flatMap((issue) => (issue.code === 'invalid_union' ? (issue.errors[typeof line === 'object' && line !== null && 'error' in line ? 1 : 0] ?? []) : [issue]));
  const [first] = issues;
  return [first?.path.join('.') || 'line', first?.message ?? 'not a result'];
}

async function readSimulation(directory: string): Promise<PointResult> {
  const path = join(directory, outcomeName);
  try {
    const outcome = OutcomeSchema.parse(JSON.parse(await readFile(path, 'utf8')));
    const { task } = SeedSchema.parse(parse(await readFile(join(directory, scenarioName), 'utf8')));
    return { format: 'fedstill-result/1', point: '0'.repeat(16), index: 0, seed: task.seed, case: null, settings: {}, outcome };
  } catch (cause) {
    throw new FederationError('data-invalid', `${path} or ${scenarioName} beside it is damaged.`, { field: path, expected: 'the outcome that `fedstill simulate` writes', got: 'something else, or only its beginning', next: `Run it again with: fedstill resume ${directory}`, cause });
  }
}

/** Of a scenario's file; the default is that of tasks. */
const SeedSchema = z.object({ task: z.object({ seed: z.int().min(0).default(1) }) });

function commandOf(manifest: RunManifest | undefined): string | null {
  const file = manifest?.options['file'];
  if (manifest?.kind === 'simulate') return formatCommand(['fedstill', 'simulate', typeof file === 'string' ? shownPath(file) : scenarioName]);
  if (manifest?.kind !== 'experiment') return null;
  return formatCommand(['fedstill', 'experiment', typeof file === 'string' ? shownPath(file) : sweepCopyName]);
}

/** Paths below the working folder are told as they are there; others by their last name: a page may go where this machine's folders mean nothing. */
export function shownPath(file: string): string {
  const inside = relative(process.cwd(), resolve(file));
  return inside.startsWith('..') || isAbsolute(inside) ? basename(file) : inside.split('\\').join('/');
}

const SessionSchema = z.object({ event: z.literal('session'), workers: z.number(), engine: z.string(), machine: z.object({ cpu: z.string(), cores: z.number(), node: z.string(), platform: z.string() }) });
const EndSchema = z.object({ event: z.literal('end'), seconds: z.number(), end: z.literal('done') });

/** Machines, software and time. Lines that a kill cut short are passed over: times are no results. */
async function readEnvironment(path: string): Promise<[string, string][]> {
  const lines = (await readFile(path, 'utf8').catch(() => '')).split('\n').flatMap((line): unknown[] => {
    try {
      return [JSON.parse(line)];
    } catch {
      return [];
    }
  });
  const sessions = lines.flatMap((line) => SessionSchema.safeParse(line).data ?? []);
  const seconds = lines.flatMap((line) => EndSchema.safeParse(line).data?.seconds ?? []);
  const unique = (texts: readonly string[]) => [...new Set(texts)].join('; ');
  if (sessions.length === 0) return [];
  return [
    ['Machine', unique(sessions.map(({ machine: { cpu, cores, platform } }) => `${cpu}, ${plural(cores, 'core')}, ${platform}`))],
    ['Software', unique(sessions.map(({ machine: { node }, engine }) => `Node ${node.replace(/^v/, '')}, compute engine ${engine}`))],
    ...(seconds.length === 0 ? [] : [['Time', `${duration(seconds.reduce((sum, value) => sum + value, 0))} of all points together, ${unique(sessions.map(({ workers }) => String(workers)))} at a time`] as [string, string]]),
  ];
}
