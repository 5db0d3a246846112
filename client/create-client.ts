/** Wires a participant for a real process: worker thread for training, so that heartbeats are answered meanwhile; files, sockets, system clock and CSPRNG. */
import type { ComputeEngine, ModelSource } from '../shared/compute/engine.ts';
import type { EnginePreference } from '../shared/compute/select-engine.ts';
import { startWorkerEngine } from '../shared/compute/worker-engine.ts';
import type { DataSource } from '../shared/config/task-config.ts';
import type { View } from '../shared/config/view-config.ts';
import { viewShape } from '../shared/datasets/views.ts';
import { FederationError } from '../shared/errors.ts';
import { checkZooModel } from '../shared/models/catalog.ts';
import { loadDataSource } from '../shared/node/data-source.ts';
import { readLayersModel, writeLayersModel } from '../shared/node/layers-model-files.ts';
import { nodeCrypto } from '../shared/node/node-crypto.ts';
import { systemClock } from '../shared/node/system-clock.ts';
import { systemRandom } from '../shared/node/system-random.ts';
import type { DurableStore } from '../shared/ports/durable-store.ts';
import type { EventSink } from '../shared/ports/event-sink.ts';
import type { Logger } from '../shared/ports/logger.ts';
import type { ClientPolicy } from '../shared/privacy/client-policy.ts';
import { buildStatement, type PrivacyStatement } from '../shared/privacy/statement.ts';
import { parseJoinUrl } from '../shared/protocol/identity.ts';
import type { TaskDocument } from '../shared/protocol/messages.ts';
import type { LabelledExamples, OutputKind } from '../shared/types/matrix.ts';
import { socketConnector } from './connection/socket-connector.ts';
import { Participant, type ParticipantSummary, type Patience } from './participant/participant.ts';
import { readStudent, type StudentOverrides } from './participant/training.ts';
import { openClientState, type ClientState } from './persistence/client-state.ts';

/** Which student: a zoo model by name (default: the one that the task suggests), or a saved LayersModel by folder. */
export type StudentModel = { readonly kind: 'zoo'; readonly name: string | undefined } | { readonly kind: 'folder'; readonly path: string; readonly outputKind: OutputKind };

export interface ClientOptions {
  /** As the coordinator prints it. */
  readonly joinUrl: string;
  readonly stateDirectory: string;
  /** Labelled private examples. Relative paths start from `baseDirectory`. */
  readonly data: DataSource;
  readonly testData?: DataSource;
  /** How this client sees every example, private and public; default: as it is. */
  readonly view?: View;
  readonly baseDirectory: string;
  readonly model: StudentModel;
  readonly policy: ClientPolicy;
  readonly engine: EnginePreference;
  readonly joinToken?: string;
  /** PEM certificates to trust instead of the system's. */
  readonly ca?: string;
  readonly overrides?: StudentOverrides;
  readonly seed?: number;
  readonly trackLocalOnly?: boolean;
  /** Train once more on the private data after the last distillation. */
  readonly personalize?: boolean;
  readonly logger: Logger;
  readonly events: EventSink;
  readonly patience?: Partial<Patience>;
}

export interface Client {
  readonly clientId: string;
  /** Name of the compute engine, and why it was chosen. */
  readonly engine: Pick<ComputeEngine, 'name' | 'reason'>;
  /** Absolute path of the state folder. */
  readonly stateDirectory: string;
  /** Takes part until the task is finished; see `Participant.run`. */
  run(signal?: AbortSignal): Promise<ParticipantSummary>;
  /** What this client's ledger means, with the releases of this task as its newest; `undefined` when nothing was released for it. */
  statement(): PrivacyStatement | undefined;
  /** Writes the student as a LayersModel folder; false when it has not been trained yet. After `run`. */
  exportStudent(folder: string): Promise<boolean>;
  /** Gives everything back. */
  close(): Promise<void>;
}

