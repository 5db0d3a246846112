/**
 * Results of experiments as settings: points that differ in their seed alone are repetitions of one setting. Everything that pages, figures and tables say about a
 * setting is computed here, once. Pure.
 */
import type { Guarantee, PrivacyStatement } from '../../shared/privacy/statement.ts';
import { isSuccess, type PointFailure, type PointResult, type PointSuccess } from '../experiment/result.ts';
import type { Outcome } from '../outcome.ts';
import { epsilon as epsilonText, integer, plural, smallNumber, summarize, visibleLine, type Summary } from './format.ts';

/** One folder, as read. */
export interface Experiment {
  readonly name: string;
  /** As the user named the folder; for messages, never in a page. */
  readonly directory: string;
  readonly results: readonly PointResult[];
  /** Its run says that it has not ended: results are missing. */
  readonly isRunning: boolean;
  /** What made it; null where nobody knows. */
  readonly command: string | null;
  /** The sweep's (or scenario's) file, word for word. */
  readonly sweep: string | null;
  /** Name and value: machine, software, engine. */
  readonly environment: readonly (readonly [string, string])[];
}

export interface Setting {
  /** Position in the report, from 1: how figures and tables refer to each other. */
  readonly number: number;
  readonly experiment: string;
  readonly case: string | null;
  /** Dotted path and value, in the order of the sweep; those that vary in its experiment. */
  readonly values: readonly (readonly [string, unknown])[];
  /** For a person, e.g. `dpSgd, epsilon 4`. */
  readonly label: string;
  /** `label` without what sets epsilon: points with the same are one line over epsilon. */
  readonly series: string;
  /** Ascending seeds. */
  readonly points: readonly PointSuccess[];
  readonly failures: readonly PointFailure[];
  /** The guarantee that figures draw, null for none (baselines, no noise). */
  readonly guarantee: StatedGuarantee | null;
}

/** An epsilon with everything that gives it a meaning. */
export interface StatedGuarantee {
  readonly epsilon: number;
  readonly delta: number;
  readonly unit: Guarantee['unit'];
  readonly adjacency: Guarantee['adjacency'];
  readonly adversary: string;
  readonly accountant: string;
  readonly releases: number;
  /** Transfer examples that one client predicted on, counted as often as it did. */
  readonly rowsPerClient: number;
  readonly rowsPerRelease: number;
  readonly mechanism: PrivacyStatement['mechanism'];
}

/** What is measured of one point; null where it was not. */
export type Measure = (outcome: Outcome) => number | null;

const known = (values: readonly (number | null | undefined)[]): number[] => values.filter((value): value is number => typeof value === 'number' && Number.isFinite(value));
const meanOf = (values: readonly (number | null | undefined)[]): number | null => summarize(known(values)).mean;

/** Of the model that the coordinator, or a baseline, ends with. */
export const finalAccuracy: Measure = ({ final }) => final?.accuracy ?? null;
/** Mean over the clients' own models. */
export const clientAccuracy: Measure = ({ clients }) => meanOf(clients.map(({ accuracy }) => accuracy));
/** Mean over the same students, trained as often on their own records alone. */
export const localOnlyAccuracy: Measure = ({ clients }) => meanOf(clients.map((client) => client.localOnlyAccuracy));
export const calibrationError: Measure = ({ final }) => final?.calibrationError ?? null;
export const negativeLogLikelihood: Measure = ({ final }) => final?.nll ?? null;
/** Bytes, up and down, of one client on average. */
export const bytesPerClient: Measure = ({ clients, bytesUp, bytesDown }) => (clients.length === 0 ? null : (bytesUp + bytesDown) / clients.length);
/** Of the coordinator's model where there is one, else of the clients' models. */
export const headlineAccuracy: Measure = (outcome) => finalAccuracy(outcome) ?? clientAccuracy(outcome);

/** Over seeds. */
export function overSeeds(setting: Setting, measure: Measure): Summary {
  return summarize(known(setting.points.map(({ outcome }) => measure(outcome))));
}

