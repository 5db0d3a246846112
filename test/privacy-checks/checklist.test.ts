/** The checklist of docs/privacy-model.md, section 9, says where each check is tested: those tests must be there, under those names. */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const page = readFileSync(new URL('../../docs/privacy-model.md', import.meta.url), 'utf8');
const section = page.slice(page.indexOf('\n## 9. Checklist'), page.indexOf('\n### 9.1'));
const rows = section
  .split('\n')
  .filter((line) => /^\| \d+ /.test(line))
  .map((line) => {
    const [check, now, test] = line.slice(2, -2).split(' | ');
    return { number: Number.parseInt(check!, 10), check: check!, now: now!, test: test! };
  });

/** Test files below test/, each with the names that follow it. */
function citations(cell: string): { readonly file: string; readonly names: readonly string[] }[] {
  return [...cell.matchAll(/`([^`]+\.test\.ts)`(?:: ((?:"[^"]+"(?:, )?)+))?/g)].map(([, file, names = '']) => ({ file: file!, names: [...names.matchAll(/"([^"]+)"/g)].map(([, name]) => name!) }));
}

it('has the 32 checks, in order', () => {
  expect(rows.map(({ number }) => number)).toEqual(Array.from({ length: 32 }, (_, i) => i + 1));
});

describe.each(rows)('check $check', ({ number, now, test }) => {
  const cited = citations(test);

  it('cites tests that exist', () => {
    for (const { file, names } of cited) {
      const url = new URL(`../${file}`, import.meta.url);
      expect(existsSync(url), file).toBe(true);
      const text = readFileSync(url, 'utf8').replaceAll("\\'", "'");
      for (const name of names) expect(['\'', '"', '`'].some((quote) => text.includes(`(${quote}${name}${quote}`)), `${file}: ${name}`).toBe(true);
    }
  });

  it('says what holds, and names a test or why there is none', () => {
    expect(now).toMatch(/^(yes|partly:|no:|no attack|by lint|section 8)/);
    if (number !== 28) expect(cited.length).toBeGreaterThan(0);
  });
});
