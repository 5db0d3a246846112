/**
 * A saved TF.js LayersModel on disk: a folder with `model.json` and weight shards, as `model.save('file://...')` of
 * tfjs-node writes it and `tf.loadLayersModel` reads it. No tensor library is needed.
 *
 * Format: "layers-model" of TensorFlow.js (tfjs-core `io/types.ts`, `ModelJSON`). Not read: graph models, quantized
 * weights, optimizer state (skipped).
 */
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import type { SavedModel } from '../compute/engine.ts';
import { FederationError } from '../errors.ts';

/** Largest `model.json`, in bytes: topologies are a few kilobytes. */
const maxModelJsonBytes = 16 * 1024 * 1024;
/** Largest sum of all weight shards, in bytes. */
const maxWeightBytes = 1024 * 1024 * 1024;

const WeightSchema = z.looseObject({
  name: z.string().min(1),
  shape: z.array(z.int().min(0).max(2 ** 31)).max(8),
  dtype: z.string(),
  quantization: z.unknown().optional(),
  /** `optimizer` marks optimizer state that was saved along. */
  group: z.string().optional(),
});

const ModelJsonSchema = z.looseObject({
  format: z.string().optional(),
  modelTopology: z.record(z.string(), z.unknown()),
  weightsManifest: z.array(z.looseObject({ paths: z.array(z.string().min(1)), weights: z.array(WeightSchema) })),
});

type WeightEntry = z.infer<typeof WeightSchema>;

/**
 * Reads a model. `path` is the folder or its `model.json`. Throws `file-unreadable` for a file that can't be read, and
 * `model-invalid` for one that isn't such a model.
 */
export async function readLayersModel(path: string): Promise<SavedModel> {
  const file = basename(path).endsWith('.json') ? path : join(path, 'model.json');
  const { modelTopology, weightsManifest } = parseModelJson(await readBounded(file, maxModelJsonBytes), file);
  const total = weightsManifest.flatMap((group) => group.weights).reduce((bytes, weight) => bytes + weightBytes(weight, file), 0);
  if (total > maxWeightBytes) {
    throw new FederationError('model-invalid', `The model ${file} has more weights than are read.`, { field: 'weightsManifest', expected: `at most ${maxWeightBytes} bytes`, got: `${total} bytes` });
  }
  const kept: { readonly entry: WeightEntry; readonly bytes: Uint8Array }[] = [];
  for (const group of weightsManifest) {
    const bytes = await readShards(group, file);
    let offset = 0;
    for (const entry of group.weights) {
      const end = offset + weightBytes(entry, file);
      if (entry.group !== 'optimizer') kept.push({ entry, bytes: bytes.subarray(offset, end) });
      offset = end;
    }
  }
  return {
    topology: modelTopology,
    weightSpecs: kept.map(({ entry: { name, shape, dtype } }) => ({ name, shape, dtype: dtype as 'float32' | 'int32' })),
    weights: new Uint8Array(Buffer.concat(kept.map(({ bytes }) => bytes))),
  };
}

/**
 * Writes a model into a folder, which is made when missing; a model that is there is replaced. `model.json` comes last
 * and in one piece, so that a folder with a new `model.json` is complete. Throws `disk-full` or `file-unreadable`.
 */
export async function writeLayersModel(folder: string, saved: SavedModel): Promise<void> {
  const manifest = [{ paths: ['weights.bin'], weights: saved.weightSpecs }];
  const modelJson = { modelTopology: saved.topology, format: 'layers-model', generatedBy: 'fedstill', convertedBy: null, weightsManifest: manifest };
  try {
    await mkdir(folder, { recursive: true });
    await writeWhole(join(folder, 'weights.bin'), saved.weights);
    await writeWhole(join(folder, 'model.json'), JSON.stringify(modelJson));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    if (code === 'ENOSPC' || code === 'EDQUOT') throw new FederationError('disk-full', `There is no space left for the model in ${folder}.`, { field: folder, next: 'Free some space and try again.', cause: error });
    throw new FederationError('file-unreadable', `The model cannot be written to ${folder} (${code}).`, { field: folder, expected: 'a folder that can be written', got: code, next: 'Check the path and its permissions.', cause: error });
  }
}

