import { request as httpRequest } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ProblemSchema } from '../../../shared/protocol/problems.ts';
import { digestOf } from '../../../shared/crypto/digest.ts';
import { labelsFrame, sessionToken } from '../../support/fake-endpoint.ts';
import { sendRaw, startTestServer, type TestServer } from '../../support/test-server.ts';

const fingerprint = 'abcdefghijklmnopqrstuvwxyz';
const bearer = { authorization: `Bearer ${sessionToken}` };
let running: TestServer;

beforeAll(async () => {
  running = await startTestServer({ fingerprint });
});
afterAll(() => running.server.close());

const get = (path: string, init: RequestInit = {}) => fetch(running.origin + path, init);

/** Checks that an answer is a problem document and nothing more. */
async function expectProblem(response: Response, status: number, code: string) {
  const text = await response.text();
  expect({ status: response.status, type: response.headers.get('content-type') }).toEqual({ status, type: 'application/problem+json' });
  const problem = ProblemSchema.strict().parse(JSON.parse(text));
  expect(problem).toMatchObject({ code, status, type: `urn:fedstill:problem:${code}` });
  expect(text).not.toMatch(/secret|at .*\.ts|node_modules/);
}

/** A request that `fetch` would not send. */
function rawRequest(method: string, path: string, body?: string): Promise<{ status: number; allow: string | undefined; type: string | undefined }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ port: running.port, method, path, headers: body === undefined ? {} : { 'content-length': body.length } }, (response) => {
      response.resume();
      resolve({ status: response.statusCode!, allow: response.headers.allow, type: response.headers['content-type'] });
    });
    request.on('error', reject);
    request.end(body);
  });
}

describe('health', () => {
  it('says that the process lives, and whether clients may join', async () => {
    expect((await get('/healthz')).status).toBe(200);
    expect((await get('/readyz')).status).toBe(200);
    running.status.ready = false;
    await expectProblem(await get('/readyz'), 503, 'unreachable');
    expect((await get('/healthz')).status).toBe(200);
    running.status.ready = true;
  });

  it('shows metrics whose labels hold no path, id or value of a peer', async () => {
    await get('/no-such-path-7f3a');
    const response = await get('/metrics');
    const text = await response.text();
    expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(text).toMatch(/^fedstill_connected_clients 3$/m);
    expect(text).toMatch(/^fedstill_round 2$/m);
    expect(text).toMatch(/^fedstill_rounds_released_total 1$/m);
    expect(text).toMatch(/^fedstill_problems_total\{code="not-found"\} [1-9]/m);
    expect(text).toMatch(/^fedstill_bytes_sent_total\{channel="http"\} [1-9]/m);
    expect(text).toMatch(/^nodejs_eventloop_lag_seconds /m);
    expect(text).not.toContain('7f3a');
  });
});

describe('resources', () => {
  it('serves the signed task as JSON', async () => {
    const response = await get('/task');
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(await response.json()).toEqual({ document: '{}', signature: '' });
  });

  it('serves soft labels with a session token, with the digest as entity tag', async () => {
    const response = await get('/rounds/3/soft-labels', { headers: bearer });
    expect(response.headers.get('content-type')).toBe('application/octet-stream');
    expect(new Uint8Array(await response.arrayBuffer())).toEqual(labelsFrame);
    expect(response.headers.get('etag')).toBe(`"${digestOf(labelsFrame)}"`);
    // Not by fetch, which adds Cache-Control: no-cache.
    const again = await sendRaw(running.port, `GET /rounds/3/soft-labels HTTP/1.1\r\nHost: x\r\nAuthorization: ${bearer.authorization}\r\nIf-None-Match: ${response.headers.get('etag')}\r\nConnection: close\r\n\r\n`);
    expect(again).toMatch(/^HTTP\/1\.1 304 Not Modified\r\n.*\r\n\r\n$/s);
  });

  it('answers HEAD with the headers of GET and no body', async () => {
    const response = await get('/rounds/3/soft-labels', { method: 'HEAD', headers: bearer });
    expect({ status: response.status, length: response.headers.get('content-length'), body: await response.text() }).toEqual({ status: 200, length: '4', body: '' });
  });

  it('refuses a missing, wrong, malformed or huge token', async () => {
    for (const authorization of ['', 'Bearer', 'Bearer x', `Basic ${sessionToken}`, `Bearer ${'x'.repeat(8000)}`, `Bearer ${sessionToken} x`]) {
      const response = await get('/rounds/3/soft-labels', { headers: { authorization } });
      expect(response.headers.get('www-authenticate')).toBe('Bearer');
      await expectProblem(response, 401, 'not-authenticated');
    }
  });

  it('passes on requests for labels that have changed, and nothing below them', async () => {
    const before = running.endpoint.paths.length;
    for (const path of ['/rounds/7/soft-labels/changed', '/finished/soft-labels/changed', '/rounds/07/soft-labels/changed', '/rounds/7/soft-labels/changed/x', '/rounds/7/soft-labels/other']) await expectProblem(await get(path, { headers: bearer }), 404, 'not-found');
    expect(running.endpoint.paths.slice(before)).toEqual(['/rounds/7/soft-labels/changed', '/finished/soft-labels/changed']);
  });

  it('passes on canonical round numbers only', async () => {
    const before = running.endpoint.paths.length;
    for (const round of ['0', '03', '-1', '1e3', '3.0', '99999999999', '%2e%2e', '3%00', 'x']) await expectProblem(await get(`/rounds/${round}/soft-labels`, { headers: bearer }), 404, 'not-found');
    expect(running.endpoint.paths.length).toBe(before);
  });

  it('tells who opens the join URL what to run, and knows only its own', async () => {
    const response = await get(`/join/${fingerprint}`);
    expect(response.headers.get('content-type')).toBe('text/plain; charset=utf-8');
    expect(await response.text()).toContain(`fedstill join ${running.origin}/join/${fingerprint}`);
    await expectProblem(await get('/join/aaaaaaaaaaaaaaaaaaaaaaaaaa'), 404, 'not-found');
    const forged = await sendRaw(running.port, `GET /join/${fingerprint} HTTP/1.1\r\nHost: <script>alert(1)</script>\r\nConnection: close\r\n\r\n`);
    expect(forged).not.toContain('script>');
  });
});

