import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { parseTaskConfig, schemaKeys } from '../../../shared/config/load.ts';
import { TaskConfigSchema } from '../../../shared/config/task-config.ts';

let page: string;
/** Key -> text of the default column. */
const defaults = new Map<string, string>();
beforeAll(async () => {
  page = await readFile(new URL('../../../docs/task.md', import.meta.url), 'utf8');
  for (const [, key, text] of page.matchAll(/^\| `([\w.]+)` \| ([^|]*) \|/gm)) defaults.set(key!, text!.trim());
});

const blocks = (language: string) => [...page.matchAll(new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``, 'g'))].map(([, text]) => text!);

describe('docs/task.md', () => {
  it('has a row for every key of the schema, and for no other', () => {
    // Data sources have one table for all places they are used in.
    const keys = schemaKeys(TaskConfigSchema).map((key) => key.replace(/^(transferSet|evaluationSet)\./, ''));
    expect([...defaults.keys()].sort()).toEqual([...new Set(keys)].sort());
  });

  it('names the defaults that the schema has', () => {
    const task = parseTaskConfig('task: a\ndata: { numClasses: 2, exampleShape: [1] }\ntransferSet: { source: mnist }', 'task.yaml');
    for (const [section, values] of Object.entries(task)) {
      if (['task', 'data', 'transferSet'].includes(section)) continue;
      if (typeof values !== 'object') continue;
      for (const [key, value] of Object.entries(values as object)) {
        if (typeof value === 'object') continue;
        // Not every notation of a small number is the shortest one.
        const text = /^`([^`]*)`/.exec(defaults.get(`${section}.${key}`) ?? '')?.[1] ?? '';
        expect(typeof value === 'number' ? Number(text) : text, `${section}.${key}`).toBe(value);
      }
    }
  });

  it('has an example that is valid', () => {
    const task = parseTaskConfig(blocks('yaml')[0]!, 'task.yaml');
    expect(task.task).toBe('digits-across-branches');
  });

  it('shows the errors as they are', () => {
    expect(() => parseTaskConfig(blocks('yaml')[1]!, 'task.yaml')).toThrow(blocks('text')[0]!.trimEnd());
  });
});
