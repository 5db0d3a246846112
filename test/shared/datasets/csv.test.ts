import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Column } from '../../../shared/config/column-config.ts';
import { parseCsv, parseCsvRows } from '../../../shared/datasets/csv.ts';
import { fitColumns } from '../../../shared/datasets/fit-columns.ts';
import { FederationError } from '../../../shared/errors.ts';

const fileName = 'patients.csv';
const options = { fileName, labelColumn: 'diagnosis', numClasses: 3 };

function refusal(act: () => unknown): FederationError {
  try {
    act();
  } catch (error) {
    if (error instanceof FederationError) return error;
    throw error;
  }
  throw new Error('expected a FederationError');
}

describe('CSV tables', () => {
  it('takes every other column as a feature, unscaled, wherever the label column is', () => {
    const { examples, labels, featureNames } = parseCsv('age,diagnosis,dose\n61,2,-1.5e2\n47,0,.25\n', options);
    expect(featureNames).toEqual(['age', 'dose']);
    expect(examples).toEqual({ count: 2, shape: [2], values: Float32Array.of(61, -150, 47, 0.25) });
    expect([...labels!]).toEqual([2, 0]);
  });

  it('understands quotes, CRLF, a byte-order mark, spaces and empty lines', () => {
    const text = '\uFEFF"age, in ""years""",diagnosis\r\n\r\n"61", 1\r\n   \r\n47,"2.0"\r\n';
    const { examples, labels, featureNames } = parseCsv(text, options);
    expect(featureNames).toEqual(['age, in "years"']);
    expect([...examples.values]).toEqual([61, 47]);
    expect([...labels!]).toEqual([1, 2]);
  });

  it('maps class names, shapes examples, selects rows, and works without labels', () => {
    const text = 'a,b,c,d,kind\n1,2,3,4,cat\n5,6,7,8,dog\n9,10,11,12,cat\n';
    const { examples, labels } = parseCsv(text, { fileName, labelColumn: 'kind', classNames: ['dog', 'cat'], exampleShape: [2, 2, 1], offset: 1, size: 2 });
    expect(examples.shape).toEqual([2, 2, 1]);
    expect([...examples.values]).toEqual([5, 6, 7, 8, 9, 10, 11, 12]);
    expect([...labels!]).toEqual([0, 1]);
    expect(parseCsv('a,b\n1,2\n', { fileName }).labels).toBeUndefined();
    // A label column that is not read is still no feature, and its content does not matter.
    const unread = parseCsv(text, { fileName, labelColumn: 'kind', readLabels: false });
    expect(unread.labels).toBeUndefined();
    expect(unread.examples.shape).toEqual([4]);
  });

  it('reads back any table of fields that was quoted by the rules', () => {
    const tables = fc.array(fc.array(fc.string({ unit: fc.constantFrom('a', '"', ',', '\n', '\r\n', ' ', '7', 'é') }), { minLength: 2, maxLength: 4 }), { minLength: 1, maxLength: 6 });
    fc.assert(fc.property(tables, fc.constantFrom('\n', '\r\n'), (table, newline) => {
      const text = table.map((row) => row.map((field) => `"${field.replaceAll('"', '""')}"`).join(',')).join(newline);
      expect(parseCsvRows(text, fileName).map((row) => row.fields)).toEqual(table);
    }));
  });

  it('reads back any float32', () => {
    fc.assert(fc.property(fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 1 }), (values) => {
      const { examples } = parseCsv(`x\n${values.join('\n')}\n`, { fileName });
      expect([...examples.values]).toEqual(values.map((value) => value + 0 === 0 ? 0 : value));
    }));
  });
});

