/**
 * Whether to take part in a task at all, decided when it is first seen: a task that this client would refuse in every round is refused at once.
 * Each announcement is judged again, with its exact release (`client-policy.ts`).
 */
import { FederationError } from '../../shared/errors.ts';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';
import { decide, refusalError, type ClientPolicy } from '../../shared/privacy/client-policy.ts';
import { chargedRelease, spent } from '../../shared/privacy/ledger.ts';
import { planRelease, type ReleaseParameters } from '../../shared/privacy/release.ts';
import type { RoundDocument, TaskDocument } from '../../shared/protocol/messages.ts';

export interface TaskOutlook {
  /** What the ledger will stand at after the planned releases that are left (replace-one, the policy's delta); `undefined` when that cannot be foreseen. */
  readonly epsilonAtEnd: number | undefined;
}

/** More planned releases than this are not added up: the outlook is a service, the limit is enforced in every round. */
const maxForeseenReleases = 10_000;

/**
 * Throws `policy-refused`, or `budget-exhausted` when not even the first release would be allowed. A task that was begun is not refused for its budget: what was
 * charged may still have to be sent, and its last labels are free.
 */
export function judgeTask(policy: ClientPolicy, task: TaskDocument, ledger: PrivacyLedger): TaskOutlook {
  const { privacy, schedule } = task;
  checkPrivateTraining(task);
  const entries = ledger.entries();
  const parameters = typicalRelease(task);
  const decision = decide(policy, { trustMode: privacy.trustMode, parameters, roundsDone: 0, cohortSize: Math.max(schedule.minClients, schedule.quorum), quorum: schedule.quorum, secureAggregation: privacy.secureAggregation, ledger: entries });
  const released = entries.filter((entry) => entry.task === task.task).length;
  if (decision.kind === 'refuse' && !(decision.code === 'budget-exhausted' && released > 0)) throw refusalError(decision);
  const left = Math.max(0, privacy.releases - released);
  if (left > maxForeseenReleases) return { epsilonAtEnd: undefined };
  const planned = Array.from({ length: left }, () => chargedRelease(parameters));
  return { epsilonAtEnd: spent([...entries, ...planned], 'replaceOne', policy.delta) };
}

/** Throws `context-mismatch` for a task of private training that would look at private records without noise as well. */
function checkPrivateTraining({ privacy, student, distillation }: TaskDocument): void {
  if (privacy.dpSgd === null) return;
  const field = distillation.alpha > 0 ? 'distillation.alpha' : student.earlyStoppingPatience > 0 ? 'student.earlyStoppingPatience' : undefined;
  if (field === undefined) return;
  throw new FederationError('context-mismatch', `The task promises private training, and ${field} would let the student learn from your records without noise.`, { field, expected: '0', got: String(field === 'distillation.alpha' ? distillation.alpha : student.earlyStoppingPatience), next: 'Ask the coordinator\'s operator.' });
}

/** Throws `context-mismatch` unless a round's release protects what the task promised to protect: the same unit, shards or votes of records, honest clients and private training. */
export function checkReleaseFitsTask({ release, secureAggregation }: Pick<RoundDocument, 'release' | 'secureAggregation'>, { privacy }: TaskDocument): void {
  const { sampleAndAggregate: settings, secureAggregation: cohort } = privacy;
  const training = privacy.dpSgd;
  const noise = release.mechanism === 'dpSgd' ? release.noise : undefined;
  const promised = [settings?.shards, settings?.votes === true, cohort?.minSurvivors, cohort?.maxCorrupt, training?.clippingNorm, training?.noiseMultiplier, training?.samplingRate, training?.steps, privacy.recordVotes?.maxRecords];
  const announced = [release.shards, release.votes === true, secureAggregation?.minSurvivors, secureAggregation?.maxCorrupt, noise?.clippingNorm, noise?.noiseMultiplier, noise?.samplingRate, noise?.steps, release.recordVotes];
  const position = promised.findIndex((value, i) => value !== announced[i]);
  if (position < 0) return;
  const field = ['release.shards', 'release.votes', 'secureAggregation.minSurvivors', 'secureAggregation.maxCorrupt', 'release.noise.clippingNorm', 'release.noise.noiseMultiplier', 'release.noise.samplingRate', 'release.noise.steps', 'release.recordVotes'][position]!;
  throw new FederationError('context-mismatch', `The announcement does not protect what its task promises: ${field} expected ${promised[position] ?? 'nothing'}, got ${announced[position] ?? 'nothing'}.`, {
    field,
    expected: String(promised[position] ?? 'nothing'),
    got: String(announced[position] ?? 'nothing'),
    next: 'The coordinator contradicts the task that it signed; ask its operator.',
  });
}

/**
 * A release with the noise multiplier that the task's target implies. The multiplier does not depend on the shape of a release, up to the rounding
 * of the noise to whole grid steps, which a fine grid makes negligible.
 */
function typicalRelease({ privacy, numClasses }: TaskDocument): ReleaseParameters {
  if (privacy.mechanism === 'none') {
    return { mechanism: 'none', outputKind: 'probabilities', rows: 1, columns: numClasses, gridStep: 1, ...forRecords(privacy), noise: null };
  }
  if (privacy.epsilon === null) {
    throw new FederationError('context-mismatch', `The task names ${privacy.mechanism} noise, but no epsilon.`, { field: 'privacy.epsilon', expected: 'a number > 0', got: 'null', next: 'Ask the coordinator\'s operator.' });
  }
  if (privacy.dpSgd !== null) {
    const { learningRate: _, ...noise } = privacy.dpSgd;
    return { mechanism: 'dpSgd', outputKind: 'probabilities', rows: 1, columns: numClasses, gridStep: 1, noise };
  }
  const { mechanism, epsilon, delta, releases, secureAggregation } = privacy;
  return planRelease({
    mechanism, outputKind: privacy.recordVotes === null ? 'logits' : 'probabilities', rows: 1, columns: numClasses, rowClippingNorm: 1, epsilon, delta, releases,
    // Coarser for a sum, which must fit 32 bits for any cohort.
    gridStep: mechanism === 'discreteGaussian' ? 2 ** -14 : 2 ** -16,
    ...(mechanism !== 'discreteGaussian' || secureAggregation === null ? {} : { shares: secureAggregation.minSurvivors - secureAggregation.maxCorrupt }),
    ...forRecords(privacy),
  });
}

/** The number of shards, or of records that vote, makes no difference to the multiplier, only that there are some. */
function forRecords({ sampleAndAggregate, recordVotes }: TaskDocument['privacy']): { readonly shards?: number; readonly recordVotes?: number } {
  return { ...(sampleAndAggregate === null ? {} : { shards: 2 }), ...(recordVotes === null ? {} : { recordVotes: 1 }) };
}
