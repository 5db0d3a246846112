import { execFileSync } from 'node:child_process';
import * as tf from '@tensorflow/tfjs';
import { afterEach, describe, expect, it } from 'vitest';
import { FederationError } from '../../../shared/errors.ts';
import { checkZooModel, describeZoo, fittingZooNames, zooNames } from '../../../shared/models/catalog.ts';
import { buildZooModel } from '../../../shared/models/zoo.ts';

tf.enableProdMode();

function problemOf(action: () => unknown): FederationError {
  try {
    action();
  } catch (error) {
    if (error instanceof FederationError) return error;
    throw error;
  }
  throw new Error('expected a FederationError');
}

describe('model zoo', () => {
  const opened: tf.LayersModel[] = [];
  const build = (name: string, seed: number, exampleShape: number[], dropout = 0) => {
    const model = buildZooModel({ name, exampleShape, numClasses: 7, dropout, seed });
    opened.push(model);
    return model;
  };
  const weights = (model: tf.LayersModel) => model.getWeights().map((weight) => [...weight.dataSync()]);
  afterEach(() => opened.splice(0).forEach((model) => model.dispose()));

  for (const name of zooNames()) {
    it(`${name}: gives logits of every class, and the same weights for the same seed only`, () => {
      const shape = name === 'text-embedding' ? [9] : [16, 17, 2];
      const model = build(name, 3, shape);
      const output = model.predict(tf.ones([2, ...shape])) as tf.Tensor;
      expect(output.shape).toEqual([2, 7]);
      expect(model.name).toBe(name);
      const { activation } = model.layers.at(-1)!.getConfig();
      expect(activation).toBe('linear');
      expect(weights(build(name, 3, shape))).toEqual(weights(model));
      expect(weights(build(name, 4, shape))).not.toEqual(weights(model));
    });
  }

  it('writes the same topology for the same model, whatever else was built before', () => {
    expect(build('cnn-medium', 3, [8, 8, 1]).toJSON()).toBe(build('cnn-medium', 3, [8, 8, 1]).toJSON());
  });

  it('draws different weights for each layer, also for the seed 0', () => {
    const [first, , second] = weights(build('mlp-medium', 0, [128]));
    expect(first!.slice(0, 9)).not.toEqual(second!.slice(0, 9));
    expect(weights(build('mlp-medium', 0, [128]))[0]).toEqual(first);
  });

  it('puts dropout after hidden layers and before the output', () => {
    const kinds = (name: string, shape: number[]) => build(name, 1, shape, 0.3).layers.map((layer) => layer.getClassName());
    expect(kinds('mlp-medium', [5])).toEqual(['InputLayer', 'Dense', 'Dropout', 'Dense', 'Dropout', 'Dense']);
    expect(kinds('cnn-small', [8, 8, 1]).slice(-3)).toEqual(['Flatten', 'Dropout', 'Dense']);
  });

  it('takes images down to the size that the catalog says', () => {
    for (const { name, minImageSide } of describeZoo()) {
      if (minImageSide === undefined) continue;
      const side = minImageSide;
      expect((build(name, 1, [side, side, 1]).predict(tf.ones([1, side, side, 1])) as tf.Tensor).shape).toEqual([1, 7]);
      expect(problemOf(() => build(name, 1, [side - 1, side, 1])).code).toBe('model-invalid');
    }
  });

  it('has the networks of papers with as many weights as they say', () => {
    // 784*100 + 100 + 100*100 + 100 + 100*7 + 7; and 6*25 + 6, 16*6*25 + 16, 256*120 + 120, 120*84 + 84, 84*7 + 7.
    expect(build('mlp-100-100', 1, [28, 28, 1]).countParams()).toBe(89_307);
    expect(build('lenet', 1, [28, 28, 1]).countParams()).toBe(156 + 2416 + 30_840 + 10_164 + 595);
  });

  it('looks tokens up by id, in whatever order they come, and takes nothing but lists of them', () => {
    const model = build('text-embedding', 1, [4]);
    const logits = (ids: number[]) => [...(model.predict(tf.tensor([ids])) as tf.Tensor).dataSync()];
    expect(logits([4095, 7, 7, 0])).toEqual(logits([7, 4095, 0, 7]));
    expect(logits([4095, 7, 7, 0])).not.toEqual(logits([4094, 7, 7, 0]));
    expect(problemOf(() => build('text-embedding', 1, [28, 28, 1]))).toMatchObject({ code: 'model-invalid', expected: 'token ids [length] (docs/data.md)' });
  });

  it('lists the fitting names when a name or a shape is wrong', () => {
    expect(fittingZooNames([13])).toEqual(['softmax-regression', 'mlp-small', 'mlp-medium', 'mlp-large', 'mlp-100-100']);
    expect(problemOf(() => checkZooModel('cnn-small', [13]))).toMatchObject({ code: 'model-invalid', got: '[13]', next: 'Use one of: softmax-regression, mlp-small, mlp-medium, mlp-large, mlp-100-100.' });
    expect(problemOf(() => checkZooModel('resnet', [28, 28, 1])).next).toContain('cnn-wide');
    expect(problemOf(() => build('mlp-small', 1, [])).field).toBe('exampleShape');
    expect(problemOf(() => build('mlp-small', 1, [4], 1)).field).toBe('dropout');
  });

  it('has a catalog that loads no TF.js, and neither does the choice of an engine', () => {
    // How many files of TF.js a process has loaded after importing this source file.
    const loadedBy = (path: string) => {
      const url = new URL(`../../../shared/${path}`, import.meta.url).href;
      const script = `import(${JSON.stringify(url)}).then(() => console.log(Object.keys(require('node:module')._cache).filter((file) => file.includes('@tensorflow')).length))`;
      return Number(execFileSync(process.execPath, ['--import', 'tsx', '--eval', script], { encoding: 'utf8' }));
    };
    expect(loadedBy('models/catalog.ts')).toBe(0);
    expect(loadedBy('compute/select-engine.ts')).toBe(0);
    expect(loadedBy('compute/worker-engine.ts')).toBe(0);
    expect(loadedBy('models/zoo.ts')).toBeGreaterThan(0);
  });
});
