/** The result of a run as text for a terminal: one row a client, then mean and bounds, then what the noisy results teach. */
import {
  bytes,
  bytesMoved,
  clientLabels,
  comparisonWithWeights,
  displayWidth,
  epsilon,
  gains,
  integer,
  meanGain,
  percent,
  percentSign,
  plural,
  points,
  smallNumber,
  summarize,
  truncate,
  visibleLine,
} from './format.ts';
import type { ClientResult, RunReport } from './report-data.ts';

export interface TableOptions {
  /** Columns of the terminal; 100 unless told. */
  readonly columns?: number;
  /** ANSI colors; off unless told. */
  readonly color?: boolean;
}

/** More clients than this are counted, not listed. */
const MAX_LISTED_CLIENTS = 40;
const GAP = '  ';
/** The least is the width of `centralized`, the longest short label. */
const NAME_WIDTH = { most: 20, least: 11 } as const;
const MODEL_WIDTH = 14;

type Style = 'bold' | 'dim' | 'green' | 'red';
const ansi: Readonly<Record<Style, readonly [on: string, off: string]>> = {
  bold: ['\u001b[1m', '\u001b[22m'],
  dim: ['\u001b[2m', '\u001b[22m'],
  green: ['\u001b[32m', '\u001b[39m'],
  red: ['\u001b[31m', '\u001b[39m'],
};

interface Column {
  /** Also how a column that was dropped is named. */
  readonly name: string;
  readonly head: readonly [string, string];
  readonly isText?: boolean;
  /** The columns with the highest go first where the terminal is narrow; 0 stays. */
  readonly dispensable: number;
  readonly cell: (client: ClientResult, index: number) => string;
  readonly style?: (client: ClientResult) => Style | undefined;
  /** Cells of the rows below the clients; empty where there is nothing to say. */
  readonly mean?: string;
  readonly deviation?: string;
  readonly teacher?: string;
  readonly centralized?: string;
}

/** Accuracies in percent, gains in percentage points. Ends with a line feed. */
export function renderTable(report: RunReport, options: TableOptions = {}): string {
  const width = Math.max(40, Math.floor(options.columns ?? 100));
  const paint = (style: Style | undefined, text: string) => (options.color && style && text.trim() !== '' ? ansi[style][0] + text + ansi[style][1] : text);
  const listed = report.clients.slice(0, MAX_LISTED_CLIENTS);
  const { columns, widths, dropped } = fit(allColumns(report), listed, width);

  const render = (cells: readonly string[], styles: readonly (Style | undefined)[] = []) =>
    cells.map((cell, index) => paint(styles[index], pad(cell, widths[index]!, columns[index]!.isText === true))).join(GAP).trimEnd();
  // The label of a row below the clients may run over the text columns, which are empty there.
  const textColumns = columns.findIndex((column) => !column.isText && column.name !== 'records');
  const labelWidth = widths.slice(0, textColumns).reduce((sum, own) => sum + own, 0) + GAP.length * (textColumns - 1);
  const renderBelow = (long: string, short: string, pick: (column: Column) => string | undefined, style?: Style) => {
    const label = displayWidth(long) <= labelWidth ? long : short;
    const cells = columns.slice(textColumns).map((column, index) => pad(pick(column) ?? '', widths[textColumns + index]!, false));
    return paint(style, [pad(label, labelWidth, true), ...cells].join(GAP).trimEnd());
  };
  const rule = paint('dim', '─'.repeat(widths.reduce((sum, own) => sum + own, 0) + GAP.length * (widths.length - 1)));

  const heads = [0, 1].map((row) => render(columns.map((column) => column.head[row]!), columns.map(() => 'bold')));
  const rows = listed.map((client, index) => render(columns.map((column) => column.cell(client, index)), columns.map((column) => column.style?.(client))));
  if (report.clients.length > listed.length) rows.push(paint('dim', `… and ${plural(report.clients.length - listed.length, 'more client')}, counted in the mean`));

  const below: string[] = [];
  if (report.clients.length > 0) below.push(renderBelow(`mean of ${plural(report.clients.length, 'client')}`, 'mean', (column) => column.mean, 'bold'));
  if (report.clients.length > 1) below.push(renderBelow('± sd over clients', '± sd', (column) => column.deviation));
  if (columns.some((column) => (column.teacher ?? '') !== '')) below.push(renderBelow('teacher', 'teacher', (column) => column.teacher));
  below.push(renderBelow('centralized (bound)', 'centralized', (column) => column.centralized));

  const notes = [...sentences(report), ...(dropped.length > 0 ? [`Not shown in ${width} columns: ${dropped.join(', ')}.`] : [])];
  return [...heads, rule, ...rows, rule, ...below, '', ...notes.flatMap((note) => wrap(note, width)), ''].join('\n');
}

