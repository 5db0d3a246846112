/** The context of a round of secure aggregation follows from its announcement alone. */
import { describe, expect, it } from 'vitest';
import { digestBytes, digestOf } from '../../../shared/crypto/digest.ts';
import { RoundDocumentSchema, secureStageNames, stageCodes, stageNames, stagesOf } from '../../../shared/protocol/messages.ts';
import { secureContextOf } from '../../../shared/protocol/secure-round.ts';
import { utf8 } from '../../../shared/types/bytes.ts';
import { federationError, roundDocument, secureRoundDocument } from './fixtures.ts';

describe('a round of secure aggregation', () => {
  it('has the transcript hash as manifest hash, and one coordinate a value', () => {
    const transcript = digestOf(utf8('announcement'));
    expect(secureContextOf(RoundDocumentSchema.parse(secureRoundDocument()), transcript)).toEqual({
      round: 2,
      manifestHash: digestBytes(transcript),
      parameters: { dimension: 9, minCohort: 5, minSurvivors: 4, maxCorrupt: 1 },
    });
  });

  it('is not one of another trust mode', () => {
    expect(federationError(() => secureContextOf(RoundDocumentSchema.parse(roundDocument()), digestOf(utf8('x'))), 'message-malformed').field).toBe('secureAggregation');
  });

  it('has its five stages and no other round has any of them', () => {
    expect(stagesOf('secure-aggregation')).toBe(secureStageNames);
    expect([stagesOf('sealed'), stagesOf('clear')]).toEqual([['contribution'], ['contribution']]);
    expect(stageNames.map((stage) => stageCodes[stage])).toEqual([1, 2, 3, 4, 5, 6]);
  });
});
