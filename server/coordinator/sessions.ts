/**
 * Who is connected, and as whom (docs/protocol.md section 6). A client id has one session; a later one replaces it. Nothing here survives the
 * process: after a restart, clients join again.
 */
import { hmacSha256 } from '../../shared/crypto/digest.ts';
import { signMessage, verifySignature, type IdentityKeys } from '../../shared/crypto/signature.ts';
import { FederationError } from '../../shared/errors.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import type { ClientConnection } from '../../shared/ports/transport.ts';
import { clientIdOf, helloTranscript, joinTranscript, tokenProof, type SessionNonces } from '../../shared/protocol/identity.ts';
import type { ClientAckWire, ClientMessage } from '../../shared/protocol/messages.ts';
import { toProblem } from '../../shared/protocol/problems.ts';
import type { SignedDocument } from '../../shared/protocol/signed-document.ts';
import { protocolVersion } from '../../shared/protocol/version.ts';
import { equalBytes, toBase64 } from '../../shared/types/bytes.ts';
import type { ClientId, Digest } from '../../shared/types/ids.ts';

/** Who may join. */
export type Admission = { readonly mode: 'open' } | { readonly mode: 'token'; readonly token: string } | { readonly mode: 'allow-list'; readonly clients: readonly string[] };

/** A client that has joined. */
export interface Session {
  readonly client: ClientId;
  readonly publicKey: Uint8Array;
  readonly connection: ClientConnection;
  /** Bearer token for frames over HTTP. */
  readonly token: string;
}

export interface SessionDeps {
  readonly identity: IdentityKeys;
  readonly random: RandomSource;
  readonly admission: Admission;
  readonly task: SignedDocument;
  readonly taskDigest: Digest;
  /** Most clients at once. */
  readonly maxClients: number;
}

export class Sessions {
  readonly #deps: SessionDeps;
  /** Connections that said hello and have not joined. */
  readonly #greeted = new Map<string, SessionNonces>();
  /** Connections that said hello, whatever became of it: it is sent once per connection. */
  readonly #used = new Set<string>();
  readonly #byConnection = new Map<string, Session>();
  readonly #byClient = new Map<ClientId, Session>();
  readonly #byToken = new Map<string, Session>();

  constructor(deps: SessionDeps) {
    this.#deps = deps;
  }

  hello(connection: ClientConnection, message: ClientMessage<'hello'>): ClientAckWire<'hello'> {
    if (!message.protocols.includes(protocolVersion)) {
      throw new FederationError('protocol-unsupported', 'No common protocol version.', { field: 'protocols', expected: protocolVersion, got: message.protocols.join(', ').slice(0, 200), next: 'Use a client that speaks this version.' });
    }
    if (this.#used.has(connection.id)) throw new FederationError('not-authenticated', 'hello is sent once per connection.', { next: 'Open a new connection.' });
    const { identity, random, task, taskDigest } = this.#deps;
    const nonces: SessionNonces = { coordinatorKey: identity.publicKey, clientKey: message.clientKey, clientNonce: message.clientNonce, serverNonce: random.bytes(32) };
    this.#used.add(connection.id);
    this.#greeted.set(connection.id, nonces);
    return {
      protocol: protocolVersion,
      coordinatorKey: toBase64(identity.publicKey),
      serverNonce: toBase64(nonces.serverNonce),
      task,
      signature: toBase64(signMessage(helloTranscript(nonces, taskDigest), identity)),
    };
  }

  /** Checks identity and admission, and opens the session. The session that it replaces, if any, has been told and closed. */
  join(connection: ClientConnection, message: ClientMessage<'join'>): Session {
    const nonces = this.#greeted.get(connection.id);
    if (nonces === undefined) throw notJoined();
    this.#greeted.delete(connection.id); // one attempt: nonces are for one signature and one proof
    const { admission, random, taskDigest, maxClients } = this.#deps;
    if (!verifySignature(joinTranscript(nonces, taskDigest), message.signature, nonces.clientKey)) {
      throw new FederationError('signature-invalid', 'The signature of join does not fit the key and nonces of hello.', { field: 'signature' });
    }
    const client = clientIdOf(nonces.clientKey);
    if (admission.mode === 'token' && !(message.tokenProof !== undefined && sameSecret(message.tokenProof, tokenProof(admission.token, nonces), random))) {
      throw new FederationError('token-refused', 'This task needs a join token, and the one given is missing or wrong.', { field: 'tokenProof', next: 'Ask the coordinator\'s operator for the token (--token or --token-file).' });
    }
    if (admission.mode === 'allow-list' && !admission.clients.includes(client)) {
      throw new FederationError('not-admitted', 'This client is not on the coordinator\'s list.', { field: 'clientKey', got: client, next: 'Give your client id to the coordinator\'s operator.' });
    }
    if (this.#byClient.size >= maxClients && !this.#byClient.has(client)) throw new FederationError('capacity-exceeded', 'The coordinator has as many clients as it takes.', { next: 'Try again later.' });
    this.#replace(client);
    const session: Session = { client, publicKey: nonces.clientKey, connection, token: toBase64(random.bytes(24)) };
    this.#byConnection.set(connection.id, session);
    this.#byClient.set(client, session);
    this.#byToken.set(session.token, session);
    return session;
  }

  #replace(client: ClientId): void {
    const earlier = this.#byClient.get(client);
    if (earlier === undefined) return;
    this.#forget(earlier);
    const problem = toProblem(new FederationError('session-replaced', 'This identity joined again from elsewhere.', { next: 'Run one client per identity.' }));
    void earlier.connection.send('problem', { problem }).catch(() => undefined).finally(() => earlier.connection.close());
  }

  /** The session of a connection, if it has joined and was not replaced. */
  find(connection: ClientConnection): Session | undefined {
    return this.#byConnection.get(connection.id);
  }

  /** The session of a connection; throws `not-authenticated` before `join`. */
  of(connection: ClientConnection): Session {
    const session = this.#byConnection.get(connection.id);
    if (session === undefined) throw notJoined();
    return session;
  }

  forClient(client: ClientId): Session | undefined {
    return this.#byClient.get(client);
  }

  hasToken(token: string): boolean {
    return this.#byToken.has(token);
  }

  all(): readonly Session[] {
    return [...this.#byClient.values()];
  }

  /** Forgets a connection that is gone; the client, when this was its session. */
  disconnected(connection: ClientConnection): ClientId | undefined {
    this.#greeted.delete(connection.id);
    this.#used.delete(connection.id);
    const session = this.#byConnection.get(connection.id);
    if (session === undefined) return undefined;
    this.#forget(session);
    return session.client;
  }

  #forget(session: Session): void {
    this.#byConnection.delete(session.connection.id);
    this.#byToken.delete(session.token);
    if (this.#byClient.get(session.client) === session) this.#byClient.delete(session.client);
  }
}

function notJoined(): FederationError {
  return new FederationError('not-authenticated', 'Say hello and join first, once per connection.', { next: 'See docs/protocol.md section 6.' });
}

/** Compares under a fresh key (double HMAC), so that timing tells nothing about the expected proof. */
function sameSecret(a: Uint8Array, b: Uint8Array, random: RandomSource): boolean {
  const key = random.bytes(32);
  return equalBytes(hmacSha256(key, a), hmacSha256(key, b));
}
