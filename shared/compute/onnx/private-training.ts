/**
 * One call of `fitPrivately`. A Poisson batch is cut into parts of as many rows as the graph has; the last one is filled up with rows of
 * weight 0, whose gradients are zero. The parts' clipped sums are added up here, then noised, divided and handed to the optimizer.
 */
import type { PrivateFitOptions, TrainingData } from '../engine.ts';
import { learningRateAt } from '../learning-rate.ts';
import { PrivateSteps } from '../private-steps.ts';
import type { Architecture, Lease, WeightLayout } from './architecture.ts';
import type { Arena } from './arena.ts';
import { names, type PrivateStepGraph } from './compile.ts';
import type { DropoutSeeds } from './dropout-noise.ts';
import { hardTerm, softTerm, type TermData } from './loss-terms.ts';
import { VectorOptimizer } from './optimizers.ts';
import { dropoutSeeds, StepBuffers } from './step-buffers.ts';
import { penalizeKernels } from './training.ts';

/** A graph has room for the expected batch and this many standard deviations of its size more: few batches then need a second run. */
const spareDeviations = 2;
const rowMultiple = 8;

export class PrivateTraining {
  steps = 0;
  readonly #term: TermData;
  readonly #options: PrivateFitOptions;
  readonly #layout: WeightLayout;
  readonly #vector: Float32Array;
  readonly #arena: Arena;
  readonly #lease: Lease<PrivateStepGraph>;
  readonly #buffers: StepBuffers;
  readonly #norms: Float32Array;
  readonly #private: PrivateSteps;
  readonly #optimizer: VectorOptimizer;
  readonly #seeds: DropoutSeeds;
  /** Views of the gradients in the arena. */
  readonly #gradients: readonly Float32Array[];

  /** `vector`: all weights of the model, where `writeWeights` puts the trained ones. */
  static async start(architecture: Architecture, { hard, soft }: TrainingData, options: PrivateFitOptions, vector: Float32Array, arena: Arena, classes: number): Promise<PrivateTraining> {
    const term = hard === undefined ? softTerm(soft!, options.loss) : hardTerm(hard);
    const lease = await architecture.privateStep({ term: term.plan, rows: options.microBatchSize ?? roomFor(term.examples.count, options.samplingRate) });
    return new PrivateTraining(term, options, architecture.layout, vector, arena, lease, classes);
  }

  private constructor(term: TermData, options: PrivateFitOptions, layout: WeightLayout, vector: Float32Array, arena: Arena, lease: Lease<PrivateStepGraph>, classes: number) {
    this.#term = term;
    this.#options = options;
    this.#layout = layout;
    this.#vector = vector;
    this.#arena = arena;
    this.#lease = lease;
    const { traced } = lease.compiled;
    const { rows } = traced.plan;
    arena.reset(vector.subarray(0, layout.trainableLength));
    this.#buffers = new StepBuffers(lease.compiled, { rows: [rows], exampleShape: term.examples.shape, classes }, layout, vector, arena);
    this.#buffers.input(names.clippingNorm, Float32Array.of(options.clippingNorm), []);
    this.#norms = this.#buffers.output(names.norms, new Float32Array(rows), [rows]);
    this.#private = new PrivateSteps(term.examples.count, options);
    this.#optimizer = new VectorOptimizer(options.optimizer, arena.kernels, arena);
    this.#seeds = dropoutSeeds(options.seed, lease.compiled);
    this.#gradients = layout.places.filter(({ index }) => traced.gradients.includes(index)).map(({ offset, length }) => arena.view(arena.gradients + 4 * offset, length));
  }

  async step(): Promise<void> {
    const { optimizer, learningRateSchedule, steps, l2 = 0 } = this.#options;
    await this.#sum(this.#private.nextBatch());
    for (const gradient of this.#gradients) this.#private.release(gradient);
    penalizeKernels(this.#arena, this.#layout, this.#buffers.withGradient, l2);
    this.#optimizer.step(learningRateAt(optimizer, learningRateSchedule, this.steps, steps));
    this.steps++;
  }

  /** Whether all weights are finite numbers. */
  isFinite(): boolean {
    const { kernels, parameters, length } = this.#arena;
    return Number.isFinite(kernels.sumOfSquares(parameters, length));
  }

  writeWeights(): void {
    this.#vector.set(this.#arena.view(this.#arena.parameters, this.#layout.trainableLength));
  }

  release(): void {
    this.#lease.release();
  }

  /** Leaves the clipped sum over these records in the arena's gradients. */
  async #sum(positions: Uint32Array): Promise<void> {
    const { kernels, gradients, sums, length } = this.#arena;
    const fill = (vector: number) => this.#arena.view(vector, length / 4).fill(0);
    const [rows] = this.#buffers.rows as readonly [number];
    if (positions.length <= rows) {
      if (!(await this.#sumPart(positions))) fill(gradients);
      return;
    }
    fill(sums);
    for (let start = 0; start < positions.length; start += rows) {
      if (await this.#sumPart(positions.subarray(start, start + rows))) kernels.addScaled(sums, gradients, length, 1);
    }
    this.#arena.copy(gradients, sums);
  }

  /**
   * False when nothing is to be added: there are no records, or none with a finite gradient. One record must not undo the step of all others: a gradient that is no number
   * counts as zero. Its row stays, with a stand-in of weight 0, and the dropout is not drawn again: other rows or other masks would change the gradients of
   * all other records, far beyond what is clipped.
   */
  async #sumPart(positions: Uint32Array): Promise<boolean> {
    if (positions.length === 0) return false;
    this.#buffers.fillNoise(0, this.#seeds.next());
    const counts = Array.from(positions, () => true);
    for (let standIn = positions[0]; standIn !== undefined; standIn = positions[counts.indexOf(true)]) {
      const instead = standIn;
      this.#buffers.stage(0, this.#term, positions.map((position, row) => (counts[row] === true ? position : instead)), (position, row) => (counts[row] === true ? this.#term.weightOf(position) : 0));
      await this.#buffers.run();
      if (this.#norms.every(Number.isFinite)) return true;
      const counted = counts.filter(Boolean).length;
      counts.forEach((isCounted, row) => (counts[row] = isCounted && Number.isFinite(this.#norms[row]!)));
      if (counts.filter(Boolean).length === counted) return false;
    }
    return false;
  }
}

/** Rows for almost every batch. */
function roomFor(count: number, rate: number): number {
  const expected = rate * count;
  const wanted = expected + spareDeviations * Math.sqrt(expected * (1 - rate));
  return Math.min(Math.ceil(wanted / rowMultiple) * rowMultiple, count);
}
