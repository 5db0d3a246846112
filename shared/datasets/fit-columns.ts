/**
 * Finds out how the columns of a table can become features: means and standard deviations of numbers, the values of categories. For a PUBLIC table, such as the transfer
 * set's: the result is written into the task and seen by everybody, and with it something about every row.
 */
import type { Column } from '../config/column-config.ts';
import { FederationError } from '../errors.ts';
import { parseCsvRows } from './csv.ts';
import { decimalNumber, isMissing } from './row-problems.ts';

export interface FitColumnsOptions {
  readonly fileName: string;
  /** Headers of columns that are no features: the label, row numbers, names. */
  readonly without: readonly string[];
}

/** A column of text with more values than this is no category. */
const MAX_VALUES = 100;

/** One entry for each column, in the file's order; numbers to six digits. Throws `data-invalid`. */
export function fitColumns(text: string, { fileName, without }: FitColumnsOptions): Column[] {
  const [header, ...rows] = parseCsvRows(text, fileName);
  const invalid = (field: string, expected: string, got: string, next: string) => new FederationError('data-invalid', `${fileName}: ${field}: expected ${expected}, got ${got}`, { field: `${fileName}: ${field}`, expected, got, next });
  if (header === undefined || rows.length === 0) throw invalid('rows', 'a header and at least one row', 'less', 'Give the public table.');
  const names = header.fields.map((field) => field.trim());
  for (const name of without) if (!names.includes(name)) throw invalid(`column \`${name}\``, `one of ${names.join(', ')}`, 'no such column', 'Correct the name.');
  return names.flatMap((name, position): Column[] => {
    if (without.includes(name)) return [];
    const cells = rows.map(({ fields }) => (fields[position] ?? '').trim());
    const present = cells.filter((cell) => !isMissing(cell));
    const hasGaps = present.length < cells.length;
    if (present.length === 0) throw invalid(`column \`${name}\``, 'some values', 'none', `Leave it out: --without ${name}.`);
    if (present.every((cell) => decimalNumber.test(cell))) {
      const numbers = present.map(Number);
      const mean = numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
      const deviation = Math.sqrt(numbers.reduce((sum, value) => sum + (value - mean) ** 2, 0) / numbers.length);
      const rounded = Number(mean.toPrecision(6));
      // A constant column stays one: it is not blown up.
      return [{ kind: 'number', name, mean: rounded, scale: Number(deviation.toPrecision(6)) || 1, ...(hasGaps ? { whenMissing: rounded } : {}) }];
    }
    const values = [...new Set(present)].sort();
    if (values.length > MAX_VALUES) throw invalid(`column \`${name}\``, `numbers, or at most ${MAX_VALUES} different values`, `${values.length} different values`, `Leave it out: --without ${name}. For sentences, see \`source: text\`.`);
    return [{ kind: 'category', name, values, whenUnknown: 'refuse', whenMissing: hasGaps ? 'zeros' : 'refuse' }];
  });
}
