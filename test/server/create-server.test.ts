import { request as httpsRequest } from 'node:https';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { createServer } from '../../server/create-server.ts';
import { systemClock } from '../../shared/node/system-clock.ts';
import { silentLogger } from '../../shared/ports/logger.ts';
import { FakeEndpoint } from '../support/fake-endpoint.ts';
import { connectClient, nextEvent, startTestServer } from '../support/test-server.ts';

const vector = (name: string) => fileURLToPath(new URL(`../vectors/tls/${name}`, import.meta.url));
const certFile = vector('localhost-cert.pem');
const keyFile = vector('localhost-key.pem');
const dependencies = () => ({ endpoint: new FakeEndpoint(), status: () => ({ phase: 'gathering' as const, round: 0, released: 0, rounds: 1, connected: 0, ready: true }), clock: systemClock, logger: silentLogger });

it('says what to do about a port that is in use, an address that is not here, and goes on after it', async () => {
  const first = await startTestServer();
  const second = createServer(dependencies());
  await expect(second.listen({ host: '127.0.0.1', port: first.port })).rejects.toMatchObject({ code: 'port-unavailable', field: `127.0.0.1:${first.port}`, next: expect.stringContaining('--port') as string });
  await expect(second.listen({ host: '203.0.113.7', port: 0 })).rejects.toMatchObject({ code: 'port-unavailable', next: expect.stringContaining('--host') as string });
  await expect(second.listen({ host: 'no-such-host.invalid', port: 0 })).rejects.toMatchObject({ code: 'port-unavailable' });
  const { origin } = await second.listen({ host: '127.0.0.1', port: 0 });
  expect((await fetch(`${origin}/healthz`)).status).toBe(200);
  await Promise.all([first.server.close(), second.close()]);
});

it('writes an origin that a URL can hold, for every kind of address', async () => {
  const expected: Record<string, RegExp> = { localhost: /^http:\/\/localhost:\d+$/, '::1': /^http:\/\/\[::1\]:\d+$/, '0.0.0.0': /^http:\/\/127\.0\.0\.1:\d+$/ };
  for (const [host, pattern] of Object.entries(expected)) {
    const server = createServer(dependencies());
    const bound = await server.listen({ host, port: 0 }).catch((error: { got?: string }) => error.got);
    if (bound === 'EADDRNOTAVAIL') continue; // a machine without IPv6
    expect((bound as { origin: string }).origin).toMatch(pattern);
    await server.close();
  }
});

it('serves HTTP and sockets over TLS, with the header that keeps browsers there', async () => {
  const { server, port } = await startTestServer({ tls: { certFile, keyFile } });
  const ca = await readFile(certFile, 'utf8');
  const { status, hsts } = await new Promise<{ status: number; hsts: unknown }>((resolve, reject) => {
    httpsRequest({ host: 'localhost', port, path: '/healthz', ca }, (response) => {
      response.resume();
      resolve({ status: response.statusCode!, hsts: response.headers['strict-transport-security'] });
    })
      .on('error', reject)
      .end();
  });
  expect({ status, hsts }).toEqual({ status: 200, hsts: expect.stringContaining('max-age') as string });
  const socket = await connectClient(`https://localhost:${port}`, { ca });
  expect(await socket.timeout(5000).emitWithAck('hello', { a: 1 })).toEqual({ ok: true, echo: { a: 1 } });
  await expect(connectClient(`https://localhost:${port}`)).rejects.toThrow(); // without the certificate's authority
  await expect(connectClient(`http://localhost:${port}`)).rejects.toThrow();
  socket.disconnect();
  await server.close();
});

it('refuses TLS files that are missing, damaged or do not belong together, before it listens', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'fedstill-tls-'));
  const garbage = join(folder, 'garbage.pem');
  await writeFile(garbage, 'no certificate');
  const start = (tls: { certFile: string; keyFile: string }) => () => createServer({ ...dependencies(), tls });
  expect(start({ certFile: join(folder, 'missing.pem'), keyFile })).toThrowError(expect.objectContaining({ code: 'file-unreadable', field: '--tls-cert', got: 'ENOENT' }) as Error);
  expect(start({ certFile, keyFile: folder })).toThrowError(expect.objectContaining({ code: 'file-unreadable', field: '--tls-key' }) as Error);
  for (const tls of [{ certFile: garbage, keyFile }, { certFile, keyFile: garbage }, { certFile, keyFile: vector('other-key.pem') }, { certFile: keyFile, keyFile: certFile }]) {
    expect(start(tls)).toThrowError(expect.objectContaining({ code: 'config-invalid', next: expect.stringContaining('openssl') as string }) as Error);
  }
  await rm(folder, { recursive: true });
});

it('closes within five seconds, whatever its peers do, and lets the port go', async () => {
  const { server, endpoint, origin, port } = await startTestServer();
  const socket = await connectClient(origin);
  const closed = nextEvent(socket, 'disconnect');
  // One that never says anything, and a WebSocket that never answers.
  const silent = connect(port, '127.0.0.1');
  const stubborn = connect(port, '127.0.0.1');
  stubborn.write('GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n');
  await new Promise((resolve) => stubborn.once('data', resolve));
  for (const other of [silent, stubborn]) other.on('error', () => undefined).pause();
  const began = Date.now();
  await Promise.all([server.close(), server.close()]);
  expect(Date.now() - began).toBeLessThan(5000);
  expect(await closed).toEqual(['io server disconnect', undefined]);
  expect(endpoint.connections.size).toBe(0);
  const again = createServer(dependencies());
  await again.listen({ host: '127.0.0.1', port });
  await again.close();
  silent.destroy();
  stubborn.destroy();
});
