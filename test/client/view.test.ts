import { beforeEach, describe, expect, it } from 'vitest';
import type { Participant } from '../../client/participant/participant.ts';
import type { View } from '../../shared/config/view-config.ts';
import { viewShape } from '../../shared/datasets/views.ts';
import { exampleShape } from './fake-coordinator.ts';
import { rejection, Scene, toyData } from './harness.ts';

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});

const firstHalf: View = [{ kind: 'crop', columns: [0, 2] }];
const lastHalf: View = [{ kind: 'crop', columns: [2, 4] }];

/** A process that sees examples through a view; `undefined`: as they are. */
function through(view: View | undefined): Participant {
  return scene.participant({
    prepare: (task) =>
      Promise.resolve({
        store: scene.store,
        model: { kind: 'zoo' as const, name: task.student.model, exampleShape: viewShape(view ?? [], exampleShape), numClasses: task.numClasses },
        privateDataset: toyData(20),
        testSet: toyData(9, 3),
        ...(view === undefined ? {} : { view }),
      }),
  });
}

describe('a participant with a view', () => {
  it('learns from private and public examples through it, and contributes to every round', async () => {
    const summary = await scene.run(through(lastHalf));
    expect(summary).toMatchObject({ reason: 'rounds-done', contributedRounds: 3 });
    const [first] = scene.engine.fits;
    const whole = toyData(20).examples.values;
    expect(first!.data.hard!.examples).toEqual({ count: 20, shape: [2], values: Float32Array.from({ length: 40 }, (_, i) => whole[4 * Math.floor(i / 2) + 2 + (i % 2)]!) });
    for (const { data } of scene.engine.fits) expect((data.hard ?? data.soft)!.examples.shape).toEqual([2]);
    expect(scene.engine.fits.some(({ isSoft }) => isSoft)).toBe(true);
  });

  it('keeps to it: a later process with another view of the same shape, or with none, is refused before it trains', async () => {
    const stop = new AbortController();
    scene.coordinator.autopilot = false;
    const first = rejection(through(firstHalf).run(stop.signal));
    await scene.pass(10);
    stop.abort(new Error('stop'));
    await scene.clock.runUntil(first);
    const fits = scene.engine.fits.length;
    for (const [view, got] of [[lastHalf, 'crop:columns=2-4'], [undefined, 'whole']] as const) {
      expect(await rejection(scene.run(through(view)))).toMatchObject({ code: 'state-mismatch', field: 'view', expected: 'crop:columns=0-2', got });
    }
    expect(scene.engine.fits).toHaveLength(fits);
    scene.coordinator.autopilot = true;
  });

  it('is refused where a student without a view has learned already', async () => {
    await scene.run();
    expect(await rejection(scene.run(through(firstHalf)))).toMatchObject({ code: 'state-mismatch', expected: 'whole', got: 'crop:columns=0-2' });
  });

  it('is refused when it does not fit the examples', async () => {
    const error = await rejection(scene.run(scene.participant({ prepare: (task) => Promise.resolve({ store: scene.store, model: { kind: 'zoo', name: task.student.model, exampleShape: [4], numClasses: task.numClasses }, privateDataset: toyData(20), view: [{ kind: 'gradient' }] }) })));
    expect(error).toMatchObject({ code: 'config-invalid', field: 'view' });
  });
});
