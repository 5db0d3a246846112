/** `fedstill` as processes of their own, from `dist/`: `npm test` builds it first; `npx vitest run test/e2e` alone needs `npm run build` before. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { onTestFailed, onTestFinished } from 'vitest';

export const main = fileURLToPath(new URL('../../../dist/simulations/main.js', import.meta.url));
if (!existsSync(main)) throw new Error('There is no dist/: run `npm run build` first.');

export type Event = Readonly<Record<string, unknown>> & { readonly event: string };

/** How a process ended: its status, or the signal that ended it. */
export type End = number | NodeJS.Signals;

export interface StartOptions {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Modules of this folder that are loaded first, and change how the process lives. */
  readonly imports?: readonly string[];
}

const running = new Set<ChildProcess>();

/** One process, the leader of its own group. */
export class Fedstill {
  readonly child: ChildProcess;
  readonly ended: Promise<End>;
  readonly events: Event[] = [];
  out = '';
  err = '';
  readonly #watchers = new Set<() => void>();
  #end: End | undefined;

  constructor(args: readonly string[], { cwd, env, imports = [] }: StartOptions) {
    this.child = spawn(process.execPath, [...imports.flatMap((file) => ['--import', new URL(file, import.meta.url).href]), main, ...args], {
      cwd,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NO_COLOR: '1', NODE_OPTIONS: '', ...env },
    });
    running.add(this.child);
    let rest = '';
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.out += text;
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        const event = parseEvent(line);
        if (event !== undefined) this.events.push(event);
      }
      this.#tell();
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.err += text;
      this.#tell();
    });
    this.ended = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code, signal) => {
        running.delete(this.child);
        this.#end = code ?? signal!;
        resolve(this.#end);
        this.#tell();
      });
    });
  }

  /** Undefined while it runs. */
  get end(): End | undefined {
    return this.#end;
  }

  /** Resolves as soon as `find` finds something; rejects when the process ends without. */
  when<T>(what: string, find: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = find();
        if (found === undefined && this.#end === undefined) return;
        this.#watchers.delete(look);
        if (found !== undefined) resolve(found);
        else reject(new Error(`The process ended with ${this.#end} before ${what}.\n${this.out}\n${this.err}`));
      };
      this.#watchers.add(look);
      look();
    });
  }

  event(name: string, matches: (event: Event) => boolean = () => true): Promise<Event> {
    return this.when(`the event ${name}`, () => this.events.find((event) => event.event === name && matches(event)));
  }

  line(pattern: RegExp): Promise<RegExpExecArray> {
    return this.when(`a line like ${String(pattern)}`, () => pattern.exec(this.out) ?? undefined);
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#end === undefined) this.child.kill(signal);
  }

  /** To it and everything that it has started, as Ctrl-C in a terminal does. */
  signalGroup(signal: NodeJS.Signals): void {
    killGroup(this.child, signal);
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.ended;
  }

  #tell(): void {
    for (const look of [...this.#watchers]) look();
  }
}

/** Starts a process that does not outlive the test. */
export function fedstill(args: readonly string[], options: StartOptions): Fedstill {
  onTestFinished(() => stopAll());
  const process = new Fedstill(args, options);
  onTestFailed(() => console.log(`fedstill ${args.join(' ')}\n  ended with ${process.end ?? 'nothing yet'}\n${process.out.slice(-1500)}\n${process.err.slice(-1500)}`));
  return process;
}

function stopAll(): void {
  for (const child of running) killGroup(child, 'SIGKILL');
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-child.pid!, signal);
  } catch {
    // It is gone.
  }
}

function parseEvent(line: string): Event | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && typeof (value as { event?: unknown }).event === 'string' ? (value as Event) : undefined;
  } catch {
    return undefined;
  }
}
