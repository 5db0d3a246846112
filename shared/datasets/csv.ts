/**
 * Tables as CSV (RFC 4180) with a header row. Either every column is a number and a feature, except the label column if there is
 * one; or `columns` names the features, scales numbers and writes categories as ones and zeros. Quotes, CRLF, a byte-order mark and empty lines are understood.
 *
 * Nothing is scaled by the data's own minimum, maximum or mean: such statistics depend on
 * every private record, so a model trained on them leaks outside the privacy account, and each client would scale
 * differently. Scale by constants known in advance: `columns` has a place for them, `fitColumns` finds some in public data.
 */
import type { Column } from '../config/column-config.ts';
import { FederationError } from '../errors.ts';
import type { Examples } from '../types/matrix.ts';
import { exampleSize } from '../types/matrix.ts';
import { decimalNumber, isMissing, kindOfCell, RowProblems, shown } from './row-problems.ts';
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
  /** The columns that are features, in this order; others are not looked at. Default: all but the label column, as numbers. */
  readonly columns?: readonly Column[] | undefined;
  /** Shape of one example; its size is the number of features. Default: [number of features]. */
  readonly exampleShape?: readonly number[] | undefined;
}

export interface CsvData {
  readonly examples: Examples;
  /** length = examples.count; undefined without a label column. */
  readonly labels: Int32Array | undefined;
  /** What each feature is: the header of its column, with `=VALUE` for one of a category. */
  readonly featureNames: readonly string[];
}

/** One row, with the line of the file (from 1) on which it starts. */
interface CsvRow {
  readonly line: number;
  readonly fields: readonly string[];
}


/** Splits the text into rows of fields (RFC 4180, sec. 2). Lines with nothing on them are left out. */
export function parseCsvRows(text: string, fileName: string): CsvRow[] {
  const problems = new RowProblems(fileName);
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
        if (field.includes('"')) problems.add(`line ${line}`, 'quotes only around a whole field', kindOfCell(field));
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
  const problems = new RowProblems(fileName);
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
  const columns: readonly Column[] = options.columns ?? names.filter((_, i) => i !== labelAt).map((name) => ({ kind: 'number', name, mean: 0, scale: 1 }));
  for (const { name } of columns) {
    if (name === labelColumn) problems.add(`line ${header.line}`, 'features that are not the label', `\`columns\` with ${shown(name)}`);
    else if (!seen.has(name)) problems.add(`line ${header.line}`, `a column ${shown(name)}`, `columns ${shown(names.join(', '))}`);
  }
  const featureNames = columns.flatMap((column) => (column.kind === 'number' ? [column.name] : column.values.map((value) => `${column.name}=${value}`)));
  const featureCount = featureNames.length;
  const shape = options.exampleShape ?? [featureCount];
  if (featureCount === 0 || exampleSize(shape) !== featureCount) {
    const found = options.columns === undefined ? `${featureCount} (of ${names.length} ${names.length === 1 ? 'column' : 'columns'}${labelAt === -1 ? '' : ', one is the label'})` : `${featureCount} (of ${columns.length} \`columns\`; a category has one for each value)`;
    problems.add(`line ${header.line}`, options.exampleShape ? `${exampleSize(shape)} feature columns for shape [${shape.join(', ')}]` : 'at least 1 feature column', found);
  }
  problems.throwIfAny(); // What follows would only repeat it for every row.

  const [start, count] = selectRange(rows.length, options, fileName);
  // A short row promises values that are not there: nothing is allocated for a table of unproven size.
  const complete = rows.slice(start, start + count).every(({ fields }) => fields.length === names.length);
  const values = new Float32Array(complete ? count * featureCount : 0);
  const labels = readLabels ? new Int32Array(count) : undefined;
  const positions = new Map(names.map((name, i) => [name, i]));
  const places = columns.map((column) => ({ column, position: positions.get(column.name)!, valueAt: new Map(column.kind === 'category' ? column.values.map((value, i) => [value, i]) : []) }));
  for (let i = 0; i < count; i++) {
    const { line, fields } = rows[start + i]!;
    const row = `row ${start + i + 1} (line ${line})`;
    if (fields.length !== names.length) {
      problems.add(row, `${names.length} fields`, `${fields.length}`);
      continue;
    }
    if (labels !== undefined) {
      const cell = fields[labelAt]!.trim();
      const label = parseLabel(cell, numClasses, classNames);
      if (typeof label === 'number') labels[i] = label;
      else problems.add(`${row}, column ${quoted(labelColumn)}`, label.expected, kindOfCell(cell));
    }
    let at = i * featureCount;
    for (const { column, position, valueAt } of places) {
      const cell = fields[position]!.trim();
      if (column.kind === 'number') {
        const given = isMissing(cell) ? column.whenMissing : decimalNumber.test(cell) ? Number(cell) : undefined;
        const value = given === undefined ? NaN : Math.fround((given - column.mean) / column.scale);
        if (Number.isFinite(value)) values[at] = value;
        else problems.add(`${row}, column ${quoted(column.name)}`, 'a number (float32)', kindOfCell(cell));
        at++;
        continue;
      }
      // A name in the list is meant, even if it is one for "missing".
      const value = valueAt.get(cell);
      if (value !== undefined) values[at + value] = 1;
      else if ((isMissing(cell) ? column.whenMissing : column.whenUnknown) === 'refuse') problems.add(`${row}, column ${quoted(column.name)}`, `one of ${shown(column.values.join(', '))}`, kindOfCell(cell));
      at += column.values.length;
    }
  }
  problems.throwIfAny();
  return { examples: { count, shape: [...shape], values }, labels, featureNames };
}

const quoted = (name: string | undefined) => `\`${name ?? ''}\``;

/** The class of a label field, or what was expected instead. */
export function parseLabel(field: string, numClasses: number | undefined, classNames: readonly string[] | undefined): number | { expected: string } {
  if (classNames !== undefined) {
    const label = classNames.indexOf(field);
    return label === -1 ? { expected: `one of ${shown(classNames.join(', '))}` } : label;
  }
  const limit = numClasses ?? 0x7fff_ffff;
  // "3.0" is what spreadsheets and pandas write for an integer column with a gap.
  const label = /^\d{1,10}(\.0*)?$/.test(field) ? Number(field) : NaN;
  return label < limit ? label : { expected: `a class: an integer in [0, ${limit})` };
}