function allColumns(report: RunReport): Column[] {
  const { clients, noisy } = report;
  const localOnly = summarize(clients.map((client) => client.localOnly));
  const federated = summarize(clients.map((client) => client.federated));
  const gain = summarize(gains(clients));
  const moved = summarize(clients.map(bytesMoved));
  const weights = summarize(clients.map((client) => client.weightSharingBytes));
  const mechanisms = new Set(noisy.map((result) => result.mechanism));
  const labels = clientLabels(clients);
  return [
    { name: 'client', head: ['client', ''], isText: true, dispensable: 0, cell: (_, index) => labels[index]! },
    { name: 'model', head: ['model', ''], isText: true, dispensable: 80, cell: (client) => truncate(visibleLine(client.model), MODEL_WIDTH) },
    { name: 'records', head: ['records', ''], dispensable: 90, cell: (client) => integer(client.privateRecords) },
    { name: 'local only', head: ['local', 'only %'], dispensable: 0, cell: (client) => percent(client.localOnly), mean: percent(localOnly.mean), deviation: deviation(localOnly.stddev) },
    {
      name: 'federated',
      head: ['federated', '%'],
      dispensable: 0,
      cell: (client) => percent(client.federated),
      mean: percent(federated.mean),
      deviation: deviation(federated.stddev),
      teacher: report.teacher.final === null ? '' : percent(report.teacher.final),
      centralized: percent(report.centralized.accuracy),
    },
    {
      name: 'gain',
      head: ['gain', 'points'],
      dispensable: 0,
      cell: (client) => points(client.federated - client.localOnly),
      style: (client) => (points(client.federated - client.localOnly).startsWith('+') ? 'green' : points(client.federated - client.localOnly).startsWith('−') ? 'red' : undefined),
      mean: points(gain.mean),
      deviation: deviation(gain.stddev),
    },
    ...noisy.map((result, order): Column => {
      const summary = summarize(result.federated);
      return {
        name: `ε = ${epsilon(result.epsilon)}${mechanisms.size > 1 ? ` (${visibleLine(result.mechanism)})` : ''}`,
        head: [`ε = ${epsilon(result.epsilon)}`, mechanisms.size > 1 ? truncate(visibleLine(result.mechanism), 9) : '%'],
        // The last noisy results go first.
        dispensable: 10 + order,
        cell: (_, index) => (result.federated[index] === undefined ? '–' : percent(result.federated[index])),
        mean: percent(summary.mean),
        deviation: deviation(summary.stddev),
        teacher: result.teacher === null ? '' : percent(result.teacher),
      };
    }),
    { name: 'bytes moved', head: ['bytes', 'moved'], dispensable: 60, cell: (client) => bytes(bytesMoved(client)), mean: bytes(moved.mean ?? NaN) },
    { name: 'what weight sharing would move', head: ['weight', 'sharing'], dispensable: 70, cell: (client) => bytes(client.weightSharingBytes), mean: bytes(weights.mean ?? NaN) },
  ];
}

/** Shortens names, then drops the least important columns, until the rest fits. */
function fit(all: readonly Column[], clients: readonly ClientResult[], width: number): { columns: Column[]; widths: number[]; dropped: string[] } {
  let columns = [...all];
  const dropped: string[] = [];
  for (;;) {
    const widths = columns.map((column) =>
      Math.max(...column.head.map(displayWidth), ...clients.map((client, index) => displayWidth(column.cell(client, index))), ...[column.mean, column.deviation, column.teacher, column.centralized].map((text) => displayWidth(text ?? ''))),
    );
    widths[0] = Math.min(Math.max(widths[0]!, NAME_WIDTH.least), NAME_WIDTH.most);
    const excess = widths.reduce((sum, own) => sum + own, 0) + GAP.length * (widths.length - 1) - width;
    const leastName = Math.min(widths[0], NAME_WIDTH.least);
    const next = columns.reduce((worst, column) => (column.dispensable > worst.dispensable ? column : worst), columns[0]!);
    if (excess <= widths[0] - leastName || next.dispensable === 0) {
      widths[0] = Math.max(leastName, widths[0] - Math.max(0, excess));
      const nameWidth = widths[0];
      const cut = columns.map((column) => (column.name === 'client' ? { ...column, cell: (client: ClientResult, index: number) => truncate(column.cell(client, index), nameWidth) } : column));
      return { columns: cut, widths, dropped };
    }
    columns = columns.filter((column) => column !== next);
    dropped.push(next.name);
  }
}

function sentences(report: RunReport): string[] {
  const moved = summarize(report.clients.map(bytesMoved)).mean;
  const weights = summarize(report.clients.map((client) => client.weightSharingBytes)).mean;
  const notes: string[] = [];
  const comparison = comparisonWithWeights(moved, weights);
  if (comparison !== null) notes.push(`A client moved ${bytes(moved!)} on average, ${comparison} (${bytes(weights!)}).`);
  for (const result of report.noisy) {
    const federated = summarize(result.federated).mean;
    const difference = meanGain(result);
    const effect = difference === null ? '' : `: mean ${percentSign(federated)}, ${points(difference)} points against local only`;
    notes.push(`ε = ${epsilon(result.epsilon)} (${visibleLine(result.mechanism)}, δ = ${smallNumber(result.delta)})${effect}. ${visibleLine(result.lesson)}`.trim());
  }
  return notes;
}

function deviation(stddev: number | null): string {
  return stddev === null ? '' : `± ${percent(stddev)}`;
}

function pad(text: string, width: number, isText: boolean): string {
  const space = ' '.repeat(Math.max(0, width - displayWidth(text)));
  return isText ? text + space : space + text;
}

/** Breaks at spaces; continuation lines are indented by two. A longer word stays whole. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let current = '';
  for (const word of text.split(' ')) {
    if (current.trim() !== '' && displayWidth(`${current} ${word}`) > width) {
      lines.push(current);
      current = `  ${word}`;
    } else {
      current = current === '' ? word : `${current} ${word}`;
    }
  }
  return [...lines, current];
}
