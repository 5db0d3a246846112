/** Structured log lines. `fields` never hold keys, tokens, logits, noise or private data. */
export interface Logger {
  debug(fields: Readonly<Record<string, unknown>>, message: string): void;
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
  error(fields: Readonly<Record<string, unknown>>, message: string): void;
}

/** Drops every line: for tests and for callers that watch events instead. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };
