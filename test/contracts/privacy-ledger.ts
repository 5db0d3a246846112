/** What every privacy ledger must do. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { PrivacyLedger } from '../../shared/ports/privacy-ledger.ts';
import { formatEntry, verifyLedger } from '../../shared/privacy/ledger.ts';
import type { Instant, TaskId } from '../../shared/types/ids.ts';
import type { Delta } from '../../shared/types/units.ts';
import { testCharge, testRelease } from '../support/test-charge.ts';

export interface LedgerSetup {
  setup(): Promise<PrivacyLedger>;
  teardown(ledger: PrivacyLedger): Promise<void>;
}

export function describeLedgerContract(name: string, subject: LedgerSetup): void {
  const delta = 1e-5 as Delta;

  describe(`privacy ledger contract: ${name}`, () => {
    let ledger: PrivacyLedger;
    beforeEach(async () => {
      ledger = await subject.setup();
    });
    afterEach(() => subject.teardown(ledger));

    it('starts with nothing spent', () => {
      expect(ledger.entries()).toEqual([]);
      expect(ledger.spent('replaceOne', delta)).toBe(0);
    });

    it('spends more with every release, and more for replace-one than for zero-out', async () => {
      let previous = 0;
      for (let round = 1; round <= 5; round++) {
        expect((await ledger.charge(testCharge(round))).isNew).toBe(true);
        const now = ledger.spent('replaceOne', delta);
        expect(now).toBeGreaterThan(previous);
        expect(ledger.spent('zeroOut', delta)).toBeLessThan(now);
        previous = now;
      }
    });

    it('charges the same contribution once, however often it is sent', async () => {
      const first = await ledger.charge(testCharge(1));
      const again = await ledger.charge(testCharge(1, 1, { at: 5 as Instant }));
      expect(again).toEqual({ entry: first.entry, isNew: false });
      expect(ledger.entries()).toHaveLength(1);
    });

    it('charges fresh noise in the same round as an additional release', async () => {
      await ledger.charge(testCharge(1, 1));
      const once = ledger.spent('replaceOne', delta);
      expect((await ledger.charge(testCharge(1, 2))).isNew).toBe(true);
      expect(ledger.spent('replaceOne', delta)).toBeGreaterThan(1.3 * once);
    });

    it('adds up over tasks: the private data are the same', async () => {
      await ledger.charge(testCharge(1));
      const once = ledger.spent('replaceOne', delta);
      await ledger.charge(testCharge(1, 1, { task: 'other' as TaskId }));
      expect(ledger.spent('replaceOne', delta)).toBeGreaterThan(once);
    });

    it('refuses to call a contribution paid under other parameters', async () => {
      await ledger.charge(testCharge(1));
      const cheaper = testCharge(1, 1, { parameters: { ...testRelease, mechanism: 'none', noise: null } });
      await expect(ledger.charge(cheaper)).rejects.toMatchObject({ code: 'state-mismatch' });
      expect(ledger.entries()).toHaveLength(1);
    });

    it('is infinite after one release without noise', async () => {
      await ledger.charge(testCharge(1));
      await ledger.charge(testCharge(2, 2, { parameters: { ...testRelease, mechanism: 'none', noise: null } }));
      await ledger.charge(testCharge(3));
      expect(ledger.spent('replaceOne', delta)).toBe(Infinity);
    });

    it('counts concurrent charges each once, in a valid chain', async () => {
      await Promise.all([1, 2, 3, 2, 1, 4].map((round) => ledger.charge(testCharge(round))));
      const entries = ledger.entries();
      expect(entries.map((entry) => entry.sequence)).toEqual([1, 2, 3, 4]);
      expect(verifyLedger(entries.map(formatEntry))).toEqual(entries);
    });

    it('can not be changed through the list that it gives out', async () => {
      await ledger.charge(testCharge(1));
      (ledger.entries() as unknown[]).pop();
      expect(ledger.entries()).toHaveLength(1);
    });

    it('charges nothing after it was closed', async () => {
      await ledger.close();
      await expect(ledger.charge(testCharge(1))).rejects.toMatchObject({ code: 'internal' });
      await ledger.close();
    });
  });
}
