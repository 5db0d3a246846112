/**
 * Check 16 (docs/privacy-model.md, section 9): an audit of the whole way of a release, in one run, with canaries (Steinke, Nasr & Jagielski 2023). What is audited is what a
 * participant calls: `contributionGrid` or `makeContribution`, then the envelope that the coordinator opens, or the secure sum and the masked inputs that it sees.
 *
 * Each canary is a client. A fair coin decides between two datasets, as far apart as neighbors (replace-one) can be: every row of its predictions is the one or the other
 * one-hot (or clipped) row. The auditor knows everything but the coins, and scores each canary along the difference: the best test there is against Gaussian noise. In a
 * sum the differences of the canaries are orthogonal (Walsh functions), so that none hides another.
 *
 * A bound above the claim would come up by chance in at most 5 % of the runs of a mechanism that is exactly as leaky as claimed. Coins and noise have fixed seeds here, so
 * it comes up always or never. Mutants are doubles: a wrong mechanism handed to the same audit. None touches the code of the product.
 */
import { describe, expect, it, vi } from 'vitest';
import { contributionGrid, makeContribution, type GridRequest } from '../../client/participant/contribution.ts';
import { PoissonBatches } from '../../shared/compute/poisson-batches.ts';
import { GaussianNoise } from '../../shared/compute/gaussian-noise.ts';
import { generateBoxKeys } from '../../shared/crypto/sealed-box.ts';
import { generateIdentity } from '../../shared/crypto/signature.ts';
import type { CryptoProvider } from '../../shared/crypto/provider.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import type { RandomSource } from '../../shared/ports/random-source.ts';
import { PldAccountant } from '../../shared/privacy/accountants/pld.ts';
import { auditScoredCanaries, type OneRunFinding } from '../../shared/privacy/audit.ts';
import { planRelease, type DiscreteGaussianRelease, type GaussianRelease, type ReleaseParameters, type ReleasePlanRequest } from '../../shared/privacy/release.ts';
import { openEnvelope } from '../../shared/protocol/envelope.ts';
import { decodeFrame } from '../../shared/protocol/matrix-frame.ts';
import type { RoundDocument } from '../../shared/protocol/messages.ts';
import { decodeMaskedInput } from '../../shared/secure-aggregation/messages.ts';
import { toSigned } from '../../shared/secure-aggregation/modulus.ts';
import type { Digest, RoundId } from '../../shared/types/ids.ts';
import type { Matrix } from '../../shared/types/matrix.ts';
import type { Delta } from '../../shared/types/units.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { insecureFakeCrypto } from '../support/insecure-fake-crypto.ts';
import { runRound } from '../support/secure-aggregation.ts';

