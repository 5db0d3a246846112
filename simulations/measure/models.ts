/** The models that are timed: those of the zoo, and two classics that other frameworks are compared on. */
import type { ModelSource } from '../../shared/compute/engine.ts';
import { SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { fittingZooNames } from '../../shared/models/catalog.ts';
import { type Examples, exampleSize } from '../../shared/types/matrix.ts';

export const exampleShape = [28, 28, 1] as const;
export const numClasses = 10;

export interface BenchModel {
  readonly name: string;
  readonly source: ModelSource;
}

/** By name; `MLP` is 784-128-64-10, `CNN` is conv 5x5x16, max pool, conv 5x5x32, max pool, dense 10, without padding. */
export function benchModels(): readonly BenchModel[] {
  const hidden = (units: number) => dense(units, 'relu');
  return [
    { name: 'MLP', source: sequential([flatten(), hidden(128), hidden(64), dense(numClasses)], [[784, 128], [128], [128, 64], [64], [64, numClasses], [numClasses]]) },
    { name: 'CNN', source: sequential([convolution(16), maxPool(), convolution(32), maxPool(), flatten(), dense(numClasses)], [[5, 5, 1, 16], [16], [5, 5, 16, 32], [32], [512, numClasses], [numClasses]]) },
    ...fittingZooNames(exampleShape).map((name) => ({ name, source: { kind: 'zoo', name, exampleShape, numClasses } as const })),
  ];
}

/** Gaussian examples: what they are does not change how long a step takes. */
export function gaussianExamples(count: number, seed = 1): Examples {
  const generator = new SeededGenerator(seed);
  return { count, shape: exampleShape, values: Float32Array.from({ length: count * exampleSize(exampleShape) }, () => generator.gaussian()) };
}

interface Layer {
  readonly class_name: string;
  readonly config: Readonly<Record<string, unknown>>;
}

const flatten = (): Layer => ({ class_name: 'Flatten', config: {} });
const dense = (units: number, activation = 'linear'): Layer => ({ class_name: 'Dense', config: { units, activation } });
const convolution = (filters: number): Layer => ({ class_name: 'Conv2D', config: { filters, kernel_size: [5, 5], activation: 'relu' } });
const maxPool = (): Layer => ({ class_name: 'MaxPooling2D', config: { pool_size: [2, 2] } });

/** A saved LayersModel with weights of a sensible size; `shapes`: a kernel and a bias for each layer that has weights. */
function sequential(layers: readonly Layer[], shapes: readonly (readonly number[])[]): ModelSource {
  const generator = new SeededGenerator(1);
  const values = shapes.flatMap((shape) => {
    const fanIn = exampleSize(shape.slice(0, -1));
    return Array.from({ length: exampleSize(shape) }, () => (shape.length === 1 ? 0 : generator.gaussian() * Math.sqrt(1 / fanIn)));
  });
  const owners = layers.flatMap(({ class_name }, i) => (class_name === 'Dense' || class_name === 'Conv2D' ? [`layer${i}/kernel`, `layer${i}/bias`] : []));
  const named = layers.map(({ class_name, config }, i) => ({ class_name, config: { name: `layer${i}`, ...config, ...(i === 0 ? { batch_input_shape: [null, ...exampleShape] } : {}) } }));
  return {
    kind: 'layersModel',
    artifacts: {
      topology: { class_name: 'Sequential', config: { name: 'sequential', layers: named }, keras_version: 'tfjs-layers 4.22.0', backend: 'tensor_flow.js' },
      weightSpecs: shapes.map((shape, i) => ({ name: owners[i]!, shape, dtype: 'float32' as const })),
      weights: new Uint8Array(Float32Array.from(values).buffer),
    },
    outputKind: 'logits',
  };
}
