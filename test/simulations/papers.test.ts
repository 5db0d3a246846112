/** The sweeps of published tables say what the tables' papers say. */
import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { makePoints, type Point } from '../../simulations/experiment/points.ts';
import { readSweep } from '../../simulations/experiment/sweep-files.ts';

const folder = fileURLToPath(new URL('../../simulations/papers/', import.meta.url));
const pointsOf = async (name: string): Promise<Point[]> => {
  const { sweep, base, fileName } = await readSweep(`${folder}${name}`);
  return makePoints(sweep, base, fileName, { version: 'test', engine: 'test', dataDigests: () => Promise.resolve({}) });
};

describe('the sweeps of published tables', () => {
  it('are valid scenarios, each with three seeds at least', async () => {
    const files = (await readdir(folder)).filter((name) => name.endsWith('.yaml'));
    expect(files).toContain('fedkt-mnist-mlp.yaml');
    for (const name of files) {
      const seeds = new Map<string | null, number[]>();
      for (const { scenario, case: label } of await pointsOf(name)) seeds.set(label, [...(seeds.get(label) ?? []), scenario.task.seed]);
      for (const of of seeds.values()) expect(of.slice(0, 3)).toEqual([1, 2, 3]);
    }
  });

  it('hold what is measured on apart from what is learned from', async () => {
    for (const { scenario: { task, clients } } of await pointsOf('fedkt-mnist-mlp.yaml')) {
      expect(task.transferSet).toMatchObject({ source: 'mnist', split: 'test', offset: 0, size: 5000 });
      expect(clients.testSet).toMatchObject({ source: 'mnist', split: 'test', offset: 5000 });
      expect(clients.data).toMatchObject({ source: 'mnist', split: 'train' });
    }
  });

  it('split the records among FedKT\'s parties as its authors do, or into the very numbers that their code draws', async () => {
    for (const { scenario: { clients } } of await pointsOf('fedkt-mnist-mlp.yaml')) {
      expect(clients.partition).toMatchObject({ kind: 'dirichlet', alpha: 0.5, balanced: true, minPerClient: 10 });
    }
    for (const { scenario: { clients } } of [...(await pointsOf('fedkt-mnist-mlp-split.yaml')), ...(await pointsOf('fedkt-mnist-lenet.yaml'))]) {
      if (clients.partition.kind !== 'counts') throw new Error('expected counts');
      const { counts } = clients.partition;
      // Every record of MNIST is dealt; who has 6,000 before a class gets none of it.
      expect(Array.from({ length: 10 }, (_, label) => counts.reduce((sum, row) => sum + row[label]!, 0))).toEqual([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
      for (const row of counts) expect(row.slice(0, row.findLastIndex((count) => count > 0)).reduce((a, b) => a + b)).toBeLessThan(6000);
    }
  });

  it('give all methods of FedKT\'s table one round, one model and one optimizer', async () => {
    for (const [name, model] of [['fedkt-mnist-mlp.yaml', 'mlp-100-100'], ['fedkt-mnist-mlp-split.yaml', 'mlp-100-100'], ['fedkt-mnist-lenet.yaml', 'lenet']] as const) {
      for (const { scenario: { task, clients, algorithm } } of await pointsOf(name)) {
        expect(task.schedule.rounds).toBe(1);
        expect(task.student).toMatchObject({ batchSize: 32, optimizer: { kind: 'adam', learningRate: 0.001 }, l2: 0, dropout: 0 });
        expect(clients.groups).toMatchObject([{ count: 10, model }]);
        expect(algorithm).toMatchObject({ weightDecay: 1e-5 });
      }
    }
  });
});
