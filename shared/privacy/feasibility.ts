/**
 * Which mechanism is feasible for a federation: how much noise each would put on an averaged soft label, and in words what that means.
 *
 * Rule of thumb with a number behind it: a soft label is a probability, neighboring classes differ by a few tenths, so noise with a
 * standard deviation up to 0.05 per averaged coordinate is hardly felt, up to 0.15 costs accuracy, and more drowns the signal. That
 * is about noise only: whether a student learns from the labels is for the simulations. Epsilons are targets that the noise is
 * calibrated to with the accountant that a run would use: exact (local Gaussian) or Rényi (local votes, sums of discrete Gaussians on a fine grid);
 * nothing here is a statement about a run that has taken place.
 */
import { FederationError } from '../errors.ts';
import { checkDelta } from './accountants/accountant.ts';
import { calibrateParameter } from './accountants/calibration.ts';
import { PldAccountant } from './accountants/pld.ts';
import { RdpAccountant } from './accountants/rdp.ts';
import { randomizedResponseVariance } from './local-votes.ts';
import { meanNoise } from './soft-label-release.ts';
import type { AccountedRelation, NeighboringRelation } from './dp-event.ts';

/** Up to here the noise on an averaged soft label is hardly felt. */
export const GOOD_NOISE = 0.05;
/** Beyond this it drowns the differences between classes. */
export const USABLE_NOISE = 0.15;

export interface FeasibilityRequest {
  readonly clients: number;
  /** Transfer examples in one release. */
  readonly rows: number;
  readonly classes: number;
  readonly epsilon: number;
  readonly delta: number;
  readonly releases: number;
  /** Clients whose noise is certainly in the sum: honest survivors. Default: all. */
  readonly honest?: number | undefined;
  /** Disjoint shards into which a client splits its records, for sample-and-aggregate. Default 50. */
  readonly shards?: number | undefined;
  /** For DP-SGD students: all three, or none. */
  readonly records?: number | undefined;
  readonly batch?: number | undefined;
  readonly steps?: number | undefined;
}

export type Verdict = 'good' | 'costs accuracy' | 'not feasible' | 'depends on training';

export interface MechanismPlan {
  readonly mechanism: string;
  /** In one sentence. */
  readonly what: string;
  readonly unit: 'client' | 'record';
  readonly adjacency: AccountedRelation;
  readonly adversary: string;
  readonly accountant: string;
  /** Standard deviation per coordinate of the mean over clients; null where no noise is put on predictions. */
  readonly meanStddev: number | null;
  /** The same in votes, on the count of one class over all clients; null where nobody votes in a sum. */
  readonly countStddev: number | null;
  readonly verdict: Verdict;
  /** What the number means, and what would change it. */
  readonly meaning: string;
}

export interface FeasibilityPlan {
  readonly request: FeasibilityRequest & { readonly honest: number; readonly shards: number };
  /** Fewest clients for noise up to `GOOD_NOISE` with distributed noise, all of them honest. */
  readonly fewestClients: Readonly<Record<NeighboringRelation, number>>;
  readonly mechanisms: readonly MechanismPlan[];
}

const ANYBODY = 'everyone who sees the noised predictions, the coordinator included';
const AGGREGATE_ONLY = 'everyone, as long as secure aggregation holds and that many honest clients stay';

