import { describe, expect, it } from 'vitest';
import { renderFigures } from '../../../simulations/report/figures.ts';
import { displayWidth } from '../../../simulations/report/format.ts';
import { darkPalette, layouts, lightPalette, logScale, logTicks, niceTicks, shareDomain, spread, textWidth, withStyle, withoutCollisions } from '../../../simulations/report/svg.ts';
import { edgeCases, hundredClients, nothing, oneClient, sampleReport, twelveLongNames } from './sample-report.ts';
import { parseXml, textOf, walk, type XmlElement } from './xml.ts';

const reports = [sampleReport, ...edgeCases];

describe.each(reports.map((report) => [report.title, report] as const))('figures of: %s', (_, report) => {
  const drawings = renderFigures(report).flatMap((figure) => layouts.map((layout) => ({ name: `${figure.id} ${layout}`, svg: figure.svg[layout] })));

  it('parse as XML, with a title and a description that the image names', () => {
    for (const { svg } of drawings) {
      const root = parseXml(svg);
      expect(root.name).toBe('svg');
      expect(root.attributes['role']).toBe('img');
      const named = root.attributes['aria-labelledby']!.split(' ').map((id) => [...walk(root)].find((element) => element.attributes['id'] === id)!);
      expect(named.map((element) => element.name)).toEqual(['title', 'desc']);
      for (const element of named) expect(textOf(element).length).toBeGreaterThan(5);
      expect(parseXml(withStyle(svg)).name).toBe('svg');
    }
  });

  it('hold no broken number', () => {
    for (const { name, svg } of drawings) expect(svg, name).not.toMatch(/NaN|undefined|null|Infinity|\[object/);
  });

  it('stay inside their frame and do not draw one text over another', () => {
    for (const { name, svg } of drawings) {
      const root = parseXml(svg);
      const [, , width, height] = root.attributes['viewBox']!.split(' ').map(Number);
      const boxes = [...walk(root)].filter((element) => element.name === 'text').map(textBox);
      for (const box of boxes) {
        expect(box.left, `${name}: "${box.content}" leaves on the left`).toBeGreaterThanOrEqual(-1);
        expect(box.right, `${name}: "${box.content}" leaves on the right`).toBeLessThanOrEqual(width! + 1);
        expect(box.bottom, `${name}: "${box.content}" leaves at the bottom`).toBeLessThanOrEqual(height! + 1);
        expect(box.top, `${name}: "${box.content}" leaves at the top`).toBeGreaterThanOrEqual(0);
      }
      for (const [index, a] of boxes.entries()) {
        for (const b of boxes.slice(index + 1)) {
          const overlaps = a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
          expect(overlaps, `${name}: "${a.content}" and "${b.content}" overlap`).toBe(false);
        }
      }
      for (const element of walk(root)) {
        for (const [x, y] of coordinates(element)) {
          expect(x, name).toBeGreaterThanOrEqual(-1);
          expect(x, name).toBeLessThanOrEqual(width! + 1);
          expect(y, name).toBeGreaterThanOrEqual(-1);
          expect(y, name).toBeLessThanOrEqual(height! + 1);
        }
      }
    }
  });

  it('say over how many clients and test examples, and with which seed', () => {
    for (const { caption } of renderFigures(report)) {
      expect(caption).toContain(`${report.clients.length} client`);
      expect(caption).toContain('2,000 test examples');
      expect(caption).toContain('seed 7');
    }
  });

  it('are the same bytes each time', () => {
    expect(JSON.stringify(renderFigures(report))).toBe(JSON.stringify(renderFigures(structuredClone(report))));
  });
});

describe('figures', () => {
  it('look as reviewed', async () => {
    for (const figure of renderFigures(sampleReport)) {
      for (const layout of layouts) await expect(withStyle(figure.svg[layout])).toMatchFileSnapshot(`snapshots/${figure.id}-${layout}.svg`);
    }
    for (const figure of renderFigures(twelveLongNames)) await expect(withStyle(figure.svg.wide)).toMatchFileSnapshot(`snapshots/twelve-${figure.id}-wide.svg`);
  });

  it('are left out where there is nothing to show', () => {
    expect(renderFigures(nothing)).toEqual([]);
    expect(renderFigures(oneClient).map((figure) => figure.id)).toEqual(['gain-by-client', 'accuracy-by-round', 'class-histogram', 'bytes']);
    expect(renderFigures({ ...oneClient, clients: oneClient.clients.map((client) => ({ ...client, classHistogram: [] })) }).map((figure) => figure.id)).not.toContain('class-histogram');
  });

  it('carry the numbers that they are drawn from', () => {
    const figures = new Map(renderFigures(sampleReport).map((figure) => [figure.id, figure.data]));
    expect(figures.get('gain-by-client')!.rows[0]).toEqual(['north', 'small-cnn', '0.7421', '0.8934', '0.1513']);
    expect(figures.get('accuracy-by-round')!.rows).toHaveLength(9);
    expect(figures.get('bytes')!.rows[0]).toEqual(['north', 'small-cnn', '56,714', '321,812', '730,211', '1,052,023', '3,629,696']);
    expect(figures.get('accuracy-by-epsilon')!.rows.map((row) => row[1])).toEqual(['1', '8', '64', '∞']);
    for (const { columns, rows } of figures.values()) for (const row of rows) expect(row).toHaveLength(columns.length);
  });

  it('draw forty clients of a hundred and say so', () => {
    const [gain] = renderFigures(hundredClients);
    expect(gain!.caption).toContain('the first 40 of 100 clients');
    expect(gain!.data.rows).toHaveLength(102);
  });

  it('hold names as text, whatever is in them', () => {
    const name = `</text><script>alert("1")</script>'&amp;\u001b[2J`;
    const hostile = { ...sampleReport, clients: sampleReport.clients.map((client) => ({ ...client, name, model: name })), noisy: sampleReport.noisy.map((result) => ({ ...result, mechanism: name })) };
    for (const figure of renderFigures(hostile)) {
      for (const layout of layouts) {
        const allowed = new Set(['svg', 'title', 'desc', 'text', 'path', 'circle', 'rect']);
        for (const element of walk(parseXml(figure.svg[layout]))) expect(allowed).toContain(element.name);
        expect(figure.svg[layout]).not.toContain('<script');
      }
    }
  });
});

describe('colors', () => {
  it.each([
    ['light', lightPalette, 3],
    ['dark', darkPalette, 4.5],
  ])('of the %s palette stand out from the background', (_, palette, least) => {
    for (const color of palette.series) expect(contrast(color, palette.background), color).toBeGreaterThanOrEqual(least);
    expect(contrast(palette.ink, palette.background)).toBeGreaterThanOrEqual(12);
    expect(contrast(palette.muted, palette.background)).toBeGreaterThanOrEqual(4.5);
    expect(contrast(palette.ink, mix(palette.heat, palette.background, 0.75))).toBeGreaterThanOrEqual(4.5);
  });
});

describe('scales', () => {
  it('tick in round numbers inside the domain', () => {
    expect(niceTicks([0, 1], 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(niceTicks([0, 8], 10, 1)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(niceTicks([3, 3], 5, 1)).toEqual([3]);
    expect(logTicks([900, 2_000_000])).toEqual([1000, 10_000, 100_000, 1_000_000]);
    expect(logTicks([900, 4000])).toEqual([1000, 2000]);
  });
  it('hold shares within [0, 1] and never have an empty domain', () => {
    expect(shareDomain([0.5, 0.5])).toEqual([0.49, 0.51]);
    expect(shareDomain([0.59, 0.9581])).toEqual([0.5, 1]);
    expect(shareDomain([])).toEqual([0, 1]);
    expect(shareDomain([1, 1])).toEqual([0.99, 1]);
    expect(shareDomain([0, 0])).toEqual([0, 0.01]);
  });
  it('put equal ratios at equal distances', () => {
    const x = logScale([1, 100], [0, 200]);
    expect([x(1), x(10), x(100)].map(Math.round)).toEqual([0, 100, 200]);
    expect(logScale([5, 5], [0, 200])(5)).toBe(100);
  });
  it('move labels apart in order, inside their limits', () => {
    expect(spread([10, 11, 50], 10, 0, 60)).toEqual([10, 20, 50]);
    expect(spread([58, 10, 59], 10, 0, 60)).toEqual([50, 10, 60]);
  });
  it('drop ticks that would touch, but not the last', () => {
    expect(withoutCollisions([0, 5, 10, 12], (value) => [value, value + 2], 2)).toEqual([0, 5, 12]);
  });
});

function textBox(element: XmlElement): { content: string; left: number; right: number; top: number; bottom: number } {
  const content = element.children.filter((child) => typeof child === 'string').join('');
  const classes = (element.attributes['class'] ?? '').split(' ');
  const size = classes.includes('sm') ? 10.5 : 12;
  // Narrower than the layout's own upper estimate: this asks whether ink meets ink in an ordinary font.
  const width = textWidth(content, size) * 0.9;
  const x = Number(element.attributes['x']);
  const y = Number(element.attributes['y']);
  const left = classes.includes('e') ? x - width : classes.includes('m') ? x - width / 2 : x;
  expect(displayWidth(content)).toBeGreaterThan(0);
  return { content, left, right: left + width, top: y - size * 0.72, bottom: y };
}

function coordinates(element: XmlElement): (readonly [number, number])[] {
  if (element.name === 'circle') return [[Number(element.attributes['cx']), Number(element.attributes['cy'])]];
  if (element.name !== 'path') return [];
  return [...element.attributes['d']!.matchAll(/[ML](-?[\d.]+) (-?[\d.]+)/g)].map((match) => [Number(match[1]), Number(match[2])] as const);
}

/** WCAG 2.2, contrast ratio. */
function contrast(a: string, b: string): number {
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (light + 0.05) / (dark + 0.05);
}

function channels(color: string): number[] {
  return [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
}

function luminance(color: string): number {
  const [r, g, b] = channels(color).map((channel) => {
    const share = channel / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function mix(over: string, under: string, opacity: number): string {
  const below = channels(under);
  return `#${channels(over).map((channel, index) => Math.round(channel * opacity + below[index]! * (1 - opacity)).toString(16).padStart(2, '0')).join('')}`;
}
