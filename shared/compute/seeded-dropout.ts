/** Seeds for the dropout layers of an eager model. */
import { deriveSeed, SeededGenerator } from '../datasets/seeded-generator.ts';
import type { LoadedModel } from './layers-model.ts';

/** A layer that has layers, wraps one, or drops out; what we need of TF.js's classes, some of which are not exported. */
interface MaybeDropout {
  getClassName(): string;
  readonly layers?: readonly MaybeDropout[];
  readonly layer?: MaybeDropout;
  seed?: number | undefined;
}

/**
 * Gives the model's dropout layers a new seed before every forward pass. With a fixed seed TF.js would drop the same
 * units in each step, and without one other units in each run.
 */
export class SeededDropout {
  readonly #generator: SeededGenerator;
  readonly #layers: readonly MaybeDropout[];
  readonly #originalSeeds: readonly (number | undefined)[];

  constructor({ network }: LoadedModel, seed: number) {
    this.#generator = new SeededGenerator(deriveSeed(seed, 'dropout'));
    this.#layers = dropoutLayers(network);
    this.#originalSeeds = this.#layers.map((layer) => layer.seed);
  }

  reseed(): void {
    for (const layer of this.#layers) layer.seed = this.#generator.uint32();
  }

  restore(): void {
    this.#layers.forEach((layer, i) => (layer.seed = this.#originalSeeds[i]));
  }
}

function dropoutLayers(layer: MaybeDropout): MaybeDropout[] {
  const inner = [...(layer.layers ?? []), ...(layer.layer === undefined ? [] : [layer.layer])];
  const isDropout = layer.getClassName() === 'Dropout' || layer.getClassName() === 'SpatialDropout1D';
  return [...(isDropout ? [layer] : []), ...inner.flatMap(dropoutLayers)];
}
