/**
 * The Socket.IO side of a coordinator (docs/protocol.md section 3), on the same port as HTTP. It counts and limits connections and packets before
 * anything is believed; what an event means is the coordinator's business.
 *
 * It does NOT hide how many clients are connected, and limits by address help little against someone who has many.
 */
import type { Server as HttpServer } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import { ipKeyGenerator } from 'express-rate-limit';
import { Server } from 'socket.io';
import { FederationError } from '../../shared/errors.ts';
import { toProblem } from '../../shared/protocol/problems.ts';
import type { ServerLimits } from '../server-limits.ts';
import { ClientSocket, type AnyEvents, type AnySocket, type ClientSocketDeps } from './client-socket.ts';
import { TokenBucket } from './token-bucket.ts';

export interface SocketServer {
  /** Open connections, joined or not. */
  connections(): number;
  /** Closes every connection. The HTTP server stays with whoever made it. */
  close(): void;
}

type EngineSocket = AnySocket['conn'];

/** Connections above a limit that are still let in to be told so; those beyond are refused without a word of ours. */
const courtesyConnections = 32;
/** How long a connection that was told so may take to go away. */
const courtesyMs = 1_000;
/** How long a peer may take to close a connection that is over. */
const goodbyeMs = 1_000;
/** Packets for each allowed event: attachments and heartbeats are packets too. */
const packetsPerEvent = 4;

export function attachSocketServer(httpServer: HttpServer | HttpsServer, deps: ClientSocketDeps): SocketServer {
  const { clock, limits, logger, metrics } = deps;
  const crowd = new Crowd(limits);
  /** Engine.IO connections over the limit, and those whose one namespace is taken. */
  const refused = new WeakSet<object>();
  const greeted = new WeakSet<object>();

  const io = new Server<AnyEvents, AnyEvents>({
    transports: ['websocket'],
    allowUpgrades: false,
    serveClient: false,
    maxHttpBufferSize: limits.maxMessageBytes,
    pingInterval: limits.pingIntervalMs,
    pingTimeout: limits.pingTimeoutMs,
    connectTimeout: limits.joinDeadlineMs,
    perMessageDeflate: false, // a compressed message can be far larger than it looks
    cleanupEmptyChildNamespaces: true,
    allowRequest: (request, decide) => {
      const isHopeless = crowd.isOver(addressKey(request.socket.remoteAddress), courtesyConnections);
      if (isHopeless) metrics.problem('capacity-exceeded');
      decide(isHopeless ? 'capacity-exceeded' : undefined, !isHopeless);
    },
  });
  // Not the browser client, not long polling: plain requests below /socket.io/ are the HTTP side's to refuse.
  io.attach(httpServer, { destroyUpgrade: false });

  io.engine.on('connection', (connection: EngineSocket) => {
    const key = addressKey(connection.remoteAddress);
    if (crowd.isOver(key)) refused.add(connection);
    crowd.enter(key);
    // Gone for Engine.IO, but the WebSocket still waits for the peer's goodbye: half a minute, if nobody ends it.
    connection.once('close', () => setTimeout(() => terminate(connection), goodbyeMs).unref());
    connection.once('close', () => crowd.leave(key));
    const packets = new TokenBucket(clock, packetsPerEvent * limits.maxEventsPerSecond, packetsPerEvent * limits.maxEventBurst);
    connection.on('packet', ({ data }: { readonly data?: unknown }) => {
      metrics.received('socket', sizeOf(data));
      if (packets.take()) return;
      metrics.problem('rate-limited');
      connection.close(true); // a flood below the level of events: there is nobody to answer
    });
    connection.on('packetCreate', ({ data }: { readonly data?: unknown }) => metrics.sent('socket', sizeOf(data)));
  });
  io.engine.on('connection_error', ({ code, message }: { code: number; message: string }) => logger.debug({ code, reason: message }, 'a handshake was refused'));

  io.use((socket, next) => {
    if (refused.has(socket.conn)) {
      metrics.problem('capacity-exceeded');
      clock.schedule(courtesyMs, () => socket.conn.close());
      next(connectError(new FederationError('capacity-exceeded', 'The coordinator has as many connections as it takes.', { next: 'Try again later.' })));
    } else if (greeted.has(socket.conn)) {
      // Two CONNECT packets in one breath would make two sockets of one connection.
      next(connectError(new FederationError('message-malformed', 'A connection is opened once.', { next: 'Open a new connection.' })));
    } else {
      greeted.add(socket.conn);
      next();
    }
  });
  io.on('connection', (socket) => void new ClientSocket(socket, deps));

  return {
    connections: () => io.engine.clientsCount,
    close() {
      io.disconnectSockets(true); // says goodbye
      io.engine.close();
    },
  };
}

/** How many connections there are, and from where. */
class Crowd {
  readonly #limits: ServerLimits;
  readonly #byAddress = new Map<string, number>();
  #total = 0;

  constructor(limits: ServerLimits) {
    this.#limits = limits;
  }

  /** Whether one more from this address would be more than `allowance` above a limit. */
  isOver(key: string, allowance = 0): boolean {
    const { maxConnections, maxConnectionsPerAddress } = this.#limits;
    return this.#total >= maxConnections + allowance || (this.#byAddress.get(key) ?? 0) >= maxConnectionsPerAddress + allowance;
  }

  enter(key: string): void {
    this.#total += 1;
    this.#byAddress.set(key, (this.#byAddress.get(key) ?? 0) + 1);
  }

  leave(key: string): void {
    this.#total -= 1;
    const left = (this.#byAddress.get(key) ?? 0) - 1;
    if (left > 0) this.#byAddress.set(key, left);
    else this.#byAddress.delete(key);
  }
}

/** One IPv4 address, or one IPv6 network: a single machine has a whole /64. */
function addressKey(address: string | undefined): string {
  return address === undefined || address === '' ? 'unknown' : ipKeyGenerator(address.replace(/^::ffff:/i, ''), 64);
}

/** Ends the TCP connection. Engine.IO's types hide the WebSocket. */
function terminate(connection: EngineSocket): void {
  const { socket } = connection.transport as unknown as { readonly socket?: { terminate?(): void } };
  socket?.terminate?.();
}

function sizeOf(data: unknown): number {
  if (typeof data === 'string') return Buffer.byteLength(data);
  return data instanceof Uint8Array || data instanceof ArrayBuffer ? data.byteLength : 0;
}

/** Socket.IO sends `message` and `data` of a middleware's error to the client. */
function connectError(error: FederationError): Error {
  return Object.assign(new Error(error.message), { data: { problem: toProblem(error) } });
}
