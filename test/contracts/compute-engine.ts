/**
 * What every compute engine must do. Gradients are checked by their effect: the weights after a step against the same
 * step worked out here in float64, with odd numbers so that two wrong formulas can't agree by luck.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadBackend, tf, useBackend } from '../../shared/compute/backend.ts';
import type { ComputeEngine, DistillationLoss, FitOptions, LearningRateSchedule, ModelSource, OpenModel, PrivateFitOptions, SavedModel, TrainingData } from '../../shared/compute/engine.ts';
import { saveWeights } from '../../shared/compute/layers-model.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { accuracy } from '../../shared/distillation/evaluation.ts';
import { logSoftmax, softmax } from '../../shared/distillation/temperature.ts';
import { FederationError, type ProblemCode } from '../../shared/errors.ts';
import type { Examples, Matrix } from '../../shared/types/matrix.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
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

/** All records in every step and no noise, so that the step can be worked out; nothing is clipped. */
function privateOptions(changes: Partial<PrivateFitOptions> = {}): PrivateFitOptions {
  return {
    steps: 1,
    samplingRate: 1,
    clippingNorm: 1e6,
    noiseMultiplier: 0,
    loss: kl,
    optimizer: { kind: 'sgd', learningRate: 0.37 },
    seed: 11,
    random: new InsecureSeededRandom(5),
    ...changes,
  };
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

/** A model whose first layer normalizes over the batch. */
async function normalizingModel(): Promise<SavedModel> {
  await loadBackend('tfjs-cpu');
  useBackend('tfjs-cpu');
  const network = tf.sequential({ layers: [tf.layers.batchNormalization({ inputShape: [features], momentum: 0.7 }), tf.layers.dense({ units: classes })] });
  const saved = { topology: network.toJSON(null, false) as unknown, ...saveWeights(network) };
  network.dispose();
  return saved;
}

/** The weights of that name. */
function weightsNamed({ weightSpecs, weights }: SavedModel, name: string): Float32Array {
  let start = 0;
  for (const spec of weightSpecs) {
    const length = spec.shape.reduce((a, b) => a * b, 1);
    if (spec.name.endsWith(name)) return new Float32Array(weights.slice(start, start + 4 * length).buffer);
    start += 4 * length;
  }
  throw new Error(`no weight ${name}`);
}

/** The gradient of each example of `hard` by itself. */
function exampleGradients(weights: Regression): Float64Array[] {
  const { gradient } = crossEntropy64(logitsOf(weights, hardExamples));
  return Array.from({ length: rows }, (_, row) => weightGradient(hardExamples, gradient.map((value, i) => (Math.floor(i / classes) === row ? rows * value : 0))));
}

function sumOf(vectors: readonly Float64Array[]): Float64Array {
  return vectors.reduce((sum, vector) => sum.map((value, i) => value + vector[i]!));
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

      it('with a decay of all weights, biases too, that is part of the gradient as in PyTorch: two steps of SGD and of Adam', async () => {
        // TF.js's epsilon, which both engines have; PyTorch's default is 1e-8.
        const [weightDecay, steps, adamEpsilon] = [0.17, 2, 1e-7];
        const decayed = (weights: Float64Array) => {
          const regressed = { kernel: weights.slice(0, features * classes), bias: weights.slice(features * classes) };
          return weightGradient(hardExamples, crossEntropy64(logitsOf(regressed, hardExamples)).gradient).map((g, i) => g + weightDecay * weights[i]!);
        };
        const sgd = await weightsAfter({ hard }, { weightDecay, epochs: steps });
        let expected = flat(sgd.before);
        for (let t = 0; t < steps; t++) {
          const gradient = decayed(expected);
          expected = expected.map((w, i) => w - learningRate * gradient[i]!);
        }
        expectClose(sgd.after, expected);

        const adam = await weightsAfter({ hard }, { weightDecay, epochs: steps, optimizer: { kind: 'adam', learningRate } });
        expected = flat(adam.before);
        let [mean, square] = [expected.map(() => 0), expected.map(() => 0)];
        for (let t = 1; t <= steps; t++) {
          const gradient = decayed(expected);
          mean = mean.map((m, i) => 0.9 * m + 0.1 * gradient[i]!);
          square = square.map((v, i) => 0.999 * v + 0.001 * gradient[i]! ** 2);
          expected = expected.map((w, i) => w - (learningRate * (mean[i]! / (1 - 0.9 ** t))) / (Math.sqrt(square[i]! / (1 - 0.999 ** t)) + adamEpsilon));
        }
        expectClose(adam.after, expected, 2e-5);
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

    const learningRate = 0.31;
    const schedules: readonly { readonly schedule: LearningRateSchedule; readonly rates: readonly number[] }[] = [
      { schedule: { kind: 'constant', warmupSteps: 2 }, rates: [0.5, 1, 1, 1] },
      { schedule: { kind: 'stepDecay', factor: 0.3, everySteps: 2 }, rates: [1, 1, 0.3, 0.3] },
      { schedule: { kind: 'stepDecay', factor: 0.3, everySteps: 1, warmupSteps: 1 }, rates: [1, 1, 0.3, 0.09] },
      { schedule: { kind: 'cosine' }, rates: [1, (1 + Math.SQRT1_2) / 2, 0.5, (1 - Math.SQRT1_2) / 2] },
      { schedule: { kind: 'cosine', finalFraction: 0.2, warmupSteps: 2 }, rates: [0.5, 1, 1, 0.6] },
    ];
    it.each(schedules)('follows the learning-rate schedule $schedule', async ({ schedule, rates }) => {
      for (const momentum of [0, 0.6]) {
        const { before, after } = await weightsAfter({ hard }, { epochs: 4, learningRateSchedule: schedule, optimizer: { kind: 'sgd', learningRate, momentum } });
        let weights = flat(before);
        let velocity = weights.map(() => 0);
        for (const rate of rates) {
          const gradient = weightGradient(hardExamples, crossEntropy64(logitsOf(unflat(weights), hardExamples)).gradient);
          velocity = velocity.map((v, i) => momentum * v + gradient[i]!);
          weights = weights.map((w, i) => w - rate * learningRate * velocity[i]!);
        }
        expectClose(after, weights);
      }
    });

    it('follows a schedule with Adam, whose steps are as long as the learning rate says', async () => {
      const run = async (learningRateSchedule: LearningRateSchedule) => {
        const { before, after } = await weightsAfter({ hard }, { learningRateSchedule, optimizer: { kind: 'adam', learningRate: 0.02 } });
        return after.map((w, i) => w - flat(before)[i]!);
      };
      const whole = await run({ kind: 'constant' });
      expectClose(await run({ kind: 'constant', warmupSteps: 4 }), whole.map((change) => change / 4), 1e-6);
    });

    describe('weights of examples', () => {
      const weights = Float32Array.of(0.5, 0, 2, 1, 0.25);

      it('scale the loss and the gradient of each example, in a mean over the rows', async () => {
        for (const kind of ['hard', 'soft'] as const) {
          const { before, after, report } = await weightsAfter(kind === 'hard' ? { hard: { ...hard, weights } } : { soft: { ...soft, weights } }, {});
          const examples = kind === 'hard' ? hardExamples : softExamples;
          const logits = logitsOf(before, examples);
          const q = softmax64(Float64Array.from(targetLogits.values), temperature);
          const { gradient } = kind === 'hard' ? crossEntropy64(logits) : kl64(logits, q);
          const step = weightGradient(examples, gradient.map((value, i) => value * weights[Math.floor(i / classes)]!));
          expectClose(after, flat(before).map((w, i) => w - 0.37 * step[i]!));
          const unweighted = Float64Array.from({ length: rows }, (_, row) => {
            const p = softmax64(logits, kind === 'hard' ? 1 : temperature).subarray(row * classes, (row + 1) * classes);
            if (kind === 'hard') return -Math.log(p[labels[row]!]!);
            return p.reduce((sum, value, c) => sum + temperature ** 2 * q[row * classes + c]! * Math.log(q[row * classes + c]! / value), 0);
          });
          expect(report.finalLoss).toBeCloseTo(unweighted.reduce((sum, value, row) => sum + (weights[row]! * value) / rows, 0), 4);
        }
      });

      it('apply to absolute errors', async () => {
        const { before, after } = await weightsAfter({ soft: { ...soft, weights } }, { loss: { distance: 'logitMae', temperature: 9, alpha: 0 } });
        const { gradient } = mae64(logitsOf(before, softExamples));
        const step = weightGradient(softExamples, gradient.map((value, i) => value * weights[Math.floor(i / classes)]!));
        expectClose(after, flat(before).map((w, i) => w - 0.37 * step[i]!));
      });

      it('must be as many as the examples, and not negative', async () => {
        await withModel(regression, 5, async (model) => {
          await expectProblem(model.fit({ hard: { ...hard, weights: weights.slice(1) } }, options()), 'data-invalid');
          const problem = await expectProblem(model.fit({ soft: { ...soft, weights: Float32Array.of(1, 1, -1, 1, 1) } }, options()), 'data-invalid');
          expect(problem).toMatchObject({ field: 'soft.weights', got: '-1' });
        });
      });
    });

    it('updates the moving statistics of batch normalization in training, from the batch as it is', async () => {
      await withModel({ kind: 'layersModel', artifacts: await normalizingModel(), outputKind: 'logits' }, 0, async (model) => {
        // The third batch has one row less than it could: no row may fill it up.
        await model.fit({ hard }, options({ epochs: 2 }));
        await model.fit({ hard }, options({ batchSize: rows + 1 }));
        const columns = Array.from({ length: features }, (_, f) => Array.from({ length: rows }, (__, row) => hardExamples.values[row * features + f]!));
        const means = columns.map((column) => column.reduce((a, b) => a + b) / rows);
        const variances = columns.map((column, f) => column.reduce((sum, value) => sum + (value - means[f]!) ** 2, 0) / rows);
        const saved = await model.save();
        expectClose(weightsNamed(saved, 'moving_mean'), means.map((mean) => (1 - 0.7 ** 3) * mean));
        expectClose(weightsNamed(saved, 'moving_variance'), variances.map((variance) => 0.7 ** 3 + (1 - 0.7 ** 3) * variance));
        expect(weightsNamed(saved, 'gamma').every((value) => value === 1)).toBe(false);
      });
    });

    describe('private gradients', () => {
      async function privately(data: TrainingData, changes: Partial<PrivateFitOptions>, source: ModelSource = regression) {
        return withModel(source, 5, async (model) => {
          const before = await model.save();
          const report = await model.fitPrivately!(data, privateOptions(changes));
          return { before, after: await model.save(), report };
        });
      }
      const change = ({ before, after }: { readonly before: SavedModel; readonly after: SavedModel }) => {
        const [from, to] = [new Float32Array(before.weights.slice().buffer), new Float32Array(after.weights.slice().buffer)];
        return Float64Array.from(to, (value, i) => value - from[i]!);
      };

      it('are the sum over the records divided by their expected number, when nothing is clipped and no noise added', async () => {
        const { before, after } = await privately({ hard }, { expectedBatchSize: 7 });
        const start = regressionOf(before);
        const sum = sumOf(exampleGradients(start));
        expectClose(flat(regressionOf(after)), flat(start).map((w, i) => w - (0.37 * sum[i]!) / 7));
      });

      it('are clipped one by one, over all weights taken as one vector', async () => {
        for (const microBatchSize of [undefined, 1, 2]) {
          const { before, after } = await privately({ hard }, microBatchSize === undefined ? { clippingNorm: 1.1 } : { clippingNorm: 1.1, microBatchSize });
          const start = regressionOf(before);
          const gradients = exampleGradients(start);
          const norms = gradients.map((gradient) => Math.hypot(...gradient));
          // Some are clipped and some are not.
          expect(new Set(norms.map((norm) => norm > 1.1)).size).toBe(2);
          const sum = sumOf(gradients.map((gradient, row) => gradient.map((value) => value * Math.min(1, 1.1 / norms[row]!))));
          expectClose(flat(regressionOf(after)), flat(start).map((w, i) => w - (0.37 * sum[i]!) / rows));
        }
      });

      it('weigh records before they are clipped, and records of weight 0 not at all', async () => {
        const weights = Float32Array.of(0.5, 0, 2, 1, 0.25);
        const { before, after } = await privately({ hard: { ...hard, weights } }, { clippingNorm: 0.9 });
        const start = regressionOf(before);
        const gradients = exampleGradients(start).map((gradient, row) => gradient.map((value) => value * weights[row]!));
        const sum = sumOf(gradients.map((gradient) => gradient.map((value) => value * Math.min(1, 0.9 / Math.max(Math.hypot(...gradient), 1e-9)))));
        expectClose(flat(regressionOf(after)), flat(start).map((w, i) => w - (0.37 * sum[i]!) / rows));
      });

      it('are those of the distillation loss for records with targets', async () => {
        const { before, after } = await privately({ soft }, {});
        const start = regressionOf(before);
        const { gradient } = kl64(logitsOf(start, softExamples), softmax64(Float64Array.from(targetLogits.values), temperature));
        const step = weightGradient(softExamples, gradient);
        expectClose(flat(regressionOf(after)), flat(start).map((w, i) => w - 0.37 * step[i]!));
      });

      it('follow momentum, an L2 penalty that is added after the clipping, and a schedule', async () => {
        const [rate, momentum, l2, clippingNorm] = [0.29, 0.83, 0.13, 0.8];
        const { before, after } = await privately({ hard }, { steps: 3, clippingNorm, l2, optimizer: { kind: 'sgd', learningRate: rate, momentum }, learningRateSchedule: { kind: 'constant', warmupSteps: 2 } });
        let weights = flat(regressionOf(before));
        let velocity = weights.map(() => 0);
        for (const factor of [0.5, 1, 1]) {
          const clipped = exampleGradients(unflat(weights)).map((gradient) => gradient.map((value) => value * Math.min(1, clippingNorm / Math.hypot(...gradient))));
          const gradient = sumOf(clipped).map((value, i) => value / rows + (i < features * classes ? l2 * weights[i]! : 0));
          velocity = velocity.map((v, i) => momentum * v + gradient[i]!);
          weights = weights.map((w, i) => w - factor * rate * velocity[i]!);
        }
        expectClose(flat(regressionOf(after)), weights);
      });

      it('have the noise of the sum, sigma times the clipping norm, also in a step without records', async () => {
        // Batches are empty but once in many runs of this test; the noise is that of a sum, divided by the expected size.
        const [steps, noiseMultiplier, clippingNorm, expectedBatchSize] = [60, 1.7, 0.6, 8];
        const changes: number[] = [];
        for (let run = 0; run < 8; run++) {
          const result = await privately({ hard }, { samplingRate: 1e-9, steps, noiseMultiplier, clippingNorm, expectedBatchSize, optimizer: { kind: 'sgd', learningRate: 1 }, random: new InsecureSeededRandom(100 + run) });
          expect(result.report.steps).toBe(steps);
          changes.push(...change(result));
        }
        const deviation = (Math.sqrt(steps) * noiseMultiplier * clippingNorm) / expectedBatchSize;
        const squares = changes.map((value) => (value / deviation) ** 2);
        // 128 normal numbers: their mean square is 1 with a standard deviation of 0.125.
        expect(squares.reduce((a, b) => a + b) / squares.length).toBeGreaterThan(0.5);
        expect(squares.reduce((a, b) => a + b) / squares.length).toBeLessThan(1.5);
      });

      it('draw other noise and other batches in each run', async () => {
        const random = new InsecureSeededRandom(9);
        const run = async () => change(await privately({ hard }, { noiseMultiplier: 1, random }));
        expect(await run()).not.toEqual(await run());
      });

      it('are of Poisson batches: their sizes have the mean and the variance of independent records', async () => {
        // Every record is the same and is clipped, so the length of a step counts them.
        const count = 30;
        const samplingRate = 0.3;
        const one = hardExamples.values.slice(0, features);
        const same = { examples: { count, shape: [features], values: Float32Array.from({ length: count * features }, (_, i) => one[i % features]!) }, labels: new Int32Array(count).fill(labels[0]!) };
        const random = new InsecureSeededRandom(77);
        const sizes: number[] = [];
        for (let run = 0; run < 200; run++) {
          const result = await privately({ hard: same }, { samplingRate, clippingNorm: 1e-3, expectedBatchSize: 1, optimizer: { kind: 'sgd', learningRate: 1 }, random });
          sizes.push(Math.hypot(...change(result)) / 1e-3);
        }
        expect(sizes.every((size) => Math.abs(size - Math.round(size)) < 0.05)).toBe(true);
        const mean = sizes.reduce((a, b) => a + b) / sizes.length;
        const variance = sizes.reduce((sum, size) => sum + (size - mean) ** 2, 0) / (sizes.length - 1);
        const expected = count * samplingRate * (1 - samplingRate);
        // Five standard deviations of each estimate.
        expect(Math.abs(mean - count * samplingRate)).toBeLessThan(5 * Math.sqrt(expected / sizes.length));
        expect(Math.abs(variance - expected)).toBeLessThan(5 * expected * Math.sqrt(2 / sizes.length));
      });

      it('have nothing of an earlier step in a step without records', async () => {
        // As above; nine of ten batches are empty, so a sum that stayed would count many times.
        const count = 5;
        const one = hardExamples.values.slice(0, features);
        const same = { examples: { count, shape: [features], values: Float32Array.from({ length: count * features }, (_, i) => one[i % features]!) }, labels: new Int32Array(count).fill(labels[0]!) };
        const [steps, samplingRate, clippingNorm] = [200, 0.02, 1e-3];
        const result = await privately({ hard: same }, { steps, samplingRate, clippingNorm, expectedBatchSize: 1, optimizer: { kind: 'sgd', learningRate: 1 }, random: new InsecureSeededRandom(4) });
        const drawn = Math.hypot(...change(result)) / clippingNorm;
        const expected = steps * count * samplingRate;
        expect(Math.abs(drawn - expected)).toBeLessThan(5 * Math.sqrt(expected));
        expect(Math.abs(drawn - Math.round(drawn))).toBeLessThan(0.05);
      });

      it('come with the event that an accountant charges, and tell nothing else', async () => {
        const { report } = await privately({ hard }, { steps: 3, samplingRate: 0.2, noiseMultiplier: 1.3, clippingNorm: 2 });
        expect(report).toEqual({ steps: 3, event: { kind: 'selfComposed', count: 3, event: { kind: 'poissonSampled', samplingProbability: 0.2, event: { kind: 'gaussian', noiseMultiplier: 1.3 } } } });
        expect((await privately({ hard }, { steps: 2 })).report.event).toEqual({ kind: 'selfComposed', count: 2, event: { kind: 'nonPrivate' } });
      });

      it('are refused for a layer that mixes the examples of a batch', async () => {
        await withModel({ kind: 'layersModel', artifacts: await normalizingModel(), outputKind: 'logits' }, 0, async (model) => {
          const before = await model.save();
          const problem = await expectProblem(model.fitPrivately!({ hard }, privateOptions()), 'model-invalid');
          expect(problem).toMatchObject({ got: 'BatchNormalization' });
          expect(problem.next).toContain('layer normalization');
          expect(await model.save()).toEqual(before);
        });
      });

      it('are refused for two kinds of data, and for options out of range', async () => {
        await withModel(regression, 5, async (model) => {
          expect((await expectProblem(model.fitPrivately!({ hard, soft }, privateOptions()), 'data-invalid')).next).toContain('costs no privacy');
          await expectProblem(model.fitPrivately!({}, privateOptions()), 'data-invalid');
          for (const [field, wrong] of Object.entries({ steps: -1, samplingRate: 0, clippingNorm: 0, noiseMultiplier: -1, expectedBatchSize: 0, microBatchSize: 0 })) {
            expect(await expectProblem(model.fitPrivately!({ hard }, privateOptions({ [field]: wrong })), 'config-invalid')).toMatchObject({ field, got: String(wrong) });
          }
        });
      });

      it('do not let one record whose gradient is no number undo the step', async () => {
        const poisoned = { ...hardExamples, values: hardExamples.values.slice() };
        poisoned.values[0] = Infinity;
        const { before, after } = await privately({ hard: { examples: poisoned, labels } }, { clippingNorm: 0.5 });
        const start = regressionOf(before);
        const rest = exampleGradients(start).slice(1).map((gradient) => gradient.map((value) => value * Math.min(1, 0.5 / Math.hypot(...gradient))));
        const sum = sumOf(rest);
        expectClose(flat(regressionOf(after)), flat(start).map((w, i) => w - (0.37 * sum[i]!) / rows));
      });

      it('tell each step, and stop with the reason of the signal', async () => {
        await withModel(regression, 5, async (model) => {
          const reason = new Error('the round was closed');
          const controller = new AbortController();
          const steps: number[] = [];
          const fit = model.fitPrivately!(
            { hard },
            privateOptions({
              steps: 1_000_000,
              signal: controller.signal,
              onStep: ({ step }) => {
                steps.push(step);
                if (step === 2) controller.abort(reason);
              },
            }),
          );
          await expect(fit).rejects.toBe(reason);
          expect(steps.slice(0, 2)).toEqual([1, 2]);
          await model.fit({ hard }, options());
        });
      });

      it('teach digits from 500 records, with noise', async () => {
        const train = mnistDigits('train', 500);
        const test = mnistDigits('test', 500);
        await withModel({ kind: 'zoo', name: 'softmax-regression', exampleShape: [28, 28, 1], numClasses: 10 }, 1, async (model) => {
          await model.fitPrivately!({ hard: train }, privateOptions({ steps: 30, samplingRate: 0.1, clippingNorm: 1, noiseMultiplier: 0.7, optimizer: { kind: 'adam', learningRate: 0.02 }, random: new InsecureSeededRandom(3) }));
          expect(accuracy(await model.predict(test.examples), test.labels)).toBeGreaterThan(0.6);
        });
      });
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
