/** From what a socket throws to what a person can do about it. */
import { FederationError } from '../../shared/errors.ts';

const nextByCode: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'Check that the coordinator runs, and the port of the join URL.',
  ENOTFOUND: 'Check the host name of the join URL.',
  EAI_AGAIN: 'Check the host name of the join URL and the network.',
  ETIMEDOUT: 'Check the network, and whether a firewall is in between.',
  EHOSTUNREACH: 'Check the network, and whether a firewall is in between.',
  ENETUNREACH: 'Check the network.',
  EPROTO: 'Check whether the join URL must start with http:// or https://.',
  ERR_SSL_WRONG_VERSION_NUMBER: 'The coordinator does not speak TLS there: use the join URL with http://, or its TLS port.',
  ERR_TLS_CERT_ALTNAME_INVALID: 'Use the host name that the certificate was made for.',
  CERT_HAS_EXPIRED: 'Ask the coordinator\'s operator for a new certificate.',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'Name the certificate to trust with --ca FILE.',
  SELF_SIGNED_CERT_IN_CHAIN: 'Name the certificate authority to trust with --ca FILE.',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'Name the certificate authority to trust with --ca FILE.',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'Name the certificate authority to trust with --ca FILE.',
};

/** `unreachable`, with the cause that the system names and what to do. */
export function connectionError(url: URL, cause: unknown): FederationError {
  const root = rootOf(cause);
  const code = 'code' in root && typeof root.code === 'string' ? root.code : undefined;
  const reason = root.message === '' ? (code ?? 'no reason given') : root.message;
  return new FederationError('unreachable', `The coordinator at ${url.origin} cannot be reached: ${reason}.`, {
    field: 'URL',
    got: code ?? reason,
    next: nextByCode[code ?? ''] ?? 'Check that the coordinator runs and that its address and port can be reached from here.',
    cause,
  });
}

/** The error at the bottom: Engine.IO wraps a WebSocket's error event, and that the system's error. */
function rootOf(error: unknown): Error {
  let current = error;
  for (let depth = 0; depth < 5; depth++) {
    const inner = innerOf(current);
    if (inner === undefined) break;
    current = inner;
  }
  return current instanceof Error ? current : new Error(String(current));
}

function innerOf(error: unknown): unknown {
  if (typeof error !== 'object' || error === null) return undefined;
  // An ErrorEvent has `error`, Engine.IO's TransportError has `description`, an AggregateError (several addresses) has `errors`.
  for (const name of ['error', 'description', 'cause'] as const) {
    const inner: unknown = (error as Record<string, unknown>)[name];
    if (typeof inner === 'object' && inner !== null) return inner;
  }
  return error instanceof AggregateError && error.message === '' ? error.errors[0] : undefined;
}
