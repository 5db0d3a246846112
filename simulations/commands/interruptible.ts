export interface Interruptible {
  readonly signal: AbortSignal;
  /** 130 after SIGINT, 143 after SIGTERM. */
  exitStatus(): number;
  /** Gives the signals back to the process. */
  release(): void;
}

/** Ctrl-C as an `AbortSignal`; the second one ends the process at once. */
export function interruptible(): Interruptible {
  const controller = new AbortController();
  let status = 130;
  const onSignal = (signal: NodeJS.Signals) => {
    status = signal === 'SIGINT' ? 130 : 143;
    if (controller.signal.aborted) process.kill(process.pid, 'SIGKILL');
    controller.abort(new Error(`interrupted by ${signal}`));
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  return {
    signal: controller.signal,
    exitStatus: () => status,
    release: () => void process.off('SIGINT', onSignal).off('SIGTERM', onSignal),
  };
}
