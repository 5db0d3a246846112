/** What is wrong with the rows of a table, collected so that its owner sees the first ten places at once. */
import { FederationError } from '../errors.ts';

const MAX_SHOWN = 10;

export class RowProblems {
  readonly #fileName: string;
  readonly #found: { place: string; expected: string; got: string }[] = [];
  #count = 0;

  constructor(fileName: string) {
    this.#fileName = fileName;
  }

  add(place: string, expected: string, got: string): void {
    this.#count++;
    if (this.#found.length < MAX_SHOWN) this.#found.push({ place, expected, got });
  }

  /** Throws `data-invalid` when there were any. */
  throwIfAny(): void {
    const [first] = this.#found;
    if (first === undefined) return;
    const lines = this.#found.map(({ place, expected, got }) => `  ${place}: expected ${expected}, got ${got}`);
    const more = this.#count > lines.length ? `\n  and ${this.#count - lines.length} more` : '';
    throw new FederationError('data-invalid', `${this.#fileName}: ${this.#count} ${this.#count === 1 ? 'problem' : 'problems'}\n${lines.join('\n')}${more}`, {
      field: `${this.#fileName}: ${first.place}`, expected: first.expected, got: first.got, next: 'Correct these places in the file.',
    });
  }
}

/** A header, a class name or a piece of punctuation, as it may be shown: short, on one line. */
export function shown(text: string): string {
  const short = text.length > 40 ? `${text.slice(0, 40)}...` : text;
  return short === '' ? 'nothing' : JSON.stringify(short);
}

export const decimalNumber = /^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$/;

/** How people write that a value is not there. */
const missing: ReadonlySet<string> = new Set(['', 'na', 'n/a', 'nan', 'null', 'none', 'nil', '?', '-']);

export function isMissing(cell: string): boolean {
  return missing.has(cell.toLowerCase());
}

/**
 * What a cell is, without what is in it: it is somebody's, and errors end up in terminals, logs and questions to others. Its row and column say where to look.
 */
export function kindOfCell(cell: string): string {
  if (cell === '') return 'nothing';
  if (isMissing(cell)) return `a missing value (${JSON.stringify(cell)})`;
  return decimalNumber.test(cell) ? 'another number' : `text of ${cell.length} ${cell.length === 1 ? 'character' : 'characters'}`;
}
