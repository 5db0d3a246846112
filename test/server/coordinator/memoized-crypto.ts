/** Remembers the results of pure functions of keys: a loop over hundreds of equal tasks spends nearly all its time in them. */
export function memoized<A extends readonly unknown[], R>(compute: (...args: A) => R): (...args: A) => R {
  const results = new Map<string, R>();
  return (...args) => {
    const key = JSON.stringify(args, (_name, value: unknown) => (value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : value));
    if (!results.has(key)) results.set(key, compute(...args));
    return results.get(key)!;
  };
}
