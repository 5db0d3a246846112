/**
 * From the text of a YAML file to a checked configuration. All mistakes are reported at once, each with its key, its
 * place in the file, what was expected, what was found, and for a misspelled key the one that was probably meant.
 *
 * Three kinds of mistake: YAML syntax; a value against its schema; and rules between keys (`ConfigRule`), which are
 * checked on the parts that are valid, so that one mistake does not hide another.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import type { Document } from 'yaml';
import type { z } from 'zod';
import { FederationError } from '../errors.ts';
import type { ConfigRule } from './config-rule.ts';
import { TaskConfigSchema } from './task-config.ts';
import type { TaskConfig } from './task-config.ts';
import { taskRules } from './task-rules.ts';

/** An error's message shows this many mistakes; `issues` holds all. */
const MAX_SHOWN_ISSUES = 50;

/** One mistake in a configuration. */
export interface ConfigIssue {
  /** Key at fault, e.g. `privacy.epsilon` or `data.exampleShape[0]`; empty for the whole file. */
  readonly path: string;
  /** Line and column in the file, from 1; undefined when the configuration is no file. */
  readonly line: number | undefined;
  readonly column: number | undefined;
  readonly expected: string;
  readonly got: string;
  /** What to do about it, or why the rule exists. */
  readonly hint: string | undefined;
}

/** `config-invalid` with every mistake as data. */
export class ConfigError extends FederationError {
  readonly issues: readonly ConfigIssue[];

  /** `issues`: at least one. */
  constructor(fileName: string, issues: readonly ConfigIssue[], cause?: unknown) {
    const lines = issues.slice(0, MAX_SHOWN_ISSUES).map((issue) => {
      const place = issue.line === undefined ? fileName : `${fileName}:${issue.line}:${issue.column}`;
      const key = issue.path === '' ? '' : ` ${issue.path}:`;
      return `  ${place}:${key} expected ${issue.expected}, got ${issue.got}${issue.hint === undefined ? '' : `; ${issue.hint}`}`;
    });
    if (issues.length > MAX_SHOWN_ISSUES) lines.push(`  and ${issues.length - MAX_SHOWN_ISSUES} more`);
    const first = issues[0]!;
    super('config-invalid', `${fileName}: ${issues.length} ${issues.length === 1 ? 'mistake' : 'mistakes'}\n${lines.join('\n')}`, {
      field: first.path === '' ? fileName : first.path,
      expected: first.expected,
      got: first.got,
      next: first.hint ?? `Correct ${fileName}.`,
      cause,
    });
    this.issues = issues;
  }
}

/** The mistakes an error carries; empty when it is not about a configuration. */
export function configIssues(error: unknown): readonly ConfigIssue[] {
  return error instanceof ConfigError ? error.issues : [];
}

/** 1 MiB: a configuration is written by hand. */
const MAX_TEXT_LENGTH = 2 ** 20;

type Path = readonly (string | number)[];
/** Line and column of a key or value; `undefined` when there is no file. */
type Locate = (path: Path, part: 'key' | 'value') => { readonly line: number; readonly column: number } | undefined;

/** A task from the text of its task.yaml, with every default filled in. Throws `ConfigError`. */
export function parseTaskConfig(text: string, fileName: string): TaskConfig {
  return parseYaml(TaskConfigSchema, text, fileName, taskRules) as TaskConfig;
}

/** A value of this schema from YAML text. Throws `ConfigError`. */
export function parseYaml<S extends z.ZodObject>(schema: S, text: string, fileName: string, rules: readonly ConfigRule<z.infer<S>>[] = []): z.infer<S> {
  const whole = { path: '', line: undefined, column: undefined, hint: undefined };
  if (text.length > MAX_TEXT_LENGTH) {
    throw new ConfigError(fileName, [{ ...whole, expected: `at most ${MAX_TEXT_LENGTH} characters`, got: `${text.length}` }]);
  }
  const lineCounter = new LineCounter();
  let document: Document.Parsed;
  let value: unknown;
  try {
    document = parseDocument(text, { lineCounter, prettyErrors: false, logLevel: 'error' });
    const issues = document.errors.map((error) => {
      const { line, col } = lineCounter.linePos(error.pos[0]);
      return { path: '', line, column: col, expected: 'valid YAML', got: error.message.split('\n')[0]!, hint: syntaxHints[error.code] };
    });
    if (issues.length > 0) throw new ConfigError(fileName, issues);
    // Aliases that multiply ("billion laughs") make toJS throw.
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    if (error instanceof FederationError) throw error;
    const got = error instanceof Error ? error.message.split('\n')[0]! : String(error);
    throw new ConfigError(fileName, [{ ...whole, expected: 'valid YAML', got }], error);
  }
  return parseConfig(schema, value, fileName, rules, (path, part) => {
    const offset = offsetOf(document, path, part);
    if (offset === undefined) return undefined;
    const { line, col } = lineCounter.linePos(offset);
    return { line, column: col };
  });
}

