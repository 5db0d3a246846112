/** `fedstill results`: docs/results.md, written from the folders of experiments. */
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Command } from 'commander';
import { formatCommand, printLine } from '../../shared/node/terminal.ts';
import { writeReportFiles } from '../report/experiment-files.ts';
import { plural } from '../report/format.ts';
import { loadExperiment, shownPath } from '../report/load-experiment.ts';
import { resultsFiles } from '../report/results-markdown.ts';
import { requireComplete, toldApart } from './report.ts';

export interface ResultsCommandOptions {
  readonly runs: readonly string[];
  readonly out: string;
  readonly partial: boolean;
  readonly json: boolean;
}

export function resultsCommand(): Command {
  return new Command('results')
    .description('write a Markdown page of the results of experiments, with the command, settings, seeds and machine of each')
    .requiredOption('--runs <dirs...>', 'folders of experiments, or folders that hold some; DIR+DIR for two that belong together, in one section')
    .option('--out <file>', 'the page; its figures go into figures/ beside it', join('docs', 'results.md'))
    .option('--partial', 'also experiments whose points are not all there yet', false)
    .option('--json', 'what was written as one JSON object', false)
    .action(results);
}

async function results({ runs, out, partial, json }: ResultsCommandOptions): Promise<void> {
  const directories = (await Promise.all(runs.map(groupsOf))).flat();
  const groups = await Promise.all(directories.map(async (group) => toldApart(await Promise.all(group.map(loadExperiment)))));
  if (!partial) groups.flat().forEach(requireComplete);
  const command = formatCommand(['npx', 'fedstill', 'results', '--runs', ...runs.map((group) => group.split('+').map(shownPath).join('+')), ...(out === join('docs', 'results.md') ? [] : ['--out', shownPath(out)]), ...(partial ? ['--partial'] : [])]);
  const files = await resultsFiles(groups, { command, fileName: basename(out) });
  await writeReportFiles(dirname(out), files);
  if (json) {
    printLine(JSON.stringify({ page: out, figures: files.slice(0, -1).map(({ path }) => join(dirname(out), path)), experiments: groups.flat().map(({ name }) => name) }));
    return;
  }
  printLine(`${plural(groups.flat().length, 'experiment')}: ${out}, ${plural(files.length - 1, 'figure')} in ${join(dirname(out), 'figures')}`);
}

/** The folder itself when it is a run, else the runs in it, by name, each in a group of its own; several with `+` between them are one group. */
async function groupsOf(directory: string): Promise<string[][]> {
  const isRun = (folder: string) => ['run.json', 'results.jsonl'].some((name) => existsSync(join(folder, name)));
  if (!existsSync(directory) && directory.includes('+')) return [directory.split('+')];
  if (isRun(directory) || !existsSync(directory)) return [[directory]];
  const inside = (await readdir(directory, { withFileTypes: true })).filter((entry) => entry.isDirectory()).map(({ name }) => join(directory, name)).filter(isRun).sort();
  return inside.length === 0 ? [[directory]] : inside.map((run) => [run]);
}
