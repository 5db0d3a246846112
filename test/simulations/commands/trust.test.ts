import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { OpenModel } from '../../../shared/compute/engine.ts';
import { encodeSavedModel } from '../../../shared/compute/saved-model-codec.ts';
import { createTfjsEngine } from '../../../shared/compute/tfjs-engine.ts';
import { syntheticExamples } from '../../../shared/datasets/synthetic.ts';
import { writeLayersModel } from '../../../shared/node/layers-model-files.ts';
import { concatBytes, uint32Bytes, utf8 } from '../../../shared/types/bytes.ts';
import type { LabelledExamples } from '../../../shared/types/matrix.ts';
import { trustCommand } from '../../../simulations/commands/trust.ts';
import type { TrustReport } from '../../../simulations/report/trust-data.ts';
import { writeIdxFolder } from '../../../shared/node/data-source.ts';

let folder = '';
const at = (...parts: string[]) => join(folder, ...parts);

/** A student's checkpoint, as a client writes it. */
async function checkpoint(model: OpenModel): Promise<Uint8Array> {
  const header = utf8(JSON.stringify({ format: 'fedstill-student/1', round: 2, step: 'final' }));
  return concatBytes(uint32Bytes(header.length), header, encodeSavedModel(await model.save()));
}

async function manifest(directory: string, kind: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'run.json'), JSON.stringify({ format: 'fedstill-run/1', kind, name: 'x', createdAt: '2026-01-01T00:00:00.000Z', version: '0', state: 'done', outcome: 'rounds-done', options: {} }));
}

/** Blobs of three classes on 6x6 images; IDX files round them to bytes. */
function images(seed: number, size: number): LabelledExamples {
  return syntheticExamples({ size, seed, centerSeed: 1, exampleShape: [6, 6, 1], numClasses: 3 });
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fedstill-trust-'));
  const engine = await createTfjsEngine('tfjs-cpu');
  const train = images(3, 240);
  const trained = async (name: string, epochs: number, seed: number) => {
    const model = await engine.open({ kind: 'zoo', name, exampleShape: [6, 6, 1], numClasses: 3 }, seed);
    await model.fit({ hard: train }, { epochs, batchSize: 32, loss: { distance: 'kl', temperature: 1, alpha: 1 }, optimizer: { kind: 'adam', learningRate: 0.01 }, seed });
    return model;
  };
  const teacher = await trained('mlp-small', 4, 1);
  const student = await trained('softmax-regression', 2, 2);
  const baseline = await trained('softmax-regression', 1, 3);
  await writeLayersModel(at('teacher'), await teacher.save());
  await writeLayersModel(at('student'), await student.save());
  await manifest(at('demo'), 'demo');
  await writeLayersModel(at('demo', 'coordinator', 'models', 'teacher'), await teacher.save());
  for (const client of ['client-1', 'client-10', 'client-2']) {
    const task = at('demo', 'clients', client, 'tasks', 'digits-abc');
    await mkdir(task, { recursive: true });
    await writeFile(join(task, 'student'), await checkpoint(student));
    await writeFile(join(task, 'student-local-only'), await checkpoint(baseline));
  }
  await mkdir(at('demo', 'clients', 'client-3', 'tasks'), { recursive: true }); // joined, and trained nothing
  await writeIdxFolder(at('demo', 'data', 'test'), images(4, 60));
  for (const [prefix, size] of [['train', 50], ['t10k', 30]] as const) {
    await writeIdxFolder(at('one-split'), images(4, size));
    await mkdir(at('split'), { recursive: true });
    for (const file of await readdir(at('one-split'))) await rename(at('one-split', file), at('split', `${prefix}-${file}`));
  }
  await manifest(at('demo', 'records', 'coordinator'), 'serve');
  await writeLayersModel(at('demo', 'records', 'coordinator', 'models', 'teacher'), await teacher.save());
  await mkdir(at('demo', 'records', 'clients', 'client-1', 'tasks', 'digits-abc'), { recursive: true });
  await writeFile(at('demo', 'records', 'clients', 'client-1', 'tasks', 'digits-abc', 'student'), await checkpoint(student));
  await manifest(at('served'), 'serve');
  await writeLayersModel(at('served', 'models', 'teacher'), await teacher.save());
  await manifest(at('unfinished'), 'serve');
  await manifest(at('simulated'), 'simulate');
  await mkdir(at('empty'));
  const two = at('two-tasks', 'tasks');
  for (const task of ['a', 'b']) {
    await mkdir(join(two, task), { recursive: true });
    await writeFile(join(two, task, 'student'), await checkpoint(student));
  }
  await mkdir(at('damaged', 'tasks', 'a'), { recursive: true });
  await writeFile(at('damaged', 'tasks', 'a', 'student'), (await checkpoint(student)).slice(0, 200));
  await writeFile(at('a-file'), '');
  const broken = await student.save();
  await writeLayersModel(at('diverged'), { ...broken, weights: new Uint8Array(broken.weights.length).fill(0xff) });
  const other = await engine.open({ kind: 'zoo', name: 'softmax-regression', exampleShape: [6, 6, 1], numClasses: 4 }, 1);
  await writeLayersModel(at('four-classes'), await other.save());
  await engine.dispose();
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => vi.restoreAllMocks());