const syntaxHints: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: 'indent with spaces',
  DUPLICATE_KEY: 'keep one of the two',
  MULTIPLE_DOCS: 'keep one document in the file',
};

/**
 * A value of this schema from plain data (a sweep's override, a test), with the same reports as for a file.
 * `name` stands for the file's name. Throws `ConfigError`.
 */
export function parseConfig<S extends z.ZodObject>(schema: S, value: unknown, name: string, rules: readonly ConfigRule<z.infer<S>>[] = [], locate: Locate = () => undefined): z.infer<S> {
  const parsed = schema.safeParse(value);
  const issues: ConfigIssue[] = [];
  const invalid: Path[] = [];
  for (const found of parsed.success ? [] : parsed.error.issues) {
    for (const { path, part, expected, got, hint } of describe(found, schema, value)) {
      invalid.push(path);
      const place = locate(path, part);
      issues.push({ path: pathText(path), line: place?.line, column: place?.column, expected, got, hint });
    }
  }
  const config = parsed.success ? parsed.data : validSections(schema, value, invalid);
  const invalidTexts = invalid.map(pathText);
  for (const rule of rules) {
    if (rule.reads.some((read) => invalidTexts.some((text) => within(read, text) || within(text, read)))) continue;
    const mistake = rule.check(config as Partial<z.infer<S>>);
    if (mistake === undefined) continue;
    const place = locate(mistake.path.split('.'), 'value');
    issues.push({ ...mistake, line: place?.line, column: place?.column, hint: mistake.hint });
  }
  if (issues.length > 0 || !parsed.success) {
    throw new ConfigError(name, issues.sort((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0)));
  }
  return parsed.data;
}

/** Whether one key is the other or lies inside it. */
function within(inner: string, outer: string): boolean {
  return inner === outer || outer === '' || inner.startsWith(`${outer}.`) || inner.startsWith(`${outer}[`);
}

/** The sections that are valid once what is invalid in them is taken away; the rest is left out. */
function validSections(schema: z.ZodObject, value: unknown, invalid: readonly Path[]): Record<string, unknown> {
  if (!isRecord(value)) return {};
  const stripped = structuredClone(value);
  for (const path of invalid) {
    const parent = path.slice(0, -1).reduce<unknown>((node, key) => (isRecord(node) ? node[key] : undefined), stripped);
    if (isRecord(parent)) delete parent[path.at(-1)!];
  }
  const sections: Record<string, unknown> = {};
  for (const [key, section] of Object.entries(schema.shape)) {
    const parsed = (section as z.ZodType).safeParse(stripped[key]);
    if (parsed.success) sections[key] = parsed.data;
  }
  return sections;
}

interface Described {
  readonly path: Path;
  readonly part: 'key' | 'value';
  readonly expected: string;
  readonly got: string;
  readonly hint: string | undefined;
}

/** A schema's complaint in our words: one entry, or one for each unknown key. */
function describe(issue: z.core.$ZodIssue, schema: z.core.$ZodType, root: unknown): Described[] {
  const path = issue.path.map((key) => (typeof key === 'symbol' ? String(key) : key));
  const value = valueAt(root, path);
  // A mapping whose keys are checked, e.g. paths: the key's own schema knows what was expected, and may give a hint.
  if (issue.code === 'invalid_key' && issue.issues[0] !== undefined) {
    const [own] = issue.issues;
    return [{ path, part: 'key', expected: expectedText(own), got: `\`${String(path.at(-1))}\``, hint: own.code === 'custom' ? (own.params?.['hint'] as string | undefined) : undefined }];
  }
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(schema, path, root);
    return issue.keys.map((key) => ({ path: [...path, key], part: 'key', expected: 'a known key', got: `\`${key}\``, hint: unknownKeyHint([...path, key], known, schema) }));
  }
  let expected = expectedText(issue);
  if (issue.code === 'invalid_type' && issue.expected === 'number' && isIntegerAt(schema, path, root)) expected = typeNames['int']!;
  let hint: string | undefined;
  if (issue.code === 'invalid_value' || issue.code === 'invalid_union') {
    const options = optionsOf(issue);
    const near = typeof value === 'string' ? nearest(value, options) : undefined;
    if (near !== undefined) hint = `did you mean \`${near}\`?`;
  } else if (value === null && path.length > 0) {
    hint = 'give it a value, or leave the key out';
  }
  if (value === undefined && issue.code === 'invalid_type') expected += ' (this key is required)';
  return [{ path, part: 'value', expected, got: shown(value), hint }];
}

