/** The beginning of a connection: hello, verification against the pinned fingerprint, join (docs/protocol.md section 6). */
import { signMessage, verifySignature, type IdentityKeys } from '../../shared/crypto/signature.ts';
import { FederationError } from '../../shared/errors.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import type { CoordinatorConnection } from '../../shared/ports/transport.ts';
import { clientIdOf, fingerprint, helloTranscript, joinTranscript, tokenProof, type SessionNonces } from '../../shared/protocol/identity.ts';
import { clientAckSchemas, TaskDocumentSchema, type ClientAck, type ClientEvent, type ClientMessageWire } from '../../shared/protocol/messages.ts';
import { malformedMessage, openDocument } from '../../shared/protocol/signed-document.ts';
import { protocolVersion } from '../../shared/protocol/version.ts';
import { toBase64 } from '../../shared/types/bytes.ts';
import type { TaskContext } from './announcement.ts';

/** Sends an event and resolves with its checked acknowledgement; rejects like `CoordinatorConnection.request`, or with `message-malformed`. */
export async function ask<E extends ClientEvent>(connection: CoordinatorConnection, event: E, payload: ClientMessageWire<E>): Promise<ClientAck<E>> {
  const answer = await connection.request(event, payload);
  const parsed = clientAckSchemas[event].safeParse(answer);
  if (!parsed.success) throw malformedMessage(`acknowledgement of ${event}`, parsed.error);
  return parsed.data as ClientAck<E>;
}

/** A coordinator that has proved to be the pinned one, and the task that it has signed. */
export interface Greeting extends TaskContext {
  readonly nonces: SessionNonces;
}

export interface GreetingRequest {
  readonly identity: IdentityKeys;
  readonly random: RandomSource;
  /** From the join URL. */
  readonly coordinatorFingerprint: string;
}

/** Says hello and verifies the answer; throws `fingerprint-mismatch`, `signature-invalid`, `context-mismatch` or `protocol-unsupported`. */
export async function greet(connection: CoordinatorConnection, { identity, random, coordinatorFingerprint }: GreetingRequest): Promise<Greeting> {
  const clientNonce = random.bytes(32);
  const answer = await ask(connection, 'hello', { protocols: [protocolVersion], clientKey: toBase64(identity.publicKey), clientNonce: toBase64(clientNonce) });
  if (answer.protocol !== protocolVersion) {
    throw new FederationError('protocol-unsupported', 'The coordinator speaks another protocol.', { field: 'protocol', expected: protocolVersion, got: answer.protocol.slice(0, 32), next: 'Use the same release of fedstill on both sides.' });
  }
  const found = fingerprint(answer.coordinatorKey);
  if (found !== coordinatorFingerprint) {
    throw new FederationError('fingerprint-mismatch', 'This is not the coordinator that the join URL names.', {
      field: 'coordinatorKey',
      expected: coordinatorFingerprint,
      got: found,
      next: 'Do not go on. Ask the coordinator\'s operator for the join URL again, over a channel that you trust.',
    });
  }
  const nonces = { coordinatorKey: answer.coordinatorKey, clientKey: identity.publicKey, clientNonce, serverNonce: answer.serverNonce };
  const { value: task, hash: taskDigest } = openDocument('task', answer.task, answer.coordinatorKey, TaskDocumentSchema);
  if (!verifySignature(helloTranscript(nonces, taskDigest), answer.signature, answer.coordinatorKey)) {
    throw new FederationError('signature-invalid', 'The coordinator did not prove that it has its key.', { field: 'signature', next: 'Do not go on; somebody may be between you and the coordinator.' });
  }
  if (task.coordinator !== coordinatorFingerprint) {
    throw new FederationError('context-mismatch', 'The task belongs to another coordinator.', { field: 'coordinator', expected: coordinatorFingerprint, got: task.coordinator });
  }
  return { task, taskDigest, coordinatorKey: answer.coordinatorKey, nonces };
}

/** Joins; throws the coordinator's problem, or `token-refused` when there is no token to prove. */
export async function join(connection: CoordinatorConnection, { task, taskDigest, nonces }: Greeting, identity: IdentityKeys, joinToken: string | undefined): Promise<ClientAck<'join'>> {
  const signature = toBase64(signMessage(joinTranscript(nonces, taskDigest), identity));
  if (task.admission === 'token' && joinToken === undefined) {
    throw new FederationError('token-refused', 'This task admits only clients that know its join token.', { field: 'token', expected: 'a join token', got: 'none', next: 'Ask the coordinator\'s operator for the token.' });
  }
  const isTokenNeeded = task.admission === 'token' && joinToken !== undefined;
  const ack = await ask(connection, 'join', { signature, ...(isTokenNeeded ? { tokenProof: toBase64(tokenProof(joinToken, nonces)) } : {}) });
  const clientId = clientIdOf(identity.publicKey);
  if (ack.clientId !== clientId) {
    throw new FederationError('message-malformed', 'The coordinator took this client for another one.', { field: 'clientId', expected: clientId, got: ack.clientId });
  }
  return ack;
}
