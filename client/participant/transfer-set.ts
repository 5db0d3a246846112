/** Where the public transfer set is kept, so that it is fetched once. Whatever comes out has the digest that the coordinator signed. */
import { digestOf } from '../../shared/crypto/digest.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import { decodeExamples } from '../../shared/protocol/matrix-frame.ts';
import type { Digest } from '../../shared/types/ids.ts';
import { selectExamples, type Examples } from '../../shared/types/matrix.ts';

export interface TransferSetCache {
  get(digest: Digest): Promise<Examples | undefined>;
  /** `frame` has this digest; the examples in it. */
  put(digest: Digest, frame: Uint8Array): Promise<Examples>;
}

const blob = 'transfer-set';

/** One transfer set in a task's own store. A damaged copy counts as none. */
export function storedTransferSet(store: DurableStore): TransferSetCache {
  return {
    async get(digest) {
      const frame = await store.getBlob(blob);
      return frame !== undefined && digestOf(frame) === digest ? decodeExamples(frame) : undefined;
    },
    async put(_digest, frame) {
      const examples = decodeExamples(frame);
      await store.putBlob(blob, frame);
      return examples;
    },
  };
}

/** Transfer sets that many participants of one process look at, with what was last selected of each, most recently first. */
const selections = new WeakMap<Examples, Selection[]>();

interface Selection {
  readonly indices: Uint32Array;
  readonly selected: Examples;
}

/** Those of a round's labels and of its query, of this round and of the one that slow participants are still at. */
const keptSelections = 4;

/** The transfer examples at these positions: copied, or the same ones for all participants of this process that asked for them. Nobody writes to them. */
export function selectTransfer(transferSet: Examples, indices: Uint32Array): Examples {
  const known = selections.get(transferSet);
  if (known === undefined) return selectExamples(transferSet, indices);
  const found = known.find((selection) => selection.indices.length === indices.length && selection.indices.every((index, i) => index === indices[i]));
  const selection = found ?? { indices, selected: inSharedMemory(selectExamples(transferSet, indices)) };
  selections.set(transferSet, [selection, ...known.filter((other) => other !== selection)].slice(0, keptSelections));
  return selection.selected;
}

/**
 * For many participants in one process, a cache for each of them: each fetches and checks the frame for itself, as on a machine of its own, but all look at the same
 * examples, in memory that compute threads can share.
 */
export function sharedTransferSets(): () => TransferSetCache {
  const known = new Map<Digest, Examples>();
  return () => {
    let fetched: Digest | undefined;
    return {
      get: (digest) => Promise.resolve(digest === fetched ? known.get(digest) : undefined),
      put(digest, frame) {
        fetched = digest;
        let examples = known.get(digest);
        if (examples === undefined) {
          examples = inSharedMemory(decodeExamples(frame));
          known.set(digest, examples);
          selections.set(examples, []);
        }
        return Promise.resolve(examples);
      },
    };
  };
}

function inSharedMemory({ count, shape, values }: Examples): Examples {
  const shared = new Float32Array(new SharedArrayBuffer(values.byteLength));
  shared.set(values);
  return { count, shape, values: shared };
}
