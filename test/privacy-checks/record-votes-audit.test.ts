/**
 * Check 16 for one vote a record: an audit in one run whose canaries are the records of one client (Steinke, Nasr & Jagielski 2023). What is audited is what a participant calls, from its records to the
 * integers that leave it: the embedding, the votes, the grid and the noise. A fair coin decides on each record's label; the auditor knows everything but the coins, and scores a record by the two cells in
 * which its vote can be: the best test there is against Gaussian noise. Seeds are fixed; mutants are doubles.
 */
import { describe, expect, it } from 'vitest';
import { contributionGrid } from '../../client/participant/contribution.ts';
import { RecordVotes } from '../../client/participant/record-votes.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { auditScoredCanaries } from '../../shared/privacy/audit.ts';
import { planRelease, type ReleaseParameters } from '../../shared/privacy/release.ts';
import { TaskDocumentSchema } from '../../shared/protocol/messages.ts';
import type { Examples, Matrix } from '../../shared/types/matrix.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { VirtualClock } from '../../simulations/network/virtual-clock.ts';
import { FakeCoordinator, numClasses } from '../client/fake-coordinator.ts';

const canaries = 2048;
const delta = 1e-5;
const generator = new SeededGenerator(5);
/** Every record is one of the public examples that are queried, so its vote has a row of its own. */
const queries: Examples = { count: canaries, shape: [4], values: Float32Array.from({ length: 4 * canaries }, () => generator.gaussian()) };
const base = TaskDocumentSchema.parse(new FakeCoordinator(new VirtualClock(), { shards: 2, outputKind: 'probabilities' }).taskValue());

const releaseOf = (epsilon: number): ReleaseParameters => planRelease({ mechanism: 'gaussian', outputKind: 'probabilities', rows: canaries, columns: numClasses, gridStep: 1 / 64, epsilon, delta, releases: 1, recordVotes: 4 * canaries });

/** What is found in one release of one client. `spoil`: a double's counts. */
function audit(release: ReleaseParameters, seed: number, spoil: (counts: Matrix) => Matrix = (counts) => counts) {
  const isIncluded = Array.from(new InsecureSeededRandom(seed).bytes(canaries), (byte) => byte >= 128);
  const task = { ...base, privacy: { ...base.privacy, sampleAndAggregate: null, recordVotes: { maxRecords: 4 * canaries } } };
  const votes = RecordVotes.open({ task, privateDataset: { examples: queries, labels: Int32Array.from(isIncluded, Number), numClasses }, transferSet: queries });
  const values = contributionGrid({ document: { release, cohort: { size: 5, quorum: 5 }, trustMode: 'sealed' }, predictions: [spoil(votes.count(queries, release))], random: new InsecureSeededRandom(seed + 1000) });
  const scores = isIncluded.map((_, row) => values[row * numClasses + 1]! - values[row * numClasses]!);
  return auditScoredCanaries({ scores, isIncluded, guesses: 200, delta, significance: 0.05 });
}

describe('votes of records', () => {
  it.each([1, 4])('at epsilon %d: below the claim', (epsilon) => {
    const { lowerBound, ceiling } = audit(releaseOf(epsilon), 20 + epsilon);
    expect(ceiling).toBeGreaterThan(epsilon);
    expect(lowerBound).toBeLessThanOrEqual(epsilon);
    // The canaries are exposed: where there is much to find, some is found.
    if (epsilon === 4) expect(lowerBound).toBeGreaterThan(1);
  });

  it('next to no noise: at the ceiling', () => {
    const { lowerBound, ceiling } = audit(releaseOf(1000), 30);
    expect(lowerBound).toBe(ceiling);
    expect(ceiling).toBeGreaterThan(4);
  });

  it.each([1, 4])('four votes a record, at epsilon %d: caught', (epsilon) => {
    const { lowerBound, ceiling } = audit(releaseOf(epsilon), 40 + epsilon, (counts) => ({ ...counts, values: counts.values.map((count) => 4 * count) }));
    expect(ceiling).toBeGreaterThan(epsilon);
    expect(lowerBound).toBeGreaterThan(epsilon);
  });
});
