/** What one server process puts up with. Protocol limits (docs/protocol.md section 14) come from `shared/protocol/limits.ts`. */
import * as protocol from '../shared/protocol/limits.ts';

export interface ServerLimits {
  /** Sockets at once. */
  readonly maxConnections: number;
  /** Sockets at once from one address (IPv6: one /64 network). */
  readonly maxConnectionsPerAddress: number;
  /** HTTP requests from one address in a minute (IPv6: one /56 network). */
  readonly maxRequestsPerMinute: number;
  /** Largest Socket.IO message in bytes; a larger one closes the connection. */
  readonly maxMessageBytes: number;
  /** Events on one connection: refill rate and burst. */
  readonly maxEventsPerSecond: number;
  readonly maxEventBurst: number;
  /** Events of one connection that wait for an answer at the same time. */
  readonly maxUnanswered: number;
  /** From connecting to having joined. */
  readonly joinDeadlineMs: number;
  /** For one acknowledgement by a client. */
  readonly ackDeadlineMs: number;
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
}

export const defaultServerLimits: ServerLimits = {
  maxConnections: 2000,
  maxConnectionsPerAddress: 1000,
  maxRequestsPerMinute: 6000,
  maxMessageBytes: protocol.maxMessageBytes,
  maxEventsPerSecond: protocol.maxEventsPerSecond,
  maxEventBurst: protocol.maxEventBurst,
  maxUnanswered: 64,
  joinDeadlineMs: protocol.joinDeadlineMs,
  ackDeadlineMs: protocol.ackDeadlineMs,
  pingIntervalMs: protocol.pingIntervalMs,
  pingTimeoutMs: protocol.pingTimeoutMs,
};
