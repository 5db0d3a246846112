/**
 * One call of `fit`: the same batches in the same order as the eager engine's, and the same dropout, so that both engines
 * give the same weights but for rounding. One compiled step serves all batches: a batch that is smaller than it, the
 * last one of a pass, is filled up with rows of weight 0.
 */
import { exampleSize, type Examples } from '../../types/matrix.ts';
import { Shuffler } from '../batches.ts';
import type { FitOptions, TrainingData } from '../engine.ts';
import { softTargets } from '../losses.ts';
import type { Arena } from './arena.ts';
import type { Compiled, WeightLayout } from './architecture.ts';
import { type LossTermPlan, names, type StepGraph, type StepPlan } from './compile.ts';
import { DropoutSeeds, fillUniform } from './dropout-noise.ts';
import { VectorOptimizer } from './optimizers.ts';
import type { OrtTensors } from './runtime.ts';

/** A summand of the loss with the examples that it is computed on. */
interface LossTerm {
  readonly plan: LossTermPlan;
  readonly examples: Examples;
  /** Positions of the next batch: at most `size` of them. */
  readonly next: (size: number) => Uint32Array;
  /** Factor of this summand in the loss. */
  readonly weight: number;
  /** Writes the target of an example, times `weight`. */
  readonly writeTarget: (target: Float32Array, position: number, weight: number) => void;
  /** The part of the loss of an example that does not depend on the model. */
  readonly constant: (position: number) => number;
}

/** What a fit needs before its graph exists. The first term decides how long a pass is. */
export function lossTerms({ hard, soft }: TrainingData, { loss, seed }: FitOptions): readonly LossTerm[] {
  const terms: LossTerm[] = [];
  const hardWeight = soft === undefined ? 1 : loss.alpha;
  if (soft !== undefined) {
    const targets = softTargets(soft.targets, soft.targetKind, loss);
    const { columns, values } = targets.matrix;
    const shuffler = new Shuffler(soft.examples.count, seed, 'soft');
    const isKl = loss.distance === 'kl';
    terms.push({
      plan: isKl ? { kind: 'crossEntropy', temperature: loss.temperature } : { kind: 'absoluteError' },
      examples: soft.examples,
      next: (size) => shuffler.withinPass(size),
      weight: hard === undefined ? 1 : 1 - loss.alpha,
      writeTarget(target, position, weight) {
        const scale = isKl ? weight * loss.temperature ** 2 : 1;
        for (let c = 0; c < columns; c++) target[c] = scale * values[position * columns + c]!;
      },
      constant: (position) => targets.constants[position]!,
    });
  }
  // A summand with weight 0 would cost a forward and a backward pass for nothing.
  if (hard !== undefined && hardWeight > 0) {
    const shuffler = new Shuffler(hard.examples.count, seed, 'hard');
    terms.push({
      plan: { kind: 'crossEntropy', temperature: 1 },
      examples: hard.examples,
      next: (size) => (soft === undefined ? shuffler.withinPass(size) : shuffler.acrossPasses(size)),
      weight: hardWeight,
      writeTarget(target, position, weight) {
        target.fill(0);
        target[hard.labels[position]!] = weight;
      },
      constant: () => 0,
    });
  }
  return terms;
}

/** The step that these terms need. No batch is larger than the larger of the two sets. */
export function stepPlan(terms: readonly LossTerm[], batchSize: number): StepPlan {
  const [first] = terms;
  return { terms: terms.map(({ plan }) => plan), rows: terms.length === 1 ? Math.min(batchSize, first!.examples.count) : batchSize };
}

export class Training {
  steps = 0;
  readonly #compiled: Compiled<StepGraph>;
  readonly #terms: readonly LossTerm[];
  readonly #options: FitOptions;
  readonly #layout: WeightLayout;
  readonly #arena: Arena;
  readonly #optimizer: VectorOptimizer;
  readonly #seeds: DropoutSeeds;
  readonly #inputs: OrtTensors = {};
  readonly #outputs: OrtTensors = {};
  readonly #examples: Float32Array;
  readonly #targets: readonly Float32Array[];
  readonly #rowWeights: readonly Float32Array[];
  readonly #noise: readonly { readonly layer: number; readonly values: Float32Array }[];
  readonly #loss = new Float32Array(1);

