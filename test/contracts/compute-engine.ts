/**
 * What every compute engine must do. Gradients are checked by their effect: the weights after a step against the same
 * step worked out here in float64, with odd numbers so that two wrong formulas can't agree by luck.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeEngine, DistillationLoss, FitOptions, ModelSource, OpenModel, SavedModel, TrainingData } from '../../shared/compute/engine.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { accuracy } from '../../shared/distillation/evaluation.ts';
import { logSoftmax, softmax } from '../../shared/distillation/temperature.ts';
import { FederationError, type ProblemCode } from '../../shared/errors.ts';
import type { Examples, Matrix } from '../../shared/types/matrix.ts';
import { mnistDigits } from '../support/mnist.ts';

export interface EngineSetup {
  readonly setup: () => Promise<ComputeEngine>;
}

const features = 3;
const classes = 4;
const rows = 5;
const regression: Extract<ModelSource, { kind: 'zoo' }> = { kind: 'zoo', name: 'softmax-regression', exampleShape: [features], numClasses: classes };
const temperature = 2.7;
const kl: DistillationLoss = { distance: 'kl', temperature, alpha: 0.31 };

function options(changes: Partial<FitOptions> = {}): FitOptions {
  return { epochs: 1, batchSize: rows, loss: kl, optimizer: { kind: 'sgd', learningRate: 0.37 }, seed: 11, ...changes };
}

/** `rows` gaussian examples. */
function gaussianExamples(seed: number, count = rows, shape: readonly number[] = [features]): Examples {
  const generator = new SeededGenerator(seed);
  return { count, shape, values: Float32Array.from({ length: count * shape.reduce((a, b) => a * b) }, () => generator.gaussian()) };
}

function gaussianMatrix(seed: number, spread = 3): Matrix {
  return { rows, columns: classes, values: gaussianExamples(seed, rows, [classes]).values.map((value) => spread * value) };
}

const hardExamples = gaussianExamples(1);
const labels = Int32Array.of(3, 0, 2, 1, 3);
const softExamples = gaussianExamples(2);
const targetLogits = gaussianMatrix(3);
const hard = { examples: hardExamples, labels };
const soft = { examples: softExamples, targets: targetLogits, targetKind: 'logits' } as const;

/** Kernel [features x classes] and bias of a softmax regression, in float64. */
interface Regression {
  readonly kernel: Float64Array;
  readonly bias: Float64Array;
}

function regressionOf(saved: SavedModel): Regression {
  const values = new Float32Array(saved.weights.slice().buffer);
  expect(saved.weightSpecs.map(({ shape }) => shape)).toEqual([[features, classes], [classes]]);
  return { kernel: Float64Array.from(values.subarray(0, features * classes)), bias: Float64Array.from(values.subarray(features * classes)) };
}

/** Logits [count x classes] in float64. */
function logitsOf({ kernel, bias }: Regression, { count, values }: Examples): Float64Array {
  return Float64Array.from({ length: count * classes }, (_, i) => {
    const [row, c] = [Math.floor(i / classes), i % classes];
    let logit = bias[c]!;
    for (let f = 0; f < features; f++) logit += values[row * features + f]! * kernel[f * classes + c]!;
    return logit;
  });
}

function softmax64(logits: Float64Array, divisor: number): Float64Array {
  const exponentials = logits.map((logit) => Math.exp(logit / divisor));
  return exponentials.map((value, i) => {
    const start = i - (i % classes);
    return value / exponentials.subarray(start, start + classes).reduce((a, b) => a + b);
  });
}

/** Loss and its gradient with respect to the logits, both means over the rows. */
interface LossAndGradient {
  readonly loss: number;
  readonly gradient: Float64Array;
}

function crossEntropy64(logits: Float64Array): LossAndGradient {
  const p = softmax64(logits, 1);
  const loss = labels.reduce((sum, label, row) => sum - Math.log(p[row * classes + label]!) / rows, 0);
  return { loss, gradient: p.map((value, i) => (value - (labels[Math.floor(i / classes)] === i % classes ? 1 : 0)) / rows) };
}

