/**
 * Sample-and-aggregate at the client: its records are split into disjoint shards, one model learns from each, and what a release counts is the sum of their
 * predictions. One record is in one shard, so it changes one model, whatever the architecture and however it is trained (docs/privacy-model.md, section 3).
 *
 * For that proof everything about a shard's model may depend on its own records, and on nothing else of the client: seeds, epochs, optimizer and batch size are
 * the task's, nothing is tuned on all records, and a shard that fails has no opinion instead of failing the client.
 *
 * The student is another model: it learns from all records, and nothing of it is sent.
 */
import type { ComputeEngine, ModelSource, OpenModel, SavedModel } from '../../shared/compute/engine.ts';
import { decodeSavedModel, encodeSavedModel } from '../../shared/compute/saved-model-codec.ts';
import { sha256 } from '../../shared/crypto/digest.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { embed, fitPublicEmbedding } from '../../shared/distillation/public-embedding.ts';
import { softmax } from '../../shared/distillation/temperature.ts';
import { FederationError } from '../../shared/errors.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { ReleaseParameters } from '../../shared/privacy/release.ts';
import type { TaskDocument } from '../../shared/protocol/messages.ts';
import { uint32Bytes, utf8 } from '../../shared/types/bytes.ts';
import type { Digest } from '../../shared/types/ids.ts';
import { selectLabelled, type Examples, type LabelledExamples, type Matrix } from '../../shared/types/matrix.ts';

export type ShardSettings = NonNullable<TaskDocument['privacy']['sampleAndAggregate']>;

/**
 * Positions of the records of each shard, ascending; some shards may be empty. The shard of a record is a hash of its POSITION under a public key, and of nothing
 * else: not of its content (a record replaced by another would leave one shard and enter a second one, and change two models), nor of the number of records (one
 * more would move others).
 */
export function assignShards(records: number, shards: number, taskDigest: Digest): readonly Uint32Array[] {
  const key = utf8(`fedstill/shards/1\n${taskDigest}\n`);
  const positions: number[][] = Array.from({ length: shards }, () => []);
  for (let position = 0; position < records; position++) {
    const hash = sha256(key, uint32Bytes(position));
    // 48 bits: the shards differ in probability by less than 2^-34.
    const value = hash.subarray(0, 6).reduce((sum, byte) => sum * 256 + byte, 0);
    positions[value % shards]!.push(position);
  }
  return positions.map((ofShard) => Uint32Array.from(ofShard));
}

export interface ShardModelsInit {
  readonly engine: ComputeEngine;
  /** Of this task at this coordinator alone: one blob a shard. */
  readonly store: DurableStore;
  readonly task: TaskDocument;
  readonly taskDigest: Digest;
  readonly privateDataset: LabelledExamples;
  /** Public. Where shards' models see points of an embedding, it is fitted on these alone. */
  readonly transferSet: Examples;
  /** Told after each shard that was trained in this process, for the owner alone. */
  readonly onTrained?: (done: number, shards: number) => void;
}

export class ShardModels {
  readonly #engine: ComputeEngine;
  readonly #store: DurableStore;
  readonly #settings: ShardSettings;
  readonly #source: ModelSource;
  readonly #isEmpty: readonly boolean[];
  readonly #inputsOf: (examples: Examples) => Examples;

  private constructor({ engine, store }: ShardModelsInit, settings: ShardSettings, source: ModelSource, isEmpty: readonly boolean[], inputsOf: (examples: Examples) => Examples) {
    this.#engine = engine;
    this.#store = store;
    this.#settings = settings;
    this.#source = source;
    this.#isEmpty = isEmpty;
    this.#inputsOf = inputsOf;
  }

  /**
   * Trains what is not trained yet, one model at a time, each saved durably when it is done: a process that is killed goes on with the next shard. Once for
   * the whole task. Throws `signal.reason` when aborted, and `model-invalid` for a model that does not take these examples.
   */
  static async train(init: ShardModelsInit, signal: AbortSignal): Promise<ShardModels> {
    const { engine, store, task, taskDigest, privateDataset } = init;
    const settings = task.privacy.sampleAndAggregate;
    if (settings === null) throw new FederationError('internal', 'The task has no shards to train.', { field: 'privacy.sampleAndAggregate' });
    const inputsOf = settings.inputs === 'embedding' ? embeddingInputs(init.transferSet, task.seed) : (examples: Examples) => examples;
    const inputs = inputsOf(privateDataset.examples);
    const records: LabelledExamples = { ...privateDataset, examples: inputs };
    const source: ModelSource = { kind: 'zoo', name: settings.model, exampleShape: inputs.shape, numClasses: task.numClasses, dropout: task.student.dropout };
    const assignment = assignShards(privateDataset.examples.count, settings.shards, taskDigest);
    for (const [shard, positions] of assignment.entries()) {
      if (positions.length === 0 || (await store.getBlob(blobOf(shard))) !== undefined) continue;
      signal.throwIfAborted();
      const saved = await trainShard(engine, source, shard, task, selectLabelled(records, positions), signal);
      await store.putBlob(blobOf(shard), encodeSavedModel(saved));
      init.onTrained?.(shard + 1, settings.shards);
    }
    return new ShardModels(init, settings, source, assignment.map((positions) => positions.length === 0), inputsOf);
  }

