/** Where the public transfer set is kept, so that it is fetched once. Whatever comes out has the digest that the coordinator signed. */
import { digestOf } from '../../shared/crypto/digest.ts';
import type { DurableStore } from '../../shared/ports/durable-store.ts';
import { decodeExamples } from '../../shared/protocol/matrix-frame.ts';
import type { Digest } from '../../shared/types/ids.ts';
import type { Examples } from '../../shared/types/matrix.ts';

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

/** In memory, for many participants in one process: all of them look at the same examples, which nobody changes. */
export function sharedTransferSets(): TransferSetCache {
  const known = new Map<Digest, Examples>();
  return {
    get: (digest) => Promise.resolve(known.get(digest)),
    put(digest, frame) {
      const examples = known.get(digest) ?? decodeExamples(frame);
      known.set(digest, examples);
      return Promise.resolve(examples);
    },
  };
}
