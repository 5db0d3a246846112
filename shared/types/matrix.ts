/** A dense row-major matrix of float32 values: `values[row * columns + column]`. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  /** length = rows * columns */
  readonly values: Float32Array;
}

/** A dense row-major matrix of 32-bit integers: what a noised contribution is on the wire (units: grid steps). */
export interface IntegerMatrix {
  readonly rows: number;
  readonly columns: number;
  /** length = rows * columns */
  readonly values: Int32Array;
}

/** Examples without labels. `values` holds `count` examples of `shape`, one after the other, row-major. */
export interface Examples {
  readonly count: number;
  /** Shape of one example, e.g. [28, 28, 1]. */
  readonly shape: readonly number[];
  /** length = count * product(shape); images are scaled to [0, 1]. */
  readonly values: Float32Array;
}

/** Examples with one class label each, in [0, numClasses). */
export interface LabelledExamples {
  readonly examples: Examples;
  /** length = examples.count */
  readonly labels: Int32Array;
  readonly numClasses: number;
}

/** What the numbers of a prediction matrix are: pre-softmax scores, or class probabilities whose rows sum to 1. */
export type OutputKind = 'logits' | 'probabilities';

/** Number of values in one example of this shape. */
export function exampleSize(shape: readonly number[]): number {
  return shape.reduce((product, side) => product * side, 1);
}

/** The examples at these positions, copied, in that order. */
export function selectExamples(examples: Examples, indices: ArrayLike<number>): Examples {
  const size = exampleSize(examples.shape);
  const values = new Float32Array(indices.length * size);
  for (let i = 0; i < indices.length; i++) {
    const index = indices[i]!;
    if (!Number.isInteger(index) || index < 0 || index >= examples.count) {
      throw new RangeError(`"indices[${i}]" expected an integer in [0, ${examples.count}), got ${index}`);
    }
    values.set(examples.values.subarray(index * size, (index + 1) * size), i * size);
  }
  return { count: indices.length, shape: examples.shape, values };
}

/** The labelled examples at these positions, copied, in that order. */
export function selectLabelled(data: LabelledExamples, indices: ArrayLike<number>): LabelledExamples {
  const examples = selectExamples(data.examples, indices);
  return { examples, labels: Int32Array.from(indices, (index) => data.labels[index]!), numClasses: data.numClasses };
}

/** The rows at these positions, copied, in that order. */
export function selectRows(matrix: Matrix, indices: ArrayLike<number>): Matrix {
  const values = new Float32Array(indices.length * matrix.columns);
  for (let i = 0; i < indices.length; i++) {
    const index = indices[i]!;
    if (!Number.isInteger(index) || index < 0 || index >= matrix.rows) {
      throw new RangeError(`"indices[${i}]" expected an integer in [0, ${matrix.rows}), got ${index}`);
    }
    values.set(matrix.values.subarray(index * matrix.columns, (index + 1) * matrix.columns), i * matrix.columns);
  }
  return { rows: indices.length, columns: matrix.columns, values };
}