function kl64(logits: Float64Array, q: Float64Array): LossAndGradient {
  const p = softmax64(logits, temperature);
  const loss = q.reduce((sum, value, i) => sum + (temperature ** 2 * value * Math.log(value / p[i]!)) / rows, 0);
  // d/dz of T^2 KL(q || softmax(z / T)) is T (p - q) (Hinton et al. 2015, eq. 2 times T^2).
  return { loss, gradient: p.map((value, i) => (temperature * (value - q[i]!)) / rows) };
}

function mae64(logits: Float64Array): LossAndGradient {
  const differences = logits.map((logit, i) => logit - targetLogits.values[i]!);
  return { loss: differences.reduce((sum, d) => sum + Math.abs(d), 0) / differences.length, gradient: differences.map((d) => Math.sign(d) / differences.length) };
}

/** The gradient of the weights from that of the logits: kernel first, then bias, in one vector. */
function weightGradient(examples: Examples, gradient: Float64Array): Float64Array {
  const result = new Float64Array((features + 1) * classes);
  gradient.forEach((value, i) => {
    const [row, c] = [Math.floor(i / classes), i % classes];
    for (let f = 0; f < features; f++) result[f * classes + c]! += examples.values[row * features + f]! * value;
    result[features * classes + c]! += value;
  });
  return result;
}

function flat({ kernel, bias }: Regression): Float64Array {
  return Float64Array.of(...kernel, ...bias);
}

function unflat(values: Float64Array): Regression {
  return { kernel: values.slice(0, features * classes), bias: values.slice(features * classes) };
}

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 2e-6): void {
  expect(actual.length).toBe(expected.length);
  const worst = Array.from(expected, (value, i) => Math.abs(value - actual[i]!)).reduce((a, b) => Math.max(a, b), 0);
  expect(worst).toBeLessThan(tolerance);
}

async function expectProblem(promise: Promise<unknown>, code: ProblemCode): Promise<FederationError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(FederationError);
  expect((error as FederationError).code).toBe(code);
  return error as FederationError;
}

