import { describe, expect, it, vi } from 'vitest';
import { loadBackend, tf, useBackend } from '../../../../shared/compute/backend.ts';
import type { ComputeEngine, FitOptions, ModelSource, SavedModel, TrainingData } from '../../../../shared/compute/engine.ts';
import { loadModel, saveWeights } from '../../../../shared/compute/layers-model.ts';
import { Architecture } from '../../../../shared/compute/onnx/architecture.ts';
import { createOnnxEngine } from '../../../../shared/compute/onnx/onnx-engine.ts';
import { selectEngine } from '../../../../shared/compute/select-engine.ts';
import { createTfjsEngine } from '../../../../shared/compute/tfjs-engine.ts';
import { startWorkerEngine } from '../../../../shared/compute/worker-engine.ts';
import { SeededGenerator } from '../../../../shared/datasets/seeded-generator.ts';
import type { Examples } from '../../../../shared/types/matrix.ts';
import { computeEngineContract } from '../../../contracts/compute-engine.ts';
import { withOnnxRuntime } from '../../../support/onnx-runtime.ts';

const classes = 4;

function examples(count: number, shape: readonly number[], seed: number): Examples {
  const generator = new SeededGenerator(seed);
  return { count, shape, values: Float32Array.from({ length: count * shape.reduce((a, b) => a * b) }, () => generator.gaussian()) };
}

function data(shape: readonly number[], hardCount: number, softCount: number): TrainingData & Required<TrainingData> {
  const soft = examples(softCount, shape, 2);
  return {
    hard: { examples: examples(hardCount, shape, 1), labels: Int32Array.from({ length: hardCount }, (_, i) => (i * i) % classes) },
    soft: { examples: soft, targets: { rows: softCount, columns: classes, values: examples(softCount, [classes], 3).values }, targetKind: 'logits' },
  };
}

const common: FitOptions = { epochs: 2, batchSize: 4, loss: { distance: 'kl', temperature: 2.7, alpha: 0.31 }, optimizer: { kind: 'sgd', learningRate: 0.05 }, seed: 11 };

async function weightsAfter(engine: ComputeEngine, source: ModelSource, training: TrainingData, options: FitOptions) {
  const model = await engine.open(source, 5);
  const report = await model.fit(training, options);
  const { weights } = await model.save();
  const predicted = await model.predict((training.soft ?? training.hard)!.examples);
  await model.dispose();
  return { weights: new Float32Array(weights.slice().buffer), predicted: predicted.values, report };
}

/** A saved model that TF.js's layers make. */
async function savedModel(make: (layers: typeof tf.layers) => ReturnType<typeof tf.sequential>): Promise<SavedModel> {
  await loadBackend('tfjs-cpu');
  useBackend('tfjs-cpu');
  const network = make(tf.layers);
  const saved = { topology: network.toJSON(null, false) as unknown, ...saveWeights(network) };
  network.dispose();
  return saved;
}

/** Batch normalization of channels and of units, with dropout. Seeded: of the weights that chance may bring, some amplify a rounding. */
function normalized(layers: typeof tf.layers) {
  const seeded = (seed: number) => tf.initializers.glorotUniform({ seed });
  return tf.sequential({
    layers: [
      layers.conv2d({ inputShape: [8, 8, 2], filters: 3, kernelSize: 3, kernelInitializer: seeded(1) }),
      layers.batchNormalization({ momentum: 0.7 }),
      layers.reLU(),
      layers.flatten(),
      layers.dense({ units: 6, activation: 'tanh', kernelInitializer: seeded(2) }),
      layers.batchNormalization({ momentum: 0.6 }),
      layers.dropout({ rate: 0.3 }),
      layers.dense({ units: classes, kernelInitializer: seeded(3) }),
    ],
  });
}

/** Of 32 x 32 numbers an example come 14,400: batches of 128 are computed in parts. */
function wide(layers: typeof tf.layers) {
  return tf.sequential({ layers: [layers.conv2d({ inputShape: [32, 32, 1], filters: 16, kernelSize: 3, activation: 'tanh' }), layers.globalAveragePooling2d({}), layers.dropout({ rate: 0.5 }), layers.dense({ units: classes })] });
}

