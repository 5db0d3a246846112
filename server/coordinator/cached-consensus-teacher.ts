/**
 * FedMD's teacher, whose labels are the consensus itself, with a cache of soft labels (SCARLET: Azuma et al. 2025): a transfer example whose consensus is younger than `rounds` rounds is not predicted on
 * again, and its label is what it was. Clients hold the same labels, so neither they nor the coordinator send them again (docs/protocol.md section 10, `changed`).
 */
import type { Consensus } from '../../shared/distillation/aggregation.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import { concatBytes, uint32Bytes } from '../../shared/types/bytes.ts';
import type { RoundId } from '../../shared/types/ids.ts';
import { selectRows } from '../../shared/types/matrix.ts';
import { decodeSoftLabels, encodeSoftLabels, type SoftLabels } from './soft-labels.ts';
import { noQuality, type TeacherQuality } from './teacher-quality.ts';
import type { Teacher } from './teacher.ts';

const cacheBlob = 'teacher/cached-consensus';

/** A row of the consensus and the round that it is of. */
interface CachedLabel {
  readonly round: number;
  readonly values: Float32Array;
}

export class CachedConsensusTeacher implements Teacher {
  readonly #store: DurableStore;
  /** A label is fresh in this many rounds after its own, by round number. */
  readonly #rounds: number;
  readonly #batchOf: (round: RoundId) => Uint32Array;
  readonly #cache = new Map<number, CachedLabel>();
  #kind: SoftLabels['kind'] = 'probabilities';
  /** The last round that it learned from; 0 = none. */
  #learnedRound = 0;

  private constructor(store: DurableStore, rounds: number, batchOf: (round: RoundId) => Uint32Array) {
    this.#store = store;
    this.#rounds = rounds;
    this.#batchOf = batchOf;
  }

  /** `batchOf`: the transfer examples of a round, queried or not. */
  static async open(store: DurableStore, rounds: number, batchOf: (round: RoundId) => Uint32Array): Promise<CachedConsensusTeacher> {
    const teacher = new CachedConsensusTeacher(store, rounds, batchOf);
    const bytes = await store.getBlob(cacheBlob);
    if (bytes === undefined) return teacher;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    teacher.#learnedRound = view.getUint32(0, true);
    const count = view.getUint32(4, true);
    const { indices, matrix, kind } = decodeSoftLabels(bytes.subarray(8 + 4 * count));
    teacher.#kind = kind;
    indices.forEach((index, row) => teacher.#cache.set(index, { round: view.getUint32(8 + 4 * row, true), values: matrix.values.slice(row * matrix.columns, (row + 1) * matrix.columns) }));
    return teacher;
  }

  /** Those without a fresh label; when all have one, the one with the oldest, because a round asks for something. */
  queryOf(batch: Uint32Array, round: RoundId): Uint32Array {
    const stale = batch.filter((index) => (this.#cache.get(index)?.round ?? -Infinity) + this.#rounds <= round);
    if (stale.length > 0) return stale;
    const age = (index: number) => this.#cache.get(index)!.round;
    return Uint32Array.of(batch.reduce((oldest, index) => (age(index) < age(oldest) ? index : oldest)));
  }

  async labels(): Promise<SoftLabels | undefined> {
    if (this.#learnedRound === 0) return undefined;
    const indices = this.#batchOf(this.#learnedRound as RoundId).filter((index) => this.#cache.has(index));
    return indices.length === 0 ? undefined : this.#labelsOf(indices);
  }

  async learn(round: RoundId, indices: Uint32Array, { consensus, kind }: Consensus): Promise<TeacherQuality> {
    if (this.#learnedRound >= round) return noQuality;
    indices.forEach((index, row) => this.#cache.set(index, { round, values: selectRows(consensus, [row]).values }));
    this.#kind = kind;
    this.#learnedRound = round;
    const known = Uint32Array.from(this.#cache.keys()).sort();
    const rounds = Uint32Array.from(known, (index) => this.#cache.get(index)!.round);
    await this.#store.putBlob(cacheBlob, concatBytes(uint32Bytes(round), uint32Bytes(known.length), ...[...rounds].map(uint32Bytes), encodeSoftLabels(this.#labelsOf(known))));
    return noQuality;
  }

  model(): undefined {
    return undefined;
  }

  async dispose(): Promise<void> {}

  #labelsOf(indices: Uint32Array): SoftLabels {
    const columns = this.#cache.get(indices[0]!)!.values.length;
    const values = new Float32Array(indices.length * columns);
    indices.forEach((index, row) => values.set(this.#cache.get(index)!.values, row * columns));
    return { indices, matrix: { rows: indices.length, columns, values }, kind: this.#kind };
  }
}
