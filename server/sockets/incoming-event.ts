/** What one Socket.IO event packet holds, judged before anything looks inside the payload (docs/protocol.md section 3). */
import { FederationError } from '../../shared/errors.ts';

export interface IncomingEvent {
  /** Empty when the packet names none. */
  readonly event: string;
  readonly payload: unknown;
  /** Answers the sender; `undefined` when it did not ask for an acknowledgement. */
  readonly acknowledge: ((ack: object) => void) | undefined;
  /** Why it is refused, if it is. */
  readonly fault: FederationError | undefined;
}

/** Member names that mean something to JavaScript's objects; no message has them. */
const reservedMembers = ['__proto__', 'constructor', 'prototype'];

/**
 * Socket.IO hands over whatever the packet's array held, and last the acknowledgement, if it was asked for. JSON holds no functions, so a
 * function is Socket.IO's own.
 */
export function readIncomingEvent(packet: readonly unknown[]): IncomingEvent {
  const last = packet.at(-1);
  const acknowledge = typeof last === 'function' ? (last as (ack: object) => void) : undefined;
  const [name, ...payloads] = acknowledge === undefined ? packet : packet.slice(0, -1);
  const event = typeof name === 'string' ? name : '';
  return { event, payload: payloads[0], acknowledge, fault: faultOf(name, payloads, acknowledge !== undefined) };
}

function faultOf(name: unknown, payloads: readonly unknown[], asksForAnswer: boolean): FederationError | undefined {
  if (typeof name !== 'string') return malformed('event', 'a text that names the event', name === undefined ? 'nothing' : kindOf(name));
  if (!asksForAnswer) return malformed('acknowledgement', 'a request for an acknowledgement', 'none');
  if (payloads.length !== 1) return malformed('arguments', 'exactly one argument', String(payloads.length));
  const [payload] = payloads;
  if (kindOf(payload) !== 'an object') return malformed('arguments', 'a JSON object', kindOf(payload));
  const reserved = reservedMembers.find((member) => Object.hasOwn(payload as object, member));
  return reserved === undefined ? undefined : malformed('arguments', 'the members of the message', reserved);
}

function malformed(field: string, expected: string, got: string): FederationError {
  return new FederationError('message-malformed', 'The event is malformed.', { field, expected, got, next: 'See docs/protocol.md section 3.' });
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return 'bytes';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}
