/**
 * What models of one architecture share: one network to trace, the places of the weights in a flat vector, and the compiled
 * graphs. Two models have one architecture when their topologies differ in nothing but initial weights and seeds.
 */
import type { Variable } from '@tensorflow/tfjs';
import { FederationError } from '../../errors.ts';
import type { SavedModel } from '../engine.ts';
import { kernelVariableNames, type LoadedModel, loadWeights, normalizesBatches, saveWeights } from '../layers-model.ts';
import { aligned } from './arena.ts';
import { planKey, type PrivateStepGraph, type PrivateStepPlan, privatePlanKey, type StepGraph, type StepPlan, tracePrediction, tracePrivateStep, traceStep } from './compile.ts';
import { UnsupportedByTrace } from './kernels/kernel.ts';
import { encodeOnnxModel } from './onnx-writer.ts';
import { createSession, type RuntimeName, type Session } from './runtime.ts';
import type { FinishedGraph } from './graph.ts';

export interface WeightPlace {
  /** Position among the network's weights. */
  readonly index: number;
  readonly shape: readonly number[];
  /** Floats from the start of the vector; a multiple of the alignment. */
  readonly offset: number;
  readonly length: number;
  readonly trainable: boolean;
  /** Whether an L2 penalty applies to it. */
  readonly penalized: boolean;
}

/** Weights in one vector: first those that training changes, then the others; gaps between them are zero. */
export interface WeightLayout {
  readonly places: readonly WeightPlace[];
  /** Floats of the trainable part. */
  readonly trainableLength: number;
  readonly length: number;
}

export interface PredictionGraph {
  readonly graph: FinishedGraph;
  /** Examples in one run. */
  readonly rows: number;
}

/** A graph ready to run. */
export interface Compiled<T> {
  readonly session: Session;
  readonly traced: T;
}

/** A compiled graph that stays until it is given back. */
export interface Lease<T> {
  readonly compiled: Compiled<T>;
  release(): void;
}

/** Graphs of one architecture that nobody runs are kept up to this number. */
const idleGraphs = 8;

/** Elements of the largest intermediate result of a step, 4 MiB: several of them fit into a core's caches. Larger ones cost a convolutional step a quarter more. */
const cachedResult = 2 ** 20;
/** A part of a batch has results that are this many times as large as the weights, which each part reads, and whose gradients it writes. */
const leastReuse = 4;
/** A part has about as many rows at least: products of fewer are slow. */
const leastRows = 16;
/**
 * A Poisson batch does not end with a part, so half a part is computed for nothing, and each part costs as much as one or two rows: parts of about the root of twice the batch are
 * best.
 */
const rowsOfPoissonParts = (batch: number) => Math.max(leastRows, Math.sqrt(2 * batch));
/** Elements that no result is larger than, 128 MiB, unless one row's is. */
const largestResult = 2 ** 25;

export class Architecture {
  readonly model: LoadedModel;
  readonly layout: WeightLayout;
  /** Whether a row's gradient depends on the other rows of its batch. */
  readonly mixesExamples: boolean;
  /** Models open at the moment. */
  users = 0;
  readonly #weightSpecs: SavedModel['weightSpecs'];
  readonly #steps: GraphCache<StepGraph>;
  readonly #privateSteps: GraphCache<PrivateStepGraph>;
  readonly #predictions: GraphCache<PredictionGraph>;

  constructor(model: LoadedModel, runtime: RuntimeName = 'onnx') {
    this.#steps = new GraphCache(runtime);
    this.#privateSteps = new GraphCache(runtime);
    this.#predictions = new GraphCache(runtime);
    this.model = model;
    this.layout = layOut(model);
    this.mixesExamples = normalizesBatches(model.network);
    this.#weightSpecs = saveWeights(model.network).weightSpecs;
  }

