/**
 * The durable privacy ledger: JSON lines, mode 0600. `charge` returns after the line, the directory and the anchor are on
 * disk (fsync), so whatever was sent is in the ledger, whenever the power fails.
 *
 * Beside `<path>` lie:
 * - `<path>.anchor`: sequence and hash of the last acknowledged entry, replaced atomically after every append. An older
 *   ledger put back in place, a cut tail and a deleted ledger are noticed, as long as the anchor was not put back with it
 *   (a restored snapshot of the whole disk is NOT noticed; keep the anchor elsewhere with `anchorPath`).
 * - `<path>.lock`: who holds the ledger. A lock whose process is dead is taken over.
 *
 * Assumes a local file system with working fsync and exclusive create; not one shared between machines.
 */
import fs from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';
import { FederationError } from '../errors.ts';
import type { Logger } from '../ports/logger.ts';
import { silentLogger } from '../ports/logger.ts';
import type { ChargeReceipt, PrivacyLedger } from '../ports/privacy-ledger.ts';
import type { NeighboringRelation } from '../privacy/dp-event.ts';
import type { LedgerEntry, ReleaseCharge } from '../privacy/ledger.ts';
import { GENESIS_HASH, formatEntry, nextEntry, spent, verifyLedger } from '../privacy/ledger.ts';
import type { Digest } from '../types/ids.ts';
import type { Delta, Epsilon } from '../types/units.ts';
import { isErrno } from './disk-errors.ts';
import { acquireProcessLock, type ProcessLock } from './process-lock.ts';

const PRIVATE_FILE_MODE = 0o600;

export interface FileLedgerOptions {
  /** Default: `<path>.anchor`. On another disk it also reveals a restored snapshot of the first one. */
  readonly anchorPath?: string;
  readonly logger?: Logger;
}

interface Anchor {
  readonly sequence: number;
  readonly hash: Digest;
}
const AnchorSchema = z.strictObject({ sequence: z.int().min(0), hash: z.string().regex(/^sha256:[0-9a-f]{64}$/) });

/**
 * Opens the ledger at `path`, or starts one. Throws `state-locked` when another process holds it, `ledger-corrupt` when it
 * is damaged or older than its anchor, `disk-full`, or `file-unreadable`.
 */
export async function openFileLedger(path: string, options: FileLedgerOptions = {}): Promise<FileLedger> {
  const anchorPath = options.anchorPath ?? `${path}.anchor`;
  const lock = await acquireProcessLock(`${path}.lock`, 'this privacy ledger');
  try {
    return guardDisk(path, () => FileLedger.open(path, anchorPath, lock, options.logger ?? silentLogger));
  } catch (error) {
    await lock.release();
    throw error;
  }
}

export class FileLedger implements PrivacyLedger {
  /** Bytes of a torn last line that were cut off when the ledger was opened; 0 normally. */
  readonly droppedBytes: number;
  readonly #path: string;
  readonly #anchorPath: string;
  readonly #lock: ProcessLock;
  readonly #file: number;
  readonly #entries: LedgerEntry[];
  /** Length of the valid file, in bytes. */
  #length: number;
  #anchor: Anchor;
  #state: 'open' | 'broken' | 'closed' = 'open';

  private constructor(init: { path: string; anchorPath: string; lock: ProcessLock; file: number; entries: readonly LedgerEntry[]; length: number; anchor: Anchor; droppedBytes: number }) {
    this.#path = init.path;
    this.#anchorPath = init.anchorPath;
    this.#lock = init.lock;
    this.#file = init.file;
    this.#entries = [...init.entries];
    this.#length = init.length;
    this.#anchor = init.anchor;
    this.droppedBytes = init.droppedBytes;
  }

