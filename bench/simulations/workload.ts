/** The scenario `thousand-clients` for other numbers of clients, and the files that the PyTorch loop reads. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadScenarioData, readScenario } from '../../simulations/load-scenario.ts';
import type { ScenarioData } from '../../simulations/run-simulation.ts';
import type { Scenario } from '../../simulations/scenario.ts';

const file = fileURLToPath(new URL('../../simulations/scenarios/thousand-clients.yaml', import.meta.url));

export interface WorkloadOptions {
  readonly clients: number;
  readonly rounds: number;
  /** Otherwise every prediction is sent as it is, sealed to the coordinator. */
  readonly isSecure: boolean;
}

/** The same shares of architectures, of clients that may collude, and of those that are needed; as many records for each client as MNIST has for all of them, 60 at most. */
export async function workload({ clients, rounds, isSecure }: WorkloadOptions): Promise<{ readonly scenario: Scenario; readonly data: ScenarioData }> {
  const { scenario } = await readScenario(file);
  const { task } = scenario;
  const thousandth = clients / 1000;
  const groups = scenario.clients.groups.map((group) => ({ ...group, count: Math.round(group.count * thousandth) }));
  const schedule = { ...task.schedule, rounds, minClients: clients, quorum: Math.round(task.schedule.quorum * thousandth) };
  const privacy = { ...task.privacy, secureAggregation: { ...task.privacy.secureAggregation, maxCorrupt: Math.floor(task.privacy.secureAggregation.maxCorrupt * thousandth) } };
  const scaled: Scenario = {
    ...scenario,
    task: { ...task, schedule, privacy: isSecure ? privacy : withoutSecureAggregation(task.privacy) },
    clients: { ...scenario.clients, groups, data: { source: 'mnist', split: 'train', offset: 0, size: Math.min(60_000, 60 * clients) } },
  };
  return { scenario: scaled, data: await loadScenarioData(scaled, dirname(file)) };
}

function withoutSecureAggregation({ epsilon: _epsilon, ...rest }: Scenario['task']['privacy']): Scenario['task']['privacy'] {
  return { ...rest, trustMode: 'sealed', mechanism: 'none' };
}

/** Writes what bench/peers/pytorch_federation.py needs, and gives the path of its workload file. */
export function writePeerWorkload({ task, clients }: Scenario, data: ScenarioData): string {
  const folder = mkdtempSync(join(tmpdir(), 'fedstill-peer-'));
  const write = (name: string, values: Float32Array | Int32Array, scale: number) => {
    const path = join(folder, name);
    writeFileSync(path, Uint8Array.from(values, (value) => Math.round(value * scale)));
    return path;
  };
  const { student, teacher } = task;
  if (teacher.kind !== 'learner' || data.evaluationSet === undefined) throw new Error('the scenario has another teacher, or no evaluation set');
  const path = join(folder, 'workload.json');
  const content = {
    models: clients.groups.flatMap(({ count, model }) => Array.from({ length: count }, () => model)),
    teacher: teacher.model,
    teacherEpochs: teacher.epochs,
    rounds: task.schedule.rounds,
    pretrainEpochs: student.pretrainEpochs,
    digestEpochs: student.digestEpochs,
    revisitEpochs: student.revisitEpochs,
    batchSize: student.batchSize,
    learningRate: student.optimizer.learningRate,
    temperature: task.distillation.temperature,
    records: write('records', data.pool.examples.values, 255),
    recordLabels: write('record-labels', data.pool.labels, 1),
    transfer: write('transfer', data.transferSet.values, 255),
    test: write('test', data.evaluationSet.examples.values, 255),
    testLabels: write('test-labels', data.evaluationSet.labels, 1),
  };
  writeFileSync(path, JSON.stringify(content));
  return path;
}
