/** A sweep's file and its scenario's, from this machine or as an experiment's folder keeps them. */
import { readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { parseYaml } from '../../shared/config/load.ts';
import { FederationError } from '../../shared/errors.ts';
import type { RunManifest } from '../../shared/node/run-folder.ts';
import { readFailure } from '../../shared/node/terminal.ts';
import { parseSweep, type Sweep } from './sweep.ts';

export interface SweepFile {
  readonly sweep: Sweep;
  /** What messages call it. */
  readonly fileName: string;
  /** The file as it was read. */
  readonly text: string;
  /** The scenario's file as it was read; undefined where the sweep holds the scenario itself. */
  readonly scenarioText: string | undefined;
  /** The scenario as it was written: without defaults, not checked. */
  readonly base: Readonly<Record<string, unknown>>;
  /** What the scenario's relative paths are relative to. */
  readonly baseDir: string;
}

export async function readSweep(file: string): Promise<SweepFile> {
  const text = await readText(file, 'sweep', 'docs/experiments.md has an example.');
  const sweep = parseSweep(text, file);
  if (typeof sweep.scenario !== 'string') return { sweep, fileName: file, text, scenarioText: undefined, base: sweep.scenario, baseDir: dirname(resolve(file)) };
  const scenarioFile = resolve(dirname(file), sweep.scenario);
  const scenarioText = await readText(scenarioFile, 'scenario', `${file} names it; the path is relative to that file.`);
  return { sweep, fileName: file, text, scenarioText, base: parseBase(scenarioText, scenarioFile), baseDir: dirname(scenarioFile) };
}

/** The names under which an experiment's folder keeps both files. */
export const sweepCopyName = 'experiment.yaml';
export const scenarioCopyName = 'scenario.yaml';

/** As the folder keeps it: what has become of the files since does not matter. */
export async function readSweepOfRun(directory: string, manifest: RunManifest): Promise<SweepFile> {
  const { baseDir } = manifest.options as { baseDir: string };
  const file = join(directory, sweepCopyName);
  const text = await readText(file, 'run', 'Start the experiment anew from its own file.');
  const sweep = parseSweep(text, file);
  if (typeof sweep.scenario !== 'string') return { sweep, fileName: file, text, scenarioText: undefined, base: sweep.scenario, baseDir };
  const scenarioFile = join(directory, scenarioCopyName);
  const scenarioText = await readText(scenarioFile, 'run', 'Start the experiment anew from its own file.');
  return { sweep, fileName: file, text, scenarioText, base: parseBase(scenarioText, scenarioFile), baseDir };
}

/** Any mapping: points are checked as a whole. */
function parseBase(text: string, fileName: string): Record<string, unknown> {
  return parseYaml(z.looseObject({}), text, fileName);
}

async function readText(path: string, field: string, next: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new FederationError('file-unreadable', `${path} cannot be read.`, { field, expected: 'a readable YAML file', got: readFailure(cause), next, cause });
  }
}
