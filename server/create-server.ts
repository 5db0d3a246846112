/** One port for a coordinator: HTTP and Socket.IO, plain or over TLS. */
import { readFileSync } from 'node:fs';
import { createServer as createHttpServer, type IncomingMessage, type RequestListener, type Server as HttpServer, type ServerOptions as NodeServerOptions, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import { FederationError } from '../shared/errors.ts';
import { isErrno } from '../shared/node/disk-errors.ts';
import type { Clock } from '../shared/ports/clock.ts';
import type { Logger } from '../shared/ports/logger.ts';
import type { CoordinatorEndpoint } from '../shared/ports/transport.ts';
import { toProblem } from '../shared/protocol/problems.ts';
import type { CoordinatorStatus } from './coordinator/coordinator.ts';
import { createHttpListener } from './http/app.ts';
import { ServerMetrics } from './http/metrics.ts';
import { malformedRequest, writeProblem, writeRawProblem } from './http/problem-response.ts';
import { defaultServerLimits, type ServerLimits } from './server-limits.ts';
import { attachSocketServer } from './sockets/socket-server.ts';

export interface TlsFiles {
  /** PEM: the certificate, then those between it and the root. */
  readonly certFile: string;
  /** PEM, not encrypted. */
  readonly keyFile: string;
}

export interface ServerOptions {
  readonly endpoint: CoordinatorEndpoint;
  readonly status: () => CoordinatorStatus;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The coordinator's own; only its join URL then has a page. */
  readonly fingerprint?: string;
  readonly tls?: TlsFiles;
  readonly limits?: Partial<ServerLimits>;
}

export interface FederationServer {
  /** Port 0: any free one. Throws `port-unavailable`. */
  listen(address: { readonly host: string; readonly port: number }): Promise<{ readonly origin: string; readonly port: number }>;
  /** Takes no more connections, says goodbye to those there are, and ends within 5 s. */
  close(): Promise<void>;
}

/** How long connections may take to end by themselves. */
const goodbyeMs = 2_000;
/** HTTP connections beside the sockets. */
const spareConnections = 1_000;

const httpTimeouts: NodeServerOptions = {
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  keepAliveTimeout: 5_000,
  connectionsCheckingInterval: 5_000,
  maxHeaderSize: 16 * 1024,
};
/** A reader that takes nothing for this long is gone. */
const idleTimeoutMs = 120_000;

/** Throws `file-unreadable` or `config-invalid` for TLS files that cannot be used. */
export function createServer(options: ServerOptions): FederationServer {
  const { endpoint, status, clock, logger, tls } = options;
  const limits = { ...defaultServerLimits, ...options.limits };
  const server: HttpServer | HttpsServer = tls === undefined ? createHttpServer(httpTimeouts) : createHttpsServer({ ...httpTimeouts, ...readTls(tls), minVersion: 'TLSv1.2' });
  server.timeout = idleTimeoutMs;
  server.maxConnections = limits.maxConnections + spareConnections;

  const metrics: ServerMetrics = new ServerMetrics(status, () => sockets.connections());
  const sockets = attachSocketServer(server, { endpoint, clock, logger, metrics, limits });
  const answer: RequestListener = createHttpListener({ endpoint, status, metrics, logger, fingerprint: options.fingerprint, maxRequestsPerMinute: limits.maxRequestsPerMinute, isTls: tls !== undefined });
  // Socket.IO has put a listener for its long polling here, which this server does not offer.
  server.removeAllListeners('request');
  server.on('request', answer);
  refuseOtherTraffic(server, metrics);

  const connections = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
  });

  let closing: Promise<void> | undefined;
  return {
    async listen({ host, port }) {
      await listening(server, host, port);
      server.on('error', (error) => logger.error({ err: error }, 'the listening socket failed')); // later; before, the caller is told
      const bound = server.address() as AddressInfo;
      return { origin: formatOrigin(tls === undefined ? 'http' : 'https', host, bound.port), port: bound.port };
    },
    close() {
      closing ??= (async () => {
        const ended = new Promise<void>((resolve) => server.close(() => resolve()));
        sockets.close();
        server.closeIdleConnections();
        const overdue = new AbortController();
        await Promise.race([ended, delay(goodbyeMs, undefined, { signal: overdue.signal }).catch(() => undefined)]);
        overdue.abort();
        for (const socket of connections) socket.destroy();
        await ended;
        metrics.registry.clear();
      })();
      return closing;
    },
  };
}

