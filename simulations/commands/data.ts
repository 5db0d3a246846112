/**
 * `fedstill data split`: cuts a labelled data set into one folder a client, as if each had been collected by another owner.
 * `fedstill data columns`: how the columns of a public table can become features.
 */
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { stringify } from 'yaml';
import { PartitionSchema, type PartitionSpec } from '../../shared/config/partition-config.ts';
import type { DataSource } from '../../shared/config/task-config.ts';
import { fitColumns } from '../../shared/datasets/fit-columns.ts';
import { labelHistogram, partition } from '../../shared/datasets/partition.ts';
import { FederationError } from '../../shared/errors.ts';
import { loadDataSource, readDataArgument, writeIdxFolder } from '../../shared/node/data-source.ts';
import { readText } from '../../shared/node/source-files.ts';
import { selectLabelled, type LabelledExamples } from '../../shared/types/matrix.ts';

export interface SplitOptions {
  readonly clients: number;
  readonly partition: PartitionSpec;
  readonly seed: number;
  readonly out: string;
}

/** One folder a client, with how many examples of each class it holds. */
export interface ClientFolder {
  readonly directory: string;
  readonly examples: number;
  readonly classHistogram: readonly number[];
}

/** Writes `out/client-1`, `out/client-2`, ... as IDX folders. */
export async function splitData(data: LabelledExamples, options: SplitOptions): Promise<ClientFolder[]> {
  const parts = partition(data.labels, data.numClasses, options.partition, options.clients, options.seed);
  const folders: ClientFolder[] = [];
  for (const [index, part] of parts.entries()) {
    const directory = join(options.out, `client-${index + 1}`);
    await writeIdxFolder(directory, selectLabelled(data, part));
    folders.push({ directory, examples: part.length, classHistogram: [...labelHistogram(data.labels, data.numClasses, part)] });
  }
  return folders;
}

function positiveInteger(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a whole number of at least 1');
  return value;
}

/** `iid`, `dirichlet:0.5`, `shards:2`, `quantity:0.5`. */
function parsePartition(text: string): PartitionSpec {
  const [kind, value] = text.split(':');
  const number = value === undefined ? undefined : Number(value);
  const spec = kind === 'shards' ? { kind, classesPerClient: number } : kind === 'iid' ? { kind } : { kind, alpha: number };
  const parsed = PartitionSchema.safeParse(spec);
  if (parsed.success) return parsed.data;
  throw new InvalidArgumentError('expected iid, dirichlet:ALPHA, shards:CLASSES_PER_CLIENT or quantity:ALPHA');
}

interface SplitCommandOptions {
  readonly clients: number;
  readonly partition: PartitionSpec;
  readonly seed: string;
  readonly out: string;
  readonly offset: string;
  readonly size?: number;
  readonly numClasses: number;
  readonly shape: string;
  readonly json: boolean;
}

export function dataCommand(): Command {
  const data = new Command('data').description('prepare data folders');
  data
    .command('split')
    .description('cut a labelled data set into one IDX folder a client')
    .argument('<source>', 'mnist, fashion-mnist, an IDX folder, FILE.csv#LABELCOLUMN or synthetic')
    .requiredOption('--clients <n>', 'how many folders', positiveInteger)
    .requiredOption('--out <dir>', 'where to make client-1, client-2, ...')
    .option('--partition <kind>', 'iid, dirichlet:ALPHA, shards:CLASSES_PER_CLIENT or quantity:ALPHA', parsePartition, { kind: 'iid' } as PartitionSpec)
    .option('--offset <n>', 'first example used', '0')
    .option('--size <n>', 'how many examples in all (default: all)', positiveInteger)
    .option('--num-classes <n>', 'number of classes', positiveInteger, 10)
    .option('--shape <sides>', 'shape of one example', '28,28,1')
    .option('--seed <n>', 'seed of the split', '1')
    .option('--json', 'one JSON object a line', false)
    .action(async (source: string, options: SplitCommandOptions) => {
      const offset = Number(options.offset);
      const seed = Number(options.seed);
      const exampleShape = options.shape.split(',').map(Number);
      if (!Number.isInteger(offset) || offset < 0) throw new FederationError('usage-invalid', 'The offset is not usable.', { field: '--offset', expected: 'a whole number of at least 0', got: options.offset, next: 'All options: fedstill data split --help' });
      if (!Number.isInteger(seed) || seed < 0 || seed > 0xffff_ffff) throw new FederationError('usage-invalid', 'The seed is not usable.', { field: '--seed', expected: 'a whole number from 0 to 4294967295', got: options.seed, next: 'All options: fedstill data split --help' });
      if (!exampleShape.every((side) => Number.isInteger(side) && side > 0)) throw new FederationError('usage-invalid', 'The shape is not usable.', { field: '--shape', expected: 'sides like 28,28,1', got: options.shape, next: 'All options: fedstill data split --help' });
      const parsed = await readDataArgument(source);
      const selected: DataSource = parsed.source === 'synthetic' ? { ...parsed, ...(options.size === undefined ? {} : { size: options.size }) } : { ...parsed, offset, ...(options.size === undefined ? {} : { size: options.size }) };
      const { examples, labels } = await loadDataSource(selected, { baseDir: process.cwd(), exampleShape, numClasses: options.numClasses, needLabels: true });
      const folders = await splitData({ examples, labels: labels!, numClasses: options.numClasses }, { clients: options.clients, partition: options.partition, seed, out: options.out });
      for (const folder of folders) {
        process.stdout.write(options.json ? `${JSON.stringify(folder)}\n` : `${folder.directory}: ${folder.examples} examples, by class ${folder.classHistogram.join(' ')}\n`);
      }
    });
  data
    .command('columns')
    .description('print a `columns` section for a CSV file: means and scales of its numbers, values of its categories. For a PUBLIC file: what is printed goes into the task, for all to see, and tells about every row')
    .argument('<file>', 'a public CSV file with a header')
    .option('--without <names...>', 'headers of columns that are no features: the label, row numbers, names', [])
    .option('--json', 'one JSON object', false)
    .action(async (file: string, { without, json }: { readonly without: readonly string[]; readonly json: boolean }) => {
      const columns = fitColumns(await readText(file), { fileName: file, without });
      const width = columns.reduce((sum, column) => sum + (column.kind === 'number' ? 1 : column.values.length), 0);
      if (json) process.stdout.write(`${JSON.stringify({ exampleShape: [width], columns })}\n`);
      else process.stdout.write(`# data.exampleShape: [${width}]\ncolumns:\n${columns.map((column) => `  - ${stringify(column, { collectionStyle: 'flow', lineWidth: 0 })}`).join('')}`);
    });
  return data;
}
