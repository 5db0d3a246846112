/** Problem documents as HTTP answers: through a response, or straight to a socket where there is none. */
import { STATUS_CODES, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { FederationError } from '../../shared/errors.ts';
import type { Problem } from '../../shared/protocol/problems.ts';

const contentType = 'application/problem+json';

export function malformedRequest(what: string): FederationError {
  return new FederationError('message-malformed', `The server cannot read ${what}.`, { field: 'request', expected: 'HTTP/1.1 as in RFC 9112' });
}

export function writeProblem(response: ServerResponse, problem: Problem, status = problem.status): void {
  const body = Buffer.from(JSON.stringify({ ...problem, status }));
  response.statusCode = status;
  response.setHeader('Content-Type', contentType);
  response.setHeader('Content-Length', body.length);
  response.setHeader('Cache-Control', 'no-store');
  response.end(body); // Node leaves the body out for HEAD
}

/** Answers on the bare connection of a request that never became one, and closes it. */
export function writeRawProblem(socket: Duplex, problem: Problem, status = problem.status): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const body = JSON.stringify({ ...problem, status });
  socket.on('error', () => socket.destroy()); // the peer may be gone already
  socket.end(
    [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Error'}`, 'Connection: close', `Content-Type: ${contentType}`, `Content-Length: ${Buffer.byteLength(body)}`, '', body].join('\r\n'),
    () => socket.destroy(),
  );
}
