import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseTextTable, type TextTableOptions } from '../../../shared/datasets/text-table.ts';
import { FederationError } from '../../../shared/errors.ts';

const options = (format: TextTableOptions['format'], changes: Partial<TextTableOptions> = {}): TextTableOptions => ({ fileName: `mail.${format}`, format, textColumn: 'text', labelColumn: 'label', numClasses: 2, ...changes });

function refusal(act: () => unknown): FederationError {
  try {
    act();
  } catch (error) {
    if (error instanceof FederationError) return error;
    throw error;
  }
  throw new Error('expected a FederationError');
}

describe('tables of texts', () => {
  it('say the same as CSV, TSV and JSON lines', () => {
    const expected = { texts: ['Hello, "you"', '', 'bye'], labels: Int32Array.of(0, 1, 1) };
    expect(parseTextTable('label,text\n0,"Hello, ""you"""\n1,\n1,bye\n', options('csv'))).toEqual(expected);
    expect(parseTextTable('\uFEFFtext\tlabel\r\nHello, "you"\t0\r\n\t1\r\nbye\t1\r\n', options('tsv'))).toEqual(expected);
    expect(parseTextTable('{"label":0,"text":"Hello, \\"you\\""}\n\n{"text":"","label":"1"}\n{"text":"bye","label":1,"more":null}', options('jsonl'))).toEqual(expected);
  });

  it('have names for classes and columns, parts, and no labels where none are needed', () => {
    const named = { textColumn: 'v2', labelColumn: 'v1', classNames: ['ham', 'spam'] };
    expect(parseTextTable('v1\tv2\nham\ta\nspam\tb\nham\tc\n', options('tsv', { ...named, offset: 1, size: 2 }))).toEqual({ texts: ['b', 'c'], labels: Int32Array.of(1, 0) });
    const { labels, texts } = parseTextTable('v2\na\n', options('tsv', { ...named, numClasses: undefined }));
    expect([labels, texts]).toEqual([undefined, ['a']]);
  });

  it('give back every text that JSON can hold', () => {
    fc.assert(fc.property(fc.array(fc.string({ unit: 'binary' }), { minLength: 1 }), (texts) => {
      expect(parseTextTable(texts.map((text) => JSON.stringify({ text, label: 0 })).join('\n'), options('jsonl')).texts).toEqual(texts);
    }));
  });

  it('name the place of what is wrong and show nobody\'s message', () => {
    const secret = 'my secret is 1234';
    const errors = [
      refusal(() => parseTextTable(`label,text\nspam,${secret}\n0,${secret},${secret}\n`, options('csv'))),
      refusal(() => parseTextTable(`label\ttext\n${secret}\t${secret}\n`, options('tsv'))),
      refusal(() => parseTextTable(`${JSON.stringify(secret)}\n{"text": "${secret}"}\n{"text": 7}\n{${secret}\n`, options('jsonl'))),
      refusal(() => parseTextTable(`0\t${secret} and much more than a header would be long\n`, options('tsv'))),
    ];
    for (const error of errors) {
      expect(error.code).toBe('data-invalid');
      expect(`${error.message} ${error.got}`).not.toContain('secret');
    }
    expect(errors[0]!.message).toContain('row 2 (line 3): expected 2 fields, got 3');
    expect(errors[1]!.message).toContain('row 1 (line 2), column `label`: expected a class: an integer in [0, 2), got text of 17 characters');
    expect(errors[2]!.message.split('\n').slice(1)).toEqual([
      '  row 1 (line 1): expected a JSON object, got something else',
      '  row 2 (line 2), key `label`: expected a number or text, got nothing',
      '  row 3 (line 3), key `text`: expected text, got a value of type number',
      '  row 4 (line 4): expected a JSON object, got something else',
    ]);
    expect(errors[3]!.message).toContain('is the header missing?');
  });

  it.each([['csv', ''], ['tsv', '\n\n'], ['jsonl', ''], ['csv', 'label,text'], ['tsv', 'label\tbody\n0\tx'], ['csv', 'text,text,label\na,b,0']] as const)('refuse an empty or ambiguous %s file %j', (format, content) => {
    expect(refusal(() => parseTextTable(content, options(format))).code).toBe('data-invalid');
  });
});
