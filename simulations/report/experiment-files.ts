/** What `fedstill report` writes: the page, and of each figure the picture, its data and its specification. */
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { guardDisk } from '../../shared/node/disk-errors.ts';
import { settingsOf, type Experiment } from './experiment-data.ts';
import { experimentFigures, type ExperimentFigure } from './experiment-figures.ts';
import { renderExperimentPage, type DrawnFigure } from './experiment-page.ts';
import type { FigureData } from './figures.ts';
import { renderPng, renderVega, standalone } from './vega-image.ts';

export interface ReportFile {
  /** Relative to the report's folder. */
  readonly path: string;
  readonly content: string | Uint8Array;
}

/** Figures first, the page last: where there is a page, its files are there. The same experiments give the same bytes. */
export async function experimentFiles(experiments: readonly Experiment[], { png = true }: { readonly png?: boolean } = {}): Promise<ReportFile[]> {
  const files: ReportFile[] = [];
  const drawn: DrawnFigure[] = [];
  for (const figure of experimentFigures(settingsOf(experiments))) {
    const svg = await fileSvg(figure);
    const path = `figures/${figure.id}`;
    files.push({ path: `${path}.svg`, content: standalone(svg) });
    if (png) files.push({ path: `${path}.png`, content: await renderPng(svg) });
    files.push({ path: `${path}.csv`, content: csvText(figure.data) }, { path: `${path}.vl.json`, content: `${JSON.stringify(figure.spec.file, undefined, 1)}\n` });
    const inPage = (layout: 'wide' | 'narrow') => renderVega(figure.spec[layout], { id: `${figure.id}-${layout}`, title: figure.title, description: figure.description });
    drawn.push({ ...figure, svg: { wide: await inPage('wide'), narrow: await inPage('narrow') } });
  }
  return [...files, { path: 'report.html', content: renderExperimentPage(experiments, drawn) }];
}

/** The figure as it goes without a page around it. */
export function fileSvg({ id, spec, title, caption, description }: ExperimentFigure): Promise<string> {
  return renderVega(spec.file, { id, title, description: `${description} ${caption}` });
}

/** RFC 4180. */
export function csvText({ columns, rows }: FigureData): string {
  const quoted = (cell: string) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  return [columns, ...rows].map((row) => `${row.map(quoted).join(',')}\n`).join('');
}

/** Each file whole or not at all, however this ends. */
export async function writeReportFiles(directory: string, files: readonly ReportFile[]): Promise<void> {
  for (const { path, content } of files) {
    const target = join(directory, path);
    await guardDisk(target, async () => {
      await mkdir(dirname(target), { recursive: true });
      await replaceWhole(target, content);
    });
  }
}

async function replaceWhole(path: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${path}.new`;
  try {
    const file = await open(temporary, 'w');
    try {
      await file.writeFile(content);
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
