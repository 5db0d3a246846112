import type { NeighboringRelation } from '../privacy/dp-event.ts';
import type { LedgerEntry, ReleaseCharge } from '../privacy/ledger.ts';
import type { Delta, Epsilon } from '../types/units.ts';

export interface ChargeReceipt {
  readonly entry: LedgerEntry;
  /** False when this very contribution had been charged before: sending it again costs nothing. */
  readonly isNew: boolean;
}

/**
 * A client's record of everything it has sent. Append-only, and durable before `charge` resolves: charge first, then
 * send. When `charge` rejects, nothing may be sent.
 */
export interface PrivacyLedger {
  /** Records one release. The same (task, round, contribution) again is a no-op; another contribution is another release. */
  charge(charge: ReleaseCharge): Promise<ChargeReceipt>;
  /** All entries so far, oldest first. */
  entries(): readonly LedgerEntry[];
  /** Upper bound of the epsilon that everything in the ledger, over all tasks, has cost at this delta. */
  spent(adjacency: NeighboringRelation, delta: Delta): Epsilon;
  /** Gives up the ledger; further charges are refused. */
  close(): Promise<void>;
}