describe('bad CSV tables', () => {
  it('lists the first ten problems at once, each with row, line and column', () => {
    const rows = Array.from({ length: 15 }, (_, i) => `x${i},1`);
    const error = refusal(() => parseCsv(['age,diagnosis', '', '61', '47,7', ...rows].join('\n'), options));
    expect(error.code).toBe('data-invalid');
    expect(error.message).toContain('patients.csv: 17 problems');
    expect(error.message).toContain('row 1 (line 3): expected 2 fields, got 1');
    expect(error.message).toContain('row 2 (line 4), column `diagnosis`: expected a class: an integer in [0, 3), got another number');
    expect(error.message).toContain('row 3 (line 5), column `age`: expected a number (float32), got text of 2 characters');
    expect(error.message.split('\n')).toHaveLength(12);
    expect(error.message).toContain('and 7 more');
    expect(error.field).toBe('patients.csv: row 1 (line 3)');
  });

  it('counts lines inside quoted fields', () => {
    expect(refusal(() => parseCsv('"a\nname",diagnosis\n1,1\n?,1', options)).message).toContain('row 2 (line 4)');
  });

  it.each<[string, string, string]>([
    ['an empty file', '', 'an empty file'],
    ['no label column', 'age,dose\n1,2', 'a label column "diagnosis", got columns "age, dose"'],
    ['a column named twice', 'age,age,diagnosis\n1,2,0', 'a name used once'],
    ['a column without a name', 'age,,diagnosis\n1,2,0', 'a column name'],
    ['no feature', 'diagnosis\n1', 'at least 1 feature column'],
    ['no rows', 'age,diagnosis\n', 'got 0'],
    ['a missing value', 'age,diagnosis\n,1', 'got nothing'],
    ['a missing label', 'age,diagnosis\n3,', 'got nothing'],
    ['not a number', 'age,diagnosis\nNaN,1', 'a missing value ("NaN")'],
    ['hexadecimal', 'age,diagnosis\n0x10,1', 'got text of 4 characters'],
    ['too large for float32', 'age,diagnosis\n1e39,1', 'a number (float32), got another number'],
    ['half a class', 'age,diagnosis\n1,1.5', 'got another number'],
    ['a negative class', 'age,diagnosis\n1,-1', 'got another number'],
    ['an open quote', 'age,diagnosis\n"1,1\n', 'closing quote'],
    ['text after a quote', 'age,diagnosis\n"1"x,1\n', 'after a closing quote'],
    ['a quote inside a field', 'age,diagnosis\n1"1,1\n', 'quotes only around a whole field'],
  ])('refuses %s', (_, text, part) => {
    const error = refusal(() => parseCsv(text, options));
    expect(error.code).toBe('data-invalid');
    expect(error.message).toContain('patients.csv');
    expect(error.message).toContain(part);
    for (const field of [error.field, error.expected, error.got, error.next]) expect(field).toBeTruthy();
  });

  it('refuses a number of columns that does not fit the shape, and an unknown class name', () => {
    expect(refusal(() => parseCsv('a,b,diagnosis\n1,2,0', { ...options, exampleShape: [3] })).message).toContain('3 feature columns for shape [3], got 2');
    expect(refusal(() => parseCsv('a,diagnosis\n1,bird', { ...options, classNames: ['dog', 'cat'] })).message).toContain('"dog, cat"');
  });

  it('allocates nothing for a table that only its header and row count promise', () => {
    // 100,000 columns and 100,000 rows would be 40 GB.
    const header = Array.from({ length: 100_000 }, (_, i) => `c${i}`).join(',');
    expect(refusal(() => parseCsv(`${header}\n${'1\n'.repeat(100_000)}`, { fileName })).message).toContain('100000 problems');
  });

  it('throws only FederationErrors, whatever the text', () => {
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom('a', '1', ',', '"', '\n', '\r', ' ', 'diagnosis', '.') }), (text) => {
      try {
        parseCsv(text, options);
      } catch (error) {
        expect(error).toBeInstanceOf(FederationError);
      }
    }), { numRuns: 1000 });
  });
});

