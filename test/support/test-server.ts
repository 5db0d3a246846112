/** A server on a free port of this machine, over a fake coordinator. */
import { connect } from 'node:net';
import { io, type Socket } from 'socket.io-client';
import { createServer, type FederationServer, type ServerOptions } from '../../server/create-server.ts';
import { systemClock } from '../../shared/node/system-clock.ts';
import { silentLogger } from '../../shared/ports/logger.ts';
import { FakeEndpoint } from './fake-endpoint.ts';

export interface TestServer {
  readonly server: FederationServer;
  readonly endpoint: FakeEndpoint;
  readonly origin: string;
  readonly port: number;
  status: { phase: 'gathering' | 'finished'; round: number; released: number; rounds: number; connected: number; ready: boolean };
}

export async function startTestServer(options: Partial<ServerOptions> = {}): Promise<TestServer> {
  const endpoint = new FakeEndpoint();
  const status: TestServer['status'] = { phase: 'gathering', round: 2, released: 1, rounds: 5, connected: 3, ready: true };
  const server = createServer({ endpoint, status: () => status, clock: systemClock, logger: silentLogger, ...options });
  const { origin, port } = await server.listen({ host: '127.0.0.1', port: 0 });
  return { server, endpoint, origin, port, status };
}

/** A connected Socket.IO client that does not reconnect. Acknowledges what it is sent when `answers` says so. */
export async function connectClient(origin: string, options: object = {}): Promise<Socket> {
  const socket = io(origin, { transports: ['websocket'], reconnection: false, forceNew: true, ...options });
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('connect_error', reject);
  });
  return socket;
}

/** Resolves with the arguments of the next event of this name. */
export function nextEvent(socket: Socket, event: string): Promise<any[]> { // eslint-disable-line @typescript-eslint/no-explicit-any
  return new Promise((resolve) => void socket.once(event, (...args) => resolve(args)));
}

/** Sends bytes to the port, and resolves with all that comes back until the other side closes or falls silent. */
export function sendRaw(port: number, bytes: Uint8Array | string, silenceMs = 1500): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    socket.setTimeout(silenceMs, () => socket.destroy());
    socket.on('data', (data) => (answer += data.toString('latin1')));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(answer));
  });
}