/** All settings, in the order of the sweeps; experiments one after the other. */
export function settingsOf(experiments: readonly Experiment[]): Setting[] {
  const settings: Setting[] = [];
  for (const { name, results } of experiments) {
    const paths = shortPaths(results);
    // What a case sets is said by its name; what never changes need not be said.
    const tellsApart = (path: string, ofCase: string | null) => new Set(results.filter((result) => result.case === ofCase).map((result) => JSON.stringify(result.settings[path] ?? null))).size > 1;
    const groups = new Map<string, PointResult[]>();
    for (const result of [...results].sort((a, b) => a.index - b.index)) {
      const key = JSON.stringify([result.case, Object.entries(result.settings).sort(([a], [b]) => (a < b ? -1 : 1))]);
      groups.set(key, [...(groups.get(key) ?? []), result]);
    }
    for (const group of groups.values()) {
      const [first] = group;
      const bySeed = group.toSorted((a, b) => a.seed - b.seed);
      const values = Object.entries(first!.settings).filter(([, value]) => value !== null);
      const telling = values.filter(([path]) => tellsApart(path, first!.case));
      const words = (kept: readonly (readonly [string, unknown])[]) =>
        [first!.case, ...kept.map(([path, value]) => `${paths.get(path)!} ${valueText(value)}`)].filter((part) => part !== null).map((part) => visibleLine(part)).join(', ') || visibleLine(name);
      const points = bySeed.filter(isSuccess);
      settings.push({
        number: settings.length + 1,
        experiment: name,
        case: first!.case,
        values,
        label: words(telling),
        series: words(telling.filter(([path]) => !setsEpsilon(path))),
        points,
        failures: bySeed.filter((result): result is PointFailure => !isSuccess(result)),
        guarantee: guaranteeOf(points),
      });
    }
  }
  return withCaseLines(withExperiments(settings));
}

/** The names of experiments in front of labels, where labels alone would not tell them apart. */
function withExperiments(settings: readonly Setting[]): Setting[] {
  const experimentsOf = new Map<string, Set<string>>();
  for (const { label, experiment } of settings) experimentsOf.set(label, (experimentsOf.get(label) ?? new Set()).add(experiment));
  if ([...experimentsOf.values()].every(({ size }) => size === 1)) return [...settings];
  const prefixed = (setting: Setting, text: string) => (text === visibleLine(setting.experiment) ? text : `${visibleLine(setting.experiment)}, ${text}`);
  return settings.map((setting) => ({ ...setting, label: prefixed(setting, setting.label), series: prefixed(setting, setting.series) }));
}

/** Cases that differ in what sets epsilon alone are one line too, named by how their names begin. */
function withCaseLines(settings: readonly Setting[]): Setting[] {
  const groups = new Map<string, Setting[]>();
  for (const setting of settings) {
    const key = JSON.stringify([setting.experiment, setting.values.filter(([path]) => !setsEpsilon(path)).sort(([a], [b]) => (a < b ? -1 : 1))]);
    groups.set(key, [...(groups.get(key) ?? []), setting]);
  }
  const nameOf = new Map<Setting, string>();
  for (const group of groups.values()) {
    const names = [...new Set(group.map(({ series }) => series))];
    const epsilons = new Set(group.map(({ guarantee }) => guarantee?.epsilon));
    if (names.length < 2 || epsilons.has(undefined) || epsilons.size < group.length) continue;
    const common = commonBeginning(names);
    if (common !== '') for (const setting of group) nameOf.set(setting, common);
  }
  return settings.map((setting) => ({ ...setting, series: nameOf.get(setting) ?? setting.series }));
}

