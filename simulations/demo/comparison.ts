/** What the federation is held against: one model on all records together, and the same federation with local noise. Computed in worker threads. */
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import type { EnginePreference } from '../../shared/compute/select-engine.ts';
import { startWorkerEngine } from '../../shared/compute/worker-engine.ts';
import type { PartitionSpec } from '../../shared/config/partition-config.ts';
import type { TaskConfig } from '../../shared/config/task-config.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { accuracy } from '../../shared/distillation/evaluation.ts';
import { FederationError } from '../../shared/errors.ts';
import { systemRandom } from '../../shared/node/system-random.ts';
import { noEvents } from '../../shared/ports/event-sink.ts';
import { secureCohortOf } from '../../shared/config/secure-cohort.ts';
import { chargedRelease } from '../../shared/privacy/ledger.ts';
import { buildStatement, renderStatement } from '../../shared/privacy/statement.ts';
import type { Delta } from '../../shared/types/units.ts';
import { runSimulation, type ScenarioData, type SimulationResult } from '../run-simulation.ts';
import type { Scenario } from '../scenario.ts';
import type { DemoProgress } from './progress.ts';
import { demoModels, demoPartition, demoTask, noisyEpsilons } from './settings.ts';

type Centralized = NonNullable<DemoProgress['centralized']>;
type Noisy = NonNullable<DemoProgress['noisy']>[number];

/** The teacher's architecture on the records of all clients: what no federation may do, as a bound. As many local passes as a client makes. */
export async function trainCentralized(seed: number, data: ScenarioData, preference: EnginePreference, signal: AbortSignal): Promise<Centralized> {
  const startedAt = performance.now();
  const task = demoTask(seed);
  return withEngine(preference, async (engine) => {
    const model = task.teacher.kind === 'learner' ? task.teacher.model : task.student.model;
    const open = await engine.open({ kind: 'zoo', name: model, exampleShape: task.data.exampleShape, numClasses: task.data.numClasses }, deriveSeed(seed, 'centralized'));
    await open.fit(
      { hard: { examples: data.pool.examples, labels: data.pool.labels } },
      {
        epochs: task.student.pretrainEpochs + task.schedule.rounds * task.student.revisitEpochs,
        batchSize: task.student.batchSize,
        loss: { distance: 'kl', temperature: 1, alpha: 1 },
        optimizer: task.student.optimizer,
        seed: deriveSeed(seed, 'centralized-fit'),
        signal,
      },
    );
    const testSet = data.testSet!;
    const result = accuracy(await open.predict(testSet.examples), testSet.labels);
    const models = [];
    for (const name of new Set(demoModels)) {
      const { summary } = await engine.open({ kind: 'zoo', name, exampleShape: task.data.exampleShape, numClasses: task.data.numClasses }, 0);
      models.push({ name, parameterCount: summary.parameterCount, weightBytes: summary.weightBytes });
    }
    return { accuracy: result, seconds: secondsSince(startedAt), engine: engine.name, models };
  });
}

/** The same clients with local Gaussian noise, at every epsilon; real noise from the system's generator, two at a time. */
export async function runWithNoise(seed: number, data: ScenarioData, preference: EnginePreference, signal: AbortSignal): Promise<Noisy[]> {
  return Promise.all(
    noisyEpsilons.map((epsilon) =>
      withEngine(preference, async (engine): Promise<Noisy> => {
        const startedAt = performance.now();
        const scenario: Scenario = {
          scenario: 'demo-noisy',
          task: demoTask(seed, epsilon),
          algorithm: { kind: 'federation' },
          clients: {
            groups: demoModels.map((model) => ({ count: 1, model, stepMs: 5 })),
            data: { source: 'mnist', split: 'train', offset: 0 },
            partition: demoPartition as Required<PartitionSpec> as Scenario['clients']['partition'],
            baseline: false,
          },
          network: { latencyMs: 20, bytesPerSecond: 0, lossRate: 0, breakRate: 0 },
        };
        const result = await runSimulation({ scenario, data, engine, random: () => systemRandom, events: noEvents, signal });
        const failed = result.clients.find((client) => client.error !== undefined);
        if (failed?.error !== undefined) throw failed.error;
        if (result.release.mechanism !== 'gaussian') throw new FederationError('internal', 'The noisy run was planned without noise.');
        return {
          epsilon,
          federated: result.clients.map((client) => client.summary!.finalAccuracy!),
          teacher: result.rounds.at(-1)?.teacherAccuracy ?? null,
          meanNoiseStddev: (result.release.noise.sigmaGrid * result.release.gridStep) / Math.sqrt(result.clients.length),
          guarantee: statementOf(scenario.task, result),
          seconds: secondsSince(startedAt),
        };
      }),
    ),
  );
}

/** For a client that took part in every round that was opened. */
function statementOf(task: TaskConfig, { release, opened }: SimulationResult): string {
  const charged = chargedRelease(release);
  return renderStatement(buildStatement({ trustMode: task.privacy.trustMode, parameters: release, secureAggregation: secureCohortOf(task), delta: task.privacy.delta as Delta, ledger: Array.from({ length: opened }, () => charged) }));
}

async function withEngine<T>(preference: EnginePreference, work: (engine: ComputeEngine) => Promise<T>): Promise<T> {
  const engine = await startWorkerEngine(preference);
  try {
    return await work(engine);
  } finally {
    await engine.dispose();
  }
}

function secondsSince(startedAt: number): number {
  return (performance.now() - startedAt) / 1000;
}
