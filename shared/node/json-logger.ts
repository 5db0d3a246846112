/**
 * JSON lines on standard error, by pino. Standard output belongs to what a command was asked for.
 *
 * Fields whose name speaks of a secret are replaced by `[redacted]`, and bytes and arrays of numbers by their length, at any depth: a last line of
 * defence for a logger that should not be given them. It does NOT look into texts.
 */
import { destination as openDestination, pino, type DestinationStream } from 'pino';
import { FederationError } from '../errors.ts';
import type { Logger } from '../ports/logger.ts';

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface JsonLoggerOptions {
  /** Default: `warn`. */
  readonly level?: LogLevel;
  /** Default: standard error, written before the call returns. */
  readonly destination?: DestinationStream;
}

export function createJsonLogger(options: JsonLoggerOptions = {}): Logger {
  const stream = options.destination ?? openDestination({ dest: 2, sync: true });
  const log = pino({ level: options.level ?? 'warn', base: { pid: process.pid }, formatters: { level: (label) => ({ level: label }) }, serializers: { err: (value: unknown) => value }, timestamp: () => `,"time":"${new Date().toISOString()}"` }, stream);
  const write = (level: 'debug' | 'info' | 'warn' | 'error') => (fields: Readonly<Record<string, unknown>>, message: string) => {
    if (log.isLevelEnabled(level)) log[level](redact(fields, 0) as object, message);
  };
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}

const secretName = /key|token|secret|seed|passw|passphrase|predict|logit|probabilit|label|noise|authorization|cookie|envelope|nonce|proof/i;
const maxDepth = 5;
const maxEntries = 50;

/** A copy that is safe to write: nothing secret, nothing long, no cycles. */
function redact(value: unknown, depth: number): unknown {
  if (value instanceof Error) return describeError(value, depth);
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'function' || typeof value === 'symbol') return `[${typeof value}]`;
  if (typeof value !== 'object' || value === null) return value;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`;
  if (depth >= maxDepth) return '[deep]';
  if (Array.isArray(value)) {
    if (value.length > 0 && typeof value[0] === 'number') return `[${value.length} numbers]`;
    return value.slice(0, maxEntries).map((entry) => redact(entry, depth + 1));
  }
  const entries = Object.entries(value).slice(0, maxEntries);
  return Object.fromEntries(entries.map(([name, entry]) => [name, secretName.test(name) ? '[redacted]' : redact(entry, depth + 1)]));
}

function describeError(error: Error, depth: number): object {
  const known = error instanceof FederationError ? { code: error.code, field: error.field, expected: error.expected, got: error.got, next: error.next } : {};
  const cause = error.cause === undefined || depth >= maxDepth ? {} : { cause: redact(error.cause, depth + 1) };
  return { type: error.name, message: error.message, stack: error.stack, ...known, ...cause };
}
