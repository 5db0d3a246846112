/** The points of a sweep: each setting with each seed, as checked scenarios, with the hash under which a result is kept. */
import { ConfigError, configIssues, type ConfigIssue } from '../../shared/config/load.ts';
import { sha256 } from '../../shared/crypto/digest.ts';
import { FederationError } from '../../shared/errors.ts';
import { canonicalJson, type Json } from '../../shared/protocol/canonical-json.ts';
import { toHex } from '../../shared/types/bytes.ts';
import { checkScenario, type Scenario } from '../scenario.ts';
import { expandSettings, variedPaths, type Setting } from './expand.ts';
import { setPath, valueAtPath, type JsonValue } from './scenario-paths.ts';
import type { Sweep } from './sweep.ts';

/** One run of a sweep. */
export interface Point {
  /** Position in the order of the sweep, from 0. */
  readonly index: number;
  /** Label of the case; null without cases. */
  readonly case: string | null;
  /** Every varied path and its value in this scenario, null where it has no such key. */
  readonly settings: Readonly<Record<string, JsonValue>>;
  readonly seed: number;
  /** With every default filled in. */
  readonly scenario: Scenario;
  /** Content hash: points with the same key are one computation. */
  readonly key: string;
}

/** What a result depends on besides the scenario. */
export interface PointContext {
  /** Of fedstill. */
  readonly version: string;
  /** Name of the compute engine. */
  readonly engine: string;
  /** Hash of each data source of a scenario that is a user's own, by its path in the scenario. */
  readonly dataDigests: (scenario: Scenario) => Promise<Readonly<Record<string, string>>>;
}

/** `base`: the scenario as it was written, without defaults. Throws `config-invalid` with the mistakes of all points; `fileName` is the sweep's. */
export async function makePoints(sweep: Sweep, base: Readonly<Record<string, unknown>>, fileName: string, context: PointContext): Promise<Point[]> {
  const paths = variedPaths(sweep);
  const points: Point[] = [];
  for (const { setting, scenario } of checkSettings(sweep, base, fileName)) {
    const settings = Object.fromEntries(paths.map((path) => [path, valueAtPath(scenario, path)]));
    const dataDigests = await context.dataDigests(scenario);
    for (const seed of sweep.seeds) {
      const seeded: Scenario = { ...scenario, task: { ...scenario.task, seed } };
      points.push({ index: points.length, case: setting.case, settings, seed, scenario: seeded, key: pointKey(seeded, { ...context, dataDigests }) });
    }
  }
  return points;
}

/** 16 hexadecimal digits. Where keys stand in a file does not matter, their values do. */
export function pointKey(scenario: Scenario, { version, engine, dataDigests }: { readonly version: string; readonly engine: string; readonly dataDigests: Readonly<Record<string, string>> }): string {
  const content = { format: 'fedstill-point/1', scenario: scenario as unknown as Json, version, engine, data: dataDigests };
  return toHex(sha256(new TextEncoder().encode(canonicalJson(content)))).slice(0, 16);
}

function checkSettings(sweep: Sweep, base: Readonly<Record<string, unknown>>, fileName: string): { readonly setting: Setting; readonly scenario: Scenario }[] {
  const settings = expandSettings(sweep);
  // The same mistake in many settings is said once.
  const mistakes = new Map<string, { readonly issue: ConfigIssue; readonly first: string; count: number }>();
  const note = (issue: ConfigIssue, first: string) => {
    const text = JSON.stringify([issue.path, issue.expected, issue.got]);
    const known = mistakes.get(text);
    if (known === undefined) mistakes.set(text, { issue, first, count: 1 });
    else known.count++;
  };
  const checked = settings.flatMap((setting) => {
    const raw = structuredClone(base) as Record<string, unknown>;
    const name = describeOverrides(setting);
    const slips = setting.overrides.flatMap(([path, value]) => setPath(raw, path, value) ?? []);
    for (const slip of slips) note({ ...slip, line: undefined, column: undefined, hint: undefined }, name);
    try {
      return [{ setting, scenario: checkScenario(raw, fileName) }];
    } catch (error) {
      for (const issue of issuesOf(error)) note(issue, name);
      return [];
    }
  });
  if (mistakes.size === 0) return checked;
  throw new ConfigError(
    fileName,
    [...mistakes.values()].map(({ issue, first, count }) => {
      const where = settings.length === 1 ? undefined : count === settings.length ? 'with every setting' : `with ${count} of ${settings.length} settings, first ${first}`;
      return { ...issue, line: undefined, column: undefined, got: where === undefined ? issue.got : `${issue.got} (${where})` };
    }),
  );
}

/** `local, task.privacy.epsilon = 2`: what tells this setting from the others. */
function describeOverrides({ case: label, overrides }: Setting): string {
  const parts = overrides.map(([path, value]) => `${path} = ${JSON.stringify(value)}`);
  return [...(label === null ? [] : [label]), ...parts].join(', ');
}

function issuesOf(error: unknown): readonly ConfigIssue[] {
  const issues = configIssues(error);
  if (issues.length > 0) return issues;
  if (!(error instanceof FederationError) || error.fault !== 'badInput') throw error;
  return [{ path: error.field ?? '', line: undefined, column: undefined, expected: error.expected ?? error.message, got: error.got ?? 'something else', hint: error.next }];
}