  /**
   * Logits of every shard, [examples.count x classes] each, as `contribution.ts` takes them. A row of zeros has no opinion: no vote, or the uniform
   * distribution. That is every row of an empty shard, and rows whose largest probability is below the task's `minConfidence` or that are no numbers.
   */
  async predict(examples: Examples, release: ReleaseParameters, signal: AbortSignal): Promise<readonly Matrix[]> {
    const { shards, votes, minConfidence } = this.#settings;
    if (release.shards !== shards || (release.votes === true) !== votes) {
      throw new FederationError('context-mismatch', 'The release does not count the shards that the task names.', { field: 'release.shards', expected: `${shards} shards, votes ${votes}`, got: `${release.shards ?? 'no'} shards, votes ${release.votes === true}` });
    }
    const inputs = this.#inputsOf(examples);
    const matrices: Matrix[] = [];
    const model = await this.#engine.open(this.#source, 0);
    try {
      for (let shard = 0; shard < shards; shard++) {
        signal.throwIfAborted();
        matrices.push(this.#isEmpty[shard] === true ? silence(release) : withoutDoubt(await this.#predictShard(model, shard, inputs), minConfidence));
      }
    } finally {
      await model.dispose().catch(() => undefined); // the first error is the one to tell
    }
    return matrices;
  }

  async #predictShard(model: OpenModel, shard: number, examples: Examples): Promise<Matrix> {
    const bytes = await this.#store.getBlob(blobOf(shard));
    if (bytes === undefined) {
      throw new FederationError('state-mismatch', `The model of shard ${shard} is gone.`, { field: blobOf(shard), next: 'Restore the state folder from a backup, or remove the folder of this task. Keep the ledger.' });
    }
    await model.load(decodeSavedModel(bytes));
    return model.predict(examples);
  }
}

/** A function of public examples and of one record at a time: a shard's points tell of its own records alone. */
function embeddingInputs(transferSet: Examples, seed: number): (examples: Examples) => Examples {
  const embedding = fitPublicEmbedding(transferSet, { seed });
  return (examples) => {
    const { rows, columns, values } = embed(embedding, examples);
    return { count: rows, shape: [columns], values };
  };
}

/** Everything but the records is public, and the same for every client and every shard of this number. */
async function trainShard(engine: ComputeEngine, source: ModelSource, shard: number, task: TaskDocument, records: LabelledExamples, signal: AbortSignal): Promise<SavedModel> {
  const { epochs, batchSize, learningRate, l2 } = task.privacy.sampleAndAggregate!;
  const model = await engine.open(source, deriveSeed(task.seed, 'shard-weights', shard));
  try {
    await model.fit(
      { hard: records },
      { epochs, batchSize, optimizer: { kind: 'adam', learningRate }, l2, seed: deriveSeed(task.seed, 'shard-training', shard), loss: { distance: 'kl', temperature: 1, alpha: 1 }, signal },
    );
    return await model.save();
  } finally {
    await model.dispose().catch(() => undefined);
  }
}

function blobOf(shard: number): string {
  return `shards/model-${shard}`;
}

function silence({ rows, columns }: { readonly rows: number; readonly columns: number }): Matrix {
  return { rows, columns, values: new Float32Array(rows * columns) };
}

/** The logits, with rows that are no numbers or not confident enough silenced: a function of this shard's model alone. */
function withoutDoubt(logits: Matrix, minConfidence: number): Matrix {
  const { rows, columns } = logits;
  const values = logits.values.slice();
  for (let row = 0; row < rows; row++) {
    const ofRow = values.subarray(row * columns, (row + 1) * columns);
    const isNumber = ofRow.every(Number.isFinite);
    if (!isNumber || Math.max(...softmax({ rows: 1, columns, values: ofRow }).values) < minConfidence) ofRow.fill(0);
  }
  return { rows, columns, values };
}
