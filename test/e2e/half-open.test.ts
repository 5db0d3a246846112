/**
 * Regression: a coordinator that was killed between the WebSocket and the answer to CONNECT. The attempt to connect never ended, and with nothing left to do
 * the client's process ended with Node's status 13, or waited for ever.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Server, type Socket } from 'socket.io';
import { expect, it, onTestFinished } from 'vitest';
import { socketConnector } from '../../client/connection/socket-connector.ts';

/** A server that takes the WebSocket, does this, and never answers CONNECT. */
async function serveHalf(then: (socket: Socket) => void): Promise<string> {
  const server = http.createServer();
  const io = new Server(server, { transports: ['websocket'] });
  io.use((socket) => then(socket));
  onTestFinished(() => io.close());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

it('a connection that is lost before it stands is a lost connection', async () => {
  const origin = await serveHalf((socket) => socket.conn.close(true));
  await expect(socketConnector({ origin }).connect()).rejects.toMatchObject({ code: 'disconnected' });
});

it('a coordinator that falls silent before the connection stands cannot be reached', async () => {
  const origin = await serveHalf(() => undefined);
  await expect(socketConnector({ origin, connectTimeoutMs: 200 }).connect()).rejects.toMatchObject({ code: 'unreachable' });
});
