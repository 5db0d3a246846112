/**
 * Connections over Socket.IO and HTTP (docs/protocol.md section 3). One connector makes one attempt a call: reconnecting is the participant's business,
 * because every connection begins with `hello` and a fresh nonce.
 */
import { io, type Socket } from 'socket.io-client';
import { FederationError } from '../../shared/errors.ts';
import type { Connector, CoordinatorConnection } from '../../shared/ports/transport.ts';
import { ackDeadlineMs, maxDocumentLength } from '../../shared/protocol/limits.ts';
import { AckSchema, type Ack, type ClientEvent } from '../../shared/protocol/messages.ts';
import { fromProblem } from '../../shared/protocol/problems.ts';
import { connectionError } from './connection-error.ts';
import { requestFrame } from './frame-request.ts';
import { payloadBytes, type TrafficCounter } from './traffic.ts';

export interface SocketConnectorOptions {
  /** E.g. `https://example.org:7070`, as `parseJoinUrl` gives it. */
  readonly origin: string;
  /** PEM certificates to trust instead of the system's. */
  readonly ca?: string;
  readonly traffic?: TrafficCounter;
  /** Milliseconds for one attempt to connect; default 10,000. */
  readonly connectTimeoutMs?: number;
}

/** Largest message from a coordinator: a signed document, with room for escapes. */
const maxIncomingBytes = 2 * maxDocumentLength;

export function socketConnector(options: SocketConnectorOptions): Connector {
  const url = new URL(options.origin);
  return {
    connect(signal) {
      return new Promise((resolve, reject) => {
        if (signal?.aborted === true) {
          reject(closed());
          return;
        }
        const timeoutMs = options.connectTimeoutMs ?? 10_000;
        const socket = io(options.origin, { ...transportOptions(options), timeout: timeoutMs });
        const settle = (action: () => void) => {
          clearTimeout(deadline);
          signal?.removeEventListener('abort', onAbort);
          socket.off('connect').off('connect_error');
          socket.io.off('close', onLost);
          action();
        };
        const fail = (error: FederationError) =>
          settle(() => {
            socket.disconnect();
            reject(error);
          });
        const onAbort = () => fail(closed());
        // A coordinator that goes away, or falls silent, between the WebSocket and the answer to CONNECT: Socket.IO tells the socket nothing of it.
        const onLost = () => fail(closed());
        socket.io.on('close', onLost);
        const deadline = setTimeout(() => fail(connectionError(url, new Error('timeout'))), 2 * timeoutMs);
        signal?.addEventListener('abort', onAbort, { once: true });
        // The connection listens before anything can arrive.
        const connection = new SocketConnection(socket, url, options);
        socket.on('connect', () => settle(() => resolve(connection)));
        socket.on('connect_error', (error) => fail(connectionError(url, error)));
        socket.connect();
      });
    },
  };
}

/** `maxPayload` is passed to the WebSocket, though Engine.IO's types do not know it. */
function transportOptions({ ca }: SocketConnectorOptions): object {
  return { transports: ['websocket'], forceNew: true, reconnection: false, autoConnect: false, maxPayload: maxIncomingBytes, ...(ca === undefined ? {} : { ca }) };
}

class SocketConnection implements CoordinatorConnection {
  readonly #socket: Socket;
  readonly #url: URL;
  readonly #ca: string | undefined;
  readonly #traffic: TrafficCounter;
  /** Ends requests that are under way when the connection is closed. */
  readonly #closing = new AbortController();
  #onEvent: ((event: string, payload: unknown) => Promise<Ack>) | undefined;

  constructor(socket: Socket, url: URL, { ca, traffic }: SocketConnectorOptions) {
    this.#socket = socket;
    this.#url = url;
    this.#ca = ca;
    this.#traffic = traffic ?? { bytesUp: 0, bytesDown: 0 };
    socket.onAny((event: string, ...args: unknown[]) => void this.#receive(event, args));
  }

  request(event: ClientEvent, payload: object): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (!this.#socket.connected) {
        reject(closed());
        return;
      }
      this.#traffic.bytesUp += payloadBytes(payload);
      const onLost = () => settle(() => reject(closed()));
      const settle = (action: () => void) => {
        this.#socket.off('disconnect', onLost);
        action();
      };
      this.#socket.on('disconnect', onLost);
      this.#socket.timeout(ackDeadlineMs).emit(event, payload, (timeout: Error | null, answer: unknown) => {
        settle(() => {
          if (timeout !== null) reject(this.#socket.connected ? late(event) : closed());
          else this.#answer(event, answer, resolve, reject);
        });
      });
    });
  }

  #answer(event: ClientEvent, answer: unknown, resolve: (value: unknown) => void, reject: (error: Error) => void): void {
    this.#traffic.bytesDown += payloadBytes(answer);
    const parsed = AckSchema.safeParse(answer);
    if (!parsed.success) reject(new FederationError('message-malformed', `The coordinator's answer to ${event} is none.`, { field: event, expected: '{"ok": true, ...} or {"ok": false, "problem": ...}' }));
    else if (!parsed.data.ok) reject(fromProblem(parsed.data.problem));
    else resolve(parsed.data);
  }

  async fetchFrame(path: string, sessionToken: string, maxBytes: number): Promise<Uint8Array> {
    const url = new URL(path, this.#url);
    const frame = await requestFrame({ url, sessionToken, maxBytes, signal: this.#closing.signal, ...(this.#ca === undefined ? {} : { ca: this.#ca }) });
    this.#traffic.bytesDown += frame.length;
    return frame;
  }

  onEvent(handler: (event: string, payload: unknown) => Promise<Ack>): void {
    this.#onEvent = handler;
  }

  /** An event without a wish for an answer, or with more than one argument, is none of the protocol's: it is answered where possible, and dropped. */
  async #receive(event: string, args: readonly unknown[]): Promise<void> {
    const acknowledge = args.at(-1);
    const payloads = typeof acknowledge === 'function' ? args.slice(0, -1) : args;
    this.#traffic.bytesDown += payloadBytes(payloads[0] ?? null);
    const answer = await this.#onEvent?.(event, payloads.length === 1 ? payloads[0] : undefined);
    if (answer === undefined) return; // nobody listens: whoever sent it hears nothing, and takes it for lost
    if (typeof acknowledge !== 'function') return;
    this.#traffic.bytesUp += payloadBytes(answer);
    (acknowledge as (answer: Ack) => void)(answer);
  }

  onDisconnect(handler: (reason: string) => void): void {
    let isTold = false;
    this.#socket.on('disconnect', (reason) => {
      if (isTold || this.#closing.signal.aborted) return;
      isTold = true;
      handler(reason);
    });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#socket.disconnect();
  }
}

function late(event: string): FederationError {
  return new FederationError('deadline-exceeded', `The coordinator did not answer ${event} within ${ackDeadlineMs / 1000} seconds.`, { field: event });
}

function closed(): FederationError {
  return new FederationError('disconnected', 'The connection was lost.');
}
