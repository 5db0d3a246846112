/** The models of the benchmark: those of the zoo, and two classics that other frameworks are compared on. */
import type { ModelSource } from '../../shared/compute/engine.ts';
import { loadBackend, tf, useBackend } from '../../shared/compute/backend.ts';
import { saveWeights } from '../../shared/compute/layers-model.ts';
import { zooNames } from '../../shared/models/catalog.ts';

export const exampleShape = [28, 28, 1] as const;
export const numClasses = 10;

export interface BenchModel {
  readonly name: string;
  readonly source: ModelSource;
}

/** By name; `MLP` is 784-128-64-10, `CNN` is conv 5x5x16, max pool, conv 5x5x32, max pool, dense 10, without padding. */
export async function benchModels(): Promise<readonly BenchModel[]> {
  await loadBackend('tfjs-cpu');
  useBackend('tfjs-cpu');
  return [
    { name: 'MLP', source: classic(mlp()) },
    { name: 'CNN', source: classic(cnn()) },
    ...zooNames().map((name) => ({ name, source: { kind: 'zoo', name, exampleShape, numClasses } as const })),
  ];
}

function mlp() {
  const { layers } = tf;
  return tf.sequential({ layers: [layers.flatten({ inputShape: [...exampleShape] }), layers.dense({ units: 128, activation: 'relu' }), layers.dense({ units: 64, activation: 'relu' }), layers.dense({ units: numClasses })] });
}

function cnn() {
  const { layers } = tf;
  return tf.sequential({
    layers: [
      layers.conv2d({ inputShape: [...exampleShape], filters: 16, kernelSize: 5, activation: 'relu' }),
      layers.maxPooling2d({ poolSize: 2 }),
      layers.conv2d({ filters: 32, kernelSize: 5, activation: 'relu' }),
      layers.maxPooling2d({ poolSize: 2 }),
      layers.flatten(),
      layers.dense({ units: numClasses }),
    ],
  });
}

function classic(network: ReturnType<typeof mlp>): ModelSource {
  const artifacts = { topology: network.toJSON(null, false) as unknown, ...saveWeights(network) };
  network.dispose();
  return { kind: 'layersModel', artifacts, outputKind: 'logits' };
}
