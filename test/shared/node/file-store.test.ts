import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { diskError } from '../../../shared/node/disk-errors.ts';
import { openFileStore, type FileStore } from '../../../shared/node/file-store.ts';
import { fromUtf8, utf8 } from '../../../shared/types/bytes.ts';
import { describeDurableStoreContract } from '../../contracts/durable-store.ts';

const execFileAsync = promisify(execFile);

let folder: string;
beforeEach(async () => {
  folder = join(await mkdtemp(join(tmpdir(), 'fedstill-store-')), 'run');
});
afterEach(() => rm(join(folder, '..'), { recursive: true, force: true }));

let contractFolder: string;
describeDurableStoreContract({
  name: 'files',
  create: async () => openFileStore((contractFolder = await mkdtemp(join(tmpdir(), 'fedstill-store-')))),
  reopen: () => openFileStore(contractFolder),
  teardown: () => rm(contractFolder, { recursive: true, force: true }),
});

/** Opens, works, closes. */
async function withStore<T>(work: (store: FileStore) => Promise<T>): Promise<T> {
  const store = await openFileStore(folder);
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}

const isRoot = process.getuid?.() === 0;

describe('files and modes', () => {
  it('keeps everything for this user alone', async () => {
    await withStore(async (store) => {
      await store.putBlob('rounds/1/box-secret', utf8('key'));
      await store.append('logs/journal', {});
      for (const path of ['', 'rounds', 'rounds/1', 'logs']) expect((await stat(join(folder, path))).mode & 0o777).toBe(0o700);
      for (const path of ['rounds/1/box-secret', 'logs/journal', '.lock']) expect((await stat(join(folder, path))).mode & 0o777).toBe(0o600);
    });
  });

  it('leaves no lock and no temporary file, and clears away those of a process that died', async () => {
    await mkdir(join(folder, '.tmp'), { recursive: true });
    await writeFile(join(folder, '.tmp', '7'), 'half a bl');
    await withStore((store) => store.putBlob('blob', utf8('x')));
    expect((await readdir(folder, { recursive: true })).sort()).toEqual(['.tmp', 'blob']);
  });

  it('leaves the old blob when a new one cannot be written', async () => {
    await withStore(async (store) => {
      await store.putBlob('a', utf8('old'));
      await mkdir(join(folder, 'b'));
      await writeFile(join(folder, 'b', 'file'), '');
      await expect(store.putBlob('b', utf8('new'))).rejects.toMatchObject({ code: 'file-unreadable', got: 'EISDIR' });
      await expect(store.putBlob('a/inside-a-blob', utf8('new'))).rejects.toMatchObject({ code: 'file-unreadable' });
      expect(await store.getBlob('a')).toEqual(utf8('old'));
      expect(await readdir(join(folder, '.tmp'))).toEqual([]);
    });
  });

  it.skipIf(isRoot)('says which folder may not be written', async () => {
    await withStore((store) => store.putBlob('blob', utf8('x')));
    await chmod(folder, 0o500);
    await expect(openFileStore(folder)).rejects.toMatchObject({ code: 'file-unreadable', got: 'EACCES' });
    await chmod(folder, 0o700);
  });

  it.skipIf(process.platform !== 'linux')('says that the disk is full, leaves no half a line, and goes on once there is room', async () => {
    // A limit on file sizes behaves as a full disk does: a part of the line fits, then writing fails.
    const child = fileURLToPath(new URL('../../support/full-disk-child.ts', import.meta.url));
    const { stdout } = await execFileAsync('sh', ['-c', 'trap "" XFSZ; ulimit -f 10; exec "$0" --import tsx "$1" "$2"', process.execPath, child, folder]);
    const told = JSON.parse(stdout) as { acknowledged: number; kept: number; code: string };
    expect(told.code).toBe('disk-full');
    expect(told.acknowledged).toBeGreaterThan(3);
    expect(told.kept).toBe(told.acknowledged);
    await withStore(async (store) => {
      await store.append('log', { room: true });
      const records = await store.readLog('log');
      expect(records.slice(told.acknowledged)).toEqual([{ short: true }, { room: true }]);
    });
  });

  it('gives each failure of the disk a code and a next step', () => {
    const failure = (code: string) => diskError(Object.assign(new Error(code), { code, syscall: 'write' }), '/run/x');
    const codes = { ENOSPC: 'disk-full', EDQUOT: 'disk-full', EACCES: 'file-unreadable', EROFS: 'file-unreadable', EPERM: 'file-unreadable', EMFILE: 'file-unreadable', ENOTDIR: 'file-unreadable', EIO: 'internal' };
    for (const [errno, code] of Object.entries(codes)) expect(failure(errno)).toMatchObject({ code, field: '/run/x', got: errno, next: expect.stringMatching(/.{10}/) as string });
    const bug = new TypeError('not the disk');
    expect(diskError(bug, '/run/x')).toBe(bug);
  });
});

