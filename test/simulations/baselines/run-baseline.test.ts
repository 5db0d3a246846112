/** Every baseline on a toy problem: what it moves, what it ends with, and that threads change nothing. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeEngine } from '../../../shared/compute/engine.ts';
import { selectEngine } from '../../../shared/compute/select-engine.ts';
import { openWorkerPool } from '../../../shared/compute/worker-pool.ts';
import { meanLogits } from '../../../shared/distillation/aggregation.ts';
import { softmax } from '../../../shared/distillation/temperature.ts';
import { syntheticExamples } from '../../../shared/datasets/synthetic.ts';
import type { RunEvent } from '../../../shared/ports/event-sink.ts';
import type { Matrix } from '../../../shared/types/matrix.ts';
import { distilEnsemble } from '../../../simulations/baselines/fed-avg.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';
import { loadScenarioData } from '../../../simulations/load-scenario.ts';
import { OutcomeSchema, type Outcome } from '../../../simulations/outcome.ts';
import { runScenario } from '../../../simulations/run-scenario.ts';
import { parseScenario } from '../../../simulations/scenario.ts';
import { mean } from '../../../simulations/spread.ts';

let engine: ComputeEngine;
beforeAll(async () => {
  engine = await selectEngine('tfjs');
});
afterAll(() => engine.dispose());

const algorithms = {
  centralized: '{ kind: centralized, epochs: 10 }',
  localOnly: '{ kind: localOnly, epochs: 10 }',
  fedAvg: '{ kind: fedAvg, localEpochs: 2 }',
  fedDf: '{ kind: fedDf, localEpochs: 2, distillationSteps: 20, distillationBatchSize: 32 }',
  fedKt: '{ kind: fedKt, teachers: 2, teacherEpochs: 10, studentEpochs: 6, finalEpochs: 6 }',
  pate: '{ kind: pate, teachers: 3, teacherEpochs: 10, studentEpochs: 6 }',
} as const;
type Kind = keyof typeof algorithms;

interface Changes {
  readonly on?: ComputeEngine;
  readonly seed?: number;
  readonly clients?: number;
  readonly schedule?: string;
  readonly signal?: AbortSignal;
  readonly algorithm?: string;
  readonly events?: RunEvent[];
}

/** Clients with three of four classes and 60 records each. */
async function run(kind: Kind, { on = engine, seed = 1, clients = 4, schedule = '{ rounds: 2, minClients: 4 }', signal, algorithm = algorithms[kind], events = [] }: Changes = {}): Promise<Outcome> {
  const scenario = parseScenario(
    `
scenario: toy
task:
  task: toy
  seed: ${seed}
  data: { numClasses: 4, exampleShape: [6] }
  transferSet: { source: synthetic, size: 120, seed: 2 }
  evaluationSet: { source: synthetic, size: 80, seed: 3 }
  student: { model: softmax-regression, batchSize: 20, optimizer: { kind: adam, learningRate: 0.1 } }
  schedule: ${schedule}
algorithm: ${algorithm}
clients:
  groups: [{ count: ${clients}, model: softmax-regression }]
  data: { source: synthetic, size: ${60 * clients}, seed: 4 }
  partition: { kind: shards, classesPerClient: 3 }
  testSet: { source: synthetic, size: 200, seed: 5 }
`,
    'toy.yaml',
  );
  const outcome = await runScenario({ scenario, data: await loadScenarioData(scenario, '.'), engine: on, random: () => new InsecureSeededRandom(1), events: { emit: (event) => events.push(event) }, ...(signal === undefined ? {} : { signal }) });
  return OutcomeSchema.parse(outcome);
}

const weightBytes = 4 * (6 * 4 + 4);

