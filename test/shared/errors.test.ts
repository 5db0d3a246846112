import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { exitStatus, FederationError, problemCodes, unreachable, type ProblemCode } from '../../shared/errors.ts';

const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
const cells = page
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim()));

describe('docs/errors.md', () => {
  it('lists every code once, with the fault class and the statuses of the code', () => {
    const listed = cells.map(([code, fault, exit, http]) => [code, fault, Number(exit), Number(http)]);
    const actual = Object.entries(problemCodes).map(([code, { fault, status }]) => [`\`${code}\``, `\`${fault}\``, exitStatus[fault], status]);
    const byCode = (a: readonly unknown[], b: readonly unknown[]) => String(a[0]).localeCompare(String(b[0]));
    expect(listed.sort(byCode)).toEqual(actual.sort(byCode));
  });

  it('says for every code what it means and what to do', () => {
    for (const row of cells) {
      expect(row).toHaveLength(6);
      expect(row[4], row[0]).toMatch(/\.$/);
      expect(row[5], row[0]).toMatch(/\.$/);
    }
  });

  it('lists the exit statuses of the fault classes', () => {
    for (const [fault, exit] of Object.entries(exitStatus)) expect(page).toContain(`| ${exit} | \`${fault}\` |`);
    expect(exitStatus).toEqual({ internal: 1, badInput: 2, refused: 3, peer: 4 });
  });
});

describe('a problem code', () => {
  it.each(Object.keys(problemCodes) as ProblemCode[])('%s is a metrics label and fits the wire', (code) => {
    expect(code).toMatch(/^[a-z]+(-[a-z]+)*$/);
    expect(code.length).toBeLessThanOrEqual(64);
    expect(problemCodes[code].status).toBeGreaterThanOrEqual(400);
    expect(problemCodes[code].status).toBeLessThan(600);
  });
});

describe('a FederationError', () => {
  it('carries its fields, its cause and its exit status', () => {
    const cause = new Error('ENOSPC');
    const error = new FederationError('disk-full', 'The disk is full.', { field: 'journal', expected: '1 MB', got: '0 B', next: 'Free space.', cause });
    expect(error).toMatchObject({ name: 'FederationError', code: 'disk-full', message: 'The disk is full.', field: 'journal', expected: '1 MB', got: '0 B', next: 'Free space.', fault: 'internal', exitStatus: 1 });
    expect(error.cause).toBe(cause);
    expect('cause' in new FederationError('internal', 'x')).toBe(false);
  });

  it('is what an impossible case throws', () => {
    expect(() => unreachable('surprise' as never)).toThrow(FederationError);
  });
});
