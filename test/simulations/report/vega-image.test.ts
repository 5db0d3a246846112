import { inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { figureTextWidth, renderPng, renderVega, standalone, type FigureSpec } from '../../../simulations/report/vega-image.ts';
import { figureSpec, legendView, lookOf, MAX_REFERENCES, MAX_SERIES, noteView, referenceLook, wrap } from '../../../simulations/report/vega-spec.ts';

const words = { id: 'x', title: 'A <title>', description: 'What "it" says & means.' };
const svg = (body: string) => `<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20">${body}</svg>`;

/** Bytes of the rows of an RGBA image, filters included. */
function pixels(png: Uint8Array): Buffer {
  const file = Buffer.from(png);
  const parts: Buffer[] = [];
  for (let at = 8; at < file.length; at += 12 + file.readUInt32BE(at)) if (file.toString('latin1', at + 4, at + 8) === 'IDAT') parts.push(file.subarray(at + 8, at + 8 + file.readUInt32BE(at)));
  return inflateSync(Buffer.concat(parts));
}

describe('a figure', () => {
  it('loads nothing, whatever its specification names', async () => {
    for (const url of ['https://example.org/data.csv', 'file:///etc/passwd', '/etc/passwd']) {
      const spec: FigureSpec = { $schema: 'https://vega.github.io/schema/vega-lite/v6.json', data: { url }, mark: 'point', encoding: { x: { field: 'root:x:0:0:root:/root:/bin/bash', type: 'nominal' } } };
      const drawn = await renderVega(spec, words);
      expect(drawn).not.toMatch(/daemon|example\.org/);
    }
  });

  it('draws foreign texts as texts: no markup, no expression', async () => {
    const hostile = ['<script>alert(1)</script>', '"><image href="x"/>', "' + datum.x + '", '{{1}}', '\\u0041'];
    const drawn = await renderVega(figureSpec([legendView(hostile.map((label, i) => ({ ...lookOf(i), label, kind: 'line' })), 700)]), words);
    expect(drawn).not.toMatch(/<script|<image/);
    expect(drawn).toContain('&lt;script&gt;alert(1)&lt;/script&gt;');
    expect(drawn).toContain('datum.x');
    expect(drawn).toContain('<title id="x-t">A &lt;title&gt;</title>');
  });

  it('has no style attributes, no ids but its own, and numbers of two decimals', async () => {
    const drawn = await renderVega(figureSpec([legendView([{ ...lookOf(1), label: 'a', kind: 'line' }, { ...referenceLook(1), label: 'b', kind: 'rule' }], 333.333), noteView(['Some words. '.repeat(30)], 333.333)]), words);
    expect(drawn).not.toMatch(/ style=|clip-path|url\(/);
    expect([...drawn.matchAll(/ id="([^"]*)"/g)].map((match) => match[1])).toEqual(['x-t', 'x-d']);
    for (const [, value] of drawn.matchAll(/ (?:d|transform|x|y|x2|y2)="([^"]*)"/g)) expect(value).not.toMatch(/\.\d{3}/);
  });

  it('draws at the same time what it draws alone', async () => {
    const spec = (label: string) => figureSpec([legendView([{ ...lookOf(0), label, kind: 'line' }], 300)]);
    const together = await Promise.all(['a', 'b', 'c'].map((label) => renderVega(spec(label), words)));
    for (const [i, label] of ['a', 'b', 'c'].entries()) expect(await renderVega(spec(label), words)).toBe(together[i]);
  });

  it('as a file of its own brings its dark mode with it', () => {
    const file = standalone(svg('<title>t</title><desc>d</desc><path fill="#16191d"/>'));
    expect(file).toMatch(/^<\?xml version="1\.0" encoding="UTF-8"\?>\n<svg/);
    expect(file).toMatch(/<\/desc>\n<style>[^]*@media screen and \(prefers-color-scheme:dark\)\{[^]*\.vl \[fill="#16191d"\]\{fill:#[0-9a-f]{6}\}[^]*<\/style><path/);
  });
});

describe('its PNG', () => {
  it('has letters, Greek ones too, from the font that comes with it, not from the machine', async () => {
    const empty = pixels(await renderPng(svg('')));
    const drawn = await Promise.all(['ε', 'δ', 'e', '±', '≤', '−'].map(async (letter) => pixels(await renderPng(svg(`<text x="5" y="15" font-family="A font that nobody has">${letter}</text>`)))));
    for (const image of drawn) expect(image.equals(empty)).toBe(false);
    // A missing letter is a box, the same for all.
    expect(new Set(drawn.map((image) => image.toString('base64'))).size).toBe(drawn.length);
  });

  it('is the same each time', async () => {
    const draw = async () => Buffer.from(await renderPng(svg('<text x="5" y="15" font-size="12">a b</text><circle cx="40" cy="10" r="5.5" fill="#0072b2"/>')));
    expect((await draw()).equals(await draw())).toBe(true);
  });
});

describe('looks', () => {
  it('of series differ in shape or dash, not in color alone', () => {
    const looks = Array.from({ length: MAX_SERIES }, (_, i) => lookOf(i));
    expect(new Set(looks.map(({ shape, dash }) => `${shape} ${dash.join()}`)).size).toBe(MAX_SERIES);
    expect(new Set(looks.map(({ color, shape }) => `${color} ${shape}`)).size).toBe(MAX_SERIES);
  });

  it('of references differ in dash, and none is the solid line of a series', () => {
    const dashes = Array.from({ length: MAX_REFERENCES }, (_, i) => referenceLook(i).dash.join());
    expect(new Set(dashes).size).toBe(MAX_REFERENCES);
    expect(dashes).not.toContain(lookOf(0).dash.join());
  });
});

describe('lines of text', () => {
  it('are no wider than asked, and lose nothing', () => {
    const text = `Some words ${'x'.repeat(90)} and more ε ≤ 4 words, `.repeat(4).trim();
    for (const width of [60, 200, 640]) {
      const lines = wrap(text, width, 11);
      for (const line of lines) expect(figureTextWidth(line, 11)).toBeLessThanOrEqual(width);
      expect(lines.join('').replaceAll(' ', '')).toBe(text.replaceAll(' ', ''));
    }
  });

  it('of nothing are none', () => {
    expect(wrap('', 100, 11)).toEqual([]);
  });
});
