/** The rules between a task's keys: what no single key's range can say. docs/task.md lists them for the user. */
import { completeThreshold } from '../secure-aggregation/share-graph.ts';
import { isOnGrid } from '../privacy/release.ts';
import type { ConfigRule } from './config-rule.ts';
import type { DataSource, TaskConfigSchema } from './task-config.ts';
import type { z } from 'zod';

type Task = z.infer<typeof TaskConfigSchema>;

/**
 * Most bytes of values in one contribution: what fits into an envelope of 64 MiB with its header and seal
 * (`maxEnvelopeBytes` in protocol/limits.ts, which imports this layer and not the other way round).
 */
export const MAX_CONTRIBUTION_BYTES = 64 * 1024 * 1024 - 4096;
const bytesPerValue = { float32: 4, float16: 2, uint8: 1, bits1: 1, bits2: 1, bits3: 1, bits4: 1, bits5: 1, bits6: 1, bits7: 1, bits8: 1 } as const;

/** Fewest clients in a secure sum. */
const LEAST_SECURE_QUORUM = 3;

/** Most transfer examples of which all pairs are compared (a minute). */
const MOST_CLUSTERED = 20_000;

/** Whether an aggregator needs no more than the sum of all contributions; `ofVotes`: only when each of them is votes already. */
const worksOnSum: Readonly<Record<Task['aggregation']['aggregator'], boolean | 'ofVotes'>> = {
  meanLogits: true, meanProbabilities: true, meanVotes: true, entropyReduction: true, enhancedEra: true, majorityVote: 'ofVotes', entropyWeighted: false,
};

/** How many examples a source gives, where that is known without reading it. */
function knownSize(source: DataSource): number | undefined {
  if (source.size !== undefined) return source.size;
  // MNIST and Fashion-MNIST have the same sizes.
  if (source.source === 'mnist' || source.source === 'fashion-mnist') return Math.max(0, (source.split === 'train' ? 60_000 : 10_000) - source.offset);
  return undefined;
}

/** Why predictions leave as noised or masked integers; `undefined` when they leave as they are. */
function integersBecause(privacy: Task['privacy']): string | undefined {
  if (privacy.trustMode === 'secure-aggregation') return 'privacy.trustMode is secure-aggregation';
  return isOnGrid(privacy) ? `privacy.mechanism is ${privacy.mechanism}` : undefined;
}