withOnnxRuntime(() => {
  computeEngineContract('onnx', { setup: () => selectEngine('onnx') });
  computeEngineContract('worker thread with onnx', { setup: () => startWorkerEngine('onnx') });

  describe('training on onnx gives the weights that the eager engine gives', () => {
    const zoo = (name: string, dropout = 0): ModelSource => ({ kind: 'zoo', name, exampleShape: [8, 8, 2], numClasses: classes, dropout });
    const { hard, soft } = data([8, 8, 2], 10, 7);
    const cases: Record<string, { readonly source?: ModelSource; readonly make?: (layers: typeof tf.layers) => ReturnType<typeof tf.sequential>; readonly training?: TrainingData; readonly options?: Partial<FitOptions> }> = {
      'hard labels, with a smaller last batch': { training: { hard } },
      'soft targets': { training: { soft } },
      'both, with a smaller last batch of one kind': {},
      'logitMae and labels': { options: { loss: { distance: 'logitMae', temperature: 9, alpha: 0.4 } } },
      'alpha 1, where the soft part has no weight': { options: { loss: { distance: 'kl', temperature: 2, alpha: 1 } } },
      'alpha 0, where the hard part is left out': { options: { loss: { distance: 'kl', temperature: 2, alpha: 0 } } },
      'a batch that is larger than the data': { training: { hard }, options: { batchSize: 64 } },
      momentum: { options: { optimizer: { kind: 'sgd', learningRate: 0.02, momentum: 0.83 } } },
      Adam: { options: { optimizer: { kind: 'adam', learningRate: 0.003 } } },
      'an L2 penalty and clipping': { options: { l2: 0.13, gradientClipNorm: 0.7 } },
      'dropout, whose units are the same': { source: zoo('mlp-medium', 0.4) },
      'a convolutional model with dropout': { source: zoo('cnn-medium', 0.3) },
      'a strided convolutional model': { source: zoo('cnn-small') },
      'a learning rate that warms up and falls': { training: { hard }, options: { epochs: 3, learningRateSchedule: { kind: 'cosine', warmupSteps: 3 }, optimizer: { kind: 'sgd', learningRate: 0.03, momentum: 0.5 } } },
      'weights of examples': { training: { hard: { ...hard, weights: Float32Array.from({ length: 10 }, (_, i) => i / 4) }, soft: { ...soft, weights: Float32Array.from({ length: 7 }, (_, i) => 2 - i / 3) } } },
      'weights of examples with logitMae': { training: { soft: { ...soft, weights: Float32Array.from({ length: 7 }, (_, i) => 2 - i / 3) } }, options: { loss: { distance: 'logitMae', temperature: 9, alpha: 0.4 } } },
      'batch normalization, with a smaller last batch': { training: { hard }, make: normalized },
      'batch normalization of two kinds of data, one after the other': { make: normalized },
      'batches in parts, with dropout and a smaller last batch of one kind': { make: wide, training: data([32, 32, 1], 100, 70), options: { epochs: 1, batchSize: 64 } },
      'early stopping': { training: { hard }, options: { epochs: 6, earlyStopping: { patience: 2, validation: hard } } },
    };
    it.each(Object.entries(cases))('%s', async (_, { make, source: given = zoo('mlp-medium'), training = { hard, soft }, options = {} }) => {
      const fallbacks: string[] = [];
      const [onnx, eager] = [await createOnnxEngine(undefined, { onFallback: (line) => fallbacks.push(line) }), await createTfjsEngine('tfjs-cpu')];
      const source: ModelSource = make === undefined ? given : { kind: 'layersModel', artifacts: await savedModel(make), outputKind: 'logits' };
      const [actual, expected] = [await weightsAfter(onnx, source, training, { ...common, ...options }), await weightsAfter(eager, source, training, { ...common, ...options })];
      const difference = (a: Float32Array, b: Float32Array) => a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0);
      expect(difference(actual.weights, expected.weights)).toBeLessThan(options.optimizer?.kind === 'adam' ? 1e-4 : 3e-6);
      expect(difference(actual.predicted, expected.predicted)).toBeLessThan(1e-3);
      expect(actual.report).toMatchObject({ epochsRun: expected.report.epochsRun, steps: expected.report.steps });
      expect(actual.report.finalLoss).toBeCloseTo(expected.report.finalLoss, 4);
      expect(fallbacks).toEqual([]);
      await onnx.dispose();
      await eager.dispose();
    });
  });

  it('computes a large batch in equal parts, but not where a layer mixes its rows', async () => {
    const architectureOf = async (make: typeof wide) => new Architecture(await loadModel({ kind: 'layersModel', artifacts: await savedModel(make), outputKind: 'logits' }, 1));
    const crossEntropy = { kind: 'crossEntropy', temperature: 1 } as const;
    const rows = async (make: typeof wide, batch: readonly number[]) => {
      const architecture = await architectureOf(make);
      const lease = await architecture.step({ terms: batch.map(() => crossEntropy), rows: batch });
      lease.release();
      await architecture.dispose();
      return lease.compiled.traced.plan.rows;
    };
    expect(await rows(wide, [64, 64])).toEqual([32, 32]);
    expect(await rows(wide, [64])).toEqual([64]);
    expect(await rows(normalized, [20_000])).toEqual([20_000]);
  });

  describe('a model with an operation that no graph has', () => {
    const cases = {
      'random numbers of its own': { make: (layers: typeof tf.layers) => tf.sequential({ layers: [layers.dense({ inputShape: [3], units: 5 }), layers.gaussianNoise({ stddev: 0.1 }), layers.dense({ units: classes })] }), named: 'random numbers' },
      'an operation without a gradient': { make: (layers: typeof tf.layers) => tf.sequential({ layers: [layers.dense({ inputShape: [3], units: 5 }), layers.thresholdedReLU({ theta: 0.1 }), layers.dense({ units: classes })] }), named: 'Greater', trains: false },
      'a kernel that is not mapped': { make: (layers: typeof tf.layers) => tf.sequential({ layers: [layers.reshape({ inputShape: [27], targetShape: [3, 3, 3, 1] }), layers.conv3d({ filters: 2, kernelSize: 2 }), layers.flatten(), layers.dense({ units: classes })] }), named: 'Conv3D' },
    };
    it.each(Object.entries(cases))('is computed by the eager engine, with one line that names it: %s', async (_, { make, named, trains = true }: (typeof cases)[keyof typeof cases] & { readonly trains?: boolean }) => {
      const lines: string[] = [];
      const engine = await createOnnxEngine(undefined, { onFallback: (line) => lines.push(line) });
      const artifacts = await savedModel(make);
      const source: ModelSource = { kind: 'layersModel', artifacts, outputKind: 'logits' };
      const [first, second] = await Promise.all([engine.open(source, 0), engine.open(source, 0)]);
      expect(lines).toHaveLength(1);
      expect(lines[0]).toContain(named);
      expect(lines[0]).toMatch(/^The model \S+ is computed by tfjs-\w+ instead of onnx: .*\.$/);
      const { hard } = data(first.summary.exampleShape, 6, 1);
      await first.predict(hard.examples);
      if (trains) await first.fit({ hard }, { ...common, epochs: 1 });
      expect(await second.save()).toMatchObject({ weightSpecs: artifacts.weightSpecs });
      await engine.dispose();
    });

    it('leaves the model as it was when a trace is given up', async () => {
      const engine = await createOnnxEngine(undefined, { onFallback: () => {} });
      const artifacts = await savedModel((layers) => tf.sequential({ layers: [layers.dense({ inputShape: [3], units: 5 }), layers.batchNormalization(), layers.gaussianNoise({ stddev: 0.1 }), layers.dense({ units: classes })] }));
      const model = await engine.open({ kind: 'layersModel', artifacts, outputKind: 'logits' }, 0);
      expect((await model.save()).weights).toEqual(artifacts.weights);
      await engine.dispose();
    });
  });

  it('trains models of one architecture at a time, each with its own weights', async () => {
    const engine = await createOnnxEngine();
    const source: ModelSource = { kind: 'zoo', name: 'mlp-small', exampleShape: [5], numClasses: classes, dropout: 0.2 };
    const { hard } = data([5], 20, 1);
    const alone = async (seed: number) => {
      const model = await engine.open(source, seed);
      await model.fit({ hard }, common);
      return (await model.save()).weights;
    };
    const expected = [await alone(1), await alone(2), await alone(3)];
    expect(await Promise.all([1, 2, 3].map(alone))).toEqual(expected);
    await engine.dispose();
  });

  it('computes without a word on the terminal', async () => {
    const said = [vi.spyOn(console, 'warn'), vi.spyOn(console, 'log'), vi.spyOn(console, 'error'), vi.spyOn(process, 'emitWarning')];
    const engine = await selectEngine('onnx');
    const model = await engine.open({ kind: 'zoo', name: 'cnn-small', exampleShape: [8, 8, 1], numClasses: 2 }, 1);
    await model.predict(examples(3, [8, 8, 1], 1));
    await engine.dispose();
    for (const spy of said) expect(spy).not.toHaveBeenCalled();
  });

  it('predicts the same for an example however many there are', async () => {
    const engine = await createOnnxEngine();
    const model = await engine.open({ kind: 'zoo', name: 'cnn-small', exampleShape: [8, 8, 1], numClasses: classes }, 1);
    const many = examples(300, [8, 8, 1], 1);
    const all = await model.predict(many);
    expect((await model.predict({ ...many, count: 0, values: new Float32Array() })).values).toHaveLength(0);
    for (const count of [1, 32, 33, 256, 257]) {
      const { values } = await model.predict({ ...many, count, values: many.values.subarray(0, count * 64) });
      expect(values.every((value, i) => Math.abs(value - all.values[i]!) < 1e-5)).toBe(true);
    }
    const shared = new Float32Array(new SharedArrayBuffer(32 * 64 * 4));
    shared.set(many.values.subarray(0, 32 * 64));
    expect((await model.predict({ ...many, count: 32, values: shared })).values[0]).toBeCloseTo(all.values[0]!, 5);
    await engine.dispose();
  });

  it('holds no tensor and no growing memory over 5,000 steps', async () => {
    const before = tf.memory().numTensors;
    const engine = await createOnnxEngine();
    const model = await engine.open({ kind: 'zoo', name: 'mlp-small', exampleShape: [64], numClasses: classes, dropout: 0.1 }, 1);
    const opened = tf.memory().numTensors;
    const { hard } = data([64], 80, 1);
    const fit = () => model.fit({ hard }, { ...common, batchSize: 16, epochs: 200, l2: 0.01, optimizer: { kind: 'adam', learningRate: 0.001 } });
    await fit();
    const settled = process.memoryUsage().rss;
    for (let i = 0; i < 5; i++) expect((await fit()).steps).toBe(1000);
    // 5,000 leaked gradients or examples alone would be 20 MB and more.
    expect(process.memoryUsage().rss - settled).toBeLessThan(16 * 2 ** 20);
    expect(tf.memory().numTensors).toBe(opened);
    await engine.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });
});
