import { createHash } from 'node:crypto';
import { inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { heatPixels, plainPixels, pngDataUri } from '../../../simulations/report/png.ts';
import { renderTrustPage } from '../../../simulations/report/trust-page.ts';
import { renderTrustTable } from '../../../simulations/report/trust-table.ts';
import { displayWidth } from '../../../simulations/report/format.ts';
import { lonelyTrust, sampleTrust } from './sample-trust.ts';

describe.each([['a teacher and its students', sampleTrust], ['one model with a hostile name', lonelyTrust]] as const)('the page of %s', (_, report) => {
  const page = renderTrustPage(report);

  it('holds no broken number and no markup from outside', () => {
    expect(page).not.toMatch(/NaN|undefined|\bnull\b|Infinity|\[object/);
    expect(page).not.toMatch(/<script|<b>&/);
    // eslint-disable-next-line no-control-regex
    expect(page).not.toMatch(/[\u001b\u202e]/);
  });

  it('loads nothing, runs nothing, and allows only its own style and images that are in it', () => {
    expect(page).not.toMatch(/<(script|link|iframe|object|embed|form|base)\b/i);
    expect(page).not.toMatch(/\s(on\w+|style|href)=/i);
    expect(page).not.toMatch(/@import|url\(/i);
    for (const [, source] of page.matchAll(/\ssrc="([^"]*)"/g)) expect(source).toMatch(/^data:image\/png;base64,[A-Za-z0-9+/=]+$/);
    const [style, ...others] = [...page.matchAll(/<style>([^]*?)<\/style>/g)].map((match) => match[1]!);
    expect(others).toEqual([]);
    expect(page).toContain(`content="default-src 'none'; style-src 'sha256-${createHash('sha256').update(style!).digest('base64')}'; img-src data:; base-uri 'none'; form-action 'none'"`);
  });

  it('is well formed, every id is there once, every image has words', () => {
    const stack: string[] = [];
    const body = page.slice(page.indexOf('<body>')).replace(/<\/html>\s*$/, '');
    for (const [, closing, name, selfClosing] of body.matchAll(/<(\/?)([a-z][a-z0-9]*)(?:\s[^<>]*?)?(\/?)>/gi)) {
      if (selfClosing || name === 'img') continue;
      if (closing) expect(stack.pop()).toBe(name);
      else stack.push(name!);
    }
    expect(stack).toEqual([]);
    const ids = [...page.matchAll(/\sid="([^"]*)"/g)].map((match) => match[1]);
    expect(new Set(ids).size).toBe(ids.length);
    for (const [image] of page.matchAll(/<img [^>]*>/g)) expect(image).toMatch(/ alt="[^"]{10,}"/);
  });

  it('says with every figure and table how many examples, of what, with which seed', () => {
    const captions = [...page.matchAll(/<figcaption>([^<]*)<\/figcaption>/g)].map((match) => match[1]!);
    expect(captions.length).toBeGreaterThanOrEqual(3);
    for (const caption of captions) expect(caption).toMatch(/\d models?, 40 examples of .*, seed 1\./);
  });

  it('is the same bytes each time', () => {
    expect(renderTrustPage(structuredClone(report))).toBe(page);
  });

  it.each([60, 100, 200])('the terminal table keeps to %d columns where a column fits, and prints every measure of every model', (columns) => {
    const text = renderTrustTable(report, columns);
    // eslint-disable-next-line no-control-regex
    expect(text).not.toMatch(/NaN|undefined|null|\u001b/);
    const table = text.split('\n').slice(0, -3);
    for (const line of table) expect(displayWidth(line)).toBeLessThanOrEqual(columns);
    for (const { architecture } of report.models) expect(text).toContain(architecture);
    expect(text.match(/^accuracy, %/gm)!.length).toBe(columns === 60 && report.models.length > 2 ? 2 : 1);
  });
});

describe('an image in the page', () => {
  it('is a PNG with these pixels', () => {
    const pixels = plainPixels([0, 128, 255, 7, 8, 9], 1);
    const file = Buffer.from(pngDataUri(2, 3, pixels).split(',')[1]!, 'base64');
    expect([...file.subarray(0, 8)]).toEqual([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]);
    expect([file.readUInt32BE(16), file.readUInt32BE(20), file[24], file[25]]).toEqual([2, 3, 8, 2]);
    const length = file.readUInt32BE(33);
    expect(file.toString('latin1', 37, 41)).toBe('IDAT');
    const rows = inflateSync(file.subarray(41, 41 + length));
    expect([...rows]).toEqual([0, 0, 0, 0, 128, 128, 128, 0, 255, 255, 255, 7, 7, 7, 0, 8, 8, 8, 9, 9, 9]);
    // CRC-32 of "IEND" alone, as the specification's own files end.
    expect(file.subarray(-4).toString('hex')).toBe('ae426082');
  });

  it('gets lighter as the value grows: the order is readable without color', () => {
    // 64 values: steps larger than what rounding a color to bytes can hide.
    const colors = heatPixels(Array.from({ length: 64 }, (_, i) => (255 * i) / 63));
    const luminance = Array.from({ length: 64 }, (_, i) => 0.2126 * colors[3 * i]! + 0.7152 * colors[3 * i + 1]! + 0.0722 * colors[3 * i + 2]!);
    for (let i = 1; i < 64; i++) expect(luminance[i]!).toBeGreaterThan(luminance[i - 1]!);
    expect(luminance[63]! - luminance[0]!).toBeGreaterThan(150);
  });
});
