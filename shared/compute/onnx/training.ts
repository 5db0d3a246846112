/**
 * One call of `fit`: the same batches in the same order as the eager engine's, and the same dropout, so that both engines
 * give the same weights but for rounding. One compiled step serves all batches: a batch that is smaller than it, the
 * last one of a pass, is filled up with rows of weight 0. A batch that is larger, because its results would not fit into the caches, is run in parts whose
 * gradients are added up. Only for a model that normalizes over its batches is the last one a graph of its own.
 */
import type { FitOptions } from '../engine.ts';
import { learningRateAt } from '../learning-rate.ts';
import type { Arena } from './arena.ts';
import type { Lease, WeightLayout, WeightPlace } from './architecture.ts';
import { names, type StepGraph, type StepPlan } from './compile.ts';
import type { DropoutSeeds } from './dropout-noise.ts';
import type { LossTerm } from './loss-terms.ts';
import { VectorOptimizer } from './optimizers.ts';
import { dropoutSeeds, StepBuffers } from './step-buffers.ts';

export interface TrainingSetup {
  readonly terms: readonly LossTerm[];
  readonly options: FitOptions;
  readonly layout: WeightLayout;
  /** All weights; those that training changes are taken into the arena. */
  readonly vector: Float32Array;
  readonly arena: Arena;
  readonly classes: number;
  /** Whether the model's statistics are those of the batch, so that no row may fill it up. */
  readonly mixesExamples: boolean;
  readonly compile: (plan: StepPlan) => Promise<Lease<StepGraph>>;
}

export class Training {
  steps = 0;
  /** Examples in one pass. */
  readonly epochLength: number;
  readonly #setup: TrainingSetup;
  readonly #optimizer: VectorOptimizer;
  readonly #totalSteps: number;
  readonly #leases: Lease<StepGraph>[] = [];
  readonly #buffers = new Map<number, StepBuffers>();
  readonly #loss = new Float32Array(1);
  #seeds: DropoutSeeds | undefined;

  constructor(setup: TrainingSetup) {
    const { terms, options, layout, vector, arena } = setup;
    this.#setup = setup;
    this.epochLength = terms[0]!.data.examples.count;
    this.#totalSteps = options.epochs * Math.ceil(this.epochLength / options.batchSize);
    this.#optimizer = new VectorOptimizer(options.optimizer, arena.kernels, arena);
    arena.reset(vector.subarray(0, layout.trainableLength));
  }

