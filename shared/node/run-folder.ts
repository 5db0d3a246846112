/** A run is a folder: `run.json` says what it is and how to go on with it; the rest is docs/runs.md. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { FederationError } from '../errors.ts';
import { replaceFile } from './durable-files.ts';

export const runKinds = ['serve', 'demo', 'simulate', 'experiment'] as const;

export const RunManifestSchema = z.strictObject({
  format: z.literal('fedstill-run/1'),
  kind: z.enum(runKinds),
  name: z.string(),
  /** ISO 8601. */
  createdAt: z.string(),
  /** Version of fedstill that made it. */
  version: z.string(),
  state: z.enum(['running', 'done', 'failed']),
  /** Why it is done or failed, e.g. `rounds-done` or a problem code. */
  outcome: z.string().nullable(),
  /** What the command needs to go on, by kind. */
  options: z.record(z.string(), z.json()),
});
export type RunManifest = z.infer<typeof RunManifestSchema>;

const manifestName = 'run.json';

/** The manifest of a run folder; `undefined` where there is none. Throws `state-mismatch` for a damaged one. */
export async function readRunManifest(directory: string): Promise<RunManifest | undefined> {
  const path = join(directory, manifestName);
  if (!existsSync(path)) return undefined;
  try {
    return RunManifestSchema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch (cause) {
    throw new FederationError('state-mismatch', `${path} is not the manifest of a run.`, { field: path, next: 'Choose another run folder, or delete this one.', cause });
  }
}

/** Writes the manifest atomically, making the folder when needed. */
export async function writeRunManifest(directory: string, manifest: RunManifest): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await replaceFile(join(directory, manifestName), `${JSON.stringify(manifest, undefined, 2)}\n`);
}

/** Changes the state of a run that has a manifest. */
export async function closeRun(directory: string, state: RunManifest['state'], outcome: string | null): Promise<void> {
  const manifest = await readRunManifest(directory);
  if (manifest !== undefined) await writeRunManifest(directory, { ...manifest, state, outcome });
}

/** `runs/<base>-1`, `-2`, ...: the first that is free. */
export function freeRunDirectory(base: string, runsDirectory = 'runs'): string {
  for (let number = 1; ; number++) {
    const candidate = join(runsDirectory, `${base}-${number}`);
    if (!existsSync(candidate)) return candidate;
  }
}

/** All runs below a folder, newest first. Folders without a manifest are passed over; damaged ones are named. */
export async function listRuns(runsDirectory: string): Promise<{ readonly directory: string; readonly manifest: RunManifest | undefined }[]> {
  if (!existsSync(runsDirectory)) return [];
  const found: { directory: string; manifest: RunManifest | undefined }[] = [];
  for (const entry of await readdir(runsDirectory, { withFileTypes: true })) {
    const directory = join(runsDirectory, entry.name);
    if (!entry.isDirectory() || !existsSync(join(directory, manifestName))) continue;
    found.push({ directory, manifest: await readRunManifest(directory).catch(() => undefined) });
  }
  return found.sort((a, b) => (b.manifest?.createdAt ?? '').localeCompare(a.manifest?.createdAt ?? ''));
}

/** Last lines of a run's `events.jsonl`, parsed; broken lines are passed over. */
export async function readEvents(directory: string): Promise<readonly Record<string, unknown>[]> {
  const path = join(resolve(directory), 'events.jsonl');
  if (!existsSync(path)) return [];
  const lines = (await readFile(path, 'utf8')).split('\n');
  return lines.flatMap((line) => {
    try {
      return line === '' ? [] : [JSON.parse(line) as Record<string, unknown>];
    } catch {
      return [];
    }
  });
}
