/** The socket connector against a real Socket.IO and HTTP server that misbehaves on request. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Server, type Socket } from 'socket.io';
import { afterEach, describe, expect, it } from 'vitest';
import { socketConnector } from '../../client/connection/socket-connector.ts';
import { FederationError } from '../../shared/errors.ts';
import { toProblem } from '../../shared/protocol/problems.ts';
import { rejection } from './harness.ts';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function serve(onSocket: (socket: Socket) => void, onRequest: http.RequestListener = (_request, response) => response.writeHead(404).end()): Promise<string> {
  const server = http.createServer(onRequest);
  const io = new Server(server, { transports: ['websocket'] });
  io.on('connection', onSocket);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanups.push(() => io.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function connect(origin: string, traffic = { bytesUp: 0, bytesDown: 0 }) {
  const connection = await socketConnector({ origin, traffic }).connect();
  cleanups.push(() => connection.close());
  return connection;
}

describe('the socket connector', () => {
  it('carries bytes both ways unchanged and counts them', async () => {
    let got: unknown;
    const origin = await serve((socket) => {
      socket.on('upload-chunk', (payload: { data: Uint8Array }, ack: (answer: object) => void) => {
        got = new Uint8Array(payload.data);
        ack({ ok: true, offset: payload.data.length });
      });
    });
    const traffic = { bytesUp: 0, bytesDown: 0 };
    const connection = await connect(origin, traffic);
    const data = Uint8Array.from({ length: 1000 }, (_, i) => i & 255);
    expect(await connection.request('upload-chunk', { upload: 'u', offset: 0, data })).toMatchObject({ ok: true, offset: 1000 });
    expect(got).toEqual(data);
    expect(traffic.bytesUp).toBeGreaterThan(1000);
    expect(traffic.bytesUp).toBeLessThan(1100);
    expect(traffic.bytesDown).toBeGreaterThan(10);
  });

  it('turns a problem into the error that it is, and an answer that is none into message-malformed', async () => {
    const origin = await serve((socket) => {
      socket.on('hello', (_payload: unknown, ack: (answer: unknown) => void) => ack({ ok: false, problem: toProblem(new FederationError('round-closed', 'Late.'), { nextRound: 7 }) }));
      socket.on('join', (_payload: unknown, ack: (answer: unknown) => void) => ack('yes'));
    });
    const connection = await connect(origin);
    expect(await rejection(connection.request('hello', {}))).toMatchObject({ code: 'round-closed', nextRound: 7 });
    expect(await rejection(connection.request('join', {}))).toMatchObject({ code: 'message-malformed' });
  });

  it('answers the coordinator\'s events with what the handler says', async () => {
    let answer: unknown;
    const origin = await serve((socket) => {
      socket.on('hello', (_payload: unknown, ack: (answer: unknown) => void) => {
        ack({ ok: true });
        socket.emit('round', { document: '{}', signature: 's' }, (reply: unknown) => (answer = reply));
      });
    });
    const connection = await connect(origin);
    const seen = new Promise<unknown[]>((resolve) =>
      connection.onEvent(async (event, payload) => {
        setTimeout(() => resolve([event, payload]), 50);
        return { ok: true };
      }),
    );
    await connection.request('hello', {});
    expect(await seen).toEqual(['round', { document: '{}', signature: 's' }]);
    await expect.poll(() => answer).toEqual({ ok: true });
  });

  it('rejects what is under way when the connection breaks, tells so once, and rejects later requests', async () => {
    const origin = await serve((socket) => void socket.on('hello', () => socket.disconnect(true)));
    const connection = await connect(origin);
    const reasons: string[] = [];
    connection.onDisconnect((reason) => reasons.push(reason));
    expect(await rejection(connection.request('hello', {}))).toMatchObject({ code: 'disconnected' });
    expect(await rejection(connection.request('hello', {}))).toMatchObject({ code: 'disconnected' });
    await expect.poll(() => reasons.length).toBe(1);
  });

  it('rejects what is under way when it is closed, and does not call that a lost connection', async () => {
    const origin = await serve(() => undefined);
    const connection = await connect(origin);
    let isTold = false;
    connection.onDisconnect(() => (isTold = true));
    const pending = rejection(connection.request('hello', {}));
    await connection.close();
    expect(await pending).toMatchObject({ code: 'disconnected' });
    expect(isTold).toBe(false);
  });

  it('says unreachable, why, and what to do, when nobody listens', async () => {
    const server = http.createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await new Promise((resolve) => server.close(resolve));
    const error = await rejection(socketConnector({ origin }).connect());
    expect(error).toMatchObject({ code: 'unreachable', got: 'ECONNREFUSED' });
    expect((error as FederationError).next).toMatch(/port/);
  });

  it('stops connecting when it is aborted', async () => {
    const origin = await serve(() => undefined);
    expect(await rejection(socketConnector({ origin }).connect(AbortSignal.abort()))).toMatchObject({ code: 'disconnected' });
  });

  it('fetches frames with its token and refuses more bytes than it allowed, announced or not', async () => {
    const origin = await serve(
      () => undefined,
      (request, response) => {
        if (request.headers.authorization !== 'Bearer secret') response.writeHead(401, { 'content-type': 'application/problem+json' }).end(JSON.stringify(toProblem(new FederationError('not-authenticated', 'Join first.'))));
        else if (request.url === '/frame') response.end(Buffer.alloc(100, 7));
        else if (request.url === '/endless') {
          const timer = setInterval(() => response.write(Buffer.alloc(1000)), 1);
          response.on('close', () => clearInterval(timer));
        } else if (request.url === '/cut') {
          response.writeHead(200, { 'content-length': '100' });
          response.write(Buffer.alloc(10));
          setTimeout(() => response.destroy(), 20);
        } else response.writeHead(502).end('<html>bad gateway</html>');
      },
    );
    const traffic = { bytesUp: 0, bytesDown: 0 };
    const connection = await connect(origin, traffic);
    expect(await connection.fetchFrame('/frame', 'secret', 100)).toEqual(new Uint8Array(100).fill(7));
    expect(traffic.bytesDown).toBe(100);
    expect(await rejection(connection.fetchFrame('/frame', 'secret', 99))).toMatchObject({ code: 'message-too-large' });
    expect(await rejection(connection.fetchFrame('/endless', 'secret', 5000))).toMatchObject({ code: 'message-too-large' });
    expect(await rejection(connection.fetchFrame('/cut', 'secret', 5000))).toMatchObject({ code: 'unreachable' });
    expect(await rejection(connection.fetchFrame('/frame', 'wrong', 100))).toMatchObject({ code: 'not-authenticated' });
    expect(await rejection(connection.fetchFrame('/proxy', 'secret', 100))).toMatchObject({ code: 'unreachable', got: '502' });
  });
});
