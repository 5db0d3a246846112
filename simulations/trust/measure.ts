/** Everything that a trust report says about models, measured on one set of labelled examples. One model is open at a time. */
import { cpus } from 'node:os';
import type { ModelSource } from '../../shared/compute/engine.ts';
import { checkModelFits } from '../../shared/compute/checks.ts';
import { openDifferentiable, type DifferentiableModel } from '../../shared/compute/input-gradients.ts';
import { selectEngine, type EnginePreference } from '../../shared/compute/select-engine.ts';
import { deriveSeed, SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { argmax, negativeLogLikelihood } from '../../shared/distillation/evaluation.ts';
import { softmax } from '../../shared/distillation/temperature.ts';
import { FederationError } from '../../shared/errors.ts';
import { attack, type InputRange } from '../../shared/evaluation/adversarial.ts';
import { brierScore, calibrationError, calibrationErrorOfCalibrated, confidences, equalMassBins, equalWidthBins, maximumCalibrationError, uncertainty, wilsonInterval } from '../../shared/evaluation/calibration.ts';
import { fidelity } from '../../shared/evaluation/fidelity.ts';
import { largestChange, perClass, recallGap } from '../../shared/evaluation/per-class.ts';
import { mapShape, saliencyAgreement, saliencyMaps } from '../../shared/evaluation/saliency.ts';
import { exampleSize, selectExamples, type LabelledExamples, type Matrix, type OutputKind } from '../../shared/types/matrix.ts';
import { spread } from '../measure/statistics.ts';
import type { Picture, TrustModel, TrustReport } from '../report/trust-data.ts';
import type { FoundModel } from './find-models.ts';

export interface TrustSettings {
  /** How the output of a saved model is read; `auto`: probabilities when its last layer is a softmax. */
  readonly modelOutput: OutputKind | 'auto';
  readonly engine: EnginePreference;
  readonly seed: number;
  readonly bins: number;
  readonly epsilons: readonly number[];
  readonly pgdSteps: number;
  /** Most examples whose maps are drawn. */
  readonly pictures: number;
}

export interface TestData extends LabelledExamples {
  readonly source: string;
  /** Position of each example in the source, and how many that has. */
  readonly positions: Uint32Array;
  readonly available: number;
  readonly inputRange: InputRange;
}

export interface MeasureHooks {
  readonly say: (line: string) => void;
  readonly signal?: AbortSignal;
}

const topShare = 0.1;
const latencyBatch = 256;
const latencyRounds = 15;

/** What is known of a model besides its numbers: for the comparison with the teacher and for the pictures. */
interface Observed {
  readonly logits: Matrix;
  readonly maps: Matrix;
}

export type Measured = Pick<TrustReport, 'models' | 'pictures' | 'settings' | 'machine' | 'data'>;

/** `models`: the teacher first, where there is one. Throws `model-invalid` for a model that does not take the data. */
export async function measureTrust(models: readonly FoundModel[], data: TestData, settings: TrustSettings, { say, signal }: MeasureHooks): Promise<Measured> {
  const engine = await selectEngine(settings.engine);
  const results: TrustModel[] = [];
  const observed: Observed[] = [];
  let backend = '';
  try {
    for (const found of models) {
      signal?.throwIfAborted();
      const startedAt = performance.now();
      const { model, source } = await openSaved(found, settings.modelOutput);
      try {
        backend = model.backend;
        checkModelFits(model.summary, { exampleShape: data.examples.shape, numClasses: data.numClasses });
        const clean = await model.lossGradient(data.examples, data.labels);
        checkFinite(clean.logits, found);
        const seen: Observed = { logits: clean.logits, maps: saliencyMaps(clean.gradients, data.examples.shape) };
        observed.push(seen);
        const teacher = models[0]!.role === 'teacher' && found !== models[0] ? { ...observed[0]!, classes: results[0]!.classes } : undefined;
        const attackSettings = { epsilons: settings.epsilons, range: data.inputRange, pgdSteps: settings.pgdSteps, seed: deriveSeed(settings.seed, 'attack') };
        results.push({
          ...describe(found, model),
          ...judge(clean.logits, data.labels, settings),
          largestChange: teacher === undefined ? null : largestChange(perClass(clean.logits, data.labels), teacher.classes),
          fidelity: teacher === undefined ? null : fidelity(teacher.logits, clean.logits, data.labels),
          saliency: teacher === undefined ? null : saliencyAgreement(teacher.maps, seen.maps, topShare),
          attack: await attack(model, data, attackSettings, { clean, ...(signal === undefined ? {} : { signal }) }),
          cost: { parameters: model.summary.parameterCount, bytes: model.summary.weightBytes, multiplications: model.multiplications, ...(await latencies(source, data)) },
        });
        say(`${found.name}: measured in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
      } finally {
        model.dispose();
      }
    }
  } finally {
    await engine.dispose();
  }
  return {
    machine: { cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length, node: process.versions.node, platform: `${process.platform} ${process.arch}`, gradients: backend, engine: engine.name },
    data: { source: data.source, examples: data.examples.count, available: data.available, exampleShape: data.examples.shape, numClasses: data.numClasses, inputRange: data.inputRange },
    settings: { seed: settings.seed, bins: settings.bins, epsilons: settings.epsilons, pgdSteps: settings.pgdSteps, topShare },
    models: results,
    pictures: choosePictures(results, data, settings.pictures).map((i) => picture(i, results, observed, data)),
  };

  /** Of the engine that a user would run it on, one thread, the weights loaded and one prediction made. */
  async function latencies(source: ModelSource, { examples }: TestData): Promise<Pick<TrustModel['cost'], 'single' | 'batch'>> {
    const open = await engine.open(source, 0);
    try {
      const time = async (count: number) => {
        const some = selectExamples(examples, Uint32Array.from({ length: count }, (_, i) => i % examples.count));
        await open.predict(some);
        const times: number[] = [];
        for (let round = 0; round < latencyRounds; round++) {
          const startedAt = performance.now();
          await open.predict(some);
          times.push(performance.now() - startedAt);
        }
        return spread(times);
      };
      return { single: await time(1), batch: { size: latencyBatch, ...(await time(latencyBatch)) } };
    } finally {
      await open.dispose();
    }
  }
}

/** Opens a model to look at its shape and classes, then closes it. */
export async function summarizeModel(found: FoundModel, modelOutput: TrustSettings['modelOutput']): Promise<DifferentiableModel['summary']> {
  const { model } = await openSaved(found, modelOutput);
  const { summary } = model;
  model.dispose();
  return summary;
}

async function openSaved({ saved, name }: FoundModel, modelOutput: TrustSettings['modelOutput']): Promise<{ readonly model: DifferentiableModel; readonly source: ModelSource }> {
  const open = async (outputKind: OutputKind) => {
    const source: ModelSource = { kind: 'layersModel', artifacts: saved, outputKind };
    return { model: await openDifferentiable(source), source };
  };
  try {
    return await open(modelOutput === 'auto' ? 'logits' : modelOutput);
  } catch (error) {
    if (!(error instanceof FederationError)) throw error;
    if (modelOutput === 'auto' && error.field === 'model.outputKind') return open('probabilities');
    const { field, expected, got, next, code, message } = error;
    const init = { ...(field === undefined ? {} : { field }), ...(expected === undefined ? {} : { expected }), ...(got === undefined ? {} : { got }), ...(next === undefined ? {} : { next }), cause: error };
    throw new FederationError(code, `${name}: ${message}`, init);
  }
}

/** A model whose weights are not numbers predicts none either. */
function checkFinite(logits: Matrix, { name, path }: FoundModel): void {
  const bad = logits.values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new FederationError('data-invalid', `The model ${name} predicts something that is not a finite number.`, { field: path, expected: 'finite logits', got: `${logits.values[bad]!} for example ${Math.floor(bad / logits.columns)}`, next: 'Train it again with a lower learning rate; its weights are lost.' });
}

function describe({ name, role, path }: FoundModel, { summary }: DifferentiableModel): Pick<TrustModel, 'name' | 'role' | 'path' | 'architecture'> {
  return { name, role, path, architecture: summary.name };
}

function judge(logits: Matrix, labels: Int32Array, { bins, seed }: TrustSettings): Pick<TrustModel, 'accuracy' | 'interval' | 'calibration' | 'uncertainty' | 'classes' | 'recallGap'> {
  const probabilities = softmax(logits);
  const known = confidences(probabilities, labels);
  const right = known.correct.reduce((sum, one) => sum + one, 0);
  const widthBins = equalWidthBins(known, bins);
  const classes = perClass(logits, labels);
  return {
    accuracy: right / labels.length,
    interval: wilsonInterval(right, labels.length),
    calibration: {
      error: calibrationError(widthBins),
      errorOfCalibrated: calibrationErrorOfCalibrated(known, new SeededGenerator(deriveSeed(seed, 'calibrated')), { bins }),
      adaptiveError: calibrationError(equalMassBins(known, bins)),
      maximumError: maximumCalibrationError(widthBins),
      negativeLogLikelihood: negativeLogLikelihood(logits, 'logits', labels),
      brier: brierScore(probabilities, labels),
      bins: widthBins,
    },
    uncertainty: uncertainty(probabilities, known),
    classes,
    recallGap: recallGap(classes),
  };
}

/** Positions to draw: evenly from the lowest to the highest agreement of the students with the teacher; the first ones without a teacher. By rule, not by eye. */
function choosePictures(models: readonly TrustModel[], { examples }: TestData, wanted: number): number[] {
  const { shape, count } = examples;
  const [height, width] = mapShape(shape);
  const isImage = (shape.length === 2 || (shape.length === 3 && (shape[2] === 1 || shape[2] === 3))) && height! >= 2 && width! >= 2;
  const drawn = isImage ? Math.min(wanted, count) : 0;
  const compared = models.flatMap(({ saliency }) => (saliency === null ? [] : [saliency.perExample]));
  const agreement = (i: number) => compared.reduce((sum, perExample) => sum + (perExample[i] ?? 0), 0);
  const order = Array.from({ length: count }, (_, i) => i);
  if (compared.length > 0) order.sort((a, b) => agreement(b) - agreement(a) || a - b);
  else return order.slice(0, drawn);
  return Array.from({ length: drawn }, (_, rank) => order[drawn === 1 ? 0 : Math.round((rank * (count - 1)) / (drawn - 1))]!);
}

function picture(i: number, models: readonly TrustModel[], observed: readonly Observed[], { examples, labels, positions, inputRange }: TestData): Picture {
  const [height, width] = mapShape(examples.shape) as [number, number];
  const size = exampleSize(examples.shape);
  const { low, high } = inputRange;
  const scaled = (values: Float32Array, from: number, to: number) => Array.from(values, (value) => Math.round(255 * Math.min(1, Math.max(0, to > from ? (value - from) / (to - from) : 0))));
  return {
    position: positions[i]!,
    label: labels[i]!,
    height,
    width,
    channels: size / (height * width),
    example: scaled(examples.values.subarray(i * size, (i + 1) * size), low, high),
    models: models.map(({ saliency }, m) => {
      const { logits, maps } = observed[m]!;
      const own: Matrix = { rows: 1, columns: logits.columns, values: logits.values.slice(i * logits.columns, (i + 1) * logits.columns) };
      const predicted = argmax(own)[0]!;
      const map = maps.values.subarray(i * maps.columns, (i + 1) * maps.columns);
      return { predicted, confidence: softmax(own).values[predicted]!, rankCorrelation: saliency?.perExample[i] ?? null, map: scaled(map, 0, map.reduce((most, value) => Math.max(most, value), 0)) };
    }),
  };
}