async function trust(...args: string[]): Promise<string> {
  let output = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    output += String(chunk);
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
  const command = trustCommand();
  command.exitOverride().configureOutput({ writeErr: () => undefined });
  await command.parseAsync([...args, '--engine', 'tfjs-cpu', '--epsilons', '0.05,0.2', '--pgd-steps', '3'], { from: 'user' });
  return output;
}
const data = () => ['--data', at('demo', 'data', 'test')];

describe('fedstill trust', () => {
  it('takes the teacher and every student of a run, in order, with the test data of the run', async () => {
    const report = JSON.parse(await trust('--run', at('demo'), '--json', '--pictures', '2')) as TrustReport;
    expect(report.models.map(({ name, role }) => `${name} ${role}`)).toEqual(['teacher teacher', 'client-1 student', 'client-2 student', 'client-10 student']);
    expect(report.data).toMatchObject({ examples: 60, available: 60, numClasses: 3, exampleShape: [6, 6, 1], inputRange: { low: 0, high: 1 } });
    const [teacher, student] = report.models as [TrustReport['models'][number], TrustReport['models'][number]];
    expect(teacher.accuracy).toBeGreaterThan(0.7);
    expect(teacher).toMatchObject({ fidelity: null, saliency: null, largestChange: null, architecture: 'mlp-small' });
    expect(student.fidelity!.agreement).toBeGreaterThan(0.5);
    expect(student.saliency!.compared).toBe(60);
    expect(student.cost).toMatchObject({ parameters: 111, bytes: 444, multiplications: 108 });
    for (const { accuracy, attack } of report.models) for (const curve of [attack.fgsm, attack.pgd]) expect(curve.every((left) => left >= 0 && left <= accuracy)).toBe(true);
    expect(report.pictures).toHaveLength(2);
    expect(JSON.parse(await readFile(at('demo', 'trust', 'trust.json'), 'utf8'))).toEqual(report);
    expect(await readFile(at('demo', 'trust', 'trust.html'), 'utf8')).toContain('<h1>Trust report</h1>');
  });

  it('repeats everything but the latencies', async () => {
    const once = async () => JSON.parse(await trust(at('student'), '--teacher', at('teacher'), ...data(), '--examples', '25', '--seed', '5', '--json', '--out', at('out'))) as TrustReport;
    const strip = ({ models, data: of, pictures }: TrustReport) => ({ of, pictures, models: models.map(({ cost, ...model }) => ({ ...model, bytes: cost.bytes })) });
    const first = await once();
    expect(first.data).toMatchObject({ examples: 25, available: 60 });
    expect(strip(await once())).toEqual(strip(first));
    const all = images(4, 60);
    for (const { position, label, example } of first.pictures) {
      expect(label).toBe(all.labels[position]);
      expect(example).toEqual(Array.from(all.examples.values.subarray(36 * position, 36 * (position + 1)), (value) => Math.round(255 * value)));
    }
  });

  it('takes the test split of data that have both', async () => {
    const { data: used } = JSON.parse(await trust(at('student'), '--data', at('split'), '--json', '--pictures', '0', '--out', at('out-5'))) as TrustReport;
    expect(used).toMatchObject({ examples: 30, available: 30 });
  });

  it('prints a table with teacher and student side by side, and says that examples are shown', async () => {
    const text = await trust(at('served'), '--teacher', at('teacher'), ...data(), '--out', at('out-2'));
    expect(text).toMatch(/^ +teacher +served$/m);
    expect(text).toMatch(/^agreement, % +– +100\.0$/m); // the same model
    expect(text).toMatch(/^map correlation +– +1\.00 ± 0\.00$/m);
    expect(text).toMatch(/^PGD at 0\.2, % /m);
    expect(text).toContain('shows 6 of the examples');
    expect(text).toContain(at('out-2', 'trust.html'));
  });

  it('without a teacher there is nothing to agree with', async () => {
    const report = JSON.parse(await trust(at('two-tasks', 'tasks', 'b'), at('student'), ...data(), '--json', '--pictures', '0', '--out', at('out-3'))) as TrustReport;
    expect(report.models.map(({ name, fidelity }) => [name, fidelity])).toEqual([['two-tasks', null], ['student', null]]);
    expect(report.pictures).toEqual([]);
  });

  it('takes a federation inside a demo, whose folder has no manifest of its own', async () => {
    const report = JSON.parse(await trust('--run', at('demo', 'records'), ...data(), '--examples', '10', '--json', '--pictures', '0', '--out', at('out-6'))) as TrustReport;
    expect(report.models.map(({ name }) => name)).toEqual(['teacher', 'client-1']);
  });

  it('takes baselines when asked, and tells equal names apart', async () => {
    const report = JSON.parse(await trust(at('student'), at('student'), '--run', at('demo'), '--baseline', '--examples', '10', '--json', '--pictures', '0', '--out', at('out-4'))) as TrustReport;
    expect(report.models.map(({ name, role }) => `${name} ${role}`)).toEqual([
      'teacher teacher', 'client-1 student', 'client-1, alone baseline', 'client-2 student', 'client-2, alone baseline', 'client-10 student', 'client-10, alone baseline', 'student student', 'student (2) student',
    ]);
  });
});

