import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { loadOrCreateIdentity } from '../../../shared/node/identity-file.ts';
import { systemRandom } from '../../../shared/node/system-random.ts';
import { fingerprint } from '../../../shared/protocol/identity.ts';

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fedstill-identity-'));
  path = join(folder, 'deep', 'identity.key');
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const load = () => loadOrCreateIdentity(path, systemRandom);

it('makes an identity once, for this user alone, and finds it again', async () => {
  const made = await load();
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect((await stat(join(folder, 'deep'))).mode & 0o777).toBe(0o700);
  expect(await load()).toEqual(made);
  expect(await readFile(path, 'utf8')).toContain(fingerprint(made.publicKey));
  expect(await readdir(join(folder, 'deep'))).toEqual(['identity.key']);
});

it('gives processes that start together one identity', async () => {
  const all = await Promise.all(Array.from({ length: 10 }, load));
  expect(new Set(all.map(({ publicKey }) => fingerprint(publicKey))).size).toBe(1);
});

it('refuses a file that others may read or write, and says what to run', async () => {
  await load();
  for (const mode of [0o640, 0o604, 0o620, 0o644, 0o777]) {
    await chmod(path, mode);
    await expect(load()).rejects.toMatchObject({ code: 'file-unreadable', got: `mode ${mode.toString(8)}`, next: expect.stringContaining(`chmod 600 ${path}`) as string });
  }
  await chmod(path, 0o400);
  await load();
});

it('refuses a file that is cut short at any byte, or damaged, without replacing it or repeating it', async () => {
  await load();
  const whole = await readFile(path, 'utf8');
  const seed = whole.split('\n')[1]!;
  const swapped = seed.replace(/^./, (first) => (first === 'A' ? 'B' : 'A'));
  const broken = [...Array.from(whole, (_, length) => whole.slice(0, length)), whole.replace(seed, swapped), `${whole}\n`, whole.replace('1\n', '2\n'), 'x'.repeat(5000), '\0'.repeat(92)];
  for (const text of broken) {
    await writeFile(path, text);
    const error = (await load().catch((caught: unknown) => caught)) as Error;
    expect(error).toMatchObject({ code: 'state-mismatch', field: path });
    expect(JSON.stringify({ ...error }) + error.message).not.toContain(seed.slice(0, 12));
    expect(await readFile(path, 'utf8')).toBe(text);
  }
});

it('says what is wrong with a path that cannot be used', async () => {
  await mkdir(path, { recursive: true });
  await chmod(path, 0o700);
  await expect(load()).rejects.toMatchObject({ code: 'file-unreadable', field: path });
  await writeFile(join(folder, 'file'), '');
  await expect(loadOrCreateIdentity(join(folder, 'file', 'identity.key'), systemRandom)).rejects.toMatchObject({ code: 'file-unreadable' });
});