/** Everything that arrives at the port and is neither a request nor a Socket.IO connection is answered once and closed. */
function refuseOtherTraffic(server: HttpServer | HttpsServer, metrics: ServerMetrics): void {
  server.on('upgrade', (request, socket) => {
    if (request.url?.startsWith('/socket.io/')) return; // Socket.IO's own listener has it
    metrics.problem('not-found');
    writeRawProblem(socket, toProblem(new FederationError('not-found', 'There is no WebSocket at this path.', { field: 'path', expected: '/socket.io/' })));
  });
  server.on('connect', (request, socket) => {
    metrics.problem('method-not-allowed');
    writeRawProblem(socket, toProblem(new FederationError('method-not-allowed', 'This server is no proxy.', { field: 'method', expected: 'GET or HEAD', got: 'CONNECT' })));
  });
  server.on('checkExpectation', (_request, response: ServerResponse) => {
    metrics.problem('message-malformed');
    response.setHeader('Connection', 'close'); // a body, if there is one, is not read
    writeProblem(response, toProblem(malformedRequest('the header Expect')), 417);
  });
  /** The last answer on each connection: what follows it may be the rest of its own request. */
  const answers = new WeakMap<Duplex, ServerResponse>();
  const ending = new WeakSet<ServerResponse>();
  const remember = (request: IncomingMessage, response: ServerResponse) => void answers.set(request.socket, response);
  server.prependListener('request', remember);
  server.prependListener('checkExpectation', remember);
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    const answer = answers.get(socket);
    if (answer !== undefined && (!answer.writableFinished || isLast(answer))) {
      // One request, one answer.
      if (!answer.writableFinished && !ending.has(answer)) answer.once('finish', () => socket.end());
      ending.add(answer);
      return;
    }
    metrics.problem('message-malformed');
    const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
    writeRawProblem(socket, toProblem(malformedRequest('the request')), status);
  });
}

/** Whether the connection is closed after this answer. */
function isLast(answer: ServerResponse): boolean {
  return !answer.shouldKeepAlive || answer.getHeader('Connection') === 'close';
}

function listening(server: HttpServer | HttpsServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => {
      server.off('listening', done);
      reject(listenError(error, host, port));
    };
    const done = () => {
      server.off('error', fail);
      resolve();
    };
    server.once('error', fail);
    server.once('listening', done);
    server.listen({ host, port });
  });
}

function listenError(error: Error, host: string, port: number): Error {
  const code = isErrno(error) ? error.code : undefined;
  const fail = (message: string, next: string) => new FederationError('port-unavailable', message, { field: `${host}:${port}`, expected: 'an address and port of this machine that are free', got: code ?? error.message, next, cause: error });
  switch (code) {
    case 'EADDRINUSE':
      return fail(`Port ${port} is in use on ${host}.`, `Stop what uses it (ss -ltnp 'sport = :${port}' shows it), or choose another with --port; 0 takes a free one.`);
    case 'EACCES':
      return fail(`This user may not open port ${port}.`, 'Choose a port from 1024 on with --port.');
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return fail(`This machine has no address ${host}.`, 'Use an address of this machine with --host: 127.0.0.1 for this machine alone, 0.0.0.0 for all networks.');
    default:
      return fail(`The server cannot listen on ${host}:${port}.`, 'Check --host and --port.');
  }
}

function formatOrigin(scheme: 'http' | 'https', host: string, port: number): string {
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return `${scheme}://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`;
}

function readTls({ certFile, keyFile }: TlsFiles): { readonly cert: Buffer; readonly key: Buffer } {
  const material = { cert: readTlsFile(certFile, '--tls-cert'), key: readTlsFile(keyFile, '--tls-key') };
  try {
    createSecureContext(material);
  } catch (cause) {
    throw new FederationError('config-invalid', 'The TLS certificate and key cannot be used.', {
      field: '--tls-cert, --tls-key',
      expected: 'a PEM certificate and the unencrypted PEM key that belongs to it',
      got: cause instanceof Error ? cause.message : String(cause),
      next: `Compare them: openssl x509 -in ${certFile} -pubkey -noout; openssl pkey -in ${keyFile} -pubout`,
      cause,
    });
  }
  return material;
}

function readTlsFile(path: string, option: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new FederationError('file-unreadable', `The file ${path} cannot be read.`, { field: option, expected: 'a readable PEM file', got: isErrno(cause) ? (cause.code ?? '') : '', next: 'Check the path and who may read it.', cause });
  }
}
