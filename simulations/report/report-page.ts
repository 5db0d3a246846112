/**
 * A run as one HTML file: no script, nothing loaded from anywhere, readable offline, on a phone and on paper. Its content
 * security policy allows the one style sheet that it carries, by its hash, and nothing else.
 */
import { renderFigures, type Figure, type FigureData } from './figures.ts';
import {
  bytes,
  bytesMoved,
  clientLabels,
  comparedWithWeights,
  comparisonWithWeights,
  duration,
  epsilon,
  escapeMarkup,
  gains,
  gapClosed,
  integer,
  meanGain,
  meanWithDeviation,
  percent,
  percentSign,
  plural,
  points,
  samplingHalfWidth,
  smallNumber,
  summarize,
  visibleLine,
  visibleText,
} from './format.ts';
import { htmlPage } from './html-page.ts';
import { pageStyle } from './page-style.ts';
import type { NoisyResult, RunReport } from './report-data.ts';

const h = escapeMarkup;

/** The whole page. The same report gives the same text. */
export function renderReport(report: RunReport): string {
  const figures = new Map(renderFigures(report).map((figure) => [figure.id, figure]));
  const figure = (id: string) => {
    const found = figures.get(id);
    return found ? figureMarkup(found) : '';
  };
  const title = visibleLine(report.title) || 'Federated distillation';
  const main = [
    header(report, title),
    section('result', 'Result', resultTable(report), figure('gain-by-client')),
    section('rounds', 'How it got there', figure('accuracy-by-round')),
    section('data', 'What each client holds', figure('class-histogram')),
    section('privacy', 'What it cost in privacy', privacy(report)),
    section('noise', 'What noise does with few clients', noise(report), report.noisy.length > 0 ? figure('accuracy-by-epsilon') : ''),
    section('bytes', 'What it cost in bytes', bytesWords(report), figure('bytes')),
    section('reproduce', 'Settings and how to repeat it', settings(report)),
  ];
  return htmlPage({ title: `${title}: federated distillation report`, style: pageStyle, sources: '' }, main);
}

export function section(id: string, title: string, ...parts: readonly string[]): string {
  const content = parts.filter(Boolean);
  return content.length === 0 ? '' : [`<section aria-labelledby="${id}">`, `<h2 id="${id}">${h(title)}</h2>`, ...content, '</section>'].join('\n');
}

// --- headline ---------------------------------------------------------------------------------------------------------

function header(report: RunReport, title: string): string {
  const { clients, teacher, centralized, task } = report;
  const differences = gains(clients);
  const gain = summarize(differences);
  const gained = differences.filter((difference) => difference > 0).length;
  const moved = summarize(clients.map(bytesMoved)).mean;
  const weights = summarize(clients.map((client) => client.weightSharingBytes)).mean;
  const closed = gapClosed(report);
  const finite = differences.filter(Number.isFinite);
  const facts: [term: string, value: string, more: string][] = [];
  if (gain.mean !== null) {
    facts.push(['Mean gain', `${points(gain.mean)} points`, gain.stddev === null ? 'one client: no deviation' : `± ${percent(gain.stddev)} sd over clients`]);
    facts.push(['Clients that gained', `${gained} of ${finite.length}`, finite.length === 1 ? 'the only one' : `from ${points(Math.min(...finite))} to ${points(Math.max(...finite))} points`]);
  }
  if (moved !== null && moved > 0) facts.push(['Bytes moved a client', bytes(moved), weights !== null && weights > 0 ? `${comparedWithWeights(moved, weights)} ${comparedWithWeights(moved, weights) === 'as much' ? 'as' : 'than'} weight sharing` : 'up and down together']);

  const context = [
    teacher.final === null ? '' : `The coordinator's teacher (${h(visibleLine(teacher.model))}) ended at ${percentSign(teacher.final)}.`,
    !Number.isFinite(centralized.accuracy) ? '' : `One model (${h(visibleLine(centralized.model))}) on all private records together, which no federation may train, reaches ${percentSign(centralized.accuracy)}.`,
    closed === null ? '' : closed >= 1 ? 'The federation reached that bound.' : `The federation closed ${percentSign(closed, 0)} of the gap to it.`,
  ].filter(Boolean);
  const day = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}/.test(report.createdAt) ? `${report.createdAt.slice(0, 10)} ${report.createdAt.slice(11, 16)}${report.createdAt.endsWith('Z') ? ' UTC' : ''}` : report.createdAt;
  return [
    '<header>',
    `<h1>${h(title)}</h1>`,
    `<p class="headline">${h(headline(report))}</p>`,
    `<p class="lead">${context.join(' ')}</p>`,
    `<p class="meta">${h(visibleLine(task.dataset))}, ${h(visibleLine(task.split))}; ${plural(clients.length, 'client')}, ${plural(task.rounds, 'round')}, ${plural(task.testExamples, 'test example')}; one run with seed ${h(String(task.seed))}; <time datetime="${h(report.createdAt)}">${h(day)}</time></p>`,
    facts.length > 0 ? `<dl class="facts">${facts.map(([term, value, more]) => `<div><dt>${h(term)}</dt><dd>${h(value)} <small>${h(more)}</small></dd></div>`).join('')}</dl>` : '',
    '</header>',
  ].filter(Boolean).join('\n');
}

