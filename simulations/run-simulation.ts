/**
 * A whole federation in this process: the coordinator and participants of a real one, over a network in memory and a clock that runs as fast as the
 * computations. With seeded randomness, the same scenario gives the same results bit for bit on the same engine.
 */
import { setMaxListeners } from 'node:events';
import { accelerate } from '../shared/crypto/accelerator.ts';
import { MemoryLedger } from '../shared/privacy/memory-ledger.ts';
import { generateIdentity } from '../shared/crypto/signature.ts';
import type { ComputeEngine } from '../shared/compute/engine.ts';
import { labelHistogram, partition } from '../shared/datasets/partition.ts';
import { deriveSeed, SeededGenerator } from '../shared/datasets/seeded-generator.ts';
import { formatView, viewShape } from '../shared/datasets/views.ts';
import { FederationError } from '../shared/errors.ts';
import { nodeCrypto } from '../shared/node/node-crypto.ts';
import type { EventSink, RunEvent } from '../shared/ports/event-sink.ts';
import { silentLogger } from '../shared/ports/logger.ts';
import type { RandomSource } from '../shared/ports/random-source.ts';
import type { ClientPolicy } from '../shared/privacy/client-policy.ts';
import type { ReleaseParameters } from '../shared/privacy/release.ts';
import type { FinishReason } from '../shared/protocol/messages.ts';
import { roundPolicyOf } from '../shared/rounds/policy.ts';
import { exampleSize, type Examples, type LabelledExamples, type Matrix } from '../shared/types/matrix.ts';
import type { Delta, Epsilon } from '../shared/types/units.ts';
import { ClientMetricsSchema, type ClientMetrics } from '../client/participant/metrics.ts';
import { sharedTransferSets } from '../client/participant/transfer-set.ts';
import { Participant, type ParticipantSummary } from '../client/participant/participant.ts';
import { isWorkerPool } from '../shared/compute/worker-pool.ts';
import { Coordinator, planTaskRelease } from '../server/coordinator/coordinator.ts';
import { openTeacher } from '../server/coordinator/teacher.ts';
import { SharedEngine } from './device-engine.ts';
import { MemoryStore } from './memory-store.ts';
import { Faults } from './network/faults.ts';
import { memoryConnector, type Network, type Traffic } from './network/memory-transport.ts';
import { VirtualClock } from './network/virtual-clock.ts';
import { clientCount, type Scenario } from './scenario.ts';
import { SecureThreads } from './secure-threads.ts';
import { sharedCrypto } from './shared-work.ts';

/** The data of a scenario, loaded. */
export interface ScenarioData {
  readonly pool: LabelledExamples;
  readonly transferSet: Examples;
  readonly evaluationSet: LabelledExamples | undefined;
  readonly testSet: LabelledExamples | undefined;
}

export interface SimulationOptions {
  readonly scenario: Scenario;
  readonly data: ScenarioData;
  /** A worker pool computes for several clients at a time, with the same results; another engine for one after the other. */
  readonly engine: ComputeEngine;
  /**
   * Keys, nonces and noise for one party, e.g. `client-3`. Seeded sources make a run repeatable and its noise worthless as protection: for simulations only.
   */
  readonly random: (party: string) => RandomSource;
  /** Events carry `at` in virtual milliseconds and `party`. */
  readonly events: EventSink;
  /** What stands between devices and the engine: `rememberingEngine` with the journal of a run that was interrupted. */
  readonly remember?: (engine: ComputeEngine) => ComputeEngine;
  readonly signal?: AbortSignal;
}

export interface SimulatedClient {
  readonly name: string;
  readonly model: string;
  /** How it sees examples, as `formatView` writes it. */
  readonly view: string;
  readonly privateRecords: number;
  readonly classHistogram: readonly number[];
  readonly metrics: readonly ClientMetrics[];
  /** `undefined` when the client failed. */
  readonly summary: ParticipantSummary | undefined;
  /** Why it failed. */
  readonly error: FederationError | undefined;
}

/** One line of the coordinator's metrics. */
export interface RoundMetrics {
  readonly round: number;
  readonly cohort: number;
  readonly contributions: number;
  readonly queried: number;
  readonly teacherAccuracy: number | null;
  readonly teacherNll: number | null;
}

