/** `fedstill ls`: the runs on this machine, newest first. */
import { Command } from 'commander';
import { listRuns, readEvents } from '../../shared/node/run-folder.ts';
import { countResults } from '../experiment/experiment-folder.ts';

interface RunLine {
  readonly directory: string;
  readonly kind: string;
  readonly state: string;
  readonly createdAt: string;
  readonly rounds: number;
  /** Of an experiment: those that have an outcome. */
  readonly points?: number;
}

export function lsCommand(): Command {
  return new Command('ls')
    .description('list the runs in a folder, newest first')
    .option('--runs <dir>', 'folder that holds the runs', 'runs')
    .option('--json', 'one JSON object a line', false)
    .action(async (options: { runs: string; json: boolean }) => {
      const lines = await Promise.all((await listRuns(options.runs)).map(describe));
      if (options.json) {
        for (const line of lines) process.stdout.write(`${JSON.stringify(line)}\n`);
        return;
      }
      if (lines.length === 0) {
        process.stdout.write(`No runs in ${options.runs}/. \`npm start\` makes the first one.\n`);
        return;
      }
      const width = Math.max(...lines.map((line) => line.directory.length));
      for (const line of lines) {
        process.stdout.write(`${line.directory.padEnd(width)}  ${line.kind.padEnd(10)}  ${line.state.padEnd(24)}  ${String(line.points ?? line.rounds).padStart(4)} ${line.points === undefined ? 'rounds' : 'points'}  ${line.createdAt}\n`);
      }
    });
}

async function describe({ directory, manifest }: Awaited<ReturnType<typeof listRuns>>[number]): Promise<RunLine> {
  if (manifest === undefined) return { directory, kind: 'unknown', state: 'run.json is damaged', createdAt: '', rounds: 0 };
  const state = manifest.state === 'running' ? `not finished (resume)` : manifest.outcome === null ? manifest.state : `${manifest.state}: ${manifest.outcome}`;
  const line = { directory, kind: manifest.kind, state, createdAt: manifest.createdAt };
  if (manifest.kind === 'experiment') return { ...line, rounds: 0, points: await countResults(directory) };
  const events = await readEvents(directory);
  return { ...line, rounds: events.filter((event) => event['event'] === 'round-released').length };
}
