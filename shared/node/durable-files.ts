/** What it takes for a file and its name in a folder to survive a kill or a power cut. */
import { mkdir, open, rename } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';

/** Makes names created, replaced or removed in this folder durable. */
export async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === 'win32') return; // cannot open a folder for fsync; its renames are journalled
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes a folder and those above it that are missing, durably, for this user alone. */
export async function makeDirectory(directory: string): Promise<void> {
  const whole = resolve(directory);
  const first = await mkdir(whole, { recursive: true, mode: 0o700 });
  if (first === undefined) return;
  // Each new folder is a name in the one above it.
  for (let made = whole; made.length >= first.length; made = dirname(made)) await syncDirectory(dirname(made));
}

/** Writes a file for this user alone, or replaces it: whoever reads it finds the old text or the new one, never a part. One process at a time. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  await syncDirectory(dirname(resolve(path)));
}
