/** From opened frames to the consensus: what a contribution must look like, and how contributions are combined. */
import type { TaskConfig } from '../../shared/config/task-config.ts';
import { aggregate, consensusFromSum, type Consensus, type SharedPredictions } from '../../shared/distillation/aggregation.ts';
import { FederationError } from '../../shared/errors.ts';
import { contributionStep, isOnGrid, largestInteger, type ReleaseParameters } from '../../shared/privacy/release.ts';
import { assertContribution, decodeFrame, frameBytes, type FloatEncoding } from '../../shared/protocol/matrix-frame.ts';
import { decodePartialPredictions, isPartialFrame, partialFrameBytes } from '../../shared/protocol/partial-frame.ts';
import type { Matrix, OutputKind } from '../../shared/types/matrix.ts';
import { exactly, type ByteLengths } from './uploads.ts';

/** What the frames of one round's contributions are. */
export interface ContributionShape {
  readonly release: ReleaseParameters;
  /** Dtype of frames that are not on the grid. */
  readonly encoding: FloatEncoding;
  /** Clients may leave out rows; default false. */
  readonly partial?: boolean;
  /** Then fewest clients that must share a row: what fewer say of it is learned by nobody. Default 1. */
  readonly minClientsPerRow?: number;
}

/** What the frame of a contribution may have in bytes. */
export function contributionLengths({ release, encoding, partial = false }: ContributionShape): ByteLengths {
  const { rows, columns } = release;
  const whole = frameBytes(isOnGrid(release) ? 'int32' : encoding, [rows, columns]);
  if (!partial) return exactly(whole);
  const [none, all] = [0, rows].map((shared) => partialFrameBytes(encoding, shared, rows, columns));
  return { least: Math.min(none!, whole), most: Math.max(all!, whole), step: 1 };
}

/** Largest |logit| accepted without noise: far beyond any trained model's, small enough that sums stay exact. */
const maxAbsoluteLogit = 1e4;
/** How far a probability may be outside [0, 1]: dequantised bytes are rounded to float32 twice. */
const probabilityTolerance = 1e-6;
/** How far a row of probabilities may be from summing to 1. One byte stands for steps of up to 1/255, and each value is off by up to half of one. */
const rowSumTolerance = (encoding: FloatEncoding, columns: number) => 0.05 + (encoding === 'uint8' ? columns / 510 : 0);

/** Decodes and checks one frame; throws `shape-mismatch`, `frame-*` or `value-out-of-range`. Noised integers become grid multiples. */
export function readContribution(bytes: Uint8Array, { release, encoding, partial = false }: ContributionShape): SharedPredictions {
  const { rows, columns, outputKind } = release;
  if (partial && isPartialFrame(bytes)) {
    const predictions = decodePartialPredictions(bytes, outputKind, encoding, rows, columns);
    assertPredictions(predictions, outputKind, encoding);
    return predictions;
  }
  const frame = decodeFrame(bytes, Math.max(bytes.length, frameBytes('float32', [rows, columns])));
  if (isOnGrid(release)) {
    assertContribution(frame, 'grid', rows, columns);
    assertPlausible(frame.values, largestInteger(release));
    return { rows, columns, values: Float32Array.from(frame.values, (integer) => integer * contributionStep(release)) };
  }
  assertContribution(frame, outputKind, rows, columns);
  if (frame.dtype !== encoding) throw new FederationError('shape-mismatch', 'The contribution has another dtype than announced.', { field: 'dtype', expected: encoding, got: frame.dtype });
  const matrix: Matrix = { rows, columns, values: frame.values as Float32Array };
  assertPredictions(matrix, outputKind, encoding);
  return matrix;
}

function assertPredictions(predictions: SharedPredictions, kind: OutputKind, encoding: FloatEncoding): void {
  if (kind === 'probabilities') assertProbabilities(predictions, rowSumTolerance(encoding, predictions.columns));
  else assertLogits(predictions);
}

/** No honest client's noise reaches this far; larger integers would only move the mean. */
function assertPlausible(values: ArrayLike<number>, largest: number): void {
  for (let i = 0; i < values.length; i++) {
    if (Math.abs(values[i]!) <= largest) continue;
    throw new FederationError('value-out-of-range', 'A noised integer is larger than prediction and noise together can be.', { field: 'values', expected: `at most ${Math.floor(largest)} in magnitude`, got: String(values[i]) });
  }
}

function assertProbabilities({ rows, columns, values, shared }: SharedPredictions, sumTolerance: number): void {
  for (let row = 0; row < rows; row++) {
    if (shared?.[row] === 0) continue;
    let sum = 0;
    for (let column = 0; column < columns; column++) {
      const value = values[row * columns + column]!;
      if (value < -probabilityTolerance || value > 1 + probabilityTolerance) throw new FederationError('value-out-of-range', `Row ${row} holds a value that is not a probability.`, { field: 'values', expected: '0 to 1', got: String(value) });
      sum += value;
    }
    if (Math.abs(sum - 1) > sumTolerance) throw new FederationError('value-out-of-range', `Row ${row} does not sum to 1.`, { field: 'values', expected: `1 +- ${sumTolerance}`, got: String(sum) });
  }
}

function assertLogits({ values }: Matrix): void {
  const position = values.findIndex((value) => Math.abs(value) > maxAbsoluteLogit);
  if (position >= 0) throw new FederationError('value-out-of-range', 'A logit is too large.', { field: 'values', expected: `at most ${maxAbsoluteLogit} in magnitude`, got: String(values[position]) });
}

/** What of a task's aggregation makes a consensus. */
type Combining = Pick<TaskConfig['aggregation'], 'aggregator' | 'eraTemperature' | 'eraExponent'>;

/** The consensus of these frames. Their order makes no difference. */
export function combineContributions(frames: readonly Uint8Array[], shape: ContributionShape, aggregation: Combining): Consensus {
  const contributions = frames.map((frame) => readContribution(frame, shape));
  const { aggregator, eraTemperature, eraExponent } = aggregation;
  return aggregate(contributions, { aggregator, eraTemperature, eraExponent, minClientsPerRow: shape.minClientsPerRow ?? 1, noised: isOnGrid(shape.release) });
}

/** The consensus of a sum of `survivors` integer matrices. Truncated to the grid, rows of probabilities do not sum to 1 even without noise: they are projected in any case. */
export function consensusOfSum(sum: Int32Array, survivors: number, { release }: ContributionShape, { aggregator, eraTemperature, eraExponent }: Combining): Consensus {
  const { rows, columns } = release;
  const step = contributionStep(release);
  return consensusFromSum({ rows, columns, sum: Float64Array.from(sum, (integer) => integer * step) }, survivors, { aggregator, eraTemperature, eraExponent, noised: true });
}
