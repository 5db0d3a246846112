import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tf } from '../../../shared/compute/backend.ts';
import type { ComputeEngine, ModelSource } from '../../../shared/compute/engine.ts';
import { selectEngine } from '../../../shared/compute/select-engine.ts';
import { createTfjsEngine } from '../../../shared/compute/tfjs-engine.ts';
import { computeEngineContract } from '../../contracts/compute-engine.ts';
import { mnistDigits } from '../../support/mnist.ts';

computeEngineContract('tfjs-wasm', { setup: () => selectEngine('tfjs-wasm') });

describe('memory', () => {
  const loss = { distance: 'kl', temperature: 2, alpha: 0.5 } as const;
  let engine: ComputeEngine;
  beforeAll(async () => {
    engine = await createTfjsEngine('tfjs-wasm');
  });
  afterAll(() => engine.dispose());

  it('holds no more tensors after 1000 steps of everything than before, and none after disposal', async () => {
    const atStart = tf.memory().numTensors;
    const { examples, labels } = mnistDigits('train', 20);
    const source: ModelSource = { kind: 'zoo', name: 'cnn-small', exampleShape: [28, 28, 1], numClasses: 10, dropout: 0.2 };
    const model = await engine.open(source, 1);
    const opened = tf.memory().numTensors;
    const data = { hard: { examples, labels }, soft: { examples, targets: await model.predict(examples), targetKind: 'logits' } } as const;
    const common = { loss, batchSize: 2, seed: 1, l2: 0.01, gradientClipNorm: 1 } as const;
    await model.fit(data, { ...common, epochs: 50, optimizer: { kind: 'sgd', learningRate: 0.01, momentum: 0.9 } });
    expect(tf.memory().numTensors).toBe(opened);
    await model.fit(data, { ...common, epochs: 50, optimizer: { kind: 'adam', learningRate: 0.001 }, earlyStopping: { patience: 1000, validation: { examples, labels } } });
    expect(tf.memory().numTensors).toBe(opened);
    await model.load(await model.save());
    const [stop, reason] = [new AbortController(), new Error('enough')];
    await expect(model.fit(data, { ...common, epochs: 9, optimizer: { kind: 'sgd', learningRate: 0.01 }, signal: stop.signal, onEpoch: () => stop.abort(reason) })).rejects.toBe(reason);
    expect(tf.memory().numTensors).toBe(opened);
    await model.dispose();
    expect(tf.memory().numTensors).toBe(atStart);
    expect(tf.memory().numDataBuffers).toBe(atStart);
  });
});
