/** Hashes of the files that a scenario's data sources name: a result is a result for these bytes. Data that come with a package are named by it. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { FederationError } from '../../shared/errors.ts';
import { readFailure } from '../../shared/node/terminal.ts';
import type { Scenario } from '../scenario.ts';

/** Each file is read once, however many scenarios name it. `baseDir`: what relative paths are relative to. */
export function digestData(baseDir: string): (scenario: Scenario) => Promise<Readonly<Record<string, string>>> {
  const known = new Map<string, Promise<string>>();
  return async (scenario) => {
    const digests: Record<string, string> = {};
    for (const [place, path] of findSources(scenario, '')) {
      const whole = resolve(baseDir, path);
      if (!known.has(whole)) known.set(whole, digestOfPath(whole, place));
      digests[place] = await known.get(whole)!;
    }
    return digests;
  };
}

/** Every data source with a path of its own, wherever it is in the scenario. */
function* findSources(node: unknown, place: string): Generator<readonly [place: string, path: string]> {
  if (typeof node !== 'object' || node === null) return;
  const { source, path } = node as { readonly source?: unknown; readonly path?: unknown };
  if ((source === 'idx' || source === 'csv') && typeof path === 'string') yield [place, path];
  // Where a user keeps Fashion-MNIST elsewhere than its package does.
  const elsewhere = process.env['FEDSTILL_FASHION_MNIST'];
  if (source === 'fashion-mnist' && elsewhere !== undefined) yield [place, resolve(elsewhere)];
  for (const [key, value] of Object.entries(node)) yield* findSources(value, place === '' ? key : `${place}.${key}`);
}

/** SHA-256 of a file; of a folder: of its files' names and hashes. Hexadecimal. */
async function digestOfPath(path: string, place: string): Promise<string> {
  try {
    if (!(await stat(path)).isDirectory()) return await digestOfFile(path);
    const whole = createHash('sha256');
    for (const name of (await readdir(path, { withFileTypes: true })).filter((entry) => !entry.isDirectory()).map((entry) => entry.name).sort()) {
      whole.update(JSON.stringify([name, await digestOfFile(join(path, name))]));
    }
    return whole.digest('hex');
  } catch (cause) {
    throw new FederationError('file-unreadable', `can't read ${path}: ${readFailure(cause)}`, { field: place, expected: 'a readable file or folder', got: readFailure(cause), next: 'Check the path: it is relative to the scenario\'s file.', cause });
  }
}

async function digestOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