export function planFeasibility(input: FeasibilityRequest): FeasibilityPlan {
  const request = { ...input, honest: input.honest ?? input.clients, shards: input.shards ?? 50 };
  checkRequest(request);
  const { clients, rows, classes, epsilon, delta, releases, honest, shards } = request;
  const noiseOf = (relation: NeighboringRelation) => meanNoise({ clients, rows, classes, epsilon, delta, releases, relation });
  const replace = noiseOf('replaceOne');
  // Shares are calibrated to the honest ones: with all clients there, the sum has more noise than needed.
  const excess = Math.sqrt(clients / honest);
  const shardNoise = (replace.noiseMultiplier * Math.sqrt(2 * rows)) / shards;
  const fewest = (relation: NeighboringRelation) => Math.ceil((noiseOf(relation).sumStddev / GOOD_NOISE) * (1 - 1e-12));

  // As the ledger would account for it: discrete Gaussians in a sum by Rényi, a few per cent more noise than exactly.
  const sumMultiplier = renyiMultiplier(request) * Math.sqrt(2 * rows);
  const distributed = (sumMultiplier * excess) / clients;
  const distributedFewest = Math.ceil((sumMultiplier / GOOD_NOISE) * (1 - 1e-12));
  const local = replace.localMeanStddev;
  const countNoise = sumMultiplier * excess;
  const distributedShards = countNoise / shards / clients;
  const localShards = shardNoise / Math.sqrt(clients);
  const votes = voteNoise(request);
  return {
    request,
    fewestClients: { replaceOne: fewest('replaceOne'), zeroOut: fewest('zeroOut') },
    mechanisms: [
      {
        mechanism: 'distributed noise on soft labels',
        what: 'Every client adds a small share of the noise, and secure aggregation shows only the sum.',
        unit: 'client', adjacency: 'replaceOne', adversary: AGGREGATE_ONLY, accountant: 'renyi',
        meanStddev: distributed, countStddev: null,
        verdict: verdictOf(distributed),
        meaning: describe(distributed, `At least ${distributedFewest} clients would bring it to ${GOOD_NOISE}. Fewer transfer rows help too: four times fewer rows halve the noise.`),
      },
      {
        mechanism: 'local noise on soft labels',
        what: 'Every client adds all of the noise itself and trusts nobody.',
        unit: 'client', adjacency: 'replaceOne', adversary: ANYBODY, accountant: 'exact-gaussian',
        meanStddev: local, countStddev: null,
        verdict: verdictOf(local),
        meaning: describe(local, `Averaging over ${clients} clients shrinks it only by ${Math.sqrt(clients).toFixed(1)}.`),
      },
      {
        mechanism: 'local votes (randomized response)',
        what: 'Every client reports one class a row, at random with a known probability; the shares of the votes are estimated.',
        unit: 'client', adjacency: 'replaceOne', adversary: ANYBODY, accountant: 'renyi',
        meanStddev: votes.stddev, countStddev: null,
        verdict: verdictOf(votes.stddev),
        meaning: describe(votes.stddev, `Each of the ${rows * releases} votes may cost an epsilon of ${votes.epsilonPerVote.toPrecision(2)}. Few rows a client are the way to use votes.`),
      },
      {
        mechanism: 'sample-and-aggregate, distributed noise',
        what: `Every client trains ${shards} models on disjoint parts of its records and adds a share of the noise to their mean.`,
        unit: 'record', adjacency: 'replaceRecord', adversary: AGGREGATE_ONLY, accountant: 'renyi',
        meanStddev: distributedShards, countStddev: null,
        verdict: verdictOf(distributedShards),
        meaning: describe(distributedShards, `Protects each record, not the whole client. Each model sees only one ${shards}th of the records.`),
      },
      {
        mechanism: 'votes of shards, distributed noise',
        what: `The same with one vote a row from each model: the sum counts ${clients * shards} votes (task: mechanism discreteGaussian, unit record, shards ${shards}).`,
        unit: 'record', adjacency: 'replaceRecord', adversary: AGGREGATE_ONLY, accountant: 'renyi',
        meanStddev: distributedShards, countStddev: countNoise,
        verdict: verdictOf(distributedShards),
        meaning: `Each class's count is off by about ${countNoise.toPrecision(3)} of ${clients * shards} votes (${distributedShards.toPrecision(2)} of the share): the winner of a row is the right one where it leads by more than about ${Math.ceil(2 * Math.SQRT2 * countNoise)} votes. Protects each record, not the whole client.`,
      },
      {
        mechanism: 'sample-and-aggregate, local noise',
        what: `The same with all of the noise added by every client.`,
        unit: 'record', adjacency: 'replaceRecord', adversary: ANYBODY, accountant: 'exact-gaussian',
        meanStddev: localShards, countStddev: null,
        verdict: verdictOf(localShards),
        meaning: describe(localShards, 'Protects each record, not the whole client.'),
      },
      dpSgdPlan(request),
    ],
  };
}

