import { chmod, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openClientState } from '../../client/persistence/client-state.ts';
import { systemRandom } from '../../shared/node/system-random.ts';
import { silentLogger } from '../../shared/ports/logger.ts';
import type { TaskId } from '../../shared/types/ids.ts';
import { rejection } from './harness.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fedstill-client-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const open = () => openClientState(join(folder, 'state'), { random: systemRandom, logger: silentLogger });

describe('the state folder', () => {
  it('keeps identity, ledger and task over restarts', async () => {
    const first = await open();
    const store = await first.openTask('toy' as TaskId, 'a'.repeat(26));
    await store.putBlob('student', Uint8Array.of(1, 2));
    await first.close();
    const second = await open();
    expect(second.identity.publicKey).toEqual(first.identity.publicKey);
    const again = await second.openTask('toy' as TaskId, 'a'.repeat(26));
    expect(await again.getBlob('student')).toEqual(Uint8Array.of(1, 2));
    const other = await second.openTask('toy' as TaskId, 'b'.repeat(26));
    expect(await other.getBlob('student')).toBeUndefined();
    await second.close();
  });

  it('belongs to one process', async () => {
    const first = await open();
    expect(await rejection(open())).toMatchObject({ code: 'state-locked' });
    await first.close();
    await (await open()).close();
  });

  it('is for its owner alone, and refuses an identity that others may read', async () => {
    await (await open()).close();
    const identity = join(folder, 'state', 'identity');
    expect((await stat(identity)).mode & 0o777).toBe(0o600);
    expect((await stat(join(folder, 'state'))).mode & 0o777).toBe(0o700);
    await chmod(identity, 0o644);
    expect(await rejection(open())).toMatchObject({ code: 'file-unreadable', expected: 'mode 600', got: 'mode 644' });
    await chmod(identity, 0o600);
    await (await open()).close(); // the refused attempt has given its lock back
  });
});
