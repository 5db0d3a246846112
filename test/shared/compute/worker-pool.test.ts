import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeEngine, FitOptions, ModelSource, OpenModel } from '../../../shared/compute/engine.ts';
import { selectEngine } from '../../../shared/compute/select-engine.ts';
import { openWorkerPool, type WorkerPool, type WorkerPoolOptions } from '../../../shared/compute/worker-pool.ts';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import type { Examples } from '../../../shared/types/matrix.ts';
import { computeEngineContract } from '../../contracts/compute-engine.ts';

computeEngineContract('pool of two workers with tfjs-wasm', { setup: () => openWorkerPool({ workers: 2, engine: 'tfjs-wasm' }) });
// Every array in shared memory, and no weights kept in a worker: each call brings them along.
computeEngineContract('pool of one worker that keeps nothing', { setup: () => openWorkerPool({ workers: 1, engine: 'auto', leastSharedBytes: 0, weightLimitBytes: 0, dataLimitBytes: 0 }) });

const features = 6;
const source = (name: string): ModelSource => ({ kind: 'zoo', name, exampleShape: [features], numClasses: 3, dropout: name === 'softmax-regression' ? 0 : 0.2 });
const architectures = ['softmax-regression', 'mlp-small', 'mlp-medium'].map(source);
const options: FitOptions = { epochs: 2, batchSize: 8, seed: 1, loss: { distance: 'kl', temperature: 2, alpha: 0.3 }, optimizer: { kind: 'adam', learningRate: 0.01 } };

function gaussianExamples(seed: number, count: number): Examples {
  const generator = new SeededGenerator(seed);
  return { count, shape: [features], values: Float32Array.from({ length: count * features }, () => generator.gaussian()) };
}

function labelled(seed: number, count = 20) {
  return { examples: gaussianExamples(seed, count), labels: Int32Array.from({ length: count }, (_, i) => i % 3) };
}

/** Nine clients, two rounds: each trains, predicts, and distils the mean of all predictions. */
async function federate(engine: ComputeEngine): Promise<{ readonly weights: Uint8Array[]; readonly losses: number[] }> {
  const transferSet = gaussianExamples(99, 30);
  const clients = await Promise.all(Array.from({ length: 9 }, async (_, i) => ({ model: await engine.open(architectures[i % 3]!, i), hard: labelled(i, 16 + i) })));
  const losses: number[] = [];
  for (let round = 0; round < 2; round++) {
    const reports = await Promise.all(clients.map(({ model, hard }, i) => model.fit({ hard }, { ...options, seed: 10 * round + i })));
    const predictions = await Promise.all(clients.map(({ model }) => model.predict(transferSet)));
    const mean = predictions[0]!.values.map((_, i) => predictions.reduce((sum, { values }) => sum + values[i]!, 0) / predictions.length);
    const targets = { rows: transferSet.count, columns: 3, values: mean };
    await Promise.all(clients.map(({ model }) => model.fit({ soft: { examples: transferSet, targets, targetKind: 'logits' } }, options)));
    losses.push(...reports.map(({ finalLoss }) => finalLoss));
  }
  const weights = await Promise.all(clients.map(async ({ model }) => (await model.save()).weights));
  await Promise.all(clients.map(({ model }) => model.dispose()));
  return { weights, losses };
}

