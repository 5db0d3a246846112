import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { RunReport } from '../../../simulations/report/report-data.ts';
import { headline, renderReport } from '../../../simulations/report/report-page.ts';
import { allEqual, edgeCases, nothing, oneClient, sampleReport } from './sample-report.ts';

const reports = [sampleReport, ...edgeCases];

describe.each(reports.map((report) => [report.title, report] as const))('the page of: %s', (_, report) => {
  const page = renderReport(report);

  it('holds no broken number', () => {
    expect(page).not.toMatch(/NaN|undefined|\bnull\b|Infinity|\[object/);
  });

  it('loads nothing, runs nothing and allows only its own style', () => {
    expect(page).not.toMatch(/<(script|link|img|iframe|object|embed|form|base)\b/i);
    expect(page).not.toMatch(/\s(on\w+|style|src|href)=/i);
    expect(page).not.toMatch(/@import|url\(/i);
    const [style, ...others] = [...page.matchAll(/<style>([^]*?)<\/style>/g)].map((match) => match[1]!);
    expect(others).toEqual([]);
    const hash = createHash('sha256').update(style!).digest('base64');
    expect(page).toContain(`content="default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'"`);
  });

  it('is well formed: every element is closed in order, every id is there once', () => {
    const stack: string[] = [];
    const body = page.slice(page.indexOf('<body>')).replace(/<\/html>\s*$/, '');
    for (const [, closing, name, selfClosing] of body.matchAll(/<(\/?)([a-z][a-z0-9]*)(?:\s[^<>]*?)?(\/?)>/gi)) {
      if (selfClosing) continue;
      if (closing) expect(stack.pop()).toBe(name);
      else stack.push(name!);
    }
    expect(stack).toEqual([]);
    const ids = [...page.matchAll(/\sid="([^"]*)"/g)].map((match) => match[1]);
    expect(new Set(ids).size).toBe(ids.length);
    for (const [, wanted] of page.matchAll(/aria-labelledby="([^"]*)"/g)) for (const id of wanted!.split(' ')) expect(ids).toContain(id);
  });

  it('has tables with caption, headed columns and headed rows', () => {
    for (const [table] of page.matchAll(/<table>[^]*?<\/table>/g)) {
      expect(table).toMatch(/<caption>[^<]{10,}<\/caption>/);
      const columns = table.match(/<th scope="col"/g)!.length;
      for (const [, row] of table.matchAll(/<tr>(<th scope="row"[^]*?)<\/tr>/g)) {
        expect(row!.match(/<th scope="row"/g)).toHaveLength(1);
        expect(row!.match(/<t[hd]\b/g)).toHaveLength(columns);
      }
    }
  });

  it('is the same bytes each time', () => {
    expect(renderReport(structuredClone(report))).toBe(page);
  });
});

describe('the page', () => {
  it('looks as reviewed', async () => {
    await expect(renderReport(sampleReport)).toMatchFileSnapshot('snapshots/report.html');
  });

  it('says the margin first', () => {
    expect(headline(sampleReport)).toBe('4 clients gained 17.3 ± 6.1 percentage points on average by federating: from 69.9% alone to 87.3% together.');
    expect(headline(oneClient)).toBe('The one client gained 15.1 percentage points by federating: from 74.2% alone to 89.3% together.');
    expect(headline(allEqual)).toContain('4 clients ended where they began');
    expect(headline(nothing)).toContain('no client');
  });

  it('says a loss as plainly as a gain, and doubts what the test set cannot show', () => {
    const swapped = { ...sampleReport, clients: sampleReport.clients.map((client) => ({ ...client, localOnly: client.federated, federated: client.localOnly })) };
    expect(headline(swapped)).toContain('4 clients lost 17.3 ± 6.1 percentage points on average by federating: from 87.3% alone to 69.9% together.');
    const close = { ...sampleReport, clients: sampleReport.clients.map((client) => ({ ...client, federated: client.localOnly + 0.005 })) };
    expect(headline(close)).toContain('less than the sampling error');
  });

  it('holds the privacy statement word for word, and warns where nothing is promised', () => {
    const page = renderReport(sampleReport);
    expect(page).toContain(`<pre>${sampleReport.statement}</pre>`);
    expect(page).toContain('without a differential privacy guarantee');
    expect(renderReport(nothing)).toContain('no statement, so nothing may be claimed');
    const promised = renderReport({ ...sampleReport, statement: 'PRIVACY STATEMENT\nOne release: epsilon <= 2' });
    expect(promised).not.toContain('without a differential privacy guarantee');
    expect(promised).toContain('epsilon &lt;= 2');
  });

  it('says what noise does in plain words', () => {
    const page = renderReport(sampleReport);
    expect(page).toContain('taking part still gains 3.7 points on average.');
    expect(page).toContain('taking part costs 20.3 points on average: better to stay alone.');
    // 4 clients * (8.402 / 0.1)^2 = 28,238
    expect(page).toContain('about 28,000 clients would have to take part');
  });

  it('lets no text become markup', () => {
    const attack = `"><script>alert(1)</script><img src=x onerror='alert(2)'>&lt;</title></style></pre></details><!--\u202e`;
    const page = renderReport(everyText(sampleReport, attack));
    expect(page).not.toMatch(/<script|<img|<!--|\u202e/);
    expect(page.match(/<\/style>/g)).toHaveLength(1);
    expect(page.match(/<\/title>/g)).toHaveLength(renderReport(sampleReport).match(/<\/title>/g)!.length + [...page.matchAll(/<text[^>]*><title>/g)].length);
    // The same elements as without the attack, and the tooltips of names that were cut.
    const elements = (html: string) => [...html.replace(/<text([^>]*)><title>[^<]*<\/title>/g, '<text$1>').matchAll(/<([a-z0-9]+)/g)].map((match) => match[1]).filter((name) => !['path', 'circle', 'text', 'rect'].includes(name!));
    expect(elements(page)).toEqual(elements(renderReport(everyText(sampleReport, 'harmless'))));
  });
});

/** Every string of a report replaced, so that none is forgotten when the contract grows. */
function everyText(report: RunReport, text: string): RunReport {
  const replace = (value: unknown): unknown => {
    if (typeof value === 'string') return text;
    if (Array.isArray(value)) return value.map(replace);
    if (value !== null && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, replace(inner)]));
    return value;
  };
  return replace(report) as RunReport;
}
