/** TF.js's optimizers with what `engine.ts` adds to them: an L2 penalty on kernels, a decay of all weights, and learning-rate schedules. */
import type { Optimizer, Scalar, SGDOptimizer, Tensor, Variable } from '@tensorflow/tfjs';
import { unreachable } from '../errors.ts';
import { tf } from './backend.ts';
import type { FitOptions, OptimizerSpec } from './engine.ts';
import { kernelVariableNames, type LoadedModel } from './layers-model.ts';
import { learningRateAt } from './learning-rate.ts';

export type Gradients = Record<string, Tensor>;

/** One training. Every method runs inside a tensor scope. */
export class EagerOptimizer {
  steps = 0;
  readonly #options: Pick<FitOptions, 'optimizer' | 'learningRateSchedule' | 'l2' | 'weightDecay'>;
  readonly #totalSteps: number;
  readonly #variables: readonly Variable[];
  readonly #kernels: ReadonlySet<string>;
  readonly #optimizer: Optimizer;

  constructor({ network }: LoadedModel, variables: readonly Variable[], options: Pick<FitOptions, 'optimizer' | 'learningRateSchedule' | 'l2' | 'weightDecay'>, totalSteps: number) {
    this.#options = options;
    this.#totalSteps = totalSteps;
    this.#variables = variables;
    this.#kernels = kernelVariableNames(network);
    this.#optimizer = createOptimizer(options.optimizer);
  }

  /** Adds the gradient of (l2 / 2) * sum(kernel^2), which is l2 * kernel, and the decay of all weights. */
  penalize(gradients: Gradients): Gradients {
    const { l2 = 0, weightDecay = 0 } = this.#options;
    if (l2 === 0 && weightDecay === 0) return gradients;
    for (const variable of this.#variables) {
      const gradient = gradients[variable.name];
      const factor = weightDecay + (this.#kernels.has(variable.name) ? l2 : 0);
      if (gradient !== undefined && factor !== 0) gradients[variable.name] = tf.add(gradient, tf.mul(variable, factor));
    }
    return gradients;
  }

  apply(gradients: Gradients): void {
    const { optimizer, learningRateSchedule } = this.#options;
    if (learningRateSchedule !== undefined) setLearningRate(this.#optimizer, optimizer, learningRateAt(optimizer, learningRateSchedule, this.steps, this.#totalSteps));
    this.#optimizer.applyGradients(gradients);
    this.steps++;
  }

  dispose(): void {
    this.#optimizer.dispose();
  }
}

function setLearningRate(optimizer: Optimizer, { kind }: OptimizerSpec, rate: number): void {
  if (kind === 'sgd') (optimizer as SGDOptimizer).setLearningRate(rate);
  // Adam reads it in every step.
  else (optimizer as unknown as { learningRate: number }).learningRate = rate;
}

function createOptimizer(spec: OptimizerSpec): Optimizer {
  switch (spec.kind) {
    case 'adam':
      return tf.train.adam(spec.learningRate);
    case 'sgd':
      return spec.momentum === undefined || spec.momentum === 0 ? tf.train.sgd(spec.learningRate) : createMomentum(spec.learningRate, spec.momentum);
    default:
      return unreachable(spec);
  }
}

function createMomentum(learningRate: number, momentum: number): Optimizer {
  const optimizer = tf.train.momentum(learningRate, momentum);
  // TF.js makes this scalar without keeping it, so the scope that we are in would free it before the first step.
  tf.keep((optimizer as unknown as { m: Scalar }).m);
  const dispose = optimizer.dispose.bind(optimizer);
  optimizer.dispose = () => {
    dispose();
    // The scalar of the plain SGD it extends, which its own dispose forgets.
    (optimizer as unknown as { c: Scalar }).c.dispose();
  };
  return optimizer;
}
