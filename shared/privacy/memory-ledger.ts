/** A ledger that is forgotten with the process: for simulations, where no real person's data is spent. */
import { FederationError } from '../errors.ts';
import type { ChargeReceipt, PrivacyLedger } from '../ports/privacy-ledger.ts';
import type { Delta, Epsilon } from '../types/units.ts';
import type { NeighboringRelation } from './dp-event.ts';
import type { LedgerEntry, ReleaseCharge } from './ledger.ts';
import { nextEntry, spent } from './ledger.ts';

export class MemoryLedger implements PrivacyLedger {
  readonly #entries: LedgerEntry[] = [];
  #isOpen = true;

  async charge(charge: ReleaseCharge): Promise<ChargeReceipt> {
    if (!this.#isOpen) throw new FederationError('internal', 'the privacy ledger is closed; nothing was charged or sent', { field: 'ledger' });
    const receipt = nextEntry(this.#entries, charge);
    if (receipt.isNew) this.#entries.push(receipt.entry);
    return receipt;
  }

  entries(): readonly LedgerEntry[] {
    return [...this.#entries];
  }

  spent(adjacency: NeighboringRelation, delta: Delta): Epsilon {
    return spent(this.#entries, adjacency, delta);
  }

  async close(): Promise<void> {
    this.#isOpen = false;
  }
}