async function writeWhole(path: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${path}.tmp`;
  await writeFile(temporary, content);
  await rename(temporary, path);
}

function parseModelJson(bytes: Uint8Array, file: string): z.infer<typeof ModelJsonSchema> {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new FederationError('model-invalid', `The file ${file} is not JSON.`, { field: file, expected: 'the model.json of a saved LayersModel', got: 'something that is not JSON', cause: error });
  }
  const format = typeof json === 'object' && json !== null && 'format' in json ? json.format : undefined;
  if (format !== undefined && format !== 'layers-model') {
    throw new FederationError('model-invalid', `The model ${file} is not a LayersModel.`, {
      field: 'format',
      expected: 'layers-model',
      got: JSON.stringify(format),
      next: 'Save the Keras or TF.js model as a LayersModel: a graph model has no layers to train.',
    });
  }
  const parsed = ModelJsonSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new FederationError('model-invalid', `The file ${file} is not the model.json of a saved LayersModel: ${issue.path.join('.') || 'the file'}: ${issue.message}.`, { field: issue.path.join('.'), expected: 'modelTopology and weightsManifest', got: issue.message });
  }
  return parsed.data;
}

/** Bytes of one weight. Throws `model-invalid` for a type that is not supported. */
function weightBytes({ name, shape, dtype, quantization }: WeightEntry, file: string): number {
  const supported = (dtype === 'float32' || dtype === 'int32') && quantization === undefined;
  if (!supported) {
    throw new FederationError('model-invalid', `A weight of the model ${file} has a type that is not supported.`, {
      field: `weights.${name}.dtype`,
      expected: 'float32 or int32, not quantized',
      got: quantization === undefined ? dtype : `${dtype}, quantized`,
      next: 'Save the model again without quantization.',
    });
  }
  return 4 * shape.reduce((product, side) => product * side, 1);
}

async function readShards(group: { readonly paths: readonly string[]; readonly weights: readonly WeightEntry[] }, file: string): Promise<Uint8Array> {
  const expected = group.weights.reduce((bytes, weight) => bytes + weightBytes(weight, file), 0);
  const shards: Uint8Array[] = [];
  let length = 0;
  for (const named of group.paths) {
    // A model names files beside itself, never elsewhere on the machine; browsers write them as `./NAME`.
    const path = named.replace(/^\.\//, '');
    if (basename(path) !== path || path === '.' || path === '..' || path.includes('\\')) {
      throw new FederationError('model-invalid', `The model ${file} names a weight file outside its folder.`, { field: 'weightsManifest.paths', expected: 'plain file names', got: named, next: 'Put the weight files beside model.json.' });
    }
    const shard = await readBounded(join(dirname(file), path), expected - length);
    shards.push(shard);
    length += shard.length;
  }
  if (length !== expected) {
    throw new FederationError('model-invalid', `The weight files of ${file} are too short: one is truncated or missing from the manifest.`, { field: 'weightsManifest', expected: `${expected} bytes`, got: `${length} bytes`, next: 'Copy the model folder again.' });
  }
  return Buffer.concat(shards);
}

/** All bytes of a file of at most `limit` bytes. */
async function readBounded(path: string, limit: number): Promise<Uint8Array> {
  let size: number;
  try {
    size = (await stat(path)).size;
    if (size <= limit) return await readFile(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    throw new FederationError('file-unreadable', `The file ${path} cannot be read (${code}).`, { field: path, expected: 'a file that can be read', got: code, next: 'Check the path; a model is a folder with model.json and its weight files.', cause: error });
  }
  throw new FederationError('model-invalid', `The file ${path} is larger than it should be.`, { field: path, expected: `at most ${limit} bytes`, got: `${size} bytes` });
}
