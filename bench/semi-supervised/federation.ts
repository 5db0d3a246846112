/** What both tables of this folder do: data, clients, votes under secure aggregation's noise, and how long it took. */
import { cpus } from 'node:os';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import { argmax } from '../../shared/distillation/evaluation.ts';
import { nearestQueryVotes, nearestVoteSensitivity } from '../../shared/distillation/nearest-query-votes.ts';
import type { VoteHistogram } from '../../shared/distillation/plurality.ts';
import { softmax } from '../../shared/distillation/temperature.ts';
import { loadDataSource } from '../../shared/node/data-source.ts';
import { calibrateNoiseMultiplier, gaussianEpsilon } from '../../shared/privacy/accountants/numerics.ts';
import { sampleDiscreteGaussians } from '../../shared/privacy/sampling/discrete-gaussian.ts';
import { noiseShareSigma } from '../../shared/secure-aggregation/noise-share.ts';
import type { LabelledExamples, Matrix } from '../../shared/types/matrix.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';

export const exampleShape = [28, 28, 1];
export const numClasses = 10;
export const delta = 1e-5;
/** Grid steps of one vote: fine enough that rounding a noise share up to a whole step adds almost nothing. */
const stepsPerVote = 64;

export async function mnist(split: 'train' | 'test', offset: number, size: number): Promise<LabelledExamples> {
  const { examples, labels } = await loadDataSource({ source: 'mnist', split, offset, size }, { baseDir: '.', exampleShape, numClasses, needLabels: true });
  return { examples, labels: labels!, numClasses };
}

/** Votes that a client's teachers cast, before noise. */
export type Votes = Int32Array;

export interface ShardSettings {
  /** Of one client. */
  readonly shards: number;
  /** A shard abstains on a query of which it is less sure than this. */
  readonly minConfidence: number;
}

/**
 * A client's shards, by position: each trains a softmax regression on its records' points and votes at most once on every query. Its settings are public
 * constants. Replacing one record changes the votes of one shard: at most sqrt(2 Q) in L2 norm.
 */
export async function shardVotes(engine: ComputeEngine, records: Matrix, labels: Int32Array, { shards, minConfidence }: ShardSettings, queries: Matrix, seed: number): Promise<Votes> {
  const votes = new Int32Array(queries.rows * numClasses);
  const shape = [queries.columns];
  for (let shard = 0; shard < shards; shard++) {
    const [start, end] = [Math.floor((records.rows * shard) / shards), Math.floor((records.rows * (shard + 1)) / shards)];
    // A shard without records has no opinion.
    if (start === end) continue;
    const model = await engine.open({ kind: 'zoo', name: 'softmax-regression', exampleShape: shape, numClasses }, deriveSeed(seed, 'shard', shard));
    await model.fit(
      { hard: { examples: { count: end - start, shape, values: records.values.subarray(start * records.columns, end * records.columns) }, labels: labels.subarray(start, end) } },
      { epochs: 40, batchSize: 20, loss: { distance: 'kl', temperature: 1, alpha: 1 }, optimizer: { kind: 'adam', learningRate: 0.03 }, l2: 0.001, seed: deriveSeed(seed, 'shard-fit', shard) },
    );
    const probabilities = softmax(await model.predict({ count: queries.rows, shape, values: queries.values }));
    argmax(probabilities).forEach((label, query) => {
      if (probabilities.values[query * numClasses + label]! >= minConfidence) votes[query * numClasses + label]!++;
    });
    await model.dispose();
  }
  return votes;
}

export function recordVotes(records: Matrix, labels: Int32Array, queries: Matrix): Votes {
  return nearestQueryVotes(records, labels, queries, numClasses).values;
}

export type VoteKind = 'shards' | 'nearest';

export interface NoisePlan {
  readonly kind: VoteKind;
  readonly queries: number;
  readonly epsilon: number;
  readonly minSurvivors: number;
  readonly maxCorrupt: number;
}

export interface NoisedVotes {
  readonly votes: VoteHistogram;
  /** L2, in votes, replace-one record. */
  readonly sensitivity: number;
  /** Standard deviation of a cell, in votes: of the honest noise that is counted, and of all that is there. */
  readonly countedSigma: number;
  readonly actualSigma: number;
  /** Of the counted noise, exact Gaussian, replace-one record, against the server. */
  readonly epsilon: number;
}

/** The sum that secure aggregation would reveal: every client adds its share of discrete Gaussian noise. Seeded, to be repeatable: it protects nobody. */
export function noisedSum(clientVotes: readonly Votes[], plan: NoisePlan, seed: number): NoisedVotes {
  const sensitivity = plan.kind === 'shards' ? Math.sqrt(2 * plan.queries) : nearestVoteSensitivity.replaceOne;
  const { minSurvivors, maxCorrupt } = plan;
  const share = noiseShareSigma({ noiseMultiplier: calibrateNoiseMultiplier(plan.epsilon, delta), l2Sensitivity: sensitivity * stepsPerVote, minSurvivors, maxCorrupt });
  const sum = new Float64Array(plan.queries * numClasses);
  clientVotes.forEach((votes, client) => {
    const noise = sampleDiscreteGaussians(votes.length, share, new InsecureSeededRandom(deriveSeed(seed, 'noise', client)));
    votes.forEach((count, cell) => (sum[cell]! += count + noise[cell]! / stepsPerVote));
  });
  const countedSigma = (share * Math.sqrt(minSurvivors - maxCorrupt)) / stepsPerVote;
  return {
    votes: { rows: plan.queries, columns: numClasses, values: sum },
    sensitivity,
    countedSigma,
    actualSigma: (share * Math.sqrt(clientVotes.length)) / stepsPerVote,
    epsilon: gaussianEpsilon(delta, sensitivity / countedSigma),
  };
}

export function shareRight(labels: ArrayLike<number>, truth: Int32Array, rows: ArrayLike<number> = truth): number {
  let right = 0;
  for (let at = 0; at < rows.length; at++) right += labels[at] === truth[rows === truth ? at : rows[at]!] ? 1 : 0;
  return right / rows.length;
}

export const percent = (share: number): string => (100 * share).toFixed(2);

export function machineLine(engine: ComputeEngine): string {
  return `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, engine ${engine.name}.`;
}
