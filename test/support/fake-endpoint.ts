/** A coordinator that answers at once and remembers what it was asked: for tests of transports. */
import { FederationError } from '../../shared/errors.ts';
import type { ClientConnection, CoordinatorEndpoint } from '../../shared/ports/transport.ts';
import { clientEventSchemas, type Ack } from '../../shared/protocol/messages.ts';
import { toProblem } from '../../shared/protocol/problems.ts';
import { utf8 } from '../../shared/types/bytes.ts';

export const labelsFrame = Uint8Array.of(1, 2, 3, 4);
export const sessionToken = 'the-session-token';

export class FakeEndpoint implements CoordinatorEndpoint {
  readonly connections = new Set<ClientConnection>();
  readonly received: { readonly event: string; readonly payload: unknown }[] = [];
  readonly paths: string[] = [];
  /** What `receive` waits for before it answers. */
  gate: Promise<void> = Promise.resolve();

  connected(connection: ClientConnection): void {
    this.connections.add(connection);
  }

  disconnected(connection: ClientConnection): void {
    this.connections.delete(connection);
  }

  async receive(_connection: ClientConnection, event: string, payload: unknown): Promise<Ack<{ readonly echo?: unknown }>> {
    this.received.push({ event, payload });
    await this.gate;
    if (event === 'throw') throw new Error('a bug with a secret in it');
    if (Object.hasOwn(clientEventSchemas, event)) return { ok: true, echo: payload };
    return { ok: false, problem: toProblem(new FederationError('event-unknown', 'There is no such event.')) };
  }

  async resource(path: string, token: string | undefined): Promise<{ readonly contentType: string; readonly body: Uint8Array }> {
    this.paths.push(path);
    if (path === '/task') return { contentType: 'application/json', body: utf8('{"document":"{}","signature":""}') };
    if (path === '/transfer-set') throw new Error('a bug with a secret in it');
    if (token !== sessionToken) throw new FederationError('not-authenticated', 'This resource needs a session token.');
    if (path === '/rounds/3/soft-labels') return { contentType: 'application/octet-stream', body: labelsFrame };
    throw new FederationError('not-found', 'There is nothing at this path.');
  }
}
