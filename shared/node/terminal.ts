/**
 * What a command says on a terminal: results on standard output, everything else on standard error. Plain lines: no cursor movements, and color only
 * on a terminal whose user has not set NO_COLOR (https://no-color.org).
 */
import { exitStatus, FederationError } from '../errors.ts';

export interface PrintOptions {
  /** One JSON object a line instead of text. Default false. */
  readonly json?: boolean;
}

/** Where lines go; a test passes its own. */
export interface LineStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
}

/** The exit status for an error: that of its fault class, 1 for what has no code. */
export function exitStatusOf(error: unknown): number {
  return error instanceof FederationError ? error.exitStatus : exitStatus.internal;
}

/**
 * An error for a person: the message, then what was expected, what was found and what to do, then the code. With `json` one object with the same
 * members. A bug of ours prints its stack, because nothing else helps to find it.
 */
export function printError(error: unknown, { json = false }: PrintOptions = {}, stream: LineStream = process.stderr): void {
  if (json) {
    stream.write(`${JSON.stringify(errorRecord(error))}\n`);
    return;
  }
  const red = (text: string) => (hasColor(stream) ? `\u001b[31m${text}\u001b[0m` : text);
  if (!(error instanceof FederationError)) {
    const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
    stream.write(`${red('error:')} something went wrong in fedstill itself\n${indent(detail)}\n  code:     internal\n`);
    return;
  }
  const rows = [
    ['field', error.field],
    ['expected', error.expected],
    ['got', error.got],
    ['next', error.next],
    ['code', error.code],
  ] as const;
  const lines = rows.flatMap(([name, value]) => (value === undefined || value === '' ? [] : [`  ${`${name}:`.padEnd(10)}${value.replaceAll('\n', '\n            ')}`]));
  stream.write([`${red('error:')} ${error.message}`, ...lines, ''].join('\n'));
}

function errorRecord(error: unknown): object {
  if (!(error instanceof FederationError)) return { error: error instanceof Error ? error.message : String(error), code: 'internal', exitStatus: exitStatusOf(error) };
  const { message, code, field, expected, got, next } = error;
  return { error: message, code, field, expected, got, next, exitStatus: error.exitStatus };
}

/** Why a file could not be read, in words for the usual reasons. */
export function readFailure(error: unknown): string {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  const words: Readonly<Record<string, string>> = { ENOENT: 'no such file', EISDIR: 'a folder', EACCES: 'no permission to read it', EPERM: 'no permission to read it', ENOTDIR: 'a path through something that is no folder' };
  return words[code ?? ''] ?? code ?? String(error);
}

/** One line on standard output. */
export function printLine(text: string, stream: LineStream = process.stdout): void {
  stream.write(`${text}\n`);
}

/** One JSON object on one line of standard output. Infinite numbers are written as text, because JSON has none. */
export function printJson(record: object, stream: LineStream = process.stdout): void {
  stream.write(`${JSON.stringify(record, (_key, value: unknown) => (value === Infinity ? 'infinite' : value))}\n`);
}

/** Whether to color what is written there. */
export function hasColor(stream: LineStream): boolean {
  return stream.isTTY === true && (process.env['NO_COLOR'] ?? '') === '' && process.env['TERM'] !== 'dumb';
}

/** A size for a person: `812 B`, `80 kB`, `1.2 MB` (powers of 1000). */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 999_500) return `${(bytes / 1000).toFixed(bytes < 9950 ? 1 : 0)} kB`;
  if (bytes < 999_500_000) return `${(bytes / 1e6).toFixed(bytes < 9.95e6 ? 1 : 0)} MB`;
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

/** An epsilon for a person, rounded up: it is an upper bound. */
export function formatEpsilon(epsilon: number | 'infinite'): string {
  if (epsilon === 'infinite' || epsilon === Infinity) return 'infinite';
  const thousandths = Math.round(epsilon * 1000);
  return (thousandths / 1000 >= epsilon ? thousandths / 1000 : (thousandths + 1) / 1000).toString();
}

/** A command line that a shell reads back as these arguments. */
export function formatCommand(args: readonly string[]): string {
  return args.map((arg) => (/^[A-Za-z0-9_./:=@%+,-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", "'\\''")}'`)).join(' ');
}

function indent(text: string): string {
  return text
    .split('\n')
    .map((line) => `  ${line}`)
    .join('\n');
}
