import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { openFileLedger } from '../../../shared/node/file-ledger.ts';
import { describeLedgerContract } from '../../contracts/privacy-ledger.ts';
import { testCharge } from '../../support/test-charge.ts';

let folder = '';
let path = '';
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'fedstill-ledger-'));
  path = join(folder, 'ledger.jsonl');
});
afterEach(() => {
  vi.restoreAllMocks();
  fs.rmSync(folder, { recursive: true, force: true });
});

describeLedgerContract('file', { setup: () => openFileLedger(path), teardown: (ledger) => ledger.close() });

async function fill(rounds: number): Promise<void> {
  const ledger = await openFileLedger(path);
  for (let round = 1; round <= rounds; round++) await ledger.charge(testCharge(round));
  await ledger.close();
}
const reopen = async () => {
  const ledger = await openFileLedger(path);
  const result = { entries: ledger.entries(), droppedBytes: ledger.droppedBytes };
  await ledger.close();
  return result;
};
function failWith(code: string): never {
  throw Object.assign(new Error(code), { code, syscall: 'write' });
}

describe('the file', () => {
  it('survives closing, and is readable by its owner only', async () => {
    await fill(3);
    expect((await reopen()).entries.map((entry) => entry.round)).toEqual([1, 2, 3]);
    expect(fs.statSync(path).mode & 0o777).toBe(0o600);
    expect(fs.statSync(`${path}.anchor`).mode & 0o777).toBe(0o600);
    expect(fs.readdirSync(folder).sort()).toEqual(['ledger.jsonl', 'ledger.jsonl.anchor']);
  });

  it('tightens the mode of a ledger that was copied with another one', async () => {
    await fill(1);
    fs.chmodSync(path, 0o644);
    await reopen();
    expect(fs.statSync(path).mode & 0o777).toBe(0o600);
  });

  it('syncs the line and the anchor before it acknowledges', async () => {
    const ledger = await openFileLedger(path);
    const order: string[] = [];
    const [write, sync, rename] = [fs.writeSync.bind(fs), fs.fsyncSync.bind(fs), fs.renameSync.bind(fs)];
    vi.spyOn(fs, 'writeSync').mockImplementation(((...args: Parameters<typeof write>) => (order.push('write line'), write(...args))));
    vi.spyOn(fs, 'fsyncSync').mockImplementation((file) => (order.push('fsync'), sync(file)));
    vi.spyOn(fs, 'renameSync').mockImplementation((from, to) => (order.push('rename anchor'), rename(from, to)));
    await ledger.charge(testCharge(1));
    expect(order).toEqual(['write line', 'fsync', 'fsync', 'rename anchor', 'fsync']);
    await ledger.close();
  });

  it('says file-unreadable for a folder that is not there', async () => {
    await expect(openFileLedger(join(folder, 'missing', 'ledger.jsonl'))).rejects.toMatchObject({ code: 'file-unreadable' });
  });
});

describe('crashes', () => {
  it('cuts off a torn last line: it was never acknowledged', async () => {
    await fill(2);
    const whole = fs.readFileSync(path);
    const next = '{"at":1700000000003,"contribution":"sha256:00';
    fs.appendFileSync(path, next);
    expect(await reopen()).toMatchObject({ droppedBytes: next.length, entries: [{ round: 1 }, { round: 2 }] });
    expect(fs.readFileSync(path)).toEqual(whole);
    await fill(3);
    expect((await reopen()).entries).toHaveLength(3);
  });

  it('keeps a whole line whose anchor was not written yet', async () => {
    await fill(2);
    const olderAnchor = fs.readFileSync(`${path}.anchor`);
    await fill(3);
    fs.writeFileSync(`${path}.anchor`, olderAnchor);
    expect((await reopen()).entries).toHaveLength(3);
    expect(JSON.parse(fs.readFileSync(`${path}.anchor`, 'utf8'))).toMatchObject({ sequence: 3 });
  });

  it('takes over the lock of a dead process, also one that had our own process id', async () => {
    const dead = spawn(process.execPath, ['-e', '']);
    await once(dead, 'exit');
    await fill(1);
    await reopen();
    for (const pid of [dead.pid!, process.pid]) {
      const ledger = await openFileLedger(path);
      const lock = JSON.parse(fs.readFileSync(`${path}.lock`, 'utf8')) as Record<string, unknown>;
      await ledger.close();
      if (pid === process.pid && lock['started'] === '') continue;
      fs.writeFileSync(`${path}.lock`, JSON.stringify({ ...lock, pid, started: 'an earlier boot:1', token: 'another' }));
      expect((await reopen()).entries).toHaveLength(1);
    }
  });

  it('never has less than what a killed process was told, wherever the kill falls', { timeout: 120_000 }, async () => {
    const child = fileURLToPath(new URL('../../support/ledger-child.ts', import.meta.url));
    let highest = 0;
    for (let attempt = 0; attempt < 6; attempt++) {
      const running = spawn(process.execPath, ['--import', 'tsx', child, path, String(highest + 1)], { stdio: ['ignore', 'pipe', 'inherit'] });
      let output = '';
      running.stdout.setEncoding('utf8').on('data', (text: string) => {
        const wasCharging = output.includes('charged');
        output += text;
        // Once it charges, however long that took; at a moment that varies with the attempt.
        if (!wasCharging && output.includes('charged')) setTimeout(() => running.kill('SIGKILL'), 20 + 13 * attempt);
      });
      await once(running, 'close');
      const told = [...output.matchAll(/^charged (\d+)$/gm)].map((match) => Number(match[1]));
      expect(told.length).toBeGreaterThan(0);
      const { entries } = await reopen();
      expect(entries.map((entry) => entry.round)).toEqual(expect.arrayContaining(told));
      // At most the one charge that was under way is there without having been told.
      expect(entries.length).toBeGreaterThanOrEqual(told.at(-1)!);
      expect(entries.length).toBeLessThanOrEqual(told.at(-1)! + 1);
      highest = entries.length;
    }
  });
});

describe('a full disk', () => {
  it.each(['ENOSPC', 'EDQUOT'])('%s while appending: disk-full, nothing charged, the line is gone, and later it works again', async (code) => {
    const ledger = await openFileLedger(path);
    await ledger.charge(testCharge(1));
    const before = fs.readFileSync(path);
    const write = fs.writeSync.bind(fs) as (file: number, bytes: Uint8Array, offset: number, length: number) => number;
    let calls = 0;
    // Half a line fits.
    vi.spyOn(fs, 'writeSync').mockImplementation(((file: number, bytes: Uint8Array) => (calls++ === 0 ? write(file, bytes, 0, 100) : failWith(code))) as typeof fs.writeSync);
    await expect(ledger.charge(testCharge(2))).rejects.toMatchObject({ code: 'disk-full' });
    vi.restoreAllMocks();
    expect(ledger.entries()).toHaveLength(1);
    expect(fs.readFileSync(path)).toEqual(before);
    expect((await ledger.charge(testCharge(2))).isNew).toBe(true);
    await ledger.close();
  });

  it('while syncing and cutting back: refuses until it is opened again', async () => {
    const ledger = await openFileLedger(path);
    vi.spyOn(fs, 'fsyncSync').mockImplementation(() => failWith('EIO'));
    await expect(ledger.charge(testCharge(1))).rejects.toMatchObject({ code: 'file-unreadable' });
    vi.restoreAllMocks();
    await expect(ledger.charge(testCharge(1))).rejects.toMatchObject({ code: 'internal' });
    await ledger.close();
    expect((await reopen()).entries).toHaveLength(0);
  });

  it('while writing the anchor: not acknowledged, counted all the same, and the retry costs nothing more', async () => {
    const ledger = await openFileLedger(path);
    vi.spyOn(fs, 'renameSync').mockImplementation(() => failWith('ENOSPC'));
    await expect(ledger.charge(testCharge(1))).rejects.toMatchObject({ code: 'disk-full' });
    vi.restoreAllMocks();
    expect(await ledger.charge(testCharge(1))).toMatchObject({ isNew: false, entry: { sequence: 1 } });
    expect(JSON.parse(fs.readFileSync(`${path}.anchor`, 'utf8'))).toMatchObject({ sequence: 1 });
    await ledger.close();
  });
});