  /**
   * Why this engine cannot run the architecture, or undefined. Traces a step and a prediction and lets ONNX Runtime load
   * them, so that a model which opens here also trains here. `predictionRows`: those of a graph that will be used.
   */
  async check(predictionRows: number): Promise<string | undefined> {
    try {
      (await this.prediction(predictionRows)).release();
      if (this.layout.trainableLength > 0) (await this.step({ terms: [{ kind: 'crossEntropy', temperature: 1 }], rows: [2] })).release();
      return undefined;
    } catch (error) {
      if (error instanceof UnsupportedByTrace) return error.message;
      if (error instanceof FederationError) throw error;
      // TF.js has no gradient for it, or ONNX Runtime refuses what was traced.
      return `its graph cannot be built: ${(error instanceof Error ? error.message : String(error)).split('\n')[0]!.replace(/\.$/, '')}`;
    }
  }

  /**
   * A step of as many rows as the plan says; or of fewer, to be run for each part of a batch, where the results of all would not fit into the caches. Not where the model mixes
   * the rows of a batch.
   */
  async step(plan: StepPlan): Promise<Lease<StepGraph>> {
    return this.#steps.acquire(planKey(plan), () => {
      const rows = Math.max(...plan.rows);
      const trace = (partRows: number) => traceStep(this.model, { ...plan, rows: plan.rows.map((count) => Math.ceil((count * partRows) / rows)) });
      const traced = this.mixesExamples ? trace(rows) : this.#inParts(rows, trace);
      return { traced, graph: traced.graph };
    });
  }

  /**
   * A step of as many rows as the plan says, or of fewer: where all would not fit into the caches, as the gradients of convolutions do not, which are
   * written out for each example; or one where the model has no rule for more.
   */
  async privateStep(plan: PrivateStepPlan): Promise<Lease<PrivateStepGraph>> {
    return this.#privateSteps.acquire(privatePlanKey(plan), () => {
      const trace = (rows: number) => {
        const traced = tracePrivateStep(this.model, { ...plan, rows }) ?? tracePrivateStep(this.model, { ...plan, rows: 1 });
        if (traced === undefined) throw new UnsupportedByTrace('private gradients', 'no weight has a gradient');
        return traced;
      };
      const traced = this.#inParts(plan.rows, trace, rowsOfPoissonParts(plan.rows));
      return { traced, graph: traced.graph };
    });
  }

  /** Traces with fewer rows, in equal parts, until the results fit into the caches; where they do not, in parts of about `mostRows` at most. Which operators a layer becomes, and so how large results are, depends on the rows. */
  #inParts<T extends { readonly graph: FinishedGraph }>(allRows: number, trace: (rows: number) => T, mostRows = Infinity): T {
    const room = Math.max(cachedResult, leastReuse * this.layout.trainableLength);
    let rows = allRows;
    for (;;) {
      const traced = trace(rows);
      const { largestLength } = traced.graph;
      const wanted = Math.max((rows * room) / largestLength, Math.min(leastRows, (rows * largestResult) / largestLength), 1);
      const fewer = Math.ceil(allRows / Math.ceil(allRows / (wanted < allRows ? Math.min(wanted, mostRows) : allRows)));
      if (fewer >= rows) return traced;
      rows = fewer;
    }
  }

  /** `rows`: examples in one run, or fewer, where the results of all would not fit into the caches. */
  async prediction(rows: number): Promise<Lease<PredictionGraph>> {
    return this.#predictions.acquire(String(rows), () => {
      const traced = this.#inParts(rows, (fewer) => ({ graph: tracePrediction(this.model, fewer), rows: fewer }));
      return { traced, graph: traced.graph };
    });
  }

  /** A vector from the weights that a network of this architecture has at the moment. */
  readWeights({ weights }: LoadedModel['network']): Float32Array {
    const vector = new Float32Array(this.layout.length);
    for (const { index, offset } of this.layout.places) vector.set(weights[index]!.read().dataSync<'float32'>(), offset);
    return vector;
  }

  /** The vector of saved weights. Throws `model-invalid` when they are those of another architecture. */
  vectorOf(saved: SavedModel): Float32Array {
    loadWeights(this.model.network, saved);
    return this.readWeights(this.model.network);
  }

  /** The vector as what `save` gives. */
  saved(vector: Float32Array): Pick<SavedModel, 'weightSpecs' | 'weights'> {
    const values = new Float32Array(this.layout.places.reduce((sum, { length }) => sum + length, 0));
    let start = 0;
    for (const { offset, length } of this.layout.places) {
      values.set(vector.subarray(offset, offset + length), start);
      start += length;
    }
    return { weightSpecs: this.#weightSpecs, weights: new Uint8Array(values.buffer) };
  }

  async dispose(): Promise<void> {
    this.model.network.dispose();
    await Promise.all([this.#steps.dispose(), this.#privateSteps.dispose(), this.#predictions.dispose()]);
  }
}

function layOut({ network }: LoadedModel): WeightLayout {
  const kernels = kernelVariableNames(network);
  const trainable = new Set(network.trainableWeights);
  const weights = network.weights.map((weight, index) => ({ weight, index, trainable: trainable.has(weight) }));
  const offsets = new Map<number, number>();
  let end = 0;
  let trainableLength = 0;
  for (const { weight, index, trainable } of [...weights.filter((entry) => entry.trainable), ...weights.filter((entry) => !entry.trainable)]) {
    offsets.set(index, end);
    end += aligned((weight.read() as Variable).size);
    if (trainable) trainableLength = end;
  }
  const places = weights.map(({ weight, index, trainable }) => {
    const variable = weight.read() as Variable;
    return { index, shape: variable.shape, offset: offsets.get(index)!, length: variable.size, trainable, penalized: kernels.has(variable.name) };
  });
  return { places, trainableLength, length: end };
}

interface CacheEntry<T> {
  readonly compiled: Promise<Compiled<T>>;
  users: number;
}

/** Compiled graphs by key: compiled once, dropped when many others were used since. */
class GraphCache<T> {
  readonly #runtime: RuntimeName;
  /** Least recently used first. */
  readonly #entries = new Map<string, CacheEntry<T>>();

  constructor(runtime: RuntimeName) {
    this.#runtime = runtime;
  }

  async acquire(key: string, trace: () => { readonly traced: T; readonly graph: FinishedGraph }): Promise<Lease<T>> {
    const entry = this.#entries.get(key) ?? { compiled: compile(trace, this.#runtime), users: 0 };
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    entry.users++;
    try {
      const compiled = await entry.compiled;
      return { compiled, release: () => this.#release(entry) };
    } catch (error) {
      this.#entries.delete(key);
      throw error;
    }
  }

  async dispose(): Promise<void> {
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    await Promise.all(entries.map(({ compiled }) => compiled.then(({ session }) => session.release())));
  }

  #release(entry: CacheEntry<T>): void {
    entry.users--;
    for (const [key, { compiled, users }] of this.#entries) {
      if (this.#entries.size <= idleGraphs) return;
      if (users > 0) continue;
      this.#entries.delete(key);
      // It compiled, or nobody could have used it.
      void compiled.then(({ session }) => session.release());
    }
  }
}

async function compile<T>(trace: () => { readonly traced: T; readonly graph: FinishedGraph }, runtime: RuntimeName): Promise<Compiled<T>> {
  const { traced, graph } = trace();
  return { traced, session: await createSession(encodeOnnxModel(graph), runtime) };
}

/** Settings of layers that change nothing but the weights that a model starts with, or that this project does not use. */
const irrelevantSettings = /_(initializer|regularizer|constraint)$|^seed$/;

/** The same text for two models of one architecture. */
export function architectureKey({ topology, head, summary }: LoadedModel): string {
  const relevant = JSON.stringify(topology, (key, value: unknown) => (irrelevantSettings.test(key) ? undefined : value));
  return `${head}:${summary.exampleShape.join()}:${relevant}`;
}
