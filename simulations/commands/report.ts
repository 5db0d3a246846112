/** `fedstill report`: experiments as one page, with figures, their data and their specifications. */
import { join } from 'node:path';
import { Command } from 'commander';
import { FederationError } from '../../shared/errors.ts';
import { printLine } from '../../shared/node/terminal.ts';
import { experimentFiles, writeReportFiles } from '../report/experiment-files.ts';
import { missingSeeds, settingsOf, type Experiment } from '../report/experiment-data.ts';
import { experimentSummary } from '../report/experiment-page.ts';
import { plural } from '../report/format.ts';
import { loadExperiment } from '../report/load-experiment.ts';

export interface ReportOptions {
  readonly out?: string;
  readonly partial: boolean;
  readonly png: boolean;
  readonly json: boolean;
}

export function reportCommand(): Command {
  return new Command('report')
    .description('one HTML page with figures and tables of experiments (or single simulations), put side by side')
    .argument('<dirs...>', 'folders that `fedstill experiment` or `fedstill simulate` made')
    .option('--out <dir>', 'folder for report.html and figures/ (default: the folder itself; needed for several)')
    .option('--partial', 'report an experiment whose points are not all there yet; the page says what is missing', false)
    .option('--no-png', 'leave out the PNG of each figure')
    .option('--json', 'what was written as one JSON object', false)
    .action(report);
}

async function report(directories: readonly string[], { out, partial, png, json }: ReportOptions): Promise<void> {
  const target = out ?? (directories.length === 1 ? directories[0]! : undefined);
  if (target === undefined) throw new FederationError('usage-invalid', 'A report of several experiments needs a folder of its own.', { field: '--out', expected: 'a folder', got: 'nothing', next: 'Name one, e.g. --out runs/comparison' });
  const experiments = toldApart(await Promise.all(directories.map(loadExperiment)));
  if (!partial) experiments.forEach(requireComplete);
  const settings = settingsOf(experiments);
  const files = await experimentFiles(experiments, { png });
  await writeReportFiles(target, files);
  const page = join(target, 'report.html');
  if (json) {
    printLine(JSON.stringify({ page, figures: files.filter(({ path }) => path.endsWith('.svg')).map(({ path }) => join(target, path)), settings: settings.length, experiments: experiments.map(({ name }) => name) }));
    return;
  }
  printLine(`${plural(settings.length, 'setting')}. ${experimentSummary(settings)}`);
  printLine(`Report: ${page} (opens in any browser, needs no network); figures, their data and specifications: ${join(target, 'figures')}`);
}

/** Names that are there twice get a number. */
export function toldApart(experiments: readonly Experiment[]): Experiment[] {
  return experiments.map((experiment, index) => {
    const before = experiments.slice(0, index).filter(({ name }) => name === experiment.name).length;
    return before === 0 ? experiment : { ...experiment, name: `${experiment.name} (${before + 1})` };
  });
}

/** Throws `data-invalid` for an experiment that has not ended, or that lacks seeds: its means would be over other seeds than those beside them. */
export function requireComplete(experiment: Experiment): void {
  const missing = missingSeeds(settingsOf([experiment]));
  const init = { field: experiment.directory, expected: 'a result of every point', next: `Go on with: fedstill resume ${experiment.directory}; or report what is there with --partial` };
  const [first] = missing;
  if (first !== undefined) throw new FederationError('data-invalid', `${experiment.directory} lacks seeds.`, { ...init, got: `no result of ${first.setting.label} with seed ${first.seeds.join(', ')}${missing.length === 1 ? '' : `, and ${missing.length - 1} more such settings`}` });
  if (experiment.isRunning) throw new FederationError('data-invalid', `The experiment in ${experiment.directory} has not ended.`, { ...init, got: `${plural(experiment.results.length, 'result')} of more points` });
}
