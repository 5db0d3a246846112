/**
 * Labelled texts from a file: CSV or TSV with a header, or JSON lines (one object a line). Texts are not looked into here (`text-features.ts` does), and never shown in errors:
 * line and column say where to look.
 */
import { FederationError } from '../errors.ts';
import { parseCsvRows, parseLabel } from './csv.ts';
import { kindOfCell, RowProblems, shown } from './row-problems.ts';
import { selectRange, type Selection } from './selection.ts';

export interface TextTableOptions extends Selection {
  /** Names the file in errors. */
  readonly fileName: string;
  /** `csv`: RFC 4180. `tsv`: tabs between cells and line ends between rows, no quotes. `jsonl`: objects. */
  readonly format: 'csv' | 'tsv' | 'jsonl';
  /** Header, or key of the objects. */
  readonly textColumn: string;
  /** Header or key of the labels; read when `numClasses` is given. */
  readonly labelColumn: string;
  /** Labels must be in [0, numClasses); without it they are not read. */
  readonly numClasses?: number | undefined;
  /** Names of the classes 0, 1, ...; without it labels are integers. */
  readonly classNames?: readonly string[] | undefined;
}

export interface TextTable {
  readonly texts: readonly string[];
  /** length = texts.length; `undefined` when labels are not read. */
  readonly labels: Int32Array | undefined;
}

/** A row's cells by name, and the line of the file (from 1) on which it starts. */
interface TextRow {
  readonly line: number;
  readonly text: string;
  /** `undefined` when it is not read. */
  readonly label: string | undefined;
}

/** The chosen rows. Throws `data-invalid` that lists the first ten problems with row and line. */
export function parseTextTable(content: string, options: TextTableOptions): TextTable {
  const { fileName, numClasses, classNames, labelColumn } = options;
  const problems = new RowProblems(fileName);
  const rows = options.format === 'jsonl' ? jsonRows(content, options, problems) : tableRows(content, options, problems);
  problems.throwIfAny();
  const [start, count] = selectRange(rows.length, options, fileName);
  const chosen = rows.slice(start, start + count);
  let labels: Int32Array | undefined;
  if (numClasses !== undefined) {
    labels = new Int32Array(count);
    for (const [i, { line, label: cell = '' }] of chosen.entries()) {
      const label = parseLabel(cell.trim(), numClasses, classNames);
      if (typeof label === 'number') labels[i] = label;
      else problems.add(`row ${start + i + 1} (line ${line}), column \`${labelColumn}\``, label.expected, kindOfCell(cell.trim()));
    }
    problems.throwIfAny();
  }
  return { texts: chosen.map(({ text }) => text), labels };
}

function tableRows(content: string, { fileName, format, textColumn, labelColumn, numClasses }: TextTableOptions, problems: RowProblems): TextRow[] {
  const [header, ...rows] = format === 'csv' ? parseCsvRows(content, fileName) : tsvRows(content);
  if (header === undefined) {
    throw new FederationError('data-invalid', `${fileName}: expected a header row, got an empty file`, { field: `${fileName}: header`, expected: 'a header row', got: 'an empty file', next: `Name the columns on the first line, e.g. ${labelColumn} and ${textColumn}.` });
  }
  const names = header.fields.map((field) => field.trim());
  const find = (name: string) => {
    const position = names.indexOf(name);
    // What is taken for a header may be somebody's message.
    if (position === -1) problems.add(`line ${header.line}`, `a column ${shown(name)}`, names.every((one) => one.length <= 40) ? `columns ${shown(names.join(', '))}` : `${names.length} columns with long names: is the header missing?`);
    else if (names.includes(name, position + 1)) problems.add(`line ${header.line}`, `one column ${shown(name)}`, 'several');
    return position;
  };
  const textAt = find(textColumn);
  const labelAt = numClasses === undefined ? -1 : find(labelColumn);
  problems.throwIfAny();
  return rows.map(({ line, fields }, i) => {
    if (fields.length !== names.length) problems.add(`row ${i + 1} (line ${line})`, `${names.length} fields`, `${fields.length}`);
    return { line, text: fields[textAt] ?? '', label: fields[labelAt] };
  });
}

function tsvRows(content: string): { readonly line: number; readonly fields: readonly string[] }[] {
  const lines = content.replace(/^\uFEFF/, '').split(/\r?\n/);
  return lines.flatMap((line, i) => (line.trim() === '' ? [] : [{ line: i + 1, fields: line.split('\t') }]));
}

function jsonRows(content: string, { textColumn, labelColumn, numClasses }: TextTableOptions, problems: RowProblems): TextRow[] {
  const rows: TextRow[] = [];
  for (const [i, line] of content.replace(/^\uFEFF/, '').split('\n').entries()) {
    if (line.trim() === '') continue;
    const place = `row ${rows.length + 1} (line ${i + 1})`;
    const object = jsonObject(line);
    const text = object?.[textColumn];
    const label = object?.[labelColumn];
    if (object === undefined) problems.add(place, 'a JSON object', 'something else');
    else if (typeof text !== 'string') problems.add(`${place}, key \`${textColumn}\``, 'text', kindOf(text));
    else if (numClasses !== undefined && typeof label !== 'string' && typeof label !== 'number') problems.add(`${place}, key \`${labelColumn}\``, 'a number or text', kindOf(label));
    rows.push({ line: i + 1, text: typeof text === 'string' ? text : '', label: numClasses !== undefined && (typeof label === 'string' || typeof label === 'number') ? String(label) : undefined });
  }
  return rows;
}

function jsonObject(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function kindOf(value: unknown): string {
  return value === undefined ? 'nothing' : value === null ? 'null' : Array.isArray(value) ? 'a list' : `a value of type ${typeof value}`;
}
