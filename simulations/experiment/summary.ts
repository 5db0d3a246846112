/** Results over seeds: one row for each setting. */
import { canonicalJson } from '../../shared/protocol/canonical-json.ts';
import type { PrivacyStatement } from '../../shared/privacy/statement.ts';
import { summarize, type Summary } from '../report/format.ts';
import { isSuccess, type PointResult, type PointSuccess } from './result.ts';
import { meanOf } from './results-csv.ts';
import { largestEpsilon } from './stated-epsilon.ts';

export interface SettingSummary {
  readonly case: string | null;
  readonly settings: PointResult['settings'];
  /** Seeds with an outcome, and without. */
  readonly seeds: number;
  readonly failed: number;
  /** Shares in [0, 1], over seeds: of the coordinator's model, of the mean over clients, and of that of their local-only students. */
  readonly finalAccuracy: Summary;
  readonly clientAccuracy: Summary;
  readonly localOnlyAccuracy: Summary;
  /** Of the seed with the largest epsilon: rounds that fail and are repeated differ between seeds. Undefined without an outcome. */
  readonly statement: PrivacyStatement | null | undefined;
}

/** In the order of the sweep. */
export function summarizeResults(results: readonly PointResult[]): SettingSummary[] {
  const groups = new Map<string, PointResult[]>();
  for (const result of results) {
    const text = canonicalJson([result.case, result.settings]);
    groups.set(text, [...(groups.get(text) ?? []), result]);
  }
  return [...groups.values()].map((group) => {
    const done = group.filter(isSuccess);
    const over = (measure: (result: PointSuccess) => number | null) => summarize(done.flatMap((result) => measure(result) ?? []));
    const statements = done.map(({ outcome }) => outcome.statement);
    return {
      case: group[0]!.case,
      settings: group[0]!.settings,
      seeds: done.length,
      failed: group.length - done.length,
      finalAccuracy: over(({ outcome }) => outcome.final?.accuracy ?? null),
      clientAccuracy: over(({ outcome }) => meanOf(outcome.clients.map(({ accuracy }) => accuracy))),
      localOnlyAccuracy: over(({ outcome }) => meanOf(outcome.clients.map(({ localOnlyAccuracy }) => localOnlyAccuracy))),
      statement: statements.length === 0 ? undefined : statements.reduce((worst, statement) => (largestEpsilon(statement) > largestEpsilon(worst) ? statement : worst)),
    };
  });
}