  /** `vector`: all weights; those that training changes are taken into the arena, the others are read where they are. */
  constructor(compiled: Compiled<StepGraph>, terms: readonly LossTerm[], options: FitOptions, layout: WeightLayout, vector: Float32Array, arena: Arena, classes: number) {
    this.#compiled = compiled;
    this.#terms = terms;
    this.#options = options;
    this.#layout = layout;
    this.#arena = arena;
    this.#optimizer = new VectorOptimizer(options.optimizer, arena.kernels, arena);
    this.#seeds = new DropoutSeeds(options.seed, compiled.traced.dropoutLayers);
    arena.reset(vector.subarray(0, layout.trainableLength));
    const { session, traced } = compiled;
    const { rows } = traced.plan;
    const wanted = new Set(traced.graph.inputs.map(({ name }) => name));
    const give = (name: string, data: Float32Array, shape: readonly number[]) => {
      // A graph has no input that its outputs do not depend on.
      if (wanted.has(name)) this.#inputs[name] = session.tensor(data, shape);
      return data;
    };
    for (const { index, shape, offset, length, trainable } of layout.places) {
      give(names.weight(index), trainable ? arena.view(arena.parameters + 4 * offset, length) : vector.subarray(offset, offset + length), shape);
      if (traced.gradients.includes(index)) this.#outputs[names.gradient(index)] = session.tensor(arena.view(arena.gradients + 4 * offset, length), shape);
    }
    this.#outputs[names.loss] = session.tensor(this.#loss, []);
    const { shape } = terms[0]!.examples;
    const size = exampleSize(shape);
    this.#examples = give(names.examples, new Float32Array(terms.length * rows * size), [terms.length * rows, ...shape]);
    this.#targets = terms.map((_, i) => give(names.targets(i), new Float32Array(rows * classes), [rows, classes]));
    this.#rowWeights = terms.map((_, i) => give(names.rowWeights(i), new Float32Array(rows), [rows, 1]));
    this.#noise = traced.noise.map(({ name, shape: noiseShape, layer }) => ({ layer, values: give(name, new Float32Array(exampleSize(noiseShape)), noiseShape) }));
  }

  /** One batch of each kind, one update of the weights. `loss` is not finite when training has diverged; nothing is updated then. */
  async step(): Promise<{ readonly loss: number; readonly rows: number }> {
    const batches = this.#terms.map((term) => term.next(this.#options.batchSize));
    const constant = batches.reduce((sum, positions, i) => sum + this.#stage(i, positions), 0);
    await this.#compiled.session.run(this.#inputs, this.#outputs);
    const loss = this.#loss[0]! + constant;
    if (Number.isFinite(loss)) {
      this.#penalize();
      this.#clip();
      this.#optimizer.step();
      this.steps++;
    }
    return { loss, rows: batches[0]!.length };
  }

  /** Copies the weights to where the model keeps them. */
  writeWeights(vector: Float32Array): void {
    vector.set(this.#arena.view(this.#arena.parameters, this.#layout.trainableLength));
  }

  /** Puts a batch where the graph reads it; gives the batch's constant part of the loss. */
  #stage(term: number, positions: Uint32Array): number {
    const { examples, weight, writeTarget, constant, plan } = this.#terms[term]!;
    const { rows } = this.#compiled.traced.plan;
    const size = exampleSize(examples.shape);
    const rowWeight = weight / positions.length;
    const targets = this.#targets[term]!;
    const classes = targets.length / rows;
    let sum = 0;
    for (let row = 0; row < rows; row++) {
      // A row that fills the batch up is a copy of the first one, so that it computes nothing that a real row does not.
      const position = positions[row] ?? positions[0]!;
      const isReal = row < positions.length;
      this.#examples.set(examples.values.subarray(position * size, (position + 1) * size), (term * rows + row) * size);
      writeTarget(targets.subarray(row * classes, (row + 1) * classes), position, isReal ? rowWeight : 0);
      this.#rowWeights[term]![row] = isReal && plan.kind === 'absoluteError' ? rowWeight / classes : 0;
      if (isReal) sum += rowWeight * constant(position);
    }
    const seeds = this.#seeds.next();
    for (const { layer, values } of this.#noise) {
      const share = values.length / this.#terms.length;
      fillUniform(values.subarray(term * share, (term + 1) * share), seeds[layer]!);
    }
    return sum;
  }

  /** Adds the gradient of (l2 / 2) * sum(kernel^2), which is l2 * kernel. */
  #penalize(): void {
    const { l2 = 0 } = this.#options;
    if (l2 === 0) return;
    const { kernels, parameters, gradients } = this.#arena;
    for (const { offset, length, trainable, penalized } of this.#layout.places) {
      // Up to the next weight: the gap is zero.
      if (trainable && penalized) kernels.addScaled(gradients + 4 * offset, parameters + 4 * offset, 4 * Math.ceil(length / 4) * 4, l2);
    }
  }

  /** Scales the gradient, all parts taken as one vector, down to the largest norm allowed. */
  #clip(): void {
    const { gradientClipNorm } = this.#options;
    if (gradientClipNorm === undefined) return;
    const { kernels, gradients, length } = this.#arena;
    const norm = Math.sqrt(kernels.sumOfSquares(gradients, length));
    if (norm > gradientClipNorm) kernels.scale(gradients, length, gradientClipNorm / norm);
  }
}
