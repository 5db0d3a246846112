/** Dotted paths into a scenario, e.g. `task.privacy.epsilon` or `clients.groups.0.count`: which there are, what they hold, and setting them. */
import { nearest, schemaKeys, type ConfigIssue } from '../../shared/config/load.ts';
import { ScenarioSchema } from '../scenario.ts';

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

const known = new Set(schemaKeys(ScenarioSchema));

/** `clients.groups[0].count` as `clients.groups.0.count`. */
export function normalPath(path: string): string {
  return path.trim().replace(/\[(\d+)\]/g, '.$1');
}

/** What is wrong with a path before any scenario is looked at; `undefined`: nothing. Positions in lists are taken as they are. */
export function pathProblem(path: string): { readonly expected: string; readonly hint: string | undefined } | undefined {
  const normal = normalPath(path);
  const keys = normal.split('.').filter((key) => !isPosition(key)).join('.');
  if (keys === 'task.seed') return { expected: 'another key than the seed', hint: 'list the seeds in `seeds`' };
  if (known.has(keys) && !isPosition(normal.split('.')[0]!)) return undefined;
  const last = `.${keys.split('.').at(-1)!}`;
  const ending = [...known].filter((key) => key.endsWith(last));
  const near = nearest(keys, [...known]) ?? (ending.length === 1 ? ending[0] : undefined);
  return { expected: 'a key of the scenario, as a path', hint: near === undefined ? 'docs/simulate.md and docs/task.md list them, e.g. `task.privacy.epsilon`' : `did you mean \`${near}\`?` };
}

/** Whether one path is the other, or lies inside it. */
export function overlaps(a: string, b: string): boolean {
  return a === b || a.startsWith(`${b}.`) || b.startsWith(`${a}.`);
}

type Mistake = Pick<ConfigIssue, 'path' | 'expected' | 'got'>;

/** Sets what a path names in place; null takes a key away, so that its default holds. Sections on the way are made where they are missing, entries of lists are not. */
export function setPath(root: Record<string, unknown>, path: string, value: JsonValue): Mistake | undefined {
  const keys = path.split('.');
  let node: unknown = root;
  for (const [i, key] of keys.entries()) {
    const isLast = i === keys.length - 1;
    const here = keys.slice(0, i).join('.');
    if (Array.isArray(node)) {
      const position = isPosition(key) ? Number(key) : NaN;
      if (!(position < node.length)) return { path, expected: `a position from 0 to ${node.length - 1} in ${here}`, got: key };
      if (!isLast) node = node[position] as unknown;
      else if (value === null) return { path, expected: `a value, because ${here} is a list`, got: 'nothing' };
      else (node as unknown[])[position] = structuredClone(value);
    } else if (typeof node === 'object' && node !== null) {
      const section = node as Record<string, unknown>;
      if (isPosition(key)) return { path, expected: `a key of ${here}`, got: `position ${key}` };
      if (isLast && value === null) delete section[key];
      else if (isLast) section[key] = structuredClone(value);
      else node = section[key] ??= {};
    } else {
      return { path, expected: `a section in ${here}`, got: JSON.stringify(node) };
    }
  }
  return undefined;
}

/** What a path names; null where there is nothing. */
export function valueAtPath(root: unknown, path: string): JsonValue {
  let node = root;
  for (const key of path.split('.')) {
    if (typeof node !== 'object' || node === null || !Object.hasOwn(node, key)) return null;
    node = (node as Record<string, unknown>)[key];
  }
  return (node ?? null) as JsonValue;
}

function isPosition(key: string): boolean {
  return /^\d+$/.test(key);
}
