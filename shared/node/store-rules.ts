/** What a `DurableStore` takes: the same rules for every implementation. */
import { FederationError } from '../errors.ts';

const segment = '[a-z0-9][a-z0-9._-]*';
const namePattern = new RegExp(`^${segment}(?:/${segment})*$`);
const maxNameLength = 200;

/**
 * Returns the name of a blob or log; throws for one that is not relative, lower-case and free of `.`-folders: names stay inside their folder and mean the
 * same on every file system. A wrong name is a bug of the caller.
 */
export function checkStoreName(name: string): string {
  if (name.length <= maxNameLength && namePattern.test(name)) return name;
  throw new FederationError('internal', 'A name cannot be stored.', {
    field: 'name',
    expected: `at most ${maxNameLength} characters of a-z 0-9 . - _ /, no part starting with "."`,
    got: JSON.stringify(name.slice(0, 80)),
  });
}

/** One line of a log, with its newline. */
export function encodeRecord(record: object): string {
  const text = JSON.stringify(record) as string | undefined; // undefined when a toJSON says so
  if (text?.startsWith('{') || text?.startsWith('[')) return `${text}\n`;
  throw new FederationError('internal', 'A record cannot be stored.', { field: 'record', expected: 'an object that JSON can hold' });
}
