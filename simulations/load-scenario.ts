/** A scenario's file and its data, read from this machine. */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { DataSource } from '../shared/config/task-config.ts';
import { FederationError } from '../shared/errors.ts';
import { loadDataSource } from '../shared/node/data-source.ts';
import type { LabelledExamples } from '../shared/types/matrix.ts';
import type { ScenarioData } from './run-simulation.ts';
import { parseScenario, type Scenario } from './scenario.ts';

export interface ScenarioFile {
  readonly scenario: Scenario;
  /** The file as it was read. */
  readonly text: string;
  /** What its relative paths are relative to. */
  readonly baseDir: string;
}

/** `baseDir`: another folder for relative paths than the file's own. */
export async function readScenario(file: string, baseDir = dirname(resolve(file))): Promise<ScenarioFile> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new FederationError('file-unreadable', `The scenario file ${file} cannot be read.`, { field: 'scenario', expected: 'a readable YAML file', next: 'docs/simulate.md has an example.', cause });
  }
  return { scenario: parseScenario(text, file), text, baseDir };
}

/** Loads what the scenario names. `baseDir`: what its relative paths are relative to. */
export async function loadScenarioData({ task, clients }: Scenario, baseDir: string): Promise<ScenarioData> {
  if (task.teacher.kind === 'pretrained') {
    throw new FederationError('config-invalid', 'A simulation cannot use a pretrained teacher yet.', { field: 'task.teacher.kind', expected: 'learner or consensus', got: 'pretrained', next: 'Use `fedstill serve` for a pretrained teacher.' });
  }
  const { exampleShape, numClasses } = task.data;
  const labelled = async (source: DataSource): Promise<LabelledExamples> => {
    const { examples, labels } = await loadDataSource(source, { baseDir, exampleShape, numClasses, needLabels: true });
    return { examples, labels: labels!, numClasses };
  };
  return {
    pool: await labelled(clients.data),
    transferSet: (await loadDataSource(task.transferSet, { baseDir, exampleShape, numClasses, needLabels: false })).examples,
    evaluationSet: task.evaluationSet && (await labelled(task.evaluationSet)),
    testSet: clients.testSet && (await labelled(clients.testSet)),
  };
}
