/**
 * The parts that specifications of figures are made of: axes, legend, notes. A figure is a column of views: its plots, then what its marks mean, then what its
 * numbers mean. Colors are those of the light palette. A series is told apart by shape and dash as well as by color.
 */
import { lightPalette, niceTicks, type Layout } from './svg.ts';
import { FIGURE_FONT, figureTextWidth as textWidth, type FigureSpec } from './vega-image.ts';

/** A piece of a specification. */
export type Part = Readonly<Record<string, unknown>>;

/** Of a whole figure. */
export const figureWidth: Readonly<Record<Layout, number>> = { wide: 840, narrow: 358 };
/** What the labels of a share axis take, left of a plot. */
export const AXIS_WIDTH = 46;
const RIGHT = 14;
/** Of a plot that has a figure's width to itself. */
export function plotWidth(layout: Layout): number {
  return figureWidth[layout] - AXIS_WIDTH - RIGHT;
}

/** The last color is ink, for what is not a series. */
const seriesColors = lightPalette.series.slice(0, 5);
const shapes = ['circle', 'square', 'triangle-up', 'diamond', 'triangle-down'];
const dashes = [[1, 0], [7, 3], [2, 2]];
/** Series that can be told apart in one plot. */
export const MAX_SERIES = 10;

export interface Look {
  readonly color: string;
  readonly shape: string;
  readonly dash: readonly number[];
}

/** Of the series at a position. The second five have the colors of the first, and other dashes and shapes. */
export function lookOf(index: number): Look {
  const turn = Math.floor(index / seriesColors.length);
  return { color: seriesColors[index % seriesColors.length]!, shape: shapes[(index + turn) % shapes.length]!, dash: dashes[turn % dashes.length]! };
}

const referenceDashes = [[1.5, 3.5], [9, 3], [9, 3, 2, 3], [14, 3, 2, 3, 2, 3], [4, 4]];
/** Horizontal rules that can be told apart in one plot. */
export const MAX_REFERENCES = referenceDashes.length;

/** Of a rule without a series: ink, and a dash of its own. */
export function referenceLook(index: number): Look {
  return { color: lightPalette.ink, shape: 'circle', dash: referenceDashes[index % referenceDashes.length]! };
}

export interface LegendEntry extends Look {
  readonly label: string;
  /** `line`: a line with a mark; `rule`: a line; `mark`: a mark alone; `hollow`: its outline. */
  readonly kind: 'line' | 'rule' | 'mark' | 'hollow' | 'band' | 'tick';
}

const LEGEND_FONT = 12;
const LEGEND_ROW = 16;
const SAMPLE = 30;

/** What each mark means: rows of a sample and words, in two columns where they fit. */
export function legendView(entries: readonly LegendEntry[], width: number): Part {
  const widest = Math.max(...entries.map(({ label }) => textWidth(label, LEGEND_FONT)));
  const columns = entries.length > 1 && SAMPLE + 8 + widest <= width / 2 - 16 ? 2 : 1;
  const columnWidth = width / columns;
  const rows: { entry: LegendEntry; text: string; x: number; y: number }[] = [];
  const heights = Array.from({ length: columns }, () => 0);
  const perColumn = Math.ceil(entries.length / columns);
  entries.forEach((entry, i) => {
    const column = Math.floor(i / perColumn);
    const lines = wrap(entry.label, columnWidth - SAMPLE - 10, LEGEND_FONT);
    rows.push({ entry, text: lines.join('\n'), x: column * columnWidth, y: heights[column]! + LEGEND_ROW / 2 });
    heights[column]! += lines.length * 14 + (LEGEND_ROW - 12);
  });
  const values = rows.map(({ entry: { color, shape, dash, kind }, text, x, y }) => ({ text, x, to: x + SAMPLE, middle: x + SAMPLE / 2, y, color, shape, dash: dash.join(','), kind }));
  const place = (x: string): Part => ({ x: pixel(x), y: pixel('y') });
  const of = (...kinds: LegendEntry['kind'][]) => [{ filter: { field: 'kind', oneOf: kinds } }];
  const drawn = (kinds: LegendEntry['kind'][], layer: Part) => (entries.some(({ kind }) => kinds.includes(kind)) ? [{ transform: of(...kinds), ...layer }] : []);
  const color = { field: 'color', type: 'nominal', scale: null };
  return {
    width,
    height: Math.max(...heights),
    data: { values },
    layer: [
      ...drawn(['band'], { mark: { type: 'rule', strokeWidth: 9, opacity: 0.25 }, encoding: { ...place('x'), x2: pixel2('to'), color } }),
      ...[...new Set(values.map(({ dash }) => dash))].flatMap((dash) => {
        const shown = values.filter((value) => value.dash === dash && ['line', 'rule', 'band'].includes(value.kind));
        return shown.length === 0 ? [] : [{ transform: [...of('line', 'rule', 'band'), { filter: { field: 'dash', equal: dash } }], mark: { type: 'rule', strokeWidth: 2, strokeDash: dash.split(',').map(Number) }, encoding: { ...place('x'), x2: pixel2('to'), color } }];
      }),
      ...drawn(['line', 'mark'], { mark: { type: 'point', filled: true, size: 55, opacity: 1 }, encoding: { ...place('middle'), color, shape: { field: 'shape', type: 'nominal', scale: null } } }),
      ...drawn(['hollow'], { mark: { type: 'point', filled: false, size: 50, strokeWidth: 1.6, opacity: 1 }, encoding: { ...place('middle'), color, shape: { field: 'shape', type: 'nominal', scale: null } } }),
      ...drawn(['tick'], { mark: { type: 'tick', orient: 'vertical', size: 14, thickness: 3, opacity: 1 }, encoding: { ...place('middle'), color } }),
      { transform: [{ calculate: `datum.to + 8`, as: 'words' }], mark: { type: 'text', align: 'left', baseline: 'middle', fontSize: LEGEND_FONT, lineBreak: '\n', lineHeight: 14, color: lightPalette.ink }, encoding: { ...place('words'), text: { field: 'text', type: 'nominal' } } },
    ],
  };
}

