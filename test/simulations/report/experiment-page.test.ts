import { createHash } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Experiment } from '../../../simulations/report/experiment-data.ts';
import { experimentFiles, type ReportFile } from '../../../simulations/report/experiment-files.ts';
import { bareExperiment, gridExperiment, sampleExperiment } from './sample-experiment.ts';
import { parseXml, textOf, walk } from './xml.ts';

const reports: [string, readonly Experiment[]][] = [
  ['privacy against accuracy', [sampleExperiment]],
  ['a grid', [gridExperiment]],
  ['one point with hostile names', [bareExperiment]],
  ['two experiments beside each other', [gridExperiment, sampleExperiment]],
];

/** Drawn once for all tests. */
const drawn = new Map<readonly Experiment[], Promise<ReportFile[]>>();
function filesOf(experiments: readonly Experiment[]): Promise<ReportFile[]> {
  if (!drawn.has(experiments)) drawn.set(experiments, experimentFiles(experiments, { png: experiments === reports[0]![1] }));
  return drawn.get(experiments)!;
}

/** What an epsilon means: unit, adjacency, adversary, delta, accountant, releases, transfer rows. */
const qualifiers = [/unit (client|record)/, /adjacency replace-one/, /adversary /, /δ.=./, /accountant [a-z+-]+ version \d/, /\d releases?/, /transfer rows/];
function expectMeaning(text: string): void {
  for (const qualifier of qualifiers) expect(text).toMatch(qualifier);
}

