/**
 * A party's long-lived Ed25519 identity in a file: made once with mode 0600, refused when others may read it. Three lines: what it is, the seed in
 * base64, and the fingerprint, which shows a person whose file it is and us whether it is whole. The seed is NOT encrypted: whoever
 * reads the file is this party.
 */
import { link, mkdir, open, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { identityFromSeed, identitySeedBytes, type IdentityKeys } from '../crypto/signature.ts';
import { FederationError } from '../errors.ts';
import type { RandomSource } from '../ports/random-source.ts';
import { fingerprint } from '../protocol/identity.ts';
import { fromBase64, toBase64, toHex } from '../types/bytes.ts';
import { guardDisk, isErrno, isMissing } from './disk-errors.ts';
import { syncDirectory } from './durable-files.ts';

const firstLine = 'fedstill identity 1';
/** Three lines have 92 bytes; a longer file is none of ours. */
const maxFileBytes = 1024;

/**
 * The identity in this file, made and stored durably when there is none. Throws `file-unreadable` when it may not be read, or when others may;
 * `state-mismatch` when it is damaged.
 */
export async function loadOrCreateIdentity(path: string, random: RandomSource): Promise<IdentityKeys> {
  return guardDisk(path, async () => {
    const existing = await load(path);
    if (existing !== undefined) return existing;
    await create(path, random);
    // Not the keys that were just made: when two processes race, both must end with the file's.
    const created = await load(path);
    if (created === undefined) throw new FederationError('file-unreadable', 'The identity file is gone right after it was made.', { field: path, next: 'Check that nothing else cleans this folder up.' });
    return created;
  });
}

async function load(path: string): Promise<IdentityKeys | undefined> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  try {
    // On the open file, not on the path: what is checked is what is read.
    const stats = await file.stat();
    const { mode, size } = stats;
    if (!stats.isFile()) throw new FederationError('file-unreadable', 'The identity file is no plain file.', { field: path, next: 'Name another file.' });
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      throw new FederationError('file-unreadable', 'The identity file can be read or written by other users of this machine, so it is not used.', {
        field: path,
        expected: 'mode 600',
        got: `mode ${(mode & 0o777).toString(8)}`,
        next: `Run: chmod 600 ${path} (and make a new identity when others may have read it).`,
      });
    }
    if (size > maxFileBytes) throw damaged(path, `${size} bytes`);
    return parse(await file.readFile('utf8'), path);
  } finally {
    await file.close();
  }
}

function parse(text: string, path: string): IdentityKeys {
  const lines = text.split('\n');
  const [head, encoded, print, end] = lines;
  const seed = encoded === undefined ? undefined : fromBase64(encoded);
  if (head !== firstLine || lines.length !== 4 || end !== '' || seed?.length !== identitySeedBytes) throw damaged(path, text === '' ? 'an empty file' : `${text.length} characters that are none`);
  const keys = identityFromSeed(seed);
  if (print !== fingerprint(keys.publicKey)) throw damaged(path, 'a seed and a fingerprint that do not belong together');
  return keys;
}

function damaged(path: string, got: string): FederationError {
  return new FederationError('state-mismatch', 'The identity file is damaged or cut short.', {
    field: path,
    expected: `the line "${firstLine}", a seed and its fingerprint`,
    got,
    next: 'Restore it from a backup. Or delete it: a new identity is made, a coordinator then has another join URL and a client another id.',
  });
}

/** Writes a complete file beside it and links it in place: never half a file, never over another one. */
async function create(path: string, random: RandomSource): Promise<void> {
  const seed = random.bytes(identitySeedBytes);
  const text = `${firstLine}\n${toBase64(seed)}\n${fingerprint(identityFromSeed(seed).publicKey)}\n`;
  const directory = dirname(path);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const temporary = `${path}.${toHex(random.bytes(8))}.new`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  try {
    await link(temporary, path);
  } catch (error) {
    if (!(isErrno(error) && error.code === 'EEXIST')) throw error;
  } finally {
    await rm(temporary, { force: true });
  }
  await syncDirectory(directory);
}
