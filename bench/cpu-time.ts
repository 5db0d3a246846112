/** CPU time of this process: other work on the machine delays it, but is not counted. */

/** User and system time that `run` takes, in all threads. */
export function cpuSeconds<T>(run: () => T): { readonly seconds: number; readonly value: T } {
  const start = process.cpuUsage();
  const value = run();
  const { user, system } = process.cpuUsage(start);
  return { seconds: (user + system) / 1e6, value };
}
