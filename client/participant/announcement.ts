/** A round's announcement, verified: everything in docs/protocol.md section 10 that does not depend on what this client has done before. */
import { FederationError } from '../../shared/errors.ts';
import { isOnGrid, planCost, type ReleaseParameters } from '../../shared/privacy/release.ts';
import { envelopeBytes } from '../../shared/protocol/envelope.ts';
import { decodeIndices } from '../../shared/protocol/indices.ts';
import { maxEnvelopeBytes } from '../../shared/protocol/limits.ts';
import { frameBytes, type FrameDtype } from '../../shared/protocol/matrix-frame.ts';
import { FinishedDocumentSchema, RoundDocumentSchema, stagesOf, type FinishedDocument, type RoundDocument, type SecureRound, type TaskDocument } from '../../shared/protocol/messages.ts';
import { partialFrameBytes } from '../../shared/protocol/partial-frame.ts';
import { openDocument, type SignedDocument } from '../../shared/protocol/signed-document.ts';
import { clientMessageBytes } from '../../shared/secure-aggregation/messages.ts';
import type { Digest } from '../../shared/types/ids.ts';
import type { Delta } from '../../shared/types/units.ts';
import { checkReleaseFitsTask } from './task-policy.ts';

/** How far (relative) a planned cost may be above the task's epsilon: another implementation rounds differently. */
const epsilonTolerance = 1e-6;

/** The task as this client has verified it: what announcements are compared with. */
export interface TaskContext {
  readonly task: TaskDocument;
  readonly taskDigest: Digest;
  /** The pinned coordinator's Ed25519 key. */
  readonly coordinatorKey: Uint8Array;
}

export interface Announcement {
  readonly document: RoundDocument;
  readonly transcript: Digest;
  /** Transfer examples to predict on. */
  readonly query: Uint32Array;
  /** Transfer examples that the rows of the soft labels belong to; `undefined` without labels. */
  readonly labelled: Uint32Array | undefined;
}

export interface FinishedNotice {
  readonly document: FinishedDocument;
  readonly labelled: Uint32Array | undefined;
}

/** Throws the problem with which the announcement is refused. */
export function verifyAnnouncement(signed: SignedDocument, context: TaskContext): Announcement {
  const { value: document, hash: transcript } = openDocument('round', signed, context.coordinatorKey, RoundDocumentSchema);
  checkTask(document, context);
  const { task } = context;
  const { release } = document;
  expect('trustMode', task.privacy.trustMode, document.trustMode, 'context-mismatch');
  expect('release.mechanism', task.privacy.mechanism, release.mechanism, 'context-mismatch');
  expect('stages', stagesOf(document.trustMode).join(', '), document.stages.join(', '), 'stage-mismatch');
  const query = decodeIndices(document.query, task.transferSet.rows, 'query');
  const labelled = document.labels === null ? undefined : decodeIndices(document.labels, task.transferSet.rows, 'labels');
  expect('release.rows', query.length, release.rows, 'shape-mismatch');
  expect('release.columns', task.numClasses, release.columns, 'shape-mismatch');
  if (document.labels !== null && task.distillation.loss === 'logitMae') expect('labels.kind', 'logits', document.labels.kind, 'context-mismatch');
  checkReleaseFitsTask(document, task);
  checkNoise(release, task);
  if (document.secureAggregation !== undefined) checkSecureAggregation(document, document.secureAggregation, task);
  const bytes = envelopeBytes(contributionBytes(document));
  if (bytes > maxEnvelopeBytes) {
    throw new FederationError('message-too-large', 'A contribution to this round would not fit into an envelope.', { field: 'release.rows', expected: `at most ${maxEnvelopeBytes} bytes`, got: `${bytes} bytes` });
  }
  return { document, transcript, query, labelled };
}

/** Throws the problem with which the notice is refused. */
export function verifyFinished(signed: SignedDocument, context: TaskContext): FinishedNotice {
  const { value: document } = openDocument('finished', signed, context.coordinatorKey, FinishedDocumentSchema);
  checkTask(document, context);
  return { document, labelled: document.labels === null ? undefined : decodeIndices(document.labels, context.task.transferSet.rows, 'labels') };
}

/** Dtype of the frame that a contribution to this round is. */
export function contributionDtype({ release, encoding }: RoundDocument): FrameDtype {
  return isOnGrid(release) ? 'int32' : encoding;
}

/** Most bytes of the frame in which a contribution leaves; in secure aggregation those of the masked input. */
function contributionBytes(document: RoundDocument): number {
  const { rows, columns } = document.release;
  if (document.secureAggregation !== undefined) return clientMessageBytes.maskedInput(rows * columns);
  return document.sharing === null ? frameBytes(contributionDtype(document), [rows, columns]) : partialFrameBytes(document.encoding, rows, rows, columns);
}

/** The task's numbers, one for "fewest contributions", and no more shares of noise than there are honest clients who add one. */
function checkSecureAggregation({ cohort, release }: RoundDocument, { minSurvivors, maxCorrupt }: SecureRound, { privacy }: TaskDocument): void {
  expect('secureAggregation.minSurvivors', privacy.secureAggregation?.minSurvivors ?? 'none', minSurvivors, 'context-mismatch');
  expect('secureAggregation.maxCorrupt', privacy.secureAggregation?.maxCorrupt ?? 'none', maxCorrupt, 'context-mismatch');
  expect('cohort.quorum', minSurvivors, cohort.quorum, 'context-mismatch');
  if (release.mechanism !== 'discreteGaussian') return;
  const honest = minSurvivors - maxCorrupt;
  if (release.noise.shares <= honest) return;
  throw new FederationError('context-mismatch', 'The announcement counts more shares of noise than clients that certainly add one.', {
    field: 'release.noise.shares',
    expected: `at most ${honest}`,
    got: String(release.noise.shares),
    next: 'The noise would be less than it says; ask the coordinator\'s operator.',
  });
}

/**
 * The task promises one epsilon for all its releases together. A release that would break the promise, made as often as planned, carries less
 * noise than was signed; that the owner's own limit would still allow it is no reason to send it.
 */
function checkNoise(release: ReleaseParameters, { privacy }: TaskDocument): void {
  if (release.mechanism === 'none' || privacy.epsilon === null) return; // without noise nothing is promised; noise without an epsilon is refused with the task
  const cost = planCost(release, privacy.releases, privacy.delta as Delta);
  if (cost <= privacy.epsilon * (1 + epsilonTolerance)) return;
  throw new FederationError('context-mismatch', 'The announcement carries less noise than its task promises.', {
    field: 'release.noise',
    expected: `epsilon <= ${privacy.epsilon} for ${privacy.releases} releases`,
    got: `epsilon ${cost}`,
    next: 'The coordinator contradicts the task that it signed; ask its operator.',
  });
}

function checkTask(document: { readonly task: string; readonly taskDigest: Digest }, { task, taskDigest }: TaskContext): void {
  expect('task', task.task, document.task, 'context-mismatch');
  expect('taskDigest', taskDigest, document.taskDigest, 'context-mismatch');
}

function expect(field: string, expected: string | number, got: string | number, code: 'context-mismatch' | 'shape-mismatch' | 'stage-mismatch'): void {
  if (expected === got) return;
  throw new FederationError(code, `The announcement does not fit its task: ${field} expected ${expected}, got ${got}.`, {
    field,
    expected: String(expected),
    got: String(got),
    next: 'The coordinator contradicts the task that it signed; ask its operator.',
  });
}
