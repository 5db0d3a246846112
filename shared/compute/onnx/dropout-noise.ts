/**
 * The random numbers of dropout. TF.js draws them on the host from a seed in each forward pass; a graph takes them as an
 * input. To drop the same units as the eager engine, the same numbers are drawn here: Alea (Baagøe 2010), as the
 * package `seedrandom` writes it, which is what `tf.randomUniform` uses. Not for protection: anyone can predict it.
 */
import type { LayersModel } from '@tensorflow/tfjs';
import { deriveSeed, SeededGenerator } from '../../datasets/seeded-generator.ts';
import { type Graph, type Value } from './graph.ts';
import { UnsupportedByTrace } from './kernels/kernel.ts';
import type { NoiseRecognizer } from './trace-backend.ts';

/** A graph input that takes uniform numbers in [0, 1). */
export interface NoiseInput {
  readonly name: string;
  /** [batch, ...] */
  readonly shape: readonly number[];
  /** Position of the dropout layer among those of the model. */
  readonly layer: number;
  /** The term of the loss that it belongs to, where each has a forward pass of its own. */
  readonly term: number | undefined;
}

/** A layer that has layers, wraps one, or drops out; what we need of TF.js's classes, some of which are not exported. */
interface MaybeDropout {
  getClassName(): string;
  readonly layers?: readonly MaybeDropout[];
  readonly layer?: MaybeDropout;
  seed?: number | undefined;
}

/** Numbers that are compared before an array is taken for a layer's noise. */
const comparedNumbers = 8;

/** Gives each dropout layer a seed of its own while a model is traced, and recognizes what it draws. */
export class DropoutTracer implements NoiseRecognizer {
  readonly inputs: NoiseInput[] = [];
  /** The term of the loss whose forward pass is traced, where each has its own. */
  term: number | undefined;
  readonly #layers: readonly MaybeDropout[];
  readonly #originalSeeds: readonly (number | undefined)[];
  readonly #values = new Map<string, Value>();
  #graph: Graph | undefined;

  constructor(network: LayersModel) {
    this.#layers = dropoutLayers(network);
    this.#originalSeeds = this.#layers.map((layer) => layer.seed);
  }

  start(graph: Graph): void {
    this.#graph = graph;
    this.#layers.forEach((layer, i) => (layer.seed = tracingSeed(i)));
  }

  restore(): void {
    this.#layers.forEach((layer, i) => (layer.seed = this.#originalSeeds[i]));
  }

  recognize(values: ArrayLike<number>, shape: readonly number[]): Value | undefined {
    const layer = this.#layers.findIndex((_, i) => startsLike(values, tracingSeed(i)));
    if (layer < 0) {
      // What is drawn while tracing would be drawn once for all steps. Small tables of constants are no noise.
      if (shape[0] !== undefined && values.length > comparedNumbers && new Set(Array.from(values)).size > values.length / 2) {
        throw new UnsupportedByTrace('noise', 'a layer draws random numbers that are not those of dropout');
      }
      return undefined;
    }
    const key = `${this.term ?? ''}:${layer}:${shape.join()}`;
    let value = this.#values.get(key);
    if (value === undefined) {
      const name = `noise${this.inputs.length}`;
      value = this.#graph!.input(name, shape);
      this.#values.set(key, value);
      this.inputs.push({ name, shape, layer, term: this.term });
    }
    return value;
  }

  get layerCount(): number {
    return this.#layers.length;
  }
}

/** The seeds of one fit: one a layer for each forward pass, in the order in which the eager engine draws them. */
export class DropoutSeeds {
  readonly #generator: SeededGenerator;
  readonly #layerCount: number;

  constructor(seed: number, layerCount: number) {
    this.#generator = new SeededGenerator(deriveSeed(seed, 'dropout'));
    this.#layerCount = layerCount;
  }

  next(): readonly number[] {
    return Array.from({ length: this.#layerCount }, () => this.#generator.uint32());
  }
}

/** Fills an array with the numbers that `tf.randomUniform(shape, 0, 1, 'float32', seed)` gives. */
export function fillUniform(target: Float32Array, seed: number): void {
  const next = alea(seed);
  for (let i = 0; i < target.length; i++) target[i] = next();
}

function startsLike(values: ArrayLike<number>, seed: number): boolean {
  const next = alea(seed);
  for (let i = 0; i < Math.min(values.length, comparedNumbers); i++) if (Math.fround(next()) !== values[i]) return false;
  return values.length > 0;
}

/** Nothing else draws from these. */
function tracingSeed(layer: number): number {
  return 0x7ace_0001 + layer;
}

function dropoutLayers(layer: MaybeDropout): MaybeDropout[] {
  const inner = [...(layer.layers ?? []), ...(layer.layer === undefined ? [] : [layer.layer])];
  const isDropout = layer.getClassName() === 'Dropout' || layer.getClassName() === 'SpatialDropout1D';
  return [...(isDropout ? [layer] : []), ...inner.flatMap(dropoutLayers)];
}

const twoToMinus32 = 2 ** -32;

function alea(seed: number): () => number {
  const mash = mashing();
  const start = [mash(' '), mash(' '), mash(' ')];
  let [s0, s1, s2] = start.map((state) => {
    const seeded = state - mash(String(seed));
    return seeded < 0 ? seeded + 1 : seeded;
  }) as [number, number, number];
  let carry = 1;
  return () => {
    const t = 2091639 * s0 + carry * twoToMinus32;
    s0 = s1;
    s1 = s2;
    carry = Math.trunc(t);
    s2 = t - carry;
    return s2;
  };
}

/** Alea's hash of texts to [0, 1), which depends on all texts before. */
function mashing(): (text: string) => number {
  let n = 0xefc8249d;
  return (text) => {
    for (let i = 0; i < text.length; i++) {
      n += text.charCodeAt(i);
      let h = 0.02519603282416938 * n;
      n = h >>> 0;
      h -= n;
      h *= n;
      n = h >>> 0;
      h -= n;
      n += h * 2 ** 32;
    }
    return (n >>> 0) * twoToMinus32;
  };
}

