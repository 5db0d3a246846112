/** Wires a coordinator to a run folder of this machine: task file, data, engine, store, keys, events, and what is written at the end. */
import { randomBytes } from 'node:crypto';
import { chmod, readFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { stringify } from 'yaml';
import type { ComputeEngine, ModelSource } from '../../shared/compute/engine.ts';
import type { EnginePreference } from '../../shared/compute/select-engine.ts';
import { startWorkerEngine } from '../../shared/compute/worker-engine.ts';
import { parseTaskConfig } from '../../shared/config/load.ts';
import { secureCohortOf } from '../../shared/config/secure-cohort.ts';
import type { DataSource, TaskConfig } from '../../shared/config/task-config.ts';
import { FederationError } from '../../shared/errors.ts';
import { loadDataSource } from '../../shared/node/data-source.ts';
import { replaceFile } from '../../shared/node/durable-files.ts';
import { openFileStore } from '../../shared/node/file-store.ts';
import { loadOrCreateIdentity } from '../../shared/node/identity-file.ts';
import { readLayersModel, writeLayersModel } from '../../shared/node/layers-model-files.ts';
import { closeRun, readRunManifest, writeRunManifest } from '../../shared/node/run-folder.ts';
import { systemClock } from '../../shared/node/system-clock.ts';
import { systemRandom } from '../../shared/node/system-random.ts';
import { packageVersion } from '../../shared/node/version.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import type { Logger } from '../../shared/ports/logger.ts';
import type { FinishReason } from '../../shared/protocol/messages.ts';
import { chargedRelease } from '../../shared/privacy/ledger.ts';
import { buildStatement, renderStatement } from '../../shared/privacy/statement.ts';
import { toBase32 } from '../../shared/types/bytes.ts';
import type { Delta } from '../../shared/types/units.ts';
import { Coordinator, planTaskRelease } from './coordinator.ts';
import type { Admission } from './sessions.ts';
import { openTeacher } from './teacher.ts';

export interface OpenRunOptions {
  /** A task file; `undefined`: the one that the run folder holds. */
  readonly taskFile: string | undefined;
  readonly runDirectory: string;
  readonly engine: EnginePreference;
  readonly logger: Logger;
  readonly onEvent: (event: RunEvent) => void;
  /** What `fedstill resume` needs to start this again, e.g. host and port. */
  readonly serveOptions: Readonly<Record<string, string | number>>;
}

const keptTask = 'task.yaml';

/** A coordinator with everything it has open. */
export interface OpenRun {
  readonly coordinator: Coordinator;
  readonly config: TaskConfig;
  /** Where the join token is, when the task needs one. */
  readonly tokenFile: string | undefined;
  /** Writes what a finished run leaves: the privacy statement, the teacher, the outcome. */
  conclude(reason: FinishReason): Promise<void>;
  close(): Promise<void>;
}

export async function openRun(options: OpenRunOptions): Promise<OpenRun> {
  const { runDirectory, logger } = options;
  const { config, isKept } = await readTask(options);
  const store = await openFileStore(runDirectory); // from here on, this process alone writes to the folder
  let engine: ComputeEngine | undefined;
  try {
    if (!isKept) await keepTask(options, config);
    const identity = await loadOrCreateIdentity(join(runDirectory, 'identity.key'), systemRandom);
    const { admission, tokenFile } = await openAdmission(config, runDirectory);
    const { numClasses, exampleShape } = config.data;
    const load = (source: DataSource, needLabels: boolean) => loadDataSource(source, { baseDir: runDirectory, exampleShape, numClasses, needLabels });
    const transferSet = (await load(config.transferSet, false)).examples;
    const evaluation = config.evaluationSet === undefined ? undefined : await load(config.evaluationSet, true);
    const pretrained: ModelSource | undefined = config.teacher.kind === 'pretrained' ? { kind: 'layersModel', artifacts: await readLayersModel(config.teacher.path), outputKind: config.teacher.outputKind } : undefined;
    const openEngine = await startWorkerEngine(options.engine);
    engine = openEngine;
    const teacher = await openTeacher({ config, engine: openEngine, store, transferSet, evaluationSet: evaluation && { examples: evaluation.examples, labels: evaluation.labels!, numClasses }, pretrained });
    const events = eventFile(store, logger, options.onEvent);
    const coordinator = new Coordinator({ config, identity, admission, transferSet, teacher, store, clock: systemClock, random: systemRandom, logger, events });
    await rememberRun(options, config);
    return {
      coordinator,
      config,
      tokenFile,
      async conclude(reason) {
        await writeStatement(runDirectory, config, transferSet.count, coordinator.status().round);
        const model = teacher.model();
        if (model !== undefined) await writeLayersModel(join(runDirectory, 'models', 'teacher'), await model.save());
        await closeRun(runDirectory, reason === 'rounds-done' || reason === 'converged' ? 'done' : 'failed', reason);
      },
      async close() {
        await coordinator.close();
        await teacher.dispose();
        await openEngine.dispose();
        await events.flushed();
        await store.close();
      },
    };
  } catch (error) {
    await engine?.dispose();
    await store.close();
    throw error;
  }
}

/** The task of a file, or of the run folder. Writes nothing. `isKept`: the run folder has it already. */
async function readTask({ taskFile, runDirectory }: OpenRunOptions): Promise<{ readonly config: TaskConfig; readonly isKept: boolean }> {
  const kept = join(runDirectory, keptTask);
  const isKept = existsSync(kept);
  if (taskFile === undefined) {
    if (!isKept) throw new FederationError('file-unreadable', `${runDirectory} holds no ${keptTask}.`, { field: 'run', next: 'Name the folder of a run that `fedstill serve` made.' });
    return { config: parseTaskConfig(await readFile(kept, 'utf8'), kept), isKept };
  }
  let text: string;
  try {
    text = await readFile(taskFile, 'utf8');
  } catch (cause) {
    throw new FederationError('file-unreadable', `The task file ${taskFile} cannot be read.`, { field: '--task', expected: 'a readable YAML file', next: 'docs/task.md has an example.', cause });
  }
  const config = withAbsolutePaths(parseTaskConfig(text, taskFile), dirname(resolve(taskFile)));
  if (isKept && stringify(parseTaskConfig(await readFile(kept, 'utf8'), kept)) !== stringify(config)) {
    throw new FederationError('state-mismatch', `${runDirectory} is the run of another task than ${taskFile}.`, { field: '--run', next: `Choose another --run folder, or go on with the old task: fedstill resume ${runDirectory}` });
  }
  return { config, isKept };
}

/** The run folder's copy has every default filled in and paths made absolute, so that a resume needs nothing else. */
async function keepTask({ taskFile, runDirectory }: OpenRunOptions, config: TaskConfig): Promise<void> {
  const heading = `# The task as this run uses it: defaults filled in, paths made absolute. Made from ${basename(taskFile ?? keptTask)}.`;
  await replaceFile(join(runDirectory, keptTask), `${heading}\n${stringify(config)}`);
}

function withAbsolutePaths(config: TaskConfig, base: string): TaskConfig {
  const absolute = (path: string) => (isAbsolute(path) ? path : resolve(base, path));
  const source = (data: DataSource): DataSource => ('path' in data ? { ...data, path: absolute(data.path) } : data);
  return {
    ...config,
    transferSet: source(config.transferSet),
    ...(config.evaluationSet === undefined ? {} : { evaluationSet: source(config.evaluationSet) }),
    teacher: config.teacher.kind === 'pretrained' ? { ...config.teacher, path: absolute(config.teacher.path) } : config.teacher,
  };
}

/** Who may join; makes the token file when it is missing. */
async function openAdmission(config: TaskConfig, runDirectory: string): Promise<{ admission: Admission; tokenFile: string | undefined }> {
  if (config.admission.mode !== 'token') return { admission: config.admission, tokenFile: undefined };
  const tokenFile = resolve(runDirectory, config.admission.tokenFile);
  if (!existsSync(tokenFile)) await replaceFile(tokenFile, `${toBase32(randomBytes(16))}\n`);
  await chmod(tokenFile, 0o600);
  const token = (await readFile(tokenFile, 'utf8')).trim();
  if (token.length < 16) throw new FederationError('file-unreadable', 'The join token is too short to keep anybody out.', { field: 'admission.tokenFile', expected: 'at least 16 characters on one line', got: `${token.length} characters`, next: 'Delete the file to have one made.' });
  return { admission: { mode: 'token', token }, tokenFile };
}

async function rememberRun({ runDirectory, serveOptions }: OpenRunOptions, config: TaskConfig): Promise<void> {
  const existing = await readRunManifest(runDirectory);
  if (existing?.kind === 'demo') return; // a part of it
  await writeRunManifest(runDirectory, {
    format: 'fedstill-run/1',
    kind: 'serve',
    name: config.task,
    createdAt: existing?.createdAt ?? new Date().toISOString(),
    version: packageVersion,
    state: 'running',
    outcome: null,
    options: { ...serveOptions },
  });
}

/** Events go to the watcher and, in order, to `events.jsonl`. A file that cannot be written never stops a round. */
function eventFile(store: DurableStore, logger: Logger, onEvent: (event: RunEvent) => void) {
  let last: Promise<void> = Promise.resolve();
  return {
    emit(event: RunEvent) {
      onEvent(event);
      last = store.append('events.jsonl', event).catch((error: unknown) => logger.warn({ err: error }, 'an event could not be written'));
    },
    flushed: () => last,
  };
}

/**
 * The coordinator's own account is informational: what counts is each client's ledger. It is that of a client that took part in every round that was
 * opened: also for a round that was given up, clients were charged.
 */
async function writeStatement(runDirectory: string, config: TaskConfig, transferExamples: number, releases: number): Promise<void> {
  const parameters = planTaskRelease(config, transferExamples);
  const charged = chargedRelease(parameters);
  const statement = buildStatement({ trustMode: config.privacy.trustMode, parameters, secureAggregation: secureCohortOf(config), delta: config.privacy.delta as Delta, ledger: Array.from({ length: releases }, () => charged) });
  await replaceFile(join(runDirectory, 'privacy.json'), `${JSON.stringify(statement, undefined, 2)}\n`);
  await replaceFile(join(runDirectory, 'privacy.txt'), renderStatement(statement));
}
