/**
 * A student and its training, over any `ComputeEngine`. Every finished step is saved with its name in one blob, so that a participant that is
 * killed continues after the last step and trains none twice. The optimizer's state is not kept: its moments start at zero in each step anyway.
 *
 * Everything here stays on this machine. The student itself memorises private data; whoever gets its weights gets what it memorised. With the task's mechanism
 * `dpSgd` it learns from private records by private steps alone, until it is personalised after the last release; a checkpoint says how many it has made.
 */
import { z } from 'zod';
import type { ComputeEngine, DistillationLoss, FitOptions, FitReport, ModelSource, ModelSummary, OpenModel, PrivateFitOptions, PrivateFitReport, SavedModel, TrainingData } from '../../shared/compute/engine.ts';
import { isDivergence } from '../../shared/compute/checks.ts';
import { decodeSavedModel, encodeSavedModel } from '../../shared/compute/saved-model-codec.ts';
import { deriveSeed, SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { evaluate } from '../../shared/distillation/evaluation.ts';
import { FederationError } from '../../shared/errors.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import type { TaskDocument } from '../../shared/protocol/messages.ts';
import { concatBytes, fromUtf8, uint32Bytes, utf8 } from '../../shared/types/bytes.ts';
import { selectLabelled, type Examples, type LabelledExamples, type Matrix, type OutputKind } from '../../shared/types/matrix.ts';

export type StudentSettings = TaskDocument['student'];

/** What a data owner may set otherwise than the task suggests. */
export interface StudentOverrides {
  /** Passes over the private dataset before the first round. */
  readonly pretrainEpochs?: number;
  /** Passes over the labelled transfer examples in each round. */
  readonly digestEpochs?: number;
  /** Passes over the private dataset in each round. */
  readonly revisitEpochs?: number;
  /** Examples per training step. */
  readonly batchSize?: number;
  readonly learningRate?: number;
}

export function studentSettings(task: TaskDocument, overrides: StudentOverrides): StudentSettings {
  const { learningRate, ...rest } = overrides;
  return { ...task.student, ...rest, optimizer: learningRate === undefined ? task.student.optimizer : { ...task.student.optimizer, learningRate } };
}

const stepNames = ['fresh', 'pretrain', 'digest', 'revisit', 'final', 'personal'] as const;

/** The last step that a student has finished: `pretrain` belongs to round 0, `final` and `personal` come after every round. */
export interface TrainingStep {
  readonly round: number;
  readonly step: (typeof stepNames)[number];
}

/** Steps in the order in which they are made. */
function position({ round, step }: TrainingStep): number {
  const afterRounds = step === 'final' || step === 'personal';
  return (afterRounds ? 2 ** 40 : round * stepNames.length) + stepNames.indexOf(step);
}

/** What a student has learned from private records. */
interface Exposure {
  /** Steps of private training (`dpSgd`). */
  readonly privateSteps: number;
  /** It has learned from private records without noise. */
  readonly sawRecords: boolean;
}

const CheckpointHeaderSchema = z.strictObject({
  format: z.literal('fedstill-student/1'),
  round: z.int().min(0),
  step: z.enum(stepNames),
  privateSteps: z.int().min(0).default(0),
  /** Versions without private training did not say: their students have. */
  sawRecords: z.boolean().default(true),
});

/** uint32 length of the header, JSON header, model. */
function encodeCheckpoint(done: TrainingStep, exposure: Exposure, model: SavedModel): Uint8Array {
  const header = utf8(JSON.stringify({ format: 'fedstill-student/1', ...done, ...exposure }));
  return concatBytes(uint32Bytes(header.length), header, encodeSavedModel(model));
}

function decodeCheckpoint(bytes: Uint8Array): { readonly done: TrainingStep; readonly exposure: Exposure; readonly model: SavedModel } {
  let done: TrainingStep;
  let exposure: Exposure;
  let headerEnd: number;
  try {
    headerEnd = 4 + new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0, true);
    const { round, step, privateSteps, sawRecords } = CheckpointHeaderSchema.parse(JSON.parse(fromUtf8(bytes.subarray(4, headerEnd))));
    done = { round, step };
    exposure = { privateSteps, sawRecords };
  } catch (cause) {
    throw new FederationError('state-mismatch', 'The student\'s checkpoint is damaged.', { field: 'student', next: 'Restore the state folder from a backup, or remove the folder of this task. Keep the ledger.', cause });
  }
  return { done, exposure, model: decodeSavedModel(bytes.subarray(headerEnd)) };
}

