import { describe, expect, it } from 'vitest';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import { sleep } from '../../../shared/ports/clock.ts';
import { VirtualClock } from '../../../simulations/network/virtual-clock.ts';

describe('a virtual clock', () => {
  it('fires timers by due time, and in the order of asking when they are due together', async () => {
    const clock = new VirtualClock();
    const generator = new SeededGenerator(7);
    const asked = Array.from({ length: 500 }, (_, order) => ({ order, at: generator.integer(40) }));
    const fired: typeof asked = [];
    for (const entry of asked) clock.schedule(entry.at, () => fired.push(entry));
    await clock.runUntil(sleep(clock, 1000));
    expect(fired).toEqual([...asked].sort((a, b) => a.at - b.at || a.order - b.order));
  });

  it('shows each callback its own time, and never goes back', async () => {
    const clock = new VirtualClock(100);
    const times: number[] = [];
    clock.schedule(30, () => {
      times.push(clock.now());
      clock.schedule(-5, () => times.push(clock.now()));
      clock.schedule(0, () => times.push(clock.now()));
    });
    clock.schedule(20, () => times.push(clock.now()));
    await clock.runUntil(sleep(clock, 31));
    expect(times).toEqual([120, 130, 130, 130]);
    expect(clock.now()).toBe(131);
  });

  it('counts whole milliseconds, as the ledger does, and never fires early', async () => {
    const clock = new VirtualClock();
    const times: number[] = [];
    for (const delay of [0.2, 1, 1.0001, 40.143]) clock.schedule(delay, () => times.push(clock.now()));
    await clock.runUntil(sleep(clock, 50));
    expect(times).toEqual([1, 1, 2, 41]);
  });

  it('fires no timer that was cancelled, and does not wait for it either', async () => {
    const clock = new VirtualClock();
    const fired: string[] = [];
    const late = clock.schedule(1_000_000, () => fired.push('late'));
    clock.schedule(5, () => late.cancel());
    const done = clock.schedule(10, () => fired.push('kept'));
    await clock.runUntil(sleep(clock, 10));
    done.cancel(); // has fired
    expect(fired).toEqual(['kept']);
    expect(clock.now()).toBe(10);
    await expect(clock.runUntil(new Promise(() => undefined))).rejects.toThrow('stuck');
    expect(clock.now()).toBe(10);
  });

  it('lets promises settle before it goes on', async () => {
    const clock = new VirtualClock();
    const log: string[] = [];
    clock.schedule(1, () => {
      void (async () => {
        for (let i = 0; i < 100; i++) await Promise.resolve();
        log.push(`chain at ${clock.now()}`);
      })();
    });
    clock.schedule(2, () => log.push(`timer at ${clock.now()}`));
    await clock.runUntil(sleep(clock, 3));
    expect(log).toEqual(['chain at 1', 'timer at 2']);
  });

  it('stands still while real work is held, also overlapping and failing work', async () => {
    const clock = new VirtualClock();
    const work = (ms: number, fails = false) => clock.hold(() => new Promise<number>((resolve, reject) => setTimeout(() => (fails ? reject(new Error('failed')) : resolve(clock.now())), ms)));
    clock.schedule(1, () => undefined);
    const seen = await clock.runUntil(Promise.all([work(20), work(5), work(10, true).catch(() => 'failed')]));
    expect(seen).toEqual([0, 0, 'failed']);
    expect(await clock.runUntil(sleep(clock, 7).then(() => clock.now()))).toBe(7);
  });

  it('can be asked for timers by work that it holds', async () => {
    const clock = new VirtualClock();
    const fired: number[] = [];
    await clock.runUntil(
      clock.hold(async () => {
        clock.schedule(3, () => fired.push(clock.now()));
        await new Promise((resolve) => setTimeout(resolve, 5));
        expect(fired).toEqual([]);
      }).then(() => sleep(clock, 4)),
    );
    expect(fired).toEqual([3]);
  });

  it('says that nothing can happen any more instead of waiting for ever', async () => {
    await expect(new VirtualClock().runUntil(new Promise(() => undefined))).rejects.toThrow('stuck');
  });

  it('passes on what its work throws', async () => {
    const clock = new VirtualClock();
    await expect(clock.runUntil(sleep(clock, 5).then(() => Promise.reject(new Error('mine'))))).rejects.toThrow('mine');
  });
});
