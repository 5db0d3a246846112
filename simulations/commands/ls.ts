/** `fedstill ls`: the runs on this machine, newest first. */
import { Command } from 'commander';
import { listRuns, readEvents } from '../../shared/node/run-folder.ts';

interface RunLine {
  readonly directory: string;
  readonly kind: string;
  readonly state: string;
  readonly createdAt: string;
  readonly rounds: number;
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
        process.stdout.write(`${line.directory.padEnd(width)}  ${line.kind.padEnd(8)}  ${line.state.padEnd(24)}  ${String(line.rounds).padStart(4)} rounds  ${line.createdAt}\n`);
      }
    });
}

async function describe({ directory, manifest }: Awaited<ReturnType<typeof listRuns>>[number]): Promise<RunLine> {
  if (manifest === undefined) return { directory, kind: 'unknown', state: 'run.json is damaged', createdAt: '', rounds: 0 };
  const events = await readEvents(directory);
  const rounds = events.filter((event) => event['event'] === 'round-released').length;
  const state = manifest.state === 'running' ? `not finished (resume)` : manifest.outcome === null ? manifest.state : `${manifest.state}: ${manifest.outcome}`;
  return { directory, kind: manifest.kind, state, createdAt: manifest.createdAt, rounds };
}