/** The blob that holds a task's student. */
export const studentBlob = 'student';
/** The blob of the student that never distils: the baseline. */
export const localOnlyBlob = 'student-local-only';

/** The saved student of a task, or its baseline; `undefined` before it has finished a step. */
export async function readStudent(store: Pick<DurableStore, 'getBlob'>, blob = studentBlob): Promise<SavedModel | undefined> {
  const bytes = await store.getBlob(blob);
  return bytes === undefined ? undefined : decodeCheckpoint(bytes).model;
}

export interface StudentInit {
  readonly engine: ComputeEngine;
  readonly source: ModelSource;
  /** Seeds the first weights: an integer in [0, 2^32). */
  readonly seed: number;
  readonly store: DurableStore;
  readonly blob: string;
}

/** How good a student is on the owner's test set. */
export interface StudentQuality {
  /** In [0, 1]. */
  readonly accuracy: number;
  /** Mean negative log-likelihood, in nats. */
  readonly nll: number;
}

/** A model that remembers, durably, which steps it has made. */
export class Student {
  readonly #model: OpenModel;
  readonly #store: DurableStore;
  readonly #blob: string;
  /** As of the last finished step. */
  #saved: SavedModel;
  #done: TrainingStep;
  #exposure: Exposure;
  /** Of the weights of now, for each test set. */
  #quality: { readonly of: LabelledExamples; readonly quality: StudentQuality } | undefined;

  private constructor(model: OpenModel, { store, blob }: StudentInit, saved: SavedModel, done: TrainingStep, exposure: Exposure) {
    this.#model = model;
    this.#store = store;
    this.#blob = blob;
    this.#saved = saved;
    this.#done = done;
    this.#exposure = exposure;
  }

  /** With the weights of its checkpoint, or fresh ones. Throws `model-invalid` or `state-mismatch`. */
  static async open(init: StudentInit): Promise<Student> {
    const model = await init.engine.open(init.source, init.seed);
    try {
      const bytes = await init.store.getBlob(init.blob);
      if (bytes === undefined) return new Student(model, init, await model.save(), { round: 0, step: 'fresh' }, { privateSteps: 0, sawRecords: false });
      const checkpoint = decodeCheckpoint(bytes);
      await model.load(checkpoint.model);
      return new Student(model, init, checkpoint.model, checkpoint.done, checkpoint.exposure);
    } catch (error) {
      await model.dispose().catch(() => undefined);
      throw error;
    }
  }

  get summary(): ModelSummary {
    return this.#model.summary;
  }

  /** The last finished step. */
  get done(): TrainingStep {
    return this.#done;
  }

  /** Steps of private training that are in these weights. */
  get privateSteps(): number {
    return this.#exposure.privateSteps;
  }

  /** Whether these weights have learned from private records without noise. */
  get sawRecords(): boolean {
    return this.#exposure.sawRecords;
  }

  has(step: TrainingStep): boolean {
    return position(this.#done) >= position(step);
  }

  /** Makes one step and saves the result; nothing when it was made before. An aborted or failed step leaves the weights of the step before. */
  async train(step: TrainingStep, data: TrainingData, options: FitOptions): Promise<FitReport | undefined> {
    return this.#make(step, () => this.#model.fit(data, options), () => ({ ...this.#exposure, sawRecords: this.sawRecords || data.hard !== undefined }));
  }

  /**
   * The same with private training. Steps of a training that was aborted are thrown away with their weights. Throws `engine-unavailable` for an engine
   * without private gradients, and `model-invalid` for a model that mixes the examples of a batch.
   */
  async trainPrivately(step: TrainingStep, records: LabelledExamples, options: PrivateFitOptions): Promise<PrivateFitReport | undefined> {
    const model = this.#model;
    if (model.fitPrivately === undefined) {
      throw new FederationError('engine-unavailable', 'The task asks for private training, and this engine has no private gradients.', { field: 'engine', expected: 'an engine with private gradients', next: 'Choose another engine; `fedstill doctor` lists them.' });
    }
    return this.#make(step, () => model.fitPrivately!({ hard: records }, options), ({ steps }) => ({ ...this.#exposure, privateSteps: this.privateSteps + steps }));
  }

  async #make<Report>(step: TrainingStep, fit: () => Promise<Report>, exposureAfter: (report: Report) => Exposure): Promise<Report | undefined> {
    if (this.has(step)) return undefined;
    let report: Report;
    this.#quality = undefined;
    try {
      report = await fit();
    } catch (error) {
      await this.#model.load(this.#saved).catch(() => undefined); // the first error is the one to tell
      throw error;
    }
    await this.#keep(step, await this.#model.save(), exposureAfter(report));
    return report;
  }

