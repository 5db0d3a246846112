import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SavedModel } from '../../../shared/compute/engine.ts';
import { selectEngine } from '../../../shared/compute/select-engine.ts';
import { readLayersModel, writeLayersModel } from '../../../shared/node/layers-model-files.ts';

const saved: SavedModel = {
  topology: { class_name: 'Sequential', config: { name: 'tiny', layers: [] } },
  weightSpecs: [
    { name: 'dense/kernel', shape: [2, 3], dtype: 'float32' },
    { name: 'dense/bias', shape: [3], dtype: 'int32' },
  ],
  weights: Uint8Array.from({ length: 36 }, (_, i) => i),
};

describe('LayersModel files', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fedstill-model-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  const problem = (code: string, field?: string) => expect.objectContaining({ name: 'FederationError', code, ...(field === undefined ? {} : { field }) }) as unknown;

  async function editModelJson(edit: (json: ModelJson) => void): Promise<void> {
    const path = join(folder, 'model.json');
    const json = JSON.parse(await readFile(path, 'utf8')) as ModelJson;
    edit(json);
    await writeFile(path, JSON.stringify(json));
  }
  interface ModelJson {
    format?: string;
    modelTopology?: unknown;
    weightsManifest: { paths: string[]; weights: { name: string; shape: number[]; dtype: string; group?: string; quantization?: unknown }[] }[];
  }

  it('reads what it wrote, from the folder or its model.json, and writes over it', async () => {
    await writeLayersModel(join(folder, 'new/model'), saved);
    await writeLayersModel(join(folder, 'new/model'), saved);
    expect(await readLayersModel(join(folder, 'new/model'))).toEqual(saved);
    expect(await readLayersModel(join(folder, 'new/model/model.json'))).toEqual(saved);
  });

  it('carries a trained model: it predicts the same afterwards', async () => {
    const engine = await selectEngine('tfjs-cpu');
    const examples = { count: 1, shape: [6, 6, 1], values: Float32Array.from({ length: 36 }, (_, i) => Math.sin(i)) };
    const model = await engine.open({ kind: 'zoo', name: 'cnn-small', exampleShape: [6, 6, 1], numClasses: 3 }, 2);
    await writeLayersModel(folder, await model.save());
    const copy = await engine.open({ kind: 'layersModel', artifacts: await readLayersModel(folder), outputKind: 'logits' }, 0);
    expect(await copy.predict(examples)).toEqual(await model.predict(examples));
    await engine.dispose();
  });

  it('joins shards and skips optimizer state', async () => {
    await writeLayersModel(folder, saved);
    await writeFile(join(folder, 'group1-shard1of2'), saved.weights.slice(0, 7));
    await writeFile(join(folder, 'group1-shard2of2'), saved.weights.slice(7, 24));
    await writeFile(join(folder, 'rest'), Buffer.concat([Buffer.alloc(8), saved.weights.slice(24)]));
    await editModelJson((json) => {
      const [kernel, bias] = json.weightsManifest[0]!.weights as [ModelJson['weightsManifest'][0]['weights'][0], ModelJson['weightsManifest'][0]['weights'][0]];
      json.weightsManifest = [
        { paths: ['group1-shard1of2', 'group1-shard2of2'], weights: [kernel] },
        { paths: ['rest'], weights: [{ name: 'm', shape: [2], dtype: 'float32', group: 'optimizer' }, bias] },
      ];
    });
    expect(await readLayersModel(folder)).toEqual(saved);
  });

  it('finds weights that a browser has named ./NAME', async () => {
    await writeLayersModel(folder, saved);
    await editModelJson((json) => (json.weightsManifest[0]!.paths = ['./weights.bin']));
    expect(await readLayersModel(folder)).toEqual(saved);
  });

  it('says what is unreadable: no folder, a missing shard', async () => {
    await expect(readLayersModel(join(folder, 'nowhere'))).rejects.toEqual(problem('file-unreadable'));
    await writeLayersModel(folder, saved);
    await rm(join(folder, 'weights.bin'));
    await expect(readLayersModel(folder)).rejects.toEqual(problem('file-unreadable', join(folder, 'weights.bin')));
  });

  it('says what is wrong with a model: truncated or long shard', async () => {
    await writeLayersModel(folder, saved);
    await writeFile(join(folder, 'weights.bin'), saved.weights.slice(1));
    await expect(readLayersModel(folder)).rejects.toMatchObject({ code: 'model-invalid', expected: '36 bytes', got: '35 bytes' });
    await writeFile(join(folder, 'weights.bin'), new Uint8Array(37));
    await expect(readLayersModel(folder)).rejects.toMatchObject({ code: 'model-invalid', got: '37 bytes' });
  });

  const edits: Record<string, [(json: ModelJson) => void, string?]> = {
    'a graph model': [(json) => (json.format = 'graph-model'), 'format'],
    'no topology': [(json) => delete json.modelTopology],
    'an unsupported type': [(json) => (json.weightsManifest[0]!.weights[1]!.dtype = 'bool'), 'weights.dense/bias.dtype'],
    'quantized weights': [(json) => (json.weightsManifest[0]!.weights[0]!.quantization = { dtype: 'uint8' }), 'weights.dense/kernel.dtype'],
    'a weight file outside the folder': [(json) => (json.weightsManifest[0]!.paths = ['../weights.bin']), 'weightsManifest.paths'],
    'a huge weight, before anything is read': [(json) => (json.weightsManifest[0]!.weights[0]!.shape = [2 ** 20, 2 ** 20]), 'weightsManifest'],
    'a negative size': [(json) => (json.weightsManifest[0]!.weights[0]!.shape = [-1, 3])],
  };
  for (const [what, [edit, field]] of Object.entries(edits)) {
    it(`refuses ${what}`, async () => {
      await writeLayersModel(folder, saved);
      await editModelJson(edit);
      await expect(readLayersModel(folder)).rejects.toEqual(problem('model-invalid', field));
    });
  }

  it('refuses what is not JSON', async () => {
    await writeFile(join(folder, 'model.json'), '{"modelTopology":');
    await expect(readLayersModel(folder)).rejects.toEqual(problem('model-invalid'));
  });

  it('says when it cannot write', async () => {
    await writeFile(join(folder, 'file'), '');
    await expect(writeLayersModel(join(folder, 'file'), saved)).rejects.toEqual(problem('file-unreadable'));
  });
});
