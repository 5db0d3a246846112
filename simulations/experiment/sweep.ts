/** A sweep: one scenario, what varies in it, and the seeds; one YAML file (docs/experiments.md). */
import { z } from 'zod';
import { parseYaml } from '../../shared/config/load.ts';
import { canonicalJson, type Json } from '../../shared/protocol/canonical-json.ts';
import { normalPath, overlaps, pathProblem } from './scenario-paths.ts';

/** Points of one sweep: more is more likely a slip than a plan. */
export const MAX_POINTS = 10_000;

const seed = z.int().min(0).max(0xffff_ffff);

const PathSchema = z.string().superRefine((path, context) => {
  const problem = pathProblem(path);
  if (problem !== undefined) context.addIssue({ code: 'custom', message: `expected ${problem.expected}`, params: { hint: problem.hint } });
});

const RangeSchema = z
  .strictObject({
    /** Numbers are drawn from here to there, both ends included. */
    from: z.number().optional(),
    to: z.number().optional(),
    /** `log`: the logarithm is uniform. */
    scale: z.enum(['linear', 'log']).optional(),
    /** Whole numbers only. Others are rounded to four significant digits. */
    integer: z.boolean().optional(),
    /** Instead of numbers: one of these values. */
    among: z.array(z.json()).min(1).optional(),
  })
  .superRefine(({ from, to, scale, integer, among }, context) => {
    const mistake = (path: string[], message: string) => context.addIssue({ code: 'custom', path, message: `expected ${message}` });
    if (among !== undefined) {
      if (from !== undefined || to !== undefined || scale !== undefined || integer !== undefined) mistake(['among'], 'either `among` or `from` and `to`');
    } else if (from === undefined || to === undefined) mistake([], '`from` and `to`, or `among`');
    else if (!(from < to)) mistake(['to'], `more than \`from\` (${from})`);
    else if (scale === 'log' && from <= 0) mistake(['from'], 'more than 0, because the scale is log');
    else if (integer === true && (!Number.isInteger(from) || !Number.isInteger(to))) mistake(['from'], 'whole numbers `from` and `to`, because of `integer`');
  });

/** Values at positions, each once. */
function distinct<T>(textOf: (value: T) => string) {
  return (values: readonly T[], context: z.RefinementCtx) => {
    const seen = new Set<string>();
    values.forEach((value, i) => {
      if (seen.has(textOf(value))) context.addIssue({ code: 'custom', path: [i], message: 'expected every value once' });
      seen.add(textOf(value));
    });
  };
}

const CaseSchema = z.strictObject({
  /** Names the case in tables and files. */
  label: z.string().regex(/^\S(.{0,62}\S)?$/u, 'expected 1 to 64 characters without spaces around them'),
  /** Settings that go together: path and value; null takes a key away, so that its default holds. */
  set: z.record(PathSchema, z.json()),
});

export const SweepSchema = z
  .strictObject({
    /** Name, also of the experiment's folder. */
    experiment: z.string().regex(/^[a-z0-9][a-z0-9_-]{0,63}$/, 'expected 1 to 64 characters of a-z, 0-9, - and _'),
    /** A scenario's file, relative to this one, or the scenario itself. */
    scenario: z.union([z.string().min(1), z.record(z.string(), z.unknown())]),
    /** Every setting is run with each of these as `task.seed`. */
    seeds: z.array(seed).min(1).max(1000).superRefine(distinct(String)).default([1]),
    vary: z
      .strictObject({
        cases: z.array(CaseSchema).min(1).max(1000).superRefine(distinct(({ label }) => label)).optional(),
        /** Path and the values it takes: every combination. */
        grid: z.record(PathSchema, z.array(z.json()).min(1).max(MAX_POINTS).superRefine(distinct((value) => canonicalJson(value as Json)))).optional(),
        /** The same draws with every case and every combination of the grid. */
        random: z.strictObject({ samples: z.int().min(1).max(MAX_POINTS), seed: seed.default(1), ranges: z.record(PathSchema, RangeSchema) }).optional(),
      })
      .prefault({}),
  })
  .superRefine(({ vary, seeds }, context) => {
    const outer = [...Object.keys(vary.grid ?? {}).map((path) => ['vary', 'grid', path]), ...Object.keys(vary.random?.ranges ?? {}).map((path) => ['vary', 'random', 'ranges', path])];
    const check = (paths: readonly (readonly (string | number)[])[], isNew: (place: readonly (string | number)[]) => boolean) => {
      paths.forEach((place, i) => {
        const earlier = paths.slice(0, i).find((other) => overlaps(normalPath(String(other.at(-1))), normalPath(String(place.at(-1)))));
        if (earlier !== undefined && isNew(place)) context.addIssue({ code: 'custom', path: [...place], message: `expected a path that is not also set by ${earlier.slice(0, -1).join('.')} (\`${String(earlier.at(-1))}\`)` });
      });
    };
    check(outer, () => true);
    (vary.cases ?? []).forEach(({ set }, i) => check([...outer, ...Object.keys(set).map((path) => ['vary', 'cases', i, 'set', path])], (place) => place[1] === 'cases'));
    const count = pointCount({ vary, seeds });
    if (count > MAX_POINTS) context.addIssue({ code: 'custom', path: ['vary'], message: `expected at most ${MAX_POINTS} points; these are ${count}` });
  });
export type Sweep = z.infer<typeof SweepSchema>;

/** Cases x combinations of the grid x samples x seeds. Samples that come out equal are run once and counted here as often as they were drawn. */
export function pointCount({ vary: { cases, grid, random }, seeds }: Pick<Sweep, 'vary' | 'seeds'>): number {
  return (cases?.length ?? 1) * Object.values(grid ?? {}).reduce((product, values) => product * values.length, 1) * (random?.samples ?? 1) * seeds.length;
}

/** Throws `config-invalid` with every mistake. */
export function parseSweep(text: string, fileName: string): Sweep {
  return parseYaml(SweepSchema, text, fileName);
}
