/** What leaves a client: bounded, on the grid, with the noise that its release publishes, drawn anew each time; and what never does. */
import { describe, expect, it } from 'vitest';
import { contributionGrid, makeContribution, type GridRequest } from '../../client/participant/contribution.ts';
import { checkReleaseFitsTask, judgeTask } from '../../client/participant/task-policy.ts';
import { generateBoxKeys } from '../../shared/crypto/sealed-box.ts';
import { generateIdentity } from '../../shared/crypto/signature.ts';
import { openEnvelope } from '../../shared/protocol/envelope.ts';
import { decodeFrame } from '../../shared/protocol/matrix-frame.ts';
import { TaskDocumentSchema, type RoundDocument, type TaskDocument } from '../../shared/protocol/messages.ts';
import { MemoryLedger } from '../../shared/privacy/memory-ledger.ts';
import { planRelease, type ReleaseParameters } from '../../shared/privacy/release.ts';
import type { Digest, RoundId } from '../../shared/types/ids.ts';
import type { Matrix } from '../../shared/types/matrix.ts';
import type { Epsilon } from '../../shared/types/units.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { VirtualClock } from '../../simulations/network/virtual-clock.ts';
import { FakeCoordinator, type FakeTask } from './fake-coordinator.ts';
import { openPolicy } from './harness.ts';

const [rows, columns] = [40, 3];
const plan = (change: object = {}): ReleaseParameters =>
  planRelease({ mechanism: 'discreteGaussian', outputKind: 'probabilities', rows, columns, gridStep: 1 / 4096, epsilon: 4, delta: 1e-5, releases: 1, shares: 5, ...change });
const documentWith = (release: ReleaseParameters, change: Partial<GridRequest['document']> = {}): GridRequest['document'] => ({
  release, cohort: { size: 8, quorum: 6 }, trustMode: 'secure-aggregation', secureAggregation: { minCohort: 6, minSurvivors: 6, maxCorrupt: 1, stageDeadlineMs: 1000 }, ...change,
});
/** Logits that are far apart: softmax gives one-hot rows. */
const certain: Matrix = { rows, columns, values: Float32Array.from({ length: rows * columns }, (_, i) => (i % columns === 1 ? 1000 : 0)) };
const plain = Int32Array.from({ length: rows * columns }, (_, i) => (i % columns === 1 ? 4096 : 0));
const meanSquare = (values: Int32Array) => values.reduce((sum, value, i) => sum + (value - plain[i]!) ** 2, 0) / values.length;

