import { describe, expect, it } from 'vitest';
import { Arena, ArenaPool } from '../../../../shared/compute/onnx/arena.ts';
import { javascriptKernels, type VectorKernels, wasmKernels } from '../../../../shared/compute/onnx/optimizers.ts';
import { wasm } from '../../../../shared/compute/web-assembly.ts';
import { SeededGenerator } from '../../../../shared/datasets/seeded-generator.ts';

const floats = 1024;
const bytes = 4 * floats;

/** Four vectors of odd numbers, and what is in memory and returned after `use`. */
function run(kind: 'wasm' | 'javascript', use: (kernels: VectorKernels) => unknown): { memory: Float32Array; result: unknown } {
  const memory = new wasm.Memory({ initial: 1 });
  const all = new Float32Array(memory.buffer, 0, 4 * floats);
  const generator = new SeededGenerator(3);
  // Second moments are not negative.
  for (let i = 0; i < all.length; i++) all[i] = i < 3 * floats ? generator.gaussian() : Math.abs(generator.gaussian());
  const kernels = kind === 'wasm' ? wasmKernels(memory)! : javascriptKernels(memory);
  const result = use(kernels);
  return { memory: all.slice(), result };
}

describe('vector kernels in WebAssembly give the bits that JavaScript gives', () => {
  const cases: Record<string, (kernels: VectorKernels) => unknown> = {
    sgd: (kernels) => kernels.sgd(0, bytes, bytes, 0.0371),
    momentum: (kernels) => kernels.momentum(0, bytes, 2 * bytes, bytes, 0.0371, 0.83),
    adam: (kernels) => {
      for (let step = 0; step < 3; step++) kernels.adam(0, bytes, 2 * bytes, 3 * bytes, bytes, 0.00217, 0.9, 0.999, 1e-7);
    },
    addScaled: (kernels) => kernels.addScaled(0, bytes, bytes, 0.137),
    scale: (kernels) => kernels.scale(bytes, bytes, 0.733),
    sumOfSquares: (kernels) => kernels.sumOfSquares(bytes, bytes),
    'a part of the memory': (kernels) => kernels.sgd(64, bytes + 64, 128, 0.5),
  };
  it.each(Object.entries(cases))('%s', (_, use) => {
    expect(run('wasm', use)).toEqual(run('javascript', use));
  });

  it('and the sum of squares is that of float64', () => {
    const { memory, result } = run('wasm', (kernels) => kernels.sumOfSquares(bytes, bytes));
    const expected = memory.subarray(floats, 2 * floats).reduce((sum, value) => sum + value ** 2, 0);
    expect(result).toBeCloseTo(expected, 10);
  });
});

describe('arenas', () => {
  it('start with the parameters and with zeros elsewhere, also when used before', () => {
    const arena = new Arena(100);
    arena.reset(new Float32Array(100).fill(3));
    arena.view(arena.gradients, 112).fill(5);
    arena.view(arena.secondMoments, 112).fill(5);
    arena.reset(Float32Array.of(1, 2));
    expect([...arena.view(arena.parameters, 16)]).toEqual([1, 2, ...new Array<number>(14).fill(0)]);
    expect(arena.view(arena.gradients, 16).every((value) => value === 0)).toBe(true);
    expect(arena.view(arena.secondMoments, 16).every((value) => value === 0)).toBe(true);
    expect(arena.length).toBe(64);
  });

  it('are used again when they are large enough', () => {
    const pool = new ArenaPool();
    const arena = pool.acquire(100);
    expect(pool.acquire(50)).not.toBe(arena);
    pool.release(arena);
    expect(pool.acquire(1000)).not.toBe(arena);
    expect(pool.acquire(50)).toBe(arena);
  });
});
