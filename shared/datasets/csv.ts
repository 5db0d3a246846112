/**
 * Tables of numbers as CSV (RFC 4180) with a header row: every column is a feature, except the label column if there is
 * one. Quotes, CRLF, a byte-order mark and empty lines are understood.
 *
 * Values are taken as they are. Nothing is scaled by the data's own minimum, maximum or mean: such statistics depend on
 * every private record, so a model trained on them leaks outside the privacy account, and each client would scale
 * differently. Scale by constants known in advance, before or in the model.
 */
import { FederationError } from '../errors.ts';
import type { Examples } from '../types/matrix.ts';
import { exampleSize } from '../types/matrix.ts';
import { selectRange } from './selection.ts';
import type { Selection } from './selection.ts';

export interface CsvOptions extends Selection {
  /** Names the file in errors. */
  readonly fileName: string;
  /** Header of the label column; without it every column is a feature. */
  readonly labelColumn?: string | undefined;
  /** Labels must be in [0, numClasses). Needed to read labels. */
  readonly numClasses?: number | undefined;
  /** Names of the classes 0, 1, ...; without it labels are written as integers. */
  readonly classNames?: readonly string[] | undefined;
  /** False leaves the label column unread (it is still no feature). Default true. */
  readonly readLabels?: boolean | undefined;
  /** Shape of one example; its size is the number of feature columns. Default: [number of feature columns]. */
  readonly exampleShape?: readonly number[] | undefined;
}

export interface CsvData {
  readonly examples: Examples;
  /** length = examples.count; undefined without a label column. */
  readonly labels: Int32Array | undefined;
  /** Headers of the feature columns, in order. */
  readonly featureNames: readonly string[];
}

/** One row, with the line of the file (from 1) on which it starts. */
interface CsvRow {
  readonly line: number;
  readonly fields: readonly string[];
}

const MAX_PROBLEMS = 10;
const decimalNumber = /^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$/;

/** Collects problems so that a user sees the first ten at once. */
class Problems {
  readonly #fileName: string;
  readonly #found: { place: string; expected: string; got: string }[] = [];
  #count = 0;

  constructor(fileName: string) {
    this.#fileName = fileName;
  }

