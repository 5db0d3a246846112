/** Compares the clipped sums of a private step's graph with a plain loop over single examples: each one's gradient by the plain gradient graph of one row, clipped in float64. */
import type { LayersModel } from '@tensorflow/tfjs';
import { loadBackend, useBackend } from '../../shared/compute/backend.ts';
import type { LoadedModel } from '../../shared/compute/layers-model.ts';
import { type LossTermPlan, names, tracePrivateStep, traceStep } from '../../shared/compute/onnx/compile.ts';
import type { FinishedGraph } from '../../shared/compute/onnx/graph.ts';
import { encodeOnnxModel } from '../../shared/compute/onnx/onnx-writer.ts';
import { createSession, type OrtTensors } from '../../shared/compute/onnx/runtime.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';

export interface PrivateParityOptions {
  readonly rows?: number;
  readonly seed?: number;
  readonly term?: LossTermPlan;
  /** Makes an element of an example from a gaussian number. */
  readonly element?: (gaussian: number) => number;
}

export interface PrivateParity {
  /** Whether the graph takes all rows at once. */
  readonly hasRules: boolean;
  /** Largest difference of an element of a sum, relative to the largest sum of magnitudes in that weight; and of a norm, relative to it. Over clipping norms that clip no, some and all examples. */
  readonly worst: number;
  readonly where: string;
  /** The same relative to the largest sum of magnitudes in all weights, which are clipped as one vector; norms as before. */
  readonly worstOfWhole: number;
}

const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const tied = (gaussian: number) => Math.max(Math.round(gaussian * 2) / 2, 0);

/** The second row has the weight 0. */
export async function privateGradientParity(build: () => LayersModel, { rows = 4, seed = 7, term = { kind: 'crossEntropy', temperature: 1 }, element = tied }: PrivateParityOptions = {}): Promise<PrivateParity> {
  await loadBackend('tfjs-cpu');
  useBackend('tfjs-cpu');
  const network = build();
  const exampleShape = network.inputs[0]!.shape.slice(1) as number[];
  const classes = network.outputs[0]!.shape.at(-1)!;
  const model: LoadedModel = { network, topology: {}, head: 'logits', summary: { name: network.name, parameterCount: 0, weightBytes: 0, exampleShape, numClasses: classes } };
  const generator = new SeededGenerator(seed);
  const gaussian = (length: number) => Float32Array.from({ length }, () => generator.gaussian());
  const weights = network.weights.map((weight) => gaussian(size(weight.shape as number[])).map((x) => x * 0.4 + (weight.originalName.includes('gamma') ? 1 : 0)));
  const examples = gaussian(rows * size(exampleShape)).map(element);
  const rowWeights = gaussian(rows).map((x, row) => (row === 1 ? 0 : Math.abs(x) + 0.1));
  const targets = gaussian(rows * classes).map((x, i) => (term.kind === 'crossEntropy' ? Math.abs(x) * rowWeights[Math.floor(i / classes)]! : x));

  const one = traceStep(model, { terms: [term], rows: [1] });
  const all = tracePrivateStep(model, { term, rows });
  const feed = (first: number, count: number, clippingNorm: number): Record<string, { data: Float32Array; shape: number[] }> => ({
    [names.examples]: { data: examples.slice(first * size(exampleShape), (first + count) * size(exampleShape)), shape: [count, ...exampleShape] },
    [names.targets(0)]: { data: targets.slice(first * classes, (first + count) * classes), shape: [count, classes] },
    [names.rowWeights(0)]: { data: rowWeights.slice(first, first + count), shape: [count, 1] },
    [names.clippingNorm]: { data: Float32Array.of(clippingNorm), shape: [] },
    ...Object.fromEntries(weights.map((data, i) => [names.weight(i), { data, shape: network.weights[i]!.shape as number[] }])),
  });
  const runner = async (graph: FinishedGraph) => {
    const session = await createSession(encodeOnnxModel(graph));
    const run = async (inputs: Record<string, { data: Float32Array; shape: number[] }>) => {
      const wanted = Object.fromEntries(graph.inputs.map(({ name }) => [name, session.tensor(inputs[name]!.data, inputs[name]!.shape)]));
      const outputs: OrtTensors = Object.fromEntries(graph.outputs.map(({ name, shape }) => [name, session.tensor(new Float32Array(size(shape)), shape)]));
      await session.run(wanted, outputs);
      return outputs;
    };
    return { run, release: () => session.release() };
  };

  let [worst, where] = [0, ''];
  let worstOfWhole = 0;
  if (all !== undefined) {
    const single = await runner(one.graph);
    const perExample: Float32Array[][] = [];
    for (let row = 0; row < rows; row++) {
      const outputs = await single.run(feed(row, 1, 1));
      perExample.push(one.gradients.map((i) => outputs[names.gradient(i)]!.data));
    }
    await single.release();
    const norms = perExample.map((parts) => Math.sqrt(parts.reduce((sum, part) => sum + part.reduce((own, x) => own + x * x, 0), 0)));
    const sorted = norms.toSorted((a, b) => a - b);
    const together = await runner(all.graph);
    for (const clippingNorm of [sorted.at(-1)! * 2, sorted[Math.floor(rows / 2)]! * 1.01, sorted[1]! / 3]) {
      const outputs = await together.run(feed(0, rows, clippingNorm));
      norms.forEach((norm, row) => {
        const difference = Math.abs(outputs[names.norms]!.data[row]! - norm) / Math.max(norm, 1e-9);
        if (!(difference <= worst)) [worst, where] = [difference, `norm of row ${row}: ${outputs[names.norms]!.data[row]!} instead of ${norm}`];
        worstOfWhole = Math.max(worstOfWhole, difference);
      });
      const sums = all.gradients.map((weight, position) => {
        const actual = outputs[names.gradient(weight)]!.data;
        const expected = new Float64Array(actual.length);
        // What the examples add up to without their signs: where they cancel, the rounding of what is added up stays.
        const magnitude = new Float64Array(actual.length);
        perExample.forEach((parts, row) =>
          parts[position]!.forEach((x, j) => {
            const clipped = x * Math.min(1, clippingNorm / norms[row]!);
            expected[j]! += clipped;
            magnitude[j]! += Math.abs(clipped);
          }),
        );
        const largest = magnitude.reduce((most, x) => Math.max(most, x), 0);
        return { weight, largest, difference: expected.reduce((most, x, j) => Math.max(most, Math.abs(x - actual[j]!)), 0) };
      });
      const whole = Math.max(...sums.map(({ largest }) => largest), 1e-9);
      for (const { weight, largest, difference } of sums) {
        // A gradient that is almost nothing beside the others is the rounding of theirs.
        const relative = difference / Math.max(largest, 1e-3 * whole);
        if (!(relative <= worst)) [worst, where] = [relative, `${network.weights[weight]!.originalName} at clipping norm ${clippingNorm}`];
        worstOfWhole = Math.max(worstOfWhole, difference / whole);
      }
    }
    await together.release();
  }
  network.dispose();
  return { hasRules: all !== undefined, worst, where, worstOfWhole };
}
