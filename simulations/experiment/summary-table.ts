/** A sweep's summary for a terminal: a row for each setting, and below it what every epsilon means. */
import { displayWidth, meanWithDeviation, plural, truncate, visibleLine } from '../report/format.ts';
import { isSuccess, type PointResult } from './result.ts';
import type { SettingSummary } from './summary.ts';
import { statedEpsilon } from './stated-epsilon.ts';

/** Said once for every epsilon of a table. */
export const EPSILON_CAPTION = 'An epsilon is what the same releases guarantee over a lifetime with noise of the system\'s generator. The noise of a simulation is seeded and protects nobody.';

/** A column of settings that is wider is cut. */
const MAX_CELL_WIDTH = 40;

interface Column {
  readonly head: string;
  readonly cells: readonly string[];
  readonly isText: boolean;
}

/** Ends with a line feed. */
export function renderSummary(rows: readonly SettingSummary[]): string {
  const notes: string[] = [];
  const epsilons = rows.map(({ statement }) => {
    if (statement === undefined) return '–';
    const { cell, note } = statedEpsilon(statement);
    if (!notes.includes(note)) notes.push(note);
    return `${cell} [${letterOf(notes.indexOf(note))}]`;
  });
  const hasFailed = rows.some(({ failed }) => failed > 0);
  const columns: Column[] = [
    ...(rows.some((row) => row.case !== null) ? [{ head: 'case', cells: rows.map((row) => row.case ?? ''), isText: true }] : []),
    ...settingColumns(rows),
    { head: 'seeds', cells: rows.map(({ seeds }) => String(seeds)), isText: false },
    ...(hasFailed ? [{ head: 'failed', cells: rows.map(({ failed }) => String(failed)), isText: false }] : []),
    { head: 'final %', cells: rows.map(({ finalAccuracy }) => meanWithDeviation(finalAccuracy)), isText: false },
    { head: 'clients %', cells: rows.map(({ clientAccuracy }) => meanWithDeviation(clientAccuracy)), isText: false },
    { head: 'local only %', cells: rows.map(({ localOnlyAccuracy }) => meanWithDeviation(localOnlyAccuracy)), isText: false },
    { head: 'epsilon (bound)', cells: epsilons, isText: true },
  ];
  const widths = columns.map(({ head, cells }) => Math.max(...[head, ...cells].map(displayWidth)));
  const line = (texts: readonly string[]) => texts.map((text, i) => pad(text, widths[i]!, columns[i]!.isText)).join('  ').trimEnd();
  return [
    line(columns.map(({ head }) => head)),
    '─'.repeat(widths.reduce((sum, width) => sum + width + 2, -2)),
    ...rows.map((_, row) => line(columns.map(({ cells }) => cells[row]!))),
    '',
    'Mean ± sample standard deviation over seeds. final: the model of the coordinator (or the baseline) on the test set; clients: the mean over their students; local only: the same students without the others.',
    ...caseNotes(rows),
    ...(rows.some(({ statement }) => statement !== undefined && statement !== null && statement.claim !== 'none') ? [EPSILON_CAPTION] : []),
    ...notes.map((note, i) => `[${letterOf(i)}] ${note}`),
    '',
  ].join('\n');
}

/** What varies beside the case, by the shortest end of its path that is unlike the others'. */
function settingColumns(rows: readonly SettingSummary[]): Column[] {
  const paths = tellingPaths(rows);
  return paths.map((path) => ({
    head: shortName(path, paths),
    cells: rows.map(({ settings }) => cellOf(settings[path])),
    isText: rows.some(({ settings }) => typeof settings[path] === 'string'),
  }));
}

/** What each case sets, where tables show its label alone. */
function caseNotes(rows: readonly SettingSummary[]): string[] {
  const telling = new Set(tellingPaths(rows));
  const first = new Map<string, SettingSummary>();
  for (const row of rows) if (row.case !== null && !first.has(row.case)) first.set(row.case, row);
  const all = [...first.values()];
  const paths = Object.keys(all[0]?.settings ?? {}).filter((path) => !telling.has(path));
  return paths.length === 0 ? [] : all.map((row) => `${row.case!}: ${paths.map((path) => `${path} = ${cellOf(row.settings[path])}`).join(', ')}.`);
}

/** `temperature` for `task.distillation.temperature`, unless another path ends so too. */
export function shortName(path: string, paths: readonly string[]): string {
  const keys = path.split('.');
  // Not to be mistaken for what a statement guarantees.
  if (path === 'task.privacy.epsilon') return 'target epsilon';
  for (let count = 1; count < keys.length; count++) {
    const end = keys.slice(-count).join('.');
    if (/^\d/.test(end)) continue; // a position says nothing by itself
    if (paths.every((other) => other === path || !`.${other}`.endsWith(`.${end}`))) return end;
  }
  return path;
}

interface Row {
  readonly case: string | null;
  readonly settings: Readonly<Record<string, unknown>>;
}

/** Paths that tell rows apart: neither the same in all of them, nor known from the label of the case. */
export function tellingPaths(rows: readonly Row[]): string[] {
  const paths = [...new Set(rows.flatMap(({ settings }) => Object.keys(settings)))];
  return paths.filter((path) => {
    const values = new Map<string | null, Set<string>>();
    for (const row of rows) values.set(row.case, (values.get(row.case) ?? new Set()).add(JSON.stringify(row.settings[path] ?? null)));
    return [...values.values()].some((ofCase) => ofCase.size > 1);
  });
}

/** `local, temperature = 3, seed 1`: what tells this point from the others, given the paths that do. */
export function describePoint({ case: label, settings, seed }: Row & Pick<PointResult, 'seed'>, paths: readonly string[]): string {
  return [...(label === null ? [] : [label]), ...paths.map((path) => `${shortName(path, paths)} = ${cellOf(settings[path])}`), `seed ${seed}`].join(', ');
}

/** What the means of a table do not say: points without an outcome, those that ended before their time, and clients that failed. */
export function remarks(results: readonly PointResult[]): string[] {
  const paths = tellingPaths(results);
  return results.flatMap((result) => {
    const point = `point ${result.index} (${describePoint(result, paths)})`;
    if (!isSuccess(result)) return [`Failed: ${point}: ${visibleLine(result.error.message)} (${result.error.code})`];
    const { reason, clients } = result.outcome;
    const failed = clients.flatMap(({ name, error }) => (error === null ? [] : [`${name} (${error.code})`]));
    return [
      ...(reason === 'rounds-done' || reason === 'converged' ? [] : [`Ended early: ${point}: ${reason}; it counts in the means.`]),
      ...(failed.length === 0 ? [] : [`${plural(failed.length, 'client')} failed: ${point}: ${failed.slice(0, 5).join(', ')}${failed.length > 5 ? ', ...' : ''}`]),
    ];
  });
}

/** A setting's value in a table. */
export function cellOf(value: unknown): string {
  if (value === null || value === undefined) return '–';
  return truncate(visibleLine(typeof value === 'string' ? value : JSON.stringify(value)), MAX_CELL_WIDTH);
}

function letterOf(index: number): string {
  return index < 26 ? String.fromCharCode(97 + index) : String(index + 1);
}

function pad(text: string, width: number, isText: boolean): string {
  const space = ' '.repeat(Math.max(0, width - displayWidth(text)));
  return isText ? text + space : space + text;
}