describe('a baseline', () => {
  it('beats local training in strong label skew when it is FedKT or PATE, and pooled records bound it', { timeout: 60_000 }, async () => {
    const clients = 8; // each class is known to six of them
    const [local, fedKt, pate, centralized] = [await run('localOnly', { clients }), await run('fedKt', { clients, algorithm: '{ kind: fedKt, teachers: 2, teacherEpochs: 20, studentEpochs: 15, finalEpochs: 15 }' }), await run('pate', { clients }), await run('centralized', { clients })];
    const alone = mean(local.clients.map(({ accuracy }) => accuracy!));
    expect(alone).toBeLessThanOrEqual(0.78); // a quarter of the test set is of a class that was never seen
    expect(fedKt.final!.accuracy!).toBeGreaterThan(alone + 0.1);
    expect(pate.final!.accuracy!).toBeGreaterThan(alone + 0.1);
    expect(centralized.final!.accuracy!).toBeGreaterThanOrEqual(fedKt.final!.accuracy!);
    expect(local.final).toBeNull();
    expect(local.clients.map(({ localOnlyAccuracy }) => localOnlyAccuracy)).toEqual(local.clients.map(({ accuracy }) => accuracy));
  });

  it('counts what would have moved: weights both ways, class ids, or records', async () => {
    for (const kind of ['fedAvg', 'fedDf'] as const) {
      const { rounds, bytesUp, bytesDown } = await run(kind);
      expect(rounds.map((round) => [round.round, round.contributions, round.bytesUp, round.bytesDown])).toEqual([
        [1, 4, 4 * weightBytes, 4 * weightBytes],
        [2, 4, 8 * weightBytes, 8 * weightBytes],
      ]);
      expect([bytesUp, bytesDown]).toEqual([8 * weightBytes, 8 * weightBytes]);
    }
    // Four clients with two students each and 120 transfer examples; 240 records of six floats and a class id.
    expect(await run('fedKt')).toMatchObject({ bytesUp: 4 * 2 * 120, bytesDown: 0 });
    for (const kind of ['pate', 'centralized'] as const) expect(await run(kind)).toMatchObject({ bytesUp: 240 * (6 * 4 + 1), bytesDown: 0 });
    expect(await run('localOnly')).toMatchObject({ bytesUp: 0, bytesDown: 0 });
  });

  it('claims nothing', async () => {
    for (const kind of ['fedAvg', 'fedKt'] as const) expect((await run(kind)).statement).toBeNull();
  });

  it('samples cohorts for weights as the schedule says', async () => {
    const { rounds } = await run('fedAvg', { schedule: '{ rounds: 3, minClients: 4, cohortSize: 2 }' });
    expect(rounds.map(({ contributions, bytesUp }) => [contributions, bytesUp])).toEqual([[2, 2 * weightBytes], [2, 4 * weightBytes], [2, 6 * weightBytes]]);
  });

  it('has the same outcome and events bit for bit with one worker, with two, and without any', { timeout: 60_000 }, async () => {
    const [one, two] = [await openWorkerPool({ workers: 1, engine: 'tfjs' }), await openWorkerPool({ workers: 2, engine: 'tfjs' })];
    try {
      for (const kind of Object.keys(algorithms) as Kind[]) {
        const [here, alone, together]: [RunEvent[], RunEvent[], RunEvent[]] = [[], [], []];
        const expected = await run(kind, { events: here });
        expect(await run(kind, { on: one, events: alone })).toEqual(expected);
        expect(await run(kind, { on: two, events: together })).toEqual(expected);
        expect(alone).toEqual(here);
        expect(together).toEqual(here);
      }
    } finally {
      await Promise.all([one.dispose(), two.dispose()]);
    }
  });

  it('differs by seed', async () => {
    expect((await run('fedKt', { seed: 2 })).final).not.toEqual((await run('fedKt')).final);
  });

  it('ends with the reason of an abort, with no training under way any more', async () => {
    const pool = await openWorkerPool({ workers: 2, engine: 'tfjs' });
    const abort = new AbortController();
    const events: RunEvent[] = { push: () => abort.abort(new Error('enough')) } as unknown as RunEvent[];
    await expect(run('fedKt', { on: pool, signal: abort.signal, events })).rejects.toThrow('enough');
    await pool.dispose();
  });

  it('names the client that has fewer records than teachers', async () => {
    await expect(run('fedKt', { algorithm: '{ kind: fedKt, teachers: 70 }' })).rejects.toMatchObject({ code: 'data-invalid', field: 'algorithm.teachers', expected: 'at most 60', got: '70', message: expect.stringContaining('client-1') });
  });
});

describe('the distillation of FedDF', () => {
  it('brings the student nearer to the mean of the logits', async () => {
    const { examples } = syntheticExamples({ size: 60, seed: 1, centerSeed: 0, exampleShape: [6], numClasses: 4 });
    const source = { kind: 'zoo', name: 'softmax-regression', exampleShape: [6], numClasses: 4 } as const;
    const opened = await Promise.all([1, 2, 3].map((seed) => engine.open(source, seed)));
    const teachers = await Promise.all(opened.slice(1).map((model) => model.predict(examples)));
    const student = opened[0]!;
    const target = softmax(meanLogits(teachers).consensus);
    const divergence = async () => kullbackLeibler(target, softmax(await student.predict(examples)));
    const before = await divergence();
    const data = { pool: { examples, labels: new Int32Array(60), numClasses: 4 }, transferSet: examples, evaluationSet: undefined, testSet: undefined };
    await distilEnsemble(student, teachers, { distillationSteps: 1, distillationBatchSize: 60, distillationLearningRate: 0.01 }, 1, { data });
    const after = await divergence();
    expect(after).toBeLessThan(before);
    await distilEnsemble(student, teachers, { distillationSteps: 200, distillationBatchSize: 60, distillationLearningRate: 0.01 }, 1, { data });
    expect(await divergence()).toBeLessThan(0.2 * after);
    await Promise.all(opened.map((model) => model.dispose()));
  });
});

/** Mean KL(p || q) over the rows, in nats. */
function kullbackLeibler(p: Matrix, q: Matrix): number {
  return p.values.reduce((sum, value, i) => sum + value * Math.log(value / q.values[i]!), 0) / p.rows;
}