describe('what it refuses', () => {
  it('answers unknown paths with a problem, whatever the method', async () => {
    for (const path of ['/', '/task/', '/TASK', '/tasks', '/socket.io/', '/socket.io/?EIO=4&transport=polling', '/rounds', '/join/', '/a'.repeat(2000)]) await expectProblem(await get(path), 404, 'not-found');
    await expectProblem(await get('/nothing', { method: 'POST', body: 'x' }), 404, 'not-found');
  });

  it('answers other methods with 405 and what is allowed', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'PROPFIND']) {
      expect(await rawRequest(method, '/task')).toEqual({ status: 405, allow: 'GET, HEAD', type: 'application/problem+json' });
    }
    expect((await rawRequest('POST', '/healthz', 'a body')).status).toBe(405);
  });

  it('takes no request bodies', async () => {
    expect((await rawRequest('GET', '/task', 'a body')).status).toBe(413);
    const chunked = await sendRaw(running.port, 'GET /task HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
    expect(chunked).toMatch(/^HTTP\/1.1 413 .*message-too-large/s);
  });

  it('answers malformed paths with 400', async () => {
    for (const path of ['/%', '/%E0%A4%A', '/rounds/%E0%A4%A/soft-labels', '/join/%ff']) expect((await rawRequest('GET', path)).status).toBe(400);
    for (const target of ['*', 'http://[', 'foo', 'ftp://x/task']) {
      const answer = await sendRaw(running.port, `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
      expect(answer).toMatch(/^HTTP\/1\.1 400 .*application\/problem\+json/s);
    }
    expect(await sendRaw(running.port, `GET http://x/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)).toMatch(/^HTTP\/1\.1 200 /);
  });

  it('answers what is no HTTP with one problem and closes', async () => {
    const answer = await sendRaw(running.port, '\x00\x01garbage\r\n\r\n');
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application\/problem\+json/);
    expect(JSON.parse(answer.slice(answer.indexOf('{'))).code).toBe('message-malformed');
    expect(await sendRaw(running.port, `GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431 /);
    expect(await sendRaw(running.port, 'GET /task HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n')).toMatch(/^HTTP\/1\.1 404 .*not-found/s);
  });

  it('says nothing about a bug of its own', async () => {
    await expectProblem(await get('/transfer-set', { headers: bearer }), 500, 'internal');
  });

  it('sends the headers that keep browsers out of trouble, and none that name its parts', async () => {
    const { headers } = await get('/task');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(headers.get('content-security-policy')).toContain("default-src 'self'");
    expect(headers.get('x-powered-by')).toBeNull();
    expect(headers.get('access-control-allow-origin')).toBeNull();
    expect(headers.get('strict-transport-security')).toBeNull();
  });
});

it('limits requests of one address, with a problem, and does not believe X-Forwarded-For', async () => {
  const strict = await startTestServer({ limits: { maxRequestsPerMinute: 5 } });
  try {
    for (let i = 0; i < 5; i++) expect((await fetch(`${strict.origin}/task`, { headers: { 'x-forwarded-for': `10.0.0.${i}` } })).status).toBe(200);
    const response = await fetch(`${strict.origin}/task`, { headers: { 'x-forwarded-for': '10.0.0.9' } });
    expect(response.headers.get('retry-after')).not.toBeNull();
    await expectProblem(response, 429, 'rate-limited');
  } finally {
    await strict.server.close();
  }
});
