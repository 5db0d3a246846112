/** One record, one vote: what one record can change in the integers that leave a client, before noise. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { contributionGrid, makeContribution } from '../../client/participant/contribution.ts';
import { RecordVotes } from '../../client/participant/record-votes.ts';
import { checkReleaseFitsTask, judgeTask } from '../../client/participant/task-policy.ts';
import { generateIdentity } from '../../shared/crypto/signature.ts';
import { MemoryLedger } from '../../shared/privacy/memory-ledger.ts';
import { planRelease, releaseSensitivity, type ReleaseParameters } from '../../shared/privacy/release.ts';
import { TaskDocumentSchema, type RoundDocument, type TaskDocument } from '../../shared/protocol/messages.ts';
import type { Digest } from '../../shared/types/ids.ts';
import { selectExamples, selectLabelled, type Examples, type LabelledExamples } from '../../shared/types/matrix.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { VirtualClock } from '../../simulations/network/virtual-clock.ts';
import { FakeCoordinator, numClasses } from './fake-coordinator.ts';
import { openPolicy, toyData } from './harness.ts';

const maxRecords = 30;
const stepsPerVote = 64;
const transferSet = toyData(25, 7).examples;

function taskWith(privacy: object = {}): TaskDocument {
  const base = TaskDocumentSchema.parse(new FakeCoordinator(new VirtualClock(), { shards: 5, outputKind: 'probabilities' }).taskValue());
  return TaskDocumentSchema.parse({ ...base, privacy: { ...base.privacy, sampleAndAggregate: null, recordVotes: { maxRecords }, ...privacy } });
}
const task = taskWith();
const releaseOf = (rows: number, change: object = {}): ReleaseParameters =>
  planRelease({ mechanism: 'none', outputKind: 'probabilities', rows, columns: numClasses, gridStep: 1 / stepsPerVote, delta: 1e-5, releases: 1, recordVotes: maxRecords, ...change });
const secure = { cohort: { size: 8, quorum: 6 }, trustMode: 'secure-aggregation', secureAggregation: { minCohort: 6, minSurvivors: 6, maxCorrupt: 1, stageDeadlineMs: 1000 } } as const;

/** The integers that leave a client, but for their noise. */
function gridOf(privateDataset: LabelledExamples, queries: Examples): Int32Array {
  const release = releaseOf(queries.count);
  const votes = RecordVotes.open({ task, privateDataset, transferSet });
  return contributionGrid({ document: { release, ...secure }, predictions: [votes.count(queries, release)], random: new InsecureSeededRandom(1) });
}

const values = fc.oneof(fc.float({ min: -3, max: 3, noNaN: true }), fc.constantFrom(NaN, Infinity, -1e30, 0));
const record = fc.record({ values: fc.array(values, { minLength: 4, maxLength: 4 }), label: fc.nat(numClasses - 1) });
function datasetOf(records: readonly { readonly values: readonly number[]; readonly label: number }[]): LabelledExamples {
  return { examples: { count: records.length, shape: [4], values: Float32Array.from(records.flatMap((one) => one.values)) }, labels: Int32Array.from(records, ({ label }) => label), numClasses };
}
/** Any rows of the transfer set, as a coordinator may choose them; and any other examples, should the announcement have been checked by nobody. */
const anyQueries: fc.Arbitrary<Examples> = fc.oneof(
  fc.uniqueArray(fc.nat(transferSet.count - 1), { minLength: 1, maxLength: 12 }).map((rows) => selectExamples(transferSet, rows)),
  fc.array(record, { minLength: 1, maxLength: 6 }).map((records) => datasetOf(records).examples),
);
const distance = (before: Int32Array, after: Int32Array) => Math.hypot(...before.map((value, i) => value - after[i]!));

describe('one record', () => {
  it('has one vote: whatever is queried, another record in its place moves one vote, and a missing one takes one away', () => {
    fc.assert(
      fc.property(fc.array(record, { minLength: 1, maxLength: maxRecords }), fc.nat(), record, anyQueries, (records, place, other, queries) => {
        const position = place % records.length;
        const bound = releaseSensitivity(releaseOf(queries.count));
        const before = gridOf(datasetOf(records), queries);
        const replaced = gridOf(datasetOf(records.with(position, other)), queries);
        const missing = gridOf(datasetOf(records.toSpliced(position, 1)), queries);
        expect(before.reduce((sum, value) => sum + value, 0)).toBe(records.length * stepsPerVote);
        expect(distance(before, replaced)).toBeLessThanOrEqual(bound.l2.replaceOne);
        expect(before.reduce((sum, value, i) => sum + Math.abs(value - replaced[i]!), 0)).toBeLessThanOrEqual(bound.l1.replaceOne);
        expect(distance(before, missing)).toBeLessThanOrEqual(bound.l2.zeroOut);
        expect(before.reduce((sum, value, i) => sum + Math.abs(value - missing[i]!), 0)).toBeLessThanOrEqual(bound.l1.zeroOut);
      }),
      { numRuns: 150, seed: 11 },
    );
  });

  it('reaches the bounds, which do not grow with the queries: smaller ones would be wrong', () => {
    const data = toyData(20);
    for (const count of [1, 5, 25]) {
      const queries = selectExamples(transferSet, Array.from({ length: count }, (_, i) => i));
      const bound = releaseSensitivity(releaseOf(count));
      const relabelled = { ...data, labels: data.labels.with(4, (data.labels[4]! + 1) % numClasses) };
      expect(distance(gridOf(data, queries), gridOf(relabelled, queries))).toBeGreaterThan((1 - 1e-9) * bound.l2.replaceOne);
      expect(bound.l2.replaceOne / (Math.SQRT2 * stepsPerVote)).toBeCloseTo(1, 9);
      expect(distance(gridOf(data, queries), gridOf(selectLabelled(data, Array.from({ length: 19 }, (_, i) => i)), queries))).toBeGreaterThan((1 - 1e-9) * bound.l2.zeroOut);
      expect(bound.l2.zeroOut / stepsPerVote).toBeCloseTo(1, 9);
    }
  });

  it('behind the most that vote has no vote: not even its content tells which records do', () => {
    const many = toyData(maxRecords + 15);
    const first = selectLabelled(many, Array.from({ length: maxRecords }, (_, i) => i));
    expect(gridOf(many, transferSet)).toEqual(gridOf(first, transferSet));
    expect(gridOf(many, transferSet).reduce((sum, value) => sum + value, 0)).toBe(maxRecords * stepsPerVote);
    expect(RecordVotes.open({ task, privateDataset: many, transferSet }).voting).toBe(maxRecords);
    // Where more records are than vote, a missing one makes room for another: the bound of a replaced one.
    const queries = transferSet;
    expect(distance(gridOf(many, queries), gridOf(selectLabelled(many, Array.from({ length: maxRecords + 14 }, (_, i) => i + 1)), queries))).toBeLessThanOrEqual(releaseSensitivity(releaseOf(queries.count)).l2.replaceOne);
  });

  it('that is no number votes once, and moves nobody else\'s vote', () => {
    const data = toyData(12);
    const spoiled: LabelledExamples = { ...data, examples: { ...data.examples, values: data.examples.values.map((value, i) => (i >> 2 === 5 ? NaN : value)) } };
    const [before, after] = [gridOf(data, transferSet), gridOf(spoiled, transferSet)];
    expect(after.reduce((sum, value) => sum + value, 0)).toBe(12 * stepsPerVote);
    expect(distance(before, after)).toBeLessThanOrEqual(releaseSensitivity(releaseOf(transferSet.count)).l2.replaceOne);
  });
});