/** One sentence with the margin; exported for the terminal's last line. */
export function headline(report: RunReport): string {
  const clients = report.clients.filter((client) => Number.isFinite(client.federated - client.localOnly));
  const localOnly = summarize(clients.map((client) => client.localOnly)).mean;
  const federated = summarize(clients.map((client) => client.federated)).mean;
  const gain = summarize(gains(clients));
  if (gain.mean === null || localOnly === null || federated === null) return 'This run has no client with an accuracy both alone and in the federation.';
  const who = clients.length === 1 ? 'The one client' : `${clients.length} clients`;
  const spread = gain.stddev === null ? '' : ` ± ${percent(gain.stddev)}`;
  const size = percent(Math.abs(gain.mean));
  const levels = `from ${percentSign(localOnly)} alone to ${percentSign(federated)} together`;
  const mean = clients.length === 1 ? '' : ' on average';
  if (Number(size) === 0) return `${who} ended where they began: federation changed accuracy by ${size}${spread} percentage points${mean}, ${levels}.`.replace('The one client ended where they began', 'The one client ended where it began');
  const noise = samplingHalfWidth(federated, report.task.testExamples);
  const caution = noise !== null && Math.abs(gain.mean) < noise ? ' That is less than the sampling error of one accuracy on this test set.' : '';
  return `${who} ${gain.mean > 0 ? 'gained' : 'lost'} ${size}${spread} percentage points${mean} by federating: ${levels}.${caution}`;
}

// --- tables -----------------------------------------------------------------------------------------------------------

export interface Head {
  readonly name: string;
  readonly unit?: string;
  readonly isText?: boolean;
}

/** A cell is text, or markup that is already escaped. */
export type Cell = string | { readonly markup: string };

