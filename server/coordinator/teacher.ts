/**
 * The coordinator's teacher: a model that learns from the consensus, a pretrained one, or the consensus itself. Its checkpoint names the round
 * that it last learned from, so that an aggregation that is run again after a crash does not train it twice.
 *
 * A teacher that was trained on private data leaks that data through its soft labels to every client; nothing here prevents that.
 */
import type { ComputeEngine, DistillationLoss, ModelSource, OpenModel } from '../../shared/compute/engine.ts';
import { decodeSavedModel, encodeSavedModel } from '../../shared/compute/saved-model-codec.ts';
import type { TaskConfig } from '../../shared/config/task-config.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import type { Consensus } from '../../shared/distillation/aggregation.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import { concatBytes, uint32Bytes } from '../../shared/types/bytes.ts';
import type { RoundId } from '../../shared/types/ids.ts';
import { selectExamples, type Examples, type LabelledExamples } from '../../shared/types/matrix.ts';
import { CachedConsensusTeacher } from './cached-consensus-teacher.ts';
import { SemiSupervisedTeacher } from './semi-supervised-teacher.ts';
import { decodeSoftLabels, encodeSoftLabels, type SoftLabels } from './soft-labels.ts';
import { measureTeacher, noQuality, type TeacherQuality } from './teacher-quality.ts';
import { transferBatch } from './transfer-batch.ts';

export interface Teacher {
  /** Soft labels to distil from, for a round that queries `indices`; `undefined` while the teacher knows nothing. */
  labels(indices: Uint32Array): Promise<SoftLabels | undefined>;
  /** Learns from a round's consensus on `indices`. Running it again for the same round changes nothing. */
  learn(round: RoundId, indices: Uint32Array, consensus: Consensus): Promise<TeacherQuality>;
  /** Which of a round's transfer examples it wants predictions on, at least one; absent: all of them. */
  queryOf?(batch: Uint32Array, round: RoundId): Uint32Array;
  /** A copy of the model, for export; `undefined` where the consensus itself is the teacher. */
  model(): OpenModel | undefined;
  dispose(): Promise<void>;
}

export interface TeacherDeps {
  readonly config: TaskConfig;
  readonly engine: ComputeEngine;
  readonly store: DurableStore;
  readonly transferSet: Examples;
  readonly evaluationSet: LabelledExamples | undefined;
  /** For `pretrained`: the model that the task names. */
  readonly pretrained: ModelSource | undefined;
}

export async function openTeacher(deps: TeacherDeps): Promise<Teacher> {
  const { config } = deps;
  switch (config.teacher.kind) {
    case 'consensus': {
      const { cache } = config.distillation;
      if (cache === undefined) return new ConsensusTeacher(deps.store);
      return CachedConsensusTeacher.open(deps.store, cache.rounds, (round) => transferBatch(config, deps.transferSet.count, round));
    }
    case 'learner': {
      const source: ModelSource = { kind: 'zoo', name: config.teacher.model, exampleShape: config.data.exampleShape, numClasses: config.data.numClasses };
      return ModelTeacher.open(deps, source, { knowsSomething: false, epochs: config.teacher.epochs });
    }
    case 'semiSupervised':
      return SemiSupervisedTeacher.open(deps, { kind: 'zoo', name: config.teacher.model, exampleShape: config.data.exampleShape, numClasses: config.data.numClasses });
    case 'pretrained':
      return ModelTeacher.open(deps, deps.pretrained!, { knowsSomething: true, epochs: config.teacher.epochs });
  }
}

const consensusBlob = 'teacher/consensus';
const modelBlob = 'teacher/model';

/** FedMD (Li & Wang 2019): what was released last is what is distilled next. */
class ConsensusTeacher implements Teacher {
  readonly #store: DurableStore;
  constructor(store: DurableStore) {
    this.#store = store;
  }

  async labels(): Promise<SoftLabels | undefined> {
    const bytes = await this.#store.getBlob(consensusBlob);
    return bytes === undefined ? undefined : decodeSoftLabels(bytes);
  }

  async learn(_round: RoundId, indices: Uint32Array, { consensus, kind }: Consensus): Promise<TeacherQuality> {
    await this.#store.putBlob(consensusBlob, encodeSoftLabels({ indices, matrix: consensus, kind }));
    return noQuality;
  }

  model(): undefined {
    return undefined;
  }

  async dispose(): Promise<void> {}
}

class ModelTeacher implements Teacher {
  readonly #deps: TeacherDeps;
  readonly #model: OpenModel;
  readonly #epochs: number;
  /** The round of the last consensus it learned from; 0 = none. */
  #learnedRound: number;
  #knowsSomething: boolean;
  #quality: TeacherQuality | undefined;

  private constructor(deps: TeacherDeps, model: OpenModel, epochs: number, learnedRound: number, knowsSomething: boolean) {
    this.#deps = deps;
    this.#model = model;
    this.#epochs = epochs;
    this.#learnedRound = learnedRound;
    this.#knowsSomething = knowsSomething;
  }

  static async open(deps: TeacherDeps, source: ModelSource, { knowsSomething, epochs }: { knowsSomething: boolean; epochs: number }): Promise<ModelTeacher> {
    const model = await deps.engine.open(source, deriveSeed(deps.config.seed, 'teacher'));
    const checkpoint = await deps.store.getBlob(modelBlob);
    if (checkpoint === undefined) return new ModelTeacher(deps, model, epochs, 0, knowsSomething);
    const learnedRound = new DataView(checkpoint.buffer, checkpoint.byteOffset).getUint32(0, true);
    await model.load(decodeSavedModel(checkpoint.subarray(4)));
    return new ModelTeacher(deps, model, epochs, learnedRound, true);
  }

  async labels(indices: Uint32Array): Promise<SoftLabels | undefined> {
    if (!this.#knowsSomething) return undefined;
    const matrix = await this.#model.predict(selectExamples(this.#deps.transferSet, indices));
    return { indices, matrix, kind: 'logits' };
  }

  async learn(round: RoundId, indices: Uint32Array, { consensus, kind }: Consensus): Promise<TeacherQuality> {
    if (this.#learnedRound < round && this.#epochs > 0) {
      const { config, store, transferSet } = this.#deps;
      // A consensus of probabilities is final, so it is matched at temperature 1; logits are softened on both sides.
      const loss: DistillationLoss = { distance: config.distillation.loss, temperature: kind === 'logits' ? config.distillation.temperature : 1, alpha: 0 };
      await this.#model.fit(
        { soft: { examples: selectExamples(transferSet, indices), targets: consensus, targetKind: kind } },
        { epochs: this.#epochs, batchSize: config.student.batchSize, loss, optimizer: config.student.optimizer, l2: config.student.l2, seed: deriveSeed(config.seed, 'teacher-fit', round) },
      );
      await store.putBlob(modelBlob, concatBytes(uint32Bytes(round), encodeSavedModel(await this.#model.save())));
      this.#learnedRound = round;
      this.#knowsSomething = true;
      this.#quality = undefined;
    }
    return (this.#quality ??= await measureTeacher(this.#model, this.#deps.evaluationSet));
  }

  model(): OpenModel {
    return this.#model;
  }

  dispose(): Promise<void> {
    return this.#model.dispose();
  }
}