  /** Counts a step as made, with the weights of the step before: what it learned is thrown away. `privateSteps`: those that it made, which are paid for all the same. */
  async stay(step: TrainingStep, privateSteps: number): Promise<void> {
    await this.#keep(step, this.#saved, { ...this.#exposure, privateSteps: this.privateSteps + privateSteps });
  }

  /** Takes over another student's weights and progress: training is deterministic, so equal steps need not be made twice. */
  async copyFrom(other: Student): Promise<void> {
    await this.#model.load(other.#saved);
    this.#quality = undefined;
    await this.#keep(other.#done, other.#saved, other.#exposure);
  }

  /** Logits [examples.count x classes]. */
  predict(examples: Examples): Promise<Matrix> {
    return this.#model.predict(examples);
  }

  async measure(testSet: LabelledExamples): Promise<StudentQuality> {
    if (this.#quality?.of === testSet) return this.#quality.quality;
    const { accuracy, negativeLogLikelihood } = evaluate(await this.predict(testSet.examples), 'logits', testSet.labels);
    const quality = { accuracy, nll: negativeLogLikelihood };
    this.#quality = { of: testSet, quality };
    return quality;
  }

  dispose(): Promise<void> {
    return this.#model.dispose();
  }

  async #keep(step: TrainingStep, saved: SavedModel, exposure: Exposure): Promise<void> {
    await this.#store.putBlob(this.#blob, encodeCheckpoint(step, exposure, saved));
    this.#saved = saved;
    this.#done = step;
    this.#exposure = exposure;
  }
}

/** A teacher's soft labels with the transfer examples that they belong to. */
export interface LabelledTransfer {
  /** [m x ...exampleShape] */
  readonly examples: Examples;
  /** [m x classes] */
  readonly targets: Matrix;
  readonly kind: OutputKind;
}

/** What a local training tells; `epochsRun` of a private one are passes on average. */
export type LocalReport = Pick<FitReport, 'epochsRun' | 'steps'>;

/** Fewest private examples of which a fifth is held out for early stopping. */
const leastForValidation = 10;

/**
 * The steps of one client's training, all with its own data and settings.
 *
 * Whether training diverges depends on private records. In a task that promises differential privacy a client that stopped for it would tell what nobody is charged for,
 * so it goes on: the student stays as it was before that step, and its private steps count as made (docs/privacy-model.md section 8).
 */
export class LocalTraining {
  readonly #settings: StudentSettings;
  readonly #distillation: TaskDocument['distillation'];
  readonly #seed: number;
  readonly #trainingSet: LabelledExamples;
  readonly #validationSet: LabelledExamples | undefined;
  readonly #dpSgd: TaskDocument['privacy']['dpSgd'];
  readonly #random: RandomSource;
  readonly #hidesDivergence: boolean;
  readonly #onDiverged: (at: TrainingStep, error: FederationError) => void;

  /**
   * `seed` seeds the hold-out, shuffles and dropout: an integer in [0, 2^32). `random`: batches and noise of private training. `onDiverged` is told of a training that was thrown
   * away, for the owner alone.
   */
  constructor(task: TaskDocument, settings: StudentSettings, privateDataset: LabelledExamples, seed: number, random: RandomSource, onDiverged: (at: TrainingStep, error: FederationError) => void) {
    this.#dpSgd = task.privacy.dpSgd;
    this.#random = random;
    this.#hidesDivergence = task.privacy.mechanism !== 'none';
    this.#onDiverged = onDiverged;
    this.#settings = settings;
    this.#distillation = task.distillation;
    this.#seed = seed;
    const { count } = privateDataset.examples;
    if (this.#dpSgd !== null || settings.earlyStoppingPatience === 0 || count < leastForValidation) {
      this.#trainingSet = privateDataset;
      this.#validationSet = undefined;
    } else {
      const order = new SeededGenerator(deriveSeed(seed, 'validation')).permutation(count);
      const held = Math.floor(count / 5);
      this.#validationSet = selectLabelled(privateDataset, order.slice(0, held));
      this.#trainingSet = selectLabelled(privateDataset, order.slice(held));
    }
  }

  /** Whether soft labels are of any use to these settings. */
  get distils(): boolean {
    return this.#settings.digestEpochs > 0;
  }