describe('fedstill trust refuses, with what to do', () => {
  const cases: readonly (readonly [name: string, args: () => string[], expected: object])[] = [
    ['no model at all', () => data(), { code: 'usage-invalid', field: 'models' }],
    ['no data', () => [at('student')], { code: 'usage-invalid', field: '--data' }],
    ['a path that is not there', () => [at('nowhere'), ...data()], { code: 'file-unreadable', field: 'models', got: expect.stringContaining('nowhere') as string }],
    ['a teacher that is not there', () => [at('student'), '--teacher', at('nowhere'), ...data()], { code: 'file-unreadable', field: '--teacher' }],
    ['a folder without a model', () => [at('empty'), ...data()], { code: 'model-invalid', field: 'models' }],
    ['a file that is no model', () => [at('a-file'), ...data()], { code: 'file-unreadable' }],
    ['a run folder with several models', () => [at('demo'), ...data()], { code: 'usage-invalid', field: 'models', next: expect.stringContaining('--run') as string }],
    ['a state folder with several tasks', () => [at('two-tasks'), ...data()], { code: 'usage-invalid', got: 'a, b' }],
    ['a checkpoint that is cut off', () => [at('damaged'), ...data()], { code: 'state-mismatch' }],
    ['a run that is none', () => ['--run', at('empty'), ...data()], { code: 'file-unreadable', field: '--run' }],
    ['a simulation, which keeps no models', () => ['--run', at('simulated'), ...data()], { code: 'usage-invalid', field: '--run' }],
    ['a run that is not finished', () => ['--run', at('unfinished'), ...data()], { code: 'file-unreadable', next: expect.stringContaining('fedstill resume') as string }],
    ['a model for other classes', () => [at('four-classes'), '--teacher', at('teacher'), ...data(), '--out', at('x')], { code: 'model-invalid', field: 'model.outputShape' }],
    ['a model whose weights are no numbers', () => [at('diverged'), ...data(), '--out', at('x')], { code: 'data-invalid', got: expect.stringContaining('NaN') as string }],
    ['data that are not there', () => [at('student'), '--data', at('nowhere')], { code: 'file-unreadable' }],
    ['data of another shape', () => [at('student'), '--data', 'mnist'], { code: 'data-invalid' }],
    ['a range that does not hold the inputs', () => [at('student'), ...data(), '--input-range', '0.4,0.5'], { code: 'usage-invalid', field: '--input-range' }],
    ['a report over a file', () => [at('student'), ...data(), '--out', at('a-file')], { code: 'file-unreadable', field: '--out' }],
  ];
  it.each(cases)('%s', async (_, args, expected) => {
    await expect(trust(...args())).rejects.toMatchObject({ name: 'FederationError', exitStatus: 2, ...expected });
  });

  it.each([['--examples', '0'], ['--epsilons', '0.2,0.1'], ['--epsilons', 'x'], ['--bins', '1'], ['--input-range', '1,0'], ['--seed', '-1'], ['--model-output', 'scores']])('%s %s', async (...flag) => {
    const command = trustCommand().exitOverride().configureOutput({ writeErr: () => undefined });
    await expect(command.parseAsync([at('student'), ...data(), ...flag], { from: 'user' })).rejects.toThrow(/invalid/);
  });
});
