/**
 * The traced gradient graphs in onnxruntime-web (WebAssembly, one thread), which is no dependency, against onnxruntime-node: least processor time of a run, in
 * turns, and the largest difference of a loss or gradient.
 *
 *     npx tsx bench/compute/onnx-web.ts path/to/a/folder/with/onnxruntime-web/installed
 */
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { loadBackend, useBackend } from '../../shared/compute/backend.ts';
import { loadModel } from '../../shared/compute/layers-model.ts';
import { traceStep } from '../../shared/compute/onnx/compile.ts';
import { encodeOnnxModel } from '../../shared/compute/onnx/onnx-writer.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { exampleSize } from '../../shared/types/matrix.ts';
import { benchModels } from '../../simulations/measure/models.ts';

interface Tensor {
  readonly data: Float32Array;
}

interface Runtime {
  readonly env: { readonly wasm?: { numThreads?: number } };
  readonly Tensor: new (type: 'float32', data: Float32Array, dims: readonly number[]) => Tensor;
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<{ run(inputs: Record<string, Tensor>): Promise<Record<string, Tensor>> }> };
}

const rounds = 12;
const folder = process.argv[2] ?? '.';
const native = createRequire(import.meta.url)('onnxruntime-node') as Runtime;
const web = createRequire(`${resolve(folder)}/package.json`)('onnxruntime-web') as Runtime;
web.env.wasm!.numThreads = 1;

/** Outputs of a run and how long it took at least, in processor milliseconds, for each runtime. */
async function compareRuns(bytes: Uint8Array, inputs: ReadonlyMap<string, { readonly shape: readonly number[]; readonly values: Float32Array }>) {
  const contestants = await Promise.all(
    ([[native, 'cpu'], [web, 'wasm']] as const).map(async ([{ Tensor, InferenceSession }, provider]) => ({
      session: await InferenceSession.create(bytes, { executionProviders: [provider], intraOpNumThreads: 1, graphOptimizationLevel: 'extended' }),
      tensors: Object.fromEntries([...inputs].map(([name, { shape, values }]) => [name, new Tensor('float32', values, shape)])),
      outputs: undefined as Record<string, Tensor> | undefined,
      least: Infinity,
    })),
  );
  for (let round = 0; round < rounds; round++) {
    for (const contestant of contestants) {
      const start = process.cpuUsage();
      contestant.outputs = await contestant.session.run(contestant.tensors);
      const { user, system } = process.cpuUsage(start);
      contestant.least = Math.min(contestant.least, (user + system) / 1000);
    }
  }
  return contestants;
}

await loadBackend('tfjs-cpu');
console.log('| model | batch | onnxruntime-node, processor ms | onnxruntime-web, processor ms | largest difference |\n| --- | ---: | ---: | ---: | ---: |');
for (const { name, source } of benchModels().slice(0, 2)) {
  for (const rows of [32, 256]) {
    useBackend('tfjs-cpu');
    const { graph } = traceStep(await loadModel(source, 1), { terms: [{ kind: 'crossEntropy', temperature: 1 }], rows: [rows] });
    const generator = new SeededGenerator(1);
    const inputs = new Map(graph.inputs.map((input) => [input.name, { shape: input.shape, values: Float32Array.from({ length: exampleSize(input.shape) }, () => 0.1 * generator.gaussian()) }]));
    const [first, second] = await compareRuns(encodeOnnxModel(graph), inputs);
    const difference = Math.max(...graph.outputs.map((output) => first!.outputs![output.name]!.data.reduce((most, value, i) => Math.max(most, Math.abs(value - second!.outputs![output.name]!.data[i]!)), 0)));
    console.log(`| ${name} | ${rows} | ${first!.least.toFixed(2)} | ${second!.least.toFixed(2)} | ${difference.toExponential(1)} |`);
  }
}