export function table(caption: string, label: string, heads: readonly Head[], rows: readonly (readonly Cell[])[], foot: readonly (readonly Cell[])[] = [], isSticky = true): string {
  const isLong = (cell: Cell) => (typeof cell === 'string' ? cell.length > 24 : cell.markup.length > 60);
  const content = (cell: Cell) => (typeof cell === 'string' ? h(cell) : cell.markup);
  const row = (cells: readonly Cell[]) => `<tr>${cells.map((cell, index) => (index === 0 ? `<th scope="row"${isLong(cell) ? ' class="l"' : ''}>${content(cell)}</th>` : `<td${heads[index]?.isText ? ` class="t${isLong(cell) ? ' l' : ''}"` : ''}>${content(cell)}</td>`)).join('')}</tr>`;
  return [
    `<div class="wide${isSticky ? ' sticky' : ''}" role="region" aria-label="${h(label)}" tabindex="0">`,
    '<table>',
    `<caption>${h(caption)}</caption>`,
    `<thead><tr>${heads.map(({ name, unit, isText }) => `<th scope="col"${isText ? ' class="t"' : ''}>${h(name).replaceAll(' = ', '&nbsp;=&nbsp;')}${unit ? ` <small>${h(unit)}</small>` : ''}</th>`).join('')}</tr></thead>`,
    `<tbody>${rows.map(row).join('\n')}</tbody>`,
    foot.length > 0 ? `<tfoot>${foot.map(row).join('\n')}</tfoot>` : '',
    '</table>',
    '</div>',
  ].filter(Boolean).join('\n');
}

/** A row header with a quieter second line. */
export function named(name: string, more: string): Cell {
  return { markup: `${h(name)} <small>${h(more)}</small>` };
}

function signed(difference: number | null): Cell {
  const text = points(difference);
  if (text.startsWith('+')) return { markup: `<span class="up">${text}</span>` };
  return text.startsWith('−') ? { markup: `<span class="down">${text}</span>` } : text;
}

function resultTable(report: RunReport): string {
  const { clients, noisy, teacher, centralized } = report;
  if (clients.length === 0) return '<p>No client finished this run.</p>';
  const labels = clientLabels(clients);
  const mechanisms = new Set(noisy.map((result) => result.mechanism));
  const heads: Head[] = [
    { name: 'Client', unit: 'model, private records', isText: true },
    { name: 'Local only', unit: '%' },
    { name: 'Federated', unit: '%' },
    { name: 'Gain', unit: 'points' },
    ...noisy.map((result) => ({ name: `ε = ${epsilon(result.epsilon)}`, unit: mechanisms.size > 1 ? `${visibleLine(result.mechanism)}, %` : '%' })),
    { name: 'Moved' },
    { name: 'Weight sharing' },
  ];
  const rows = clients.map((client, index): Cell[] => [
    named(labels[index]!, `${visibleLine(client.model)}, ${plural(client.privateRecords, 'record')}`),
    percent(client.localOnly),
    percent(client.federated),
    signed(client.federated - client.localOnly),
    ...noisy.map((result) => (result.federated[index] === undefined ? '–' : percent(result.federated[index]))),
    bytes(bytesMoved(client)),
    bytes(client.weightSharingBytes),
  ]);
  const localOnly = summarize(clients.map((client) => client.localOnly));
  const federated = summarize(clients.map((client) => client.federated));
  const gain = summarize(gains(clients));
  const noisySummaries = noisy.map((result) => summarize(result.federated));
  const below = (label: Cell, ...cells: readonly Cell[]) => [label, ...cells, ...Array.from({ length: heads.length - 1 - cells.length }, () => '')];
  const foot: Cell[][] = [
    below(`Mean of ${plural(clients.length, 'client')}`, percent(localOnly.mean), percent(federated.mean), signed(gain.mean), ...noisySummaries.map(({ mean }) => percent(mean)), bytes(summarize(clients.map(bytesMoved)).mean ?? NaN), bytes(summarize(clients.map((client) => client.weightSharingBytes)).mean ?? NaN)),
  ];
  const deviation = (stddev: number | null) => (stddev === null ? '' : `± ${percent(stddev)}`);
  if (clients.length > 1) foot.push(below('Standard deviation', deviation(localOnly.stddev), deviation(federated.stddev), deviation(gain.stddev), ...noisySummaries.map(({ stddev }) => deviation(stddev))));
  if (teacher.final !== null || noisy.some((result) => result.teacher !== null)) foot.push(below(named('Teacher', visibleLine(teacher.model)), '', teacher.final === null ? '' : percent(teacher.final), '', ...noisy.map((result) => (result.teacher === null ? '' : percent(result.teacher)))));
  foot.push(below(named('Centralized, a bound', visibleLine(centralized.model)), '', percent(centralized.accuracy)));
  const caption = `Test accuracy of each client's student in percent: trained on its own records alone, and with the federation.${noisy.length > 0 ? ' The ε columns are the federated accuracy with noise; what each ε means, for whom and against whom, is in the privacy statement of its run (below).' : ''} Standard deviations are over clients.`;
  return table(caption, 'Result by client', heads, rows, foot);
}

