import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { stringify } from 'yaml';
import { reportCommand } from '../../../simulations/commands/report.ts';
import { resultsCommand } from '../../../simulations/commands/results.ts';
import type { Experiment } from '../../../simulations/report/experiment-data.ts';
import { writeReportFiles } from '../../../simulations/report/experiment-files.ts';
import { loadExperiment } from '../../../simulations/report/load-experiment.ts';
import { bareExperiment, gridExperiment, sampleExperiment, sampleOutcome } from '../report/sample-experiment.ts';

let folder = '';
const at = (...parts: string[]) => join(folder, ...parts);
const line = (i: number) => JSON.stringify(gridExperiment.results[i]);

async function manifest(directory: string, kind: string, state = 'done'): Promise<void> {
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'run.json'), JSON.stringify({ format: 'fedstill-run/1', kind, name: `a ${kind}`, createdAt: '2026-01-01T00:00:00.000Z', version: '0.1.0', state, outcome: null, options: { file: 'sweeps/a.yaml' } }));
}

async function experiment(name: string, { results }: Pick<Experiment, 'results'>, state = 'done'): Promise<string> {
  await manifest(at(name), 'experiment', state);
  await writeFile(at(name, 'results.jsonl'), results.map((result) => `${JSON.stringify(result)}\n`).join(''));
  return at(name);
}

async function resultsText(name: string, text: string): Promise<string> {
  await manifest(at(name), 'experiment');
  await writeFile(at(name, 'results.jsonl'), text);
  return at(name);
}

