/** Experiments as one HTML file: no script, nothing loaded from anywhere, readable offline, on a phone and on paper. */
import { renderStatement } from '../../shared/privacy/statement.ts';
import {
  boundText,
  bytesPerClient,
  calibrationError,
  clientAccuracy,
  countsOf,
  countsSentence,
  finalAccuracy,
  headlineAccuracy,
  localOnlyAccuracy,
  missingSeeds,
  negativeLogLikelihood,
  overSeeds,
  qualifierParts,
  settingsOf,
  valueText,
  whyNoGuarantee,
  type Experiment,
  type Setting,
} from './experiment-data.ts';
import type { ExperimentFigure } from './experiment-figures.ts';
import { bytes, escapeMarkup, meanWithDeviation, percentSign, plural, visibleLine, visibleText, type Summary } from './format.ts';
import { htmlPage } from './html-page.ts';
import { pageStyle } from './page-style.ts';
import { named, section, table, type Cell, type Head } from './report-page.ts';
import type { Layout } from './svg.ts';
import { vegaStyle } from './vega-image.ts';

const h = escapeMarkup;

const style = `${pageStyle}
${vegaStyle()}
figcaption p{max-width:none;margin:0 0 .4rem}
@media print{.vl{break-inside:avoid}.facts{grid-template-columns:repeat(2,1fr)}}`;

/** A figure and its drawings for a page. */
export interface DrawnFigure extends ExperimentFigure {
  readonly svg: Readonly<Record<Layout, string>>;
}

/** More rows than this are in the figure's CSV file alone. */
const MAX_DATA_ROWS = 120;

/** The whole page. The same experiments and drawings give the same text. */
export function renderExperimentPage(experiments: readonly Experiment[], figures: readonly DrawnFigure[]): string {
  const settings = settingsOf(experiments);
  const figure = (...ids: readonly string[]) => figures.filter(({ id }) => ids.includes(id)).map(figureMarkup).join('\n');
  const title = experiments.map(({ name }) => visibleLine(name)).join(', ');
  const main = [
    header(experiments, settings, title),
    warnings(experiments, settings),
    section('privacy', 'Privacy against accuracy', figure('frontier', 'frontier-clients')),
    section('results', 'All settings', figure('settings'), resultTable(settings)),
    section('rounds', 'How it got there', figure('rounds', 'rounds-clients')),
    section('clients', 'From client to client', figure('clients')),
    section('bytes', 'What it cost in bytes', figure('bytes')),
    section('calibration', 'Calibration', figure('reliability')),
    section('failures', 'What failed', failures(settings)),
    section('statements', 'Privacy statements', statements(settings)),
    section('reproduce', 'Settings and how to repeat it', ...experiments.map((experiment) => repeat(experiment, experiments.length > 1))),
  ];
  return htmlPage({ title: `${title}: experiment report`, style, sources: '' }, main);
}

function header(experiments: readonly Experiment[], settings: readonly Setting[], title: string): string {
  const points = settings.reduce((sum, setting) => sum + setting.points.length + setting.failures.length, 0);
  const failed = settings.reduce((sum, setting) => sum + setting.failures.length, 0);
  const { seeds } = countsOf(settings);
  const facts: [term: string, value: string, more: string][] = [];
  for (const [term, among] of [
    ['Best with a guarantee', settings.filter(({ guarantee }) => guarantee !== null)],
    [settings.some(({ guarantee }) => guarantee !== null) ? 'Best without one' : 'Best, without a guarantee', settings.filter(({ guarantee }) => guarantee === null)],
  ] as const) {
    const best = bestOf(among);
    if (best === undefined) continue;
    const { setting, summary } = best;
    facts.push([term, `${meanWithDeviation(summary)}%`, `${setting.label}; n = ${summary.count}${setting.guarantee === null ? '' : `; ${boundText(setting.guarantee)}: ${qualifierParts(setting.guarantee).join('; ')}`}`]);
  }
  return [
    '<header>',
    `<h1>${h(title)}</h1>`,
    `<p class="headline">${h(`${plural(settings.length, 'setting')}, ${plural(points, 'point')}${failed === 0 ? '' : `, ${failed} of them failed`}.`)}</p>`,
    `<p class="meta">${h(`${experiments.length > 1 ? `${plural(experiments.length, 'experiment')}; ` : ''}${countsSentence(settings)} Numbers are means over seeds ± sample standard deviation (n − 1).`)}</p>`,
    facts.length > 0 ? `<dl class="facts">${facts.map(([term, value, more]) => `<div><dt>${h(term)}</dt><dd>${h(value)} <small>${h(more)}</small></dd></div>`).join('')}</dl>` : '',
    seeds.startsWith('seeds') ? '' : '<p class="note">One seed: there is no deviation to show, and differences may be chance.</p>',
    '</header>',
  ].filter(Boolean).join('\n');
}

