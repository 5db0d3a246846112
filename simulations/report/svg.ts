/**
 * The few marks that the figures of a report are drawn with, as SVG text: no library, no script, no font file. Colors are
 * classes, so that one style sheet serves light, dark and print; a client or a series is also told apart by marker shape
 * and dash, never by color alone.
 */
import { escapeMarkup, truncate } from './format.ts';

/** `wide` for a screen or paper, `narrow` for a phone: laid out anew, not scaled, so that text stays 12 px. */
export type Layout = 'wide' | 'narrow';
export const layouts: readonly Layout[] = ['wide', 'narrow'];

export interface Palette {
  readonly background: string;
  readonly ink: string;
  readonly muted: string;
  readonly rule: string;
  readonly grid: string;
  /** Largest ink of a heat strip, under text in `ink`. */
  readonly heat: string;
  /** Series 0 to 5; 0 is federated, 1 is local only wherever the figure compares the two. */
  readonly series: readonly string[];
}

/** Okabe and Ito 2008, darkened where needed to stand out 3:1 from white; ink for the sixth. */
export const lightPalette: Palette = {
  background: '#ffffff',
  ink: '#16191d',
  muted: '#565d66',
  rule: '#8a929c',
  grid: '#e3e6ea',
  heat: '#0072b2',
  series: ['#0072b2', '#d55e00', '#00805c', '#b25a8c', '#a87400', '#16191d'],
};
/** The same hues, lightened to stand out 4.5:1 from the dark background. */
export const darkPalette: Palette = {
  background: '#14171b',
  ink: '#e9ebee',
  muted: '#a5adb7',
  rule: '#6f7883',
  grid: '#2a2f36',
  heat: '#0a78b8',
  series: ['#56b4e9', '#ff8a3d', '#2cc295', '#e29ac4', '#e6a81e', '#e9ebee'],
};
export const SERIES_COUNT = lightPalette.series.length;

const INK = 5;
export const FEDERATED = 0;
export const LOCAL_ONLY = 1;
export const TEACHER = INK;

/** Style of every figure. Literal colors, not variables: programs that draw SVG outside a browser know no variables. */
export function figureStyle(): string {
  const geometry = [
    '.fs{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums}',
    '.fs .sm{font-size:10.5px}.fs .b{font-weight:600}.fs .e{text-anchor:end}.fs .m{text-anchor:middle}',
    '.fs .ln{fill:none;stroke-width:2;stroke-linejoin:round}.fs .thin{stroke-width:1.4}.fs .da{stroke-dasharray:6 4}.fs .dot{stroke-dasharray:1.5 3.5;stroke-linecap:round}',
    '.fs .mk{stroke-width:1}.fs .mh{stroke-width:2}.fs .bd{fill-opacity:.16}.fs .ax,.fs .gr,.fs .ld{fill:none;stroke-width:1}.fs .halo{paint-order:stroke;stroke-width:5px;stroke-linejoin:round}',
  ];
  return [...geometry, ...colors(lightPalette), `@media screen and (prefers-color-scheme:dark){${colors(darkPalette).join('')}}`].join('\n');
}

function colors(palette: Palette): string[] {
  return [
    `.fs text{fill:${palette.ink}}.fs .mu{fill:${palette.muted}}.fs .halo{stroke:${palette.background}}.fs .ax{stroke:${palette.rule}}.fs .gr{stroke:${palette.grid}}.fs .ld{stroke:${palette.rule}}.fs .cell{fill:${palette.heat};stroke:${palette.background}}.fs .box{fill:none;stroke:${palette.grid}}.fs .bg{fill:${palette.background}}`,
    ...palette.series.map(
      (color, index) =>
        `.fs .ln.k${index},.fs .mh.k${index}{stroke:${color}}.fs .mk.k${index},.fs .bd.k${index}{fill:${color}}.fs .mk.k${index}{stroke:${palette.background}}.fs .mh.k${index}{fill:${palette.background}}.fs .x.k${index}{stroke:${color};stroke-width:2;fill:none}`,
    ),
  ];
}

/** Two decimals, no trailing zeros: enough for a screen, and the same text on every machine. */
export function coordinate(value: number): string {
  const text = (Math.round(value * 100) / 100).toString();
  return text === '-0' ? '0' : text;
}
const at = coordinate;

