/**
 * An engine that asks a journal before it computes. Everything that an engine computes is a function of what it was given (`engine.ts`: the same calls in the same order give
 * the same weights), so a training or a prediction is known by a hash of the model's history and of the call. What the journal knows is not computed again; a model
 * gets its weights when something is computed that the journal does not know.
 */
import { createHash } from 'node:crypto';
import type { ComputeEngine, FitOptions, FitReport, ModelSource, OpenModel, PrivateFitOptions, PrivateFitReport, SavedModel, TrainingData } from '../shared/compute/engine.ts';
import { packageVersion } from '../shared/node/version.ts';
import type { RandomSource } from '../shared/ports/random-source.ts';
import type { Examples, Matrix } from '../shared/types/matrix.ts';
import type { ComputationJournal } from './computation-journal.ts';

/** `hashes`: one for all devices of a run. */
export function rememberingEngine(engine: ComputeEngine, journal: ComputationJournal, hashes: ContentHashes): ComputeEngine {
  const { name, reason } = engine;
  return {
    name,
    reason,
    async open(source: ModelSource, seed: number) {
      const origin = hashes.of(['open', packageVersion, name, process.platform, process.arch, source, seed]);
      return new RememberingModel(await engine.open(source, seed), origin, journal, hashes);
    },
    dispose: () => engine.dispose(),
  };
}

type Progress = Parameters<NonNullable<FitOptions['onEpoch']>>[0];

class RememberingModel implements OpenModel {
  readonly fitPrivately?: NonNullable<OpenModel['fitPrivately']>;
  readonly #model: OpenModel;
  readonly #journal: ComputationJournal;
  readonly #hashes: ContentHashes;
  /** Of the architecture. */
  readonly #origin: string;
  /** Hash of everything that made the weights; undefined when they are those of a training that failed. */
  #history: string | undefined;
  /** Weights of a training that was remembered, until the model needs them. */
  #ahead: Uint8Array | undefined;

  constructor(model: OpenModel, origin: string, journal: ComputationJournal, hashes: ContentHashes) {
    this.#model = model;
    this.#origin = origin;
    this.#history = origin;
    this.#journal = journal;
    this.#hashes = hashes;
    if (model.fitPrivately !== undefined) this.fitPrivately = (data, options) => this.#fitPrivately(data, options);
  }

  get summary() {
    return this.#model.summary;
  }

  async fit(data: TrainingData, { signal, onEpoch, ...options }: FitOptions): Promise<FitReport> {
    signal?.throwIfAborted();
    const progress: Progress[] = [];
    const train = () =>
      this.#model.fit(data, {
        ...options,
        ...(signal === undefined ? {} : { signal }),
        onEpoch: (epoch) => {
          progress.push(epoch);
          onEpoch?.(epoch);
        },
      });
    const known = await this.#train(['fit', data, options], async () => ({ report: await train(), progress }));
    if (known.isRemembered) for (const epoch of known.result.progress) onEpoch?.(epoch);
    return known.result.report;
  }

  async #fitPrivately(data: TrainingData, { signal, onStep, random, ...options }: PrivateFitOptions): Promise<PrivateFitReport> {
    signal?.throwIfAborted();
    // A seeded stream is known by how it begins.
    const beginning = random.bytes(32).slice();
    const train = () => this.#model.fitPrivately!(data, { ...options, random: startingWith(beginning, random), ...(signal === undefined ? {} : { signal }), ...(onStep === undefined ? {} : { onStep }) });
    const { result, isRemembered } = await this.#train(['fitPrivately', data, options, beginning], async () => ({ report: await train() }));
    if (isRemembered) for (let step = 1; step <= result.report.steps; step++) onStep?.({ step, steps: result.report.steps });
    return result.report;
  }

  async predict(examples: Examples): Promise<Matrix> {
    const journal = this.#journal;
    const key = this.#history === undefined ? undefined : this.#hashes.of(['predict', this.#history, examples]);
    const known = key === undefined ? undefined : journal.find(key);
    if (known !== undefined) {
      const { rows, columns } = known.json as { rows: number; columns: number };
      return { rows, columns, values: new Float32Array(known.bytes.buffer) };
    }
    await this.#catchUp();
    const { rows, columns, values } = await this.#model.predict(examples);
    if (key !== undefined) journal.keep(key, { json: { rows, columns }, bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) });
    return { rows, columns, values };
  }

  async save(): Promise<SavedModel> {
    await this.#catchUp();
    return this.#model.save();
  }

  async load(saved: SavedModel): Promise<void> {
    await this.#model.load(saved);
    this.#ahead = undefined;
    this.#history = this.#hashes.of(['load', this.#origin, saved.weights]);
  }

  dispose(): Promise<void> {
    return this.#model.dispose();
  }

  /** What `work` trains is remembered with the weights after it. */
  async #train<T extends object>(call: readonly unknown[], work: () => Promise<T>): Promise<{ readonly result: T; readonly isRemembered: boolean }> {
    const journal = this.#journal;
    const key = this.#history === undefined ? undefined : this.#hashes.of([...call, this.#history]);
    const known = key === undefined ? undefined : journal.find(key);
    if (known !== undefined) {
      this.#ahead = known.bytes;
      this.#history = key;
      return { result: known.json as T, isRemembered: true };
    }
    await this.#catchUp();
    this.#history = undefined; // until it has succeeded
    const result = await work();
    if (key !== undefined) journal.keep(key, { json: result, bytes: (await this.#model.save()).weights });
    this.#history = key;
    return { result, isRemembered: false };
  }

  async #catchUp(): Promise<void> {
    const weights = this.#ahead;
    if (weights === undefined) return;
    await this.#model.load({ ...(await this.#model.save()), weights });
    this.#ahead = undefined;
  }
}

/** The stream that begins with these bytes, which were taken from it, and goes on. */
function startingWith(beginning: Uint8Array, rest: RandomSource): RandomSource {
  let taken = 0;
  return {
    bytes(length) {
      const first = beginning.subarray(taken, taken + length);
      taken += first.length;
      if (first.length === length) return first;
      const whole = new Uint8Array(length);
      whole.set(first);
      whole.set(rest.bytes(length - first.length), first.length);
      return whole;
    },
  };
}

/** SHA-256 of plain data with arrays of numbers, hexadecimal. */
export class ContentHashes {
  readonly #constants: WeakMap<ArrayBufferView, string | undefined>;

  /** `constants`: arrays into which nobody writes, so that they are hashed once. All others are hashed each time: their owner may have written to them since. */
  constructor(constants: readonly ArrayBufferView[] = []) {
    this.#constants = new WeakMap(constants.map((array) => [array, undefined]));
  }

  of(value: unknown): string {
    return digest(JSON.stringify(value, (_key, one: unknown) => (ArrayBuffer.isView(one) ? this.#ofArray(one) : one)));
  }

  #ofArray(array: ArrayBufferView): string {
    const known = this.#constants.get(array);
    if (known !== undefined) return known;
    const text = `${array.constructor.name} ${digest(new Uint8Array(array.buffer, array.byteOffset, array.byteLength))}`;
    // Memory that threads share is not written to either, as long as it is used (`worker-pool.ts`).
    if (this.#constants.has(array) || array.buffer instanceof SharedArrayBuffer) this.#constants.set(array, text);
    return text;
  }
}

function digest(content: string | Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}
