import { describe, expect, it } from 'vitest';
import { accountantFor } from '../../../shared/privacy/accountants/composite-accountant.ts';
import type { LedgerEntry, ReleaseCharge } from '../../../shared/privacy/ledger.ts';
import { formatEntry, GENESIS_HASH, nextEntry, spent, verifyLedger } from '../../../shared/privacy/ledger.ts';
import { MemoryLedger } from '../../../shared/privacy/memory-ledger.ts';
import { releaseEvent } from '../../../shared/privacy/release.ts';
import type { Delta } from '../../../shared/types/units.ts';
import { describeLedgerContract } from '../../contracts/privacy-ledger.ts';
import { testCharge, testRelease } from '../../support/test-charge.ts';

describeLedgerContract('memory', { setup: async () => new MemoryLedger(), teardown: (ledger) => ledger.close() });

function chain(charges: readonly ReleaseCharge[]): LedgerEntry[] {
  const entries: LedgerEntry[] = [];
  for (const charge of charges) entries.push(nextEntry(entries, charge).entry);
  return entries;
}
const entries = chain([1, 2, 3, 4].map((round) => testCharge(round)));
const lines = entries.map(formatEntry);
const corrupt = (line: number) => expect.objectContaining({ code: 'ledger-corrupt', field: `ledger[${line}]` }) as Error;

describe('the chain', () => {
  it('reads back what it wrote, and starts at the genesis hash', () => {
    expect(verifyLedger(lines)).toEqual(entries);
    expect(entries[0]!.previousHash).toBe(GENESIS_HASH);
    expect(verifyLedger([])).toEqual([]);
  });

  it('has stable bytes: a hash that older ledgers hold stays valid', () => {
    expect(entries[0]!.hash).toBe('sha256:37b09f1576322f79fe1dea2a724380ea550a27e562bf90ac174ef1aa838bae71');
  });

  it('refuses every single changed character', () => {
    const line = lines[1]!;
    for (let i = 0; i < line.length; i++) {
      const changed = `${line.slice(0, i)}${line[i] === '1' ? '2' : '1'}${line.slice(i + 1)}`;
      expect(() => verifyLedger([lines[0]!, changed, lines[2]!])).toThrow(expect.objectContaining({ code: 'ledger-corrupt' }));
    }
  });

  it('refuses a dropped, a repeated, a swapped and a foreign line', () => {
    expect(() => verifyLedger([lines[0]!, lines[2]!])).toThrow(corrupt(2));
    expect(() => verifyLedger(lines.slice(1))).toThrow(corrupt(1));
    expect(() => verifyLedger([lines[0]!, lines[0]!])).toThrow(corrupt(2));
    expect(() => verifyLedger([lines[1]!, lines[0]!])).toThrow(corrupt(1));
    const foreign = chain([testCharge(9), testCharge(2)]).map(formatEntry);
    expect(() => verifyLedger([lines[0]!, foreign[1]!])).toThrow(corrupt(2));
    expect(() => verifyLedger([lines[0]!, ''])).toThrow(corrupt(2));
  });

  it('refuses an entry with less noise in its events than was written', () => {
    const cheaper = JSON.parse(lines[3]!) as { events: { replaceOne: { noiseMultiplier: number } } };
    cheaper.events.replaceOne.noiseMultiplier *= 10;
    expect(() => verifyLedger([...lines.slice(0, 3), JSON.stringify(cheaper)])).toThrow(corrupt(4));
  });
});

describe('spent', () => {
  it('is what the accountant says about all events of the ledger', () => {
    const delta = 1e-5 as Delta;
    const event = releaseEvent(testRelease, 'replaceOne');
    expect(spent(entries, 'replaceOne', delta) / accountantFor([{ kind: 'selfComposed', event, count: 4 }], 'replaceOne').epsilon(delta)).toBeCloseTo(1, 12);
  });
});