export const taskRules: readonly ConfigRule<Task>[] = [
  {
    reads: ['schedule.minClients', 'schedule.quorum'],
    check({ schedule }) {
      if (schedule === undefined || schedule.minClients >= schedule.quorum) return undefined;
      return { path: 'schedule.minClients', expected: `at least schedule.quorum (${schedule.quorum})`, got: `${schedule.minClients}`, hint: 'a round that starts with fewer clients than its quorum can never end well' };
    },
  },
  {
    reads: ['schedule.cohortSize', 'schedule.quorum'],
    check({ schedule }) {
      if (schedule?.cohortSize === undefined || schedule.quorum <= schedule.cohortSize) return undefined;
      return { path: 'schedule.quorum', expected: `at most schedule.cohortSize (${schedule.cohortSize})`, got: `${schedule.quorum}`, hint: 'a round has no more contributions than its cohort has clients' };
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.epsilon'],
    check({ privacy }) {
      if (privacy === undefined) return undefined;
      const { mechanism, epsilon } = privacy;
      if (mechanism !== 'none' && epsilon === undefined) {
        return { path: 'privacy.epsilon', expected: `the target over all rounds, because privacy.mechanism is ${mechanism}`, got: 'nothing', hint: '`fedstill privacy calibrate` shows what a target costs' };
      }
      if (mechanism === 'none' && epsilon !== undefined) {
        return { path: 'privacy.epsilon', expected: 'no epsilon, because privacy.mechanism is none', got: `${epsilon}`, hint: 'without noise there is no such guarantee: choose a mechanism, or leave epsilon out' };
      }
      return undefined;
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.trustMode'],
    check({ privacy }) {
      if (privacy === undefined) return undefined;
      const { trustMode, mechanism } = privacy;
      if (trustMode === 'clear' && mechanism !== 'none') {
        const expected = mechanism === 'discreteGaussian' ? 'secure-aggregation' : 'sealed';
        return { path: 'privacy.trustMode', expected: `${expected}, because privacy.mechanism is ${mechanism}`, got: 'clear', hint: '`clear` is for baselines that claim no privacy' };
      }
      if (trustMode === 'sealed' && mechanism === 'discreteGaussian') {
        return { path: 'privacy.mechanism', expected: 'none, gaussian, laplace or dpSgd, because privacy.trustMode is sealed', got: mechanism, hint: 'a share of the noise protects only inside a sum: use `trustMode: secure-aggregation`, or local noise (gaussian)' };
      }
      if (trustMode === 'secure-aggregation' && mechanism !== 'none' && mechanism !== 'discreteGaussian') {
        return { path: 'privacy.mechanism', expected: 'discreteGaussian or none, because privacy.trustMode is secure-aggregation', got: mechanism, hint: 'under secure aggregation each client adds a share of the noise: `mechanism: discreteGaussian`' };
      }
      return undefined;
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.dpSgd'],
    check({ privacy }) {
      if (privacy === undefined) return undefined;
      const { mechanism, dpSgd } = privacy;
      if (mechanism === 'dpSgd' && dpSgd === undefined) {
        return { path: 'privacy.dpSgd', expected: 'how clients train, because privacy.mechanism is dpSgd', got: 'nothing', hint: 'give `dpSgd: { samplingRate: 0.05, stepsPerRound: 50 }`' };
      }
      if (mechanism !== 'dpSgd' && dpSgd !== undefined) {
        return { path: 'privacy.dpSgd', expected: `nothing, because privacy.mechanism is ${mechanism}`, got: 'settings', hint: 'set `mechanism: dpSgd`, or leave dpSgd out' };
      }
      return undefined;
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.sampleAndAggregate'],
    check({ privacy }) {
      if (privacy?.mechanism !== 'dpSgd' || privacy.sampleAndAggregate === undefined) return undefined;
      return { path: 'privacy.sampleAndAggregate', expected: 'nothing, because privacy.mechanism is dpSgd', got: 'settings', hint: 'either shards protect single records, or private training does' };
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.recordVotes', 'privacy.sampleAndAggregate'],
    check({ privacy }) {
      if (privacy?.recordVotes === undefined || (privacy.mechanism !== 'dpSgd' && privacy.sampleAndAggregate === undefined)) return undefined;
      return { path: 'privacy.recordVotes', expected: `nothing, because ${privacy.mechanism === 'dpSgd' ? 'privacy.mechanism is dpSgd' : 'of privacy.sampleAndAggregate'}`, got: 'settings', hint: 'either each record votes once, or shards do, or private training protects records' };
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.trustMode', 'privacy.recordVotes'],
    check({ privacy }) {
      if (privacy?.recordVotes === undefined || privacy.mechanism !== 'none' || privacy.trustMode === 'secure-aggregation') return undefined;
      return { path: 'privacy.mechanism', expected: 'a mechanism with noise, because of privacy.recordVotes', got: 'none', hint: 'votes of records are a histogram of them; without noise that protects nothing' };
    },
  },
  {
    reads: ['privacy.recordVotes', 'aggregation.aggregator'],
    check({ privacy, aggregation }) {
      if (privacy?.recordVotes === undefined || aggregation === undefined || aggregation.aggregator === 'meanVotes') return undefined;
      return { path: 'aggregation.aggregator', expected: 'meanVotes, because of privacy.recordVotes', got: aggregation.aggregator, hint: 'counts of records are no probabilities: `teacher: { kind: semiSupervised }` spreads them' };
    },
  },
  {
    reads: ['privacy.mechanism', 'student.earlyStoppingPatience'],
    check({ privacy, student }) {
      if (privacy?.mechanism !== 'dpSgd' || student === undefined || student.earlyStoppingPatience === 0) return undefined;
      return { path: 'student.earlyStoppingPatience', expected: '0, because privacy.mechanism is dpSgd', got: `${student.earlyStoppingPatience}`, hint: 'when a training stops would tell of records that nobody accounts for' };
    },
  },
  {
    reads: ['privacy.mechanism', 'distillation.alpha'],
    check({ privacy, distillation }) {
      if (privacy?.mechanism !== 'dpSgd' || distillation === undefined || distillation.alpha === 0) return undefined;
      return { path: 'distillation.alpha', expected: '0, because privacy.mechanism is dpSgd', got: `${distillation.alpha}`, hint: 'the digest phase would mix private records in, without noise' };
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.unit', 'privacy.sampleAndAggregate', 'privacy.recordVotes'],
    check({ privacy }) {
      if (privacy === undefined) return undefined;
      const { unit, sampleAndAggregate, recordVotes, mechanism } = privacy;
      if (mechanism === 'dpSgd') {
        if (unit === 'record') return undefined;
        return { path: 'privacy.unit', expected: 'record, because privacy.mechanism is dpSgd', got: unit, hint: 'the noise of a training step hides one record, not everything of a client' };
      }
      if (unit === 'record' && sampleAndAggregate === undefined && recordVotes === undefined) {
        return { path: 'privacy.unit', expected: 'client, because there is no privacy.sampleAndAggregate', got: 'record', hint: 'one record changes a whole model: only models of disjoint shards protect it alone; give `sampleAndAggregate: { shards: 25 }`, or `recordVotes: {}`, or set `mechanism: dpSgd`' };
      }
      if (unit === 'client' && (sampleAndAggregate !== undefined || recordVotes !== undefined)) {
        const [section, what] = recordVotes === undefined ? ['sampleAndAggregate', 'shards'] : ['recordVotes', 'votes of records'];
        return { path: 'privacy.unit', expected: `record, because of privacy.${section}`, got: 'client', hint: `with ${what} one guarantee protects one record, not everything of a client` };
      }
      return undefined;
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.trustMode', 'privacy.sampleAndAggregate'],
    check({ privacy }) {
      if (privacy?.sampleAndAggregate === undefined || privacy.mechanism !== 'none' || privacy.trustMode === 'secure-aggregation') return undefined;
      return { path: 'privacy.mechanism', expected: 'a mechanism with noise, because of privacy.sampleAndAggregate', got: 'none', hint: 'shards limit what one record changes; without noise that protects nothing' };
    },
  },
  {
    reads: ['privacy.sampleAndAggregate', 'aggregation.aggregator'],
    check({ privacy, aggregation }) {
      if (privacy?.sampleAndAggregate?.votes !== true || aggregation?.aggregator !== 'meanLogits') return undefined;
      return { path: 'aggregation.aggregator', expected: 'meanProbabilities, meanVotes or entropyReduction, because of privacy.sampleAndAggregate.votes', got: 'meanLogits', hint: 'votes are probabilities; or set votes to false' };
    },
  },
  {
    reads: ['privacy.trustMode', 'schedule.quorum'],
    check({ privacy, schedule }) {
      if (privacy?.trustMode !== 'secure-aggregation' || schedule === undefined || schedule.quorum >= LEAST_SECURE_QUORUM) return undefined;
      return { path: 'schedule.quorum', expected: `at least ${LEAST_SECURE_QUORUM}, because privacy.trustMode is secure-aggregation`, got: `${schedule.quorum}`, hint: 'a sum of two shows each of them the other' };
    },
  },
  {
    reads: ['privacy.trustMode', 'privacy.secureAggregation', 'schedule.quorum'],
    check({ privacy, schedule }) {
      if (privacy?.trustMode !== 'secure-aggregation' || schedule === undefined) return undefined;
      const { maxCorrupt } = privacy.secureAggregation;
      if (maxCorrupt < schedule.quorum) return undefined;
      return { path: 'privacy.secureAggregation.maxCorrupt', expected: `below schedule.quorum (${schedule.quorum})`, got: `${maxCorrupt}`, hint: 'only the noise of honest clients counts, and there must be some' };
    },
  },
  {
    reads: ['privacy.trustMode', 'privacy.secureAggregation', 'schedule.quorum', 'schedule.minClients', 'schedule.cohortSize'],
    check({ privacy, schedule }) {
      if (privacy?.trustMode !== 'secure-aggregation' || schedule === undefined) return undefined;
      const { maxCorrupt } = privacy.secureAggregation;
      const { quorum, cohortSize, minClients } = schedule;
      // Both are reported by themselves.
      if (quorum < LEAST_SECURE_QUORUM || maxCorrupt >= quorum) return undefined;
      const clients = cohortSize ?? minClients;
      const least = completeThreshold(clients, maxCorrupt);
      if (quorum >= least) return undefined;
      return {
        path: 'schedule.quorum', expected: `at least ${least} for ${clients} clients of which ${maxCorrupt} may be corrupt`, got: `${quorum}`,
        hint: 'more than half of a round\'s clients have to stay, so that two different sums can\'t be opened; raise the quorum, or lower schedule.cohortSize',
      };
    },
  },
  {
    reads: ['privacy.trustMode', 'privacy.sampleAndAggregate', 'aggregation.aggregator'],
    check({ privacy, aggregation }) {
      if (privacy?.trustMode !== 'secure-aggregation' || aggregation === undefined) return undefined;
      const works = worksOnSum[aggregation.aggregator];
      if (works === true || (works === 'ofVotes' && privacy.sampleAndAggregate?.votes === true)) return undefined;
      return {
        path: 'aggregation.aggregator', expected: 'an aggregator of the mean, because privacy.trustMode is secure-aggregation', got: aggregation.aggregator,
        hint: works === 'ofVotes' ? 'nobody sees more than the sum, and the largest of a sum of probabilities is no majority: let shards vote (privacy.sampleAndAggregate.votes), or use meanProbabilities' : 'nobody sees more than the sum: use meanProbabilities, meanLogits, entropyReduction or enhancedEra',
      };
    },
  },
  {
    reads: ['privacy.mechanism', 'aggregation.aggregator'],
    check({ privacy, aggregation }) {
      if (privacy === undefined || aggregation?.aggregator !== 'entropyWeighted' || !isOnGrid(privacy)) return undefined;
      return { path: 'aggregation.aggregator', expected: `an aggregator without weights, because privacy.mechanism is ${privacy.mechanism}`, got: 'entropyWeighted', hint: 'the entropy of a noised row is that of its noise: use meanProbabilities, entropyReduction or enhancedEra' };
    },
  },
  {
    reads: ['aggregation.aggregator', 'aggregation.maxEntropy'],
    check({ aggregation }) {
      if (aggregation?.aggregator !== 'meanVotes' || aggregation.maxEntropy === 1) return undefined;
      return { path: 'aggregation.maxEntropy', expected: '1, because aggregation.aggregator is meanVotes', got: `${aggregation.maxEntropy}`, hint: 'noised votes are no probabilities, and their entropy means nothing' };
    },
  },
  {
    reads: ['aggregation.aggregator', 'teacher'],
    check({ aggregation, teacher }) {
      if (aggregation?.aggregator !== 'meanLogits' || teacher?.kind !== 'pretrained' || teacher.outputKind === 'logits') return undefined;
      return { path: 'teacher.outputKind', expected: 'logits, because aggregation.aggregator is meanLogits', got: 'probabilities', hint: 'use a teacher without a final softmax, or aggregate with meanProbabilities' };
    },
  },
  {
    reads: ['aggregation.aggregator', 'teacher'],
    check({ aggregation, teacher }) {
      if (aggregation === undefined || teacher === undefined || (aggregation.aggregator === 'meanVotes') === (teacher.kind === 'semiSupervised')) return undefined;
      if (teacher.kind === 'semiSupervised') return { path: 'aggregation.aggregator', expected: 'meanVotes, because teacher.kind is semiSupervised', got: aggregation.aggregator, hint: 'it spreads the votes as they are, so that their noise cancels first' };
      return { path: 'aggregation.aggregator', expected: `meanProbabilities, meanLogits or entropyReduction, because teacher.kind is ${teacher.kind}`, got: 'meanVotes', hint: 'noised votes are no probabilities: only `teacher: { kind: semiSupervised }` takes them as they are' };
    },
  },
  {
    reads: ['teacher', 'schedule.querySelection', 'transferSet'],
    check({ teacher, schedule, transferSet }) {
      if (teacher === undefined || schedule === undefined || transferSet === undefined) return undefined;
      const size = knownSize(transferSet);
      if (size === undefined || size <= MOST_CLUSTERED || (teacher.kind !== 'semiSupervised' && schedule.querySelection === 'random')) return undefined;
      const why = teacher.kind === 'semiSupervised' ? 'teacher.kind is semiSupervised' : 'schedule.querySelection is clusterMiddles';
      return { path: 'transferSet.size', expected: `at most ${MOST_CLUSTERED} examples, because ${why}`, got: `${size}`, hint: 'all pairs of examples are compared' };
    },
  },
  {
    reads: ['distillation.loss', 'aggregation.aggregator'],
    check({ distillation, aggregation }) {
      if (distillation?.loss !== 'logitMae' || aggregation === undefined || aggregation.aggregator === 'meanLogits') return undefined;
      return { path: 'distillation.loss', expected: `kl, because aggregation.aggregator is ${aggregation.aggregator}`, got: 'logitMae', hint: 'logitMae compares logits: use it with the aggregator meanLogits' };
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.trustMode', 'aggregation.encoding'],
    check({ privacy, aggregation }) {
      if (privacy === undefined || aggregation === undefined || !aggregation.encoding.startsWith('bits')) return undefined;
      const why = integersBecause(privacy);
      if (why === undefined) return undefined;
      return { path: 'aggregation.encoding', expected: `an encoding that leaves integers as they are, because ${why}`, got: aggregation.encoding, hint: 'what carries noise or masks is never quantized again: leave encoding out' };
    },
  },
  {
    reads: ['aggregation.aggregator', 'aggregation.encoding'],
    check({ aggregation }) {
      if (aggregation?.aggregator !== 'meanLogits' || !aggregation.encoding.startsWith('bits')) return undefined;
      return { path: 'aggregation.encoding', expected: 'float32, float16 or uint8, because aggregation.aggregator is meanLogits', got: aggregation.encoding, hint: 'levels of few bits stand for probabilities; use another aggregator' };
    },
  },
  {
    reads: ['distillation.labelEncoding', 'distillation.loss'],
    check({ distillation }) {
      if (distillation?.loss !== 'logitMae' || !distillation.labelEncoding.startsWith('bits')) return undefined;
      return { path: 'distillation.labelEncoding', expected: 'float32, float16 or uint8, because distillation.loss is logitMae', got: distillation.labelEncoding, hint: 'levels of few bits stand for probabilities, and that loss compares logits' };
    },
  },
  {
    reads: ['aggregation.aggregator', 'distillation.labelEncoding', 'teacher'],
    check({ aggregation, distillation, teacher }) {
      if (aggregation?.aggregator !== 'meanLogits' || teacher?.kind !== 'consensus' || distillation === undefined || !distillation.labelEncoding.startsWith('bits')) return undefined;
      return { path: 'distillation.labelEncoding', expected: 'float32, float16 or uint8, because aggregation.aggregator is meanLogits', got: distillation.labelEncoding, hint: 'a consensus of logits is distilled as such; use an aggregator of probabilities' };
    },
  },
  {
    reads: ['distillation.sharing', 'schedule.quorum'],
    check({ distillation, schedule }) {
      const least = distillation?.sharing?.minClients;
      if (least === undefined || schedule === undefined || least <= schedule.quorum) return undefined;
      return { path: 'distillation.sharing.minClients', expected: `at most schedule.quorum (${schedule.quorum})`, got: `${least}`, hint: 'a round may have no more clients than its quorum' };
    },
  },
  {
    reads: ['distillation.cache', 'teacher'],
    check({ distillation, teacher }) {
      if (distillation?.cache === undefined || teacher === undefined || teacher.kind === 'consensus') return undefined;
      return { path: 'teacher.kind', expected: 'consensus, because of distillation.cache', got: teacher.kind, hint: 'what is kept is the consensus of a transfer example; a model says something else about it after each round' };
    },
  },
  {
    reads: ['distillation.cache', 'privacy.mechanism', 'privacy.trustMode'],
    check({ distillation, privacy }) {
      if (distillation?.cache === undefined || privacy === undefined) return undefined;
      const why = integersBecause(privacy);
      if (why === undefined) return undefined;
      return { path: 'distillation.cache', expected: `nothing, because ${why}`, got: 'settings', hint: 'rounds then ask for fewer rows than their noise and sums are planned for; query a smaller transferBatch instead' };
    },
  },
  {
    reads: ['distillation.cache', 'schedule.querySelection'],
    check({ distillation, schedule }) {
      if (distillation?.cache === undefined || schedule === undefined || schedule.querySelection === 'random') return undefined;
      return { path: 'schedule.querySelection', expected: 'random, because of distillation.cache', got: schedule.querySelection, hint: 'the same examples in every round would all be young after the first one' };
    },
  },
  {
    reads: ['distillation.cache', 'distillation.labelEncoding'],
    check({ distillation }) {
      if (distillation?.cache === undefined || distillation.labelEncoding !== 'uint8') return undefined;
      return { path: 'distillation.labelEncoding', expected: 'an encoding that is the same for a row whatever the others are, because of distillation.cache', got: 'uint8', hint: 'use float16 or bits8' };
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.trustMode', 'distillation.sharing'],
    check({ privacy, distillation }) {
      if (privacy === undefined || distillation?.sharing === undefined) return undefined;
      const why = integersBecause(privacy);
      if (why === undefined) return undefined;
      return { path: 'distillation.sharing', expected: `nothing, because ${why}`, got: 'settings', hint: 'which rows are missing would tell of private records, and no noise covers it; shards may abstain instead (privacy.sampleAndAggregate.minConfidence)' };
    },
  },
  {
    reads: ['schedule.transferBatch', 'transferSet'],
    check({ schedule, transferSet }) {
      const batch = schedule?.transferBatch;
      const size = transferSet === undefined ? undefined : knownSize(transferSet);
      if (batch === undefined || size === undefined || batch <= size) return undefined;
      return { path: 'schedule.transferBatch', expected: `at most the transfer set's size (${size})`, got: `${batch}` };
    },
  },
  {
    reads: ['privacy.mechanism', 'privacy.trustMode', 'aggregation.encoding', 'schedule.transferBatch', 'transferSet', 'data.numClasses'],
    check({ privacy, aggregation, schedule, transferSet, data }) {
      if (privacy === undefined || aggregation === undefined || schedule === undefined || transferSet === undefined || data === undefined) return undefined;
      const batch = schedule.transferBatch ?? knownSize(transferSet);
      // Noised and masked predictions are always 32-bit integers.
      const bytes = !isOnGrid(privacy) && privacy.trustMode !== 'secure-aggregation' ? bytesPerValue[aggregation.encoding] : 4;
      const most = Math.floor(MAX_CONTRIBUTION_BYTES / (bytes * data.numClasses));
      if (batch === undefined || batch <= most) return undefined;
      return {
        path: 'schedule.transferBatch', expected: `at most ${most} examples with ${data.numClasses} classes, so that a contribution fits into 64 MiB`,
        got: `${batch}`, hint: isOnGrid(privacy) ? 'query fewer examples a round: every noised value also costs budget' : 'query fewer examples a round',
      };
    },
  },
  {
    reads: ['schedule.convergencePatience', 'evaluationSet'],
    check({ schedule, evaluationSet }) {
      if (schedule === undefined || schedule.convergencePatience === 0 || evaluationSet !== undefined) return undefined;
      return { path: 'schedule.convergencePatience', expected: '0, because there is no evaluationSet', got: `${schedule.convergencePatience}`, hint: 'give an evaluationSet to measure convergence on' };
    },
  },
  {
    reads: ['evaluationSet'],
    check({ evaluationSet }) {
      if (evaluationSet?.source !== 'csv' || evaluationSet.labelColumn !== undefined) return undefined;
      return { path: 'evaluationSet.labelColumn', expected: 'the header of the label column', got: 'nothing', hint: 'accuracy is measured against labels' };
    },
  },
];
