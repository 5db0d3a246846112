/**
 * The HTTP side of a coordinator (docs/protocol.md section 8): health, metrics, and the signed or public things that clients fetch. Read-only: every
 * resource answers GET and HEAD, no request has a body, and whatever goes wrong is a problem document (RFC 9457).
 */
import { createHash } from 'node:crypto';
import type { RequestListener } from 'node:http';
import express, { type ErrorRequestHandler, type Express, type NextFunction, type Request, type Response } from 'express';
import { rateLimit } from 'express-rate-limit';
import helmet from 'helmet';
import { FederationError } from '../../shared/errors.ts';
import type { Logger } from '../../shared/ports/logger.ts';
import type { CoordinatorEndpoint } from '../../shared/ports/transport.ts';
import { toProblem } from '../../shared/protocol/problems.ts';
import type { CoordinatorStatus } from '../coordinator/coordinator.ts';
import type { ServerMetrics } from './metrics.ts';
import { malformedRequest, writeProblem } from './problem-response.ts';

export interface HttpOptions {
  readonly endpoint: Pick<CoordinatorEndpoint, 'resource'>;
  readonly status: () => CoordinatorStatus;
  readonly metrics: ServerMetrics;
  readonly logger: Logger;
  /** The coordinator's own; a join page of another one is not found. Without it, every well-formed fingerprint has a page. */
  readonly fingerprint: string | undefined;
  /** Requests from one address. */
  readonly maxRequestsPerMinute: number;
  /** Served over TLS: browsers are told to stay there. */
  readonly isTls: boolean;
}

/** Answers every request of an HTTP server. */
export function createHttpListener(options: HttpOptions): RequestListener {
  const app = createHttpApp(options);
  return (request, response) => {
    const target = originForm(request.url ?? '');
    if (target === undefined) {
      options.metrics.problem('message-malformed');
      writeProblem(response, toProblem(malformedRequest('the request target')));
      return;
    }
    request.url = target;
    app(request, response);
  };
}

/** Path and query of a request target; `undefined` when it is none (Express would answer that with a page of its own). */
function originForm(target: string): string | undefined {
  if (target.startsWith('/')) return target;
  if (!/^https?:/i.test(target) || !URL.canParse(target)) return undefined;
  const { pathname, search } = new URL(target);
  return pathname + search;
}

function createHttpApp(options: HttpOptions): Express {
  const { endpoint, status, metrics } = options;
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag'); // ETags are digests of the bodies, set below
  app.set('query parser', false);
  app.enable('case sensitive routing');
  app.enable('strict routing');

  app.use((request, response, next) => {
    response.on('finish', () => {
      if (request.method !== 'HEAD' && response.statusCode !== 304) metrics.sent('http', Number(response.get('Content-Length') ?? 0));
    });
    next();
  });
  app.use(helmet({ strictTransportSecurity: options.isTls }));
  app.use(limitRequests(options.maxRequestsPerMinute));
  app.use(refuseMalformed);

  serve(app, '/healthz', (_request, response) => sendText(response, 'ok\n'));
  serve(app, '/readyz', (_request, response) => {
    const { ready, phase } = status();
    if (!ready) throw new FederationError('unreachable', 'Clients cannot join now.', { field: 'phase', got: phase, next: 'Try again in a few seconds.' });
    sendText(response, 'ready\n');
  });
  serve(app, '/metrics', async (_request, response) => {
    const text = await metrics.registry.metrics();
    response.set({ 'Content-Type': metrics.registry.contentType, 'Cache-Control': 'no-store' }).send(Buffer.from(text));
  });
  serve(app, '/join/:fingerprint', (request, response) => {
    const fingerprint = String(request.params['fingerprint']);
    if (!/^[a-z2-7]{26}$/.test(fingerprint) || (options.fingerprint !== undefined && fingerprint !== options.fingerprint)) {
      throw new FederationError('not-found', 'This is not the join URL of the coordinator that runs here.', { field: 'fingerprint', next: 'Ask its operator for the whole URL that `fedstill serve` printed.' });
    }
    sendText(response, joinPage(request, fingerprint));
  });

  const sendResource = async (request: Request, response: Response, path: string) => {
    const { contentType, body } = await endpoint.resource(path, bearerToken(request));
    response.set({ ETag: entityTag(body), 'Cache-Control': 'private, no-cache' });
    response.setHeader('Content-Type', contentType); // `set` would add a charset
    response.send(Buffer.from(body.buffer, body.byteOffset, body.byteLength)); // 304 when the client has these bytes
  };
  for (const path of ['/task', '/transfer-set', '/finished/soft-labels', '/finished/soft-labels/changed']) serve(app, path, (request, response) => sendResource(request, response, path));
  for (const part of ['soft-labels', 'soft-labels/changed']) {
    serve(app, `/rounds/:round/${part}`, (request, response) => {
      const round = String(request.params['round']);
      if (!/^[1-9][0-9]{0,9}$/.test(round)) throw notFound();
      return sendResource(request, response, `/rounds/${round}/${part}`);
    });
  }

  app.use(() => {
    throw notFound();
  });
  app.use(answerProblem(options));
  return app;
}

