/** What an announcement says about a round of secure aggregation, as docs/secure-aggregation.md names it. Both sides derive it from the same signed bytes. */
import { digestBytes } from '../crypto/digest.ts';
import { FederationError } from '../errors.ts';
import type { RoundContext } from '../secure-aggregation/parameters.ts';
import type { Digest } from '../types/ids.ts';
import type { RoundDocument } from './messages.ts';

/** `transcript`: the transcript hash of the document's announcement, which is the round's manifest hash. Throws `message-malformed` for a round of another trust mode. */
export function secureContextOf({ round, release, secureAggregation }: Pick<RoundDocument, 'round' | 'release' | 'secureAggregation'>, transcript: Digest): RoundContext {
  if (secureAggregation === undefined) throw new FederationError('message-malformed', 'The round is none of secure aggregation.', { field: 'secureAggregation', expected: 'an object', got: 'nothing' });
  const { minCohort, minSurvivors, maxCorrupt } = secureAggregation;
  return { round, manifestHash: digestBytes(transcript), parameters: { dimension: release.rows * release.columns, minCohort, minSurvivors, maxCorrupt } };
}