const NOTE_FONT = 11;

/** Sentences under a figure, so that its file says what its numbers mean wherever it goes. */
export function noteView(sentences: readonly string[], width: number): Part {
  const lines = sentences.flatMap((sentence) => wrap(sentence, width, NOTE_FONT));
  return {
    width,
    height: lines.length * 15,
    data: { values: lines.map((text, i) => ({ text, x: 0, y: 15 * i + 8 })) },
    mark: { type: 'text', align: 'left', baseline: 'middle', fontSize: NOTE_FONT, color: lightPalette.muted },
    encoding: { x: pixel('x'), y: pixel('y'), text: { field: 'text', type: 'nominal' } },
  };
}

/** A field that holds pixels. */
function pixel(field: string): Part {
  return { field, type: 'quantitative', scale: null, axis: null };
}
function pixel2(field: string): Part {
  return { field };
}

/** Breaks at spaces; a word that is longer than a line is broken too. */
export function wrap(text: string, width: number, fontSize: number): string[] {
  const lines: string[] = [];
  let current = '';
  const longest = Math.max(4, Math.floor(width / (0.7 * fontSize)));
  for (const word of text.split(' ').flatMap((whole) => whole.match(new RegExp(`.{1,${longest}}`, 'gu')) ?? [])) {
    if (current !== '' && textWidth(`${current} ${word}`, fontSize) > width) {
      lines.push(current);
      current = word;
    } else {
      current = current === '' ? word : `${current} ${word}`;
    }
  }
  return current === '' ? lines : [...lines, current];
}

/** A figure from its views, one below the other. */
export function figureSpec(views: readonly Part[]): FigureSpec {
  const axis = { gridColor: lightPalette.grid, domainColor: lightPalette.rule, tickColor: lightPalette.rule, labelColor: lightPalette.muted, titleColor: lightPalette.muted, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 'normal', labelLimit: 0, titleLimit: 0 };
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: lightPalette.background,
    padding: { left: 2, top: 4, right: 2, bottom: 4 },
    vconcat: views,
    spacing: 10,
    config: { aria: false, font: FIGURE_FONT, view: { stroke: null }, axis, text: { fontSize: 12 } },
  };
}

/** An axis of shares, in percent; its title stands above its labels. */
export function shareAxis(title: string, domain: readonly [number, number], field: string, height: number): Part {
  return {
    field,
    type: 'quantitative',
    scale: { domain, nice: false, zero: false },
    axis: { title, titleAngle: 0, titleAlign: 'left', titleAnchor: 'start', titleX: 2 - AXIS_WIDTH, titleY: -14, titleBaseline: 'bottom', values: niceTicks(domain, height < 160 ? 3 : 6, 0.01), format: '.0%', minExtent: AXIS_WIDTH - 2, maxExtent: AXIS_WIDTH - 2, ticks: false, domain: false },
  };
}

/** Color, shape and dash of series, by their label. */
export function seriesScale(labels: readonly string[], channel: 'color' | 'shape' | 'strokeDash', look: (index: number) => Look = lookOf): Part {
  const range = labels.map((_, index) => (channel === 'color' ? look(index).color : channel === 'shape' ? look(index).shape : look(index).dash));
  return { field: 'series', type: 'nominal', scale: { domain: labels, range }, legend: null };
}
