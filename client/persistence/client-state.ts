/**
 * Where a client keeps what must outlive it:
 *
 *     <state>/identity                              its Ed25519 seed, mode 0600
 *     <state>/ledger.jsonl (and .anchor, .lock)     everything that it has ever released, over all tasks
 *     <state>/tasks/<task>-<fingerprint>/           one task at one coordinator: progress, student, outbox, transfer set, metrics
 *
 * One process at a time: the ledger's lock is the folder's. Copying a state folder and using both copies spends the same budget twice.
 */
import { chmod, mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { IdentityKeys } from '../../shared/crypto/signature.ts';
import { FederationError } from '../../shared/errors.ts';
import { openFileLedger } from '../../shared/node/file-ledger.ts';
import { openFileStore } from '../../shared/node/file-store.ts';
import { loadOrCreateIdentity } from '../../shared/node/identity-file.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { Logger } from '../../shared/ports/logger.ts';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import type { TaskId } from '../../shared/types/ids.ts';

export interface ClientState {
  /** Absolute path. */
  readonly directory: string;
  readonly identity: IdentityKeys;
  readonly ledger: PrivacyLedger;
  /** The store of one task at one coordinator; closed with the state. */
  openTask(task: TaskId, coordinatorFingerprint: string): Promise<DurableStore>;
  close(): Promise<void>;
}

/**
 * Opens the state folder, making it when needed. Throws `state-locked` when another process uses it, `file-unreadable` when the identity could be read by
 * others, `ledger-corrupt`, `state-mismatch` or `disk-full`.
 */
export async function openClientState(directory: string, { random, logger }: { readonly random: RandomSource; readonly logger: Logger }): Promise<ClientState> {
  const root = resolve(directory);
  await makePrivateFolder(root);
  const ledger = await openFileLedger(join(root, 'ledger.jsonl'), { logger });
  const stores: DurableStore[] = [];
  const close = async () => {
    for (const store of stores) await store.close();
    await ledger.close();
  };
  try {
    const identity = await loadOrCreateIdentity(join(root, 'identity'), random);
    return {
      directory: root,
      identity,
      ledger,
      async openTask(task, coordinatorFingerprint) {
        const store = await openFileStore(taskFolder(root, task, coordinatorFingerprint));
        stores.push(store);
        return store;
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Both parts have passed their schemas: neither can leave the folder. */
export function taskFolder(stateDirectory: string, task: TaskId, coordinatorFingerprint: string): string {
  return join(stateDirectory, 'tasks', `${task}-${coordinatorFingerprint}`);
}

async function makePrivateFolder(path: string): Promise<void> {
  try {
    // An existing folder keeps its mode: what is secret in it has a mode of its own.
    if ((await mkdir(path, { recursive: true })) !== undefined) await chmod(path, 0o700);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    throw new FederationError('file-unreadable', `The state folder cannot be made (${code}).`, { field: path, expected: 'a folder that can be written', got: code, next: 'Choose another folder with --state.', cause: error });
  }
}
