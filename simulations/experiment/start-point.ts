/** Starts the process of one point and hears it out. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import type { Outcome } from '../outcome.ts';
import { PointReportSchema, type PointTask, type RoundReport } from './point-messages.ts';

export type PointEnd =
  | { readonly kind: 'outcome'; readonly outcome: Outcome }
  /** It said why there is no outcome. */
  | { readonly kind: 'error'; readonly error: { readonly code: string; readonly message: string } }
  /** It ended without a word; `how` says what is known, e.g. `SIGKILL`. */
  | { readonly kind: 'died'; readonly how: string };

export interface PointProcess {
  readonly pid: number | undefined;
  /** Rejects with what `onRound` threw. */
  readonly ended: Promise<PointEnd>;
  /** Ends it now. */
  stop(): void;
}

/** Last characters of what a process wrote to standard error that are kept. */
const TAIL_LENGTH = 2000;

export function startPoint(task: PointTask, onRound: (report: RoundReport) => void): PointProcess {
  // Of the same kind as this file: TypeScript sources or their build.
  const entry = new URL(import.meta.url.endsWith('.ts') ? './point-process.ts' : './point-process.js', import.meta.url);
  const child = fork(entry, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  let end: PointEnd | undefined;
  let tail = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (tail = (tail + text).slice(-TAIL_LENGTH)));
  const finish = (reported: PointEnd) => {
    end ??= reported;
    if (child.connected) child.disconnect();
  };
  child.on('message', (message) => {
    const parsed = PointReportSchema.safeParse(message);
    if (!parsed.success) finish({ kind: 'error', error: { code: 'internal', message: `What came of it is no outcome: ${parsed.error.issues[0]?.path.join('.')}: ${parsed.error.issues[0]?.message}` } });
    else if (parsed.data.kind !== 'round') finish(parsed.data);
    else {
      try {
        onRound(parsed.data);
      } catch (error) {
        fail(error);
        child.kill('SIGKILL');
      }
    }
  });
  let fail: (error: unknown) => void;
  const ended = new Promise<PointEnd>((resolve, reject) => {
    fail = reject;
    child.once('error', (error) => {
      end ??= { kind: 'died', how: error.message };
      if (child.pid === undefined) resolve(end); // it never began
    });
    // Not `close`, which never comes once this side has disconnected.
    const drained = once(child.stderr!, 'close');
    child.once('exit', (code, signal) => {
      void drained.then(() => {
        const last = tail.trim().split('\n').at(-1) ?? '';
        resolve(end ?? { kind: 'died', how: `${signal ?? `exit status ${code}`}${last === '' ? '' : `: ${last}`}` });
      });
    });
  });
  // A process that never began, or is gone, says so in its events.
  child.send(task, () => undefined);
  return { pid: child.pid, ended, stop: () => child.kill('SIGKILL') };
}
