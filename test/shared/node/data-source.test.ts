import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { DataSourceSchema, type DataSource } from '../../../shared/config/task-config.ts';
import { encodeIdxImages, encodeIdxLabels } from '../../../shared/datasets/idx.ts';
import { labelHistogram } from '../../../shared/datasets/partition.ts';
import { syntheticExamples } from '../../../shared/datasets/synthetic.ts';
import { FederationError } from '../../../shared/errors.ts';
import { loadDataSource, parseDataArgument, readDataArgument, writeIdxFolder } from '../../../shared/node/data-source.ts';
import { selectLabelled } from '../../../shared/types/matrix.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'fedstill-data-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));
afterEach(() => {
  delete process.env['FEDSTILL_FASHION_MNIST'];
});

const mnist = { exampleShape: [28, 28, 1], numClasses: 10, needLabels: true };
const small = { exampleShape: [3, 2, 1], numClasses: 4, needLabels: true };
const data = syntheticExamples({ size: 12, seed: 1, centerSeed: 1, exampleShape: [3, 2, 1], numClasses: 4 });
const images = encodeIdxImages(data.examples);
const labels = encodeIdxLabels(data.labels);

async function folder(name: string, files: Readonly<Record<string, Uint8Array | string>>): Promise<string> {
  const path = join(dir, name);
  await mkdir(path, { recursive: true });
  for (const [file, content] of Object.entries(files)) await writeFile(join(path, file), content);
  return path;
}

/** The FederationError a promise rejects with. */
async function refusal(promise: Promise<unknown>): Promise<FederationError> {
  const error: unknown = await promise.then(() => undefined, (reason: unknown) => reason);
  expect(error).toBeInstanceOf(FederationError);
  return error as FederationError;
}

const idx = (path: string, rest: object = {}) => DataSourceSchema.parse({ source: 'idx', path, ...rest });