const typeNames: Readonly<Record<string, string>> = {
  number: 'a number', int: 'an integer', string: 'text', boolean: 'true or false', object: 'a section (a mapping of keys)', record: 'a mapping of keys', array: 'a list',
};

function expectedText(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return typeNames[issue.expected] ?? issue.expected;
    case 'too_small':
      return `${issue.exact === true ? 'exactly' : issue.inclusive === false ? 'more than' : 'at least'} ${issue.minimum}${unitOf(issue.origin)}`;
    case 'too_big':
      return `${issue.exact === true ? 'exactly' : issue.inclusive === false ? 'less than' : 'at most'} ${issue.maximum}${unitOf(issue.origin)}`;
    case 'invalid_value':
    case 'invalid_union': {
      const options = optionsOf(issue);
      if (options.length > 0) return options.length === 1 ? options[0]! : `one of ${options.join(', ')}`;
      const alternatives = issue.code === 'invalid_union' ? issue.errors.flat().map(expectedText) : [];
      return alternatives.length > 0 ? [...new Set(alternatives)].join(' or ') : issue.message;
    }
    case 'invalid_format':
      // A schema's own words say more than the name of a format.
      return issue.message.startsWith('expected ') ? issue.message.slice('expected '.length) : `text in the format ${issue.format}`;
    case 'not_multiple_of':
      return `a multiple of ${issue.divisor}`;
    case 'unrecognized_keys':
    case 'invalid_key':
    case 'invalid_element':
    case 'custom':
      return issue.message.replace(/^expected /, '');
    default:
      return (issue as z.core.$ZodIssueBase).message;
  }
}

function unitOf(origin: string): string {
  return origin === 'string' ? ' characters' : origin === 'array' || origin === 'set' ? ' entries' : '';
}

/** What an enum or the discriminator of a union may be. */
function optionsOf(issue: z.core.$ZodIssue): string[] {
  if (issue.code === 'invalid_value') return issue.values.map(String);
  if (issue.code === 'invalid_union' && 'options' in issue && Array.isArray(issue.options)) return issue.options.map(String);
  return [];
}

function unknownKeyHint(path: Path, known: readonly string[], schema: z.core.$ZodType): string | undefined {
  const key = String(path.at(-1));
  const near = nearest(key, known);
  if (near !== undefined) return `did you mean \`${near}\`?`;
  // A key of another section, e.g. `epsilon` outside `privacy`; not one that this section has with another `kind`.
  const everywhere = schemaKeys(schema).filter((other) => plain(other.split('.').at(-1)!) === plain(key));
  // Of several, the one below where the key was written.
  const below = everywhere.filter((other) => path.length > 1 && other.startsWith(`${pathText(path.slice(0, -1))}.`));
  const elsewhere = below.length === 1 ? below : everywhere;
  if (elsewhere.length === 1 && elsewhere[0] !== pathText(path)) return `did you mean \`${elsewhere[0]}\`?`;
  return known.length > 0 ? `known here: ${known.join(', ')}` : undefined;
}

/** A word without what people vary: case, - and _. */
function plain(word: string): string {
  return word.toLowerCase().replace(/[-_\s]/g, '');
}

/** The option closest to a word by edit distance, if it is close enough to be a slip, else one it abbreviates. */
export function nearest(word: string, options: readonly string[]): string | undefined {
  // Nobody misspells a hundred characters; comparing them would be slow.
  if (word.length > 100) return undefined;
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const option of options) {
    const distance = editDistance(plain(word), plain(option));
    if (distance < bestDistance) [best, bestDistance] = [option, distance];
  }
  if (best === undefined && word.length >= 3) best = options.find((option) => plain(option).startsWith(plain(word)));
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbors (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let distance = Math.min(replaced, last[j]! + 1, row[j - 1]! + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) distance = Math.min(distance, beforeLast[j - 2]! + 1);
      row.push(distance);
    }
    [beforeLast, last] = [last, row];
  }
  return last[b.length]!;
}

