/** Random federations and random trouble. Weights keep rounds moving: trouble in a federation that never runs finds nothing. */
import fc from 'fast-check';
import type { StageName } from '../../shared/protocol/messages.ts';
import type { RoundPolicy } from '../../shared/rounds/policy.ts';
import { examplePolicy, maxClients } from './harness.ts';
import type { ContributionKind, CrashPoint, Op, Work } from './ops.ts';

const client = fc.nat({ max: maxClients - 1 });
const shortMs = fc.oneof(fc.constant(0), fc.nat({ max: 300 }));
const kind: fc.Arbitrary<ContributionKind> = fc.oneof(
  { weight: 8, arbitrary: fc.constant('expected' as const) },
  { weight: 4, arbitrary: fc.constantFrom('conflicting', 'stale', 'future', 'otherStage') },
);
const crashPoint: fc.Arbitrary<CrashPoint> = fc.oneof(
  fc.constant({ at: 'beforeJournal' as const }),
  fc.record({ at: fc.constant('afterJournal' as const), effects: fc.nat({ max: 3 }) }),
);

/** `stages`: the more a round has, the more often everybody answers, or no round would ever end. */
export const arbitraryOp = (stages: number): fc.Arbitrary<Op> => fc.oneof(
  { weight: 8, arbitrary: fc.record({ op: fc.constant('connect' as const), client }) },
  { weight: 4, arbitrary: fc.constant({ op: 'connectAll' as const }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constantFrom('disconnect' as const, 'disconnect' as const, 'leave' as const), client }) },
  { weight: 10, arbitrary: fc.record({ op: fc.constant('contribute' as const), client, kind }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('contributeSlowly' as const), client, delayMs: shortMs }) },
  { weight: 8 + 4 * stages, arbitrary: fc.constant({ op: 'contributeAll' as const }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('decline' as const), client, roundOffset: fc.integer({ min: -1, max: 1 }) }) },
  { weight: 12, arbitrary: fc.record({ op: fc.constant('advance' as const), ms: fc.oneof({ weight: 4, arbitrary: shortMs }, { weight: 1, arbitrary: fc.nat({ max: 2_500 }) }) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('setWall' as const), byMs: fc.integer({ min: -3_000, max: 3_000 }) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('crash' as const), downtimeMs: fc.nat({ max: 3_000 }), twice: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('crashAtNextEvent' as const), point: crashPoint, downtimeMs: shortMs }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('strayStageTimer' as const), roundOffset: fc.integer({ min: -1, max: 0 }), stage: fc.nat({ max: 4 }) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('strayGraceTimer' as const), client }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('strayReport' as const), report: fc.constantFrom('round-opened', 'round-aggregated', 'round-failed'), roundOffset: fc.integer({ min: -2, max: 1 }) }) },
);

/** Up to 60 operations, more with more stages; long lists are as likely as short ones. */
export const arbitraryOps = (stages: number): fc.Arbitrary<Op[]> => fc.noBias(fc.array(arbitraryOp(stages), { maxLength: 60 + 8 * (stages - 1), size: 'max' }));

/** Policies that the configuration's rules allow: quorum <= cohort, quorum <= minClients, and enough clients exist. */
export const arbitraryPolicy = (stages: readonly StageName[], isSecure = false): fc.Arbitrary<RoundPolicy> =>
  fc
    .record({
      seed: fc.nat({ max: 1_000 }),
      rounds: fc.integer({ min: 1, max: 6 }),
      quorum: fc.integer({ min: isSecure ? 2 : 1, max: 4 }),
      secureAggregation: isSecure ? fc.record({ maxCorrupt: fc.nat({ max: 1 }), stageDeadlineMs: fc.integer({ min: 1, max: 3_000 }) }) : fc.constant(undefined),
      aboveQuorum: fc.nat({ max: 2 }),
      cohortAboveQuorum: fc.option(fc.nat({ max: 2 }), { nil: undefined }),
      stageDeadlineMs: fc.integer({ min: 1, max: 3_000 }),
      reconnectGraceMs: fc.nat({ max: 800 }),
      maxFailedRounds: fc.nat({ max: 6 }),
      budgeted: fc.boolean(),
      convergencePatience: fc.nat({ max: 3 }),
    })
    .map(({ quorum, aboveQuorum, cohortAboveQuorum, budgeted, ...policy }) => ({
      ...examplePolicy,
      ...policy,
      stages,
      quorum,
      minClients: quorum + aboveQuorum,
      cohortSize: cohortAboveQuorum === undefined ? undefined : quorum + cohortAboveQuorum,
      maxReleases: budgeted ? policy.rounds : undefined,
      convergenceDelta: 0.01,
    }));

export const arbitraryWork: fc.Arbitrary<readonly Work[]> = fc.array(
  fc.record({ delayMs: shortMs, fails: fc.nat({ max: 19 }).map((n) => n === 19), accuracy: fc.option(fc.integer({ min: 0, max: 4 }).map((n) => n / 4), { freq: 9 }) }),
  { minLength: 1, maxLength: 6 },
);
