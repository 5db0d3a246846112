/** docs/results.md: what experiments came to, as Markdown that a command writes. The same folders give the same text. */
import {
  boundText,
  bytesPerClient,
  calibrationError,
  clientAccuracy,
  countsSentence,
  finalAccuracy,
  localOnlyAccuracy,
  overSeeds,
  settingsOf,
  type Experiment,
  type Measure,
  type Setting,
} from './experiment-data.ts';
import { experimentFigures, type ExperimentFigure } from './experiment-figures.ts';
import { fileSvg, type ReportFile } from './experiment-files.ts';
import { guaranteeNote, noteLetter, variedValues } from './experiment-page.ts';
import { bytes, meanWithDeviation, plural, visibleLine, visibleText } from './format.ts';
import { standalone } from './vega-image.ts';

export interface ResultsOptions {
  /** What writes the page again. */
  readonly command: string;
  /** Of the page. */
  readonly fileName: string;
}

/** The page and its figures, relative to the folder of the page. A section for each group of experiments, which are put side by side in it. */
export async function resultsFiles(groups: readonly (readonly Experiment[])[], { command, fileName }: ResultsOptions): Promise<ReportFile[]> {
  const files: ReportFile[] = [];
  const sections: string[] = [];
  const names = new Set<string>();
  for (const experiments of groups) {
    const settings = settingsOf(experiments);
    const figure = headlineFigure(settings);
    let path: string | undefined;
    if (figure !== undefined) {
      path = `figures/${freeName(fileNameOf(experiments[0]!.name), names)}-${figure.id}.svg`;
      files.push({ path, content: standalone(await fileSvg(figure)) });
    }
    sections.push(section(experiments, settings, figure, path));
  }
  const page = [
    '# Results',
    `Measured, not promised: every number here comes from the results of experiments, which \`fedstill experiment\` repeats. This page is written by a command; do not edit it:`,
    fenced(command),
    'Numbers are means over seeds ± sample standard deviation (n - 1); n is the number of seeds. A guarantee is what the releases of a setting together guarantee with noise of the system\'s generator; the noise of experiments is seeded, so that they can be repeated, and protects nobody. What the words mean: [privacy-model.md](privacy-model.md).',
    ...sections,
  ].join('\n\n');
  return [...files, { path: fileName, content: `${page}\n` }];
}

/** The first that there is: what privacy costs, else how accuracy grew, else how clients differ. */
function headlineFigure(settings: readonly Setting[]): ExperimentFigure | undefined {
  return experimentFigures(settings)[0];
}

function fileNameOf(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9_-]+/g, '-').replace(/^-+|-+$/g, '') || 'experiment';
}

/** The name, numbered when it is taken; it is taken from now on. */
function freeName(name: string, taken: Set<string>): string {
  let free = name;
  for (let number = 2; taken.has(free); number++) free = `${name}-${number}`;
  taken.add(free);
  return free;
}

function section(experiments: readonly Experiment[], settings: readonly Setting[], figure: ExperimentFigure | undefined, path: string | undefined): string {
  const parts = [
    `## ${experiments.map(({ name }) => text(name)).join(' and ')}`,
    ...experiments.flatMap((experiment) => [
      experiment.command === null ? '' : fenced(`npx ${experiment.command}`),
      table(['what', 'value'], [...variedValues(experiment), ...experiment.environment].map(([what, value]) => [text(what), text(value)])),
    ]),
    figure === undefined ? '' : [`![${text(figure.title)}](${path!})`, text([figure.caption, ...figure.notes].join(' '))].join('\n\n'),
    results(settings),
    failures(settings),
  ];
  return parts.filter(Boolean).join('\n\n');
}

function results(settings: readonly Setting[]): string {
  const notes = [...new Set(settings.map(guaranteeNote))];
  const share = (name: string, measure: Measure) => ({ name, cell: (setting: Setting) => meanWithDeviation(overSeeds(setting, measure)) });
  const measures = [
    share('final model, %', finalAccuracy),
    share('clients, %', clientAccuracy),
    share('local only, %', localOnlyAccuracy),
    { name: 'moved a client', cell: (setting: Setting) => bytes(overSeeds(setting, bytesPerClient).mean ?? NaN) },
    { name: 'ECE', cell: (setting: Setting) => decimals(setting, calibrationError) },
  ].filter(({ cell }) => settings.some((setting) => cell(setting) !== 'n/a'));
  const heads = ['setting', 'guarantee', ...measures.map(({ name }) => name), 'n'];
  const rows = settings.map((setting) => [
    text(`#${setting.number} ${setting.label}`),
    `${setting.guarantee === null ? 'none' : boundText(setting.guarantee)} [${noteLetter(notes.indexOf(guaranteeNote(setting)))}]`,
    ...measures.map(({ cell }) => cell(setting).replace('n/a', '–')),
    String(setting.points.length),
  ]);
  return [
    table(heads, rows, 2),
    `Final model: of the coordinator, or of the baseline; clients: mean of their own models; local only: the same students without the others; ECE: expected calibration error of the final model. ${text(countsSentence(settings))}`,
    notes.map((note, i) => `[${noteLetter(i)}] ${text(note)}`).join('\\\n'),
  ].join('\n\n');
}

function decimals(setting: Setting, measure: Measure): string {
  const { mean, stddev } = overSeeds(setting, measure);
  return mean === null ? 'n/a' : `${mean.toFixed(3)}${stddev === null ? '' : ` ± ${stddev.toFixed(3)}`}`;
}

function failures(settings: readonly Setting[]): string {
  const lines = settings.flatMap((setting) => [
    ...setting.failures.map(({ seed, error }) => `- ${text(`#${setting.number} ${setting.label}`)}, seed ${seed}: ${text(error.message)} (\`${code(error.code)}\`)`),
    ...clientFailures(setting),
  ]);
  return lines.length === 0 ? '' : `Failed, and in no mean:\n\n${lines.join('\n')}`;
}

/** By cause: a client's failure is that of one client, and hundreds can fail alike. */
function clientFailures(setting: Setting): string[] {
  const causes = new Map<string, number>();
  for (const { outcome } of setting.points) for (const { error } of outcome.clients) if (error !== null) causes.set(error.code, (causes.get(error.code) ?? 0) + 1);
  return [...causes].map(([cause, count]) => `- ${text(`#${setting.number} ${setting.label}`)}: ${plural(count, 'client')} (over all seeds): \`${code(cause)}\``);
}

/** The first `texts` columns are text, the others numbers. */
function table(heads: readonly string[], rows: readonly (readonly string[])[], texts = heads.length): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(heads), line(heads.map((_, i) => (i < texts ? '---' : '---:'))), ...rows.map(line)].join('\n');
}

/** On one line, as it is: no markup, no new cell, no HTML. */
function text(content: string): string {
  return visibleLine(content).replace(/[\\`*_[\]<>|#]/g, (character, at: number) => (character === '#' && at > 0 ? '#' : `\\${character}`)).replace(/&/g, '&amp;');
}

/** Inside backticks. */
function code(content: string): string {
  return visibleLine(content).replaceAll('`', '´');
}

function fenced(content: string): string {
  const fence = '`'.repeat(Math.max(3, ...[...content.matchAll(/`+/g)].map(([run]) => run.length + 1)));
  return `${fence}\n${visibleText(content)}\n${fence}`;
}