/** Every key of a schema as a path, sections included, e.g. `privacy` and `privacy.epsilon`; each once. */
export function schemaKeys(schema: z.core.$ZodType, prefix = ''): string[] {
  const paths = new Set<string>();
  for (const shape of shapesOf(schema)) {
    for (const [key, child] of Object.entries(shape)) {
      const path = prefix === '' ? key : `${prefix}.${key}`;
      paths.add(path);
      for (const inner of schemaKeys(child, path)) paths.add(inner);
    }
  }
  return [...paths];
}

/** A schema without its defaults and optionals. */
function unwrap(schema: z.core.$ZodType): z.core.$ZodTypes {
  let inner = schema as z.core.$ZodTypes;
  for (;;) {
    const { def } = inner._zod;
    if (def.type !== 'default' && def.type !== 'prefault' && def.type !== 'optional' && def.type !== 'nullable' && def.type !== 'readonly') return inner;
    inner = def.innerType as z.core.$ZodTypes;
  }
}

/** The object shapes a schema allows. With a value, those of a union are the ones its discriminator fits. */
function shapesOf(schema: z.core.$ZodType, value?: unknown): Readonly<Record<string, z.core.$ZodType>>[] {
  const { def } = unwrap(schema)._zod;
  if (def.type === 'object') return [def.shape];
  if (def.type === 'array') return shapesOf(def.element);
  if (def.type !== 'union') return [];
  const shapes = def.options.flatMap((option) => shapesOf(option));
  if (!('discriminator' in def) || !isRecord(value)) return shapes;
  const discriminator = def.discriminator as string;
  return shapes.filter((shape) => shape[discriminator]?._zod.values?.has(value[discriminator] as string) === true);
}

/** The schemas that hold at a path, given the values of the discriminators on the way. */
function schemasAt(schema: z.core.$ZodType, path: Path, root: unknown): z.core.$ZodType[] {
  let schemas = [schema];
  let value = root;
  for (const key of path) {
    schemas = schemas.flatMap((one) => {
      const { def } = unwrap(one)._zod;
      return def.type === 'array' ? def.element : shapesOf(one, value).flatMap((shape) => shape[key] ?? []);
    });
    value = valueAt(value, [key]);
  }
  return schemas;
}

/** The keys a section may have, given the value of its discriminator. */
function keysAt(schema: z.core.$ZodType, path: Path, root: unknown): string[] {
  const value = valueAt(root, path);
  return [...new Set(schemasAt(schema, path, root).flatMap((one) => shapesOf(one, value).flatMap((shape) => Object.keys(shape))))];
}

/** Whether only integers are valid at a path; of a text there, zod merely says that it is no number. */
function isIntegerAt(schema: z.core.$ZodType, path: Path, root: unknown): boolean {
  return schemasAt(schema, path, root).some((one) => {
    const { def } = unwrap(one)._zod;
    return def.type === 'number' && 'format' in def && String(def.format).includes('int');
  });
}

/** Where a key or its value starts in the text; for a missing key, where the nearest section around it does. */
function offsetOf(document: Document.Parsed, path: Path, part: 'key' | 'value'): number | undefined {
  let node: unknown = document.contents;
  let offset: number | undefined;
  for (const key of path) {
    if (isAlias(node)) node = node.resolve(document);
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(key));
      if (pair === undefined || !isScalar(pair.key)) return offset;
      offset = pair.key.range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(key)];
      if (!isScalar(node) && !isMap(node) && !isSeq(node)) return offset;
      offset = node.range?.[0] ?? offset;
    } else {
      return offset;
    }
  }
  return part === 'value' && isScalar(node) && node.source !== '' ? (node.range?.[0] ?? offset) : offset;
}

function pathText(path: Path): string {
  return path.reduce<string>((text, key) => (typeof key === 'number' ? `${text}[${key}]` : text === '' ? key : `${text}.${key}`), '');
}

function isRecord(value: unknown): value is Record<string | number, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function valueAt(root: unknown, path: Path): unknown {
  let value = root;
  for (const key of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<string | number, unknown>)[key];
  }
  return value;
}

/** A value as it may be shown: on one line, cut off when long. */
function shown(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (Array.isArray(value)) return `a list of ${value.length} ${value.length === 1 ? 'entry' : 'entries'}`;
  if (isRecord(value)) return 'a section';
  const text = typeof value === 'string' ? JSON.stringify(value) : `${value as number | boolean | bigint}`;
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}
