/** What every store must do, wherever it keeps things. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import { utf8 } from '../../shared/types/bytes.ts';

export interface DurableStoreSetup {
  readonly name: string;
  /** An empty store. */
  create(): Promise<DurableStore>;
  /** What the next process finds, after `store.close()`. */
  reopen(store: DurableStore): Promise<DurableStore>;
  teardown?(): Promise<void>;
}

export function describeDurableStoreContract(setup: DurableStoreSetup): void {
  describe(`durable store contract: ${setup.name}`, () => {
    let store: DurableStore;
    beforeEach(async () => {
      store = await setup.create();
    });
    afterEach(async () => {
      await store.close();
      await setup.teardown?.();
    });
    const reopen = async () => {
      await store.close();
      store = await setup.reopen(store);
    };

    it('gives back what was put, also after a restart', async () => {
      const bytes = Uint8Array.from({ length: 70_000 }, (_, i) => (i * 31) & 255);
      await store.putBlob('rounds/12/contributions/abc.bin', bytes);
      await store.putBlob('empty', new Uint8Array());
      expect(await store.getBlob('rounds/12/contributions/abc.bin')).toEqual(bytes);
      await reopen();
      expect(await store.getBlob('rounds/12/contributions/abc.bin')).toEqual(bytes);
      expect(await store.getBlob('empty')).toEqual(new Uint8Array());
      expect(await store.getBlob('rounds/12/contributions/other')).toBeUndefined();
    });

    it('replaces a blob as a whole, and the last call wins', async () => {
      await store.putBlob('blob', utf8('long and old'));
      await Promise.all([store.putBlob('blob', utf8('first')), store.putBlob('blob', utf8('second')), store.deleteBlob('blob'), store.putBlob('blob', utf8('last'))]);
      expect(await store.getBlob('blob')).toEqual(utf8('last'));
    });

    it('deletes a blob for good, and does not mind when there is none', async () => {
      await store.putBlob('secret', utf8('key'));
      await store.deleteBlob('secret');
      await store.deleteBlob('secret');
      await store.deleteBlob('never/was');
      expect(await store.getBlob('secret')).toBeUndefined();
      await reopen();
      expect(await store.getBlob('secret')).toBeUndefined();
    });

    it('keeps its own copy of what it is given, and gives copies', async () => {
      const bytes = Uint8Array.of(1, 2, 3);
      const put = store.putBlob('blob', bytes);
      bytes.fill(9);
      await put;
      (await store.getBlob('blob'))!.fill(9);
      expect(await store.getBlob('blob')).toEqual(Uint8Array.of(1, 2, 3));
      const record = { list: [1] };
      const appended = store.append('log', record);
      record.list.push(2);
      await appended;
      expect(await store.readLog('log')).toEqual([{ list: [1] }]);
    });

    it('keeps a log in the order of the calls, also of many at once', async () => {
      expect(await store.readLog('log')).toEqual([]);
      await store.append('log', { first: true });
      await Promise.all(Array.from({ length: 500 }, (_, i) => store.append('log', { i })));
      const expected = [{ first: true }, ...Array.from({ length: 500 }, (_, i) => ({ i }))];
      expect(await store.readLog('log')).toEqual(expected);
      await reopen();
      expect(await store.readLog('log')).toEqual(expected);
      await store.append('log', { after: 'restart' });
      await reopen();
      expect(await store.readLog('log')).toEqual([...expected, { after: 'restart' }]);
    });

    it('keeps what JSON can hold, newlines and other scripts included', async () => {
      const record = { text: 'two\nlines  ‮😀\u0000\\"', nested: [{ deep: null }, [], 1e300, -0.1], ['__proto__x']: true };
      await store.append('a/log.jsonl', record);
      await store.append('other-log', {});
      await reopen();
      expect(await store.readLog('a/log.jsonl')).toEqual([record]);
      expect(await store.readLog('other-log')).toEqual([{}]);
    });

    it('refuses a record that a reader could not read', async () => {
      for (const record of [new Date(0), { toJSON: () => undefined }, { toJSON: () => 5 }]) await expect(store.append('log', record)).rejects.toMatchObject({ code: 'internal', field: 'record' });
      expect(await store.readLog('log')).toEqual([]);
    });

    it('refuses names that could leave its folder or mean another file elsewhere', async () => {
      const names = ['', '.', '..', '../x', 'a/../b', '/etc/passwd', 'a//b', 'a/', '/a', 'A', 'a b', 'a\\b', 'a\u0000', 'ä', '.hidden', 'a/.lock', 'c:', 'x'.repeat(300), 'a\n'];
      for (const name of names) {
        for (const attempt of [store.putBlob(name, new Uint8Array()), store.getBlob(name), store.deleteBlob(name), store.append(name, {}), store.readLog(name)]) {
          await expect(attempt).rejects.toMatchObject({ code: 'internal', field: 'name' });
        }
      }
    });

    it('finishes what it was asked for before it closes, and refuses everything after', async () => {
      const written = [store.putBlob('blob', utf8('x')), store.append('log', { i: 1 }), store.append('log', { i: 2 })];
      await store.close();
      await Promise.all(written);
      await store.close();
      await expect(store.getBlob('blob')).rejects.toMatchObject({ code: 'internal' });
      await expect(store.append('log', {})).rejects.toMatchObject({ code: 'internal' });
      store = await setup.reopen(store);
      expect(await store.readLog('log')).toEqual([{ i: 1 }, { i: 2 }]);
      expect(await store.getBlob('blob')).toEqual(utf8('x'));
    });
  });
}
