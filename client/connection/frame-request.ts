/** GETs one frame over HTTP or HTTPS (docs/protocol.md section 8), never reading more than was allowed. */
import http from 'node:http';
import https from 'node:https';
import { FederationError } from '../../shared/errors.ts';
import { fromProblem, ProblemSchema } from '../../shared/protocol/problems.ts';
import { connectionError } from './connection-error.ts';

export interface FrameRequest {
  readonly url: URL;
  readonly sessionToken: string;
  /** A longer body is refused, before it is read where its length is announced. */
  readonly maxBytes: number;
  /** PEM certificates to trust instead of the system's. */
  readonly ca?: string;
  readonly signal: AbortSignal;
}

/** Without a byte for this long, the answer counts as lost. */
const idleTimeoutMs = 30_000;
/** A problem document is small; more is none. */
const maxProblemBytes = 64 * 1024;

/** Rejects with the coordinator's problem, `message-too-large`, `unreachable`, or `disconnected` when aborted. */
export function requestFrame({ url, sessionToken, maxBytes, ca, signal }: FrameRequest): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const options = { method: 'GET', headers: { authorization: `Bearer ${sessionToken}`, accept: 'application/octet-stream, application/problem+json' }, signal };
    const request = url.protocol === 'https:' ? https.request(url, { ...options, ...(ca === undefined ? {} : { ca }) }) : http.request(url, options);
    const fail = (error: FederationError) => {
      request.destroy();
      reject(error);
    };
    request.setTimeout(idleTimeoutMs, () => fail(new FederationError('unreachable', `The coordinator sent nothing for ${idleTimeoutMs / 1000} seconds.`, { field: url.pathname, next: 'Check the network.' })));
    request.on('error', (error) => reject(signal.aborted ? new FederationError('disconnected', 'The connection was closed.') : connectionError(url, error)));
    request.on('response', (response) => {
      const isFrame = response.statusCode === 200;
      const limit = isFrame ? maxBytes : maxProblemBytes;
      const tooLarge = (got: string) => new FederationError('message-too-large', 'The coordinator sends more than it announced.', { field: url.pathname, expected: `at most ${limit} bytes`, got });
      const announced = Number(response.headers['content-length'] ?? 0);
      if (announced > limit) {
        fail(tooLarge(`${announced} bytes`));
        return;
      }
      const chunks: Buffer[] = [];
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        length += chunk.length;
        if (length > limit) fail(tooLarge(`more than ${limit} bytes`));
        else chunks.push(chunk);
      });
      response.on('error', (error) => reject(connectionError(url, error)));
      response.on('aborted', () => reject(connectionError(url, new Error('the answer was cut short'))));
      response.on('end', () => {
        if (isFrame) resolve(new Uint8Array(Buffer.concat(chunks)));
        else reject(problemOf(url, response.statusCode ?? 0, Buffer.concat(chunks).toString('utf8')));
      });
    });
    request.end();
  });
}

function problemOf(url: URL, status: number, body: string): FederationError {
  try {
    return fromProblem(ProblemSchema.parse(JSON.parse(body)));
  } catch {
    return new FederationError('unreachable', `The coordinator answered with HTTP status ${status}.`, { field: url.pathname, expected: '200', got: String(status), next: 'Check that no proxy answers in its place.' });
  }
}