/** Whole words that all begin with, without punctuation at their end. */
function commonBeginning(names: readonly string[]): string {
  const words = names.map((name) => name.split(' '));
  const count = words[0]!.findIndex((word, i) => words.some((other) => other[i] !== word));
  return words[0]!.slice(0, count < 0 ? undefined : count).join(' ').replace(/[\s,;:=(]+$/u, '');
}

/** What a noise level is set by. */
function setsEpsilon(path: string): boolean {
  return /(^|\.)(epsilon|noiseMultiplier)$/.test(path);
}

/** The last part of each path, or as many as tell it from the others. */
function shortPaths(results: readonly PointResult[]): Map<string, string> {
  const paths = [...new Set(results.flatMap(({ settings }) => Object.keys(settings)))];
  const tail = (path: string, parts: number) => path.split('.').slice(-parts).join('.');
  return new Map(paths.map((path) => {
    let parts = 1;
    while (parts < path.split('.').length && paths.some((other) => other !== path && tail(other, parts) === tail(path, parts))) parts++;
    return [path, tail(path, parts)];
  }));
}

/** A setting's value on one line: `dirichlet, alpha 0.1` for an object with a kind. */
export function valueText(value: unknown): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number') return String(value);
  if (Array.isArray(value)) return value.every((item) => typeof item !== 'object') ? value.map(valueText).join('×') : JSON.stringify(value);
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value);
    if (entries.every(([, inner]) => typeof inner !== 'object' || inner === null)) return entries.map(([key, inner]) => (key === 'kind' || key === 'source' ? valueText(inner) : `${key} ${valueText(inner)}`)).join(' ');
  }
  return JSON.stringify(value);
}

/**
 * Of all releases together, replace-one, against the coordinator (or everybody, where everybody sees the same): the one of the largest epsilon over the seeds, whose
 * rounds may differ. Null without a claim, and where one seed has none or an infinite one.
 */
function guaranteeOf(points: readonly PointSuccess[]): StatedGuarantee | null {
  const stated = points.map(({ outcome: { statement } }) => (statement === null ? null : statedGuarantee(statement)));
  if (stated.length === 0 || stated.includes(null)) return null;
  return (stated as StatedGuarantee[]).reduce((worst, next) => (next.epsilon > worst.epsilon ? next : worst));
}

function statedGuarantee(statement: PrivacyStatement): StatedGuarantee | null {
  if (statement.claim === 'none') return null;
  const lifetime = statement.guarantees.filter(({ scope, adjacency }) => scope === 'lifetime' && adjacency === 'replaceOne');
  const found = lifetime.find(({ adversary }) => adversary === 'coordinator') ?? lifetime.find(({ adversary }) => adversary === 'anybody');
  if (found === undefined || found.epsilon === 'infinite') return null;
  const { secureAggregation, rowsPerClient, rowsPerRelease, mechanism } = statement;
  const corrupt = secureAggregation?.maxCorrupt ?? 0;
  return {
    epsilon: found.epsilon,
    delta: found.delta,
    unit: found.unit,
    adjacency: found.adjacency,
    adversary: found.adversary === 'anybody' ? 'everyone who sees what leaves a client' : `the coordinator${corrupt === 0 ? '' : ` with up to ${plural(corrupt, 'corrupt client')}`}`,
    accountant: `${found.accountant.name} version ${found.accountant.version}`,
    releases: found.releases,
    rowsPerClient,
    rowsPerRelease,
    mechanism,
  };
}

/** Why a setting promises nothing, for a table. */
export function whyNoGuarantee({ points }: Setting): string {
  const statement = points[0]?.outcome.statement;
  if (points.length === 0) return 'no result';
  if (statement === null || statement === undefined) return 'a baseline: claims nothing';
  return statement.claim === 'none' ? `none: ${visibleLine(statement.reason)}` : 'none: something was sent without noise that counts';
}

const relationWords = { client: { replaceOne: 'replace-one', zeroOut: 'zero-out' }, record: { replaceOne: 'replace-one-record', zeroOut: 'remove-one-record' } } as const;

/** Everything that belongs to an epsilon but the number itself, each part once. */
export function qualifierParts(guarantee: StatedGuarantee): readonly string[] {
  const { unit, adjacency, adversary, delta, accountant, releases, rowsPerClient, rowsPerRelease } = guarantee;
  return [
    `unit ${unit}`,
    `adjacency ${relationWords[unit][adjacency]}`,
    `adversary ${adversary}`,
    `δ\u00a0=\u00a0${smallNumber(delta)}`, // never at the end of a line
    `accountant ${accountant}`,
    `${plural(releases, 'release')}`,
    `${integer(rowsPerRelease)} transfer rows each (${integer(rowsPerClient)} in all)`,
  ];
}

/** `ε ≤ 4.001`, rounded up. */
export function boundText({ epsilon }: StatedGuarantee): string {
  return `ε ≤ ${epsilonText(epsilon)}`;
}

