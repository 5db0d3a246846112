import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DataSource } from '../../shared/config/task-config.ts';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import type { FederationError } from '../../shared/errors.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { loadScenarioData, readScenario } from '../../simulations/load-scenario.ts';
import { runSimulation } from '../../simulations/run-simulation.ts';
import { parseScenario, type Scenario } from '../../simulations/scenario.ts';

const folder = fileURLToPath(new URL('../../simulations/scenarios/', import.meta.url));
const files = (await readdir(folder)).filter((name) => name.endsWith('.yaml'));

let engine: ComputeEngine;
beforeAll(async () => {
  engine = await selectEngine('tfjs');
});
afterAll(() => engine.dispose());

const few = <S extends DataSource | undefined>(source: S): S => source && { ...source, size: 90 };

/** The scenario as written but short: what is tested is that it runs, not what comes out. */
async function short(name: string): Promise<{ readonly scenario: Scenario; readonly baseDir: string }> {
  const { scenario, baseDir } = await readScenario(`${folder}${name}`);
  const { task, clients } = scenario;
  return {
    scenario: {
      ...scenario,
      task: { ...task, transferSet: few(task.transferSet), evaluationSet: few(task.evaluationSet), schedule: { ...task.schedule, rounds: 1 }, student: { ...task.student, pretrainEpochs: 1, digestEpochs: 1, revisitEpochs: 1 } },
      clients: { ...clients, testSet: few(clients.testSet) },
    },
    baseDir,
  };
}

describe('example scenarios', () => {
  it.each(files)('%s is valid', async (name) => {
    expect((await readScenario(`${folder}${name}`)).scenario.scenario).toBeTruthy();
  });

  it.each([
    ['cross-modal.yaml', ['crop:columns=0-1024', 'crop:columns=1024-1040']],
    ['cross-view.yaml', ['crop:rows=0-14', 'crop:rows=14-28', 'downsample:4', 'gradient+downsample:2']],
    ['tabular.yaml', ['whole']],
  ])('%s runs: every client learns, predicts and distils through its view', async (name, views) => {
    const { scenario, baseDir } = await short(name);
    const result = await runSimulation({ scenario, data: await loadScenarioData(scenario, baseDir), engine, random: (party) => new InsecureSeededRandom(deriveSeed(1, party)), events: { emit: () => undefined } });
    expect(result.clients.map(({ error }) => error)).toEqual(result.clients.map(() => undefined));
    expect(result.clients.every(({ summary }) => summary?.contributedRounds === 1 && summary.finalAccuracy !== undefined)).toBe(true);
    expect([...new Set(result.clients.map(({ view }) => view))]).toEqual(views);
  });
});

describe('views in a scenario', () => {
  const refusal = (groups: string) => {
    try {
      parseScenario(`scenario: a\ntask:\n  task: a\n  data: { numClasses: 3, exampleShape: [8, 8, 1] }\n  transferSet: { source: synthetic }\nclients:\n  data: { source: synthetic }\n  groups:\n${groups}`, 'a.yaml');
    } catch (error) {
      return error as FederationError;
    }
    throw new Error('expected a refusal');
  };

  it('are checked against the examples, and models against what they show, before anything is read', () => {
    expect(refusal('    - { count: 2, model: mlp-small }\n    - { count: 1, model: mlp-small, view: [{ kind: crop, rows: [0, 9] }] }')).toMatchObject({ code: 'config-invalid', field: 'clients.groups[1].view', expected: 'rows up to 8 and columns up to 8' });
    expect(refusal('    - { count: 2, model: cnn-medium, view: [{ kind: downsample, factor: 2 }] }')).toMatchObject({ code: 'config-invalid', field: 'clients.groups[0].model', got: '[4, 4, 1]' });
    expect(refusal('    - { count: 2, model: mlp-small, view: [{ kind: mirror }] }').message).toContain('a.yaml:9:');
  });
});