describe('contributionGrid', () => {
  it('is the grid without noise for the mechanism none', () => {
    expect(contributionGrid({ document: documentWith(plan({ mechanism: 'none' })), predictions: [certain], random: new InsecureSeededRandom(1) })).toEqual(plain);
  });

  it.each(['gaussian', 'discreteGaussian'] as const)('%s: has the noise that the release publishes, another one each time', (mechanism) => {
    const release = plan({ mechanism });
    if (release.mechanism !== 'gaussian' && release.mechanism !== 'discreteGaussian') throw new Error('expected Gaussian noise');
    const random = new InsecureSeededRandom(2);
    const draw = () => contributionGrid({ document: documentWith(release), predictions: [certain], random });
    const [first, second] = [draw(), draw()];
    for (const values of [first, second]) expect(Math.abs(meanSquare(values) / release.noise.sigmaGrid ** 2 - 1)).toBeLessThan(5 * Math.sqrt(2 / values.length));
    // Two draws are independent: their difference has twice the variance of one, and fresh noise never repeats a matrix.
    const difference = first.reduce((sum, value, i) => sum + (value - second[i]!) ** 2, 0) / first.length;
    expect(Math.abs(difference / (2 * release.noise.sigmaGrid ** 2) - 1)).toBeLessThan(5 * Math.sqrt(2 / first.length));
  });

  it('bounds what a student predicts, however large', () => {
    const huge: Matrix = { rows, columns, values: certain.values.map((value) => value * 1e30) };
    const release = plan({ mechanism: 'none', outputKind: 'logits', rowClippingNorm: 2 });
    const values = contributionGrid({ document: documentWith(release), predictions: [huge], random: new InsecureSeededRandom(3) });
    expect(Math.max(...values)).toBe(2 * 4096);
  });

  it.each<[string, Partial<GridRequest['document']>, object, string]>([
    ['a share of noise in a sealed round', { trustMode: 'sealed', secureAggregation: undefined }, {}, 'context-mismatch'],
    ['a share of noise in a secure round of unknown size', { secureAggregation: undefined }, {}, 'context-mismatch'],
    ['more shares than honest survivors', {}, { shares: 6 }, 'policy-refused'],
    ['one matrix for two shards', {}, { shards: 2 }, 'shape-mismatch'],
  ])('does not exist for %s', (_what, change, planned, code) => {
    expect(() => contributionGrid({ document: documentWith(plan(planned), change), predictions: [certain], random: new InsecureSeededRandom(4) })).toThrow(expect.objectContaining({ code }));
  });

  it.each(['probabilities', 'logits'] as const)('has no opinion where a student predicts no numbers, %s: with a mechanism, that it has diverged is not to be seen', (outputKind) => {
    const release = plan({ mechanism: 'gaussian', outputKind, ...(outputKind === 'logits' ? { rowClippingNorm: 1 } : {}) });
    const withSecondRow = (...row: readonly number[]): Matrix => ({ rows, columns, values: certain.values.map((own, i) => (i >= columns && i < 2 * columns ? row[i - columns]! : own)) });
    const draw = (matrix: Matrix) => contributionGrid({ document: documentWith(release), predictions: [matrix], random: new InsecureSeededRandom(5) });
    for (const value of [NaN, Infinity, -Infinity]) expect(draw(withSecondRow(1000, value, -5))).toEqual(draw(withSecondRow(0, 0, 0)));
    expect(draw(withSecondRow(1000, 0, -5))).not.toEqual(draw(withSecondRow(0, 0, 0)));
  });

  it('does not exist for a student that has diverged in a task without noise: its owner is told', () => {
    const diverged: Matrix = { rows, columns, values: certain.values.map((value, i) => (i === 5 ? NaN : value)) };
    expect(() => contributionGrid({ document: documentWith(plan({ mechanism: 'none' })), predictions: [diverged], random: new InsecureSeededRandom(5) })).toThrow(expect.objectContaining({ code: 'data-invalid' }));
  });
});

describe('makeContribution', () => {
  const random = new InsecureSeededRandom(6);
  const [identity, box] = [generateIdentity(random), generateBoxKeys(random)];
  const context = { taskDigest: `sha256:${'1'.repeat(64)}` as Digest, round: 1 as RoundId, stage: 'contribution', transcript: `sha256:${'2'.repeat(64)}` as Digest } as const;
  const make = (release: ReleaseParameters, predictions: readonly Matrix[]) => {
    const document = { ...documentWith(release, { trustMode: 'sealed', secureAggregation: undefined }), taskDigest: context.taskDigest, round: 1 as RoundId, boxKey: box.publicKey, encoding: 'float32' } as RoundDocument;
    const { envelope } = makeContribution({ document, transcript: context.transcript, predictions, identity, random });
    return decodeFrame(openEnvelope(envelope, context, identity.publicKey, box.secretKey));
  };

  it('seals the sum of shards with local noise, as integers', () => {
    const release = plan({ mechanism: 'gaussian', shards: 3, votes: true, epsilon: 100_000 });
    const frame = make(release, [certain, certain, certain]);
    expect(frame.dtype).toBe('int32');
    const votes = Int32Array.from(frame.values, (value) => Math.round(value / 4096));
    expect(votes).toEqual(Int32Array.from({ length: rows * columns }, (_, i) => (i % columns === 1 ? 3 : 0)));
  });

  it('seals no shards without noise, and no share of noise', () => {
    expect(() => make(plan({ mechanism: 'none', shards: 2 }), [certain, certain])).toThrow(expect.objectContaining({ code: 'context-mismatch' }));
    expect(() => make(plan(), [certain])).toThrow(expect.objectContaining({ code: 'context-mismatch' }));
  });
});