describe('worker pool', () => {
  const pools: WorkerPool[] = [];
  async function pool(changes: Partial<WorkerPoolOptions> = {}): Promise<WorkerPool> {
    const opened = await openWorkerPool({ workers: 2, engine: 'tfjs-cpu', ...changes });
    pools.push(opened);
    return opened;
  }
  afterAll(() => Promise.all(pools.map((opened) => opened.dispose())));

  for (const [preference, workerCounts] of [['tfjs-wasm', [2]], ['auto', [1, 2]]] as const) {
    it(`gives the same bits with any number of workers, whatever they keep, and without any: ${preference}`, async () => {
      const inThisThread = await selectEngine(preference);
      const expected = await federate(inThisThread);
      await inThisThread.dispose();
      for (const workers of workerCounts) expect(await federate(await pool({ engine: preference, workers }))).toEqual(expected);
      // Room for one or two models in each worker.
      const crowded = await pool({ engine: preference, workers: 2, weightLimitBytes: 60_000, dataLimitBytes: 1000, leastSharedBytes: 0 });
      expect(await federate(crowded)).toEqual(expected);
      expect(crowded.statistics().evictions).toBeGreaterThan(0);
    });
  }

  it('computes an architecture where it has been compiled, and shares the work of a single one', async () => {
    const engine = await pool();
    const models = await Promise.all([0, 1, 2, 3].map((seed) => engine.open(architectures[0]!, seed)));
    await Promise.all(models.map((model) => model.fit({ hard: labelled(1, 200) }, { ...options, epochs: 20 })));
    const { workers, restores } = engine.statistics();
    expect(workers.every(({ calls }) => calls > 0)).toBe(true);
    // A second round finds every model where it is.
    await Promise.all(models.map((model) => model.fit({ hard: labelled(1, 200) }, options)));
    expect(engine.statistics().restores - restores).toBeLessThanOrEqual(1);
  });

  it('keeps weights and data within their limits', async () => {
    const weightBytes = 4 * (features * 3 + 3);
    const engine = await pool({ workers: 1, weightLimitBytes: 2 * weightBytes, dataLimitBytes: 5000, leastSharedBytes: 0 });
    const models = [];
    for (let i = 0; i < 5; i++) {
      models.push(await engine.open(architectures[0]!, i));
      await models[i]!.fit({ hard: labelled(i, 100) }, options);
      const { workers, dataBytes } = engine.statistics();
      expect(workers[0]!.residentBytes).toBeLessThanOrEqual(2 * weightBytes);
      expect(dataBytes).toBeLessThanOrEqual(5000);
      expect(dataBytes).toBeGreaterThan(0);
    }
    expect(engine.statistics()).toMatchObject({ evictions: 3, restores: 0 });
    await models[0]!.predict(gaussianExamples(1, 5));
    expect(engine.statistics()).toMatchObject({ evictions: 4, restores: 1 });
    for (const model of models) await model.dispose();
    expect(engine.statistics().workers[0]).toMatchObject({ residentModels: 0, residentBytes: 0 });
  });

  it('sees what a caller wrote into an array that it has shared before', async () => {
    const engine = await pool({ leastSharedBytes: 0 });
    const model = await engine.open(architectures[0]!, 1);
    const examples = gaussianExamples(1, 10);
    const before = await model.predict(examples);
    examples.values.set(gaussianExamples(2, 10).values);
    const after = await model.predict(examples);
    expect(after).not.toEqual(before);
    expect(after).toEqual(await model.predict(gaussianExamples(2, 10)));
  });

  it('takes examples in shared memory, and views, as they are', async () => {
    const engine = await pool({ leastSharedBytes: 0 });
    const model = await engine.open(architectures[1]!, 1);
    const plain = gaussianExamples(1, 10);
    const shared = { ...plain, values: new Float32Array(new SharedArrayBuffer(plain.values.byteLength)) };
    shared.values.set(plain.values);
    const view = { ...plain, values: Float32Array.of(7, 8, ...plain.values, 9).subarray(2, 2 + plain.values.length) };
    const expected = await model.predict(plain);
    expect(await model.predict(shared)).toEqual(expected);
    expect(await model.predict(view)).toEqual(expected);
    const { labels } = labelled(1, 10);
    const weightsAfter = async (examples: Examples) => {
      const student = await engine.open(architectures[1]!, 2);
      await student.fit({ hard: { examples, labels } }, options);
      return student.save();
    };
    expect(await weightsAfter(shared)).toEqual(await weightsAfter(plain));
  });

  it('drops a call that waits when its signal is aborted, and leaves the model as it was', async () => {
    const engine = await pool({ workers: 1 });
    const [first, second] = [await engine.open(architectures[0]!, 1), await engine.open(architectures[0]!, 2)];
    const before = await second.save();
    const long = new AbortController();
    const running = first.fit({ hard: labelled(1) }, { ...options, epochs: 1_000_000, signal: long.signal });
    const waiting = new AbortController();
    const dropped = second.fit({ hard: labelled(1) }, { ...options, signal: waiting.signal });
    const reason = new Error('the round was closed');
    waiting.abort(reason);
    await expect(dropped).rejects.toBe(reason);
    expect(await second.save()).toEqual(before);
    long.abort(reason);
    await expect(running).rejects.toBe(reason);
    // What an aborted training has done is kept, as by every engine.
    expect((await first.save()).weights).not.toEqual(before.weights);
  });

  it('gives weights that later trainings leave alone, of this model and of others', async () => {
    const engine = await pool();
    const models = await Promise.all([1, 2, 3].map((seed) => engine.open(architectures[1]!, seed)));
    const copies: { readonly given: Uint8Array; readonly then: Uint8Array }[] = [];
    for (let round = 0; round < 4; round++) {
      await Promise.all(models.map((model, i) => model.fit({ hard: labelled(i) }, { ...options, seed: round })));
      for (const model of models) {
        const { weights } = await model.save();
        copies.push({ given: weights, then: weights.slice() });
      }
    }
    for (const { given, then } of copies) expect(given).toEqual(then);
    expect(new Set(copies.map(({ then }) => Buffer.from(then).toString('base64'))).size).toBe(copies.length);
  });

  it('makes the calls of one model one after the other', async () => {
    const engine = await pool();
    const model = await engine.open(architectures[0]!, 1);
    const reference = await engine.open(architectures[0]!, 1);
    const [, saved] = await Promise.all([model.fit({ hard: labelled(1) }, options), model.save(), model.predict(gaussianExamples(1, 4))]);
    await reference.fit({ hard: labelled(1) }, options);
    expect(saved).toEqual(await reference.save());
  });

  it('rejects calls in progress, waiting and later when it is disposed', async () => {
    const engine = await openWorkerPool({ workers: 1, engine: 'tfjs-cpu' });
    const models = [await engine.open(architectures[0]!, 1), await engine.open(architectures[0]!, 2)];
    const fits = models.map((model) => expect(model.fit({ hard: labelled(1) }, { ...options, epochs: 1_000_000 })).rejects.toMatchObject({ code: 'worker-failed' }));
    await new Promise((resolve) => setTimeout(resolve, 50));
    await engine.dispose();
    await Promise.all(fits);
    await expect(engine.open(architectures[0]!, 1)).rejects.toMatchObject({ code: 'worker-failed' });
    await models[0]!.dispose();
    await expect(models[0]!.predict(gaussianExamples(1, 1))).rejects.toMatchObject({ code: 'internal' });
    await engine.dispose();
  });

  it('refuses to be opened without workers or with an engine that is not there', async () => {
    await expect(openWorkerPool({ workers: 0, engine: 'auto' })).rejects.toMatchObject({ code: 'config-invalid', field: 'workers', got: '0' });
    await expect(openWorkerPool({ workers: 2, engine: 'no-such' as 'auto' })).rejects.toMatchObject({ code: 'engine-unavailable' });
  });

  it('does not keep a process alive when idle', async () => {
    const file = new URL('../../../shared/compute/worker-pool.ts', import.meta.url);
    const script = `import(${JSON.stringify(file.href)}).then(async ({ openWorkerPool }) => {
      const pool = await openWorkerPool({ workers: 2, engine: 'tfjs-cpu' });
      await pool.open(${JSON.stringify(architectures[0])}, 1);
      console.log('done');
    });`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', '--eval', script], { timeout: 25_000 });
    expect(stdout).toBe('done\n');
  });
});