describe('a log that a crash or a hand has touched', () => {
  const whole = '{"i":1}\n{"i":2}\n';

  for (const [what, tail] of [
    ['half a line', '{"i":3'],
    ['a whole line without its newline, which nobody was told of', '{"i":3}'],
    ['a last line that is no JSON', '{"i":\n'],
    ['a last line that is no object', '3\n'],
    ['zeros, as some file systems leave them', '\0\0\0\0'],
    ['broken UTF-8', Buffer.from([0x7b, 0xff, 0x7d, 0x0a])],
  ] as const) {
    it(`drops ${what}, and appends behind the whole lines`, async () => {
      for (const readFirst of [true, false]) {
        await mkdir(folder, { recursive: true });
        await writeFile(join(folder, 'log'), Buffer.concat([Buffer.from(whole), Buffer.from(tail)]));
        await withStore(async (store) => {
          if (readFirst) expect(await store.readLog('log')).toEqual([{ i: 1 }, { i: 2 }]);
          await store.append('log', { i: 4 });
        });
        expect(await readFile(join(folder, 'log'), 'utf8')).toBe(`${whole}{"i":4}\n`);
      }
    });
  }

  it('reads an empty log, and one of nothing but a torn line', async () => {
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'empty'), '');
    await writeFile(join(folder, 'torn'), '{"i"');
    await withStore(async (store) => {
      expect(await store.readLog('empty')).toEqual([]);
      expect(await store.readLog('torn')).toEqual([]);
    });
    expect(await readFile(join(folder, 'torn'), 'utf8')).toBe('');
  });

  it('refuses a log that is damaged in the middle, naming file and line, and leaves it as it is', async () => {
    await mkdir(folder, { recursive: true });
    const damaged = `${whole}garbage\n{"i":4}\n`;
    await writeFile(join(folder, 'log'), damaged);
    await withStore(async (store) => {
      const expected = { code: 'state-mismatch', field: join(folder, 'log'), got: expect.stringContaining('line 3') as string };
      await expect(store.readLog('log')).rejects.toMatchObject(expected);
      await expect(store.append('log', { i: 5 })).rejects.toMatchObject(expected);
    });
    expect(await readFile(join(folder, 'log'), 'utf8')).toBe(damaged);
  });
});

describe('one process at a time', () => {
  it('refuses a second one, naming the first', async () => {
    await withStore(async () => {
      await expect(openFileStore(folder)).rejects.toMatchObject({ code: 'state-locked', got: expect.stringContaining(`process ${process.pid}`) as string, next: expect.stringContaining(`kill ${process.pid}`) as string });
    });
    await withStore(async () => undefined);
  });

  const lock = (owner: object) => mkdir(folder, { recursive: true }).then(() => writeFile(join(folder, '.lock'), JSON.stringify(owner)));

  it('takes over from a dead process, and from an earlier one with the same id', async () => {
    await lock({ pid: 2 ** 22 + 1, host: hostname(), started: 'then', token: 't' });
    await withStore(async () => undefined);
    await lock({ pid: process.pid, host: hostname(), started: 'another boot:1', token: 't' });
    await withStore(async () => undefined);
  });

  it('does not judge a process of another host, or a lock that it cannot read', async () => {
    await lock({ pid: 1, host: 'elsewhere', started: 'then', token: 't' });
    await expect(openFileStore(folder)).rejects.toMatchObject({ code: 'state-locked', next: expect.stringContaining('elsewhere') as string });
    await writeFile(join(folder, '.lock'), 'garbage');
    await expect(openFileStore(folder)).rejects.toMatchObject({ code: 'state-locked', next: expect.stringContaining('delete') as string });
  });

  it('lets one of many win a dead process\'s lock', async () => {
    for (let round = 0; round < 20; round++) {
      await lock({ pid: 2 ** 22 + 1, host: hostname(), started: 'then', token: 't' });
      const opened = await Promise.allSettled(Array.from({ length: 8 }, () => openFileStore(folder)));
      const won = opened.filter((result) => result.status === 'fulfilled');
      expect(won.length).toBe(1);
      await won[0]!.value.close();
    }
  });
});

describe('a process that is killed', () => {
  it('loses nothing that it was told is durable, time after time', async () => {
    const child = fileURLToPath(new URL('../../support/store-child.ts', import.meta.url));
    let acknowledged = -1;
    const blobs = new Map<number, number>();
    for (let life = 0; life < 5; life++) {
      const process_ = spawn(process.execPath, ['--import', 'tsx', child, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
      let printed = '';
      process_.stdout.on('data', (data: Buffer) => (printed += data.toString()));
      const target = 30 + 40 * life;
      await expect.poll(() => printed.split('\n').length, { timeout: 20_000, interval: 5 }).toBeGreaterThan(target);
      process_.kill('SIGKILL');
      await once(process_, 'close');
      for (const line of printed.split('\n').slice(1, -1)) {
        acknowledged = Math.max(acknowledged, Number(line));
        blobs.set(Number(line) % 7, Math.max(blobs.get(Number(line) % 7) ?? -1, Number(line)));
      }

      await withStore(async (store) => {
        const records = (await store.readLog('log')) as { number: number }[];
        expect(records.map(({ number }) => number)).toEqual(Array.from(records, (_, i) => i));
        expect(records.length).toBeGreaterThan(acknowledged);
        for (const [slot, number] of blobs) {
          const blob = JSON.parse(fromUtf8((await store.getBlob(`blobs/${slot}`))!)) as { number: number };
          // Whole, of its slot; appenders that overtake each other may leave a neighbour's.
          expect(blob.number % 7).toBe(slot);
          expect(blob.number).toBeGreaterThanOrEqual(number - 4 * 7);
        }
      });
      await appendFile(join(folder, 'log'), '{"number":'); // and a torn line on top
    }
  }, 120_000);
});