/** Width of a text at 12 px: an upper estimate for the sans-serif fonts in use (DejaVu Sans is the widest). */
export function textWidth(text: string, fontSize = 12): number {
  let em = 0;
  for (const character of text) em += /[ilj.,:;'|!()[\] ]/.test(character) ? 0.36 : /[mwMW%@…±→]/.test(character) ? 0.96 : character > '\u2e7f' ? 1.05 : 0.62;
  return em * fontSize;
}

/** Cuts a text until it fits into `width` pixels. */
export function fitText(text: string, width: number, fontSize = 12): string {
  if (textWidth(text, fontSize) <= width) return text;
  for (let columns = [...text].length - 1; columns > 1; columns--) {
    const cut = truncate(text, columns);
    if (textWidth(cut, fontSize) <= width) return cut;
  }
  return '…';
}

export function text(x: number, y: number, content: string, classes = ''): string {
  return `<text x="${at(x)}" y="${at(y)}"${classes ? ` class="${classes}"` : ''}>${escapeMarkup(content)}</text>`;
}

/** A text that is cut to fit, with the whole of it as a tooltip. */
export function fittedText(x: number, y: number, content: string, width: number, classes = ''): string {
  const cut = fitText(content, width);
  if (cut === content) return text(x, y, content, classes);
  return `<text x="${at(x)}" y="${at(y)}"${classes ? ` class="${classes}"` : ''}><title>${escapeMarkup(content)}</title>${escapeMarkup(cut)}</text>`;
}

export function line(x1: number, y1: number, x2: number, y2: number, classes: string): string {
  return `<path d="M${at(x1)} ${at(y1)}L${at(x2)} ${at(y2)}" class="${classes}"/>`;
}

export type Point = readonly [x: number, y: number];

export function polyline(points: readonly Point[], classes: string): string {
  return points.length < 2 ? '' : `<path d="${path(points)}" class="${classes}"/>`;
}

/** The area between an upper and a lower line over the same x. */
export function band(upper: readonly Point[], lower: readonly Point[], classes: string): string {
  return upper.length < 2 ? '' : `<path d="${path([...upper, ...[...lower].reverse()])}Z" class="${classes}"/>`;
}

function path(points: readonly Point[]): string {
  return points.map(([x, y], index) => `${index === 0 ? 'M' : 'L'}${at(x)} ${at(y)}`).join('');
}

export type Fill = 'solid' | 'hollow';

/** One shape for each series, so that a figure reads without color. Sixth: a cross, for the teacher. */
export function marker(x: number, y: number, series: number, fill: Fill, radius = 4): string {
  const index = series % SERIES_COUNT;
  const classes = `${fill === 'solid' ? 'mk' : 'mh'} k${index}`;
  const r = radius;
  switch (index) {
    case 0:
      return `<circle cx="${at(x)}" cy="${at(y)}" r="${at(r)}" class="${classes}"/>`;
    case 1:
      return shape([[x - r * 0.9, y - r * 0.9], [x + r * 0.9, y - r * 0.9], [x + r * 0.9, y + r * 0.9], [x - r * 0.9, y + r * 0.9]], classes);
    case 2:
      return shape([[x, y - r * 1.2], [x + r * 1.15, y + r * 0.85], [x - r * 1.15, y + r * 0.85]], classes);
    case 3:
      return shape([[x, y - r * 1.3], [x + r * 1.3, y], [x, y + r * 1.3], [x - r * 1.3, y]], classes);
    case 4:
      return shape([[x, y + r * 1.2], [x + r * 1.15, y - r * 0.85], [x - r * 1.15, y - r * 0.85]], classes);
    default:
      return `<path d="M${at(x - r)} ${at(y - r)}L${at(x + r)} ${at(y + r)}M${at(x - r)} ${at(y + r)}L${at(x + r)} ${at(y - r)}" class="x k${index}"/>`;
  }
}

function shape(points: readonly Point[], classes: string): string {
  return `<path d="${path(points)}Z" class="${classes}"/>`;
}

/** Whiskers from `low` to `high` with small caps. */
export function whisker(low: Point, high: Point, series: number): string {
  const classes = `ln thin k${series % SERIES_COUNT}`;
  const cap = 3.5;
  const isHorizontal = low[1] === high[1];
  const capAt = ([x, y]: Point) => (isHorizontal ? line(x, y - cap, x, y + cap, classes) : line(x - cap, y, x + cap, y, classes));
  return line(...low, ...high, classes) + capAt(low) + capAt(high);
}

export interface Scale {
  (value: number): number;
  readonly domain: readonly [number, number];
}

/** Maps a domain to pixels. A domain without width maps to the middle; values outside are held at its ends. */
export function linearScale(domain: readonly [number, number], range: readonly [number, number]): Scale {
  const [low, high] = domain;
  const map = (value: number) => {
    if (!(high > low)) return (range[0] + range[1]) / 2;
    const share = Math.min(1, Math.max(0, (value - low) / (high - low)));
    return range[0] + share * (range[1] - range[0]);
  };
  return Object.assign(map, { domain });
}

/** Base 10; `domain` is positive. */
export function logScale(domain: readonly [number, number], range: readonly [number, number]): Scale {
  const inner = linearScale([Math.log10(domain[0]), Math.log10(domain[1])], range);
  return Object.assign((value: number) => inner(Math.log10(Math.max(value, domain[0]))), { domain });
}

/** At most `most` + 1 round numbers (1, 2, 5 times a power of ten) within the domain. */
export function niceTicks(domain: readonly [number, number], most: number, smallestStep = 0): number[] {
  const [low, high] = domain;
  const step = niceStep((high - low) / Math.max(1, most), smallestStep);
  const ticks: number[] = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) ticks.push(Number((index * step).toPrecision(12)));
  return ticks;
}