  /** Use `openFileLedger`, which holds the lock. */
  static open(path: string, anchorPath: string, lock: ProcessLock, logger: Logger): FileLedger {
    const anchor = readOrCreateAnchor(path, anchorPath);
    const isNew = !fs.existsSync(path);
    const file = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_APPEND | fs.constants.O_CREAT, PRIVATE_FILE_MODE);
    try {
      fs.fchmodSync(file, PRIVATE_FILE_MODE);
      if (isNew) syncDirectoryOf(path);
      const bytes = fs.readFileSync(file);
      // A line is acknowledged only after it is whole and synced: what follows the last line break was never acknowledged.
      const length = bytes.lastIndexOf(0x0a) + 1;
      const entries = verifyLedger(bytes.toString('utf8', 0, length).split('\n').slice(0, -1));
      checkAnchor(entries, anchor, path);
      const droppedBytes = bytes.length - length;
      if (droppedBytes > 0) {
        fs.ftruncateSync(file, length);
        fs.fsyncSync(file);
        logger.warn({ path, droppedBytes }, 'the privacy ledger ended in a torn line, left by a crash while charging; it was never acknowledged, nothing was sent for it, and it was cut off');
      }
      const ledger = new FileLedger({ path, anchorPath, lock, file, entries, length, anchor, droppedBytes });
      ledger.#raiseAnchor();
      return ledger;
    } catch (error) {
      fs.closeSync(file);
      throw error;
    }
  }

  /** Synchronous inside, so charges of one process never interleave. */
  async charge(charge: ReleaseCharge): Promise<ChargeReceipt> {
    this.#checkUsable();
    const receipt = nextEntry(this.#entries, charge);
    guardDisk(this.#path, () => {
      if (receipt.isNew) this.#append(receipt.entry);
      this.#raiseAnchor();
    });
    return receipt;
  }

  entries(): readonly LedgerEntry[] {
    return [...this.#entries];
  }

  spent(adjacency: NeighboringRelation, delta: Delta): Epsilon {
    return spent(this.#entries, adjacency, delta);
  }

  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    fs.closeSync(this.#file);
    await this.#lock.release();
  }

  #append(entry: LedgerEntry): void {
    const line = Buffer.from(`${formatEntry(entry)}\n`);
    try {
      for (let written = 0; written < line.length; ) written += fs.writeSync(this.#file, line, written);
      fs.fsyncSync(this.#file);
    } catch (error) {
      this.#undoAppend();
      throw error;
    }
    this.#length += line.length;
    this.#entries.push(entry);
  }

  /** Cuts off a line that did not reach the disk. After a failed fsync the file's state is unknown: it must be reopened. */
  #undoAppend(): void {
    this.#state = 'broken';
    try {
      fs.ftruncateSync(this.#file, this.#length);
      fs.fsyncSync(this.#file);
      this.#state = 'open';
    } catch {
      // Stays broken: refuses until reopened, when a torn line is cut off and a whole one is counted.
    }
  }

  /** Makes the anchor name the last entry. After this, that entry may be acknowledged. */
  #raiseAnchor(): void {
    const last = this.#entries.at(-1);
    if (last === undefined || this.#anchor.sequence === last.sequence) return;
    const anchor = { sequence: last.sequence, hash: last.hash };
    writeAnchor(this.#anchorPath, anchor);
    this.#anchor = anchor;
  }

  #checkUsable(): void {
    if (this.#state !== 'open') {
      throw new FederationError('internal', `the privacy ledger is ${this.#state}; nothing was charged or sent`, { field: 'ledger', next: 'Open the ledger again.' });
    }
    const isOurs = fs.fstatSync(this.#file).size === this.#length && this.#lock.isHeld();
    if (isOurs) return;
    throw new FederationError('state-locked', 'another process has written to the privacy ledger; nothing was charged or sent', {
      field: 'ledger',
      expected: 'one process per ledger',
      next: `Stop the other process that uses ${this.#path}, then start this one again.`,
    });
  }
}

function readOrCreateAnchor(path: string, anchorPath: string): Anchor {
  if (!fs.existsSync(anchorPath)) {
    // The anchor is made before the ledger, so a ledger without one has lost it.
    if (fs.existsSync(path)) throw corruptLedger(path, 'the anchor that was written with the ledger', 'no anchor');
    const genesis = { sequence: 0, hash: GENESIS_HASH };
    writeAnchor(anchorPath, genesis);
    return genesis;
  }
  try {
    return AnchorSchema.parse(JSON.parse(fs.readFileSync(anchorPath, 'utf8'))) as Anchor;
  } catch (error) {
    if (isErrno(error)) throw error;
    throw corruptLedger(path, 'an anchor with a sequence and a hash', 'something else', error);
  }
}

/** The ledger must contain the anchored entry. It may be longer: a crash can fall between append and anchor. */
function checkAnchor(entries: readonly LedgerEntry[], anchor: Anchor, path: string): void {
  const anchored = anchor.sequence === 0 ? GENESIS_HASH : entries[anchor.sequence - 1]?.hash;
  if (anchored === anchor.hash) return;
  throw corruptLedger(path, `entry ${anchor.sequence} with the anchored hash`, anchored === undefined ? `${entries.length} entries: an older ledger` : 'another history');
}

function corruptLedger(path: string, expected: string, got: string, cause?: unknown): FederationError {
  return new FederationError('ledger-corrupt', 'the privacy ledger does not match its anchor; nothing is sent while it does not', {
    field: path,
    expected,
    got,
    next: 'Restore the newest ledger together with its anchor, or stop taking part with this private dataset.',
    cause,
  });
}

/** Atomic and durable: temporary file, fsync, rename, fsync of the directory. */
function writeAnchor(anchorPath: string, anchor: Anchor): void {
  const temporary = `${anchorPath}.new`;
  const file = fs.openSync(temporary, 'w', PRIVATE_FILE_MODE);
  try {
    fs.writeFileSync(file, `${JSON.stringify(anchor)}\n`);
    fs.fsyncSync(file);
  } finally {
    fs.closeSync(file);
  }
  fs.renameSync(temporary, anchorPath);
  syncDirectoryOf(anchorPath);
}

function syncDirectoryOf(path: string): void {
  // Windows can't open a directory for fsync; its rename is journalled.
  if (process.platform === 'win32') return;
  const directory = fs.openSync(dirname(path), 'r');
  try {
    fs.fsyncSync(directory);
  } finally {
    fs.closeSync(directory);
  }
}

/** Runs file work and gives its failures our codes. */
function guardDisk<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!isErrno(error)) throw error;
    if (error.code === 'ENOSPC' || error.code === 'EDQUOT') {
      throw new FederationError('disk-full', 'the disk is full: the privacy ledger could not be written, and nothing was sent', { field: path, next: 'Free some space, then start again.', cause: error });
    }
    throw new FederationError('file-unreadable', `the privacy ledger could not be read or written (${error.code ?? error.message}), and nothing was sent`, {
      field: path,
      next: 'Check that the folder exists and that you may write to it.',
      cause: error,
    });
  }
}
