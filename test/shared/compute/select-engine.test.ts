import { describe, expect, it, vi } from 'vitest';
import type { EnginePreference } from '../../../shared/compute/select-engine.ts';
import { probeEngines, selectEngine } from '../../../shared/compute/select-engine.ts';

describe('selecting an engine', () => {
  it('probes every engine and gives each a reason', async () => {
    const probes = await probeEngines();
    expect(probes.map(({ name }) => name)).toEqual(['onnx', 'onnx-web', 'tfjs-node', 'tfjs-wasm', 'tfjs-cpu']);
    for (const { reason } of probes) expect(reason).toMatch(/^\S.*[^.]$/);
    expect(probes.slice(3).every(({ available }) => available)).toBe(true);
  });

  it('chooses the fastest available one and says what it passed over', async () => {
    const probes = await probeEngines();
    for (const preference of ['auto', 'tfjs'] as const) {
      const candidates = probes.filter(({ name }) => preference === 'auto' || name.startsWith('tfjs'));
      const fastest = candidates.find(({ available }) => available)!;
      const engine = await selectEngine(preference);
      expect(engine.name).toBe(fastest.name);
      for (const { name } of candidates.slice(0, candidates.indexOf(fastest))) expect(engine.reason).toContain(`not ${name}`);
      await engine.dispose();
    }
  });

  it('refuses what is not there, with what to do', async () => {
    await expect(selectEngine('gpu' as EnginePreference)).rejects.toMatchObject({ code: 'engine-unavailable', field: 'engine', got: 'gpu', next: expect.any(String) });
  });

  it('computes without a word on the terminal', async () => {
    const said = [vi.spyOn(console, 'warn'), vi.spyOn(console, 'log'), vi.spyOn(console, 'error')];
    const engine = await selectEngine('tfjs-cpu');
    const model = await engine.open({ kind: 'zoo', name: 'mlp-small', exampleShape: [2], numClasses: 2 }, 1);
    await model.predict({ count: 1, shape: [2], values: Float32Array.of(1, 2) });
    await engine.dispose();
    for (const spy of said) expect(spy).not.toHaveBeenCalled();
  });

  it("leaves the process's crash handling alone", async () => {
    const listeners = () => process.listenerCount('uncaughtException') + process.listenerCount('unhandledRejection');
    const before = listeners();
    await selectEngine('tfjs-wasm');
    expect(listeners()).toBe(before);
  });
});
