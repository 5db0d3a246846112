/** One client's Socket.IO connection: hands its events to the coordinator and the coordinator's events to it. */
import type { Socket } from 'socket.io';
import { FederationError } from '../../shared/errors.ts';
import type { Clock, Timer } from '../../shared/ports/clock.ts';
import type { Logger } from '../../shared/ports/logger.ts';
import type { ClientConnection, CoordinatorEndpoint } from '../../shared/ports/transport.ts';
import { AckSchema, type Ack, type CoordinatorEvent } from '../../shared/protocol/messages.ts';
import { fromProblem, toProblem } from '../../shared/protocol/problems.ts';
import { malformedMessage } from '../../shared/protocol/signed-document.ts';
import type { ServerMetrics } from '../http/metrics.ts';
import type { ServerLimits } from '../server-limits.ts';
import { readIncomingEvent, type IncomingEvent } from './incoming-event.ts';
import { TokenBucket } from './token-bucket.ts';

/** Any event, with any arguments: what comes is looked at here, not believed. */
export type AnyEvents = Record<string, (...args: unknown[]) => void>;
export type AnySocket = Socket<AnyEvents, AnyEvents>;

export interface ClientSocketDeps {
  readonly endpoint: CoordinatorEndpoint;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: ServerMetrics;
  readonly limits: ServerLimits;
}

/** Messages that wait to be read by a client before it counts as one that does not read. More than the answers to a flood that is still answered. */
const maxUnread = 1024;

export class ClientSocket implements ClientConnection {
  readonly id: string;
  readonly #socket: AnySocket;
  readonly #deps: ClientSocketDeps;
  readonly #events: TokenBucket;
  /** How much flooding is answered before it ends the connection. */
  readonly #patience: TokenBucket;
  readonly #joinDeadline: Timer;
  /** What `send` waits for. */
  readonly #pending = new Set<(error: FederationError) => void>();
  #unanswered = 0;

  constructor(socket: AnySocket, deps: ClientSocketDeps) {
    const { clock, limits, endpoint } = deps;
    this.id = socket.id;
    this.#socket = socket;
    this.#deps = deps;
    this.#events = new TokenBucket(clock, limits.maxEventsPerSecond, limits.maxEventBurst);
    this.#patience = new TokenBucket(clock, limits.maxEventsPerSecond / 10, limits.maxEventBurst);
    this.#joinDeadline = clock.schedule(limits.joinDeadlineMs, () => {
      this.#expel(new FederationError('not-authenticated', 'No join in time.', { expected: `join within ${limits.joinDeadlineMs / 1000} s`, next: 'Connect again, then send hello and join.' }));
    });
    socket.onAny((...packet: unknown[]) => this.#onPacket(packet));
    socket.on('disconnect', () => this.#onDisconnect());
    endpoint.connected(this);
  }

  // --- to the client ---

  send(event: CoordinatorEvent, payload: object): Promise<void> {
    return new Promise((resolve, reject) => {
      if (!this.#socket.connected) {
        reject(disconnected());
        return;
      }
      this.#pending.add(reject);
      this.#socket.timeout(this.#deps.limits.ackDeadlineMs).emit(event, payload, (timedOut: unknown, answer: unknown) => {
        this.#pending.delete(reject);
        if (timedOut) reject(new FederationError('deadline-exceeded', `The client did not acknowledge ${event} in time.`, { field: event }));
        else settle(event, answer, resolve, reject);
      });
    });
  }

  close(): void {
    this.#socket.disconnect(true);
  }

  // --- from the client ---

  #onPacket(packet: readonly unknown[]): void {
    if (!this.#socket.connected) return; // packets that were read before the connection was closed
    if (unreadMessages(this.#socket) > maxUnread) {
      this.#deps.logger.info({ connection: this.id }, 'a client sends without reading the answers; its connection is closed');
      this.#socket.conn.close(true);
      return;
    }
    const incoming = readIncomingEvent(packet);
    const isFlooding = !this.#events.take() || this.#unanswered >= this.#deps.limits.maxUnanswered;
    if (isFlooding) this.#onFlood(incoming);
    else if (incoming.fault !== undefined) this.#refuse(incoming, incoming.fault);
    else void this.#deliver(incoming);
  }

  #onFlood(incoming: IncomingEvent): void {
    const { maxEventsPerSecond, maxEventBurst, maxUnanswered } = this.#deps.limits;
    const error = new FederationError('rate-limited', 'Too many events on this connection.', {
      expected: `at most ${maxEventsPerSecond} a second, ${maxEventBurst} at once, ${maxUnanswered} without an answer`,
      next: 'Wait for acknowledgements before sending more.',
    });
    this.#refuse(incoming, error);
    if (!this.#patience.take()) this.#expel(error);
  }

  async #deliver(incoming: IncomingEvent): Promise<void> {
    const { endpoint, logger, metrics } = this.#deps;
    let ack: Ack;
    this.#unanswered += 1;
    try {
      ack = await endpoint.receive(this, incoming.event, incoming.payload);
    } catch (error) {
      logger.error({ err: error }, 'the coordinator threw instead of answering');
      ack = { ok: false, problem: toProblem(error) };
    } finally {
      this.#unanswered -= 1;
    }
    if (incoming.event === 'join' && ack.ok) this.#joinDeadline.cancel();
    metrics.answered(incoming.event, ack);
    incoming.acknowledge?.(ack);
  }

  /** Answers in the acknowledgement, or with the event `problem` when none was asked for. */
  #refuse(incoming: IncomingEvent, error: FederationError): void {
    const problem = toProblem(error);
    this.#deps.metrics.problem(problem.code);
    if (incoming.acknowledge !== undefined) incoming.acknowledge({ ok: false, problem });
    else this.#tell(error);
  }

  #expel(error: FederationError): void {
    this.#deps.metrics.problem(error.code);
    this.#deps.logger.info({ connection: this.id, code: error.code }, 'a connection is closed');
    this.#tell(error);
    this.close();
  }

  /** Nobody waits for the answer to this. */
  #tell(error: FederationError): void {
    this.#socket.timeout(this.#deps.limits.ackDeadlineMs).emit('problem', { problem: toProblem(error) }, () => undefined);
  }

  #onDisconnect(): void {
    this.#joinDeadline.cancel();
    for (const reject of this.#pending) reject(disconnected());
    this.#pending.clear();
    cancelAckTimers(this.#socket);
    this.#deps.endpoint.disconnected(this);
  }
}

function settle(event: string, answer: unknown, resolve: () => void, reject: (error: FederationError) => void): void {
  const parsed = AckSchema.safeParse(answer);
  if (!parsed.success) reject(malformedMessage(`acknowledgement of ${event}`, parsed.error));
  else if (parsed.data.ok) resolve();
  else reject(fromProblem(parsed.data.problem));
}

function disconnected(): FederationError {
  return new FederationError('disconnected', 'The client lost its connection.');
}

/**
 * Socket.IO goes on waiting for answers from a connection that is gone, and its timers keep the process alive for as long. An answer ends the wait; who
 * it was for has been told.
 */
function cancelAckTimers(socket: AnySocket): void {
  const { acks } = socket as unknown as { readonly acks?: Map<number, () => void> };
  for (const answer of acks?.values() ?? []) answer();
  acks?.clear();
}

/** Engine.IO keeps what the network has not taken yet in a field that its types hide. */
function unreadMessages(socket: AnySocket): number {
  const { writeBuffer } = socket.conn as unknown as { readonly writeBuffer?: readonly unknown[] };
  return writeBuffer?.length ?? 0;
}