export function figureMarkup({ id, title, caption, svg, data }: Figure): string {
  return [
    `<figure id="figure-${id}">`,
    `<h3>${h(title)}</h3>`,
    svg.wide.replace('class="fs"', 'class="fs wide-layout"'),
    svg.narrow.replace('class="fs"', 'class="fs narrow"'),
    `<figcaption>${h(caption)}</figcaption>`,
    `<details><summary>Data behind this figure</summary>${dataTable(title, data)}</details>`,
    '</figure>',
  ].join('\n');
}

function dataTable(title: string, { columns, rows }: FigureData): string {
  return table(`${title}: accuracies are shares between 0 and 1, sizes are bytes.`, `Data of: ${title}`, columns.map((name) => ({ name, isText: name === 'model' })), rows);
}

// --- words ------------------------------------------------------------------------------------------------------------

function privacy(report: RunReport): string {
  const { task } = report;
  const claimsNone = /NO DIFFERENTIAL PRIVACY/.test(report.statement);
  return [
    `<p>Records, labels, gradients and weights stayed with their clients. What left a client was its student's predictions on the ${plural(task.transferExamples, 'public transfer example')}, over ${plural(task.rounds, 'round')}.</p>`,
    claimsNone
      ? `<p class="warn"><strong>Predictions can still tell about records.</strong> The federation of the first table sent them without a differential privacy guarantee: nothing bounds what their receiver may infer about a record, whatever was encrypted on the way. ${report.noisy.length > 0 ? 'The next section shows what such a bound costs.' : ''}</p>`
      : '<p>Predictions can still tell about records. What bounds that, for whom and against whom, is in the statement: an ε without its unit, adjacency, adversary, δ, accountant and number of releases means nothing.</p>',
    '<h3>The privacy statement, word for word</h3>',
    report.statement.trim() === '' ? '<p>This run has no statement, so nothing may be claimed for it.</p>' : `<pre>${h(report.statement)}</pre>`,
  ].join('\n');
}

function noise(report: RunReport): string {
  const { noisy, clients } = report;
  if (noisy.length === 0) return '';
  const rows = noisy.map((result): Cell[] => [
    `ε = ${epsilon(result.epsilon)}`,
    visibleLine(result.mechanism),
    smallNumber(result.delta),
    smallNumber(result.meanNoiseStddev),
    meanWithDeviation(summarize(result.federated)),
    meanWithDeviation(summarize(result.localOnly)),
    signed(meanGain(result)),
    result.teacher === null ? '–' : percent(result.teacher),
  ]);
  const loudest = noisy.reduce((most, result) => (result.meanNoiseStddev > most.meanNoiseStddev ? result : most));
  const needed = loudest.meanNoiseStddev > TOLERABLE_NOISE ? Math.ceil(clients.length * (loudest.meanNoiseStddev / TOLERABLE_NOISE) ** 2) : null;
  return [
    `<p>A prediction is a probability, so it lies between 0 and 1. With local noise (gaussian) every client hides its own predictions, and the mean over ${plural(clients.length, 'client')} still carries noise of the size in the column ‘noise on the mean’. Noise on a mean falls only with the square root of the number of clients.${
      needed !== null && Number.isFinite(needed) && clients.length > 0 ? ` To bring the ${smallNumber(loudest.meanNoiseStddev)} at ε = ${epsilon(loudest.epsilon)} down to ${TOLERABLE_NOISE} at the same ε, about ${integer(Number(needed.toPrecision(2)))} clients would have to take part.` : ''
    }</p>`,
    table(
      `The same federation with noise; mean ± standard deviation over ${plural(clients.length, 'client')}, in percent.`,
      'Results with noise',
      [
        { name: 'Promise', isText: true },
        { name: 'Mechanism', isText: true },
        { name: 'δ' },
        { name: 'Noise on the mean', unit: 'sd, probability' },
        { name: 'Federated', unit: '%' },
        { name: 'Local only', unit: '%' },
        { name: 'Difference', unit: 'points' },
        { name: 'Teacher', unit: '%' },
      ],
      rows,
    ),
    '<h3>In plain words</h3>',
    `<ul>${noisy.map((result) => `<li><strong>ε = ${h(epsilon(result.epsilon))}</strong> (${h(visibleLine(result.mechanism))}): ${effect(result)} ${h(visibleLine(result.lesson))}</li>`).join('\n')}</ul>`,
    ...noisy.map((result) => `<details><summary>Privacy statement of the run with ε = ${h(epsilon(result.epsilon))}</summary><pre>${h(visibleText(result.guarantee))}</pre></details>`),
  ].join('\n');
}
/** Noise on a probability that leaves the most likely class visible. */
const TOLERABLE_NOISE = 0.1;