/** What the epsilons of some settings mean: said once where it is the same for all, else for each group of settings. Empty without a guarantee. */
export function qualifierNotes(settings: readonly Setting[]): string[] {
  const groups = new Map<string, Setting[]>();
  for (const setting of settings) {
    if (setting.guarantee === null) continue;
    const key = qualifierParts(setting.guarantee).join('; ');
    groups.set(key, [...(groups.get(key) ?? []), setting]);
  }
  return [...groups].map(([words, members]) => {
    const names = [...new Set(members.map(({ series }) => series))];
    const whose = groups.size === 1 ? '' : ` of ${names.length > 4 ? `${names.slice(0, 3).join('; ')} and ${names.length - 3} more` : names.join('; ')}`;
    return `ε${whose}: bound over all releases, ${words}.`;
  });
}

/** What tells two kinds of epsilon apart that one axis must not mix silently: unit, adjacency and adversary. */
export function kindOfEpsilon({ unit, adjacency, adversary }: StatedGuarantee): string {
  return `unit ${unit}, ${relationWords[unit][adjacency]}, against ${adversary}`;
}

export interface Counts {
  readonly clients: string;
  readonly records: string;
  readonly testExamples: string;
  readonly seeds: string;
}

/** `5` or `5 to 20`, over all points. */
export function countsOf(settings: readonly Setting[]): Counts {
  const outcomes = settings.flatMap(({ points }) => points.map(({ outcome }) => outcome));
  const range = (values: readonly number[], noun: string) => {
    const sorted = [...new Set(values)].sort((a, b) => a - b);
    if (sorted.length === 0) return `no ${noun}s`;
    return sorted.length === 1 ? plural(sorted[0]!, noun) : `${integer(sorted[0]!)} to ${plural(sorted.at(-1)!, noun)}`;
  };
  const tested = outcomes.flatMap(({ final }) => (final === null || final.reliability.length === 0 ? [] : [final.reliability.reduce((sum, { count }) => sum + count, 0)]));
  const allSeeds = [...new Set(settings.flatMap(({ points }) => points.map(({ seed }) => seed)))].sort((a, b) => a - b);
  return {
    clients: range(outcomes.map(({ clients }) => clients.length).filter((n) => n > 0), 'client'),
    records: range(outcomes.map(({ clients }) => clients.reduce((sum, { privateRecords }) => sum + privateRecords, 0)).filter((n) => n > 0), 'private record'),
    testExamples: tested.length === 0 ? 'test examples not counted' : range(tested, 'test example'),
    seeds: allSeeds.length === 0 ? 'no seed' : `seed${allSeeds.length === 1 ? '' : 's'} ${listed(allSeeds)}`,
  };
}

/** `1, 2, 3`; a run of five and more as `1 to 10`. */
function listed(numbers: readonly number[]): string {
  const isRun = numbers.length >= 5 && numbers.every((value, i) => i === 0 || value === numbers[i - 1]! + 1);
  return isRun ? `${numbers[0]} to ${numbers.at(-1)}` : numbers.join(', ');
}

/** Clients, records, test examples, settings and seeds behind something that is shown. */
export function countsSentence(settings: readonly Setting[]): string {
  const { clients, records, testExamples, seeds } = countsOf(settings);
  return `${plural(settings.length, 'setting')}; ${clients}, ${records}, ${testExamples}; ${seeds}.`;
}

/** Seeds that a setting lacks and another one of its experiment has; a failed point is not missing. */
export function missingSeeds(settings: readonly Setting[]): { readonly setting: Setting; readonly seeds: readonly number[] }[] {
  return settings.flatMap((setting) => {
    const seedsOf = ({ points, failures }: Setting) => [...points, ...failures].map(({ seed }) => seed);
    const all = new Set(settings.filter(({ experiment }) => experiment === setting.experiment).flatMap(seedsOf));
    const own = new Set(seedsOf(setting));
    const seeds = [...all].filter((seed) => !own.has(seed)).sort((a, b) => a - b);
    return seeds.length === 0 ? [] : [{ setting, seeds }];
  });
}