describe('RecordVotes', () => {
  const votes = RecordVotes.open({ task, privateDataset: toyData(20), transferSet });

  it('votes with the label of a record, on the query nearest to it', () => {
    // Queried are two of the records themselves.
    const data: LabelledExamples = { examples: transferSet, labels: Int32Array.from({ length: transferSet.count }, (_, i) => i % numClasses), numClasses };
    const pair = selectLabelled(data, [2, 9]);
    const counts = RecordVotes.open({ task, privateDataset: pair, transferSet }).count(pair.examples, releaseOf(2));
    expect([...counts.values]).toEqual([0, 0, 1, 1, 0, 0]);
  });

  it.each([
    ['shards', { shards: 5, votes: true, recordVotes: undefined }],
    ['another number of records', { recordVotes: maxRecords + 1 }],
    ['the predictions of a whole client', { recordVotes: undefined }],
  ])('does not vote in a release of %s', (_what, change) => {
    expect(() => votes.count(transferSet, releaseOf(transferSet.count, change))).toThrow(expect.objectContaining({ code: 'context-mismatch', field: 'release.recordVotes' }));
  });

  it('sends no vote without noise or a mask', () => {
    const release = releaseOf(transferSet.count);
    const document = { release, encoding: 'float32', taskDigest: `sha256:${'1'.repeat(64)}` as Digest, round: 1, boxKey: new Uint8Array(32).fill(9), cohort: secure.cohort, trustMode: 'sealed' } as unknown as RoundDocument;
    const random = new InsecureSeededRandom(3);
    expect(() => makeContribution({ document, transcript: document.taskDigest, predictions: [votes.count(transferSet, release)], identity: generateIdentity(random), random })).toThrow(
      expect.objectContaining({ code: 'context-mismatch', field: 'release.recordVotes' }),
    );
  });
});

describe('a task with votes of records', () => {
  it('is judged as one for records, and holds its rounds to them', () => {
    // Local noise here: whether 8 is within the owner's limit does not depend on the number of records.
    expect(judgeTask(openPolicy, task, new MemoryLedger()).epsilonAtEnd).toBeCloseTo(8, 1);
    expect(() => judgeTask({ ...openPolicy, unit: 'client' }, task, new MemoryLedger())).toThrow(expect.objectContaining({ code: 'policy-refused' }));
    expect(() => checkReleaseFitsTask({ release: releaseOf(5) }, task)).not.toThrow();
    for (const [change, field] of [[{ recordVotes: undefined }, 'release.recordVotes'], [{ recordVotes: 10 * maxRecords }, 'release.recordVotes'], [{ recordVotes: undefined, shards: 5 }, 'release.shards']] as const) {
      expect(() => checkReleaseFitsTask({ release: releaseOf(5, change) }, task)).toThrow(expect.objectContaining({ code: 'context-mismatch', field }));
    }
    const shards = taskWith({ recordVotes: null, sampleAndAggregate: { shards: 5, votes: true, model: 'softmax-regression', inputs: 'examples', epochs: 4, batchSize: 20, learningRate: 0.01, l2: 0.001 } });
    expect(() => checkReleaseFitsTask({ release: releaseOf(5) }, shards)).toThrow(expect.objectContaining({ code: 'context-mismatch' }));
  });

  it.each([
    ['the unit client', { unit: 'client' }],
    ['shards beside them', { sampleAndAggregate: { shards: 5, votes: true, model: 'softmax-regression', inputs: 'examples', epochs: 4, batchSize: 20, learningRate: 0.01, l2: 0.001 } }],
    ['no records at all', { recordVotes: { maxRecords: 0 } }],
  ])('contradicts itself with %s', (_what, privacy) => {
    expect(() => taskWith(privacy)).toThrow();
  });
});
