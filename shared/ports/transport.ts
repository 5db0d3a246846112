/**
 * What client and coordinator need of a connection. Implemented by Socket.IO and HTTP in a federation and by memory in a
 * simulation; both ends' logic is the same. Payloads are plain JSON objects that may hold `Uint8Array`s.
 */
import type { Ack, ClientEvent, CoordinatorEvent } from '../protocol/messages.ts';

/** A client's connection to its coordinator. */
export interface CoordinatorConnection {
  /**
   * Sends an event and resolves with the members of its acknowledgement, not yet validated. Rejects with a `RemoteProblem` when the
   * coordinator says no, with `deadline-exceeded` when it does not answer in time, with `disconnected` when the connection is lost.
   */
  request(event: ClientEvent, payload: object): Promise<unknown>;
  /** GETs a frame (docs/protocol.md section 8), of at most `maxBytes`. Rejects like `request`, or with `unreachable`. */
  fetchFrame(path: string, sessionToken: string, maxBytes: number): Promise<Uint8Array>;
  /** Who answers the coordinator's events; set once, before the first request. What it returns is the acknowledgement. */
  onEvent(handler: (event: string, payload: unknown) => Promise<Ack>): void;
  /** Called once, when the connection is lost or closed by the other side. */
  onDisconnect(handler: (reason: string) => void): void;
  close(): Promise<void>;
}

/** Makes one attempt to connect; rejects with `unreachable`. Backoff is the participant's. */
export interface Connector {
  connect(signal?: AbortSignal): Promise<CoordinatorConnection>;
}

/** A coordinator's view of one connection, before and after its client has joined. */
export interface ClientConnection {
  /** Unique in this process; not an identity. */
  readonly id: string;
  /** Sends an event; resolves when it is acknowledged with `ok`, rejects like `CoordinatorConnection.request`. */
  send(event: CoordinatorEvent, payload: object): Promise<void>;
  close(): void;
}

/** What a transport calls. Answers every message exactly once and never throws. */
export interface CoordinatorEndpoint {
  connected(connection: ClientConnection): void;
  receive(connection: ClientConnection, event: string, payload: unknown): Promise<Ack>;
  disconnected(connection: ClientConnection): void;
  /** Bytes of a public or per-session resource by path; throws `FederationError` (`not-authenticated`, `not-found`). */
  resource(path: string, sessionToken: string | undefined): Promise<{ readonly contentType: string; readonly body: Uint8Array }>;
}