let printed = '';
async function run(command: 'report' | 'results', ...args: string[]): Promise<string> {
  printed = '';
  const spy = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    printed += String(text);
    return true;
  });
  try {
    await (command === 'report' ? reportCommand() : resultsCommand()).exitOverride().parseAsync(args, { from: 'user' });
  } finally {
    spy.mockRestore();
  }
  return printed;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fedstill-report-'));
});
afterEach(() => vi.restoreAllMocks());
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('fedstill report', () => {
  it('writes the page and its figures into the folder of the experiment, and nothing half', async () => {
    const directory = await experiment('one', gridExperiment);
    expect(await run('report', directory)).toMatch(/^8 settings\. Best: 76\.3%, temperature 2, partition dirichlet alpha 1\nReport: .*report\.html/);
    expect((await readdir(directory)).sort()).toEqual(['figures', 'report.html', 'results.jsonl', 'run.json']);
    const figures = await readdir(join(directory, 'figures'));
    for (const end of ['svg', 'png', 'csv', 'vl.json']) expect(figures).toContain(`rounds.${end}`);
    expect(figures.filter((name) => name.endsWith('.new'))).toEqual([]);
    expect(await readFile(join(directory, 'report.html'), 'utf8')).toContain('fedstill experiment sweeps/a.yaml');
  });

  it('puts experiments of one name side by side under two, in a folder of their own', async () => {
    const directories = [await experiment('left', { results: gridExperiment.results.slice(0, 4) }), await experiment('right', { results: gridExperiment.results.slice(4, 8) })];
    await expect(run('report', ...directories)).rejects.toMatchObject({ code: 'usage-invalid', field: '--out' });
    const out = JSON.parse(await run('report', ...directories, '--out', at('both'), '--no-png', '--json')) as { page: string; figures: string[]; experiments: string[]; settings: number };
    expect(out).toMatchObject({ page: at('both', 'report.html'), experiments: ['a experiment', 'a experiment (2)'], settings: 4 });
    expect((await readdir(at('both', 'figures'))).filter((name) => name.endsWith('.png'))).toEqual([]);
    expect(out.figures.length).toBeGreaterThan(3);
  });

  it('takes a simulation as one point, with its own seed', async () => {
    await manifest(at('simulation'), 'simulate');
    await writeFile(at('simulation', 'scenario.yaml'), stringify({ scenario: 'x', task: { seed: 5 } }));
    await writeFile(at('simulation', 'outcome.json'), JSON.stringify(sampleOutcome({ accuracy: 0.8, statement: null, bytes: 8 }, 1)));
    const { results } = await loadExperiment(at('simulation'));
    expect(results).toHaveLength(1);
    expect(results[0]).toMatchObject({ index: 0, seed: 5, case: null, settings: {} });
    expect(await run('report', at('simulation'), '--no-png')).toMatch(/^1 setting\. /);
  });

  it('reports what there is of an unfinished experiment when it is told to, and says what is missing', async () => {
    const directory = await experiment('running', { results: sampleExperiment.results.slice(0, 8) }, 'running');
    await expect(run('report', directory)).rejects.toMatchObject({ code: 'data-invalid', exitStatus: 2, got: 'no result of local noise, epsilon 4 with seed 3', next: expect.stringContaining('--partial') });
    await run('report', directory, '--partial', '--no-png');
    const page = await readFile(join(directory, 'report.html'), 'utf8');
    expect(page).toMatch(/<strong>Incomplete\.<\/strong> a experiment has not ended: points may be missing\. #3 local noise, epsilon 4 has no result with seed 3\./);
  });

  it('refuses an experiment that still runs although no seed is missing', async () => {
    const directory = await experiment('early', { results: bareExperiment.results }, 'running');
    await expect(run('report', directory)).rejects.toMatchObject({ code: 'data-invalid', message: expect.stringContaining('has not ended') });
  });

  it.each<[what: string, make: () => Promise<string>, error: object]>([
    ['nothing there', () => Promise.resolve(at('nowhere')), { code: 'file-unreadable', got: 'no such file' }],
    ['a file', async () => resultsText('file', line(0)).then((directory) => join(directory, 'results.jsonl')), { code: 'file-unreadable', got: 'a file' }],
    ['another folder', async () => mkdir(at('empty')).then(() => at('empty')), { code: 'data-invalid', message: expect.stringContaining('is no experiment') as string }],
    ['a coordinator', async () => manifest(at('serve'), 'serve').then(() => at('serve')), { code: 'data-invalid', got: 'a run of serve' }],
    ['a demo', async () => manifest(at('demo'), 'demo').then(() => at('demo')), { code: 'data-invalid', next: expect.stringContaining('report.html') as string }],
    ['a simulation that was stopped', async () => manifest(at('stopped'), 'simulate', 'running').then(() => at('stopped')), { code: 'data-invalid', next: expect.stringContaining('fedstill resume') as string }],
    ['a damaged manifest', async () => experiment('manifest', gridExperiment).then(async (directory) => writeFile(join(directory, 'run.json'), '{').then(() => directory)), { code: 'state-mismatch' }],
    ['no line', () => resultsText('no-line', ''), { code: 'data-invalid', got: 'an empty file' }],
    ['half a line', () => resultsText('half', `${line(0)}\n${line(1).slice(0, 200)}`), { code: 'data-invalid', field: expect.stringMatching(/results\.jsonl:2$/) as string, got: expect.stringContaining('only its beginning') as string }],
    ['an empty line', () => resultsText('gap', `${line(0)}\n\n${line(1)}\n`), { code: 'data-invalid', got: 'an empty line' }],
    ['another format', () => resultsText('format', '{"format":"fedstill-result/2"}\n'), { code: 'data-invalid', got: 'a line of the format fedstill-result/2' }],
    ['an accuracy of 2', () => resultsText('accuracy', `${line(0).replace(/"accuracy":0\.\d+/, '"accuracy":2')}\n`), { code: 'data-invalid', expected: expect.stringMatching(/outcome\.final\.accuracy/) as string }],
    ['a line without a seed', () => resultsText('seedless', `${line(0).replace(/"seed":1,/, '')}\n`), { code: 'data-invalid', expected: expect.stringMatching(/\(seed: /) as string }],
    ['a point twice', () => resultsText('twice', `${line(0)}\n${line(0)}\n`), { code: 'data-invalid', got: 'index 0, as in line 1' }],
    ['a simulation with half an outcome', async () => manifest(at('half-outcome'), 'simulate').then(async () => writeFile(at('half-outcome', 'outcome.json'), '{"reason":').then(() => at('half-outcome'))), { code: 'data-invalid' }],
  ])('refuses, with a code and what to do: %s', async (_, make, error) => {
    const directory = await make();
    const before = (await readdir(directory).catch(() => [])).sort();
    await expect(run('report', directory)).rejects.toMatchObject({ ...error, exitStatus: 2, next: expect.stringMatching(/\w/) as string });
    expect((await readdir(directory).catch(() => [])).sort()).toEqual(before);
  });

  it('leaves an older page as it was when the new one cannot be written', async () => {
    const directory = await experiment('blocked', gridExperiment);
    await writeFile(join(directory, 'report.html'), 'the old page');
    await writeFile(join(directory, 'figures'), 'in the way');
    await expect(run('report', directory, '--no-png')).rejects.toMatchObject({ code: 'file-unreadable' });
    expect(await readFile(join(directory, 'report.html'), 'utf8')).toBe('the old page');
    await mkdir(at('target', 'page'), { recursive: true });
    await expect(writeReportFiles(at('target'), [{ path: 'page', content: 'x' }])).rejects.toMatchObject({ code: 'file-unreadable' });
    expect(await readdir(at('target'))).toEqual(['page']);
  });
});

describe('fedstill results', () => {
  it('takes folders, and folders of folders by name, and writes page and figures', async () => {
    await experiment('all/b', gridExperiment);
    await experiment('all/a', sampleExperiment);
    await mkdir(at('all', 'c'));
    expect(await run('results', '--runs', at('all'), '--out', at('docs', 'results.md'))).toMatch(/^2 experiments: .*results\.md, 2 figures/);
    const page = await readFile(at('docs', 'results.md'), 'utf8');
    expect(page.match(/^## .*/gm)).toEqual(['## a experiment', '## a experiment']);
    expect(page.indexOf('votes of records')).toBeLessThan(page.indexOf('temperature 1'));
    for (const [, path] of page.matchAll(/!\[.*\]\((.*)\)/g)) expect(await readFile(at('docs', path!), 'utf8')).toContain('<svg');
    // No folder of this machine.
    expect(page).not.toContain(folder);
    expect(page).toContain('npx fedstill results --runs all --out results.md');
  });

  it('tells a machine what it wrote', async () => {
    const directories = [await experiment('with', gridExperiment), await experiment('without', sampleExperiment)];
    expect(JSON.parse(await run('results', '--runs', directories.join('+'), '--out', at('json', 'page.md'), '--json'))).toEqual({ page: at('json', 'page.md'), figures: [at('json', 'figures', 'a-experiment-frontier.svg')], experiments: ['a experiment', 'a experiment (2)'] });
  });

  it('refuses what report refuses', async () => {
    await expect(run('results', '--runs', at('nowhere'))).rejects.toMatchObject({ code: 'file-unreadable' });
    const directory = await experiment('unfinished', { results: sampleExperiment.results.slice(0, 8) });
    await expect(run('results', '--runs', directory, '--out', at('x.md'))).rejects.toMatchObject({ code: 'data-invalid' });
  });
});