function niceStep(raw: number, smallest: number): number {
  const wanted = Math.max(raw, smallest, 1e-12);
  const power = 10 ** Math.floor(Math.log10(wanted) + 1e-9);
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= wanted * (1 - 1e-9)) ?? 10;
  return factor * power;
}

/** The smallest domain of round numbers, within [0, 1], that holds all the shares with some air. */
export function shareDomain(values: readonly number[]): readonly [number, number] {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0) return [0, 1];
  const low = Math.max(0, Math.min(...finite));
  const high = Math.min(1, Math.max(...finite));
  const step = niceStep(Math.max(high - low, 0.02) / 5, 0.01);
  const down = Math.floor((low - step * 0.1) / step + 1e-9) * step;
  const up = Math.ceil((high + step * 0.1) / step - 1e-9) * step;
  return [Math.max(0, Number(down.toPrecision(12))), Math.min(1, Number(up.toPrecision(12)))];
}

/** Decades inside the domain, with 2 and 5 between them where it spans less than two decades. */
export function logTicks(domain: readonly [number, number]): number[] {
  const [low, high] = domain;
  const factors = high / low < 30 ? [1, 2, 5] : [1];
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(6));
      if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push(tick);
    }
  }
  return ticks;
}

/** Keeps those of the positions that are at least `gap` apart, first and last preferred. */
export function withoutCollisions<T>(items: readonly T[], extent: (item: T) => readonly [from: number, to: number], gap = 8): T[] {
  const kept: T[] = [];
  const last = items.at(-1);
  for (const [index, item] of items.entries()) {
    const [from, to] = extent(item);
    const previous = kept.at(-1);
    if (previous !== undefined && from < extent(previous)[1] + gap) continue;
    if (index < items.length - 1 && last !== undefined && to + gap > extent(last)[0]) continue;
    kept.push(item);
  }
  return kept;
}

/** Moves label positions apart to `gap` inside [low, high], as little as an order-keeping shift can; input order is kept. */
export function spread(positions: readonly number[], gap: number, low: number, high: number): number[] {
  const order = positions.map((position, index) => ({ position, index })).sort((a, b) => a.position - b.position || a.index - b.index);
  const placed: number[] = [];
  for (const [rank, { position }] of order.entries()) placed.push(Math.max(position, rank === 0 ? low : placed[rank - 1]! + gap));
  let limit = high;
  for (let rank = placed.length - 1; rank >= 0; rank--) {
    placed[rank] = Math.min(placed[rank]!, limit);
    limit = placed[rank]! - gap;
  }
  const result = positions.map(() => 0);
  for (const [rank, { index }] of order.entries()) result[index] = placed[rank]!;
  return result;
}

export interface SvgImage {
  readonly id: string;
  readonly width: number;
  readonly height: number;
  readonly title: string;
  /** What a reader who cannot see the figure should know: what is drawn and what it says. */
  readonly description: string;
  readonly body: readonly string[];
}

/** An accessible image. It needs `figureStyle()` in the page around it; see `withStyle` for a file of its own. */
export function svgImage({ id, width, height, title, description, body }: SvgImage): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" class="fs" viewBox="0 0 ${at(width)} ${at(height)}" width="${at(width)}" height="${at(height)}" role="img" aria-labelledby="${id}-t ${id}-d">`,
    `<title id="${id}-t">${escapeMarkup(title)}</title>`,
    `<desc id="${id}-d">${escapeMarkup(description)}</desc>`,
    ...body.filter((part) => part !== ''),
    '</svg>',
  ].join('\n');
}

/** The image as a file of its own: brings style and background with it. */
export function withStyle(svg: string): string {
  const end = svg.indexOf('</desc>') + '</desc>'.length;
  return `<?xml version="1.0" encoding="UTF-8"?>\n${svg.slice(0, end)}\n<style>${figureStyle()}</style>\n<rect width="100%" height="100%" class="bg"/>${svg.slice(end)}\n`;
}
