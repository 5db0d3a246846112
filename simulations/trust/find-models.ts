/** From what a user names (a run, a client's state folder, a saved model) to the models in it. Reads only: a folder that a process works in may be named. */
import { existsSync } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { localOnlyBlob, readStudent, studentBlob } from '../../client/participant/training.ts';
import type { SavedModel } from '../../shared/compute/engine.ts';
import { FederationError } from '../../shared/errors.ts';
import { readLayersModel } from '../../shared/node/layers-model-files.ts';
import { readRunManifest, type RunManifest } from '../../shared/node/run-folder.ts';
import { readFailure } from '../../shared/node/terminal.ts';

export type ModelRole = 'teacher' | 'student' | 'baseline';

export interface FoundModel {
  readonly name: string;
  readonly role: ModelRole;
  /** File or folder that it was read from. */
  readonly path: string;
  readonly saved: SavedModel;
}

const expected = 'a folder with model.json, a run folder of `fedstill serve`, or the state folder of `fedstill join`';

/** The one model that a path names. Throws `file-unreadable`, `model-invalid`, `state-mismatch` or `usage-invalid`. */
export async function findModel(path: string, role: ModelRole, field: string): Promise<FoundModel> {
  const isFolder = await stat(path).then((found) => found.isDirectory(), (error: unknown) => {
    throw new FederationError('file-unreadable', `There is no model at ${path}: ${readFailure(error)}.`, { field, expected, got: path, next: 'Check the path; `fedstill ls` lists the runs.', cause: error });
  });
  const name = basename(resolve(path));
  if (!isFolder || existsSync(join(path, 'model.json'))) return { name: isFolder ? name : basename(resolve(path, '..')), role, path, saved: await readLayersModel(path) };
  if (existsSync(join(path, studentBlob))) return { name: basename(resolve(path, '../..')), role, path, saved: await readCheckpoint(path, studentBlob) };
  if (existsSync(join(path, 'tasks'))) {
    const folder = await taskFolder(path, field);
    return { name, role, path: folder, saved: await readCheckpoint(folder, studentBlob) };
  }
  const manifest = await readRunManifest(path);
  if (manifest !== undefined) return { name, role, path, saved: await readLayersModel(teacherOf(path, manifest, field)) };
  throw new FederationError('model-invalid', `${path} holds no model.`, { field, expected, got: 'a folder with none of these', next: 'A client writes its student as a model folder with `fedstill join --export FOLDER`.' });
}

/**
 * The teacher of a run and every student that is on this machine, the teacher first. `withBaselines`: also the students that never distilled, each after
 * its client's. A run whose teacher is no model (a consensus), or is not finished, has only students.
 */
export async function findModelsOfRun(directory: string, { withBaselines }: { readonly withBaselines: boolean }): Promise<FoundModel[]> {
  const field = '--run';
  // A demo, or a federation of processes inside one, keeps its coordinator's run beside its clients.
  const inner = join(directory, 'coordinator');
  const own = await readRunManifest(directory);
  const coordinator = own?.kind === 'demo' || (own === undefined && existsSync(join(inner, 'run.json'))) ? inner : directory;
  const manifest = own ?? (await readRunManifest(coordinator));
  if (manifest === undefined) throw new FederationError('file-unreadable', `${directory} is no run folder.`, { field, expected: 'a folder with run.json', got: existsSync(directory) ? 'a folder without run.json' : 'nothing at this path', next: 'List the runs with: fedstill ls' });
  if (manifest.kind === 'simulate' || manifest.kind === 'experiment') throw withoutModels(directory, manifest.kind, field);
  const teacher = teacherFolder(coordinator);
  const models: FoundModel[] = existsSync(join(teacher, 'model.json')) ? [{ name: 'teacher', role: 'teacher', path: teacher, saved: await readLayersModel(teacher) }] : [];
  for (const client of await clientFolders(directory)) {
    const state = join(directory, 'clients', client);
    const task = await taskFolder(state, field).catch(() => undefined); // a client that has not trained yet
    if (task === undefined) continue;
    models.push({ name: client, role: 'student', path: task, saved: await readCheckpoint(task, studentBlob) });
    if (withBaselines && existsSync(join(task, localOnlyBlob))) models.push({ name: `${client}, alone`, role: 'baseline', path: task, saved: await readCheckpoint(task, localOnlyBlob) });
  }
  if (models.length === 0) {
    throw new FederationError('file-unreadable', `${directory} holds no trained model yet.`, { field, expected: 'a finished run', got: `a run that is ${manifest.state}`, next: `Finish it first: fedstill resume ${directory}` });
  }
  return models;
}

const teacherFolder = (coordinator: string) => join(coordinator, 'models', 'teacher');

function teacherOf(directory: string, manifest: RunManifest, field: string): string {
  switch (manifest.kind) {
    case 'serve': {
      const folder = teacherFolder(directory);
      if (existsSync(join(folder, 'model.json'))) return folder;
      throw new FederationError('file-unreadable', `The run ${directory} has no teacher model.`, { field, expected: 'a finished run whose teacher is a model', got: `a run that is ${manifest.state}`, next: 'Finish the run first; a teacher of kind "consensus" is no model.' });
    }
    case 'demo':
      throw new FederationError('usage-invalid', `${directory} is a run with several models.`, { field, expected: 'one model', got: 'the run folder of a demo', next: `Take all of them with: fedstill trust --run ${directory}` });
    case 'simulate':
    case 'experiment':
      throw withoutModels(directory, manifest.kind, field);
  }
}

function withoutModels(directory: string, kind: RunManifest['kind'], field: string): FederationError {
  return new FederationError('usage-invalid', `A simulation keeps no models, so ${directory} has none.`, { field, expected: 'a run of `npm start` or `fedstill serve`', got: `a run of \`fedstill ${kind}\``, next: 'Run the federation with `fedstill serve` and `fedstill join --export FOLDER`.' });
}

/** `client-2` before `client-10`. */
async function clientFolders(directory: string): Promise<string[]> {
  const folder = join(directory, 'clients');
  if (!existsSync(folder)) return [];
  const entries = await readdir(folder, { withFileTypes: true });
  return entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
}

/** The task folder in a client's state folder that has a student. */
async function taskFolder(state: string, field: string): Promise<string> {
  const tasks = join(state, 'tasks');
  const names = existsSync(tasks) ? (await readdir(tasks)).filter((task) => existsSync(join(tasks, task, studentBlob))).sort() : [];
  if (names.length === 1) return join(tasks, names[0]!);
  if (names.length === 0) throw new FederationError('file-unreadable', `The state folder ${state} has no trained student.`, { field, expected: 'a student that has finished a step', got: 'none', next: 'Let the client join a task first.' });
  throw new FederationError('usage-invalid', `The state folder ${state} has students of several tasks.`, { field, expected: 'one student', got: names.join(', '), next: `Name one of them: ${names.map((task) => join(tasks, task)).join(', ')}` });
}

async function readCheckpoint(folder: string, blob: string): Promise<SavedModel> {
  const path = join(folder, blob);
  const store = {
    getBlob: (name: string) =>
      readFile(join(folder, name)).then((bytes) => new Uint8Array(bytes), (error: unknown) => {
        throw new FederationError('file-unreadable', `The student ${path} cannot be read: ${readFailure(error)}.`, { field: path, expected: 'a file that can be read', got: readFailure(error), next: 'Check the path and its permissions.', cause: error });
      }),
  };
  return (await readStudent(store, blob))!;
}