/** The highest mean accuracy. */
export function bestOf(settings: readonly Setting[]): { readonly setting: Setting; readonly summary: Summary } | undefined {
  const measured = settings.map((setting) => ({ setting, summary: overSeeds(setting, headlineAccuracy) })).filter(({ summary }) => summary.mean !== null);
  return measured.length === 0 ? undefined : measured.reduce((best, next) => (next.summary.mean! > best.summary.mean! ? next : best));
}

/** What is not there, said before anything is concluded from the rest. */
function warnings(experiments: readonly Experiment[], settings: readonly Setting[]): string {
  const missing = missingSeeds(settings);
  const running = experiments.filter(({ isRunning }) => isRunning);
  const lines = [
    ...running.map(({ name }) => `${visibleLine(name)} has not ended: points may be missing.`),
    ...missing.map(({ setting, seeds }) => `#${setting.number} ${setting.label} has no result with ${seeds.length === 1 ? 'seed' : 'seeds'} ${seeds.join(', ')}.`),
  ];
  return lines.length === 0 ? '' : `<p class="warn"><strong>Incomplete.</strong> ${lines.map((line) => h(line)).join(' ')}</p>`;
}

// --- tables -----------------------------------------------------------------------------------------------------------

function resultTable(settings: readonly Setting[]): string {
  const isOneExperiment = new Set(settings.map(({ experiment }) => experiment)).size === 1;
  const columns: { readonly head: Head; readonly cell: (setting: Setting) => Cell }[] = [
    { head: { name: 'Setting', isText: true }, cell: ({ number, label, experiment, points, failures }) => named(`#${number} ${label}`, `${plural(points.length, 'seed')}${failures.length === 0 ? '' : `, ${failures.length} failed`}${isOneExperiment ? '' : `; ${visibleLine(experiment)}`}`) },
  ];
  const optional = (name: string, unit: string, cell: (setting: Setting) => string) => {
    if (settings.some((setting) => cell(setting) !== 'n/a')) columns.push({ head: { name, unit }, cell: (setting) => cell(setting).replace('n/a', '–') });
  };
  const notes = [...new Set(settings.map(guaranteeNote))];
  columns.push({ head: { name: 'Guarantee', unit: 'all releases together', isText: true }, cell: (setting) => `${setting.guarantee === null ? 'none' : boundText(setting.guarantee)} [${noteLetter(notes.indexOf(guaranteeNote(setting)))}]` });
  optional('Final model', '%', (setting) => meanWithDeviation(overSeeds(setting, finalAccuracy)));
  optional('Clients', '%', (setting) => meanWithDeviation(overSeeds(setting, clientAccuracy)));
  optional('Local only', '%', (setting) => meanWithDeviation(overSeeds(setting, localOnlyAccuracy)));
  optional('Moved', 'a client', (setting) => bytes(overSeeds(setting, bytesPerClient).mean ?? NaN));
  optional('NLL', 'nats', (setting) => decimals(overSeeds(setting, negativeLogLikelihood)));
  optional('ECE', '', (setting) => decimals(overSeeds(setting, calibrationError)));
  const results = table(
    `Mean ± sample standard deviation over seeds. Final model: of the coordinator or the baseline; clients: mean of their own models; local only: the same students without the others. ECE: expected calibration error. ${countsSentence(settings)} Guarantees are those of noise of the system's generator; noise in experiments is seeded and protects nobody.`,
    'Results of all settings',
    columns.map(({ head }) => head),
    settings.map((setting) => columns.map(({ cell }) => cell(setting))),
  );
  return `${results}\n${notes.map((note, i) => `<p class="note">[${noteLetter(i)}] ${h(note)}</p>`).join('\n')}`;
}

/** What a cell of guarantees means; equal ones can be compared. */
export function guaranteeNote(setting: Setting): string {
  const { guarantee } = setting;
  return guarantee === null ? `${whyNoGuarantee(setting)}.` : `ε over all releases: ${qualifierParts(guarantee).join('; ')}; mechanism ${guarantee.mechanism}.`;
}

/** `a` for the first. */
export function noteLetter(index: number): string {
  return index < 26 ? String.fromCharCode(97 + index) : String(index + 1);
}

function decimals({ mean, stddev }: Summary): string {
  return mean === null ? 'n/a' : `${mean.toFixed(3)}${stddev === null ? '' : ` ± ${stddev.toFixed(3)}`}`;
}

