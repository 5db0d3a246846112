/** The teacher that labels the whole transfer set from votes on a few of its examples. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clusterMiddles } from '../../../server/coordinator/semi-supervised-teacher.ts';
import { openTeacher, type TeacherDeps } from '../../../server/coordinator/teacher.ts';
import type { ComputeEngine } from '../../../shared/compute/engine.ts';
import { selectEngine } from '../../../shared/compute/select-engine.ts';
import { TaskConfigSchema, type TaskConfig } from '../../../shared/config/task-config.ts';
import { SeededGenerator } from '../../../shared/datasets/seeded-generator.ts';
import type { RoundId } from '../../../shared/types/ids.ts';
import type { LabelledExamples, Matrix } from '../../../shared/types/matrix.ts';
import { MemoryStore } from '../../../simulations/memory-store.ts';

const examples = 900;
const config = TaskConfigSchema.parse({
  task: 'blobs',
  seed: 3,
  data: { numClasses: 3, exampleShape: [4] },
  transferSet: { source: 'synthetic', size: examples },
  teacher: { kind: 'semiSupervised', model: 'mlp-small' },
  aggregation: { aggregator: 'meanVotes' },
  schedule: { transferBatch: 9, querySelection: 'clusterMiddles', rounds: 1 },
}) as TaskConfig;

/** Three clouds in four dimensions: one a class. */
function clouds(count: number, seed: number): LabelledExamples {
  const generator = new SeededGenerator(seed);
  const labels = Int32Array.from({ length: count }, (_, i) => i % 3);
  const values = Float32Array.from({ length: 4 * count }, (_, at) => (labels[Math.floor(at / 4)] === at % 4 ? 4 : 0) + generator.gaussian());
  return { examples: { count, shape: [4], values }, labels, numClasses: 3 };
}

const transfer = clouds(examples, 1);
let engine: ComputeEngine;
beforeAll(async () => {
  engine = await selectEngine('tfjs-wasm');
});
afterAll(() => engine.dispose());

const deps = (store: MemoryStore): TeacherDeps => ({ config, engine, store, transferSet: transfer.examples, evaluationSet: clouds(150, 2), pretrained: undefined });
const everything = Uint32Array.from({ length: examples }, (_, row) => row);

/** Shares of votes for the true class, less noise of a tenth: also below 0. */
function noisedVotes(rows: Uint32Array): Matrix {
  const generator = new SeededGenerator(5);
  return { rows: rows.length, columns: 3, values: Float32Array.from({ length: 3 * rows.length }, (_, at) => (transfer.labels[rows[Math.floor(at / 3)]!] === at % 3 ? 0.6 : 0) + 0.1 * generator.gaussian()) };
}

describe('a semi-supervised teacher', () => {
  it('labels everything from votes on a few, remembers it, and learns from a round once', async () => {
    const store = new MemoryStore();
    const query = clusterMiddles(transfer.examples, 9, config.seed);
    expect(query).toHaveLength(9);
    expect([...query]).toEqual([...new Set(query)].sort((a, b) => a - b));
    const teacher = await openTeacher(deps(store));
    expect(await teacher.labels(everything)).toBeUndefined();
    const quality = await teacher.learn(1 as RoundId, query, { consensus: noisedVotes(query), kind: 'probabilities' });
    expect(quality.accuracy).toBeGreaterThan(0.95);
    const labels = (await teacher.labels(everything))!;
    expect(labels.kind).toBe('probabilities');
    const right = everything.filter((row) => {
      const ofRow = labels.matrix.values.subarray(3 * row, 3 * row + 3);
      expect(ofRow.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 4);
      return ofRow.indexOf(Math.max(...ofRow)) === transfer.labels[row];
    }).length;
    expect(right).toBeGreaterThan(0.95 * examples);

    const again = await openTeacher(deps(store));
    expect((await again.labels(everything))!.matrix.values).toEqual(labels.matrix.values);
    expect(await again.learn(1 as RoundId, query, { consensus: noisedVotes(query.map((row) => (row + 1) % examples)), kind: 'probabilities' })).toEqual(quality);
    expect((await again.labels(everything))!.matrix.values).toEqual(labels.matrix.values);
    await teacher.dispose();
    await again.dispose();
  });
});
