/**
 * What a step of the CNN could take at least on one core: its multiplications and additions at the rate that ONNX Runtime's matrix products reach here, beside what the engine
 * takes. Prints the rate for several shapes (a product with few rows reaches much less: the large operand is the one that is brought into order), then the steps.
 *
 *     npx tsx bench/compute/roofline.ts [--batch 256] [--rounds 15]
 *
 * Processor times, medians. The plain and the private step have the same products: norms and clipping are a few passes over what these give.
 */
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { Graph } from '../../shared/compute/onnx/graph.ts';
import { encodeOnnxModel } from '../../shared/compute/onnx/onnx-writer.ts';
import { createSession } from '../../shared/compute/onnx/runtime.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { compare, engineContestant } from '../../simulations/measure/compute-bench.ts';
import { benchModels } from '../../simulations/measure/models.ts';
import { spread } from '../../simulations/measure/statistics.ts';

const { values: flags } = parseArgs({ options: { batch: { type: 'string', default: '256' }, rounds: { type: 'string', default: '15' } } });
const [batch, rounds] = [Number(flags.batch), Number(flags.rounds)];

/** Processor milliseconds of a product [rows x inner] [inner x columns]. */
async function productMs(rows: number, inner: number, columns: number): Promise<number> {
  const graph = new Graph();
  const product = graph.node('MatMul', [graph.input('a', [rows, inner]), graph.input('b', [inner, columns])], [rows, columns]);
  const session = await createSession(encodeOnnxModel(graph.finish([{ name: 'product', value: product }])));
  const filled = (length: number) => Float32Array.from({ length }, (_, i) => (i % 7) - 3);
  const inputs = { a: session.tensor(filled(rows * inner), [rows, inner]), b: session.tensor(filled(inner * columns), [inner, columns]) };
  const outputs = { product: session.tensor(new Float32Array(rows * columns), [rows, columns]) };
  const repetitions = Math.ceil(1e10 / (2 * rows * inner * columns));
  const times: number[] = [];
  for (let round = -1; round < rounds; round++) {
    const start = process.cpuUsage();
    for (let i = 0; i < repetitions; i++) await session.run(inputs, outputs);
    const { user, system } = process.cpuUsage(start);
    if (round >= 0) times.push((user + system) / 1000 / repetitions);
  }
  await session.release();
  return spread(times).median;
}

console.log(`${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores with a load of ${loadavg()[0]!.toFixed(1)}, Node ${process.versions.node}, one thread, ${rounds} rounds\n`);
console.log('| matrix product | billion operations a second |\n| --- | ---: |');
let best = 0;
for (const [rows, inner, columns] of [[512, 512, 512], [2048, 400, 32], [32, 400, 2048], [32, 400, 64]] as const) {
  const rate = (2 * rows * inner * columns) / 1e6 / (await productMs(rows, inner, columns));
  best = Math.max(best, rate);
  console.log(`| ${rows} x ${inner} by ${inner} x ${columns} | ${rate.toFixed(0)} |`);
}

// Of one example: 5x5 filters over 24 x 24 and 8 x 8 positions, and the dense layer. Forward and filters' gradients, and the gradients of the inputs of all but the first layer.
const [first, second, dense] = [24 * 24 * 25 * 16, 8 * 8 * 25 * 16 * 32, 512 * 10];
const operations = 2 * batch * (2 * first + 3 * second + 3 * dense);
const least = operations / 1e6 / best;
console.log(`\n| step of the CNN, batches of ${batch} | processor ms | times the least |\n| --- | ---: | ---: |`);
console.log(`| ${(operations / 1e9).toFixed(2)} billion operations at ${best.toFixed(0)} billion a second | ${least.toFixed(1)} | 1.0 |`);
const model = benchModels().find(({ name }) => name === 'CNN')!;
for (const kind of ['train', 'private'] as const) {
  const contestant = engineContestant(await selectEngine('onnx'));
  const [result] = await compare({ kind, model, batch }, [contestant], { rounds, budgetMs: 150 });
  console.log(`| ${kind === 'train' ? 'plain' : 'private'} | ${result!.processor.median.toFixed(1)} | ${(result!.processor.median / least).toFixed(1)} |`);
  await contestant.dispose();
}
