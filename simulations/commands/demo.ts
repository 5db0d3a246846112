/** `npm start`: a federation of real processes on MNIST, what it is worth, what it costs, and a report. Parts that are done are not done again. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { stringify } from 'yaml';
import { enginePreferences, type EnginePreference } from '../../shared/compute/select-engine.ts';
import { loadDataSource, writeIdxFolder } from '../../shared/node/data-source.ts';
import { closeRun, freeRunDirectory, readRunManifest, writeRunManifest } from '../../shared/node/run-folder.ts';
import { packageVersion } from '../../shared/node/version.ts';
import { runWithNoise, trainCentralized } from '../demo/comparison.ts';
import { recordRunDirectory, runFederation } from '../demo/federation.ts';
import { gatherReport } from '../demo/gather-report.ts';
import { killAllOnExit } from '../demo/processes.ts';
import { readDemoProgress, writeDemoProgress, type DemoProgress } from '../demo/progress.ts';
import { demoModels, demoPartition, demoRecordTask, demoSeeds, demoTask, privateRecords, recordLevel, testExamples } from '../demo/settings.ts';
import { renderReport } from '../report/report-page.ts';
import { renderTable } from '../report/table.ts';
import type { ScenarioData } from '../run-simulation.ts';
import { splitData } from './data.ts';
import { interruptible } from './interruptible.ts';

export interface DemoOptions {
  readonly run?: string;
  readonly seed?: number;
  readonly engine?: EnginePreference;
  readonly json: boolean;
}

export function demoCommand(): Command {
  return new Command('demo')
    .description('a coordinator and five client processes on MNIST, with a table and a report at the end (npm start)')
    .option('--run <dir>', 'run folder (default: runs/demo-<number>)')
    .option('--seed <n>', 'seed of the split, weights and shuffles', (text) => {
      const seed = Number(text);
      if (!Number.isInteger(seed) || seed < 0 || seed > 0xffff_ffff) throw new InvalidArgumentError('expected a whole number from 0 to 4294967295');
      return seed;
    }, 1)
    .addOption(new Option('--engine <name>', 'compute engine').choices([...enginePreferences]).default('auto'))
    .option('--json', 'the report as one JSON object instead of text', false)
    .action(runDemo);
}

/** Runs what is not done yet. Resolves also when interrupted, with the exit status set. */
export async function runDemo(options: DemoOptions): Promise<void> {
  const runDirectory = options.run ?? freeRunDirectory('demo');
  const manifest = await readRunManifest(runDirectory);
  const createdAt = manifest?.createdAt ?? new Date().toISOString();
  const engine = (manifest?.options['engine'] as EnginePreference | undefined) ?? options.engine ?? 'auto';
  let progress: DemoProgress = (await readDemoProgress(runDirectory)) ?? { format: 'fedstill-demo/1', seed: options.seed ?? 1 };
  const { seed } = progress;
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  await writeRunManifest(runDirectory, { format: 'fedstill-run/1', kind: 'demo', name: 'demo', createdAt, version: packageVersion, state: 'running', outcome: null, options: { engine } });
  const keep = async (part: Partial<DemoProgress>) => {
    progress = { ...progress, ...part };
    await writeDemoProgress(runDirectory, progress);
  };
  const say = (line: string) => {
    if (!options.json) process.stdout.write(`${line}\n`);
  };
  killAllOnExit();
  const interrupt = interruptible();
  try {
    say(`fedstill ${packageVersion} demo, run folder ${runDirectory}`);
    const data = await loadData(seed);
    if (progress.clients === undefined) await keep({ clients: await prepareFolders(runDirectory, seed, data) });
    const clients = progress.clients!;
    const testDirectory = join(runDirectory, 'data', 'test');
    for (const { name, model, examples, classHistogram } of clients) say(`${name}: ${model}, ${examples} private records, by class ${classHistogram.join(' ')}`);
    if (progress.federation === undefined) {
      say(`\nFederation: 1 coordinator and ${clients.length} client processes on loopback; sealed predictions on ${data.transferSet.count} public images, no noise`);
      const startedAt = performance.now();
      await runFederation({ runDirectory, testDirectory, ownerFlags: ['--allow', 'none'], baseline: true, seed, clients, engine, say, signal: interrupt.signal });
      await keep({ federation: { seconds: (performance.now() - startedAt) / 1000 } });
    }
    if (progress.records === undefined) {
      const { epsilon, delta, queries, shards, minSurvivors, maxCorrupt } = recordLevel;
      say(
        `\nThe same owners with a guarantee for every record: epsilon ${epsilon}, delta ${delta}, replace-one, against the coordinator and up to ${maxCorrupt} client that works with it, Renyi accounting of 1 release;\n` +
          `secure aggregation over at least ${minSurvivors} clients, ${shards} shards each, votes on ${queries} of ${data.transferSet.count} public images`,
      );
      const startedAt = performance.now();
      const honest = String(minSurvivors - maxCorrupt);
      await runFederation({ runDirectory: recordRunDirectory(runDirectory), testDirectory, ownerFlags: ['--min-honest', honest], baseline: false, seed, clients, engine, say, signal: interrupt.signal });
      await keep({ records: { seconds: (performance.now() - startedAt) / 1000 } });
    }
    if (progress.centralized === undefined || progress.noisy === undefined) {
      say('\nFor comparison: one model on all records, and the same federation with local noise');
      const [centralized, noisy] = await Promise.all([trainCentralized(seed, data, engine, interrupt.signal), runWithNoise(seed, data, engine, interrupt.signal)]);
      await keep({ centralized, noisy });
    }
    const report = await gatherReport(runDirectory, progress, createdAt);
    await writeFile(join(runDirectory, 'report.html'), renderReport(report));
    await writeFile(join(runDirectory, 'report.json'), `${JSON.stringify(report, undefined, 2)}\n`);
    await closeRun(runDirectory, 'done', 'rounds-done');
    if (options.json) {
      process.stdout.write(`${JSON.stringify(report)}\n`);
      return;
    }
    say('');
    process.stdout.write(renderTable(report, { columns: process.stdout.columns ?? 100, color: process.stdout.isTTY && process.env['NO_COLOR'] === undefined }));
    say(`\n${report.statement}`);
    say(`The statement of the run with a guarantee for every record: ${join(recordRunDirectory(runDirectory), 'coordinator', 'privacy.txt')}`);
    say(`Report: ${join(runDirectory, 'report.html')} (opens in any browser, needs no network)`);
    say('Next:   a federation of your own, in three terminals: see "Your own federation" in README.md, or npx fedstill serve --help');
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    say(`\nStopped. Everything so far is kept; go on with:\n  npx fedstill resume ${runDirectory}`);
    process.exitCode = interrupt.exitStatus();
  } finally {
    interrupt.release();
  }
}

