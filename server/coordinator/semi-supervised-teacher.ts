/**
 * A teacher that asks little and guesses much: it takes the noised votes on a few transfer examples, spreads them over a graph of all of them, and trains a model in
 * rounds on the labels of which it has become sure (docs/semi-supervised.md). All of it is computed from public examples and from votes that were released:
 * post-processing, which costs no privacy.
 *
 * What clients distil are its labels of the whole transfer set, as final probabilities. A graph of 10,000 examples takes seconds.
 */
import type { ModelSource, OpenModel } from '../../shared/compute/engine.ts';
import { decodeSavedModel, encodeSavedModel } from '../../shared/compute/saved-model-codec.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import type { Consensus } from '../../shared/distillation/aggregation.ts';
import { neighborGraph, spreadVotes } from '../../shared/distillation/pseudo-labels.ts';
import { embed, transferEmbedding } from '../../shared/distillation/public-embedding.ts';
import { queryPlan, selectQueries } from '../../shared/distillation/query-selection.ts';
import { trainSemiSupervised } from '../../shared/distillation/semi-supervised.ts';
import { concatBytes, uint32Bytes } from '../../shared/types/bytes.ts';
import type { RoundId } from '../../shared/types/ids.ts';
import { selectRows, type Examples, type Matrix } from '../../shared/types/matrix.ts';
import { decodeSoftLabels, encodeSoftLabels, type SoftLabels } from './soft-labels.ts';
import { measureTeacher, type TeacherQuality } from './teacher-quality.ts';
import type { Teacher, TeacherDeps } from './teacher.ts';

/** The round, and the labels of every transfer example. */
const labelsBlob = 'teacher/labels';
const modelBlob = 'teacher/model';

/** Rows of the transfer set that are the middles of `count` clusters, ascending. Public. */
export function clusterMiddles(transferSet: Examples, count: number, taskSeed: number): Uint32Array {
  return selectQueries(transferPoints(transferSet, taskSeed), count, taskSeed).rows;
}

/** Needed for the queries and again for the labels: seconds for 10,000 examples. */
const knownPoints = new WeakMap<Examples, { readonly taskSeed: number; readonly points: Matrix }>();

function transferPoints(transferSet: Examples, taskSeed: number): Matrix {
  const known = knownPoints.get(transferSet);
  if (known?.taskSeed === taskSeed) return known.points;
  const points = embed(transferEmbedding(transferSet, taskSeed), transferSet);
  knownPoints.set(transferSet, { taskSeed, points });
  return points;
}

export class SemiSupervisedTeacher implements Teacher {
  readonly #deps: TeacherDeps;
  readonly #source: ModelSource;
  #model: OpenModel | undefined;
  #labels: Matrix | undefined;
  /** The round of the last votes; 0 = none. */
  #learnedRound: number;
  #quality: TeacherQuality | undefined;

  private constructor(deps: TeacherDeps, source: ModelSource, model: OpenModel | undefined, labels: Matrix | undefined, learnedRound: number) {
    this.#deps = deps;
    this.#source = source;
    this.#model = model;
    this.#labels = labels;
    this.#learnedRound = learnedRound;
  }

  static async open(deps: TeacherDeps, source: ModelSource): Promise<SemiSupervisedTeacher> {
    const [labels, checkpoint] = [await deps.store.getBlob(labelsBlob), await deps.store.getBlob(modelBlob)];
    if (labels === undefined || checkpoint === undefined) return new SemiSupervisedTeacher(deps, source, undefined, undefined, 0);
    const model = await deps.engine.open(source, 0);
    await model.load(decodeSavedModel(checkpoint));
    const learnedRound = new DataView(labels.buffer, labels.byteOffset).getUint32(0, true);
    return new SemiSupervisedTeacher(deps, source, model, decodeSoftLabels(labels.subarray(4)).matrix, learnedRound);
  }

  async labels(indices: Uint32Array): Promise<SoftLabels | undefined> {
    return this.#labels === undefined ? undefined : { indices, matrix: selectRows(this.#labels, indices), kind: 'probabilities' };
  }

  /** Starts afresh from these votes: a model that learned from others' would keep their mistakes. */
  async learn(round: RoundId, indices: Uint32Array, { consensus }: Consensus): Promise<TeacherQuality> {
    if (this.#learnedRound < round) {
      const { config, engine, store, transferSet } = this.#deps;
      const points = transferPoints(transferSet, config.seed);
      const votesOf = config.privacy.recordVotes === undefined ? 'query' : 'cluster';
      const votes = spreadVotes({ graph: neighborGraph(points), plan: queryPlan(points, indices), votes: consensus, votesOf });
      const { model, labels } = await trainSemiSupervised({ engine, source: this.#source, examples: transferSet, labels: votes, seed: deriveSeed(config.seed, 'teacher', round) });
      await this.#model?.dispose();
      this.#model = model;
      // The labels last: they say which round this was.
      await store.putBlob(modelBlob, encodeSavedModel(await model.save()));
      const everything = Uint32Array.from({ length: transferSet.count }, (_, row) => row);
      const encoded = encodeSoftLabels({ indices: everything, matrix: labels.probabilities, kind: 'probabilities' });
      await store.putBlob(labelsBlob, concatBytes(uint32Bytes(round), encoded));
      this.#labels = labels.probabilities;
      this.#learnedRound = round;
      this.#quality = undefined;
    }
    return (this.#quality ??= await measureTeacher(this.#model, this.#deps.evaluationSet));
  }

  model(): OpenModel | undefined {
    return this.#model;
  }

  async dispose(): Promise<void> {
    await this.#model?.dispose();
  }
}
