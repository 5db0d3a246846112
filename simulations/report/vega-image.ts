/**
 * A vega-lite specification as SVG and PNG, without a browser, a canvas or a font of the machine: the same specification gives the same bytes everywhere.
 *
 * The SVG is drawn in the light palette with literal colors as attributes, so that every program can show it; a style sheet that recognizes those attributes
 * turns it dark (`vegaStyle`), because style sheets win over attributes.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { escapeMarkup } from './format.ts';
import { coordinate, darkPalette, lightPalette, textWidth, type Palette } from './svg.ts';
import type * as resvg from '@resvg/resvg-wasm';
import type * as vegaPackage from 'vega';
import type { TopLevelSpec } from 'vega-lite';

/** A specification with its data in it. Its texts are data, never expressions of vega. */
export type FigureSpec = Readonly<Record<string, unknown>>;

/** Arimo is drawn in PNGs; the others have the same widths (they were made to replace each other). */
export const FIGURE_FONT = 'Arimo, "Liberation Sans", Arial, Helvetica, sans-serif';

/** Width of a text, an upper estimate for Arimo and the fonts of its widths: they are narrower than the widest in use. */
export function figureTextWidth(text: string, fontSize: number): number {
  return 0.9 * textWidth(text, fontSize);
}

export interface VegaImageText {
  /** Unique in a page. */
  readonly id: string;
  readonly title: string;
  /** What a reader who cannot see the figure should know. */
  readonly description: string;
}

/** An accessible image. It needs `vegaStyle()` in the page around it for dark mode; see `standalone` for a file of its own. */
export async function renderVega(spec: FigureSpec, { id, title, description }: VegaImageText): Promise<string> {
  const [vega, { compile }] = await Promise.all([loadVega(), import('vega-lite')]);
  const logger = vega.logger(vega.None);
  const view = new vega.View(vega.parse(compile(spec as unknown as TopLevelSpec, { logger }).spec, {}), { renderer: 'none', logger, loader: noLoader });
  try {
    const svg = tidy(await view.toSVG());
    const { width, height } = /^<svg[^>]* width="(?<width>[\d.]+)" height="(?<height>[\d.]+)"/.exec(svg)!.groups as { width: string; height: string };
    return [
      `<svg xmlns="http://www.w3.org/2000/svg" class="vl" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="${id}-t ${id}-d">`,
      `<title id="${id}-t">${escapeMarkup(title)}</title>`,
      `<desc id="${id}-d">${escapeMarkup(description)}</desc>`,
      svg.slice(svg.indexOf('>') + 1),
    ].join('\n');
  } finally {
    view.finalize();
  }
}

/** Figures hold their data; whatever else a specification might name stays where it is. */
const noLoader = {
  load: () => Promise.reject(new Error('figures load nothing')),
  sanitize: () => Promise.reject(new Error('figures link to nothing')),
  http: () => Promise.reject(new Error('figures load nothing')),
  file: () => Promise.reject(new Error('figures load nothing')),
};

let loaded: Promise<typeof vegaPackage> | undefined;

function loadVega(): Promise<typeof vegaPackage> {
  loaded ??= import('vega').then((vega) => {
    // Without a canvas vega takes 0.8 em for every character; with one (some other package may bring it) the fonts of the machine.
    const metrics = (vega as unknown as { readonly textMetrics: { width: (item: { readonly fontSize?: number }, text: string | number | readonly string[] | null | undefined) => number; canvas: (use: boolean) => void } }).textMetrics;
    metrics.canvas(false);
    metrics.width = (item, text) => figureTextWidth(Array.isArray(text) ? text.join(' ') : String(text ?? ''), item.fontSize ?? 11);
    return vega;
  });
  return loaded;
}

/** Numbers of attributes to two decimals, and without what only scripts and empty groups need. */
function tidy(svg: string): string {
  return svg
    .replace(/<path class="(?:background|foreground)" aria-hidden="true" d="(?:M0,0h0v0h0Z)?"(?: pointer-events="none")?(?: display="none")?\/>/g, '')
    .replace(/ (?:pointer-events|aria-hidden|role|aria-roledescription|class|opacity)="(?:none|true|graphics-\w+|group mark container|[a-z -]*(?:mark|role|background|foreground)[a-z -]*|1)"/g, '')
    .replace(/ (transform|d|x|y|x1|x2|y1|y2|width|height|viewBox)="([^"]*)"/g, (_, name: string, value: string) => ` ${name}="${value.replace(/-?\d*\.\d{3,}(?:e-?\d+)?/g, (number) => coordinate(Number(number)))}"`);
}

/** Turns figures dark where the reader prefers that, on screens only. */
export function vegaStyle(): string {
  const pairs = (light: Palette, dark: Palette): [string, string][] => [
    [light.background, dark.background],
    [light.ink, dark.ink],
    [light.muted, dark.muted],
    [light.rule, dark.rule],
    [light.grid, dark.grid],
    ...light.series.map((color, index): [string, string] => [color, dark.series[index]!]),
  ];
  const rules = [...new Map(pairs(lightPalette, darkPalette))].map(([from, to]) => `.vl [fill="${from}"]{fill:${to}}.vl [stroke="${from}"]{stroke:${to}}`);
  return `.vl{display:block;max-width:100%;height:auto}\n@media screen and (prefers-color-scheme:dark){${rules.join('')}}`;
}

/** The image as a file of its own, with its dark mode. */
export function standalone(svg: string): string {
  const end = svg.indexOf('</desc>') + '</desc>'.length;
  return `<?xml version="1.0" encoding="UTF-8"?>\n${svg.slice(0, end)}\n<style>${vegaStyle()}</style>${svg.slice(end)}\n`;
}

const require = createRequire(import.meta.url);
type Resvg = typeof resvg.Resvg;
let rasterizer: Promise<{ readonly Resvg: Resvg; readonly fonts: Uint8Array[] }> | undefined;

async function loadRasterizer(): Promise<{ readonly Resvg: Resvg; readonly fonts: Uint8Array[] }> {
  const [{ initWasm, Resvg }, wasm, ...fonts] = await Promise.all([
    import('@resvg/resvg-wasm'),
    readFile(require.resolve('@resvg/resvg-wasm/index_bg.wasm')),
    ...['400Regular/Arimo_400Regular.ttf', '700Bold/Arimo_700Bold.ttf'].map((name) => readFile(require.resolve(`@expo-google-fonts/arimo/${name}`))),
  ]);
  await initWasm(wasm);
  return { Resvg, fonts };
}

/** The light image, two pixels for each of the SVG's. Fonts of the machine are not looked at. */
export async function renderPng(svg: string): Promise<Uint8Array> {
  rasterizer ??= loadRasterizer();
  const { Resvg, fonts } = await rasterizer;
  const image = new Resvg(svg, { font: { fontBuffers: fonts, loadSystemFonts: false, defaultFontFamily: 'Arimo' }, fitTo: { mode: 'zoom', value: 2 } });
  try {
    const rendered = image.render();
    const png = rendered.asPng();
    rendered.free();
    return png;
  } finally {
    image.free();
  }
}
