/**
 * Sample-and-aggregate at the client: its records are split into disjoint shards, one model learns from each, and what a release counts is the sum of their
 * predictions. One record is in one shard, so it changes one model, whatever the architecture and however it is trained (docs/privacy-model.md, section 3).
 *
 * For that proof everything about a shard's model may depend on its own records, and on nothing else of the client: seeds, epochs, optimizer and batch size are
 * the task's, nothing is tuned on all records, and a shard that fails has no opinion instead of failing the client.
 *
 * The student is another model: it learns from all records, and nothing of it is sent.
 */
import { isDivergence } from '../../shared/compute/checks.ts';
import type { ComputeEngine, ModelSource, OpenModel, SavedModel } from '../../shared/compute/engine.ts';
import { decodeSavedModel, encodeSavedModel } from '../../shared/compute/saved-model-codec.ts';
import { digestOf, sha256 } from '../../shared/crypto/digest.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { embed, transferEmbedding } from '../../shared/distillation/public-embedding.ts';
import { softmax } from '../../shared/distillation/temperature.ts';
import { FederationError } from '../../shared/errors.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import type { ReleaseParameters } from '../../shared/privacy/release.ts';
import type { TaskDocument } from '../../shared/protocol/messages.ts';
import { fromUtf8, uint32Bytes, utf8 } from '../../shared/types/bytes.ts';
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
  /** Of this task at this coordinator alone: one blob a shard, empty for one whose training diverged, and one that says which records they learn from. */
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
   * the whole task, on the same records: throws `state-mismatch` for others. Throws `signal.reason` when aborted, and `model-invalid` for a model that does not
   * take these examples.
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
    await keepToRecords(store, privateDataset);
    for (const [shard, positions] of assignment.entries()) {
      if (positions.length === 0 || (await store.getBlob(blobOf(shard))) !== undefined) continue;
      signal.throwIfAborted();
      const saved = await trainShard(engine, source, shard, task, selectLabelled(records, positions), signal);
      await store.putBlob(blobOf(shard), saved === undefined ? new Uint8Array(0) : encodeSavedModel(saved));
      init.onTrained?.(shard + 1, settings.shards);
    }
    return new ShardModels(init, settings, source, assignment.map((positions) => positions.length === 0), inputsOf);
  }

  /**
   * Logits of every shard, [examples.count x classes] each, as `contribution.ts` takes them. A row of zeros has no opinion: no vote, or the uniform
   * distribution. That is every row of an empty shard or of one whose training diverged, and rows whose largest probability is below the task's `minConfidence` or that are no numbers.
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
        const logits = this.#isEmpty[shard] === true ? undefined : await this.#predictShard(model, shard, inputs);
        matrices.push(logits === undefined ? silence(release) : withoutDoubt(logits, minConfidence));
      }
    } finally {
      await model.dispose().catch(() => undefined); // the first error is the one to tell
    }
    return matrices;
  }

  /** `undefined`: its training diverged. */
  async #predictShard(model: OpenModel, shard: number, examples: Examples): Promise<Matrix | undefined> {
    const bytes = await this.#store.getBlob(blobOf(shard));
    if (bytes === undefined) {
      throw new FederationError('state-mismatch', `The model of shard ${shard} is gone.`, { field: blobOf(shard), next: 'Restore the state folder from a backup, or remove the folder of this task. Keep the ledger.' });
    }
    if (bytes.length === 0) return undefined;
    await model.load(decodeSavedModel(bytes));
    return model.predict(examples);
  }
}

/** A function of public examples and of one record at a time: a shard's points tell of its own records alone. */
function embeddingInputs(transferSet: Examples, seed: number): (examples: Examples) => Examples {
  const embedding = transferEmbedding(transferSet, seed);
  return (examples) => {
    const { rows, columns, values } = embed(embedding, examples);
    return { count: rows, shape: [columns], values };
  };
}

/**
 * A client that was killed between two shards and comes back with records in another order, or with other ones, would let one record into the shard of its old position and
 * into that of its new one: the models of two shards would know it, and the published sensitivity would be too small.
 */
async function keepToRecords(store: DurableStore, { examples: { values, shape }, labels }: LabelledExamples): Promise<void> {
  const digest = digestOf(utf8(`fedstill/shard-records/1\n${shape.join()}\n`), ...[values, labels].map((array) => sha256(new Uint8Array(array.buffer, array.byteOffset, array.byteLength))));
  const stored = await store.getBlob(recordsBlob);
  if (stored === undefined) await store.putBlob(recordsBlob, utf8(digest));
  else if (fromUtf8(stored) !== digest) {
    throw new FederationError('state-mismatch', 'The private dataset has changed since this client began to train the models of its shards.', {
      field: 'private dataset',
      expected: 'the records of then, in the same order',
      got: 'others',
      next: 'Give the data of then, or remove the folder of this task below `tasks/` to start afresh with these. Keep the ledger.',
    });
  }
}

/**
 * Everything but the records is public, and the same for every client and every shard of this number. `undefined` when training diverges: that depends on the shard's
 * records, and must not be seen from outside as more than a shard without an opinion.
 */
async function trainShard(engine: ComputeEngine, source: ModelSource, shard: number, task: TaskDocument, records: LabelledExamples, signal: AbortSignal): Promise<SavedModel | undefined> {
  const { epochs, batchSize, learningRate, l2 } = task.privacy.sampleAndAggregate!;
  const model = await engine.open(source, deriveSeed(task.seed, 'shard-weights', shard));
  try {
    await model.fit(
      { hard: records },
      { epochs, batchSize, optimizer: { kind: 'adam', learningRate }, l2, seed: deriveSeed(task.seed, 'shard-training', shard), loss: { distance: 'kl', temperature: 1, alpha: 1 }, signal },
    );
    return await model.save();
  } catch (error) {
    if (isDivergence(error)) return undefined;
    throw error;
  } finally {
    await model.dispose().catch(() => undefined);
  }
}

const recordsBlob = 'shards/records';

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
