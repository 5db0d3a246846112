/**
 * A lock file that one process holds. A lock whose process is dead is taken over; a reused process id is recognised by its start time, so
 * a restarted container may take over from itself. What it can't see: processes of another host on a shared disk count as alive
 * until someone deletes the file.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { z } from 'zod';
import { FederationError } from '../errors.ts';
import { guardDisk, isErrno, isMissing } from './disk-errors.ts';

export interface ProcessLock {
  /** Whether the lock file still names this holder; someone may have deleted it. */
  isHeld(): boolean;
  /** Gives the lock back; does nothing when it is no longer ours. */
  release(): Promise<void>;
}

const OwnerSchema = z.object({ pid: z.int().min(1), host: z.string(), started: z.string(), token: z.string() });
type Owner = z.infer<typeof OwnerSchema>;

/** Takes the lock, or throws `state-locked` naming who has it. `what` is what it protects, e.g. the run folder. */
export async function acquireProcessLock(lockPath: string, what: string): Promise<ProcessLock> {
  const owner: Owner = { pid: process.pid, host: hostname(), started: await processStart(process.pid), token: randomBytes(16).toString('hex') };
  await guardDisk(lockPath, () => take(lockPath, what, owner));
  return { isHeld: () => isNamedIn(lockPath, owner), release: () => giveBack(lockPath, owner) };
}

/**
 * A dead holder's lock is replaced, never removed: at no time is there none, which two could then create one after the other. Only who holds the lock's own
 * lock may replace it, and only the holder that it saw dead. That second lock is short-lived, and is taken over in the same way.
 */
async function take(lockPath: string, what: string, owner: Owner): Promise<void> {
  // Each turn either takes the lock, finds a live holder, or finds that the lock has changed hands or was given back.
  for (let attempt = 0; attempt < 5; attempt++) {
    if (await createWhole(lockPath, owner)) return;
    const holder = await readOwner(lockPath);
    if (holder === 'missing') continue;
    if (holder === 'damaged') throw locked(lockPath, what, 'a lock file that names no process', `If no other fedstill process runs, delete ${lockPath}.`);
    if (await isAlive(holder)) throw locked(lockPath, what, `process ${holder.pid} on ${holder.host} has it`, nextFor(holder, lockPath));
    if (await replaceDead(lockPath, holder, what, owner)) return;
  }
  throw locked(lockPath, what, 'several processes start at the same time', 'Start one of them.');
}

async function replaceDead(lockPath: string, dead: Owner, what: string, owner: Owner): Promise<boolean> {
  const guardPath = `${lockPath}.takeover`;
  await take(guardPath, what, owner);
  try {
    const holder = await readOwner(lockPath);
    if (typeof holder !== 'object' || holder.token !== dead.token) return false;
    const temporary = await writeWhole(lockPath, owner);
    await rename(temporary, lockPath);
    return true;
  } finally {
    await giveBack(guardPath, owner);
  }
}

async function giveBack(lockPath: string, owner: Owner): Promise<void> {
  const holder = await readOwner(lockPath);
  if (typeof holder === 'object' && holder.token === owner.token) await rm(lockPath, { force: true });
}

function isNamedIn(lockPath: string, owner: Owner): boolean {
  try {
    return parseOwner(readFileSync(lockPath, 'utf8')).token === owner.token;
  } catch {
    return false;
  }
}

const parseOwner = (text: string): Owner => OwnerSchema.parse(JSON.parse(text));

/** Creates the file with its content in one step; false when there is one. */
async function createWhole(path: string, owner: Owner): Promise<boolean> {
  const temporary = await writeWhole(path, owner);
  try {
    await link(temporary, path);
    return true;
  } catch (error) {
    if (isErrno(error) && error.code === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(temporary, { force: true });
  }
}

async function writeWhole(path: string, owner: Owner): Promise<string> {
  const temporary = `${path}.${owner.token}.new`;
  await writeFile(temporary, `${JSON.stringify(owner)}\n`, { mode: 0o600 });
  return temporary;
}

async function readOwner(path: string): Promise<Owner | 'missing' | 'damaged'> {
  try {
    return parseOwner(await readFile(path, 'utf8'));
  } catch (error) {
    if (isMissing(error)) return 'missing';
    if (isErrno(error)) throw error;
    return 'damaged';
  }
}

function locked(lockPath: string, what: string, got: string, next: string): FederationError {
  return new FederationError('state-locked', `Another process uses ${what}.`, { field: lockPath, expected: 'one process at a time', got, next });
}

function nextFor(holder: Owner, lockPath: string): string {
  if (holder.host === hostname()) return `Stop it first (kill ${holder.pid}), or choose another folder.`;
  return `Stop it on ${holder.host}. If that machine or container is gone, delete ${lockPath}.`;
}

/** When in doubt: alive. */
async function isAlive(owner: Owner): Promise<boolean> {
  if (owner.host !== hostname()) return true;
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    return !(isErrno(error) && error.code === 'ESRCH');
  }
  const started = await processStart(owner.pid);
  return started === '' || owner.started === '' || started === owner.started;
}

/** Boot id and start time of a process; '' where there is no /proc. */
async function processStart(pid: number): Promise<string> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    // Field 22, counted after the command name, which may hold spaces and parentheses (proc(5)).
    const startTicks = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
    return `${(await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()}:${startTicks}`;
  } catch {
    return '';
  }
}
