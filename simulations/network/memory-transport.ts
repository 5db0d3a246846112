/**
 * A network in memory: the same coordinator and participants as over sockets, with latency and faults in the time of a clock. Payloads are cloned
 * on the way, so that neither side can see the other's objects.
 */
import { FederationError } from '../../shared/errors.ts';
import type { Clock } from '../../shared/ports/clock.ts';
import type { ClientConnection, Connector, CoordinatorConnection, CoordinatorEndpoint } from '../../shared/ports/transport.ts';
import { ackDeadlineMs } from '../../shared/protocol/limits.ts';
import { AckSchema, type Ack, type ClientEvent, type CoordinatorEvent } from '../../shared/protocol/messages.ts';
import { fromProblem } from '../../shared/protocol/problems.ts';

export interface MessageInFlight {
  readonly direction: 'to-coordinator' | 'to-client';
  readonly kind: 'event' | 'ack' | 'frame';
  readonly event: string;
  /** Payload bytes: of the binary parts and of the rest as JSON. */
  readonly bytes: number;
  /** What a client begins to send with `upload-begin`. */
  readonly begins?: { readonly round: number; readonly stage: string };
}

/** What happens to one message on the way. */
export interface Fate {
  readonly delayMs: number;
  /** Never arrives. */
  readonly isLost?: boolean;
  /** Arrives twice (events only). */
  readonly isDuplicated?: boolean;
  /** The connection breaks instead. */
  readonly breaksConnection?: boolean;
  /** With `breaksConnection`: the coordinator cannot be reached for so long. */
  readonly awayMs?: number;
}

export type Network = (message: MessageInFlight) => Fate;

/** Every message arrives after this time. */
export function steadyNetwork(latencyMs: number): Network {
  return () => ({ delayMs: latencyMs });
}

/** Bytes moved by one client, as seen from it. */
export interface Traffic {
  bytesUp: number;
  bytesDown: number;
}

let nextConnection = 1;

/** A connector to a coordinator in this process; `endpoint` gives `undefined` while it cannot be reached. */
export function memoryConnector(options: { readonly endpoint: () => CoordinatorEndpoint | undefined; readonly clock: Clock; readonly network: Network; readonly traffic?: Traffic }): Connector {
  const reach = { awayUntil: -Infinity };
  return {
    connect: () => {
      const endpoint = options.clock.now() < reach.awayUntil ? undefined : options.endpoint();
      if (endpoint === undefined) return Promise.reject(new FederationError('unreachable', 'The coordinator does not answer.', { next: 'Check that it runs.' }));
      return Promise.resolve(new MemoryLink(endpoint, { ...options, reach }).clientSide);
    },
  };
}

class MemoryLink {
  readonly clientSide: CoordinatorConnection;
  readonly #serverSide: ClientConnection;
  readonly #endpoint: CoordinatorEndpoint;
  readonly #clock: Clock;
  readonly #network: Network;
  readonly #traffic: Traffic;
  readonly #reach: { awayUntil: number };
  readonly #pending = new Set<(error: FederationError) => void>();
  #onEvent: ((event: string, payload: unknown) => Promise<Ack>) | undefined;
  #onDisconnect: ((reason: string) => void) | undefined;
  #isOpen = true;

