/**
 * Resident set of a process that trains on and on: many short trainings of models of two architectures in turn, with predictions between
 * them, as a simulated client makes them. Prints a line at every tenth of the steps; a leak shows as a line that climbs.
 *
 *     npx tsx bench/compute/memory.ts [--steps 50000] [--engine onnx] [--workers 0]
 *
 * `--workers`: 0 trains in this thread, more in a pool.
 */
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import type { FitOptions } from '../../shared/compute/engine.ts';
import { type EnginePreference, selectEngine } from '../../shared/compute/select-engine.ts';
import { openWorkerPool } from '../../shared/compute/worker-pool.ts';
import { benchModels, gaussianExamples, numClasses } from '../../simulations/measure/models.ts';

const { values: flags } = parseArgs({ options: { steps: { type: 'string', default: '50000' }, engine: { type: 'string', default: 'onnx' }, workers: { type: 'string', default: '0' } } });
const [steps, workers] = [Number(flags.steps), Number(flags.workers)];
const preference = flags.engine as EnginePreference;

const engine = workers === 0 ? await selectEngine(preference) : await openWorkerPool({ workers, engine: preference });
const [mlp, , ...zoo] = benchModels();
const models = await Promise.all([mlp!, zoo.find(({ name }) => name === 'cnn-small')!].map(({ source }) => engine.open(source, 1)));
const examples = gaussianExamples(3210);
const labels = Int32Array.from({ length: examples.count }, (_, i) => i % numClasses);
const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(0);

console.log(`${engine.name}, ${workers === 0 ? 'in this thread' : `${workers} workers`}, Node ${process.versions.node}, load ${loadavg()[0]!.toFixed(1)}\n\n| steps | resident set, MiB | heap in use, MiB |\n| ---: | ---: | ---: |`);
let done = 0;
let told = 0;
for (let i = 0; done < steps; i++) {
  const model = models[i % models.length]!;
  const options: FitOptions = { epochs: 1, batchSize: 32, seed: i % 1000, loss: { distance: 'kl', temperature: 2, alpha: 0 }, optimizer: { kind: 'adam', learningRate: 1e-5 } };
  done += (await model.fit({ hard: { examples, labels } }, options)).steps;
  await model.predict(examples);
  if (done < (told * steps) / 10) continue;
  told = Math.floor((10 * done) / steps) + 1;
  console.log(`| ${done} | ${mebibytes(process.memoryUsage.rss())} | ${mebibytes(process.memoryUsage().heapUsed)} |`);
}
for (const model of models) await model.dispose();
await engine.dispose();
