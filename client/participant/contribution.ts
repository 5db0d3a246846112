/**
 * From a student's predictions to the envelope that is sent: soften, bound, add noise, frame, seal (docs/protocol.md sections 9 to 11).
 * Pure but for the randomness that is passed in. Each call draws fresh noise and fresh keys: what it returns is stored before it is charged
 * and sent, and a second call for the same round would be a second release.
 */
import type { IdentityKeys } from '../../shared/crypto/signature.ts';
import { digestOf } from '../../shared/crypto/digest.ts';
import { softmax } from '../../shared/distillation/temperature.ts';
import { FederationError } from '../../shared/errors.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import { addNoise } from '../../shared/privacy/mechanisms/mechanism.ts';
import { mechanismFor } from '../../shared/privacy/mechanisms/mechanism-for.ts';
import { sealEnvelope } from '../../shared/protocol/envelope.ts';
import { encodeGrid, encodePredictions } from '../../shared/protocol/matrix-frame.ts';
import type { RoundDocument } from '../../shared/protocol/messages.ts';
import type { Digest } from '../../shared/types/ids.ts';
import type { Matrix } from '../../shared/types/matrix.ts';

export interface Contribution {
  /** Digest of the frame: what the ledger charges. */
  readonly contribution: Digest;
  readonly envelope: Uint8Array;
}

export interface ContributionRequest {
  readonly document: RoundDocument;
  readonly transcript: Digest;
  /** The student's logits on the queried examples, [release.rows x release.columns]. */
  readonly logits: Matrix;
  readonly identity: IdentityKeys;
  readonly random: RandomSource;
}

/** Throws `data-invalid` for predictions that are no numbers, and `value-out-of-range` for a box key that nobody may use. */
export function makeContribution(request: ContributionRequest): Contribution {
  const { document, transcript, identity, random } = request;
  const frame = contributionFrame(request);
  const context = { taskDigest: document.taskDigest, round: document.round, stage: 'contribution', transcript } as const;
  try {
    return { contribution: digestOf(frame), envelope: sealEnvelope(frame, context, document.boxKey, identity, random) };
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new FederationError('value-out-of-range', 'The round\'s box key is one of the few that protect nothing.', { field: 'boxKey', expected: 'an X25519 key of large order', next: 'Ask the coordinator\'s operator.', cause });
  }
}

function contributionFrame({ document, logits, random }: ContributionRequest): Uint8Array {
  const { release, encoding, cohort } = document;
  if (!logits.values.every(Number.isFinite)) {
    throw new FederationError('data-invalid', 'The student predicts values that are not finite numbers: its training has diverged.', { field: 'student', next: 'Lower the learning rate, and check the private data for missing values.' });
  }
  const predictions = release.outputKind === 'probabilities' ? softmax(logits) : logits;
  if (release.mechanism === 'none') return encodePredictions(predictions, release.outputKind, encoding);
  const mechanism = mechanismFor(release);
  const { grid } = mechanism.constrainSensitivity(predictions);
  return encodeGrid(addNoise(grid, mechanism.noiseShare({ rows: release.rows, columns: release.columns }, cohort.quorum, random)));
}