function effect(result: NoisyResult): string {
  const difference = meanGain(result);
  if (difference === null) return '';
  const size = percent(Math.abs(difference));
  if (Number(size) === 0) return 'taking part changed nothing on average.';
  return difference > 0 ? `taking part still gains ${size} points on average.` : `taking part costs ${size} points on average: better to stay alone.`;
}

function bytesWords(report: RunReport): string {
  const moved = summarize(report.clients.map(bytesMoved)).mean;
  const weights = summarize(report.clients.map((client) => client.weightSharingBytes)).mean;
  const comparison = comparisonWithWeights(moved, weights);
  if (comparison === null) return '';
  return `<p>A client moved ${bytes(moved!)} on average, ${comparison} (${bytes(weights!)}). What distillation moves grows with transfer examples and classes, not with the size of a model, so larger students cost nothing more.</p>`;
}

function settings(report: RunReport): string {
  const { task, machine, timings } = report;
  const entries: [string, string][] = [
    ['Task', task.name],
    ['Data', `${task.dataset}; ${task.split}`],
    ['Classes', integer(task.numClasses)],
    ['Rounds', integer(task.rounds)],
    ['Transfer examples', integer(task.transferExamples)],
    ['Test examples', integer(task.testExamples)],
    ['Seed', String(task.seed)],
    ['Students', report.clients.length === 0 ? 'none' : [...new Map(report.clients.map((client) => [client.model, `${client.model} (${plural(client.parameterCount, 'parameter')})`])).values()].join(', ')],
    ['Machine', `${machine.cpu}, ${plural(machine.cores, 'core')}, ${machine.platform}`],
    ['Software', `Node ${machine.node.replace(/^v/, '')}, compute engine ${machine.engine}`],
    ...(timings.length > 0 ? [['Time', `${timings.map(({ part, seconds }) => `${part} ${duration(seconds)}`).join(', ')}; ${duration(timings.reduce((sum, { seconds }) => sum + seconds, 0))} together`] as [string, string]] : []),
  ];
  return [
    `<dl class="settings">${entries.map(([term, value]) => `<dt>${h(term)}</dt><dd>${h(visibleLine(value))}</dd>`).join('\n')}</dl>`,
    '<h3>To repeat this run</h3>',
    `<pre>${h(visibleText(report.command))}</pre>`,
    '<h3>To go on from here</h3>',
    `<pre>${h(visibleText(report.next))}</pre>`,
    '<p class="note">Training and splits follow the seed. Noise and keys do not, and must not: noisy results differ from run to run.</p>',
  ].join('\n');
}
