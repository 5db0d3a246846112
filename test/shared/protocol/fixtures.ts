/** What the protocol tests share: fixed identities, a valid document of each kind, and a random source that only repeats. */
import { readFileSync } from 'node:fs';
import { digestOf } from '../../../shared/crypto/digest.ts';
import { boxKeysFromSecret } from '../../../shared/crypto/sealed-box.ts';
import { identityFromSeed } from '../../../shared/crypto/signature.ts';
import { FederationError, type ProblemCode } from '../../../shared/errors.ts';
import type { RandomSource } from '../../../shared/ports/random-source.ts';
import { encodeIndices } from '../../../shared/protocol/indices.ts';
import { fingerprint } from '../../../shared/protocol/identity.ts';
import { concatBytes, toBase64, utf8 } from '../../../shared/types/bytes.ts';

export const coordinator = identityFromSeed(new Uint8Array(32).fill(1));
export const client = identityFromSeed(new Uint8Array(32).fill(2));
export const stranger = identityFromSeed(new Uint8Array(32).fill(3));
export const roundBox = boxKeysFromSecret(new Uint8Array(32).fill(4));

/** Hands out the given bytes in order and nothing more: for golden vectors only. */
export class InsecureFixedRandom implements RandomSource {
  #left: Uint8Array;
  constructor(...parts: readonly Uint8Array[]) {
    this.#left = concatBytes(...parts);
  }
  bytes(length: number): Uint8Array {
    if (length > this.#left.length) throw new RangeError(`asked for ${length} bytes, ${this.#left.length} are left`);
    const drawn = this.#left.slice(0, length);
    this.#left = this.#left.subarray(length);
    return drawn;
  }
  get left(): number {
    return this.#left.length;
  }
}

export const taskDocument = () => ({
  protocol: 'fdp/1',
  task: 'digits',
  coordinator: fingerprint(coordinator.publicKey),
  seed: 1,
  numClasses: 3,
  exampleShape: [2],
  transferSet: { digest: digestOf(utf8('transfer set')), rows: 10 },
  student: {
    model: 'mlp-small',
    optimizer: { kind: 'sgd', learningRate: 0.05, momentum: 0.9 },
    batchSize: 32,
    pretrainEpochs: 5,
    digestEpochs: 2,
    revisitEpochs: 1,
    l2: 0,
    dropout: 0,
    earlyStoppingPatience: 0,
  },
  distillation: { temperature: 2.718, alpha: 0.25, loss: 'kl' },
  privacy: { trustMode: 'sealed', mechanism: 'none', unit: 'client', epsilon: null, delta: 1e-5, releases: 5 },
  schedule: { rounds: 5, minClients: 2, quorum: 2, roundDeadlineMs: 60_000 },
  admission: 'open',
});

export const roundDocument = () => ({
  protocol: 'fdp/1',
  task: 'digits',
  taskDigest: digestOf(utf8('task')),
  round: 2,
  previous: null,
  trustMode: 'sealed',
  stages: ['contribution'],
  boxKey: toBase64(roundBox.publicKey),
  query: encodeIndices(Uint32Array.of(0, 4, 9)),
  labels: { digest: digestOf(utf8('labels')), kind: 'logits', ...encodeIndices(Uint32Array.of(1, 2)) },
  release: { mechanism: 'none', outputKind: 'probabilities', rows: 3, columns: 3, gridStep: 1 / 4096, noise: null },
  encoding: 'float16',
  cohort: { size: 3, quorum: 2 },
  releases: 5,
  deadlineMs: 60_000,
});

export const secureRound = { minCohort: 5, minSurvivors: 4, maxCorrupt: 1, stageDeadlineMs: 30_000 };

export const secureRoundDocument = () => ({
  ...roundDocument(),
  trustMode: 'secure-aggregation',
  stages: ['advertiseKeys', 'shareKeys', 'maskedInput', 'consistencyCheck', 'unmask'],
  secureAggregation: secureRound,
});

export const finishedDocument = () => ({
  protocol: 'fdp/1',
  task: 'digits',
  taskDigest: digestOf(utf8('task')),
  reason: 'converged',
  rounds: 3,
  previous: digestOf(utf8('round')),
  labels: null,
});

/** What was thrown; fails unless it is a `FederationError` (with this code, when one is given). */
export function federationError(run: () => unknown, code?: ProblemCode): FederationError {
  try {
    run();
  } catch (error) {
    if (!(error instanceof FederationError)) throw new Error('expected a FederationError', { cause: error });
    if (code !== undefined && error.code !== code) throw new Error(`expected the code ${code}, got ${error.code}`, { cause: error });
    return error;
  }
  throw new Error(`expected a FederationError${code === undefined ? '' : ` with code ${code}`}, but nothing was thrown`);
}

export function readVectors<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../../vectors/${name}`, import.meta.url), 'utf8')) as T;
}
