/** Sample-and-aggregate at the client: one record is in one shard, and nothing but its shard's model knows it. */
import { describe, expect, it } from 'vitest';
import { contributionGrid } from '../../client/participant/contribution.ts';
import { assignShards, ShardModels, type ShardModelsInit } from '../../client/participant/shard-models.ts';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { createOnnxEngine } from '../../shared/compute/onnx/onnx-engine.ts';
import { createTfjsEngine } from '../../shared/compute/tfjs-engine.ts';
import { FederationError } from '../../shared/errors.ts';
import { planRelease, releaseSensitivity, type ReleaseParameters } from '../../shared/privacy/release.ts';
import { TaskDocumentSchema, type TaskDocument } from '../../shared/protocol/messages.ts';
import type { Digest } from '../../shared/types/ids.ts';
import { selectExamples, selectLabelled, type Examples, type LabelledExamples } from '../../shared/types/matrix.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { MemoryStore } from '../../simulations/memory-store.ts';
import { VirtualClock } from '../../simulations/network/virtual-clock.ts';
import { FakeEngine } from '../support/fake-engine.ts';
import { withOnnxRuntime } from '../support/onnx-runtime.ts';
import { FakeCoordinator, numClasses, transferRows } from './fake-coordinator.ts';
import { rejection, Scene, toyData } from './harness.ts';
import { SecureScene } from './secure-harness.ts';

const [key, otherKey] = ['1', '2'].map((digit) => `sha256:${digit.repeat(64)}` as Digest) as [Digest, Digest];
const never = new AbortController().signal;
const shards = 5;
const query: Examples = selectExamples(toyData(30, 7).examples, [0, 3, 5, 8, 13, 21]);
const release = (change: object = {}): ReleaseParameters => planRelease({ mechanism: 'none', outputKind: 'probabilities', rows: 6, columns: numClasses, gridStep: 1 / 4096, delta: 1e-5, releases: 1, shards, votes: true, ...change });

function taskWith(settings: Partial<NonNullable<TaskDocument['privacy']['sampleAndAggregate']>> = {}): TaskDocument {
  const task = TaskDocumentSchema.parse(new FakeCoordinator(new VirtualClock(), { shards, outputKind: 'probabilities' }).taskValue());
  return { ...task, privacy: { ...task.privacy, sampleAndAggregate: { ...task.privacy.sampleAndAggregate!, ...settings } } };
}
const setUp = (change: Partial<ShardModelsInit> = {}): ShardModelsInit & { readonly engine: FakeEngine } =>
  ({ engine: new FakeEngine(), store: new MemoryStore(), task: taskWith(), taskDigest: key, privateDataset: toyData(40), transferSet: query, ...change }) as ShardModelsInit & { readonly engine: FakeEngine };
const predictWith = async (init: ShardModelsInit, parameters = release()) => (await ShardModels.train(init, never)).predict(query, parameters, never);

/** An engine whose models favour one class everywhere, and which one depends on every record they have seen: what one record can do at most. */
function touchyEngine(): FakeEngine {
  const engine = new FakeEngine();
  const open = engine.open.bind(engine);
  engine.open = async (source, seed) => {
    const model = await open(source, seed);
    const predict = model.predict.bind(model);
    model.predict = async (examples) => {
      const matrix = await predict(examples);
      const favourite = Math.abs(Math.round(1e3 * matrix.values[0]!)) % matrix.columns;
      return { ...matrix, values: matrix.values.map((value, i) => (i % matrix.columns === favourite ? value + 50 : value)) };
    };
    return model;
  };
  return engine;
}

/** The data with another record at a position. */
function replaced(data: LabelledExamples, position: number): LabelledExamples {
  const values = data.examples.values.slice();
  values.fill(50, 4 * position, 4 * position + 4);
  return { ...data, examples: { ...data.examples, values } };
}

