/** `fedstill resume`: goes on with a run that was stopped or killed. */
import { Command } from 'commander';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { EnginePreference } from '../../shared/compute/select-engine.ts';
import { FederationError, unreachable } from '../../shared/errors.ts';
import { readRunManifest, type RunManifest } from '../../shared/node/run-folder.ts';

export function resumeCommand(): Command {
  return new Command('resume')
    .description('go on with a run that was stopped or killed')
    .argument('<run>', 'run folder, e.g. runs/demo-1')
    .option('--json', 'JSON lines instead of text', false)
    .action(async (directory: string, options: { json: boolean }) => {
      const manifest = await readRunManifest(directory);
      if (manifest === undefined) {
        throw new FederationError('file-unreadable', `${directory} is not the folder of a run.`, { field: 'run', expected: 'a folder with run.json', got: existsSync(directory) ? 'a folder or file without one' : 'nothing at this path', next: 'List the runs with: fedstill ls' });
      }
      await resume(directory, manifest, options.json);
    });
}

async function resume(directory: string, manifest: RunManifest, json: boolean): Promise<void> {
  switch (manifest.kind) {
    case 'serve': {
      const { serve } = await import('../../server/main.ts');
      return serve({ ...serveOptionsOf(manifest), run: directory, json });
    }
    case 'demo': {
      const { runDemo } = await import('./demo.ts');
      return runDemo({ run: directory, json });
    }
    case 'simulate': {
      const { readScenario } = await import('../load-scenario.ts');
      const { simulate } = await import('./simulate.ts');
      const { baseDir, engine, workers } = manifest.options as { baseDir: string; engine: EnginePreference; workers?: number };
      return simulate(await readScenario(join(directory, 'scenario.yaml'), baseDir), { run: directory, engine, ...(workers === undefined ? {} : { workers }), json });
    }
    case 'experiment': {
      const { experiment } = await import('./experiment.ts');
      const { readSweepOfRun } = await import('../experiment/sweep-files.ts');
      const { engine, workers } = manifest.options as { engine: EnginePreference; workers?: number };
      return experiment(await readSweepOfRun(directory, manifest), { run: directory, engine, ...(workers === undefined ? {} : { workers }), dryRun: false, json });
    }
    default:
      return unreachable(manifest.kind);
  }
}

/** What `fedstill serve` was called with. */
function serveOptionsOf(manifest: RunManifest): Record<string, string | number> {
  return Object.fromEntries(Object.entries(manifest.options).filter((entry): entry is [string, string | number] => typeof entry[1] === 'string' || typeof entry[1] === 'number'));
}