describe('MNIST', () => {
  it('is the real thing: 60,000 and 10,000 digits with the published class counts', async () => {
    const train = await loadDataSource(parseDataArgument('mnist'), { baseDir: dir, ...mnist });
    expect(train.examples.count).toBe(60_000);
    expect(train.examples.shape).toEqual([28, 28, 1]);
    expect(train.examples.values).toHaveLength(60_000 * 784);
    expect([...train.labels!.slice(0, 5)]).toEqual([5, 0, 4, 1, 9]);
    expect([...labelHistogram(train.labels!, 10)]).toEqual([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    // The mean and standard deviation that everyone normalizes MNIST by.
    const mean = train.examples.values.reduce((sum, value) => sum + value, 0) / train.examples.values.length;
    expect(mean).toBeCloseTo(0.1307, 4);
    const test = await loadDataSource(parseDataArgument('mnist:test'), { baseDir: dir, ...mnist });
    expect(test.examples.count).toBe(10_000);
    expect(test.labels![0]).toBe(7);
  });

  it('gives a part of it, without labels when none are needed', async () => {
    const part = await loadDataSource(DataSourceSchema.parse({ source: 'mnist', offset: 1000, size: 50 }), { baseDir: dir, ...mnist, needLabels: false });
    expect(part.examples.count).toBe(50);
    expect(part.labels).toBeUndefined();
    const whole = await loadDataSource(DataSourceSchema.parse({ source: 'mnist', size: 1050 }), { baseDir: dir, ...mnist });
    expect(part.examples.values).toEqual(whole.examples.values.slice(1000 * 784));
  });

  it('refuses another shape, too few classes, and more than there is', async () => {
    const load = (source: object, options: object) => refusal(loadDataSource(DataSourceSchema.parse({ source: 'mnist', split: 'test', ...source }), { baseDir: dir, ...mnist, ...options }));
    expect(await load({}, { exampleShape: [32, 32, 3] })).toMatchObject({ code: 'data-invalid', got: '[28, 28]' });
    expect(await load({}, { numClasses: 9 })).toMatchObject({ code: 'data-invalid', got: '9' });
    expect(await load({ size: 10_001 }, {})).toMatchObject({ code: 'data-invalid', got: '10000' });
  });
});

describe('Fashion-MNIST', () => {
  it('is read from gzipped IDX files where FEDSTILL_FASHION_MNIST points', async () => {
    const path = await folder('fashion', {
      'train-images-idx3-ubyte.gz': gzipSync(images), 'train-labels-idx1-ubyte.gz': gzipSync(labels),
      't10k-images-idx3-ubyte.gz': gzipSync(images), 't10k-labels-idx1-ubyte.gz': gzipSync(encodeIdxLabels(new Int32Array(12).fill(3))),
    });
    process.env['FEDSTILL_FASHION_MNIST'] = path;
    const train = await loadDataSource(parseDataArgument('fashion-mnist'), { baseDir: dir, ...small });
    expect(train.labels).toEqual(data.labels);
    const test = await loadDataSource(parseDataArgument('fashion-mnist:test'), { baseDir: dir, ...small });
    expect([...test.labels!]).toEqual(Array(12).fill(3));
  });

  it('says how to install it when it is missing', async () => {
    process.env['FEDSTILL_FASHION_MNIST'] = join(dir, 'nowhere');
    const error = await refusal(loadDataSource(parseDataArgument('fashion-mnist'), { baseDir: dir, ...mnist }));
    expect(error.code).toBe('file-unreadable');
    expect(error.next).toContain('apt-get install dataset-fashion-mnist');
  });
});

describe('IDX folders', () => {
  it('come back as they were written, up to 255ths', async () => {
    await writeIdxFolder(join(dir, 'deep', 'written'), data);
    const back = await loadDataSource(idx('deep/written'), { baseDir: dir, ...small });
    expect(back.labels).toEqual(data.labels);
    expect(back.examples.shape).toEqual([3, 2, 1]);
    expect(Math.max(...back.examples.values.map((value, i) => Math.abs(value - data.examples.values[i]!)))).toBeLessThanOrEqual(0.5 / 255 + 1e-6);
    // A second trip changes nothing.
    await writeIdxFolder(join(dir, 'again'), { ...data, examples: back.examples });
    expect((await loadDataSource(idx('again'), { baseDir: dir, ...small })).examples).toEqual(back.examples);
    await writeIdxFolder(join(dir, 'part'), selectLabelled(data, [7, 3]));
    expect((await loadDataSource(idx('part'), { baseDir: dir, ...small })).labels).toEqual(data.labels.filter((_, i) => i === 7 || i === 3).reverse());
  });

  it('prefer the files of the split and never take those of the other one', async () => {
    const two = encodeIdxLabels(new Int32Array(12).fill(2));
    await folder('both', { 'train-images': images, 'train-labels': labels, 'test-images': images, 'test-labels': two, 'notes.txt': 'x' });
    expect((await loadDataSource(idx('both'), { baseDir: dir, ...small })).labels).toEqual(data.labels);
    expect([...(await loadDataSource(idx('both', { split: 'test' }), { baseDir: dir, ...small })).labels!]).toEqual(Array(12).fill(2));
    await folder('only-train', { 'train-images': images, 'train-labels': labels });
    const error = await refusal(loadDataSource(idx('only-train', { split: 'test' }), { baseDir: dir, ...small }));
    expect(error.code).toBe('file-unreadable');
    expect(error.message).toContain('test split');
  });

  it('need no labels file for a transfer set, and prefer the unpacked file', async () => {
    await folder('unlabelled', { 'images-idx3-ubyte': images, 'images-idx3-ubyte.gz': 'not gzip' });
    expect((await loadDataSource(idx('unlabelled'), { baseDir: dir, ...small, needLabels: false })).examples.count).toBe(12);
    expect((await refusal(loadDataSource(idx('unlabelled'), { baseDir: dir, ...small }))).message).toContain('labels');
  });

  it('are refused when ambiguous, when counts differ, and when gzip data is broken', async () => {
    await folder('ambiguous', { 'a-images': images, 'b-images': images, labels });
    expect(await refusal(loadDataSource(idx('ambiguous'), { baseDir: dir, ...small }))).toMatchObject({ code: 'data-invalid', got: 'a-images, b-images' });
    await folder('counts', { images, labels: encodeIdxLabels(data.labels.slice(1)) });
    expect(await refusal(loadDataSource(idx('counts'), { baseDir: dir, ...small }))).toMatchObject({ code: 'data-invalid', expected: '12', got: '11' });
    await folder('broken', { 'images.gz': gzipSync(images).subarray(0, 30), labels });
    expect(await refusal(loadDataSource(idx('broken'), { baseDir: dir, ...small }))).toMatchObject({ code: 'data-invalid', expected: 'gzip data' });
    await folder('truncated', { images: images.subarray(0, -1), labels });
    expect((await refusal(loadDataSource(idx('truncated'), { baseDir: dir, ...small }))).message).toContain('cut off');
  });

  it('give file-unreadable for a missing folder, a file in its place, and a folder where a file should be', async () => {
    await folder('kinds', { 'file.txt': 'x', labels });
    await mkdir(join(dir, 'kinds', 'table.csv'));
    for (const source of [idx('missing'), idx('kinds/file.txt'), parseDataArgument('kinds/table.csv#y'), parseDataArgument('missing.csv#y')]) {
      const error = await refusal(loadDataSource(source, { baseDir: dir, ...small }));
      expect(error.code).toBe('file-unreadable');
      expect(error.next).toBeTruthy();
    }
  });

  it('give file-unreadable for a file without read permission', async () => {
    const path = join(await folder('locked', { 'table.csv': 'a,y\n1,0\n' }), 'table.csv');
    await chmod(path, 0);
    // Root reads everything: there the file loads, and the same call must then give its one example.
    const outcome = await loadDataSource(parseDataArgument('locked/table.csv#y'), { baseDir: dir, exampleShape: [1], numClasses: 2, needLabels: true }).catch((error: unknown) => error);
    if (process.getuid?.() === 0) expect(outcome).toMatchObject({ labels: Int32Array.of(0) });
    else expect(outcome).toMatchObject({ code: 'file-unreadable', got: 'no permission to read it' });
  });

  it('are not written with values that bytes cannot hold', async () => {
    const values = data.examples.values.map((value) => value * 2);
    expect((await refusal(writeIdxFolder(join(dir, 'never'), { ...data, examples: { ...data.examples, values } }))).code).toBe('data-invalid');
    await folder('blocked', { file: 'x' });
    expect((await refusal(writeIdxFolder(join(dir, 'blocked', 'file', 'sub'), data))).code).toBe('file-unreadable');
    expect(await readFile(join(dir, 'blocked', 'file'), 'utf8')).toBe('x');
  });
});

describe('CSV and synthetic sources', () => {
  it('load with and without labels', async () => {
    await folder('tables', { 'a.csv': 'x,y\n0.5,1\n0.25,0\n', 'names.csv': 'x,y\n1,no\n2,yes\n' });
    const options = { baseDir: join(dir, 'tables'), exampleShape: [1], numClasses: 2, needLabels: true };
    expect(await loadDataSource(parseDataArgument('a.csv#y'), options)).toEqual({ examples: { count: 2, shape: [1], values: Float32Array.of(0.5, 0.25) }, labels: Int32Array.of(1, 0) });
    expect((await loadDataSource(parseDataArgument('a.csv#y'), { ...options, needLabels: false })).labels).toBeUndefined();
    expect((await loadDataSource({ ...parseDataArgument('names.csv#y'), classNames: ['no', 'yes'] } as DataSource, options)).labels).toEqual(Int32Array.of(0, 1));
    expect(await refusal(loadDataSource(parseDataArgument('a.csv'), options))).toMatchObject({ code: 'data-invalid', field: 'labelColumn' });
    expect((await refusal(loadDataSource(parseDataArgument('a.csv#z'), options))).message).toContain('columns "x, y"');
    await writeFile(join(dir, 'tables', 'latin1.csv'), Buffer.from('é,y\n1,0\n', 'latin1'));
    expect(await refusal(loadDataSource(parseDataArgument('latin1.csv#y'), options))).toMatchObject({ code: 'data-invalid', expected: 'UTF-8 text' });
    expect(await loadDataSource(parseDataArgument('synthetic:12:1'), { baseDir: dir, ...small, needLabels: false })).toMatchObject({ examples: { count: 12 }, labels: undefined });
  });
});

describe('parseDataArgument', () => {
  it.each<[string, object]>([
    ['mnist', { source: 'mnist', split: 'train', offset: 0 }],
    ['mnist:test', { source: 'mnist', split: 'test', offset: 0 }],
    ['fashion-mnist:train', { source: 'fashion-mnist', split: 'train', offset: 0 }],
    ['data/ward 7', { source: 'idx', path: 'data/ward 7', split: 'train', offset: 0 }],
    ['./mnist', { source: 'idx', path: './mnist', split: 'train', offset: 0 }],
    ['data/a.b/file.csv#label column', { source: 'csv', path: 'data/a.b/file.csv', labelColumn: 'label column', offset: 0 }],
    ['FILE.CSV', { source: 'csv', path: 'FILE.CSV', offset: 0 }],
    ['synthetic', { source: 'synthetic', size: 1000, seed: 0, centerSeed: 0 }],
    ['synthetic:64', { source: 'synthetic', size: 64, seed: 0, centerSeed: 0 }],
    ['synthetic:64:7', { source: 'synthetic', size: 64, seed: 7, centerSeed: 0 }],
  ])('reads %s', (text, source) => {
    expect(parseDataArgument(text)).toEqual(source);
  });

  it.each(['', '  ', 'mnist:validation', 'mnist:', 'mnist:test:3', 'synthetic:', 'synthetic:0', 'synthetic:many', 'synthetic:1:2:3', 'synthetic:1:-1', 'synthetic:1:4294967296', 'synthetic:1e3', 'file.csv#', 'a\0b'])('refuses %j', (text) => {
    try {
      parseDataArgument(text);
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({ code: 'usage-invalid', field: '--data' });
    }
  });
});

describe('texts', () => {
  const shape = { baseDir: '.', exampleShape: [64], numClasses: 2, needLabels: true };
  const parse = (source: object) => DataSourceSchema.parse(source);

  it('come from files by their endings, unpacked where they are packed, with labels or names of classes', async () => {
    const content = 'label\ttext\nham\tsee you at one\nspam\tWIN a prize!!!\n';
    await folder('texts', { 'a.tsv': content, 'a.tsv.gz': gzipSync(content), 'a.jsonl': '{"label":"ham","text":"see you at one"}\n{"label":"spam","text":"WIN a prize!!!"}\n', 'a.csv': 'label,text\n0,see you at one\n1,WIN a prize!!!\n', 'a.txt': 'x' });
    const options = { ...shape, baseDir: join(dir, 'texts') };
    const classNames = ['ham', 'spam'];
    const first = await loadDataSource(parse({ source: 'text', path: 'a.tsv', classNames }), options);
    expect(first.labels).toEqual(Int32Array.of(0, 1));
    expect(first.examples.shape).toEqual([64]);
    for (const [path, names] of [['a.tsv.gz', classNames], ['a.jsonl', classNames], ['a.csv', undefined]] as const) expect(await loadDataSource(parse({ source: 'text', path, classNames: names }), options)).toEqual(first);
    expect((await loadDataSource(parse({ source: 'text', path: 'a.tsv' }), { ...options, needLabels: false })).labels).toBeUndefined();
    expect(await refusal(loadDataSource(parse({ source: 'text', path: 'a.txt' }), options))).toMatchObject({ code: 'data-invalid', expected: expect.stringContaining('.jsonl') as string });
    expect(await refusal(loadDataSource(parse({ source: 'text', path: 'a.tsv', classNames: ['a', 'b', 'c'] }), options))).toMatchObject({ code: 'data-invalid', field: 'classNames', expected: '2 names' });
  });

  it('that are no UTF-8 are refused with the line, and nothing of it', async () => {
    await folder('bytes', { 'latin1.tsv': Buffer.from('label\ttext\n0\tfine\n1\tcafé secret\n', 'latin1') });
    const error = await refusal(loadDataSource(parse({ source: 'text', path: 'latin1.tsv' }), { ...shape, baseDir: join(dir, 'bytes') }));
    expect(error).toMatchObject({ code: 'data-invalid', expected: 'UTF-8 text', next: 'Save the file as UTF-8.' });
    expect(error.field).toMatch(/latin1\.tsv: line 3$/);
    expect(error.message).not.toContain('secret');
  });

  it('of real e-mails: two thirds wanted, one third spam, in the same order each time, none twice', async () => {
    const load = (source: object, options: object = {}) => loadDataSource(parse({ source: 'spam-assassin', features: 'surface', ...source }), { ...shape, exampleShape: [16], ...options });
    const all = await load({});
    // Of 6046 messages, 4150 of them wanted, without copies.
    expect([all.examples.count, all.labels!.filter((label) => label === 0).length]).toEqual([5932, 4111]);
    const part = await load({ offset: 1000, size: 500 });
    expect(part.examples.values).toEqual(all.examples.values.slice(16_000, 24_000));
    const wanted = part.labels!.filter((label) => label === 0).length / 500;
    expect(wanted).toBeGreaterThan(0.6);
    expect(wanted).toBeLessThan(0.75);
    expect((await load({ size: 10 }, { needLabels: false })).labels).toBeUndefined();
    expect(await refusal(load({}, { numClasses: 3 }))).toMatchObject({ code: 'data-invalid', field: 'data.numClasses' });
    expect(await refusal(load({ offset: 6000, size: 100 }))).toMatchObject({ code: 'data-invalid' });
  });
});

describe('files that describe data', () => {
  it('have every key of a source, with paths relative to the file', async () => {
    const path = await folder('described', { 'mine.yaml': 'data:\n  source: csv\n  path: table.csv\n  labelColumn: y\n  classNames: [no, yes]\n  columns:\n    - { kind: number, name: a, mean: 1, scale: 2 }\n', 'table.csv': 'id,a,y\n7,5,yes\n', 'bad.yaml': 'data: { source: csv, path: table.csv, labelcolumn: y }' });
    const source = await readDataArgument(join(path, 'mine.yaml'));
    expect(source).toMatchObject({ source: 'csv', path: join(path, 'table.csv') });
    expect(await loadDataSource(source, { baseDir: '/', exampleShape: [1], numClasses: 2, needLabels: true })).toEqual({ examples: { count: 1, shape: [1], values: Float32Array.of(2) }, labels: Int32Array.of(1) });
    expect((await refusal(readDataArgument(join(path, 'bad.yaml')))).message).toContain('did you mean `labelColumn`?');
    expect((await refusal(readDataArgument(join(path, 'gone.yaml')))).code).toBe('file-unreadable');
    expect(await readDataArgument('mnist:test')).toEqual(parseDataArgument('mnist:test'));
    expect(parseDataArgument('mail.jsonl#kind')).toMatchObject({ source: 'text', path: 'mail.jsonl', labelColumn: 'kind' });
    expect(parseDataArgument('spam-assassin')).toMatchObject({ source: 'spam-assassin', features: 'hashedNgrams' });
  });

  it('look as docs/data.md shows them', async () => {
    const page = await readFile(new URL('../../../docs/data.md', import.meta.url), 'utf8');
    const [, example] = /```yaml\n([^]*?)```/.exec(page)!;
    const path = await folder('from-docs', { 'mine.yaml': example!, 'station-1.csv': 'bill_length_mm,island,species\n43.8604,Dream,Gentoo\n,Biscoe,Adelie\n' });
    const { examples, labels } = await loadDataSource(await readDataArgument(join(path, 'mine.yaml')), { baseDir: '/', exampleShape: [4], numClasses: 3, needLabels: true });
    expect([...examples.values]).toEqual([0, 1, 0, 0, 1, 0, 0, 0]);
    expect([...labels!]).toEqual([2, 0]);
  });
});