describe('a task', () => {
  const taskOf = (config: Partial<FakeTask>): TaskDocument => TaskDocumentSchema.parse(new FakeCoordinator(new VirtualClock(), config).taskValue());
  const secure: Partial<FakeTask> = { trustMode: 'secure-aggregation', mechanism: 'discreteGaussian', quorum: 6, maxCorrupt: 1, outputKind: 'probabilities' };
  const policy = { ...openPolicy, maxEpsilon: 10 as Epsilon, allowedMechanisms: ['gaussian', 'discreteGaussian'] as const };

  it('of secure sums is judged before it is joined, by what it will cost over all rounds', () => {
    for (const shards of [null, 5]) {
      const { epsilonAtEnd } = judgeTask(policy, taskOf({ ...secure, shards }), new MemoryLedger());
      expect(epsilonAtEnd).toBeLessThanOrEqual(8);
      expect(epsilonAtEnd).toBeGreaterThan(7.9);
    }
  });

  it.each<[string, Partial<FakeTask>, object, string]>([
    ['too few honest clients', { quorum: 5 }, {}, 'minHonest'],
    ['records where all of a client was to be protected', { shards: 5 }, { unit: 'client' }, 'unit'],
    ['masks alone', { mechanism: 'none', epsilon: null }, { maxEpsilon: Infinity }, 'allowedMechanisms'],
    ['too much noise budget', { epsilon: 40, rounds: 1 }, {}, 'maxEpsilon'],
  ])('is refused for %s', (_what, change, own, field) => {
    expect(() => judgeTask({ ...policy, ...own }, taskOf({ ...secure, ...change }), new MemoryLedger())).toThrow(expect.objectContaining({ exitStatus: 3, field }));
  });

  it('is kept by every round: shards, votes and honest clients are those of the task', () => {
    const task = taskOf({ ...secure, shards: 5 });
    const document = documentWith(plan({ shards: 5, votes: true }));
    expect(() => checkReleaseFitsTask(document, task)).not.toThrow();
    const cohort = document.secureAggregation!;
    for (const [field, spoiled] of [
      ['release.shards', documentWith(plan({ shards: 6, votes: true }))],
      ['release.shards', documentWith(plan())],
      ['release.votes', documentWith(plan({ shards: 5 }))],
      ['secureAggregation.minSurvivors', documentWith(document.release, { secureAggregation: { ...cohort, minSurvivors: 7 } })],
      ['secureAggregation.maxCorrupt', documentWith(document.release, { secureAggregation: { ...cohort, maxCorrupt: 0 } })],
    ] as const) {
      expect(() => checkReleaseFitsTask(spoiled, task)).toThrow(expect.objectContaining({ code: 'context-mismatch', field }));
    }
  });

  it.each([
    ['secure aggregation of unknown size', { trustMode: 'secure-aggregation', mechanism: 'none' }],
    ['a size without secure aggregation', { secureAggregation: { minSurvivors: 6, maxCorrupt: 1 } }],
    ['nobody honest', { trustMode: 'secure-aggregation', mechanism: 'none', secureAggregation: { minSurvivors: 6, maxCorrupt: 6 } }],
    ['a share of noise outside a sum', { mechanism: 'discreteGaussian' }],
    ['all of the noise inside of one', { trustMode: 'secure-aggregation', secureAggregation: { minSurvivors: 6, maxCorrupt: 1 } }],
    ['records without shards', { unit: 'record' }],
    ['shards of clients', { sampleAndAggregate: { shards: 5, votes: true, model: 'mlp-small', inputs: 'examples', epochs: 1, batchSize: 20, learningRate: 0.01, l2: 0 } }],
  ])('document that promises %s is malformed', (_what, change) => {
    const task = taskOf({});
    expect(TaskDocumentSchema.safeParse({ ...task, privacy: { ...task.privacy, ...change } }).success).toBe(false);
  });
});
