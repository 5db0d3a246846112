/**
 * Private training on eager TF.js: one example at a time, clipped and added up in float64. Slow, and plainly right: what faster engines are
 * compared with. Every method runs inside a tensor scope.
 */
import type { Variable } from '@tensorflow/tfjs';
import { tf } from './backend.ts';
import type { PrivateFitOptions, TrainingData } from './engine.ts';
import { areFinite, diverged, forward, type LoadedModel, requireTrainable } from './layers-model.ts';
import { PrivateSteps } from './private-steps.ts';
import { SeededDropout } from './seeded-dropout.ts';
import { type BatchOf, hardBatches, softBatches } from './tfjs-loss-terms.ts';
import { EagerOptimizer } from './tfjs-optimizer.ts';

export class PrivateTraining {
  readonly #model: LoadedModel;
  readonly #options: PrivateFitOptions;
  readonly #variables: Variable[];
  readonly #batchOf: BatchOf;
  readonly #private: PrivateSteps;
  readonly #dropout: SeededDropout;
  readonly #optimizer: EagerOptimizer;
  /** By the name of the variable; those that the loss does not depend on have none. */
  #sums = new Map<string, Float64Array>();
  #batch: Uint32Array = new Uint32Array();
  #next = 0;

  constructor(model: LoadedModel, { hard, soft }: TrainingData, options: PrivateFitOptions) {
    const { numClasses } = model.summary;
    this.#model = model;
    this.#options = options;
    this.#variables = requireTrainable(model);
    this.#batchOf = hard === undefined ? softBatches(soft!, options.loss, numClasses) : hardBatches(hard, numClasses);
    const { examples } = (hard ?? soft)!;
    this.#private = new PrivateSteps(examples.count, options);
    this.#dropout = new SeededDropout(model, options.seed);
    this.#optimizer = new EagerOptimizer(model, this.#variables, options, options.steps);
    // An empty batch adds noise as well, to every weight that has a gradient: any example tells which.
    for (const [name, gradient] of this.#gradients(0)) this.#sums.set(name, new Float64Array(gradient.length));
  }

  get steps(): number {
    return this.#optimizer.steps;
  }

  startStep(): void {
    for (const sum of this.#sums.values()) sum.fill(0);
    this.#batch = this.#private.nextBatch();
    this.#next = 0;
  }

  /** False when the batch has no example left. */
  addNextExample(): boolean {
    if (this.#next === this.#batch.length) return false;
    const gradients = this.#gradients(this.#batch[this.#next++]!);
    let squares = 0;
    for (const gradient of gradients.values()) for (const value of gradient) squares += value * value;
    const norm = Math.sqrt(squares);
    // One record must not undo the step of all others: a gradient that is no number counts as zero.
    if (!Number.isFinite(norm)) return true;
    const factor = Math.min(1, this.#options.clippingNorm / norm);
    for (const [name, gradient] of gradients) {
      const sum = this.#sums.get(name)!;
      for (let i = 0; i < sum.length; i++) sum[i]! += factor * gradient[i]!;
    }
    return true;
  }

  finishStep(): void {
    const gradients = this.#variables.flatMap((variable) => {
      const sum = this.#sums.get(variable.name);
      if (sum === undefined) return [];
      const released = Float32Array.from(sum);
      this.#private.release(released);
      return [[variable.name, tf.tensor(released, variable.shape)] as const];
    });
    this.#optimizer.apply(this.#optimizer.penalize(Object.fromEntries(gradients)));
    if (!areFinite(this.#variables)) throw diverged(this.#model, this.#options, this.steps - 1);
  }

  dispose(): void {
    this.#dropout.restore();
    this.#optimizer.dispose();
  }

  #gradients(position: number): ReadonlyMap<string, Float32Array> {
    const batch = this.#batchOf(Uint32Array.of(position));
    this.#dropout.reseed();
    const { grads } = tf.variableGrads(() => batch.loss(forward(this.#model, tf.tensor(batch.examples, [1, ...this.#model.summary.exampleShape]), true)), this.#variables);
    const found = Object.entries(grads).filter(([, gradient]) => gradient !== null && gradient !== undefined);
    return new Map(found.map(([name, gradient]) => [name, gradient.dataSync<'float32'>()]));
  }
}