export interface SimulationResult {
  readonly reason: FinishReason;
  readonly clients: readonly SimulatedClient[];
  readonly rounds: readonly RoundMetrics[];
  readonly release: ReleaseParameters;
  /** Rounds that were opened, released or not: the most releases that a client can have made. */
  readonly opened: number;
  /** Logits of the coordinator's model on the test set, at the end; `undefined` without a model or a test set. */
  readonly testLogits: Matrix | undefined;
  /** Virtual time that the federation took. */
  readonly virtualMs: number;
}

/** A policy that agrees to whatever the scenario says: nobody's privacy is at stake in a simulation. */
const agreeable: ClientPolicy = { maxEpsilon: Infinity as Epsilon, delta: 1e-5 as Delta, minCohort: 1, allowedMechanisms: ['none', 'gaussian', 'laplace', 'discreteGaussian', 'dpSgd'], allowClear: true, maxRounds: Infinity, minHonest: 1 };

/** From so many clients on, secure aggregation is worth threads of its own. */
const leastForSecureThreads = 64;
/** Virtual milliseconds of one step of secure aggregation at a client, where it has threads of its own: while one is computed, others begin. */
const secureStepMs = 100;

export async function runSimulation(options: SimulationOptions): Promise<SimulationResult> {
  const { scenario, data, engine, events, signal } = options;
  const { task } = scenario;
  if (signal !== undefined) setMaxListeners(0, signal); // every client listens to it
  accelerate(nodeCrypto);
  const crypto = sharedCrypto(nodeCrypto);
  const transferSetsOf = sharedTransferSets();
  // The number of clients decides, not that of threads: with any number of them the same happens.
  const isLarge = task.privacy.trustMode === 'secure-aggregation' && clientCount(scenario) >= leastForSecureThreads;
  const secureThreads = isLarge ? new SecureThreads(isWorkerPool(engine) ? engine.workers : 0) : undefined;
  const clock = new VirtualClock();
  const shared = new SharedEngine(engine, clock, signal, options.remember);
  const emit = (party: string): EventSink => ({ emit: (event: RunEvent) => events.emit({ ...event, party, at: clock.now() }) });

  const store = new MemoryStore();
  const coordinatorEngine = shared.device('the coordinator', { stepMs: 0 });
  const teacher = await clock.runUntil(openTeacher({ config: task, engine: coordinatorEngine, store, transferSet: data.transferSet, evaluationSet: data.evaluationSet, pretrained: undefined }));
  const random = options.random('coordinator');
  const coordinator = new Coordinator({ config: task, identity: generateIdentity(random), admission: { mode: 'open' }, transferSet: data.transferSet, teacher, store, clock, random, crypto, logger: silentLogger, events: emit('coordinator') });

  const models = scenario.clients.groups.flatMap((group) => Array.from({ length: group.count }, () => group));
  const parts = partition(data.pool.labels, data.pool.numClasses, scenario.clients.partition, models.length, deriveSeed(task.seed, 'partition'));
  const datasets = shareOut(data.pool, parts);
  const faults = scenario.faults === undefined ? undefined : new Faults(scenario.faults, models.length, roundPolicyOf(task).stages, deriveSeed(task.seed, 'faults'));
  const participants = models.map(({ model, stepMs, view = [] }, index) => {
    const name = `client-${index + 1}`;
    const privateDataset = datasets[index]!;
    const clientStore = new MemoryStore();
    const clientRandom = options.random(name);
    const traffic: Traffic = { bytesUp: 0, bytesDown: 0 };
    const link = networkOf(scenario, deriveSeed(task.seed, 'network', name));
    const network = faults?.network(index, link, (round, stage) => emit(name).emit({ event: 'vanished', round, stage, at: clock.now() })) ?? link;
    const participant = new Participant({
      connector: memoryConnector({ endpoint: () => coordinator, clock, network, traffic }),
      coordinatorFingerprint: coordinator.fingerprint,
      identity: generateIdentity(clientRandom),
      clock,
      random: clientRandom,
      crypto,
      ...(secureThreads === undefined ? {} : { openExchange: secureThreads.forClient(index, (work) => shared.spend(secureStepMs, work)) }),
      ledger: new MemoryLedger(),
      policy: { ...agreeable, delta: task.privacy.delta as Delta },
      engine: shared.device(name, { stepMs: stepMs * (faults?.slowness(index) ?? 1) }),
      prepare: () =>
        Promise.resolve({
          store: clientStore,
          transferSets: transferSetsOf(),
          model: { kind: 'zoo', name: model, exampleShape: viewShape(view, task.data.exampleShape), numClasses: task.data.numClasses, dropout: task.student.dropout },
          privateDataset,
          view,
          ...(data.testSet === undefined ? {} : { testSet: data.testSet }),
        }),
      logger: silentLogger,
      events: emit(name),
      seed: deriveSeed(task.seed, 'student', name),
      trackLocalOnly: scenario.clients.baseline,
      traffic,
    });
    return { name, model, view, privateDataset, store: clientStore, participant };
  });

  const work = async () => {
    await coordinator.start();
    return Promise.all([coordinator.finished, Promise.allSettled(participants.map(({ participant }) => participant.run(signal)))]);
  };
  try {
    const [reason, outcomes] = await clock.runUntil(work()).catch((error: unknown) => {
      signal?.throwIfAborted();
      throw error instanceof FederationError ? error : stuck(error, coordinator);
    });
    signal?.throwIfAborted();
    const clients = await Promise.all(
      participants.map(async ({ name, model, view, privateDataset, store: clientStore }, index): Promise<SimulatedClient> => {
        const outcome = outcomes[index]!;
        return {
          name,
          model,
          view: formatView(view),
          privateRecords: privateDataset.examples.count,
          classHistogram: [...labelHistogram(privateDataset.labels, privateDataset.numClasses)],
          metrics: (await clientStore.readLog('metrics.jsonl')).map((line) => ClientMetricsSchema.parse(line)),
          summary: outcome.status === 'fulfilled' ? outcome.value : undefined,
          error: outcome.status === 'rejected' ? asFederationError(outcome.reason) : undefined,
        };
      }),
    );
    const rounds = (await store.readLog('metrics.jsonl')) as readonly RoundMetrics[];
    const virtualMs = clock.now();
    const model = teacher.model();
    const testLogits = model === undefined || data.testSet === undefined ? undefined : await clock.runUntil(model.predict(data.testSet.examples));
    return { reason, clients, rounds, release: planTaskRelease(task, data.transferSet.count), opened: coordinator.status().round, testLogits, virtualMs };
  } finally {
    await secureThreads?.dispose();
    await coordinator.close();
    await clock.runUntil(teacher.dispose());
  }
}