  add(place: string, expected: string, got: string): void {
    this.#count++;
    if (this.#found.length < MAX_PROBLEMS) this.#found.push({ place, expected, got });
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

/** A field as it may be shown in an error: short, on one line. */
function shown(field: string): string {
  const text = field.length > 40 ? `${field.slice(0, 40)}...` : field;
  return text === '' ? 'nothing' : JSON.stringify(text);
}

/** Splits the text into rows of fields (RFC 4180, sec. 2). Lines with nothing on them are left out. */
export function parseCsvRows(text: string, fileName: string): CsvRow[] {
  const problems = new Problems(fileName);
  const rows: CsvRow[] = [];
  let at = text.startsWith('\uFEFF') ? 1 : 0;
  let line = 1;
  while (at < text.length) {
    const start = line;
    const fields: string[] = [];
    for (;;) {
      if (text[at] === '"') {
        let field = '';
        const opened = line;
        for (;;) {
          const close = text.indexOf('"', at + 1);
          if (close === -1) {
            problems.add(`line ${opened}`, 'a closing quote (")', 'the end of the file');
            problems.throwIfAny();
          }
          const piece = text.slice(at + 1, close);
          for (const char of piece) if (char === '\n') line++;
          field += piece;
          at = close + 1;
          if (text[at] !== '"') break;
          field += '"'; // "" inside quotes is one quote
        }
        fields.push(field);
        if (at < text.length && !',\r\n'.includes(text[at]!)) {
          problems.add(`line ${line}`, 'a comma or the end of the line after a closing quote', shown(text[at]!));
          while (at < text.length && !',\n'.includes(text[at]!)) at++;
        }
      } else {
        const from = at;
        while (at < text.length && text[at] !== ',' && text[at] !== '\n' && !(text[at] === '\r' && (text[at + 1] === '\n' || at + 1 === text.length))) at++;
        const field = text.slice(from, at);
        if (field.includes('"')) problems.add(`line ${line}`, 'quotes only around a whole field', shown(field));
        fields.push(field);
      }
      if (text[at] !== ',') break;
      at++;
    }
    if (text[at] === '\r') at++;
    if (text[at] === '\n') {
      at++;
      line++;
    }
    if (fields.length > 1 || fields[0]!.trim() !== '') rows.push({ line: start, fields });
  }
  problems.throwIfAny();
  return rows;
}

/**
 * The chosen rows as examples of float32 values, with their labels.
 * Throws `data-invalid` that lists the first ten problems with row, line and column.
 */
export function parseCsv(text: string, options: CsvOptions): CsvData {
  const { fileName, labelColumn, numClasses, classNames } = options;
  const readLabels = labelColumn !== undefined && (options.readLabels ?? true);
  const problems = new Problems(fileName);
  const [header, ...rows] = parseCsvRows(text, fileName);
  if (header === undefined) {
    throw new FederationError('data-invalid', `${fileName}: expected a header row, got an empty file`, {
      field: `${fileName}: header`, expected: 'a header row', got: 'an empty file', next: 'Name the columns on the first line.',
    });
  }

  const names = header.fields.map((field) => field.trim());
  const seen = new Set<string>();
  names.forEach((name, i) => {
    if (name === '') problems.add(`line ${header.line}, column ${i + 1}`, 'a column name', 'nothing');
    else if (seen.has(name)) problems.add(`line ${header.line}, column ${i + 1}`, 'a name used once', shown(name));
    seen.add(name);
  });
  const labelAt = labelColumn === undefined ? -1 : names.indexOf(labelColumn);
  if (labelColumn !== undefined && labelAt === -1) {
    problems.add(`line ${header.line}`, `a label column ${shown(labelColumn)}`, `columns ${shown(names.join(', '))}`);
  }
  const featureNames = names.filter((_, i) => i !== labelAt);
  const featureCount = featureNames.length;
  const shape = options.exampleShape ?? [featureCount];
  if (featureCount === 0 || exampleSize(shape) !== featureCount) {
    const columns = `${featureCount} (of ${names.length} ${names.length === 1 ? 'column' : 'columns'}${labelAt === -1 ? '' : ', one is the label'})`;
    problems.add(`line ${header.line}`, options.exampleShape ? `${exampleSize(shape)} feature columns for shape [${shape.join(', ')}]` : 'at least 1 feature column', columns);
  }
  problems.throwIfAny(); // What follows would only repeat it for every row.

  const [start, count] = selectRange(rows.length, options, fileName);
  // A short row promises values that are not there: nothing is allocated for a table of unproven size.
  const complete = rows.slice(start, start + count).every(({ fields }) => fields.length === names.length);
  const values = new Float32Array(complete ? count * featureCount : 0);
  const labels = readLabels ? new Int32Array(count) : undefined;
  for (let i = 0; i < count; i++) {
    const { line, fields } = rows[start + i]!;
    const row = `row ${start + i + 1} (line ${line})`;
    if (fields.length !== names.length) {
      problems.add(row, `${names.length} fields`, `${fields.length}`);
      continue;
    }
    let at = i * featureCount;
    for (const [column, field] of fields.entries()) {
      const trimmed = field.trim();
      if (column === labelAt) {
        if (labels === undefined) continue;
        const label = parseLabel(trimmed, numClasses, classNames);
        if (typeof label === 'number') labels[i] = label;
        else problems.add(`${row}, column \`${names[column]}\``, label.expected, shown(trimmed));
        continue;
      }
      const value = decimalNumber.test(trimmed) ? Math.fround(Number(trimmed)) : NaN;
      if (Number.isFinite(value)) values[at] = value;
      else problems.add(`${row}, column \`${names[column]}\``, 'a number (float32)', shown(trimmed));
      at++;
    }
  }
  problems.throwIfAny();
  return { examples: { count, shape: [...shape], values }, labels, featureNames };
}

/** The class of a label field, or what was expected instead. */
function parseLabel(field: string, numClasses: number | undefined, classNames: readonly string[] | undefined): number | { expected: string } {
  if (classNames !== undefined) {
    const label = classNames.indexOf(field);
    return label === -1 ? { expected: `one of ${shown(classNames.join(', '))}` } : label;
  }
  const limit = numClasses ?? 0x7fff_ffff;
  // "3.0" is what spreadsheets and pandas write for an integer column with a gap.
  const label = /^\d{1,10}(\.0*)?$/.test(field) ? Number(field) : NaN;
  return label < limit ? label : { expected: `a class: an integer in [0, ${limit})` };
}