describe('when a worker of a pool dies', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fedstill-pool-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  /** Workers whose models are a number that `fit` adds 1 to in each epoch. They die in the second epoch of their first `deaths` fits. */
  async function mortalPool(name: string, deaths: number): Promise<WorkerPool> {
    const entry = join(folder, `${name}.mjs`);
    const script = `import { parentPort } from 'node:worker_threads';
      import { appendFileSync, existsSync, readFileSync } from 'node:fs';
      const log = ${JSON.stringify(join(folder, `${name}.log`))};
      const models = new Map();
      const saved = (model) => ({ topology: {}, weightSpecs: [], weights: Uint8Array.of(models.get(model)) });
      parentPort.on('message', ({ id, call: { method, args } }) => {
        const reply = (result) => parentPort.postMessage({ kind: 'result', id, result });
        if (method === 'start') reply({ name: 'fake', reason: 'fake' });
        else if (method === 'open') { models.set(models.size + 1, args.seed); reply({ model: models.size, summary: { name: args.source.name } }); }
        else if (method === 'save') reply(saved(args.model));
        else if (method === 'load') { models.set(args.model, args.saved.weights[0]); reply(null); }
        else if (method === 'close') reply(null);
        else if (method === 'fit') {
          const mayDie = (existsSync(log) ? readFileSync(log, 'utf8').length : 0) < ${deaths};
          for (let epoch = 1; epoch <= 3; epoch++) {
            if (mayDie && epoch === 2) { appendFileSync(log, 'x'); setTimeout(() => { throw new Error('out of luck'); }, 20); return; }
            models.set(args.model, models.get(args.model) + 1);
            parentPort.postMessage({ kind: 'epoch', id, progress: { epoch, epochs: 3, meanLoss: 0 } });
          }
          reply({ epochsRun: 3, steps: 3, finalLoss: 0 });
        }
      });`;
    await writeFile(entry, script);
    return openWorkerPool({ workers: 1, engine: 'auto', entry: pathToFileURL(entry) });
  }

  const numberOf = async (model: OpenModel) => (await model.save()).weights[0];

  it('makes the call again in a fresh one, from the weights before it, and tells no epoch twice', async () => {
    const engine = await mortalPool('once', 1);
    const [model, other] = [await engine.open(source('mlp-small'), 40), await engine.open(source('mlp-small'), 7)];
    const epochs: number[] = [];
    const fits = [model.fit({}, { ...options, onEpoch: ({ epoch }) => epochs.push(epoch) }), other.fit({}, options)];
    expect((await Promise.all(fits)).map(({ epochsRun }) => epochsRun)).toEqual([3, 3]);
    expect(epochs).toEqual([1, 2, 3]);
    expect([await numberOf(model), await numberOf(other)]).toEqual([43, 10]);
    expect(engine.statistics()).toMatchObject({ replacements: 1, restores: 2 });
    await engine.dispose();
  });

  it('gives a call up that two die of, with the name of its model and owner; the pool and the model go on', async () => {
    const engine = await mortalPool('twice', 2);
    const model = await engine.ownedBy('client-3').open(source('mlp-small'), 40);
    await expect(model.fit({}, options)).rejects.toMatchObject({ code: 'worker-failed', message: expect.stringMatching(/training mlp-small of client-3.*out of luck/) });
    expect(await numberOf(model)).toBe(40);
    await model.fit({}, options);
    expect(await numberOf(model)).toBe(43);
    expect(engine.statistics().replacements).toBe(2);
    await engine.dispose();
  });
});
