import { expect, it } from 'vitest';
import type { LearningRateSchedule } from '../../../shared/compute/engine.ts';
import { learningRateAt } from '../../../shared/compute/learning-rate.ts';

const optimizer = { kind: 'adam', learningRate: 0.5 } as const;
const rates = (schedule: LearningRateSchedule | undefined, steps: number) => Array.from({ length: steps }, (_, step) => learningRateAt(optimizer, schedule, step, steps) / 0.5);

it('is constant without a schedule', () => {
  expect(rates(undefined, 3)).toEqual([1, 1, 1]);
});

it('rises linearly in the warm-up, which may be the whole fit', () => {
  expect(rates({ kind: 'constant', warmupSteps: 4 }, 6)).toEqual([0.25, 0.5, 0.75, 1, 1, 1]);
  expect(rates({ kind: 'cosine', warmupSteps: 4 }, 2)).toEqual([0.25, 0.5]);
  expect(rates({ kind: 'cosine', warmupSteps: 2 }, 2)).toEqual([0.5, 1]);
});

it('falls in steps, counted from the end of the warm-up', () => {
  expect(rates({ kind: 'stepDecay', factor: 0.5, everySteps: 2, warmupSteps: 1 }, 7)).toEqual([1, 1, 1, 0.5, 0.5, 0.25, 0.25]);
});

it('falls along half a cosine, never below its end', () => {
  const falling = rates({ kind: 'cosine', finalFraction: 0.1, warmupSteps: 1 }, 101);
  expect(falling[1]).toBe(1);
  expect(falling[51]).toBeCloseTo(0.55, 12);
  for (let step = 2; step < 101; step++) expect(falling[step]!).toBeLessThan(falling[step - 1]!);
  expect(falling[100]).toBeGreaterThan(0.1);
  expect(falling[100]).toBeLessThan(0.102);
});
