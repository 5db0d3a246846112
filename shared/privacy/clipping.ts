/**
 * Bounds what one client can contribute: from predictions to integers whose norms never exceed what
 * `matrixNorms` publishes, so that neighbors are never further apart than `releaseSensitivity` says. Everything is clipped toward zero, so no rounding is added to the sensitivity.
 *
 * The order: row, whole matrix, grid, then an exact check on the integers that are sent. The check can't fail (the proof
 * is in docs/privacy-model.md, section 3); it is there so that a bug here stops a release instead of weakening it.
 * A refusal (non-finite predictions) depends on private data and would be visible to the coordinator: a client gives such rows no opinion before they come here (`contribution.ts`).
 */
import { FederationError } from '../errors.ts';
import type { IntegerMatrix, Matrix } from '../types/matrix.ts';
import type { ReleaseParameters } from './release.ts';
import { checkRelease, matrixNorms } from './release.ts';

/** How far a row of probabilities may be from sum 1 before we say that it was clipped. */
const ROW_SUM_TOLERANCE = 1e-3;

/** Keeps a value that lies on the grid up to float64 error from losing a whole step. Far inside `FLOAT_SLACK`. */
const TRUNCATION_NUDGE = 2 ** -40;

export interface ConstrainedPredictions {
  /** In grid steps. */
  readonly grid: IntegerMatrix;
  /** A bound changed something. Private: depends on the private dataset, so it is never sent. */
  readonly wasClipped: boolean;
}

/**
 * A client's contribution before noise: its one matrix of predictions, or with `shards` the sum of its shards' matrices, each of which is bounded as a
 * whole client's would be; with `recordVotes` the counts of its records' votes. Throws `shape-mismatch` for another number of matrices.
 */
export function constrainContribution(predictions: readonly Matrix[], parameters: ReleaseParameters): ConstrainedPredictions {
  checkRelease(parameters);
  const { rows, columns, shards = 1, recordVotes } = parameters;
  if (predictions.length !== shards) {
    throw new FederationError('shape-mismatch', 'a contribution needs the predictions of every shard, and of nothing else', { field: 'predictions', expected: `${shards} matrices`, got: String(predictions.length) });
  }
  if (recordVotes !== undefined) return { grid: countsOnGrid(predictions[0]!, parameters), wasClipped: false };
  const values = new Int32Array(rows * columns);
  let wasClipped = false;
  for (const matrix of predictions) {
    const bounded = constrainSensitivity(matrix, parameters);
    // At most shards * maxAbsolute, which `checkRelease` has found to fit.
    for (let i = 0; i < values.length; i++) values[i]! += bounded.grid.values[i]!;
    wasClipped ||= bounded.wasClipped;
  }
  return { grid: { rows, columns, values }, wasClipped };
}

/** Clips one matrix of predictions (a client's, or one shard's) to the bounds of the release and puts it on its grid. */
export function constrainSensitivity(predictions: Matrix, parameters: ReleaseParameters): ConstrainedPredictions {
  checkRelease(parameters);
  checkShape(predictions, parameters);
  const { rows, columns, gridStep } = parameters;
  const bounded = new Float64Array(rows * columns);
  let wasClipped = false;
  for (let row = 0; row < rows; row++) {
    const source = predictions.values.subarray(row * columns, (row + 1) * columns);
    const target = bounded.subarray(row * columns, (row + 1) * columns);
    checkFinite(source, row);
    if (parameters.votes === true) vote(source, target);
    else {
      const changed = parameters.outputKind === 'probabilities' ? projectProbabilities(source, target) : clipRow(source, target, parameters.rowClippingNorm ?? 0);
      wasClipped ||= changed;
    }
  }

  // Implied by the row bounds, and kept: the guarantee is stated for the whole matrix, so the whole matrix is what is clipped.
  const rowNorm = parameters.outputKind === 'probabilities' ? 1 : (parameters.rowClippingNorm ?? 0);
  const wholeNorm = Math.sqrt(bounded.reduce((sum, value) => sum + value * value, 0));
  const scale = (Math.min(1, (rowNorm * Math.sqrt(rows)) / wholeNorm) * (1 + TRUNCATION_NUDGE)) / gridStep;

  const values = new Int32Array(rows * columns);
  for (let i = 0; i < values.length; i++) values[i] = Math.trunc(bounded[i]! * scale);
  const grid = { rows, columns, values };
  checkIntegerNorms(grid, parameters);
  return { grid, wasClipped };
}

/**
 * Whole votes, times the steps of one vote. There is nothing to clip: that each record has one vote is the counting's (`nearest-query-votes.ts`), and what is no count, or
 * are more votes than may be cast, is a bug that throws `internal`.
 */