/** Registers the suite. Engines that can't do it all in reasonable time are not engines. */
export function computeEngineContract(name: string, { setup }: EngineSetup): void {
  describe(`compute engine contract: ${name}`, () => {
    let engine: ComputeEngine;
    beforeAll(async () => {
      engine = await setup();
    });
    afterAll(async () => {
      await engine.dispose();
    });

    async function withModel<T>(source: ModelSource, seed: number, use: (model: OpenModel) => Promise<T>): Promise<T> {
      const model = await engine.open(source, seed);
      try {
        return await use(model);
      } finally {
        await model.dispose();
      }
    }

    async function weightsAfter(data: TrainingData, changes: Partial<FitOptions>) {
      return withModel(regression, 5, async (model) => {
        const before = regressionOf(await model.save());
        const report = await model.fit(data, options(changes));
        return { before, after: flat(regressionOf(await model.save())), report };
      });
    }

    describe('one SGD step equals the step worked out by hand', () => {
      const q = softmax64(Float64Array.from(targetLogits.values), temperature);
      const learningRate = 0.37;

      it('for KL to logits at temperature 2.7, and reports T^2 KL as the loss', async () => {
        const { before, after, report } = await weightsAfter({ soft }, {});
        const { loss, gradient } = kl64(logitsOf(before, softExamples), q);
        const step = weightGradient(softExamples, gradient);
        expectClose(after, flat(before).map((w, i) => w - learningRate * step[i]!));
        expect(report.finalLoss).toBeCloseTo(loss, 4);
        expect(report).toMatchObject({ epochsRun: 1, steps: 1 });
      });

      it('for KL to probabilities, which are not softened again', async () => {
        const probabilities: Matrix = softmax(gaussianMatrix(4, 1));
        const { before, after } = await weightsAfter({ soft: { ...soft, targets: probabilities, targetKind: 'probabilities' } }, {});
        const step = weightGradient(softExamples, kl64(logitsOf(before, softExamples), Float64Array.from(probabilities.values)).gradient);
        expectClose(after, flat(before).map((w, i) => w - learningRate * step[i]!));
      });

      it('for KL to a one-hot target, where 0 ln 0 is 0', async () => {
        const oneHot: Matrix = { rows, columns: classes, values: Float32Array.from({ length: rows * classes }, (_, i) => (labels[Math.floor(i / classes)] === i % classes ? 1 : 0)) };
        const { report } = await weightsAfter({ soft: { ...soft, targets: oneHot, targetKind: 'probabilities' } }, {});
        expect(Number.isFinite(report.finalLoss)).toBe(true);
      });

      it('for cross-entropy on hard labels', async () => {
        const { before, after, report } = await weightsAfter({ hard }, {});
        const { loss, gradient } = crossEntropy64(logitsOf(before, hardExamples));
        const step = weightGradient(hardExamples, gradient);
        expectClose(after, flat(before).map((w, i) => w - learningRate * step[i]!));
        expect(report.finalLoss).toBeCloseTo(loss, 5);
      });

      it('for logitMae', async () => {
        const { before, after, report } = await weightsAfter({ soft }, { loss: { distance: 'logitMae', temperature: 9, alpha: 0 } });
        const { loss, gradient } = mae64(logitsOf(before, softExamples));
        const step = weightGradient(softExamples, gradient);
        expectClose(after, flat(before).map((w, i) => w - learningRate * step[i]!));
        expect(report.finalLoss).toBeCloseTo(loss, 5);
      });

      it('for alpha CE + (1 - alpha) KL on one batch of each', async () => {
        const { before, after, report } = await weightsAfter({ hard, soft }, {});
        const ce = crossEntropy64(logitsOf(before, hardExamples));
        const distillation = kl64(logitsOf(before, softExamples), q);
        const hardStep = weightGradient(hardExamples, ce.gradient);
        const softStep = weightGradient(softExamples, distillation.gradient);
        expectClose(after, flat(before).map((w, i) => w - learningRate * (0.31 * hardStep[i]! + 0.69 * softStep[i]!)));
        expect(report.finalLoss).toBeCloseTo(0.31 * ce.loss + 0.69 * distillation.loss, 4);
      });

      it('with an L2 penalty on the kernel and not on the bias', async () => {
        const l2 = 0.13;
        const { before, after } = await weightsAfter({ hard }, { l2 });
        const step = weightGradient(hardExamples, crossEntropy64(logitsOf(before, hardExamples)).gradient);
        expectClose(after, flat(before).map((w, i) => w - learningRate * (step[i]! + (i < features * classes ? l2 * w : 0))));
      });

      it('with the whole gradient clipped to a norm', async () => {
        const gradientClipNorm = 0.17;
        const { before, after } = await weightsAfter({ soft }, { gradientClipNorm });
        const step = weightGradient(softExamples, kl64(logitsOf(before, softExamples), q).gradient);
        const norm = Math.hypot(...step);
        expect(norm).toBeGreaterThan(gradientClipNorm);
        expectClose(after, flat(before).map((w, i) => w - (learningRate * gradientClipNorm * step[i]!) / norm));
      });

      it('and is not clipped when the gradient is shorter', async () => {
        const plain = await weightsAfter({ soft }, {});
        const clipped = await weightsAfter({ soft }, { gradientClipNorm: 1e6 });
        expectClose(clipped.after, plain.after, 1e-7);
      });
    });

    it('keeps momentum over three steps as v = m v + g, w = w - r v', async () => {
      const [learningRate, momentum] = [0.29, 0.83];
      const { before, after } = await weightsAfter({ hard }, { epochs: 3, optimizer: { kind: 'sgd', learningRate, momentum } });
      let weights = flat(before);
      let velocity = weights.map(() => 0);
      for (let step = 0; step < 3; step++) {
        const gradient = weightGradient(hardExamples, crossEntropy64(logitsOf(unflat(weights), hardExamples)).gradient);
        velocity = velocity.map((v, i) => momentum * v + gradient[i]!);
        weights = weights.map((w, i) => w - learningRate * velocity[i]!);
      }
      expectClose(after, weights);
    });

    it('takes Adam steps as Kingma & Ba 2015 define them', async () => {
      const learningRate = 0.023;
      const { before, after } = await weightsAfter({ hard }, { epochs: 3, optimizer: { kind: 'adam', learningRate } });
      let weights = flat(before);
      let [m, v] = [weights.map(() => 0), weights.map(() => 0)];
      for (let step = 1; step <= 3; step++) {
        const gradient = weightGradient(hardExamples, crossEntropy64(logitsOf(unflat(weights), hardExamples)).gradient);
        m = m.map((value, i) => 0.9 * value + 0.1 * gradient[i]!);
        v = v.map((value, i) => 0.999 * value + 0.001 * gradient[i]! ** 2);
        weights = weights.map((w, i) => w - (learningRate * (m[i]! / (1 - 0.9 ** step))) / (Math.sqrt(v[i]! / (1 - 0.999 ** step)) + 1e-7));
      }
      expectClose(after, weights, 2e-5);
    });

    it('starts the moments at zero in each fit', async () => {
      const optimizer = { kind: 'adam', learningRate: 0.05 } as const;
      await withModel(regression, 5, async (model) => {
        await model.fit({ hard }, options({ optimizer }));
        const saved = await model.save();
        await model.fit({ hard }, options({ optimizer }));
        const continued = await model.save();
        await withModel(regression, 6, async (other) => {
          await other.load(saved);
          await other.fit({ hard }, options({ optimizer }));
          expect((await other.save()).weights).toEqual(continued.weights);
        });
      });
    });

    it('takes a last, smaller batch', async () => {
      const { report } = await weightsAfter({ hard }, { batchSize: 2, epochs: 2 });
      expect(report).toMatchObject({ epochsRun: 2, steps: 6 });
    });

    it('goes over the soft examples when there are both kinds, however many hard ones there are', async () => {
      const few = { examples: gaussianExamples(9, 2), labels: Int32Array.of(0, 1) };
      const { report } = await weightsAfter({ hard: few, soft }, { batchSize: 3, epochs: 2 });
      expect(report.steps).toBe(4);
    });

    const dropoutMlp: ModelSource = { kind: 'zoo', name: 'mlp-small', exampleShape: [features], numClasses: classes, dropout: 0.5 };

    it('gives the same weights for the same seeds, with shuffling and dropout, and others for another seed', async () => {
      const train = (openSeed: number, seed: number) =>
        withModel(dropoutMlp, openSeed, async (model) => {
          await model.fit({ hard, soft }, options({ seed, epochs: 3, batchSize: 2 }));
          return (await model.save()).weights;
        });
      const reference = await train(21, 4);
      expect(await train(21, 4)).toEqual(reference);
      expect(await train(21, 5)).not.toEqual(reference);
      expect(await train(22, 4)).not.toEqual(reference);
    });

    it('drops other units in each step, and none in prediction', async () => {
      await withModel(dropoutMlp, 3, async (model) => {
        const untrained = await model.predict(softExamples);
        expect(await model.predict(softExamples)).toEqual(untrained);
        const losses: number[] = [];
        // A learning rate that changes nothing: the loss then differs only by what is dropped.
        await model.fit({ hard }, options({ epochs: 3, optimizer: { kind: 'sgd', learningRate: 1e-12 }, onEpoch: ({ meanLoss }) => losses.push(meanLoss) }));
        expect(new Set(losses).size).toBe(3);
      });
    });

    it('saves a model that opens elsewhere with the same predictions', async () => {
      for (const name of ['softmax-regression', 'mlp-medium', 'cnn-small', 'cnn-medium', 'cnn-wide']) {
        await withModel({ kind: 'zoo', name, exampleShape: [8, 8, 2], numClasses: 3 }, 31, async (model) => {
          const examples = gaussianExamples(5, 3, [8, 8, 2]);
          const predicted = await model.predict(examples);
          expect(predicted).toMatchObject({ rows: 3, columns: 3 });
          const artifacts = JSON.parse(JSON.stringify(await model.save(), (_, value: unknown) => (value instanceof Uint8Array ? [...value] : value))) as SavedModel;
          const source: ModelSource = { kind: 'layersModel', artifacts: { ...artifacts, weights: Uint8Array.from(artifacts.weights) }, outputKind: 'logits' };
          await withModel(source, 0, async (copy) => {
            expect(copy.summary).toEqual({ ...model.summary, name: copy.summary.name });
            expect(await copy.predict(examples)).toEqual(predicted);
          });
        });
      }
    });

    it('opens the same weights for one seed, also for the seed 0', async () => {
      for (const seed of [0, 0xffff_ffff]) {
        const weights = () => withModel(dropoutMlp, seed, async (model) => (await model.save()).weights);
        expect(await weights()).toEqual(await weights());
      }
    });

    it('refuses weights of another architecture and keeps its own', async () => {
      await withModel(regression, 5, async (model) => {
        const before = await model.save();
        const foreign = await withModel(dropoutMlp, 5, (other) => other.save());
        await expectProblem(model.load(foreign), 'model-invalid');
        const transposed = { ...before, weightSpecs: [{ ...before.weightSpecs[0]!, shape: [classes, features] }, before.weightSpecs[1]!] };
        await expectProblem(model.load(transposed), 'model-invalid');
        await expectProblem(model.load({ ...before, weights: before.weights.slice(4) }), 'model-invalid');
        expect(await model.save()).toEqual(before);
      });
    });

    describe('a model that ends in a softmax', () => {
      async function softmaxModel(): Promise<{ artifacts: SavedModel; logits: Matrix }> {
        return withModel(regression, 7, async (model) => {
          const logits = await model.predict(softExamples);
          const artifacts = await model.save();
          const topology = structuredClone(artifacts.topology) as { config: { layers: { config: { activation: string } }[] } };
          topology.config.layers.at(-1)!.config.activation = 'softmax';
          return { artifacts: { ...artifacts, topology }, logits };
        });
      }

      it('gives log-probabilities as logits and is saved as it was', async () => {
        const { artifacts, logits } = await softmaxModel();
        await withModel({ kind: 'layersModel', artifacts, outputKind: 'probabilities' }, 0, async (model) => {
          expectClose((await model.predict(softExamples)).values, logSoftmax(logits).values);
          expect((await model.save()).topology).toEqual(artifacts.topology);
        });
      });

      it('is refused when it is said to give logits', async () => {
        const { artifacts } = await softmaxModel();
        const problem = await expectProblem(engine.open({ kind: 'layersModel', artifacts, outputKind: 'logits' }, 0), 'model-invalid');
        expect(problem.next).toContain('probabilities');
      });
    });

    it('names what is wrong with a model that cannot be opened', async () => {
      const open = (source: ModelSource) => expectProblem(engine.open(source, 0), 'model-invalid');
      expect((await open({ ...regression, name: 'mlp-huge' })).next).toContain('mlp-large');
      expect((await open({ ...regression, name: 'cnn-small' })).next).toContain('mlp-small');
      await open({ ...regression, numClasses: 1 });
      const artifacts = await withModel(regression, 7, (model) => model.save());
      await open({ kind: 'layersModel', artifacts: { ...artifacts, weights: artifacts.weights.slice(1) }, outputKind: 'logits' });
      await open({ kind: 'layersModel', artifacts: { ...artifacts, topology: { class_name: 'Sequential', config: { layers: [{ class_name: 'NoSuchLayer', config: {} }] } } }, outputKind: 'logits' });
    });

    it('names what is wrong with the data and the options', async () => {
      await withModel(regression, 5, async (model) => {
        await expectProblem(model.fit({}, options()), 'data-invalid');
        await expectProblem(model.predict(gaussianExamples(1, 2, [features + 1])), 'data-invalid');
        await expectProblem(model.fit({ hard: { examples: hardExamples, labels: Int32Array.of(0, 1, 2, 3, 4) } }, options()), 'data-invalid');
        await expectProblem(model.fit({ soft: { ...soft, targets: { ...targetLogits, values: targetLogits.values.map(() => NaN) } } }, options()), 'data-invalid');
        await expectProblem(model.fit({ soft: { ...soft, targetKind: 'probabilities' } }, options()), 'data-invalid');
        const problem = await expectProblem(model.fit({ hard }, options({ loss: { ...kl, temperature: 0 } })), 'config-invalid');
        expect(problem).toMatchObject({ field: 'loss.temperature', got: '0' });
      });
    });

    it('says to lower the learning rate when training diverges', async () => {
      await withModel({ ...regression, name: 'mlp-small' }, 5, async (model) => {
        const problem = await expectProblem(model.fit({ hard }, options({ epochs: 50, optimizer: { kind: 'sgd', learningRate: 1e30 } })), 'model-invalid');
        expect(problem.next).toContain('learning rate');
      });
    });

    it('throws the reason of its signal, before training and during it', async () => {
      await withModel(regression, 5, async (model) => {
        const reason = new Error('the round was closed');
        await expect(model.fit({ hard }, options({ signal: AbortSignal.abort(reason) }))).rejects.toBe(reason);
        const controller = new AbortController();
        const epochs: number[] = [];
        const fit = model.fit(
          { hard },
          options({
            epochs: 1_000_000,
            signal: controller.signal,
            onEpoch: ({ epoch }) => {
              epochs.push(epoch);
              if (epoch === 2) controller.abort(reason);
            },
          }),
        );
        await expect(fit).rejects.toBe(reason);
        expect(epochs.slice(0, 2)).toEqual([1, 2]);
        // It is still a model.
        await model.fit({ hard }, options());
      });
    });

    it('rejects with what onEpoch throws', async () => {
      await withModel(regression, 5, async (model) => {
        const thrown = new Error('the disk is full');
        const onEpoch = () => {
          throw thrown;
        };
        await expect(model.fit({ hard }, options({ epochs: 1000, onEpoch }))).rejects.toBe(thrown);
      });
    });

    it("lets the caller's timers run during training", async () => {
      await withModel(regression, 5, async (model) => {
        let ticks = 0;
        const timer = setInterval(() => ticks++, 5);
        await model.fit({ hard }, options({ epochs: 1500 }));
        clearInterval(timer);
        expect(ticks).toBeGreaterThan(2);
      });
    });

    it('stops early and goes back to the best weights', async () => {
      // Training towards one set of labels, validation against their opposite: the first epoch is the best.
      const many = gaussianExamples(8, 40);
      const right = Int32Array.from({ length: 40 }, (_, i) => (many.values[i * features]! > 0 ? 1 : 0));
      const wrong = right.map((label) => 1 - label);
      const training = { hard: { examples: many, labels: wrong } };
      const changes = { epochs: 100, batchSize: 10, optimizer: { kind: 'sgd', learningRate: 0.01 } } as const;
      await withModel(regression, 5, async (model) => {
        await model.fit({ hard: { examples: many, labels: right } }, options({ epochs: 30, batchSize: 10 }));
        const start = await model.save();
        const report = await model.fit(training, options({ ...changes, earlyStopping: { patience: 4, validation: { examples: many, labels: right } } }));
        const stopped = await model.predict(many);
        expect(report.epochsRun).toBeLessThan(100);
        await model.load(start);
        await model.fit(training, options({ ...changes, epochs: report.epochsRun - 4 }));
        expect(await model.predict(many)).toEqual(stopped);
      });
    });

    it('learns digits from 500 examples, and a student learns them from its predictions alone', async () => {
      const train = mnistDigits('train', 500);
      const test = mnistDigits('test', 500);
      const source = (name: string): ModelSource => ({ kind: 'zoo', name, exampleShape: [28, 28, 1], numClasses: 10 });
      const adam = { optimizer: { kind: 'adam', learningRate: 0.003 }, batchSize: 32 } as const;
      await withModel(source('mlp-small'), 1, async (teacher) => {
        await teacher.fit({ hard: train }, options({ ...adam, epochs: 4 }));
        const taught = accuracy(await teacher.predict(test.examples), test.labels);
        expect(taught).toBeGreaterThan(0.75);
        const unlabelled = mnistDigits('train', 500, 500).examples;
        await withModel(source('softmax-regression'), 2, async (student) => {
          await student.fit({ soft: { examples: unlabelled, targets: await teacher.predict(unlabelled), targetKind: 'logits' } }, options({ ...adam, epochs: 4 }));
          expect(accuracy(await student.predict(test.examples), test.labels)).toBeGreaterThan(taught - 0.12);
        });
      });
    });
  });
}
