#!/usr/bin/env node
/** The `fedstill` command: finds the subcommand, loads only its code, and turns errors into text and exit status. */
import { Command, CommanderError } from 'commander';
import { exitStatus } from '../shared/errors.ts';
import { printError, exitStatusOf } from '../shared/node/terminal.ts';
import { packageVersion } from '../shared/node/version.ts';
import { usageError } from './commands/usage-error.ts';

const subcommands: Readonly<Record<string, () => Promise<Command>>> = {
  demo: async () => (await import('./commands/demo.ts')).demoCommand(),
  serve: async () => (await import('../server/main.ts')).serveCommand(),
  join: async () => (await import('../client/main.ts')).joinCommand(),
  simulate: async () => (await import('./commands/simulate.ts')).simulateCommand(),
  experiment: async () => (await import('./commands/experiment.ts')).experimentCommand(),
  report: async () => (await import('./commands/report.ts')).reportCommand(),
  results: async () => (await import('./commands/results.ts')).resultsCommand(),
  data: async () => (await import('./commands/data.ts')).dataCommand(),
  trust: async () => (await import('./commands/trust.ts')).trustCommand(),
  privacy: async () => (await import('./commands/privacy.ts')).privacyCommand(),
  ls: async () => (await import('./commands/ls.ts')).lsCommand(),
  resume: async () => (await import('./commands/resume.ts')).resumeCommand(),
  bench: async () => (await import('./commands/bench.ts')).benchCommand(),
  doctor: async () => (await import('./commands/doctor.ts')).doctorCommand(),
};

async function main(args: readonly string[]): Promise<void> {
  const program = new Command('fedstill')
    .description('Federated, privacy-preserving knowledge distillation: soft labels down, sealed and noised predictions up.')
    .version(packageVersion)
    .addHelpText('after', '\nExit status: 0 done, 1 internal error, 2 bad input, 3 refused by a privacy policy or budget, 4 quorum or peer failure.\nStart with: npm start');
  const wanted = args[0] !== undefined && Object.hasOwn(subcommands, args[0]) ? [args[0]] : Object.keys(subcommands);
  for (const name of wanted) program.addCommand(await subcommands[name]!());
  for (const command of [program, ...program.commands, ...program.commands.flatMap((child) => child.commands)]) {
    command.configureOutput({ outputError: () => undefined }); // said below, in our own form
    command.exitOverride((error) => {
      throw error.exitCode === 0 || error.code === 'commander.help' ? error : usageError(error, command, args);
    });
  }
  if (args.length === 0) {
    program.outputHelp();
    return;
  }
  await program.parseAsync([...args], { from: 'user' });
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof CommanderError) {
    // Help, or the version: asked for, or instead of a subcommand that is missing.
    process.exitCode = error.exitCode === 0 ? 0 : exitStatus.badInput;
  } else {
    printError(error, { json: process.argv.includes('--json') });
    process.exitCode = exitStatusOf(error);
  }
}
