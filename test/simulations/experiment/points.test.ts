import fc from 'fast-check';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { parse } from 'yaml';
import { configIssues } from '../../../shared/config/load.ts';
import { digestData } from '../../../simulations/experiment/data-digests.ts';
import { makePoints, pointKey, type Point } from '../../../simulations/experiment/points.ts';
import { readSweep } from '../../../simulations/experiment/sweep-files.ts';
import { parseSweep, SweepSchema } from '../../../simulations/experiment/sweep.ts';
import { checkScenario } from '../../../simulations/scenario.ts';
import { tinyScenario } from './tiny-scenario.ts';

const base = parse(tinyScenario) as Record<string, Record<string, unknown>>;
const context = { version: '1', engine: 'tfjs-wasm', dataDigests: () => Promise.resolve({}) };
const sweepOf = (vary: object, seeds = [1]) => SweepSchema.parse({ experiment: 'x', scenario: 'x.yaml', seeds, vary });
const pointsOf = (vary: object, seeds?: number[], from: Record<string, unknown> = base): Promise<Point[]> => makePoints(sweepOf(vary, seeds), from, 'sweep.yaml', context);

describe('points', () => {
  it('are settings with seeds, the seeds innermost, as scenarios with every default', async () => {
    const points = await pointsOf({ grid: { 'task.student.digestEpochs': [1, 4] } }, [5, 6]);
    expect(points.map(({ index, seed, settings, scenario }) => [index, seed, settings, scenario.task.seed, scenario.task.student.digestEpochs])).toEqual([
      [0, 5, { 'task.student.digestEpochs': 1 }, 5, 1],
      [1, 6, { 'task.student.digestEpochs': 1 }, 6, 1],
      [2, 5, { 'task.student.digestEpochs': 4 }, 5, 4],
      [3, 6, { 'task.student.digestEpochs': 4 }, 6, 4],
    ]);
    expect(points[0]!.scenario.network.latencyMs).toBe(20);
  });

  it('set keys in lists by position, replace sections whole, make those that are missing, and take keys away', async () => {
    const [first, second] = await pointsOf({
      cases: [
        { label: 'a', set: { 'clients.groups[0].count': 7, 'task.teacher': { kind: 'consensus' }, 'network.lossRate': 0.1 } },
        { label: 'b', set: { 'task.evaluationSet': null } },
      ],
    });
    expect(first!.scenario).toMatchObject({ clients: { groups: [{ count: 7 }] }, task: { teacher: { kind: 'consensus' } }, network: { lossRate: 0.1 } });
    expect(second!.scenario.task.evaluationSet).toBeUndefined();
    // Every varied path has a value in every point, so that tables are rectangular.
    expect(second!.settings).toEqual({ 'clients.groups.0.count': 4, 'task.teacher': { kind: 'learner', model: 'softmax-regression', epochs: 2 }, 'network.lossRate': 0, 'task.evaluationSet': null });
  });

  it('are all checked before one is run, the mistakes of all of them reported, each once', async () => {
    const error: unknown = await pointsOf({ grid: { 'task.schedule.quorum': [1, 9], 'task.privacy.epsilon': [3], 'clients.groups.1.count': [1] } }).catch((reason: unknown) => reason);
    expect(configIssues(error).map(({ path, expected, got }) => [path, expected, got])).toEqual([
      ['clients.groups.1.count', 'a position from 0 to 0 in clients.groups', '1 (with every setting)'],
      ['task.privacy.epsilon', 'no epsilon, because privacy.mechanism is none', '3 (with every setting)'],
      ['task.schedule.minClients', 'at least schedule.quorum (9)', expect.stringMatching(/^4 \(with 1 of 2 settings, first task.schedule.quorum = 9, /) as string],
    ]);
  });
});

describe('the examples', () => {
  const root = fileURLToPath(new URL('../../../', import.meta.url));

  it('in simulations/experiments are valid, points and all', async () => {
    const names = (await readdir(join(root, 'simulations/experiments'))).filter((name) => name.endsWith('.yaml'));
    expect(names.length).toBeGreaterThan(1);
    for (const name of names) {
      const { sweep, base: scenario, fileName } = await readSweep(join(root, 'simulations/experiments', name));
      expect((await makePoints(sweep, scenario, fileName, context)).length, name).toBeGreaterThan(1);
    }
  });

  it('in docs/experiments.md is valid too', async () => {
    const [, text] = /```yaml\n([\s\S]*?)```/.exec(await readFile(join(root, 'docs/experiments.md'), 'utf8'))!;
    const sweep = parseSweep(text!, 'docs/experiments.md');
    const scenario = parse(await readFile(join(root, 'simulations/scenarios/label-skew.yaml'), 'utf8')) as Record<string, unknown>;
    expect(await makePoints(sweep, scenario, 'docs/experiments.md', context)).toHaveLength(2 * 2 * 2 * 5 * 3);
  });
});

describe('the hash of a point', () => {
  const keyOf = (value: object, changes: Partial<Parameters<typeof pointKey>[1]> = {}) => pointKey(checkScenario(value, 'x'), { version: '1', engine: 'tfjs-wasm', dataDigests: {}, ...changes });

  it('does not depend on the order of keys, nor on whether a default is written out', () => {
    const shuffled = (node: unknown, seed: number): unknown => {
      if (Array.isArray(node)) return node.map((one) => shuffled(one, seed));
      if (typeof node !== 'object' || node === null) return node;
      const entries = Object.entries(node).map(([key, one]) => [key, shuffled(one, seed)] as const);
      return Object.fromEntries(entries.sort(([a], [b]) => Math.sin(seed + a.length + a.charCodeAt(0)) - Math.sin(seed + b.length + b.charCodeAt(0))));
    };
    fc.assert(fc.property(fc.integer({ min: 1, max: 1e6 }), (seed) => void expect(keyOf(shuffled(base, seed) as object)).toBe(keyOf(base))), { numRuns: 20 });
    expect(keyOf({ ...base, network: { latencyMs: 20 } })).toBe(keyOf(base));
  });

  it('changes with everything that a result depends on', () => {
    const { task, clients } = base as { task: Record<string, unknown>; clients: Record<string, unknown> };
    const keys = [
      keyOf(base),
      keyOf({ ...base, task: { ...task, seed: 2 } }),
      keyOf({ ...base, task: { ...task, distillation: { temperature: 1 } } }),
      keyOf({ ...base, clients: { ...clients, groups: [{ count: 5, model: 'softmax-regression' }] } }),
      keyOf({ ...base, clients: { ...clients, testSet: { source: 'synthetic', size: 61, seed: 10 } } }),
      keyOf({ ...base, network: { lossRate: 0.1 } }),
      keyOf(base, { version: '2' }),
      keyOf(base, { engine: 'onnx' }),
      keyOf(base, { dataDigests: { 'clients.data': 'aa' } }),
      keyOf(base, { dataDigests: { 'clients.data': 'ab' } }),
      keyOf(base, { dataDigests: { 'task.transferSet': 'aa' } }),
    ];
    expect(new Set(keys).size).toBe(keys.length);
    for (const key of keys) expect(key).toMatch(/^[0-9a-f]{16}$/);
  });

  it('knows the bytes of files that a user names, in a folder too, and names the one that is missing', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'fedstill-digests-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const scenario = (path: string) => checkScenario({ ...base, clients: { ...base['clients'], data: { source: 'csv', path, labelColumn: 'y' } } }, 'x');
    await writeFile(join(folder, 'a.csv'), '1,2\n');
    await writeFile(join(folder, 'b.csv'), '1,2\n');
    const first = await digestData(folder)(scenario('a.csv'));
    expect(Object.keys(first)).toEqual(['clients.data']);
    expect(await digestData(folder)(scenario('b.csv'))).toEqual(first);
    await writeFile(join(folder, 'a.csv'), '1,3\n');
    const second = await digestData(folder)(scenario('a.csv'));
    expect(second).not.toEqual(first);
    const whole = await digestData(folder)(scenario('.'));
    await writeFile(join(folder, 'c.csv'), '');
    expect(await digestData(folder)(scenario('.'))).not.toEqual(whole);
    await expect(digestData(folder)(scenario('none.csv'))).rejects.toMatchObject({ code: 'file-unreadable', field: 'clients.data' });
    expect(await digestData(folder)(checkScenario(base, 'x'))).toEqual({});
  });
});
