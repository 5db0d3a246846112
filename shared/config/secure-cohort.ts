/** Who is certainly in a task's secure sums, from its configuration: `schedule.quorum` means "fewest contributions for a release" in every trust mode. */
import type { SecureCohort } from '../privacy/client-policy.ts';
import type { TaskConfig } from './task-config.ts';

/** Null unless the trust mode is `secure-aggregation`. */
export function secureCohortOf({ privacy, schedule }: Pick<TaskConfig, 'privacy' | 'schedule'>): SecureCohort | null {
  if (privacy.trustMode !== 'secure-aggregation') return null;
  return { minSurvivors: schedule.quorum, maxCorrupt: privacy.secureAggregation.maxCorrupt };
}
