/** A teacher held against labelled public examples. */
import type { OpenModel } from '../../shared/compute/engine.ts';
import { evaluate } from '../../shared/distillation/evaluation.ts';
import type { LabelledExamples } from '../../shared/types/matrix.ts';

/** How good the teacher is on the evaluation set; `null` where there is no model or no such set. */
export interface TeacherQuality {
  /** In [0, 1]. */
  readonly accuracy: number | null;
  /** Mean negative log-likelihood, in nats. */
  readonly nll: number | null;
}

export const noQuality: TeacherQuality = { accuracy: null, nll: null };

export async function measureTeacher(model: OpenModel | undefined, evaluationSet: LabelledExamples | undefined): Promise<TeacherQuality> {
  if (model === undefined || evaluationSet === undefined) return noQuality;
  const { accuracy, negativeLogLikelihood } = evaluate(await model.predict(evaluationSet.examples), 'logits', evaluationSet.labels);
  return { accuracy, nll: negativeLogLikelihood };
}
