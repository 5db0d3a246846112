/** What went wrong, sorted by what a participant does next. Whatever is in none of these sorts ends the participant or the round. */
import { FederationError, type ProblemCode } from '../../shared/errors.ts';

const connectionLost: readonly ProblemCode[] = ['disconnected', 'deadline-exceeded', 'not-authenticated'];
const busy: readonly ProblemCode[] = ['unreachable', 'capacity-exceeded', 'rate-limited'];
const roundOver: readonly ProblemCode[] = ['round-closed', 'round-unknown', 'not-in-cohort', 'not-found', 'task-finished'];
const uploadLost: readonly ProblemCode[] = ['upload-unknown', 'upload-offset', 'upload-digest'];

const hasCode = (codes: readonly ProblemCode[]) => (error: unknown): error is FederationError => error instanceof FederationError && codes.includes(error.code);

/** The connection or its session is gone: connect again and repeat. A message without an answer counts as lost (docs/protocol.md section 14). */
export const isConnectionLost = hasCode(connectionLost);
/** The coordinator cannot answer just now: wait and repeat. */
export const isBusy = hasCode(busy);
/** The round takes no contribution (of ours) any more; its labels go when it is closed, hence `not-found`. */
export const isRoundOver = hasCode(roundOver);
/** The coordinator does not have what we thought it has of an upload: begin again. */
export const isUploadLost = hasCode(uploadLost);

/** Why a round's work is aborted: it closed, or another one was announced. */
export function roundIsClosed(round: number): FederationError {
  return new FederationError('round-closed', `Round ${round} is closed.`, { field: 'round', got: String(round), next: 'Wait for the next announcement.' });
}

/** An error with a code for whatever was thrown; what has none is a bug or the machine's failure. */
export function toFederationError(error: unknown): FederationError {
  if (error instanceof FederationError) return error;
  return new FederationError('internal', error instanceof Error ? error.message : String(error), { cause: error });
}