async function loadData(seed: number): Promise<ScenarioData> {
  const task = demoTask(seed);
  const { exampleShape, numClasses } = task.data;
  const options = { baseDir: process.cwd(), exampleShape, numClasses };
  const labelled = async (split: 'train' | 'test', size: number) => {
    const { examples, labels } = await loadDataSource({ source: 'mnist', split, offset: 0, size }, { ...options, needLabels: true });
    return { examples, labels: labels!, numClasses };
  };
  const testSet = await labelled('test', testExamples);
  const { examples } = await loadDataSource(task.transferSet, { ...options, needLabels: false });
  return { pool: await labelled('train', privateRecords), transferSet: examples, evaluationSet: testSet, testSet };
}

/** Each owner's data as a folder of its own, and the task, as a user would write them. */
async function prepareFolders(runDirectory: string, seed: number, data: ScenarioData): Promise<NonNullable<DemoProgress['clients']>> {
  const folders = await splitData(data.pool, { clients: demoModels.length, partition: demoPartition, seed: demoSeeds.partition(seed), out: join(runDirectory, 'data') });
  await writeIdxFolder(join(runDirectory, 'data', 'test'), data.testSet!);
  await writeFile(join(runDirectory, 'task.yaml'), stringify(demoTask(seed)));
  const records = recordRunDirectory(runDirectory);
  await mkdir(records, { recursive: true, mode: 0o700 });
  await writeFile(join(records, 'task.yaml'), stringify(demoRecordTask(seed)));
  return folders.map((folder, index) => ({ name: `client-${index + 1}`, model: demoModels[index]!, directory: folder.directory, examples: folder.examples, classHistogram: [...folder.classHistogram] }));
}
