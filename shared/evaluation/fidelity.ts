/**
 * How far a student does what its teacher does, which is another thing than being right: Stanton et al. 2021, "Does Knowledge
 * Distillation Really Work?" (top-1 agreement and mean KL on held-out examples).
 */
import { argmax } from '../distillation/evaluation.ts';
import { logSoftmax } from '../distillation/temperature.ts';
import { FederationError } from '../errors.ts';
import type { Matrix } from '../types/matrix.ts';

export interface Fidelity {
  /** Share of examples with the same argmax, in [0, 1]. */
  readonly agreement: number;
  /** The same over those where the teacher is right, and where it is wrong: the second says how far its mistakes were taken over. Null without such examples. */
  readonly agreementWhereTeacherRight: number | null;
  readonly agreementWhereTeacherWrong: number | null;
  readonly teacherWrong: number;
  /** Mean `KL(teacher ‖ student)` in nats, at temperature 1. */
  readonly meanKl: number;
}

/** Of two models on the same examples. Both matrices hold logits [examples x classes]. */
export function fidelity(teacher: Matrix, student: Matrix, labels: Int32Array): Fidelity {
  if (teacher.rows !== student.rows || teacher.columns !== student.columns || labels.length !== teacher.rows || teacher.rows === 0) {
    throw new FederationError('data-invalid', 'Two models are compared on the same examples and classes.', { field: 'predictions', expected: `[${teacher.rows} x ${teacher.columns}] of both`, got: `[${student.rows} x ${student.columns}] and ${labels.length} labels` });
  }
  const [ofTeacher, ofStudent] = [argmax(teacher), argmax(student)];
  const counts = { right: 0, agreedRight: 0, wrong: 0, agreedWrong: 0 };
  labels.forEach((label, row) => {
    const agrees = ofTeacher[row] === ofStudent[row] ? 1 : 0;
    if (ofTeacher[row] === label) {
      counts.right++;
      counts.agreedRight += agrees;
    } else {
      counts.wrong++;
      counts.agreedWrong += agrees;
    }
  });
  return {
    agreement: (counts.agreedRight + counts.agreedWrong) / labels.length,
    agreementWhereTeacherRight: counts.right === 0 ? null : counts.agreedRight / counts.right,
    agreementWhereTeacherWrong: counts.wrong === 0 ? null : counts.agreedWrong / counts.wrong,
    teacherWrong: counts.wrong,
    meanKl: meanKl(teacher, student),
  };
}

function meanKl(teacher: Matrix, student: Matrix): number {
  const [p, q] = [logSoftmax(teacher).values, logSoftmax(student).values];
  let sum = 0;
  for (let i = 0; i < p.length; i++) sum += Math.exp(p[i]!) * (p[i]! - q[i]!);
  // A divergence is not negative; rounding to float32 may leave one that is, by about 1e-7.
  return Math.max(0, sum / teacher.rows);
}
