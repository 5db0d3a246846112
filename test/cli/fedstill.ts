/** The built `fedstill` as processes: what a user has. `npm test` builds first; `npx vitest` alone runs what `dist/` holds. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const main = fileURLToPath(new URL('../../dist/simulations/main.js', import.meta.url));

export interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  /** Standard output and standard error so far. */
  readonly out: () => string;
  readonly err: () => string;
  /** Resolves once the process has ended: its status, or the signal that killed it. */
  readonly ended: Promise<number | NodeJS.Signals>;
  isRunning(): boolean;
}

export interface SpawnOptions {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Arguments for Node itself. */
  readonly nodeArgs?: readonly string[];
  /** Runs `sh -c SCRIPT` with the command line as `"$@"`. */
  readonly shell?: string;
}

const children = new Set<ChildProcess>();

export function fedstill(args: readonly string[], { cwd, env = {}, nodeArgs = [], shell }: SpawnOptions): Running {
  if (!existsSync(main)) throw new Error(`${main} is missing: run \`npm run build\` first`);
  const command = [process.execPath, ...nodeArgs, main, ...args];
  const [file, ...rest] = shell === undefined ? command : ['sh', '-c', shell, 'sh', ...command];
  // Nothing of this process's own environment decides what a test sees.
  const { PATH = '', HOME = '', TMPDIR = '/tmp' } = process.env;
  const child = spawn(file!, rest, { cwd, env: { PATH, HOME, TMPDIR, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const ended = once(child, 'close').then(([status, signal]) => {
    children.delete(child);
    return (status as number | null) ?? (signal as NodeJS.Signals);
  });
  ended.catch(() => undefined);
  return { child, pid: child.pid!, out: () => out, err: () => err, ended, isRunning: () => child.exitCode === null && child.signalCode === null };
}

export function killAll(): void {
  for (const child of children) child.kill('SIGKILL');
  children.clear();
}

/** The JSON objects printed so far. */
export function jsonLines(text: string): Record<string, unknown>[] {
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  return whole.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Record<string, unknown>]));
}

/** The first value that `find` gives; fails when the process ends before. */
export async function until<T>(running: Running, what: string, find: () => T | undefined | Promise<T | undefined>, timeoutMs = 60_000): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const found = await find();
    if (found !== undefined) return found;
    if (!running.isRunning() || performance.now() > end) {
      const last = await find(); // it may have come with the end
      if (last !== undefined) return last;
      throw new Error(`${what}: ${running.isRunning() ? 'not in time' : 'the process has ended'}\n--- out\n${running.out().slice(-4000)}\n--- err\n${running.err().slice(-4000)}`);
    }
    await delay(50);
  }
}

/** The line of an event that a process with `--json` prints. */
export function eventLine(running: Running, event: string, matches: (line: Record<string, unknown>) => boolean = () => true): Promise<Record<string, unknown>> {
  return until(running, `the event ${event}`, () => jsonLines(running.out()).find((line) => line['event'] === event && matches(line)));
}
