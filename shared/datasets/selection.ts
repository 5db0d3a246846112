/** Which examples of a source are used: `size` of them from `offset` on, in the source's order. */
import { FederationError } from '../errors.ts';

export interface Selection {
  /** First example used; default 0. */
  readonly offset?: number | undefined;
  /** How many examples; default: all from `offset` on. */
  readonly size?: number | undefined;
}

/**
 * First position and number of the selected examples.
 * Throws `data-invalid` when the source of `available` examples has fewer, or when the selection is empty.
 */
export function selectRange(available: number, selection: Selection, fileName: string): [start: number, count: number] {
  const start = selection.offset ?? 0;
  const count = selection.size ?? Math.max(0, available - start);
  if (count < 1 || start + count > available) {
    const expected = selection.size === undefined ? `more than ${start} examples` : `at least ${start + count} examples (offset ${start}, size ${count})`;
    throw new FederationError('data-invalid', `${fileName}: expected ${expected}, got ${available}`, {
      field: `${fileName}: size`, expected, got: `${available}`, next: 'Lower `size` or `offset`, or give more data.',
    });
  }
  return [start, count];
}