function dpSgdPlan({ records, batch, steps, epsilon, delta }: FeasibilityRequest): MechanismPlan {
  const base = {
    mechanism: 'DP-SGD students',
    what: 'Noise goes into training; predictions of the trained student are free, for any number of rows and releases.',
    unit: 'record', adjacency: 'addOrRemoveRecord', adversary: ANYBODY, accountant: 'pld',
    meanStddev: null, countStddev: null,
    verdict: 'depends on training',
  } as const;
  if (records === undefined || batch === undefined || steps === undefined) {
    return { ...base, meaning: 'Says nothing about a client as a whole. Give --records, --batch and --steps to see the noise multiplier that training would need.' };
  }
  const samplingProbability = batch / records;
  const noiseMultiplier = calibrateParameter({
    accountant: new PldAccountant('addOrRemoveRecord'),
    event: (z) => ({ kind: 'selfComposed', event: { kind: 'poissonSampled', samplingProbability, event: { kind: 'gaussian', noiseMultiplier: z } }, count: steps }),
    epsilon,
    delta,
    range: [0.2, 1e6],
    tolerance: 1e-3,
  });
  return {
    ...base,
    meaning: `Needs a noise multiplier of ${noiseMultiplier.toPrecision(4)} over ${steps} steps with Poisson batches of ${batch} of ${records} records on average. Above about 2, small clients learn little. Steps are over the lifetime of the data, all rounds together.`,
  };
}

/** The noise multiplier of a sum for all releases together, by the accountant that knows sums of discrete Gaussians. */
function renyiMultiplier({ epsilon, delta, releases }: FeasibilityRequest): number {
  return calibrateParameter({
    accountant: new RdpAccountant('replaceOne'),
    event: (noiseMultiplier) => ({ kind: 'selfComposed', event: { kind: 'gaussian', noiseMultiplier }, count: releases }),
    epsilon,
    delta,
    range: [1e-3, 1e9],
    tolerance: 1e-5,
  });
}

/** The best epsilon per vote within the budget, and the noise that it leaves on a row's share of votes. */
function voteNoise({ clients, rows, classes, epsilon, delta, releases }: FeasibilityRequest): { readonly epsilonPerVote: number; readonly stddev: number } {
  const votes = rows * releases;
  // Searched as 1 / epsilon, which the cost falls with. One vote can always have all of the budget's share: epsilon / votes.
  const inverse = calibrateParameter({
    accountant: new RdpAccountant('replaceOne'),
    event: (parameter) => ({ kind: 'selfComposed', event: { kind: 'randomizedResponse', epsilon: 1 / parameter, categories: classes }, count: votes }),
    epsilon,
    delta,
    range: [1 / 50, 1e9],
    tolerance: 1e-4,
  });
  const epsilonPerVote = Math.max(1 / inverse, epsilon / votes);
  return { epsilonPerVote, stddev: Math.sqrt(randomizedResponseVariance(epsilonPerVote, classes) / clients) };
}

function verdictOf(stddev: number): Verdict {
  return stddev <= GOOD_NOISE ? 'good' : stddev <= USABLE_NOISE ? 'costs accuracy' : 'not feasible';
}

function describe(stddev: number, advice: string): string {
  const scale =
    stddev <= GOOD_NOISE
      ? 'small beside the difference between a likely and an unlikely class'
      : stddev <= USABLE_NOISE
        ? 'enough to hide which of two similar classes is meant'
        : 'as large as the probabilities themselves, so single labels say little';
  return `An averaged probability, between 0 and 1, is off by about ${stddev.toPrecision(2)}: ${scale}. ${advice}`;
}

