/**
 * From predictions to what is sent: soften, bound, add noise (not with `dpSgd`, whose noise is in the student); then frame and seal (docs/protocol.md sections 9 to 11), or, for secure aggregation, hand the
 * integers to the masks.
 * Pure but for the randomness that is passed in. Each call draws fresh noise and fresh keys: what it returns is stored before it is charged
 * and sent, and a second call for the same round would be a second release.
 */
import type { IdentityKeys } from '../../shared/crypto/signature.ts';
import { digestOf } from '../../shared/crypto/digest.ts';
import { selectSureRows } from '../../shared/distillation/row-entropy.ts';
import { softmax } from '../../shared/distillation/temperature.ts';
import { FederationError } from '../../shared/errors.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import { addNoise } from '../../shared/privacy/mechanisms/mechanism.ts';
import { mechanismFor } from '../../shared/privacy/mechanisms/mechanism-for.ts';
import { isOnGrid, type ReleaseParameters } from '../../shared/privacy/release.ts';
import { sealEnvelope } from '../../shared/protocol/envelope.ts';
import { encodeGrid, encodePredictions } from '../../shared/protocol/matrix-frame.ts';
import type { RoundDocument } from '../../shared/protocol/messages.ts';
import { encodePartialPredictions } from '../../shared/protocol/partial-frame.ts';
import type { Digest } from '../../shared/types/ids.ts';
import type { Matrix } from '../../shared/types/matrix.ts';

export interface Contribution {
  /** What the ledger charges: digest of the frame, or with `dpSgd` of the envelope, because two students may predict the same and both have to be charged. */
  readonly contribution: Digest;
  readonly envelope: Uint8Array;
}

export interface ContributionRequest {
  readonly document: RoundDocument;
  readonly transcript: Digest;
  /** Logits on the queried examples: see `GridRequest`. */
  readonly predictions: readonly Matrix[];
  readonly identity: IdentityKeys;
  readonly random: RandomSource;
}

/** Throws `data-invalid` for predictions that are no numbers, and `value-out-of-range` for a box key that nobody may use. */
export function makeContribution(request: ContributionRequest): Contribution {
  const { document, transcript, identity, random } = request;
  const frame = contributionFrame(request);
  const context = { taskDigest: document.taskDigest, round: document.round, stage: 'contribution', transcript } as const;
  try {
    const envelope = sealEnvelope(frame, context, document.boxKey, identity, random);
    return { contribution: digestOf(document.release.mechanism === 'dpSgd' ? envelope : frame), envelope };
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new FederationError('value-out-of-range', 'The round\'s box key is one of the few that protect nothing.', { field: 'boxKey', expected: 'an X25519 key of large order', next: 'Ask the coordinator\'s operator.', cause });
  }
}

function contributionFrame({ document, predictions, random }: ContributionRequest): Uint8Array {
  const { release, encoding, sharing } = document;
  if (isOnGrid(release)) return encodeGrid({ rows: release.rows, columns: release.columns, values: contributionGrid({ document, predictions, random }) });
  if (predictions.length !== 1 || release.shards !== undefined || release.recordVotes !== undefined) {
    const field = release.recordVotes === undefined ? 'shards' : 'recordVotes';
    throw new FederationError('context-mismatch', 'Predictions of shards and votes of records are sent with noise, or as a masked sum.', { field: `release.${field}`, expected: `no ${field}`, got: String(release[field] ?? predictions.length) });
  }
  const [outputs] = toOutputs(predictions, release);
  if (sharing === null) return encodePredictions(outputs!, release.outputKind, encoding);
  const shared = selectSureRows(release.outputKind === 'logits' ? softmax(outputs!) : outputs!, sharing);
  return encodePartialPredictions(outputs!, shared, release.outputKind, encoding);
}

export interface GridRequest {
  readonly document: Pick<RoundDocument, 'release' | 'cohort' | 'trustMode' | 'secureAggregation'>;
  /**
   * Logits on the queried examples, [release.rows x release.columns] each: the student's alone, or with `release.shards` one matrix for each shard
   * (`ShardModels.predict`), where a row of equal values has no opinion. With `release.recordVotes` counts of votes (`RecordVotes.count`) instead.
   */
  readonly predictions: readonly Matrix[];
  readonly random: RandomSource;
}

/**
 * The integers of a contribution, row-major, noise included, in grid steps: the whole noise (`gaussian`, `laplace`), a share of it (`discreteGaussian`), or none. Each call
 * draws fresh noise, so the result is stored before it is charged and sent. Throws `data-invalid` for predictions that are no numbers, `policy-refused`
 * when the release counts more shares than honest clients can be relied on, and `context-mismatch` when a share would leave without a mask.
 */
export function contributionGrid({ document, predictions, random }: GridRequest): Int32Array {
  const { release, cohort } = document;
  const mechanism = mechanismFor(release);
  const { grid } = mechanism.constrainSensitivity(...toOutputs(predictions, release));
  const survivors = release.mechanism === 'discreteGaussian' ? honestSurvivors(document) : cohort.quorum;
  return addNoise(grid, mechanism.noiseShare({ rows: release.rows, columns: release.columns }, survivors, random)).values;
}

/** Clients that are certainly in a sum and add their noise to it. */
function honestSurvivors({ trustMode, secureAggregation }: GridRequest['document']): number {
  if (trustMode === 'secure-aggregation' && secureAggregation !== undefined) return secureAggregation.minSurvivors - secureAggregation.maxCorrupt;
  throw new FederationError('context-mismatch', 'A share of noise protects only inside a secure sum; nothing is sent without one.', { field: 'trustMode', expected: 'secure-aggregation', got: trustMode });
}

/**
 * Rows that are no numbers are possible although every weight is one: the last step of a training may leave weights whose products overflow, and one record is enough for that. Whether there
 * are any depends on private records. Where a mechanism is to hide them such a row has no opinion (equal logits), because a client that refused for it would tell what nobody is charged for.
 */
function toOutputs(predictions: readonly Matrix[], { mechanism, outputKind, recordVotes }: Pick<ReleaseParameters, 'mechanism' | 'outputKind' | 'recordVotes'>): readonly Matrix[] {
  if (recordVotes !== undefined) return predictions;
  if (mechanism === 'none' && !predictions.every(({ values }) => values.every(Number.isFinite))) {
    throw new FederationError('data-invalid', 'The student predicts values that are not finite numbers: its training has diverged.', { field: 'student', next: 'Lower the learning rate, and check the private data for missing values.' });
  }
  const usable = mechanism === 'none' ? predictions : predictions.map(withoutNonNumbers);
  return outputKind === 'probabilities' ? usable.map((logits) => softmax(logits)) : usable;
}

/** With zeros for every row that is not of finite numbers throughout. */
function withoutNonNumbers(logits: Matrix): Matrix {
  const { rows, columns } = logits;
  const values = logits.values.slice();
  for (let row = 0; row < rows; row++) {
    const cells = values.subarray(row * columns, (row + 1) * columns);
    if (!cells.every(Number.isFinite)) cells.fill(0);
  }
  return { rows, columns, values };
}
