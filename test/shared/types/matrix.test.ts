import { describe, expect, it } from 'vitest';
import { exampleSize, selectExamples, selectLabelled, selectRows } from '../../../shared/types/matrix.ts';

const examples = { count: 3, shape: [2, 1], values: Float32Array.of(0, 1, 10, 11, 20, 21) };

describe('selecting by position', () => {
  it('copies in the order asked for, repeats included', () => {
    expect(selectExamples(examples, [2, 0, 2])).toEqual({ count: 3, shape: [2, 1], values: Float32Array.of(20, 21, 0, 1, 20, 21) });
    const labelled = selectLabelled({ examples, labels: Int32Array.of(7, 8, 9), numClasses: 10 }, Uint32Array.of(1, 0));
    expect(labelled.labels).toEqual(Int32Array.of(8, 7));
    expect(labelled.examples.values).toEqual(Float32Array.of(10, 11, 0, 1));
    const rows = selectRows({ rows: 3, columns: 2, values: examples.values }, [1]);
    expect(rows).toEqual({ rows: 1, columns: 2, values: Float32Array.of(10, 11) });
  });

  it('leaves the source alone when the copy is changed', () => {
    const copy = selectExamples(examples, [0]);
    copy.values[0] = 99;
    expect(examples.values[0]).toBe(0);
  });

  it.each([-1, 3, 0.5, NaN])('refuses position %d', (index) => {
    expect(() => selectExamples(examples, [index])).toThrow(RangeError);
    expect(() => selectRows({ rows: 3, columns: 2, values: examples.values }, [index])).toThrow(RangeError);
    expect(() => selectLabelled({ examples, labels: Int32Array.of(7, 8, 9), numClasses: 10 }, [index])).toThrow(RangeError);
  });

  it('counts the values of an example', () => {
    expect(exampleSize([28, 28, 1])).toBe(784);
    expect(exampleSize([])).toBe(1);
  });
});