describe('assignShards', () => {
  it('puts every record into exactly one shard, about as many into each', () => {
    const assignment = assignShards(5000, 10, key);
    expect([...assignment.flatMap((positions) => [...positions])].sort((a, b) => a - b)).toEqual(Array.from({ length: 5000 }, (_, i) => i));
    // Binomial(5000, 1/10): 500 +- 5 standard deviations of 21.
    for (const { length } of assignment) expect(Math.abs(length - 500)).toBeLessThan(107);
  });

  it('depends on the position and the task alone: further records move none', () => {
    const [few, many] = [assignShards(100, 7, key), assignShards(101, 7, key)];
    const before = few.map((positions) => positions.join());
    expect(many.map((positions) => positions.filter((position) => position < 100).join())).toEqual(before);
    expect(assignShards(100, 7, otherKey).map((positions) => positions.join())).not.toEqual(before);
  });

  it('may leave shards empty', () => {
    expect(assignShards(3, 10, key).filter(({ length }) => length === 0).length).toBeGreaterThanOrEqual(7);
  });
});

describe('one record', () => {
  it('is in one shard: another one in its place changes the training of that model, and of no other', async () => {
    const data = toyData(40);
    const assignment = assignShards(40, shards, key);
    for (const position of [0, 17, 39]) {
      const [before, after] = [setUp(), setUp({ privateDataset: replaced(data, position) })];
      const [first, second] = [await predictWith(before), await predictWith(after)];
      const changed = first.flatMap((matrix, shard) => (matrix.values.some((value, i) => value !== second[shard]!.values[i]) ? [shard] : []));
      expect(changed).toEqual([assignment.findIndex((positions) => positions.includes(position))]);
      // Everything but the records is the same for all data: seeds, epochs, optimizer.
      const settingsOf = ({ engine }: { readonly engine: FakeEngine }) => engine.fits.map(({ options: { signal: _signal, ...options } }) => options);
      expect(settingsOf(after)).toEqual(settingsOf(before));
    }
  });

  it.each([
    ['votes', {}],
    ['probabilities', { votes: false }],
    ['logits', { votes: false, outputKind: 'logits' as const, rowClippingNorm: 2 }],
  ])('changes the contribution by no more than is published: %s', async (_name, change) => {
    const parameters = release(change);
    const bound = releaseSensitivity(parameters);
    const document = { release: parameters, cohort: { size: 8, quorum: 6 }, trustMode: 'secure-aggregation', secureAggregation: { minCohort: 6, minSurvivors: 6, maxCorrupt: 1, stageDeadlineMs: 1000 } } as const;
    const gridOf = async (privateDataset: LabelledExamples) =>
      contributionGrid({ document, predictions: await predictWith(setUp({ engine: touchyEngine(), privateDataset, task: taskWith({ votes: parameters.votes === true }) }), parameters), random: new InsecureSeededRandom(1) });
    const before = await gridOf(toyData(40));
    let largest = 0;
    for (let position = 0; position < 40; position += 3) {
      const after = await gridOf(replaced(toyData(40), position));
      largest = Math.max(largest, Math.hypot(...before.map((value, i) => value - after[i]!)));
    }
    // The bound is nearly reached, so a smaller one would be wrong. (Clipped logits of one sign don't reach theirs.)
    expect(largest).toBeGreaterThan((parameters.outputKind === 'logits' ? 0.5 : 0.99) * bound.l2.replaceOne);
    expect(largest).toBeLessThanOrEqual(bound.l2.replaceOne);
  });
});

describe('a record with which training diverges', () => {
  const silences = async (engine: ComputeEngine) => {
    const data = toyData(40);
    const spoiled = data.examples.values.slice();
    spoiled.fill(NaN, 4 * 17, 4 * 18);
    const task = taskWith({ model: 'softmax-regression' });
    const store = new MemoryStore();
    const init = { ...setUp(), engine, task };
    const before = await predictWith(init);
    const after = await predictWith({ ...init, store, privateDataset: { ...data, examples: { ...data.examples, values: spoiled } } });
    const own = assignShards(40, shards, key).findIndex((positions) => positions.includes(17));
    after.forEach(({ values }, shard) => expect(values, `shard ${shard}`).toEqual(shard === own ? new Float32Array(6 * numClasses) : before[shard]!.values));
    expect((await store.getBlob(`shards/model-${own}`))?.length).toBe(0);
    await engine.dispose();
  };
  withOnnxRuntime(() => it('silences its shard, changes no other one and stops nobody: onnx', async () => silences(await createOnnxEngine())));
  it('silences its shard, changes no other one and stops nobody: tfjs-cpu', async () => silences(await createTfjsEngine('tfjs-cpu')));

  it('is told apart from a model or an engine that fails: those do stop', async () => {
    for (const error of [new FederationError('model-invalid', 'It does not take these examples.', { field: 'model.inputShape' }), new FederationError('engine-unavailable', 'The engine is gone.'), new Error('disk')]) {
      const init = setUp();
      const open = init.engine.open.bind(init.engine);
      init.engine.open = async (...parameters) => Object.assign(await open(...parameters), { fit: () => Promise.reject(error) });
      expect(await rejection(ShardModels.train(init, never))).toBe(error);
    }
  });
});

