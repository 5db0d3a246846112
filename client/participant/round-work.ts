/**
 * One round's work, from a verified announcement to an accepted contribution. The order protects the owner of the data: the envelope is stored, then
 * charged to the ledger, then sent; each durably before the next. Killed between any two steps, the work goes on from what is stored: nothing
 * uncharged leaves, nothing is charged twice, and the bytes of a round are drawn once.
 */
import { digestOf } from '../../shared/crypto/digest.ts';
import type { IdentityKeys } from '../../shared/crypto/signature.ts';
import { FederationError } from '../../shared/errors.ts';
import type { Clock } from '../../shared/ports/clock.ts';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import { decodeBits } from '../../shared/protocol/indices.ts';
import { decodePredictions, encodePredictions, frameBytes, type FloatEncoding } from '../../shared/protocol/matrix-frame.ts';
import type { SoftLabelsRef, StageName } from '../../shared/protocol/messages.ts';
import type { Digest, RoundId, TaskId } from '../../shared/types/ids.ts';
import type { Examples, Matrix, OutputKind } from '../../shared/types/matrix.ts';
import type { Announcement } from './announcement.ts';
import { makeContribution } from './contribution.ts';
import type { LabelMemory } from './label-memory.ts';
import type { Outbox, OutboxEntry } from './outbox.ts';
import type { PrivateReleases } from './private-releases.ts';
import type { RecordVotes } from './record-votes.ts';
import type { SessionSlot } from './session-slot.ts';
import type { ShardModels } from './shard-models.ts';
import { selectTransfer } from './transfer-set.ts';
import type { LabelledTransfer, LocalTraining, Student } from './training.ts';
import { sendEnvelope } from './upload.ts';

export interface RoundWorkContext {
  readonly task: TaskId;
  readonly numClasses: number;
  readonly identity: IdentityKeys;
  readonly random: RandomSource;
  readonly clock: Clock;
  readonly ledger: PrivacyLedger;
  readonly outbox: Outbox;
  readonly sessions: SessionSlot;
  readonly transferSet: Examples;
  readonly student: Student;
  /** What predicts for a task with sample-and-aggregate; else the student does. */
  readonly shardModels: ShardModels | undefined;
  /** What votes in a task where records do. */
  readonly recordVotes: RecordVotes | undefined;
  readonly training: LocalTraining;
  /** What private training (`dpSgd`) has cost so far, and may. */
  readonly privateReleases: PrivateReleases;
  readonly labelMemory: LabelMemory;
  /** Asks the policy, with the ledger as it is now; throws its refusal. */
  checkPolicy(announcement: Announcement): void;
  /** Told right before the first byte of a contribution leaves. */
  sending(): void;
}

export interface RoundReport {
  /** Soft labels that were distilled in this run; 0 when there were none, or when it was done before a restart. */
  readonly distilled: number;
  /** Epochs of local training in this run. */
  readonly epochs: number;
  readonly envelopeBytes: number;
}

/** Works until the coordinator has the contribution. Throws `signal.reason` when aborted: then nothing was sent that was not charged. */
export async function contribute(announcement: Announcement, context: RoundWorkContext, signal: AbortSignal): Promise<RoundReport> {
  const stored = await storedEntry(announcement, context.outbox);
  const trained = stored === undefined ? await train(announcement, context, signal) : { distilled: 0, epochs: 0 };
  const entry = stored ?? (await seal(announcement, context, signal));
  await deliver(entry, announcement, context, signal);
  return { ...trained, envelopeBytes: entry.envelope.length };
}

/** The envelope that an earlier process has sealed for this very announcement. */
async function storedEntry({ document, transcript }: Announcement, outbox: Outbox): Promise<OutboxEntry | undefined> {
  const entry = await outbox.get(document.round);
  if (entry === undefined || entry.transcript === transcript) return entry;
  throw new FederationError('context-mismatch', `A contribution to another announcement of round ${document.round} was sealed before; no second one is made.`, { field: 'transcript', expected: entry.transcript, got: transcript });
}

/** Distils the round's soft labels and trains on the private dataset; steps that were made before a restart are not made again. */
export async function train(announcement: Announcement, context: RoundWorkContext, signal: AbortSignal): Promise<Pick<RoundReport, 'distilled' | 'epochs'>> {
  const { document, labelled } = announcement;
  const { round, labels } = document;
  const { student, training, privateReleases } = context;
  let distilled = 0;
  if (labels !== null && labelled !== undefined && training.distils && !student.has({ round, step: 'digest' })) {
    const fetched = await fetchLabels(`/rounds/${round}/soft-labels`, labels, labelled, context, signal);
    if ((await training.digest(student, { round, step: 'digest' }, fetched, signal)) !== undefined) distilled = fetched.targets.rows;
  }
  const report = await training.revisit(student, round, privateReleases.allowance(student, document.release), signal);
  return { distilled, epochs: report?.epochsRun ?? 0 };
}

/** Fetches soft labels and checks them against the signed digest before anything is read from them. */
export async function fetchLabels(
  path: string,
  ref: SoftLabelsRef,
  labelled: Uint32Array,
  context: Pick<RoundWorkContext, 'sessions' | 'transferSet' | 'numClasses' | 'labelMemory'>,
  signal: AbortSignal,
): Promise<LabelledTransfer> {
  const { transferSet, numClasses, labelMemory } = context;
  const targets = (await fetchChangedLabels(path, ref, labelled, context, signal)) ?? decodePredictions(await fetchSigned(path, ref.digest, ref.count, context, signal), ref.kind, ref.count, numClasses);
  if (ref.keep === true) labelMemory.remember(labelled, targets);
  return { examples: selectTransfer(transferSet, labelled), targets, kind: ref.kind };
}