function failures(settings: readonly Setting[]): string {
  const points = settings.flatMap((setting) => setting.failures.map(({ seed, error }): Cell[] => [`#${setting.number} ${setting.label}`, String(seed), 'the whole point', error.code, visibleLine(error.message)]));
  const clients = settings.flatMap((setting) => setting.points.flatMap(({ seed, outcome }) => outcome.clients.flatMap(({ name, error }): Cell[][] => (error === null ? [] : [[`#${setting.number} ${setting.label}`, String(seed), visibleLine(name), error.code, visibleLine(error.message)]]))));
  const rows = [...points, ...clients];
  if (rows.length === 0) return '';
  const heads: Head[] = [{ name: 'Setting', isText: true }, { name: 'Seed' }, { name: 'Who', isText: true }, { name: 'Code', isText: true }, { name: 'Cause', isText: true }];
  return table('Points without a result are in no mean; a client that failed is in no mean over clients.', 'Failures', heads, rows);
}

/** Each different statement once, word for word. */
function statements(settings: readonly Setting[]): string {
  const texts = new Map<string, Setting[]>();
  for (const setting of settings) {
    for (const { outcome } of setting.points) {
      if (outcome.statement === null) continue;
      const text = renderStatement(outcome.statement);
      const known = texts.get(text) ?? [];
      if (!known.includes(setting)) texts.set(text, [...known, setting]);
    }
  }
  if (texts.size === 0) return '';
  return [
    '<p>Word for word, as real clients would have them. Noise and keys of experiments come from seeds, so that they can be repeated: whoever knows a seed can take the noise away again.</p>',
    ...[...texts].map(([text, members]) => `<details><summary>${h(members.map(({ number, label }) => `#${number} ${label}`).join('; '))}</summary><pre>${h(text)}</pre></details>`),
  ].join('\n');
}

// --- figures ----------------------------------------------------------------------------------------------------------

function figureMarkup({ id, title, caption, notes, svg, data }: DrawnFigure): string {
  return [
    `<figure id="figure-${id}">`,
    `<h3>${h(title)}</h3>`,
    svg.wide.replace('class="vl"', 'class="vl wide-layout"'),
    svg.narrow.replace('class="vl"', 'class="vl narrow"'),
    `<figcaption><p>${h(caption)}</p>${notes.map((note) => `<p>${h(note)}</p>`).join('')}</figcaption>`,
    data.rows.length > MAX_DATA_ROWS
      ? `<p class="note">Data behind this figure: ${plural(data.rows.length, 'row')}, in figures/${h(id)}.csv.</p>`
      : `<details><summary>Data behind this figure</summary>${table(`${title}: accuracies are shares between 0 and 1, sizes are bytes; figures/${id}.csv has the same. ${notes.join(' ')}`, `Data of: ${title}`, data.columns.map((name) => ({ name, isText: /^(setting|label|unit|adjacency|adversary|accountant|client|model)$/.test(name) })), data.rows)}</details>`,
    '</figure>',
  ].join('\n');
}

// --- how to repeat it -------------------------------------------------------------------------------------------------

/** Paths that a sweep varies, and the values that each takes. */
export function variedValues({ results }: Experiment): [path: string, values: string][] {
  const paths = [...new Set(results.flatMap(({ settings }) => Object.keys(settings)))];
  const inOrder = [...results].sort((a, b) => a.index - b.index);
  const values = (of: (result: (typeof results)[number]) => unknown) => [...new Set(inOrder.map(of).map((value) => (value === null || value === undefined ? 'default' : visibleLine(valueText(value)))))].join(', ');
  return [
    ...(inOrder.some((result) => result.case !== null) ? [['case', values((result) => result.case)] as [string, string]] : []),
    ...paths.map((path): [string, string] => [path, values(({ settings }) => settings[path])]),
    ['task.seed', [...new Set(results.map(({ seed }) => seed))].sort((a, b) => a - b).join(', ')],
  ];
}

function repeat(experiment: Experiment, isOneOfMany: boolean): string {
  const { name, command, sweep, environment } = experiment;
  const entries = [...variedValues(experiment), ...environment];
  return [
    isOneOfMany ? `<h3>${h(visibleLine(name))}</h3>` : '',
    `<dl class="settings">${entries.map(([term, value]) => `<dt>${h(term)}</dt><dd>${h(visibleLine(value))}</dd>`).join('\n')}</dl>`,
    command === null ? '' : `<p>What made it; the same results come again on the same engine and type of machine:</p><pre>${h(visibleText(command))}</pre>`,
    sweep === null ? '' : `<details><summary>Its file, word for word</summary><pre>${h(visibleText(sweep))}</pre></details>`,
  ].filter(Boolean).join('\n');
}

/** For a terminal's last line. */
export function experimentSummary(settings: readonly Setting[]): string {
  const best = bestOf(settings.filter(({ guarantee }) => guarantee !== null)) ?? bestOf(settings);
  if (best === undefined) return 'No setting has an accuracy.';
  const { setting, summary } = best;
  return `Best${setting.guarantee === null ? '' : ' with a guarantee'}: ${percentSign(summary.mean)}, ${setting.label}${setting.guarantee === null ? '' : ` (${boundText(setting.guarantee)}: ${qualifierParts(setting.guarantee).join('; ')})`}`;
}