  constructor(endpoint: CoordinatorEndpoint, { clock, network, traffic, reach }: { readonly clock: Clock; readonly network: Network; readonly traffic?: Traffic; readonly reach: { awayUntil: number } }) {
    this.#endpoint = endpoint;
    this.#clock = clock;
    this.#network = network;
    this.#reach = reach;
    this.#traffic = traffic ?? { bytesUp: 0, bytesDown: 0 };
    this.clientSide = {
      request: (event: ClientEvent, payload: object) => this.#exchange('to-coordinator', event, payload, (copy) => endpoint.receive(this.#serverSide, event, copy)),
      fetchFrame: (path, sessionToken, maxBytes) => this.#fetch(path, sessionToken, maxBytes),
      onEvent: (handler) => (this.#onEvent = handler),
      onDisconnect: (handler) => (this.#onDisconnect = handler),
      close: () => {
        this.#break('closed by the client', false);
        return Promise.resolve();
      },
    };
    this.#serverSide = {
      id: `memory-${nextConnection++}`,
      send: async (event: CoordinatorEvent, payload: object) => {
        await this.#exchange('to-client', event, payload, (copy) => this.#onEvent?.(event, copy) ?? new Promise(() => undefined));
      },
      close: () => this.#break('closed by the coordinator', true),
    };
    endpoint.connected(this.#serverSide);
  }

  /** Sends a message one way and its acknowledgement the other; each meets its own fate. */
  #exchange(direction: MessageInFlight['direction'], event: string, payload: object, deliver: (copy: unknown) => Promise<Ack>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (!this.#isOpen) {
        reject(disconnected());
        return;
      }
      const settle = (action: () => void) => {
        this.#pending.delete(fail);
        deadline.cancel();
        action();
      };
      const fail = (error: FederationError) => settle(() => reject(error));
      this.#pending.add(fail);
      const deadline = this.#clock.schedule(ackDeadlineMs, () => fail(new FederationError('deadline-exceeded', `No answer to ${event} in time.`, { field: event })));
      const back = direction === 'to-coordinator' ? 'to-client' : 'to-coordinator';
      const sent = copyPayload(payload); // now: what the sender does with its object later does not travel
      this.#carry({ direction, kind: 'event', event, bytes: payloadBytes(payload), ...(event === 'upload-begin' ? { begins: payload as NonNullable<MessageInFlight['begins']> } : {}) }, (isAgain) => {
        void deliver(isAgain ? copyPayload(sent) : sent).then((ack) => {
          const answered = copyPayload(ack);
          this.#carry({ direction: back, kind: 'ack', event, bytes: payloadBytes(ack) }, () => {
            const parsed = AckSchema.safeParse(answered);
            if (!parsed.success) fail(new FederationError('message-malformed', `The answer to ${event} is malformed.`));
            else if (parsed.data.ok) settle(() => resolve(parsed.data));
            else fail(fromProblem(parsed.data.problem));
          });
        }, () => undefined); // a receiver that fails does not answer: the deadline is over some time
      });
    });
  }

  async #fetch(path: string, sessionToken: string, maxBytes: number): Promise<Uint8Array> {
    if (!this.#isOpen) throw disconnected();
    const { body } = await this.#endpoint.resource(path, sessionToken);
    if (!this.#isOpen) throw disconnected();
    if (body.length > maxBytes) throw new FederationError('message-too-large', `The answer of ${body.length} bytes is over the limit of ${maxBytes}.`, { field: path });
    return new Promise((resolve, reject) => {
      const settle = (action: () => void) => {
        this.#pending.delete(fail);
        deadline.cancel();
        action();
      };
      const fail = (error: FederationError) => settle(() => reject(error));
      this.#pending.add(fail);
      const deadline = this.#clock.schedule(ackDeadlineMs, () => fail(new FederationError('deadline-exceeded', `No answer to GET ${path} in time.`, { field: path })));
      const sent = copyBytes(body);
      this.#carry({ direction: 'to-client', kind: 'frame', event: path, bytes: sent.length }, () => settle(() => resolve(sent)));
    });
  }

  #carry(message: MessageInFlight, arrive: (isAgain: boolean) => void): void {
    const fate = this.#network(message);
    if (message.direction === 'to-coordinator') this.#traffic.bytesUp += message.bytes;
    else this.#traffic.bytesDown += message.bytes;
    if (fate.breaksConnection) {
      this.#clock.schedule(fate.delayMs, () => {
        if (fate.awayMs !== undefined) this.#reach.awayUntil = this.#clock.now() + fate.awayMs;
        this.#break('the connection was lost', true);
      });
      return;
    }
    if (fate.isLost) return;
    const deliver = (isAgain: boolean) => {
      if (this.#isOpen) arrive(isAgain);
    };
    this.#clock.schedule(fate.delayMs, () => deliver(false));
    if (fate.isDuplicated && message.kind === 'event') this.#clock.schedule(fate.delayMs, () => deliver(true));
  }

  #break(reason: string, tellClient: boolean): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const fail of [...this.#pending]) fail(disconnected());
    this.#pending.clear();
    this.#endpoint.disconnected(this.#serverSide);
    if (tellClient) this.#onDisconnect?.(reason);
  }
}

function disconnected(): FederationError {
  return new FederationError('disconnected', 'The connection was lost.');
}

/** What arrives: as over Socket.IO, JSON and bytes. A view is copied without the buffer behind it. */
function copyPayload(value: unknown): unknown {
  if (value instanceof Uint8Array) return copyBytes(value);
  if (Array.isArray(value)) return value.map((item) => (item === undefined ? null : copyPayload(item)));
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined).map(([key, member]) => [key, copyPayload(member)]));
}

const leastRemembered = 1024;
const copies = new WeakMap<Uint8Array, WeakRef<Uint8Array>>();

/** What goes to a thousand clients is copied once, as long as the sender's array and the copy have the same bytes: receivers must not write to what they get. */
function copyBytes(bytes: Uint8Array): Uint8Array {
  if (bytes.length < leastRemembered) return Uint8Array.from(bytes);
  const known = copies.get(bytes)?.deref();
  if (known !== undefined && Buffer.compare(known, bytes) === 0) return known;
  const copy = Uint8Array.from(bytes);
  copies.set(bytes, new WeakRef(copy));
  return copy;
}

function payloadBytes(payload: object): number {
  let binary = 0;
  const text = JSON.stringify(payload, (_key, value: unknown) => {
    if (!(value instanceof Uint8Array)) return value;
    binary += value.length;
    return null;
  });
  return binary + text.length;
}