describe('columns of a CSV table', () => {
  const columns: readonly Column[] = [
    { kind: 'category', name: 'smoker', values: ['yes', 'no'], whenUnknown: 'refuse', whenMissing: 'zeros' },
    { kind: 'number', name: 'age', mean: 50, scale: 20, whenMissing: 60 },
    { kind: 'category', name: 'ward', values: ['a', 'b', 'none'], whenUnknown: 'zeros', whenMissing: 'refuse' },
  ];
  const table = 'patient,age,smoker,ward,diagnosis\nm. k.,70,no,b,2\n"x, y",NA,,none,0\nz,30,yes,q,1\n';

  it('are scaled by their constants, written as ones and zeros, and chosen in their order; others are not looked at', () => {
    const { examples, labels, featureNames } = parseCsv(table, { ...options, columns });
    expect(featureNames).toEqual(['smoker=yes', 'smoker=no', 'age', 'ward=a', 'ward=b', 'ward=none']);
    expect([...examples.values]).toEqual([0, 1, 1, 0, 1, 0, 0, 0, 0.5, 0, 0, 1, 1, 0, -1, 0, 0, 0]);
    expect([...labels!]).toEqual([2, 0, 1]);
    expect(examples.shape).toEqual([6]);
  });

  it('refuse missing and unknown values by row and column, without showing what is in any cell', () => {
    const strict = columns.map((column): Column => (column.kind === 'number' ? { kind: 'number', name: 'age', mean: 0, scale: 1 } : { ...column, whenUnknown: 'refuse', whenMissing: 'refuse' }));
    const { message } = refusal(() => parseCsv('age,smoker,ward,diagnosis\nseventy,perhaps,b,flu\nNA,,q,2\n', { ...options, columns: strict }));
    expect(message).toContain('row 1 (line 2), column `smoker`: expected one of "yes, no", got text of 7 characters');
    expect(message).toContain('row 1 (line 2), column `age`: expected a number (float32), got text of 7 characters');
    expect(message).toContain('row 1 (line 2), column `diagnosis`: expected a class: an integer in [0, 3), got text of 3 characters');
    expect(message).toContain('row 2 (line 3), column `smoker`: expected one of "yes, no", got nothing');
    expect(message).toContain('row 2 (line 3), column `age`: expected a number (float32), got a missing value ("NA")');
    expect(message).toContain('row 2 (line 3), column `ward`: expected one of "a, b, none", got text of 1 character');
    for (const cell of ['seventy', 'perhaps', 'flu', '"q"']) expect(message).not.toContain(cell);
  });

  it('must be there, and not be the label', () => {
    expect(refusal(() => parseCsv('age,diagnosis\n1,0', { ...options, columns })).message).toContain('a column "smoker", got columns "age, diagnosis"');
    expect(refusal(() => parseCsv(table, { ...options, columns: [{ kind: 'number', name: 'diagnosis', mean: 0, scale: 1 }] })).message).toContain('features that are not the label');
    expect(refusal(() => parseCsv(table, { ...options, columns, exampleShape: [5] })).message).toContain('5 feature columns for shape [5], got 6 (of 3 `columns`; a category has one for each value)');
  });

  it('can be fitted on a public table: what comes out has mean 0 and deviation 1, and takes every row of it', () => {
    const rows = Array.from({ length: 40 }, (_, i) => `${i % 7 === 0 ? 'NA' : 3.5 * i},${['x', 'y', ''][i % 3]!},7,${i % 2}`);
    const text = `size,kind,constant,diagnosis\n${rows.join('\n')}\n`;
    const fitted = fitColumns(text, { fileName, without: ['diagnosis'] });
    expect(fitted.map(({ kind, name }) => [kind, name])).toEqual([['number', 'size'], ['category', 'kind'], ['number', 'constant']]);
    expect(fitted[1]).toMatchObject({ values: ['x', 'y'], whenMissing: 'zeros' });
    expect(fitted[2]).toEqual({ kind: 'number', name: 'constant', mean: 7, scale: 1 });
    const { examples } = parseCsv(text, { ...options, columns: fitted });
    const sizes = Array.from({ length: 40 }, (_, i) => examples.values[4 * i]!).filter((_, i) => i % 7 !== 0);
    const mean = sizes.reduce((sum, value) => sum + value, 0) / sizes.length;
    expect(mean).toBeCloseTo(0, 4);
    expect(Math.sqrt(sizes.reduce((sum, value) => sum + (value - mean) ** 2, 0) / sizes.length)).toBeCloseTo(1, 4);
    expect(refusal(() => fitColumns(text, { fileName, without: ['label'] })).field).toBe('patients.csv: column `label`');
    expect(refusal(() => fitColumns(`note\n${Array.from({ length: 101 }, (_, i) => `text ${i}`).join('\n')}`, { fileName, without: [] })).next).toContain('--without note');
  });
});
