import { execFile } from 'node:child_process';
import { writeFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelSource } from '../../../shared/compute/engine.ts';
import { selectEngine } from '../../../shared/compute/select-engine.ts';
import { startWorkerEngine } from '../../../shared/compute/worker-engine.ts';
import { computeEngineContract } from '../../contracts/compute-engine.ts';

computeEngineContract('worker thread with tfjs-wasm', { setup: () => startWorkerEngine('tfjs-wasm') });

const source: ModelSource = { kind: 'zoo', name: 'mlp-small', exampleShape: [4], numClasses: 3 };
const examples = { count: 2, shape: [4], values: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8) };
const options = { epochs: 1, batchSize: 2, seed: 1, loss: { distance: 'kl', temperature: 2, alpha: 0 }, optimizer: { kind: 'adam', learningRate: 0.01 } } as const;

describe('worker engine', () => {
  it('names the engine inside', async () => {
    const engine = await startWorkerEngine('tfjs-cpu');
    expect(engine.name).toBe('tfjs-cpu');
    expect(engine.reason).toContain('JavaScript');
    await engine.dispose();
  });

  it('gives the same weights as the engine without a thread', async () => {
    const train = async (engine: Awaited<ReturnType<typeof selectEngine>>) => {
      const model = await engine.open(source, 3);
      await model.fit({ hard: { examples, labels: Int32Array.of(0, 2) } }, { ...options, epochs: 5 });
      const saved = await model.save();
      await engine.dispose();
      return saved;
    };
    expect(await train(await startWorkerEngine('tfjs-wasm'))).toEqual(await train(await selectEngine('tfjs-wasm')));
  });

  it("leaves the caller's arrays usable, also views into larger buffers", async () => {
    const engine = await startWorkerEngine('tfjs-cpu');
    const model = await engine.open(source, 3);
    const view = { ...examples, values: Float32Array.from({ length: 100 }, (_, i) => i / 100).subarray(50, 58) };
    const first = await model.predict(view);
    expect(view.values.length).toBe(8);
    expect(await model.predict(view)).toEqual(first);
    await engine.dispose();
  });

  it('trains two models at a time', async () => {
    const engine = await startWorkerEngine('tfjs-cpu');
    const models = await Promise.all([engine.open(source, 1), engine.open(source, 2)]);
    const reports = await Promise.all(models.map((model) => model.fit({ hard: { examples, labels: Int32Array.of(0, 2) } }, { ...options, epochs: 20 })));
    expect(reports.map(({ steps }) => steps)).toEqual([20, 20]);
    await engine.dispose();
  });

  it('rejects calls in progress and later ones when it is disposed, and is disposed twice', async () => {
    const engine = await startWorkerEngine('tfjs-cpu');
    const model = await engine.open(source, 3);
    const fit = model.fit({ hard: { examples, labels: Int32Array.of(0, 2) } }, { ...options, epochs: 1_000_000 });
    const outcome = expect(fit).rejects.toMatchObject({ code: 'worker-failed' });
    await engine.dispose();
    await outcome;
    await expect(model.predict(examples)).rejects.toMatchObject({ code: 'worker-failed' });
    await model.dispose();
    await engine.dispose();
  });

  describe('when the thread crashes', () => {
    let folder: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'fedstill-worker-'));
    });
    afterAll(() => rm(folder, { recursive: true }));

    /** A worker that starts and opens models, then does `onFit` when told to fit. */
    async function crashingEngine(onFit: string) {
      const entry = join(folder, `${onFit.length}.mjs`);
      const script = `import { parentPort } from 'node:worker_threads';
        parentPort.on('message', ({ id, call }) => {
          if (call.method === 'start') parentPort.postMessage({ kind: 'result', id, result: { name: 'fake', reason: 'fake' } });
          else if (call.method === 'open') parentPort.postMessage({ kind: 'result', id, result: { model: 1, summary: {} } });
          else if (call.method === 'fit') { ${onFit} }
        });`;
      await writeFile(entry, script);
      return startWorkerEngine('auto', { entry: pathToFileURL(entry) });
    }

    for (const [how, onFit, message] of [
      ['by an exception', 'setTimeout(() => { throw new Error("out of luck"); }, 10)', 'out of luck'],
      ['by ending', 'process.exit(7)', 'exit code 7'],
    ] as const) {
      it(`rejects every call that waits and every later one, saying why: ${how}`, async () => {
        const engine = await crashingEngine(onFit);
        const model = await engine.open(source, 1);
        const waiting = [model.predict(examples), model.fit({ hard: { examples, labels: Int32Array.of(0, 2) } }, options)];
        for (const outcome of await Promise.allSettled(waiting)) {
          expect(outcome.status).toBe('rejected');
          expect((outcome as PromiseRejectedResult).reason).toMatchObject({ code: 'worker-failed', message: expect.stringContaining(message) });
        }
        await expect(engine.open(source, 1)).rejects.toMatchObject({ code: 'worker-failed', message: expect.stringContaining(message) });
        await engine.dispose();
      });
    }

    it('says so when it does not even start', async () => {
      await expect(startWorkerEngine('auto', { entry: pathToFileURL(join(folder, 'nowhere.mjs')) })).rejects.toMatchObject({ code: 'worker-failed' });
    });
  });

  it('passes on why no engine was chosen', async () => {
    await expect(startWorkerEngine('no-such' as 'auto')).rejects.toMatchObject({ code: 'engine-unavailable', got: 'no-such', next: expect.any(String) });
  });

  it('does not keep a process alive when idle, disposed or not', async () => {
    const file = fileURLToPath(new URL('../../../shared/compute/worker-engine.ts', import.meta.url));
    const script = `import(${JSON.stringify(pathToFileURL(file).href)}).then(async ({ startWorkerEngine }) => {
      await startWorkerEngine('tfjs-cpu');
      await (await startWorkerEngine('tfjs-cpu')).dispose();
      console.log('done');
    });`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', '--eval', script], { timeout: 25_000 });
    expect(stdout).toBe('done\n');
  });
});