/** One resource: GET and HEAD, and 405 for everything else. What the handler throws becomes a problem document. */
function serve(app: Express, path: string, handler: (request: Request, response: Response) => void | Promise<void>): void {
  app
    .route(path)
    .get(handler)
    .all((request, response) => {
      response.set('Allow', 'GET, HEAD');
      throw new FederationError('method-not-allowed', 'This resource can only be read.', { field: 'method', expected: 'GET or HEAD', got: request.method });
    });
}

function limitRequests(maxRequestsPerMinute: number) {
  return rateLimit({
    windowMs: 60_000,
    limit: maxRequestsPerMinute,
    standardHeaders: 'draft-8',
    legacyHeaders: false,
    // Its self-checks print to the console when a client sends X-Forwarded-For, which is ignored here.
    validate: false,
    handler: (_request, _response, next) => {
      next(new FederationError('rate-limited', 'Too many requests from this address.', { expected: `at most ${maxRequestsPerMinute} a minute`, next: 'Wait a minute, then try again.' }));
    },
  });
}

function refuseMalformed(request: Request, response: Response, next: NextFunction): void {
  try {
    decodeURIComponent(request.path);
  } catch {
    throw malformedRequest('the percent-encoding of the path');
  }
  const hasBody = request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;
  if (hasBody) {
    response.set('Connection', 'close'); // the body is not read to its end
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    if (isRead) throw new FederationError('message-too-large', 'Requests to this server have no body.', { field: 'body', expected: 'no body', next: 'Contributions travel over Socket.IO, see docs/protocol.md section 12.' });
  }
  next();
}

function answerProblem({ metrics, logger }: HttpOptions): ErrorRequestHandler {
  return (error: unknown, request, response, next) => {
    if (response.headersSent) {
      next(error); // Express closes the connection: half an answer must not look like a whole one
      return;
    }
    const known = asKnown(error);
    if (!(known instanceof FederationError) || known.fault === 'internal') logger.error({ err: error, method: request.method }, 'a request could not be answered');
    const problem = toProblem(known);
    metrics.problem(problem.code);
    if (problem.status === 401) response.set('WWW-Authenticate', 'Bearer');
    response.removeHeader('ETag');
    writeProblem(response, problem);
  };
}

/** Express's own complaints about a request carry a 4xx status. */
function asKnown(error: unknown): unknown {
  if (error instanceof FederationError || !(error instanceof Error) || !('status' in error)) return error;
  return typeof error.status === 'number' && error.status >= 400 && error.status < 500 ? malformedRequest('the request') : error;
}

function notFound(): FederationError {
  return new FederationError('not-found', 'There is nothing at this path.', { field: 'path', next: 'docs/protocol.md section 8 lists the paths.' });
}

function sendText(response: Response, text: string): void {
  response.set({ 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store' }).send(text);
}

/** The token of `Authorization: Bearer TOKEN` (RFC 6750), if there is one. */
function bearerToken(request: Request): string | undefined {
  return /^Bearer +([\x21-\x7e]{1,256})$/i.exec(request.headers.authorization ?? '')?.[1];
}

/** The same bytes are asked for by every client; their digest is computed once while they are kept in memory. */
const entityTags = new WeakMap<Uint8Array, string>();

function entityTag(body: Uint8Array): string {
  let tag = entityTags.get(body);
  if (tag === undefined) {
    tag = `"sha256:${createHash('sha256').update(body).digest('hex')}"`;
    entityTags.set(body, tag);
  }
  return tag;
}

/** For a person who opens the join URL in a browser. */
function joinPage(request: Request, fingerprint: string): string {
  const host = request.headers.host ?? '';
  // The address comes back from the request, so only one that can be an address is repeated.
  const address = /^[A-Za-z0-9.:[\]-]{1,255}$/.test(host) ? `${request.protocol}://${host}/join/${fingerprint}` : 'the address of this page';
  return [
    'This is a fedstill coordinator: it trains models together with you without seeing your data.',
    '',
    'To take part, run on the machine that holds your data:',
    '',
    `  fedstill join ${address} --data YOUR-DATA`,
    '',
    `Compare the fingerprint with the one its operator gave you: ${fingerprint}`,
    '',
  ].join('\n');
}
