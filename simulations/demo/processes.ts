/** Child processes of the demo: each prints JSON lines, and all of them end when the demo does. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import type { RunEvent } from '../../shared/ports/event-sink.ts';

export interface JsonProcess {
  readonly name: string;
  /** Exit status; a signal's number plus 128 when a signal ended it. */
  readonly ended: Promise<number>;
  stop(): void;
}

const running = new Set<ChildProcess>();

/** Runs `fedstill ARGS` as a process of its own. Lines on its standard output that are JSON go to `onEvent`, everything on standard error to `logFile`. */
export function startFedstill(name: string, args: readonly string[], logFile: string, onEvent: (event: RunEvent) => void): JsonProcess {
  // The loader flags of this process, so that the demo also runs from its TypeScript sources.
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1]!, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  const log = createWriteStream(logFile, { flags: 'a', mode: 0o600 });
  child.stderr.pipe(log);
  createInterface({ input: child.stdout }).on('line', (line) => {
    const event = parseEvent(line);
    if (event === undefined) log.write(`${line}\n`);
    else onEvent(event);
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      running.delete(child);
      resolve(code ?? (signal === 'SIGINT' ? 130 : signal === 'SIGTERM' ? 143 : 137));
    });
  });
  return { name, ended, stop: () => child.kill('SIGTERM') };
}

/** Whatever happens to this process, none of its children stays behind. */
export function killAllOnExit(): void {
  process.once('exit', () => {
    for (const child of running) child.kill('SIGKILL');
  });
}

function parseEvent(line: string): RunEvent | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && typeof (value as { event?: unknown }).event === 'string' ? (value as RunEvent) : undefined;
  } catch {
    return undefined;
  }
}
