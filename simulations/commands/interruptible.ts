/** Ctrl-C as an `AbortSignal`; the second one ends the process at once. */
export function interruptible() {
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
    release: () => process.off('SIGINT', onSignal).off('SIGTERM', onSignal),
  };
}
