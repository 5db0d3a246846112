/** Outcomes of baselines, in the shape that experiments compare (`outcome.ts`). */
import { accuracy } from '../../shared/distillation/evaluation.ts';
import { exampleSize, type LabelledExamples, type Matrix } from '../../shared/types/matrix.ts';
import { qualityOf } from '../model-quality.ts';
import type { ClientOutcome, ModelQuality, Outcome, RoundOutcome } from '../outcome.ts';
import type { ScenarioData } from '../run-simulation.ts';
import type { Party } from './setting.ts';

/** What a baseline ends with. Nothing is claimed, so there is no statement. */
export function baselineOutcome({ final, clients, rounds }: { readonly final: ModelQuality | null; readonly clients: readonly ClientOutcome[]; readonly rounds: readonly RoundOutcome[] }): Outcome {
  const { bytesUp, bytesDown } = rounds.at(-1)!;
  return { reason: 'rounds-done', final, clients: [...clients], rounds: [...rounds], bytesUp, bytesDown, statement: null };
}

/** A client as it ends: with a model of its own where `logits` are that model's on the test set, else with none that anybody measured. */
export function clientOutcome({ name, model, records }: Party, { testSet }: Pick<ScenarioData, 'testSet'>, logits?: Matrix): ClientOutcome {
  const { accuracy: share, nll } = qualityOf(logits, testSet);
  return { name, model, privateRecords: records.examples.count, accuracy: share, nll, localOnlyAccuracy: null, error: null };
}

/** Accuracy where there is something to measure with, else null. */
export function measured(logits: Matrix | undefined, set: LabelledExamples | undefined): number | null {
  return logits === undefined || set === undefined ? null : accuracy(logits, set.labels);
}

/** Bytes of `count` class ids: one each, two for more than 256 classes. */
export function classIdBytes(count: number, numClasses: number): number {
  return count * (numClasses > 256 ? 2 : 1);
}

/** Bytes of records as float32 values and class ids: what giving them to someone else moves. */
export function recordBytes({ examples, numClasses }: LabelledExamples): number {
  return 4 * examples.count * exampleSize(examples.shape) + classIdBytes(examples.count, numClasses);
}