function countsOnGrid(counts: Matrix, parameters: ReleaseParameters): IntegerMatrix {
  checkShape(counts, parameters);
  const { rows, columns, gridStep, recordVotes = 0 } = parameters;
  // Before the product: what is above 2^31 would come out as another integer.
  if (!counts.values.every((count) => Number.isSafeInteger(count) && count >= 0) || counts.values.reduce((sum, count) => sum + count, 0) > recordVotes) {
    throw new FederationError('internal', 'votes that are no counts, or too many; nothing was released', { field: 'predictions' });
  }
  const steps = Math.trunc((1 + TRUNCATION_NUDGE) / gridStep);
  const grid = { rows, columns, values: Int32Array.from(counts.values, (count) => count * steps) };
  checkIntegerNorms(grid, parameters);
  return grid;
}

/** Puts integers from the wire back into units of the predictions: every value is a multiple of `gridStep`. */
export function gridToPredictions(grid: IntegerMatrix, gridStep: number): Matrix {
  return { rows: grid.rows, columns: grid.columns, values: Float32Array.from(grid.values, (value) => value * gridStep) };
}

/** Throws `internal` when the integers exceed the published sensitivity. Exact: sums of integers below 2^53. */
export function checkIntegerNorms(grid: IntegerMatrix, parameters: ReleaseParameters): void {
  const bound = matrixNorms(parameters);
  let sumOfSquares = 0;
  let sumOfMagnitudes = 0;
  let smallest = 0;
  let largest = 0;
  for (const value of grid.values) {
    sumOfSquares += value * value;
    sumOfMagnitudes += Math.abs(value);
    smallest = Math.min(smallest, value);
    largest = Math.max(largest, value);
  }
  const isBounded =
    sumOfSquares <= bound.l2 ** 2 &&
    sumOfMagnitudes <= bound.l1 &&
    Math.max(largest, -smallest) <= bound.maxAbsolute &&
    (parameters.outputKind === 'logits' || smallest >= 0);
  if (!isBounded) {
    // The norms themselves are private: they stay out of the message.
    throw new FederationError('internal', 'clipped predictions exceed the published sensitivity; nothing was released', { field: 'clipping' });
  }
}

export function checkShape(shape: { readonly rows: number; readonly columns: number }, parameters: ReleaseParameters): void {
  if (shape.rows === parameters.rows && shape.columns === parameters.columns) return;
  throw new FederationError('shape-mismatch', 'the predictions do not have the shape of the release', {
    field: 'predictions',
    expected: `${parameters.rows} x ${parameters.columns}`,
    got: `${shape.rows} x ${shape.columns}`,
  });
}

/** Negative values to 0, then divided by the sum; a row without a positive value becomes uniform. */
function projectProbabilities(source: Float32Array, target: Float64Array): boolean {
  let sum = 0;
  let hasNegative = false;
  for (let i = 0; i < source.length; i++) {
    const value = source[i]!;
    hasNegative ||= value < 0;
    target[i] = Math.max(0, value);
    sum += target[i]!;
  }
  if (sum === 0) {
    target.fill(1 / target.length);
    return true;
  }
  for (let i = 0; i < target.length; i++) target[i] = target[i]! / sum;
  return hasNegative || Math.abs(sum - 1) > ROW_SUM_TOLERANCE;
}

/** One for the largest value (the first of equal ones); nothing at all for a row whose values are all equal: it has no opinion. */
function vote(source: Float32Array, target: Float64Array): void {
  let best = 0;
  let smallest = Infinity;
  source.forEach((value, i) => {
    if (value > source[best]!) best = i;
    smallest = Math.min(smallest, value);
  });
  if (source[best]! > smallest) target[best] = 1;
}

/** Scales the row down to L2 norm `rowClippingNorm` when it is longer. */
function clipRow(source: Float32Array, target: Float64Array, rowClippingNorm: number): boolean {
  let sumOfSquares = 0;
  for (const value of source) sumOfSquares += value * value;
  const norm = Math.sqrt(sumOfSquares);
  const factor = norm > rowClippingNorm ? rowClippingNorm / norm : 1;
  for (let i = 0; i < target.length; i++) target[i] = source[i]! * factor;
  return factor < 1;
}

function checkFinite(row: Float32Array, index: number): void {
  if (row.every(Number.isFinite)) return;
  throw new FederationError('data-invalid', 'the student predicted a value that is not a finite number', {
    field: `predictions[${index}]`,
    expected: 'finite numbers',
    next: 'Lower the learning rate, or check the private data for missing values.',
  });
}
