/** Which process runs when: with processes that a test ends by hand. */
import { describe, expect, it } from 'vitest';
import type { Outcome } from '../../../simulations/outcome.ts';
import { runPoints, type RunPointsOptions } from '../../../simulations/experiment/run-points.ts';
import type { Point } from '../../../simulations/experiment/points.ts';
import type { PointEnd } from '../../../simulations/experiment/start-point.ts';

const outcome: PointEnd = { kind: 'outcome', outcome: { reason: 'rounds-done' } as Outcome };
const died: PointEnd = { kind: 'died', how: 'SIGKILL' };

/** `scripts`: how each point's processes end, by index; a process without a script runs until it is stopped. */
function scene(count: number, workers: number, scripts: Readonly<Record<number, readonly PointEnd[]>>, changes: Partial<RunPointsOptions> = {}) {
  const log: string[] = [];
  const abort = new AbortController();
  let running = 0;
  let most = 0;
  const attempts = new Map<number, number>();
  const options: RunPointsOptions = {
    points: Array.from({ length: count }, (_, index) => ({ index }) as Point),
    workers,
    signal: abort.signal,
    start: ({ index }) => {
      const attempt = (attempts.get(index) ?? 0) + 1;
      attempts.set(index, attempt);
      most = Math.max(most, ++running);
      const scripted = scripts[index]?.[attempt - 1];
      let stop: (end: PointEnd) => void = () => undefined;
      const ended = new Promise<PointEnd>((resolve) => (stop = resolve)).finally(() => running--);
      if (scripted !== undefined) setImmediate(() => stop(scripted));
      log.push(`start ${index}`);
      return { attempt, process: { pid: 1, ended, stop: () => stop(died) } };
    },
    onSettled: ({ point, attempt, end }) => Promise.resolve(void log.push(`${end.kind} ${point.index} after ${attempt}`)),
    onDied: ({ point, attempt }) => Promise.resolve(void log.push(`again ${point.index} after ${attempt}`)),
    onStopped: ({ point }) => Promise.resolve(void log.push(`stopped ${point.index}`)),
    ...changes,
  };
  return { log, abort, options, most: () => most, running: () => running };
}

describe('points that run', () => {
  it('are as many at a time as there are workers, in the order of the sweep', async () => {
    const { log, options, most, running } = scene(5, 2, { 0: [outcome], 1: [outcome], 2: [outcome], 3: [outcome], 4: [outcome] });
    await runPoints(options);
    expect(log.filter((line) => line.startsWith('start'))).toEqual(['start 0', 'start 1', 'start 2', 'start 3', 'start 4']);
    expect(log.filter((line) => line.startsWith('outcome'))).toHaveLength(5);
    expect([most(), running()]).toEqual([2, 0]);
  });

  it('are started once more when their process dies, and not when it says why there is no outcome', async () => {
    const said: PointEnd = { kind: 'error', error: { code: 'data-invalid', message: 'no' } };
    const { log, options } = scene(4, 1, { 0: [died, outcome], 1: [died, died], 2: [said], 3: [outcome] });
    await runPoints(options);
    expect(log).toEqual(['start 0', 'again 0 after 1', 'start 0', 'outcome 0 after 2', 'start 1', 'again 1 after 1', 'start 1', 'died 1 after 2', 'start 2', 'error 2 after 1', 'start 3', 'outcome 3 after 1']);
  });

  it('end with a signal, and no other is started', async () => {
    const { log, options, abort, running } = scene(4, 2, { 0: [outcome] });
    const done = runPoints(options);
    await new Promise((resolve) => setTimeout(resolve, 20));
    abort.abort(new Error('enough'));
    await expect(done).rejects.toThrow('enough');
    expect(log).toEqual(['start 0', 'start 1', 'outcome 0 after 1', 'start 2', 'stopped 1', 'stopped 2']);
    expect(running()).toBe(0);
  });

  it('all end when a result cannot be kept', async () => {
    const { log, options, running } = scene(3, 2, { 0: [outcome] }, { onSettled: () => Promise.reject(new Error('disk full')) });
    await expect(runPoints(options)).rejects.toThrow('disk full');
    expect(log).toEqual(['start 0', 'start 1', 'stopped 1']);
    expect(running()).toBe(0);
  });
});