describe('ShardModels', () => {
  it('goes on with the records with which it began, and with no others: a record that moves would be in two shards', async () => {
    const data = toyData(40);
    const init = setUp({ privateDataset: data });
    const controller = new AbortController();
    await rejection(ShardModels.train({ ...init, onTrained: (done) => done === 2 && controller.abort(new Error('killed')) }, controller.signal));
    const order = Uint32Array.from({ length: 40 }, (_, i) => 39 - i);
    const others = { 'another order': selectLabelled(data, order), 'one more': toyData(41), 'another record': replaced(data, 3), 'another label': { ...data, labels: data.labels.map((label, i) => (i === 3 ? (label + 1) % numClasses : label)) } };
    for (const [what, privateDataset] of Object.entries(others)) {
      expect(await rejection(ShardModels.train({ ...init, privateDataset }, never)), what).toMatchObject({ code: 'state-mismatch', field: 'private dataset' });
    }
    expect(init.engine.fits).toHaveLength(2);
    await ShardModels.train(init, never);
    expect(init.engine.fits).toHaveLength(shards);
    // Also when all are trained: which shards are empty would follow the new records.
    expect(await rejection(ShardModels.train({ ...init, privateDataset: toyData(2) }, never))).toMatchObject({ code: 'state-mismatch' });
  });

  it('goes on with the next shard when it was killed, and trains none twice', async () => {
    const init = setUp();
    const controller = new AbortController();
    const stopped = new Error('killed');
    await expect(ShardModels.train({ ...init, onTrained: (done) => done === 2 && controller.abort(stopped) }, controller.signal)).rejects.toBe(stopped);
    expect(init.engine.fits).toHaveLength(2);
    const predictions = await predictWith(init);
    expect(init.engine.fits).toHaveLength(shards);
    expect(predictions).toEqual(await predictWith(setUp()));
    await predictWith(init);
    expect(init.engine.fits).toHaveLength(shards);
  });

  it('has one model open at a time, and none in the end, also when it fails', async () => {
    const init = setUp();
    const open = init.engine.open.bind(init.engine);
    let most = 0;
    init.engine.open = async (...parameters) => {
      const model = await open(...parameters);
      most = Math.max(most, init.engine.openModels);
      return model;
    };
    const models = await ShardModels.train(init, never);
    await models.predict(query, release(), never);
    expect(most).toBe(1);
    const aborted = AbortSignal.abort(new Error('enough'));
    expect(await rejection(models.predict(query, release(), aborted))).toMatchObject({ message: 'enough' });
    await init.store.deleteBlob('shards/model-1');
    expect(await rejection(models.predict(query, release(), never))).toMatchObject({ code: 'state-mismatch' });
    await init.store.putBlob('shards/model-1', Uint8Array.of(1, 2, 3));
    expect(await rejection(models.predict(query, release(), never))).toMatchObject({ code: 'state-mismatch' });
    expect(init.engine.openModels).toBe(0);
  });

  it('casts no vote for an empty shard, a doubtful row, or a model that diverged', async () => {
    const grid = async (init: ShardModelsInit, parameters = release()) =>
      contributionGrid({ document: { release: parameters, cohort: { size: 3, quorum: 3 }, trustMode: 'secure-aggregation', secureAggregation: { minCohort: 3, minSurvivors: 3, maxCorrupt: 0, stageDeadlineMs: 1 } }, predictions: await predictWith(init, parameters), random: new InsecureSeededRandom(2) });
    const votesPerRow = (values: Int32Array) => [0, 1, 2, 3, 4, 5].map((row) => values.subarray(row * numClasses, (row + 1) * numClasses).reduce((sum, value) => sum + value, 0) / 4096);
    expect(votesPerRow(await grid(setUp()))).toEqual(Array(6).fill(shards));
    const full = assignShards(2, shards, key).filter(({ length }) => length > 0).length;
    expect(votesPerRow(await grid(setUp({ privateDataset: toyData(2) })))).toEqual(Array(6).fill(full));
    expect(votesPerRow(await grid(setUp({ task: taskWith({ minConfidence: 1 }) })))).toEqual(Array(6).fill(0));
    const diverging = setUp();
    const open = diverging.engine.open.bind(diverging.engine);
    diverging.engine.open = async (source, seed) => {
      const model = await open(source, seed);
      let loads = 0;
      const [load, predict] = [model.load.bind(model), model.predict.bind(model)];
      model.load = (saved) => (loads++, load(saved));
      model.predict = async (examples) => {
        const matrix = await predict(examples);
        if (loads === 1) matrix.values[0] = NaN;
        return matrix;
      };
      return model;
    };
    expect(votesPerRow(await grid(diverging))).toEqual([shards - 1, shards, shards, shards, shards, shards]);
    // Without votes, no opinion is the uniform distribution.
    const [empty] = assignShards(2, shards, key).flatMap(({ length }, shard) => (length === 0 ? [shard] : []));
    const uniform = await predictWith(setUp({ privateDataset: toyData(2), task: taskWith({ votes: false }) }), release({ votes: false }));
    expect([...uniform[empty!]!.values]).toEqual(Array(6 * numClasses).fill(0));
  });

  it.each([
    ['other shards', release({ shards: shards + 1 })],
    ['probabilities where votes were promised', release({ votes: false })],
    ['the predictions of a whole client', release({ shards: undefined })],
  ])('does not predict for a release of %s', async (_what, parameters) => {
    const models = await ShardModels.train(setUp(), never);
    expect(await rejection(models.predict(query, parameters, never))).toMatchObject({ code: 'context-mismatch', field: 'release.shards' });
  });
});

