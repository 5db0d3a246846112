/**
 * The arithmetic between two steps, over flat float32 vectors: SGD, momentum, Adam, and what weight decay and clipping need.
 * One pass over memory in WebAssembly with SIMD; where that does not start, the same operations in the same order in
 * JavaScript, so that both give the same bits.
 */
import type { OptimizerSpec } from '../engine.ts';
import { unreachable } from '../../errors.ts';
import { optimizersWasm } from './optimizers-wasm.ts';
import { wasm, type WasmMemory, type WasmModule } from '../web-assembly.ts';

/** Vectors are named by their byte offset in the memory; `length` is in bytes, a multiple of 16. */
export interface VectorKernels {
  sgd(parameter: number, gradient: number, length: number, rate: number): void;
  momentum(parameter: number, gradient: number, velocity: number, length: number, rate: number, momentum: number): void;
  adam(parameter: number, gradient: number, first: number, second: number, length: number, rate: number, beta1: number, beta2: number, epsilon: number): void;
  /** target += factor * source */
  addScaled(target: number, source: number, length: number, factor: number): void;
  scale(target: number, length: number, factor: number): void;
  /** In float64. */
  sumOfSquares(source: number, length: number): number;
}

let compiled: WasmModule | 'unavailable' | undefined;

/** The kernels over this memory: in WebAssembly, or in JavaScript where there is no SIMD. */
export function vectorKernels(memory: WasmMemory): VectorKernels {
  return wasmKernels(memory) ?? javascriptKernels(memory);
}

export function wasmKernels(memory: WasmMemory): VectorKernels | undefined {
  try {
    compiled ??= new wasm.Module(optimizersWasm);
  } catch {
    compiled = 'unavailable';
  }
  if (compiled === 'unavailable') return undefined;
  return new wasm.Instance(compiled, { arena: { memory } }).exports as unknown as VectorKernels;
}

export function javascriptKernels(memory: WasmMemory): VectorKernels {
  const round = Math.fround;
  const vector = (offset: number, length: number) => new Float32Array(memory.buffer, offset, length / 4);
  return {
    sgd(parameter, gradient, length, rate) {
      const [p, g, r] = [vector(parameter, length), vector(gradient, length), round(rate)];
      for (let i = 0; i < p.length; i++) p[i] = p[i]! - round(g[i]! * r);
    },
    momentum(parameter, gradient, velocity, length, rate, momentum) {
      const [p, g, v] = [vector(parameter, length), vector(gradient, length), vector(velocity, length)];
      const [r, m] = [round(rate), round(momentum)];
      for (let i = 0; i < p.length; i++) {
        v[i] = round(v[i]! * m) + g[i]!;
        p[i] = p[i]! - round(v[i]! * r);
      }
    },
    adam(parameter, gradient, first, second, length, rate, beta1, beta2, epsilon) {
      const [p, g, m, v] = [vector(parameter, length), vector(gradient, length), vector(first, length), vector(second, length)];
      const [r, b1, b2, e] = [round(rate), round(beta1), round(beta2), round(epsilon)];
      const [rest1, rest2] = [round(1 - b1), round(1 - b2)];
      for (let i = 0; i < p.length; i++) {
        m[i] = round(m[i]! * b1) + round(g[i]! * rest1);
        v[i] = round(v[i]! * b2) + round(round(g[i]! * g[i]!) * rest2);
        p[i] = p[i]! - round(round(m[i]! * r) / round(round(Math.sqrt(v[i]!)) + e));
      }
    },
    addScaled(target, source, length, factor) {
      const [t, s, f] = [vector(target, length), vector(source, length), round(factor)];
      for (let i = 0; i < t.length; i++) t[i] = t[i]! + round(s[i]! * f);
    },
    scale(target, length, factor) {
      const [t, f] = [vector(target, length), round(factor)];
      for (let i = 0; i < t.length; i++) t[i] = t[i]! * f;
    },
    sumOfSquares(source, length) {
      const s = vector(source, length);
      const sums = [0, 0, 0, 0];
      for (let i = 0; i < s.length; i++) sums[i % 4]! += s[i]! * s[i]!;
      return sums[0]! + sums[2]! + (sums[1]! + sums[3]!);
    },
  };
}

/** Where the vectors of one model lie. */
export interface OptimizedVectors {
  readonly parameters: number;
  readonly gradients: number;
  readonly firstMoments: number;
  readonly secondMoments: number;
  /** Bytes of each. */
  readonly length: number;
}

/** Of Kingma & Ba 2015, with the epsilon that TF.js takes. */
const adam = { beta1: 0.9, beta2: 0.999, epsilon: 1e-7 };

/** One call of `fit`: the moments must be zero when it begins. */
export class VectorOptimizer {
  readonly #spec: OptimizerSpec;
  readonly #kernels: VectorKernels;
  readonly #vectors: OptimizedVectors;
  #steps = 0;

  constructor(spec: OptimizerSpec, kernels: VectorKernels, vectors: OptimizedVectors) {
    this.#spec = spec;
    this.#kernels = kernels;
    this.#vectors = vectors;
  }

  /** Moves the parameters against the gradients. `learningRate`: that of this step. */
  step(learningRate: number): void {
    const { parameters, gradients, firstMoments, secondMoments, length } = this.#vectors;
    const spec = this.#spec;
    this.#steps++;
    switch (spec.kind) {
      case 'sgd':
        if (spec.momentum === undefined || spec.momentum === 0) this.#kernels.sgd(parameters, gradients, length, learningRate);
        else this.#kernels.momentum(parameters, gradients, firstMoments, length, learningRate, spec.momentum);
        break;
      case 'adam': {
        // m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) with the corrections taken out of the vectors.
        const correction1 = 1 - adam.beta1 ** this.#steps;
        const correction2 = Math.sqrt(1 - adam.beta2 ** this.#steps);
        this.#kernels.adam(parameters, gradients, firstMoments, secondMoments, length, (learningRate * correction2) / correction1, adam.beta1, adam.beta2, adam.epsilon * correction2);
        break;
      }
      default:
        unreachable(spec);
    }
  }
}