/** All labels, of which only the changed ones were fetched; `undefined` when this client does not know the others as they are now. */
async function fetchChangedLabels(path: string, { changed, ...ref }: SoftLabelsRef, labelled: Uint32Array, context: Pick<RoundWorkContext, 'sessions' | 'numClasses' | 'labelMemory'>, signal: AbortSignal): Promise<Matrix | undefined> {
  if (changed === undefined) return undefined;
  const { numClasses, labelMemory } = context;
  const mask = decodeBits(changed.rows, ref.count);
  if (mask === undefined || mask.reduce((sum, bit) => sum + bit, 0) !== changed.count || (changed.digest === null) !== (changed.count === 0)) {
    throw new FederationError('value-out-of-range', 'The announcement contradicts itself about which soft labels have changed.', { field: 'labels.changed', expected: `${changed.count} of ${ref.count} rows`, got: 'others' });
  }
  if (!labelMemory.knows(labelled, mask)) return undefined;
  const fresh = changed.digest === null ? { rows: 0, columns: numClasses, values: new Float32Array() } : decodePredictions(await fetchSigned(`${path}/changed`, changed.digest, changed.count, context, signal), ref.kind, changed.count, numClasses);
  const whole = labelMemory.assemble(labelled, mask, fresh);
  // What was missed meanwhile does not show in any other way.
  return frameDigest(whole, ref.kind, changed.encoding) === ref.digest ? whole : undefined;
}

/** `undefined` for values that this encoding cannot hold. */
function frameDigest(matrix: Matrix, kind: OutputKind, encoding: FloatEncoding): Digest | undefined {
  try {
    return digestOf(encodePredictions(matrix, kind, encoding));
  } catch (error) {
    if (error instanceof RangeError || error instanceof FederationError) return undefined;
    throw error;
  }
}

async function fetchSigned(path: string, expected: Digest, rows: number, { sessions, numClasses }: Pick<RoundWorkContext, 'sessions' | 'numClasses'>, signal: AbortSignal): Promise<Uint8Array> {
  const maxBytes = frameBytes('float32', [rows, numClasses]);
  const bytes = await sessions.use(signal, ({ connection, token }) => connection.fetchFrame(path, token, maxBytes));
  const digest = digestOf(bytes);
  if (digest === expected) return bytes;
  throw new FederationError('digest-mismatch', 'The soft labels are not those that the coordinator signed.', { field: path, expected, got: digest, next: 'Something between you and the coordinator changes its answers; use https.' });
}

/** Logits on the queried examples, or votes of records for them, as `contribution.ts` takes them. */
export async function predict({ document, query }: Announcement, { student, shardModels, recordVotes, transferSet, privateReleases }: Pick<RoundWorkContext, 'student' | 'shardModels' | 'recordVotes' | 'transferSet' | 'privateReleases'>, signal: AbortSignal): Promise<readonly Matrix[]> {
  privateReleases.check(student, document.release);
  const examples = selectTransfer(transferSet, query);
  // The student has learned from all records: with shards or votes of records nothing of it may leave.
  if (recordVotes !== undefined) return [recordVotes.count(examples, document.release)];
  return shardModels === undefined ? [await student.predict(examples)] : shardModels.predict(examples, document.release, signal);
}

/** Predicts, bounds, adds noise, seals, and stores the envelope: the bytes of this round from now on. */
async function seal(announcement: Announcement, context: RoundWorkContext, signal: AbortSignal): Promise<OutboxEntry> {
  const { document, transcript } = announcement;
  const predictions = await predict(announcement, context, signal);
  signal.throwIfAborted();
  const { contribution, envelope } = makeContribution({ document, transcript, predictions, identity: context.identity, random: context.random });
  if (document.release.mechanism === 'dpSgd') await context.privateReleases.remember(document.round, contribution);
  return context.outbox.put({ round: document.round, stage: 'contribution', transcript, contribution, parameters: document.release, envelope });
}

async function deliver(entry: OutboxEntry, announcement: Announcement, context: RoundWorkContext, signal: AbortSignal): Promise<void> {
  await charge(entry, () => context.checkPolicy(announcement), context, signal);
  context.sending();
  await resend(entry, context.sessions, signal);
}

/** Charges what is stored, unless it was charged before. `checkPolicy` throws the policy's refusal, with the ledger as it is now. */
export async function charge(entry: OutboxEntry, checkPolicy: () => void, { task, ledger, clock }: Pick<RoundWorkContext, 'task' | 'ledger' | 'clock'>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if (!isCharged(entry, task, ledger)) {
    checkPolicy();
    await ledger.charge({ task, round: entry.round, contribution: entry.contribution, parameters: entry.parameters, at: clock.now() });
  }
  signal.throwIfAborted();
}

/** Sends an envelope that is charged. Sending it once more costs nothing and is counted once. */
export async function resend(entry: Pick<OutboxEntry, 'round' | 'envelope' | 'envelopeDigest'> & { readonly stage: StageName }, sessions: SessionSlot, signal: AbortSignal): Promise<void> {
  const { round, stage, envelope, envelopeDigest: digest } = entry;
  await sessions.use(signal, ({ connection }) => sendEnvelope(connection, { round, stage, envelope, digest }, signal));
}

export function isCharged(entry: { readonly round: RoundId; readonly contribution: string }, task: TaskId, ledger: PrivacyLedger): boolean {
  return ledger.entries().some((charged) => charged.task === task && charged.round === entry.round && charged.contribution === entry.contribution);
}
