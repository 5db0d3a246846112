/** `fedstill doctor`: what works on this machine, and what to do about what doesn't. */
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { describeZoo } from '../../shared/models/catalog.ts';
import { openFileStore } from '../../shared/node/file-store.ts';
import { loadDataSource } from '../../shared/node/data-source.ts';
import { packageVersion } from '../../shared/node/version.ts';

interface Finding {
  readonly check: string;
  readonly ok: boolean;
  readonly detail: string;
  /** A failed check that matters only to those who want the feature. */
  readonly optional: boolean;
}

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('check what works on this machine: Node, engines, data sets, disk')
    .option('--json', 'one JSON object', false)
    .action(async (options: { json: boolean }) => {
      const findings = [...checkNode(), ...(await checkEngines()), ...(await checkData()), await checkDisk()];
      const broken = findings.filter((finding) => !finding.ok && !finding.optional);
      if (options.json) {
        process.stdout.write(`${JSON.stringify({ version: packageVersion, findings, models: describeZoo() })}\n`);
      } else {
        process.stdout.write(`fedstill ${packageVersion}\n\n`);
        for (const { check, ok, detail, optional } of findings) process.stdout.write(`${ok ? 'ok  ' : optional ? '-   ' : 'FAIL'}  ${check.padEnd(22)} ${detail}\n`);
        process.stdout.write('\nStudents (--model):\n');
        for (const { name, description } of describeZoo()) process.stdout.write(`      ${name.padEnd(22)} ${description}\n`);
        process.stdout.write(broken.length === 0 ? '\nEverything that is needed works.\n' : `\n${broken.length} thing(s) that fedstill needs do not work; see FAIL above.\n`);
      }
      if (broken.length > 0) process.exitCode = 1;
    });
}

function checkNode(): Finding[] {
  const major = Number(process.versions.node.split('.')[0]);
  const memory = `${(totalmem() / 2 ** 30).toFixed(1)} GiB`;
  return [
    { check: 'Node', ok: major >= 20, detail: `${process.version} (needs 20 or newer)`, optional: false },
    { check: 'machine', ok: true, detail: `${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}, ${memory}, ${process.platform} ${process.arch}`, optional: false },
  ];
}

async function checkEngines(): Promise<Finding[]> {
  const { probeEngines } = await import('../../shared/compute/select-engine.ts');
  const engines = await probeEngines();
  const anyAvailable = engines.some((engine) => engine.available);
  return engines.map(({ name, available, reason }) => ({ check: `engine ${name}`, ok: available, detail: reason, optional: anyAvailable }));
}

async function checkData(): Promise<Finding[]> {
  const check = async (source: 'mnist' | 'fashion-mnist', optional: boolean): Promise<Finding> => {
    try {
      const { examples } = await loadDataSource({ source, split: 'test', offset: 0, size: 10 }, { baseDir: process.cwd(), exampleShape: [28, 28, 1], numClasses: 10, needLabels: true });
      return { check: `data ${source}`, ok: true, detail: `read ${examples.count} examples`, optional };
    } catch (error) {
      return { check: `data ${source}`, ok: false, detail: error instanceof Error ? error.message : String(error), optional };
    }
  };
  return [await check('mnist', false), await check('fashion-mnist', true)];
}

async function checkDisk(): Promise<Finding> {
  const directory = await mkdtemp(join(existsSync('runs') ? 'runs' : tmpdir(), 'doctor-'));
  try {
    const store = await openFileStore(join(directory, 'store'));
    await store.append('probe', { works: true });
    await store.close();
    return { check: 'durable files', ok: true, detail: `writes and flushes in ${directory.split('/').slice(0, -1).join('/')}`, optional: false };
  } catch (error) {
    return { check: 'durable files', ok: false, detail: error instanceof Error ? error.message : String(error), optional: false };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
