import { afterEach, expect, it, vi } from 'vitest';
import { systemClock } from '../../../shared/node/system-clock.ts';
import { systemRandom } from '../../../shared/node/system-random.ts';
import { sleep } from '../../../shared/ports/clock.ts';

afterEach(() => vi.useRealTimers());

it('tells the time of day, and waits', async () => {
  expect(Math.abs(systemClock.now() - Date.now())).toBeLessThan(1000);
  await sleep(systemClock, 5);
  await sleep(systemClock, -5);
});

it('cancels a timer', async () => {
  let fired = false;
  systemClock.schedule(1, () => (fired = true)).cancel();
  await sleep(systemClock, 30);
  expect(fired).toBe(false);
});

it('waits longer than Node\'s timers can, and can be cancelled then too', () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  const days60 = 60 * 24 * 3_600_000;
  const fired: string[] = [];
  systemClock.schedule(days60, () => fired.push('sixty days'));
  const cancelled = systemClock.schedule(days60, () => fired.push('cancelled'));
  systemClock.schedule(Infinity, () => fired.push('never'));
  vi.advanceTimersByTime(days60 - 10_000);
  cancelled.cancel();
  expect(fired).toEqual([]);
  vi.advanceTimersByTime(10_001);
  expect(fired).toEqual(['sixty days']);
});

it('refuses a delay that is no number', () => {
  expect(() => systemClock.schedule(NaN, () => undefined)).toThrow(RangeError);
});

it('draws fresh bytes that share no buffer', () => {
  const [a, b] = [systemRandom.bytes(32), systemRandom.bytes(32)];
  expect(a).not.toEqual(b);
  expect(a.buffer.byteLength).toBe(32);
  expect(systemRandom.bytes(0).length).toBe(0);
});