  /** In private training: the steps of the first release. */
  pretrain(student: Student, signal: AbortSignal): Promise<LocalReport | undefined> {
    const at = { round: 0, step: 'pretrain' } as const;
    if (this.#dpSgd !== null) return this.#trainPrivately(student, at, this.#dpSgd, this.#dpSgd.steps, signal);
    return this.#trainLocally(student, at, this.#settings.pretrainEpochs, signal);
  }

  /** Local training after distilling ("revisit"). `privateSteps`: how many steps there may be in private training. */
  revisit(student: Student, round: number, privateSteps: number, signal: AbortSignal): Promise<LocalReport | undefined> {
    const at = { round, step: 'revisit' } as const;
    if (this.#dpSgd !== null) return this.#trainPrivately(student, at, this.#dpSgd, privateSteps, signal);
    return this.#trainLocally(student, at, this.#settings.revisitEpochs, signal);
  }

  /** Local training after the last distillation, without noise in any case: nothing is released from it. Better on data like the owner's, worse on classes that the owner lacks. */
  personalize(student: Student, round: number, signal: AbortSignal): Promise<LocalReport | undefined> {
    return this.#trainLocally(student, { round, step: 'personal' }, this.#settings.revisitEpochs, signal);
  }

  /** Distils a round's soft labels ("digest"), or with `final` those of the end of the task. */
  async digest(student: Student, at: { readonly round: number; readonly step: 'digest' | 'final' }, labels: LabelledTransfer, signal: AbortSignal): Promise<FitReport | undefined> {
    const { digestEpochs } = this.#settings;
    if (digestEpochs === 0) return undefined;
    const { alpha } = this.#distillation;
    const data: TrainingData = { soft: { examples: labels.examples, targets: labels.targets, targetKind: labels.kind }, ...(alpha > 0 ? { hard: this.#trainingSet } : {}) };
    return this.#orStay(student, at, 0, () => student.train(at, data, { ...this.#fitOptions(at, digestEpochs, signal), loss: distillationLoss(this.#distillation, labels.kind) }));
  }

  async #trainPrivately(student: Student, at: TrainingStep, { learningRate, ...noise }: NonNullable<TaskDocument['privacy']['dpSgd']>, steps: number, signal: AbortSignal): Promise<LocalReport | undefined> {
    if (steps <= 0) return undefined;
    const { optimizer, l2 } = this.#settings;
    const report = await this.#orStay(student, at, steps, () => student.trainPrivately(at, this.#trainingSet, {
      ...noise, steps, optimizer: { ...optimizer, learningRate }, l2, seed: deriveSeed(this.#seed, at.step, at.round), random: this.#random, signal, loss: { distance: 'kl', temperature: 1, alpha: 1 },
    }));
    // Passes on average: how large the batches were is nobody's business.
    return report === undefined ? undefined : { epochsRun: Math.round(report.steps * noise.samplingRate), steps: report.steps };
  }

  async #trainLocally(student: Student, at: TrainingStep, epochs: number, signal: AbortSignal): Promise<FitReport | undefined> {
    if (epochs === 0) return undefined;
    const validation = this.#validationSet;
    const earlyStopping = validation === undefined ? {} : { earlyStopping: { patience: this.#settings.earlyStoppingPatience, validation } };
    return this.#orStay(student, at, 0, () => student.train(at, { hard: this.#trainingSet }, { ...this.#fitOptions(at, epochs, signal), loss: { distance: 'kl', temperature: 1, alpha: 1 }, ...earlyStopping }));
  }

  async #orStay<Report>(student: Student, at: TrainingStep, privateSteps: number, train: () => Promise<Report | undefined>): Promise<Report | undefined> {
    try {
      return await train();
    } catch (error) {
      if (!this.#hidesDivergence || !isDivergence(error)) throw error;
      await student.stay(at, privateSteps);
      this.#onDiverged(at, error);
      return undefined;
    }
  }

  #fitOptions({ round, step }: TrainingStep, epochs: number, signal: AbortSignal): Omit<FitOptions, 'loss'> {
    const { batchSize, optimizer, l2 } = this.#settings;
    return { epochs, batchSize, optimizer, l2, seed: deriveSeed(this.#seed, step, round), signal };
  }
}

/**
 * Logits are softened at the task's temperature on both sides. Probabilities are final (a consensus): they are matched at temperature 1
 * (docs/protocol.md section 10, `labels`).
 */
export function distillationLoss({ loss, temperature, alpha }: TaskDocument['distillation'], kind: OutputKind): DistillationLoss {
  return { distance: loss, temperature: kind === 'logits' ? temperature : 1, alpha };
}
