/** Learning-rate schedules as `engine.ts` defines them. */
import { unreachable } from '../errors.ts';
import type { LearningRateSchedule, OptimizerSpec } from './engine.ts';

/** The learning rate of the update after `step` others, of `steps` in all. */
export function learningRateAt({ learningRate }: OptimizerSpec, schedule: LearningRateSchedule | undefined, step: number, steps: number): number {
  return schedule === undefined ? learningRate : learningRate * factorAt(schedule, step, steps);
}

function factorAt(schedule: LearningRateSchedule, step: number, steps: number): number {
  const { warmupSteps = 0 } = schedule;
  if (step < warmupSteps) return (step + 1) / warmupSteps;
  const sinceWarmup = step - warmupSteps;
  switch (schedule.kind) {
    case 'constant':
      return 1;
    case 'stepDecay':
      return schedule.factor ** Math.floor(sinceWarmup / schedule.everySteps);
    case 'cosine': {
      const { finalFraction = 0 } = schedule;
      return finalFraction + ((1 - finalFraction) * (1 + Math.cos((Math.PI * sinceWarmup) / (steps - warmupSteps)))) / 2;
    }
    default:
      return unreachable(schedule);
  }
}
