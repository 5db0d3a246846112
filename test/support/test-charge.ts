/** Builders of ledger charges. */
import type { ReleaseCharge } from '../../shared/privacy/ledger.ts';
import type { ReleaseParameters } from '../../shared/privacy/release.ts';
import type { Digest, Instant, RoundId, TaskId } from '../../shared/types/ids.ts';

export const testRelease: ReleaseParameters = { mechanism: 'gaussian', outputKind: 'probabilities', rows: 100, columns: 10, gridStep: 1 / 4096, noise: { sigmaGrid: 271_828 } };

/** A charge of round `round`; `content` stands for the bytes of the contribution. */
export function testCharge(round: number, content = round, changes: Partial<ReleaseCharge> = {}): ReleaseCharge {
  return {
    task: 'mnist' as TaskId,
    round: round as RoundId,
    contribution: `sha256:${content.toString(16).padStart(64, '0')}` as Digest,
    parameters: testRelease,
    at: (1_700_000_000_000 + round) as Instant,
    ...changes,
  };
}