  /** One batch of each kind, one update of the weights. `loss` is not finite when training has diverged; nothing is updated then. */
  async step(): Promise<{ readonly loss: number; readonly rows: number }> {
    const { terms, options, arena, layout } = this.#setup;
    const batches = terms.map((term) => term.next(options.batchSize));
    const buffers = await this.#buffersFor(batches[0]!.length);
    const seeds = terms.map(() => this.#seeds!.next());
    const parts = Math.max(...batches.map((positions, term) => Math.ceil(positions.length / buffers.rows[term]!)));
    let loss = batches.reduce((sum, positions, term) => sum + this.#constantLoss(term, positions), 0);
    for (let part = 0; part < parts; part++) {
      batches.forEach((positions, term) => {
        this.#stage(buffers, term, positions, part);
        buffers.fillNoise(term, seeds[term]!, part, parts);
      });
      await buffers.run();
      loss += this.#loss[0]!;
      if (parts > 1) addPart(arena, part, parts);
    }
    if (Number.isFinite(loss)) {
      penalizeKernels(arena, layout, buffers.withGradient, options.l2 ?? 0);
      decayWeights(arena, layout, buffers.withGradient, options.weightDecay ?? 0);
      this.#clip();
      this.#optimizer.step(learningRateAt(options.optimizer, options.learningRateSchedule, this.steps, this.#totalSteps));
      buffers.applyUpdates();
      this.steps++;
    }
    return { loss, rows: batches[0]!.length };
  }

  /** Copies the weights to where the model keeps them. */
  writeWeights(): void {
    const { vector, arena, layout } = this.#setup;
    vector.set(arena.view(arena.parameters, layout.trainableLength));
  }

  /** Whether all weights are finite numbers. */
  isFinite(): boolean {
    const { vector, arena, layout } = this.#setup;
    return Number.isFinite(arena.kernels.sumOfSquares(arena.parameters, arena.length)) && allFinite(vector.subarray(layout.trainableLength));
  }

  release(): void {
    for (const lease of this.#leases) lease.release();
  }

  /** The graph for a batch with so many rows of the first term. The others' batches are always full. */
  async #buffersFor(firstRows: number): Promise<StepBuffers> {
    const { terms, options, layout, vector, arena, classes, mixesExamples, compile } = this.#setup;
    // No batch is larger than the larger of the two sets.
    const rows = terms.length === 1 ? Math.min(options.batchSize, this.epochLength) : options.batchSize;
    const compiledRows = mixesExamples ? firstRows : rows;
    let buffers = this.#buffers.get(compiledRows);
    if (buffers === undefined) {
      const allRows = terms.map((_, term) => (term === 0 ? compiledRows : rows));
      const lease = await compile({ terms: terms.map(({ data }) => data.plan), rows: allRows });
      this.#leases.push(lease);
      buffers = new StepBuffers(lease.compiled, { rows: lease.compiled.traced.plan.rows, exampleShape: terms[0]!.data.examples.shape, classes }, layout, vector, arena);
      buffers.output(names.loss, this.#loss, []);
      this.#buffers.set(compiledRows, buffers);
      this.#seeds ??= dropoutSeeds(options.seed, lease.compiled);
    }
    return buffers;
  }

  /** Puts a part of a batch where the graph reads it. */
  #stage(buffers: StepBuffers, term: number, positions: Uint32Array, part: number): void {
    const { data, weight } = this.#setup.terms[term]!;
    const share = weight / positions.length;
    const rows = buffers.rows[term]!;
    buffers.stage(term, data, positions.subarray(part * rows, (part + 1) * rows), (position) => share * data.weightOf(position));
  }

  /** What does not depend on the model. */
  #constantLoss(term: number, positions: Uint32Array): number {
    const { data, weight } = this.#setup.terms[term]!;
    const share = weight / positions.length;
    return positions.reduce((sum, position) => sum + share * data.weightOf(position) * data.constant(position), 0);
  }

  /** Scales the gradient, all parts taken as one vector, down to the largest norm allowed. */
  #clip(): void {
    const { gradientClipNorm } = this.#setup.options;
    if (gradientClipNorm === undefined) return;
    const { kernels, gradients, length } = this.#setup.arena;
    const norm = Math.sqrt(kernels.sumOfSquares(gradients, length));
    if (norm > gradientClipNorm) kernels.scale(gradients, length, gradientClipNorm / norm);
  }
}

/** Adds the gradients of a part to those of the parts before; after the last one all are in the arena's gradients. */
function addPart(arena: Arena, part: number, parts: number): void {
  const { kernels, gradients, sums, length } = arena;
  if (part === 0) arena.copy(sums, gradients);
  else if (part < parts - 1) kernels.addScaled(sums, gradients, length, 1);
  else kernels.addScaled(gradients, sums, length, 1);
}

/** Adds the gradient of (l2 / 2) * sum(kernel^2), which is l2 * kernel, to the kernels among the weights that have a gradient. */
export function penalizeKernels(arena: Arena, layout: WeightLayout, withGradient: readonly number[], l2: number): void {
  addWeights(arena, layout, l2, ({ index, penalized }) => penalized && withGradient.includes(index));
}

/** Adds weightDecay * w to the gradient of every weight w that has one. */
function decayWeights(arena: Arena, layout: WeightLayout, withGradient: readonly number[], weightDecay: number): void {
  addWeights(arena, layout, weightDecay, ({ index, trainable }) => trainable && withGradient.includes(index));
}

/** Adds `factor` times the weights at these places to their gradients. */
function addWeights({ kernels, parameters, gradients }: Arena, layout: WeightLayout, factor: number, applies: (place: WeightPlace) => boolean): void {
  if (factor === 0) return;
  for (const place of layout.places) {
    // Up to the next weight: the gap is zero.
    if (applies(place)) kernels.addScaled(gradients + 4 * place.offset, parameters + 4 * place.offset, 4 * Math.ceil(place.length / 4) * 4, factor);
  }
}

/** A loop: `every` would make an object of each weight, more garbage than everything else in a training. What is not finite, times 0, is not a number. */
export function allFinite(values: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * 0;
  return sum === 0;
}