/** The clients' parts of a dataset, one after the other in memory that compute threads share: nobody copies them again. */
function shareOut({ examples, labels, numClasses }: LabelledExamples, parts: readonly Uint32Array[]): LabelledExamples[] {
  const size = exampleSize(examples.shape);
  const values = new Float32Array(new SharedArrayBuffer(4 * size * parts.reduce((sum, { length }) => sum + length, 0)));
  let next = 0;
  return parts.map((part) => {
    const own = values.subarray(next, next + size * part.length);
    next += own.length;
    part.forEach((index, i) => own.set(examples.values.subarray(index * size, (index + 1) * size), i * size));
    return { examples: { count: part.length, shape: examples.shape, values: own }, labels: Int32Array.from(part, (index) => labels[index]!), numClasses };
  });
}

/** Every metric of a run, one object a line: the coordinator's rounds first, then each client's, in the order of the scenario. */
export function metricsLines(result: SimulationResult): readonly object[] {
  return [
    ...result.rounds.map((line) => ({ party: 'coordinator', ...line })),
    ...result.clients.flatMap(({ name, metrics }) => metrics.map((line) => ({ party: name, ...line }))),
  ];
}

/** A client's link: constant latency, a bandwidth, and seeded accidents. */
function networkOf({ network }: Scenario, seed: number): Network {
  const generator = new SeededGenerator(seed);
  return ({ bytes }) => ({
    delayMs: network.latencyMs + (network.bytesPerSecond === 0 ? 0 : (1000 * bytes) / network.bytesPerSecond),
    isLost: network.lossRate > 0 && generator.uniform() < network.lossRate,
    breaksConnection: network.breakRate > 0 && generator.uniform() < network.breakRate,
  });
}

function asFederationError(error: unknown): FederationError {
  return error instanceof FederationError ? error : new FederationError('internal', error instanceof Error ? error.message : String(error), { cause: error });
}

function stuck(cause: unknown, coordinator: Coordinator): FederationError {
  const { phase, round, connected } = coordinator.status();
  return new FederationError('quorum-missed', `The simulation cannot go on: the coordinator is in phase ${phase} after round ${round} with ${connected} clients connected, and nothing is under way.`, {
    next: 'Look at the failed clients in events.jsonl; lower schedule.quorum, or correct what made them fail.',
    cause,
  });
}