describe('a participant in a task with shards', () => {
  it('sends votes of its shards in a secure sum, charges them as records, and nothing of the student', async () => {
    const scene = new SecureScene({ task: { rounds: 2, shards, mechanism: 'none', epsilon: null, outputKind: 'probabilities' }, policy: { allowedMechanisms: ['none'] } });
    await scene.run();
    expect(scene.coordinator.aborted).toEqual([]);
    expect(scene.coordinator.sums).toHaveLength(2);
    // The models were trained once: without new queries both rounds have the same votes, though the students went on learning.
    const [first, second] = scene.coordinator.sums;
    expect(second!.sum).toEqual(first!.sum);
    for (const value of first!.sum) expect(value % 4096).toBe(0);
    expect(first!.sum.reduce((sum, value) => sum + value, 0) / 4096).toBe(5 * shards * transferRows);
    for (const { ledger, engine } of scene.clients) {
      expect(ledger.entries().map(({ parameters }) => parameters.shards)).toEqual([shards, shards]);
      expect(engine.fits.filter(({ epochs }) => epochs === 4)).toHaveLength(shards);
    }
  });

  it('adds local noise to the sum of its shards in sealed rounds', async () => {
    const scene = new Scene({ shards, outputKind: 'probabilities', rounds: 1 });
    await scene.run();
    expect(scene.coordinator.accepted.size).toBe(1);
    expect(scene.ledger.entries()[0]!.parameters).toMatchObject({ mechanism: 'gaussian', shards, votes: true });
    expect(scene.named('shards-trained')).toMatchObject([{ shards, trained: shards }]);
  });

  it('refuses a round that promises less than its task: other shards, or the student\'s own predictions', async () => {
    for (const change of [{ shards: shards + 1 }, { shards: undefined }, { votes: undefined }]) {
      const scene = new Scene({ shards, outputKind: 'probabilities', rounds: 1 });
      const { shards: _shards, votes: _votes, ...rest } = scene.coordinator.release;
      const spoiled = { ...rest, ...JSON.parse(JSON.stringify({ shards, votes: true, ...change })) as object } as never;
      scene.coordinator.autopilot = false;
      const controller = new AbortController();
      const running = scene.run(scene.participant(), controller.signal).catch((error: unknown) => error);
      await scene.pass(1000);
      const ack = await scene.clock.runUntil(scene.coordinator.openRound({ release: spoiled }));
      expect(ack).toMatchObject({ ok: false, problem: { code: 'context-mismatch' } });
      expect(scene.ledger.entries()).toEqual([]);
      controller.abort(new Error('done'));
      await running;
    }
  });
});
