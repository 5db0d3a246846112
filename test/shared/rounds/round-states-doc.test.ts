/** docs/round-states.md and the code use the same names. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { finishReasons } from '../../../shared/protocol/messages.ts';
import type { RoundEffect, RoundEvent, RoundPhase } from '../../../shared/rounds/state.ts';

const read = (path: string) => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8');
const doc = read('docs/round-states.md');
const section = (title: string) => doc.split(/^## /m).find((text) => text.startsWith(`${title}\n`))!;

// The compiler checks that each of these has every name of its union and no other.
const phases = Object.keys({ gathering: 1, opening: 1, collecting: 1, aggregating: 1, finished: 1 } satisfies Record<RoundPhase['phase'], 1>);
const events = Object.keys({
  'client-connected': 1,
  'client-disconnected': 1,
  'client-left': 1,
  'round-opened': 1,
  'contribution-stored': 1,
  'client-declined': 1,
  'timer-fired': 1,
  'round-aggregated': 1,
  'round-failed': 1,
  restarted: 1,
} satisfies Record<RoundEvent['type'], 1>);
const effects = Object.keys({ 'start-timer': 1, 'open-round': 1, announce: 1, 'open-stage': 1, aggregate: 1, 'close-round': 1, finish: 1 } satisfies Record<RoundEffect['type'], 1>);
type Lists = Extract<RoundPhase, { phase: 'collecting' }>;
const clientStates = Object.keys({ received: 1, declined: 1, lost: 1 } satisfies Partial<Record<keyof Lists, 1>>);

/** Names in code spans in the first column of a section's table. */
const firstColumn = (title: string) => [...section(title).matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1]!);
const arrows = (title: string) => [...section(title).matchAll(/^ {2}(\S+) --> (\S+)(?: : (.*))?$/gm)].map(([, from, to, label]) => ({ from: from!, to: to!, label: label ?? '' }));
/** The names of states in a section's diagram. */
const statesOf = (title: string) => [...new Set(arrows(title).flatMap(({ from, to }) => [from, to]))].filter((name) => name !== '[*]');
const hyphenated = (text: string) => text.match(/\b[a-z]+(?:-[a-z]+)+\b/g) ?? [];

describe('docs/round-states.md', () => {
  it('draws every phase and no other', () => {
    expect(statesOf('Phases').sort()).toEqual([...phases].sort());
  });

  it('draws a client with the names of the lists that it may be in', () => {
    expect(statesOf('One client in one stage').sort()).toEqual(['pending', ...clientStates].sort());
  });

  it('labels arrows with events only', () => {
    for (const { label } of [...arrows('Phases'), ...arrows('One client in one stage')]) for (const name of hyphenated(label)) expect(events).toContain(name);
  });

  it('lists every event and every effect, and no other', () => {
    expect(firstColumn('Events').sort()).toEqual([...events].sort());
    expect(firstColumn('Effects').sort()).toEqual([...effects].sort());
  });

  it('names every reason to finish', () => {
    const [, reasons] = /`finished` has a reason: ([^.]+)\./.exec(section('Phases'))!;
    expect([...reasons!.matchAll(/`([^`]+)`/g)].map((match) => match[1])).toEqual([...finishReasons]);
  });

  it('points to checks and files that exist', () => {
    const invariants = read('test/faults/invariants.ts');
    for (const [, check] of section('Invariants').matchAll(/[|,] `(\w+)`(?=,| \|$)/gm)) expect.soft(invariants).toContain(`function ${check}(`);
    for (const [, path] of doc.matchAll(/`((?:test|shared|docs)\/[^`]+\.ts)`/g)) expect.soft(() => read(path!), path).not.toThrow();
  });
});