describe('two processes', () => {
  it('refuses a second opener, and lets it in after the first has closed', async () => {
    const first = await openFileLedger(path);
    await expect(openFileLedger(path)).rejects.toMatchObject({ code: 'state-locked' });
    await first.close();
    expect((await reopen()).entries).toEqual([]);
  });

  it('refuses a lock from another machine, and one that names nobody', async () => {
    await fill(1);
    fs.writeFileSync(`${path}.lock`, JSON.stringify({ pid: 1, host: 'another-machine', started: '', token: 'x' }));
    await expect(openFileLedger(path)).rejects.toMatchObject({ code: 'state-locked' });
    fs.writeFileSync(`${path}.lock`, '');
    await expect(openFileLedger(path)).rejects.toMatchObject({ code: 'state-locked' });
  });

  it('stops when someone else writes to the ledger or takes the lock away', async () => {
    const first = await openFileLedger(path);
    await first.charge(testCharge(1));
    fs.rmSync(`${path}.lock`);
    await expect(first.charge(testCharge(2))).rejects.toMatchObject({ code: 'state-locked' });
    const second = await openFileLedger(path);
    await second.charge(testCharge(2));
    await expect(first.charge(testCharge(3))).rejects.toMatchObject({ code: 'state-locked' });
    await first.close();
    await expect(openFileLedger(path)).rejects.toMatchObject({ code: 'state-locked' });
    await second.close();
    expect((await reopen()).entries).toHaveLength(2);
  });
});

describe('rollback and damage', () => {
  const corrupt = { code: 'ledger-corrupt', fault: 'refused' };

  it('refuses an older ledger put back in place', async () => {
    await fill(2);
    const older = fs.readFileSync(path);
    await fill(3);
    fs.writeFileSync(path, older);
    await expect(openFileLedger(path)).rejects.toMatchObject(corrupt);
  });

  it('refuses a ledger whose last line lost its line break', async () => {
    await fill(2);
    fs.truncateSync(path, fs.statSync(path).size - 1);
    await expect(openFileLedger(path)).rejects.toMatchObject(corrupt);
  });

  it('refuses a deleted ledger, a deleted anchor and a damaged anchor', async () => {
    await fill(2);
    const [ledger, anchor] = [fs.readFileSync(path), fs.readFileSync(`${path}.anchor`)];
    fs.rmSync(path);
    await expect(openFileLedger(path)).rejects.toMatchObject(corrupt);
    fs.writeFileSync(path, ledger);
    fs.rmSync(`${path}.anchor`);
    await expect(openFileLedger(path)).rejects.toMatchObject(corrupt);
    fs.writeFileSync(`${path}.anchor`, '{"sequence":0}');
    await expect(openFileLedger(path)).rejects.toMatchObject(corrupt);
    fs.writeFileSync(`${path}.anchor`, anchor);
    expect((await reopen()).entries).toHaveLength(2);
  });

  it('refuses a flipped bit, and another ledger of the same length', async () => {
    await fill(3);
    const bytes = fs.readFileSync(path);
    bytes[bytes.length >> 1]! ^= 1;
    fs.writeFileSync(path, bytes);
    await expect(openFileLedger(path)).rejects.toMatchObject(corrupt);
    const anchor = fs.readFileSync(`${path}.anchor`);
    fs.rmSync(path);
    fs.rmSync(`${path}.anchor`);
    const other = await openFileLedger(path);
    for (const round of [4, 5, 6]) await other.charge(testCharge(round));
    await other.close();
    fs.writeFileSync(`${path}.anchor`, anchor);
    await expect(openFileLedger(path)).rejects.toMatchObject(corrupt);
  });

  it('detects a restored snapshot of the ledger when the anchor is kept elsewhere', async () => {
    const anchorPath = join(folder, 'elsewhere.anchor');
    const first = await openFileLedger(path, { anchorPath });
    await first.charge(testCharge(1));
    const snapshot = fs.readFileSync(path);
    await first.charge(testCharge(2));
    await first.close();
    fs.writeFileSync(path, snapshot);
    await expect(openFileLedger(path, { anchorPath })).rejects.toMatchObject(corrupt);
  });

  it('gives the lock back when it refuses', async () => {
    await fill(1);
    const good = fs.readFileSync(path);
    fs.writeFileSync(path, 'not a ledger\n');
    await expect(openFileLedger(path)).rejects.toMatchObject(corrupt);
    fs.writeFileSync(path, good);
    expect((await reopen()).entries).toHaveLength(1);
  });
});