vi.mock(import('../../shared/crypto/signature.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../shared/crypto/sealed-box.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastBoxes(await original()));

const [rows, columns] = [16, 2];
/** Clients in a sum; at most as many canaries as there are rows. */
const perSum = 16;
const canaries = 4096;
/** Where each contribution is sealed, and where each sum is one of a round of secure aggregation. */
const [sealedCanaries, maskedCanaries] = [1024, 1024];
const delta = 1e-5;
const significance = 0.05;
/** For what is to look like chance: such bounds are above 0 in as many runs as this, however little there is to find. */
const strictSignificance = 0.001;
/** Fixed in advance: a tenth of all canaries, and 200 at least, for a ceiling above epsilon 4. */
const guessesOf = (count: number) => Math.max(200, 2 * Math.round(count / 20));

/** Row `row` of Walsh function `which`: 1 or -1; different ones are orthogonal. */
function walsh(which: number, row: number): 1 | -1 {
  let bits = which & row;
  let sign: 1 | -1 = 1;
  for (; bits !== 0; bits &= bits - 1) sign = sign === 1 ? -1 : 1;
  return sign;
}

/** Logits of a canary: softmax makes one-hot rows of them, clipping rows of the largest norm. */
function predictionsOf(which: number, isIncluded: boolean, size = 1000): Matrix {
  const values = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const side = walsh(which, row) * (isIncluded ? 1 : -1) * size;
    values[row * columns] = -side;
    values[row * columns + 1] = side;
  }
  return { rows, columns, values };
}

function scoreOf(which: number, values: ArrayLike<number>): number {
  let score = 0;
  for (let row = 0; row < rows; row++) score += walsh(which, row) * (values[row * columns + 1]! - values[row * columns]!);
  return score;
}

const coins = (seed: number, count: number) => Array.from(new InsecureSeededRandom(seed).bytes(count), (byte) => byte >= 128);

const plan = (change: Partial<ReleasePlanRequest>) =>
  planRelease({ mechanism: 'gaussian', outputKind: 'probabilities', rows, columns, gridStep: 1 / 4096, delta, releases: 1, ...change });
const localPlan = (epsilon: number, change: Partial<ReleasePlanRequest> = {}) => plan({ epsilon, ...change }) as GaussianRelease;
const sharedPlan = (epsilon: number, change: Partial<ReleasePlanRequest> = {}) => plan({ mechanism: 'discreteGaussian', epsilon, shares: perSum, ...change }) as DiscreteGaussianRelease;
type NoisedRelease = GaussianRelease | DiscreteGaussianRelease;
const quarterSigma = <R extends NoisedRelease>(release: R): R => ({ ...release, noise: { ...release.noise, sigmaGrid: Math.ceil(release.noise.sigmaGrid / 4) } });

type Document = GridRequest['document'];
const cohort = { size: perSum, quorum: perSum };
const secureDocument = (release: ReleaseParameters): Document => ({ release, cohort, trustMode: 'secure-aggregation', secureAggregation: { minCohort: perSum, minSurvivors: perSum, maxCorrupt: 0, stageDeadlineMs: 1000 } });
const sealedDocument = (release: ReleaseParameters): Document => ({ release, cohort, trustMode: 'sealed' });

/** What leaves a client: the product's function, or a double. */
type Send = (document: Document, predictions: Matrix, random: RandomSource) => Int32Array;
const send: Send = (document, matrix, random) => contributionGrid({ document, predictions: [matrix], random });

interface Run {
  readonly seed: number;
  readonly document: Document;
  readonly send?: Send;
  /** Size of the logits, for clipping to have something to do. */
  readonly size?: number;
  /** Canaries in rounds of secure aggregation. */
  readonly count?: number;
}

const audit = (isIncluded: readonly boolean[], scores: readonly number[], atSignificance = significance) =>
  auditScoredCanaries({ scores, isIncluded, guesses: guessesOf(isIncluded.length), delta, significance: atSignificance });

/** One contribution a canary, seen by itself. */
function auditAlone({ seed, document, send: sendOne = send, size }: Run): OneRunFinding {
  const random = new InsecureSeededRandom(seed + 1000);
  const isIncluded = coins(seed, canaries);
  return audit(isIncluded, isIncluded.map((coin) => scoreOf(1, sendOne(document, predictionsOf(1, coin, size), random))));
}

/** Contributions of `perSum` canaries at a time. */
function contributionsOf({ seed, document, send: sendOne = send, size }: Run, isIncluded: readonly boolean[]): Int32Array[][] {
  const random = new InsecureSeededRandom(seed + 1000);
  return Array.from({ length: isIncluded.length / perSum }, (_, sum) => Array.from({ length: perSum }, (_client, which) => sendOne(document, predictionsOf(which, isIncluded[sum * perSum + which]!, size), random)));
}

/** What check 17 shows a secure sum to be. */
function plainSum(inputs: readonly Int32Array[]): Int32Array {
  const sum = new Int32Array(rows * columns);
  for (const input of inputs) input.forEach((value, i) => (sum[i] = (sum[i]! + value) | 0));
  return sum;
}

/** Sums alone, added up here. */
function auditSums(run: Run): OneRunFinding {
  const isIncluded = coins(run.seed, canaries);
  const scores = contributionsOf(run, isIncluded).flatMap((inputs) => {
    const sum = plainSum(inputs);
    return inputs.map((_, which) => scoreOf(which, sum));
  });
  return audit(isIncluded, scores);
}

/** Rounds of secure aggregation: what the sums say, and what the masked inputs say one by one. */
function auditRounds(run: Run, crypto: CryptoProvider): { readonly sums: OneRunFinding; readonly maskedInputs: OneRunFinding; readonly hidden: OneRunFinding } {
  const isIncluded = coins(run.seed, run.count ?? maskedCanaries);
  const [sums, maskedInputs]: [number[], number[]] = [[], []];
  for (const [index, inputs] of contributionsOf(run, isIncluded).entries()) {
    const { result, maskedInputs: messages, context, rosterState } = runRound({ clients: perSum, minSurvivors: perSum, dimension: rows * columns, round: index + 1, seed: run.seed + index, crypto, inputs });
    for (const [which, message] of messages.entries()) {
      sums.push(scoreOf(which, result.sum));
      maskedInputs.push(scoreOf(which, toSigned(decodeMaskedInput(message, context, rosterState.roster.keyContext.rosterRoot).elements)));
    }
  }
  return { sums: audit(isIncluded, sums), maskedInputs: audit(isIncluded, maskedInputs), hidden: audit(isIncluded, maskedInputs, strictSignificance) };
}

/** Identities, keys and signatures are not what is audited, and are the fakes of `insecure-fake-crypto.ts`; hashes, key derivation, boxes and key stream are real. */
const masked = insecureFakeCrypto;
/** Mutant: masks omitted. */
const unmasked: CryptoProvider = { ...insecureFakeCrypto, keyStream: (_key, words) => new Uint32Array(words) };

/** No more than is claimed, though the audit could have found more. */
function expectBelow(claim: number, { lowerBound, ceiling }: OneRunFinding): void {
  expect(ceiling).toBeGreaterThan(claim);
  expect(lowerBound).toBeLessThanOrEqual(claim);
}

function expectCaught(claim: number, { lowerBound, ceiling }: OneRunFinding): void {
  expect(ceiling).toBeGreaterThan(claim);
  expect(lowerBound).toBeGreaterThan(claim);
}

describe('sealed contributions with local noise, as the coordinator opens them', () => {
  const random = new InsecureSeededRandom(11);
  const [identity, box] = [generateIdentity(random), generateBoxKeys(random)];
  const [taskDigest, transcript] = [`sha256:${'1'.repeat(64)}` as Digest, `sha256:${'2'.repeat(64)}` as Digest];
  const [round, stage] = [1 as RoundId, 'contribution'] as const;
  const finding = (release: ReleaseParameters, seed: number) => {
    const document = { ...sealedDocument(release), taskDigest, round, boxKey: box.publicKey, encoding: 'float32', sharing: null } as RoundDocument;
    const isIncluded = coins(seed, sealedCanaries);
    const noise = new InsecureSeededRandom(seed + 1000);
    const scores = isIncluded.map((coin) => {
      const { envelope } = makeContribution({ document, transcript, predictions: [predictionsOf(1, coin)], identity, random: noise });
      return scoreOf(1, decodeFrame(openEnvelope(envelope, { taskDigest, round, stage, transcript }, identity.publicKey, box.secretKey)).values);
    });
    return audit(isIncluded, scores);
  };

  it.each([1, 4])('at epsilon %d: below the claim', (epsilon) => {
    const found = finding(localPlan(epsilon), 20 + epsilon);
    expectBelow(epsilon, found);
    // The canaries are exposed: where there is much to find, some is found.
    if (epsilon === 4) expect(found.lowerBound).toBeGreaterThan(1);
  });

  it('without noise: at the ceiling', () => {
    const { lowerBound, ceiling } = finding(plan({ mechanism: 'none' }), 30);
    expect(lowerBound).toBe(ceiling);
    expect(ceiling).toBeGreaterThan(4);
  });

  it.each([1, 4])('pure noise at epsilon %d: below the claim', (epsilon) => {
    expectBelow(epsilon, finding(plan({ mechanism: 'laplace', epsilon }), 40 + epsilon));
  });
});

describe('secure sums with distributed noise, as the coordinator and its clients\' sealed inputs show them', () => {
  it.each([1, 4])('at epsilon %d: sums below the claim, masked inputs nothing', (epsilon) => {
    const { sums, hidden } = auditRounds({ seed: 50 + epsilon, document: secureDocument(sharedPlan(epsilon)) }, masked);
    expectBelow(epsilon, sums);
    expect(hidden.lowerBound).toBe(0);
  });

  it('without noise: sums at the ceiling, masked inputs nothing', () => {
    const { sums, hidden } = auditRounds({ seed: 60, count: 512, document: secureDocument(plan({ mechanism: 'none' })) }, masked);
    expect(sums.lowerBound).toBe(sums.ceiling);
    expect(sums.ceiling).toBeGreaterThan(4);
    expect(hidden.lowerBound).toBe(0);
  });

  it('mutant: masks omitted: each share of noise alone gives its client away', () => {
    const { sums, maskedInputs } = auditRounds({ seed: 51, document: secureDocument(sharedPlan(1)) }, unmasked);
    expectBelow(1, sums);
    expectCaught(1, maskedInputs);
  });
});

describe.each([1, 4])('mutants of a mechanism that claims epsilon %d are caught, where the right one is not', (epsilon) => {
  const [local, shared] = [localPlan(epsilon), sharedPlan(epsilon)];
  const both = (right: NoisedRelease, wrong: NoisedRelease, sendWrong: Send = send, size?: number) => {
    const auditOne = right.mechanism === 'gaussian' ? auditAlone : auditSums;
    const documentOf = right.mechanism === 'gaussian' ? sealedDocument : secureDocument;
    const sized = size === undefined ? {} : { size };
    expectBelow(epsilon, auditOne({ seed: 70 + epsilon, document: documentOf(right), ...sized }));
    expectCaught(epsilon, auditOne({ seed: 80 + epsilon, document: documentOf(wrong), send: sendWrong, ...sized }));
  };

  it.each([['local', local], ['shared', shared]] as const)('no noise, %s', (_name, release) => {
    both(release, release, (document, matrix, random) => send({ ...document, release: plan({ mechanism: 'none' }) }, matrix, random));
  });

  it.each([['local', local], ['shared', shared]] as const)('a quarter of sigma, %s', (_name, release) => {
    both(release, quarterSigma(release));
  });

  it.each([['local', local, localPlan(epsilon, { rows: 1 })], ['shared', shared, sharedPlan(epsilon, { rows: 1 })]] as const)('noise for the sensitivity of one row, %s', (_name, right, forOneRow) => {
    both(right, { ...forOneRow, rows });
  });

  it.each([['local', localPlan], ['shared', sharedPlan]] as const)('logits that were not clipped, %s', (_name, planOf) => {
    const release = planOf(epsilon, { outputKind: 'logits', rowClippingNorm: 1 });
    const noClipping: Send = (document, matrix, random) => {
      const noise = send(document, { ...matrix, values: new Float32Array(matrix.values.length) }, random);
      return noise.map((value, i) => value + Math.trunc(matrix.values[i]! / release.gridStep));
    };
    // Rows of four times the norm that is claimed.
    both(release, release, noClipping, 4 / Math.SQRT2);
  });

  it('the same noise in two releases, whose difference is then exact', () => {
    const release = localPlan(epsilon, { releases: 2 });
    const difference = (first: RandomSource, second: (seed: number) => RandomSource) => {
      const isIncluded = coins(90 + epsilon, canaries);
      const scores = isIncluded.map((coin, canary) => {
        // What the client held in the first round is known; in the second its data are the one or the other.
        const before = send(sealedDocument(release), predictionsOf(1, false), first);
        return scoreOf(1, send(sealedDocument(release), predictionsOf(1, coin), second(canary)).map((value, i) => value - before[i]!));
      });
      return audit(isIncluded, scores);
    };
    const fresh = new InsecureSeededRandom(91);
    expectBelow(epsilon, difference(fresh, () => fresh));
    const [one, same] = [new InsecureSeededRandom(92), new InsecureSeededRandom(92)];
    expectCaught(epsilon, difference(one, () => same));
  });

  it('the honest floor ignored: 15 of 16 clients are corrupt and add no noise', () => {
    const beside = (release: DiscreteGaussianRelease) => {
      const random = new InsecureSeededRandom(100 + epsilon);
      const isIncluded = coins(110 + epsilon, canaries);
      // The adversary takes off what its own clients have put in.
      const corrupt = plainSum(Array.from({ length: perSum - 1 }, () => send(secureDocument(plan({ mechanism: 'none' })), predictionsOf(1, true), random)));
      return audit(isIncluded, isIncluded.map((coin) => scoreOf(1, plainSum([send(secureDocument(release), predictionsOf(1, coin), random), corrupt]).map((value, i) => value - corrupt[i]!))));
    };
    expectBelow(epsilon, beside(sharedPlan(epsilon, { shares: 1 })));
    expectCaught(epsilon, beside(sharedPlan(epsilon, { shares: perSum })));
    // The client does not let it come to that.
    const honest: Document = { ...secureDocument(shared), secureAggregation: { ...secureDocument(shared).secureAggregation!, maxCorrupt: 15 } };
    expect(() => send(honest, predictionsOf(1, true), new InsecureSeededRandom(1))).toThrow(expect.objectContaining({ code: 'policy-refused' }));
  });
});

describe('private steps, of which somebody sees every noised sum', () => {
  const [rate, steps, noiseMultiplier, records] = [0.02, 800, 1, 1024];
  const claim = new PldAccountant('addOrRemoveRecord').compose({ kind: 'poissonSampled', samplingProbability: rate, event: { kind: 'gaussian', noiseMultiplier } }, steps).epsilon(delta as Delta);

  /** Each record is a canary whose gradient has a coordinate of its own. */
  function auditSteps(batches: () => Int32Array, likelihood: (step: number, record: number, value: number) => number): OneRunFinding {
    const isIncluded = coins(120, records);
    const noise = new GaussianNoise(new InsecureSeededRandom(121));
    const scores = new Array<number>(records).fill(0);
    const sum = new Float64Array(records);
    for (let step = 0; step < steps; step++) {
      for (let record = 0; record < records; record++) sum[record] = noiseMultiplier * noise.next();
      for (const record of batches()) if (isIncluded[record]) sum[record]!++;
      for (let record = 0; record < records; record++) scores[record]! += likelihood(step, record, sum[record]!);
    }
    return audit(isIncluded, scores);
  }

  /** Log likelihood ratio of one step for somebody who does not know the batches. */
  const unknownBatch = (_step: number, _record: number, value: number) => Math.log1p(rate * Math.expm1((value - 0.5) / noiseMultiplier ** 2));

  it('Poisson batches: below the claim of their accountant', () => {
    const batches = new PoissonBatches(records, rate, new InsecureSeededRandom(122));
    const found = auditSteps(() => Int32Array.from(batches.next()), unknownBatch);
    expectBelow(claim, found);
    expect(found.lowerBound).toBeGreaterThan(claim / 10);
  });

  it('batches that are shuffled anew each epoch look like Poisson ones to this audit: that they are none shows in their sizes (poisson-batches.test.ts)', () => {
    const generator = new SeededGenerator(123);
    const size = Math.floor(records * rate);
    let order = generator.permutation(records);
    let at = 0;
    const next = () => {
      if (at + size > records) [order, at] = [generator.permutation(records), 0];
      at += size;
      return Int32Array.from(order.subarray(at - size, at));
    };
    expectBelow(claim, auditSteps(next, unknownBatch));
  });

  it('mutant: batches of one size in an order that is known, accounted as Poisson: caught', () => {
    const batchCount = 1 / rate;
    let step = 0;
    const next = () => {
      const own = step++ % batchCount;
      return Int32Array.from({ length: records }, (_, record) => record).filter((record) => record % batchCount === own);
    };
    expectCaught(claim, auditSteps(next, (at, record, value) => (record % batchCount === at % batchCount ? value : 0)));
  });
});
