/** What every refusal of `fedstill` has in common. */
import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import { documentedCodes } from '../abuse/tally.ts';
import type { Running } from './fedstill.ts';

export interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly field?: string | RegExp;
  readonly got?: string | RegExp;
  /** Something that the whole message says. */
  readonly says?: RegExp;
  /** Members that this message does without, because there is nothing to say. */
  readonly without?: readonly ('expected' | 'got' | 'next')[];
}

const exitOf: Readonly<Record<string, number>> = { badInput: 2, refused: 3, peer: 4, internal: 1 };
const table = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');

/** Ends with this status, and says on standard error what is wrong, where, what was expected, what came and what to do, with a code of docs/errors.md whose status it is. */
export async function expectRefusal(running: Running, refusal: Refusal): Promise<void> {
  const status = await running.ended;
  const text = running.err();
  const context = `${text}\n--- standard output\n${running.out()}`;
  expect(status, context).toBe(refusal.status);
  expect(text, context).toMatch(/^error: \S/m);
  expect(member(text, 'code'), context).toBe(refusal.code);
  expect(documentedCodes).toContain(refusal.code);
  expect(exitOf[new RegExp(`^\\| \`${refusal.code}\` \\| \`(\\w+)\``, 'm').exec(table)![1]!], 'the status of docs/errors.md').toBe(refusal.status);
  for (const name of ['field', 'expected', 'got', 'next'] as const) {
    if ((refusal.without as readonly string[] | undefined)?.includes(name) !== true) expect(member(text, name), `${name}: is missing\n${context}`).toBeDefined();
  }
  if (refusal.field !== undefined) expect(member(text, 'field'), context).toMatch(asPattern(refusal.field));
  if (refusal.got !== undefined) expect(member(text, 'got'), context).toMatch(asPattern(refusal.got));
  if (refusal.says !== undefined) expect(text).toMatch(refusal.says);
  expectPlain(running);
}

/** No colors and cursor movements, no stack of ours, no log lines in JSON. */
export function expectPlain(running: Running): void {
  for (const text of [running.out(), running.err()]) {
    // eslint-disable-next-line no-control-regex
    expect(text).not.toMatch(/[\u001b\u009b]/);
    expect(text).not.toMatch(/^\s+at .*:\d+:\d+\)?$/m);
  }
  expect(running.err()).not.toMatch(/^\{"level"/m);
}

function member(text: string, name: string): string | undefined {
  return new RegExp(`^  ${name}: +(\\S.*)$`, 'm').exec(text)?.[1];
}

function asPattern(wanted: string | RegExp): RegExp {
  return typeof wanted === 'string' ? new RegExp(`^${wanted.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`) : wanted;
}
