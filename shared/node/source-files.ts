/** Files of data sources, read whole and bounded. Problems: `file-unreadable` when a file is missing or may not be read, `data-invalid` when it is not what its name says. */
import { readFile, stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { FederationError } from '../errors.ts';

/** No file is read, and no .gz unpacked, beyond this. 1 GiB: twenty times MNIST. */
const MAX_FILE_BYTES = 2 ** 30;
/** The same for files of text, which become several times as large in memory. */
const MAX_TEXT_BYTES = 2 ** 28;

/** The whole file, unpacked when its name ends in .gz; at most `limit` bytes either way. */
export async function readBytes(path: string, limit = MAX_FILE_BYTES): Promise<Uint8Array> {
  let bytes: Uint8Array;
  try {
    const found = await stat(path);
    // A pipe or device has no size to check.
    if (!found.isFile()) throw new Error(found.isDirectory() ? 'a folder' : 'not a regular file');
    if (found.size > limit) throw tooLarge(path, `${found.size} bytes`, limit);
    bytes = await readFile(path);
  } catch (error) {
    throw error instanceof FederationError ? error : unreadable(path, error);
  }
  if (!path.endsWith('.gz')) return bytes;
  try {
    return await promisify(gunzip)(bytes, { maxOutputLength: limit });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(path, 'more when unpacked', limit);
    const got = cause instanceof Error ? cause.message : String(cause);
    throw new FederationError('data-invalid', `${path}: expected gzip data, got ${got}`, {
      field: path, expected: 'gzip data', got, next: 'Give the whole, unchanged file; download it again if it was cut off.', cause,
    });
  }
}

/** The whole file as text, unpacked when its name ends in .gz. */
export async function readText(path: string): Promise<string> {
  const bytes = await readBytes(path, MAX_TEXT_BYTES);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    const place = `line ${lineOfBadUtf8(bytes)}`;
    throw new FederationError('data-invalid', `${path}: ${place}: expected UTF-8 text, got other bytes`, {
      field: `${path}: ${place}`, expected: 'UTF-8 text', got: 'other bytes', next: 'Save the file as UTF-8.', cause,
    });
  }
}

/** The first line, from 1, that is no UTF-8. No byte of a longer character is a line feed. */
function lineOfBadUtf8(bytes: Uint8Array): number {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  for (let line = 1, start = 0; ; line++) {
    const end = bytes.indexOf(0x0a, start);
    try {
      decoder.decode(bytes.subarray(start, end === -1 ? bytes.length : end));
    } catch {
      return line;
    }
    if (end === -1) return line;
    start = end + 1;
  }
}

function tooLarge(path: string, got: string, limit: number): FederationError {
  const expected = `at most ${limit} bytes`;
  return new FederationError('data-invalid', `${path}: expected ${expected}, got ${got}`, { field: path, expected, got, next: 'Split the file into several sources.' });
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or folder',
  EACCES: 'no permission to read it',
  EPERM: 'no permission to read it',
  ENOTDIR: 'not a folder',
};

export function unreadable(path: string, cause: unknown, next = 'Check the path and its permissions.'): FederationError {
  const code = (cause as NodeJS.ErrnoException).code ?? '';
  const got = reasons[code] ?? (cause instanceof Error ? cause.message : String(cause));
  return new FederationError('file-unreadable', `can't read ${path}: ${got}`, { field: path, expected: 'a readable file', got, next, cause });
}