/** Opens state and engine; what is wrong with either is thrown here, before anybody is contacted. */
export async function createClient(options: ClientOptions): Promise<Client> {
  const target = parseJoinUrl(options.joinUrl);
  const state = await openClientState(options.stateDirectory, { random: systemRandom, logger: options.logger });
  let engine: ComputeEngine;
  try {
    engine = await startWorkerEngine(options.engine);
  } catch (error) {
    await state.close();
    throw error;
  }
  const traffic = { bytesUp: 0, bytesDown: 0 };
  const { policy, logger, events, joinToken, overrides, seed, trackLocalOnly, personalize, patience } = options;
  let store: DurableStore | undefined;
  let task: TaskDocument | undefined;
  const participant = new Participant({
    connector: socketConnector({ origin: target.origin, traffic, ...(options.ca === undefined ? {} : { ca: options.ca }) }),
    coordinatorFingerprint: target.coordinatorFingerprint,
    identity: state.identity,
    clock: systemClock,
    random: systemRandom,
    crypto: nodeCrypto,
    ledger: state.ledger,
    policy,
    engine,
    prepare: async (verified) => {
      task = verified;
      const workspace = await openWorkspace(options, state, verified, target.coordinatorFingerprint);
      store = workspace.store;
      return workspace;
    },
    logger,
    events,
    traffic,
    ...(joinToken === undefined ? {} : { joinToken }),
    ...(overrides === undefined ? {} : { overrides }),
    ...(seed === undefined ? {} : { seed }),
    ...(trackLocalOnly === undefined ? {} : { trackLocalOnly }),
    ...(personalize === undefined ? {} : { personalize }),
    ...(patience === undefined ? {} : { patience }),
  });
  return {
    clientId: participant.clientId,
    engine: { name: engine.name, reason: engine.reason },
    stateDirectory: state.directory,
    run: (signal) => participant.run(signal),
    statement() {
      const ledger = state.ledger.entries();
      const newest = ledger.findLast((entry) => entry.task === task?.task);
      if (task === undefined || newest === undefined) return undefined;
      return buildStatement({ trustMode: task.privacy.trustMode, parameters: newest.parameters, secureAggregation: task.privacy.secureAggregation, delta: policy.delta, ledger });
    },
    async exportStudent(folder) {
      const student = store === undefined ? undefined : await readStudent(store);
      if (student === undefined) return false;
      await writeLayersModel(folder, student);
      return true;
    },
    async close() {
      await engine.dispose();
      await state.close();
    },
  };
}

async function openWorkspace(options: ClientOptions, state: ClientState, task: TaskDocument, coordinatorFingerprint: string) {
  const model = await modelSource(options, task);
  const privateDataset = await loadLabelled(options.data, '--data', options, task);
  const testSet = options.testData === undefined ? undefined : await loadLabelled(options.testData, '--test-data', options, task);
  const store = await state.openTask(task.task, coordinatorFingerprint);
  return { store, model, privateDataset, ...(testSet === undefined ? {} : { testSet }), ...(options.view === undefined ? {} : { view: options.view }) };
}

async function modelSource({ model, view = [] }: ClientOptions, { exampleShape: wholeShape, numClasses, student }: TaskDocument): Promise<ModelSource> {
  const exampleShape = [...viewShape(view, wholeShape)];
  if (model.kind === 'folder') return { kind: 'layersModel', artifacts: await readLayersModel(model.path), outputKind: model.outputKind };
  return { kind: 'zoo', name: checkZooModel(model.name ?? student.model, exampleShape), exampleShape, numClasses, dropout: student.dropout };
}

async function loadLabelled(source: DataSource, field: string, { baseDirectory }: ClientOptions, { exampleShape, numClasses }: TaskDocument): Promise<LabelledExamples> {
  const { examples, labels } = await loadDataSource(source, { baseDir: baseDirectory, exampleShape, numClasses, needLabels: true }).catch((error: unknown) => {
    throw fittingTheTask(error, field, source, exampleShape, numClasses);
  });
  if (labels === undefined) throw new FederationError('data-invalid', 'The data have no labels.', { field, expected: 'labelled examples', got: 'examples alone', next: 'Name data with labels.' });
  return { examples, labels, numClasses };
}

/** Whoever joins a task changes the data, not the task: what the task takes is part of the advice. */
function fittingTheTask(error: unknown, option: string, source: DataSource, exampleShape: readonly number[], numClasses: number): unknown {
  if (!(error instanceof FederationError) || error.code !== 'data-invalid') return error;
  const isPlainTable = source.source === 'csv' && source.columns === undefined;
  const advice = error.field === 'labelColumn' ? `Name it: ${option} FILE.csv#NAME.` : `Correct or choose other data (${option}).${isPlainTable ? ` Categories, gaps and scales are described in a file: ${option} FILE.yaml (docs/data.md).` : ''}`;
  return new FederationError(error.code, error.message, {
    ...(error.field === undefined ? {} : { field: error.field }),
    ...(error.expected === undefined ? {} : { expected: error.expected }),
    ...(error.got === undefined ? {} : { got: error.got }),
    next: `${advice} This task takes examples of shape [${exampleShape.join(', ')}] with labels 0 to ${numClasses - 1}.`,
    cause: error,
  });
}
