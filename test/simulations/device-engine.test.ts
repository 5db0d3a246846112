import { describe, expect, it } from 'vitest';
import type { ComputeEngine, FitOptions, FitReport, OpenModel } from '../../shared/compute/engine.ts';
import { SharedEngine } from '../../simulations/device-engine.ts';
import { VirtualClock } from '../../simulations/network/virtual-clock.ts';

const options: FitOptions = { epochs: 3, batchSize: 10, seed: 1, loss: { distance: 'kl', temperature: 1, alpha: 0 }, optimizer: { kind: 'sgd', learningRate: 1 } };
const source = { kind: 'zoo', name: 'fake', exampleShape: [1], numClasses: 2 } as const;
const dataOf = (count: number) => ({ hard: { examples: { count, shape: [1], values: new Float32Array(count) }, labels: new Int32Array(count) } });
const summary = { name: 'fake', parameterCount: 0, weightBytes: 0, exampleShape: [1], numClasses: 2 };

/** Models whose fit takes real time and stops after `stopAfter` epochs; `log` has what really runs. */
function slowEngine(log: string[], { realMs = 5, stopAfter = Infinity } = {}): ComputeEngine {
  const model = (name: number): OpenModel => ({
    summary,
    async fit({ hard }, { epochs, batchSize, onEpoch }): Promise<FitReport> {
      log.push(`begin ${name}`);
      await new Promise((resolve) => setTimeout(resolve, realMs));
      log.push(`end ${name}`);
      const epochsRun = Math.min(epochs, stopAfter);
      onEpoch?.({ epoch: epochsRun, epochs, meanLoss: 0 });
      return { epochsRun, steps: epochsRun * Math.ceil(hard!.examples.count / batchSize), finalLoss: 0 };
    },
    predict: async ({ count }) => ({ rows: count, columns: 2, values: new Float32Array(2 * count) }),
    save: async () => ({ topology: {}, weightSpecs: [], weights: new Uint8Array() }),
    load: async () => {
      log.push(`load ${name}`);
    },
    dispose: async () => undefined,
  });
  return { name: 'slow', reason: 'a test', open: async (_, seed) => model(seed), dispose: async () => undefined };
}

async function twoModels(engine: ComputeEngine) {
  const clock = new VirtualClock();
  const shared = new SharedEngine(engine, clock, undefined);
  const models = await clock.runUntil(Promise.all([1, 2].map((seed) => shared.device(`client-${seed}`, { stepMs: 4 }).open(source, seed))));
  return { clock, models: models as [OpenModel, OpenModel] };
}

describe('an engine in virtual time', () => {
  it('gives the result of a training when its steps would be over on the device, progress included', async () => {
    const { clock, models } = await twoModels(slowEngine([]));
    const seen: [string, number][] = [];
    const fits = models.map((model, i) =>
      model.fit(dataOf(25 * (i + 1)), { ...options, onEpoch: () => seen.push([`epoch ${i}`, clock.now()]) }).then(({ steps }) => seen.push([`${steps} steps`, clock.now()])),
    );
    await clock.runUntil(Promise.all(fits));
    expect(seen).toEqual([['epoch 0', 36], ['9 steps', 36], ['epoch 1', 60], ['15 steps', 60]]);
  });

  it('computes one thing after the other on an engine that is no pool, in the order of asking', async () => {
    const log: string[] = [];
    const { clock, models } = await twoModels(slowEngine(log));
    await clock.runUntil(Promise.all(models.map((model) => model.fit(dataOf(10), options))));
    expect(log).toEqual(['begin 1', 'end 1', 'begin 2', 'end 2']);
  });

  it('waits for what an early stop leaves open, and no longer', async () => {
    for (const [stopAfter, epochs] of [[2, 2], [7, 7]] as const) {
      const { clock, models } = await twoModels(slowEngine([], { stopAfter }));
      const { hard } = dataOf(10);
      const report = await clock.runUntil(models[0].fit({ hard }, { ...options, epochs: 10, earlyStopping: { patience: 1, validation: hard } }));
      expect(report.epochsRun).toBe(epochs);
      expect(clock.now()).toBe(4 * epochs);
    }
  });

  it('rejects in virtual time when the client loses interest, and lets the computation end before the next', async () => {
    const log: string[] = [];
    const { clock, models } = await twoModels(slowEngine(log));
    const controller = new AbortController();
    const reason = new Error('the round was closed');
    clock.schedule(5, () => controller.abort(reason));
    await expect(clock.runUntil(models[0].fit(dataOf(10), { ...options, signal: controller.signal }))).rejects.toBe(reason);
    expect(clock.now()).toBe(5);
    await clock.runUntil(models[0].load(await clock.runUntil(models[0].save())));
    expect(log).toEqual(['begin 1', 'end 1', 'load 1']);
  });

  it('says when an engine has no private gradients', async () => {
    const { models } = await twoModels(slowEngine([]));
    const privately = { steps: 1, samplingRate: 0.5, clippingNorm: 1, noiseMultiplier: 1, loss: options.loss, optimizer: options.optimizer, seed: 1, random: { bytes: (length: number) => new Uint8Array(length) } };
    await expect(models[0].fitPrivately!(dataOf(10), privately)).rejects.toMatchObject({ code: 'engine-unavailable' });
  });
});