function checkRequest(request: FeasibilityRequest & { readonly honest: number; readonly shards: number }): void {
  checkDelta(request.delta);
  if (!(request.delta > 0)) throw invalid('--delta', 'a number in (0, 1)', request.delta);
  if (!(request.epsilon > 0 && request.epsilon <= 1000)) throw invalid('--epsilon', 'a number from 0 to 1000', request.epsilon);
  const counts: ReadonlyArray<readonly [string, number | undefined, number]> = [
    ['--clients', request.clients, 1], ['--transfer-size', request.rows, 1], ['--classes', request.classes, 2], ['--releases', request.releases, 1], ['--honest', request.honest, 1],
    ['--shards', request.shards, 1], ['--records', request.records, 1], ['--batch', request.batch, 1], ['--steps', request.steps, 1],
  ];
  for (const [field, value, least] of counts) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= least && value <= 1e9)) throw invalid(field, `a whole number from ${least} to 1000000000`, value);
  }
  if (request.honest > request.clients) throw invalid('--honest', `at most the ${request.clients} clients`, request.honest);
  const training = [request.records, request.batch, request.steps].filter((value) => value !== undefined).length;
  if (training !== 0 && training !== 3) throw new FederationError('usage-invalid', 'a plan for DP-SGD needs --records, --batch and --steps together', { field: '--records, --batch, --steps', next: 'Give all three, or none.' });
  if (request.records !== undefined && request.batch !== undefined && request.batch > request.records) throw invalid('--batch', `at most the ${request.records} records`, request.batch);
}

function invalid(field: string, expected: string, got: number): FederationError {
  return new FederationError('usage-invalid', 'an option of the plan is not usable', { field, expected, got: String(got), next: 'Correct the option.' });
}

/** As text for somebody who is no specialist. */
export function renderPlan(plan: FeasibilityPlan): string {
  const { request, fewestClients } = plan;
  const { clients, rows, classes, epsilon, delta, releases, honest } = request;
  const best = plan.mechanisms.find((mechanism) => mechanism.verdict === 'good') ?? plan.mechanisms.find((mechanism) => mechanism.verdict === 'costs accuracy');
  const lines = [
    `Plan for ${clients} clients (${honest} of them surely honest and present), ${rows} transfer rows x ${classes} classes, ${releases} release${releases === 1 ? '' : 's'} a client.`,
    `Target: epsilon ${epsilon} at delta ${delta} over all releases. Epsilon is a limit on how much more likely any outcome gets because of one client's (or record's) data: a factor of ${Math.exp(epsilon).toPrecision(3)}, except with probability ${delta}.`,
    '',
    `Rule: noise up to ${GOOD_NOISE} on each averaged probability is hardly felt, up to ${USABLE_NOISE} costs accuracy, beyond that it drowns the labels.`,
    `Client-level distributed noise, accounted exactly, stays within ${GOOD_NOISE} from ${fewestClients.replaceOne} clients on (replace-one), or ${fewestClients.zeroOut} (zero-out, the weaker claim); what a run accounts for sums needs a few per cent more. You have ${clients}.`,
    '',
  ];
  for (const item of plan.mechanisms) {
    lines.push(
      `${item.verdict.toUpperCase()}: ${item.mechanism}`,
      `  ${item.what}`,
      `  ${item.meaning}`,
      `  (unit ${item.unit}; ${relationName[item.adjacency]}; delta ${delta}; against ${item.adversary}; accountant ${item.accountant}; ${releases} release${releases === 1 ? '' : 's'} of ${rows} rows)`,
      '',
    );
  }
  lines.push(
    best === undefined
      ? 'Nothing that puts noise on predictions is feasible here. Use DP-SGD students, fewer transfer rows, more clients, or a larger epsilon.'
      : `Suggested: ${best.mechanism} (protects each ${best.unit}).`,
    '',
  );
  return lines.join('\n');
}

const relationName: Readonly<Record<AccountedRelation, string>> = { replaceOne: 'replace-one', zeroOut: 'zero-out', addOrRemoveRecord: 'add or remove one record', replaceRecord: 'replace one record' };
