/** From a sweep to its settings, in an order that depends on the sweep alone. */
import { deriveSeed, SeededGenerator } from '../../shared/datasets/seeded-generator.ts';
import { canonicalJson } from '../../shared/protocol/canonical-json.ts';
import { normalPath, type JsonValue } from './scenario-paths.ts';
import type { Sweep } from './sweep.ts';

/** What is set in the scenario: paths and values, in the order in which they are set. */
export type Overrides = readonly (readonly [path: string, value: JsonValue])[];

/** One way to run the scenario, with every seed. */
export interface Setting {
  /** Label of the case; null without cases. */
  readonly case: string | null;
  readonly overrides: Overrides;
}

type Range = NonNullable<Sweep['vary']['random']>['ranges'][string];

/** Cases outermost, then the grid with its first path outermost, then the samples. No two settings are the same. */
export function expandSettings({ vary }: Pick<Sweep, 'vary'>): Setting[] {
  const cases = vary.cases?.map(({ label, set }) => ({ case: label, overrides: normalEntries(set) })) ?? [{ case: null, overrides: [] }];
  const grid = Object.entries(vary.grid ?? {}).reduce<Overrides[]>((rows, [path, values]) => rows.flatMap((row) => values.map((value): Overrides => [...row, [normalPath(path), value]])), [[]]);
  const samples = drawSamples(vary.random);
  return cases.flatMap((one) => grid.flatMap((row) => samples.map((sample) => ({ case: one.case, overrides: [...one.overrides, ...row, ...sample] }))));
}

/** Every path that some setting sets, in the order of the sweep; each once. */
export function variedPaths({ vary }: Pick<Sweep, 'vary'>): string[] {
  const paths = [...(vary.cases ?? []).flatMap(({ set }) => Object.keys(set)), ...Object.keys(vary.grid ?? {}), ...Object.keys(vary.random?.ranges ?? {})];
  return [...new Set(paths.map(normalPath))];
}

/** A sample is the same whatever the number of samples, and each path's draws whatever the other paths. Samples that were drawn before are left out. */
function drawSamples(random: Sweep['vary']['random']): Overrides[] {
  if (random === undefined) return [[]];
  const columns = Object.entries(random.ranges).map(([path, range]) => {
    const generator = new SeededGenerator(deriveSeed(random.seed, 'sample', normalPath(path)));
    return Array.from({ length: random.samples }, (): readonly [string, JsonValue] => [normalPath(path), draw(range, generator.uniform())]);
  });
  const seen = new Set<string>();
  return Array.from({ length: random.samples }, (_, i) => columns.map((column) => column[i]!)).filter((sample) => {
    const text = canonicalJson(sample);
    return !seen.has(text) && seen.add(text);
  });
}

/** `uniform`: in [0, 1). */
function draw({ from = 0, to = 1, scale = 'linear', integer = false, among }: Range, uniform: number): JsonValue {
  if (among !== undefined) return among[Math.floor(uniform * among.length)]!;
  const clamp = (value: number) => Math.min(Math.max(value, from), to);
  if (integer && scale === 'linear') return from + Math.floor(uniform * (to - from + 1));
  const value = scale === 'log' ? Math.exp(Math.log(from) + uniform * (Math.log(to) - Math.log(from))) : from + uniform * (to - from);
  // Four digits: for tables, and because the last bits of a logarithm differ between machines.
  return clamp(integer ? Math.round(value) : Number(value.toPrecision(4)));
}

function normalEntries(set: Readonly<Record<string, JsonValue>>): Overrides {
  return Object.entries(set).map(([path, value]) => [normalPath(path), value]);
}