describe.each(reports)('the page of %s', (_, experiments) => {
  let files: ReportFile[] = [];
  let page = '';
  beforeAll(async () => {
    files = await filesOf(experiments);
    page = String(files.at(-1)!.content);
  });

  it('comes after the figures that it belongs to', () => {
    expect(files.at(-1)!.path).toBe('report.html');
    const figures = [...page.matchAll(/<figure id="figure-([a-z-]+)">/g)].map((match) => match[1]!);
    for (const id of figures) for (const end of ['svg', 'csv', 'vl.json']) expect(files.map(({ path }) => path)).toContain(`figures/${id}.${end}`);
  });

  it('holds no broken number and no markup from outside', () => {
    expect(page).not.toMatch(/NaN|undefined|\bnull\b|Infinity|\[object/);
    expect(page).not.toMatch(/<(script|img|b|i)\b|<!--/);
    // eslint-disable-next-line no-control-regex
    expect(page).not.toMatch(/[\u001b\u202e]/);
  });

  it('loads nothing, runs nothing, names no address, and allows only its own style', () => {
    expect(page).not.toMatch(/<(script|link|img|image|use|iframe|object|embed|form|base)\b/i);
    // Foreign text may look like an attribute; attributes are within tags.
    for (const [tag] of page.matchAll(/<[a-z][^<>]*>/gi)) expect(tag.replace(/"[^"]*"/g, '""')).not.toMatch(/\s(on\w+|style|src|href|xlink:href)=/i);
    expect(page).not.toMatch(/@import|url\(/i);
    expect(page.replaceAll('xmlns="http://www.w3.org/2000/svg"', '')).not.toMatch(/https?:\/\//);
    const [style, ...others] = [...page.matchAll(/<style>([^]*?)<\/style>/g)].map((match) => match[1]!);
    expect(others).toEqual([]);
    expect(page).toContain(`content="default-src 'none'; style-src 'sha256-${createHash('sha256').update(style!).digest('base64')}'; base-uri 'none'; form-action 'none'"`);
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

  it('says in every caption how many settings, clients, records and test examples, and which seeds', () => {
    for (const [, caption] of page.matchAll(/<figcaption>([^]*?)<\/figcaption>/g)) expect(caption).toMatch(/\d settings?; [^;]*clients?, [^;]*private records?, [^;]*; seeds? [\d, to]+\./);
  });

  it('has no epsilon without its meaning: in captions, facts, tables of data and files of figures', () => {
    const blocks = [
      ...[...page.matchAll(/<figcaption>[^]*?<\/figcaption>/g)].map(([block]) => block),
      ...[...page.matchAll(/<dl class="facts">[^]*?<\/dl>/g)].map(([block]) => block),
      ...[...page.matchAll(/<section aria-labelledby="results">[^]*?<\/section>/g)].map(([block]) => block),
      ...[...page.matchAll(/<details><summary>Data behind[^]*?<\/details>/g)].map(([block]) => block),
      ...files.filter(({ path }) => path.endsWith('.svg')).map(({ content }) => textOf({ name: '', attributes: {}, children: parseXml(String(content)).children.filter((child) => typeof child === 'string' || !['title', 'desc', 'style'].includes(child.name)) }).replace(/\s+/g, ' ')),
    ];
    for (const block of blocks) if (/ε|epsilon/i.test(block) && /≤|ε,|epsilon \d/.test(block)) expectMeaning(block);
    if (experiments.includes(sampleExperiment)) expect(blocks.filter((block) => block.includes('ε')).length).toBeGreaterThan(10);
  });
});

it.each(reports.slice(0, 2))('the page of %s and its figures are the same bytes each time', async (_, experiments) => {
  const again = await experimentFiles(structuredClone(experiments), { png: false });
  const texts = (await filesOf(experiments)).filter(({ path }) => !path.endsWith('.png'));
  expect(again.map(({ path }) => path)).toEqual(texts.map(({ path }) => path));
  again.forEach(({ content }, i) => expect(content === texts[i]!.content).toBe(true));
});

describe('figures as files', () => {
  let files: ReportFile[] = [];
  beforeAll(async () => {
    files = await filesOf(reports[0]![1]);
  });
  const text = (path: string) => String(files.find((file) => file.path === path)!.content);

  it.each(['frontier', 'settings', 'rounds', 'clients', 'bytes', 'reliability'])('%s looks as reviewed', async (id) => {
    await expect(text(`figures/${id}.svg`)).toMatchFileSnapshot(`snapshots/experiment-${id}.svg`);
  });

  it('are XML with a title and a description, and every color in them has a dark one', () => {
    const svgs = files.filter(({ path }) => path.endsWith('.svg'));
    expect(svgs.map(({ path }) => path)).toEqual(['frontier', 'frontier-clients', 'settings', 'rounds', 'rounds-clients', 'clients', 'bytes', 'reliability'].map((id) => `figures/${id}.svg`));
    for (const { content } of svgs) {
      const root = parseXml(String(content));
      expect(root.attributes['role']).toBe('img');
      const style = textOf([...walk(root)].find(({ name }) => name === 'style')!);
      for (const { name, attributes } of walk(root)) {
        expect(name).not.toMatch(/script|image|foreignObject|^a$/);
        for (const paint of ['fill', 'stroke'] as const) {
          const color = attributes[paint];
          if (color !== undefined && color !== 'none' && color !== 'transparent') expect(style).toContain(`[${paint}="${color}"]`);
        }
      }
    }
  });

  it('fit into a page: 840 pixels, or 358 on a phone', () => {
    for (const [, kind, width] of text('report.html').matchAll(/<svg [^>]*class="vl (wide-layout|narrow)"[^>]* width="([\d.]+)"/g)) expect(Number(width)).toBeLessThanOrEqual(kind === 'narrow' ? 360 : 842);
  });

  it('have no letters below 11 pixels', () => {
    for (const [, size] of text('report.html').matchAll(/font-size="([\d.]+)px"/g)) expect(Number(size)).toBeGreaterThanOrEqual(10.5);
  });

  it('have PNGs of twice their size', () => {
    for (const { path, content } of files.filter((file) => file.path.endsWith('.png'))) {
      const png = Buffer.from(content as Uint8Array);
      expect([...png.subarray(0, 8)]).toEqual([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]);
      const [, width, height] = /width="([\d.]+)" height="([\d.]+)"/.exec(text(path.replace('.png', '.svg')))!;
      expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([2 * Number(width), 2 * Number(height)]);
    }
  });

  it('have the numbers behind them as CSV, and a specification that holds its data and names no other', () => {
    const rows = text('figures/frontier.csv').trim().split('\n');
    expect(rows[0]).toBe('setting,label,accuracy,standard deviation,n,epsilon,delta,unit,adjacency,adversary,accountant,releases,transfer rows a release,transfer rows a client');
    expect(rows).toHaveLength(12);
    expect(rows[2]).toMatch(/^#2,"local noise, epsilon 1",0\.\d+,0\.\d+,2,1,0\.00001,client,replaceOne,everyone who sees what leaves a client,exact-gaussian version 1,4,200,800$/);
    for (const { path, content } of files.filter((file) => file.path.endsWith('.vl.json'))) {
      const spec = String(content);
      expect(JSON.parse(spec)).toMatchObject({ $schema: 'https://vega.github.io/schema/vega-lite/v6.json' });
      expect(spec, path).not.toMatch(/"url"|"href"/);
    }
  });
});
