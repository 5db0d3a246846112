/**
 * `fedstill privacy`: account for a described run, calibrate noise, plan a federation, verify a file of reference values.
 *
 * Only reads options and files, and prints. An epsilon is printed only with what gives it its meaning; what is missing is named,
 * and nothing is printed then.
 */
import { readFile, stat } from 'node:fs/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import { parse as parseYaml } from 'yaml';
import { FederationError } from '../../shared/errors.ts';
import type { PrivacyAccountant } from '../../shared/privacy/accountants/accountant.ts';
import { calibrateParameter } from '../../shared/privacy/accountants/calibration.ts';
import { GaussianAccountant } from '../../shared/privacy/accountants/gaussian-accountant.ts';
import { PldAccountant } from '../../shared/privacy/accountants/pld.ts';
import { RdpAccountant } from '../../shared/privacy/accountants/rdp.ts';
import type { AccountedRelation, DpEvent } from '../../shared/privacy/dp-event.ts';
import { accountedRelations } from '../../shared/privacy/dp-event.ts';
import { planFeasibility, renderPlan } from '../../shared/privacy/feasibility.ts';
import type { VerifyReport } from '../../shared/privacy/golden-verify.ts';
import { parseGoldenFile, verifyGolden } from '../../shared/privacy/golden-verify.ts';
import { accountFor, adversaries, formatUp, parseAccountRequest, parseQualifiers, renderAccount, renderQualifiers } from '../../shared/privacy/privacy-account.ts';
import { graphChecker } from '../../shared/secure-aggregation/golden-graph.ts';
import type { Delta } from '../../shared/types/units.ts';

/** Larger files are a mistake, not a list of events. */
const MAX_FILE_BYTES = 32 * 2 ** 20;

interface QualifierOptions {
  readonly unit?: string;
  readonly adjacency?: AccountedRelation;
  readonly adversary?: string;
  readonly delta?: number;
  readonly releases?: number;
  readonly transferSize?: number;
}

interface MechanismOptions {
  readonly mechanism?: 'gaussian' | 'laplace' | 'dpsgd' | 'randomized-response';
  readonly noiseMultiplier?: number;
  readonly steps?: number;
  readonly samplingProbability?: number;
  readonly localEpsilon?: number;
  readonly categories?: number;
}

interface AccountOptions extends QualifierOptions, MechanismOptions {
  readonly json: boolean;
}

interface CalibrateOptions extends QualifierOptions, MechanismOptions {
  readonly epsilon: number;
  readonly accountant?: 'exact-gaussian' | 'pld' | 'renyi';
  readonly json: boolean;
}

interface PlanOptions {
  readonly clients: number;
  readonly transferSize: number;
  readonly classes: number;
  readonly epsilon: number;
  readonly delta: number;
  readonly releases: number;
  readonly honest?: number;
  readonly shards?: number;
  readonly records?: number;
  readonly batch?: number;
  readonly steps?: number;
  readonly json: boolean;
}

export function privacyCommand(): Command {
  const privacy = new Command('privacy').description('account for privacy, calibrate noise, plan a federation, verify the formulas');
  withMechanism(withQualifiers(privacy.command('account')))
    .description('say which epsilon a run has, under every accountant that knows its events')
    .argument('[file]', 'events in YAML or JSON (docs/privacy-accounting.md)')
    .option('--json', 'one JSON object', false)
    .action((file: string | undefined, options: AccountOptions) => account(file, options));
  withMechanism(withQualifiers(privacy.command('calibrate')))
    .description('find the smallest noise multiplier that meets a target epsilon')
    .requiredOption('--epsilon <x>', 'the target, over all steps', positiveNumber)
    .addOption(new Option('--accountant <name>', 'which bound to calibrate with (default: the tightest)').choices(['exact-gaussian', 'pld', 'renyi']))
    .option('--json', 'one JSON object', false)
    .action((options: CalibrateOptions) => calibrate(options));
  privacy
    .command('plan')
    .description('say which mechanism is feasible, and how much noise an averaged soft label would carry')
    .requiredOption('--clients <n>', 'clients in a round', positiveInteger)
    .requiredOption('--transfer-size <n>', 'transfer examples in one release', positiveInteger)
    .requiredOption('--classes <n>', 'number of classes', positiveInteger)
    .requiredOption('--epsilon <x>', 'the target, over all releases', positiveNumber)
    .option('--delta <x>', 'the delta of the target', numberFrom0To1, 1e-5)
    .option('--releases <n>', 'releases of one client: rounds and retries', positiveInteger, 1)
    .option('--honest <n>', 'clients whose noise is certainly there (default: all)', positiveInteger)
    .option('--shards <n>', 'shards of one client for sample-and-aggregate (default: 50)', positiveInteger)
    .option('--records <n>', 'records of one client, for DP-SGD', positiveInteger)
    .option('--batch <n>', 'mean batch size, for DP-SGD', positiveInteger)
    .option('--steps <n>', 'training steps in all, for DP-SGD', positiveInteger)
    .option('--json', 'one JSON object', false)
    .action((options: PlanOptions) => plan(options));
  privacy
    .command('verify')
    .description('check a file of reference values case by case; exit status 1 when one misses its tolerance')
    .argument('<file>', 'a file in the format of test/vectors/dp-golden.json')
    .option('--json', 'one JSON object', false)
    .action((file: string, options: { json: boolean }) => verify(file, options));
  return privacy;
}

function withQualifiers(command: Command): Command {
  return command
    .addOption(new Option('--unit <unit>', 'who is protected').choices(['client', 'record']))
    .addOption(new Option('--adjacency <relation>', 'which two worlds can not be told apart').choices([...accountedRelations]))
    .addOption(new Option('--adversary <who>', 'against whom').choices(Object.keys(adversaries)))
    .option('--delta <x>', 'the delta at which epsilon is meant', numberFrom0To1)
    .option('--releases <n>', 'matrices of predictions that leave a client under this account', positiveInteger)
    .option('--transfer-size <n>', 'transfer examples in one release', positiveInteger);
}

function withMechanism(command: Command): Command {
  return command
    .addOption(new Option('--mechanism <name>', 'what happens in one step').choices(['gaussian', 'laplace', 'dpsgd', 'randomized-response']))
    .option('--noise-multiplier <x>', 'noise over sensitivity', nonNegativeNumber)
    .option('--steps <n>', 'noisy steps in all (default: 1)', positiveInteger)
    .option('--sampling-probability <x>', 'of a record in a Poisson batch, for dpsgd', numberFrom0To1)
    .option('--local-epsilon <x>', 'of one report, for randomized-response', positiveNumber)
    .option('--categories <n>', 'values to choose from, for randomized-response', positiveInteger);
}

async function account(file: string | undefined, options: AccountOptions): Promise<void> {
  const content = file === undefined ? { events: [mechanismEvent(options, requireOption(options.noiseMultiplier, options, '--noise-multiplier'))] } : await readDocument(file);
  const isObject = typeof content === 'object' && content !== null && !Array.isArray(content);
  // Options fill in what the file does not say; a contradiction is worse than a repetition, so they don't override it.
  const request = parseAccountRequest(isObject ? { ...qualifierFields(options), ...content } : content);
  const result = accountFor(request);
  process.stdout.write(options.json ? `${JSON.stringify(result)}\n` : renderAccount(result));
}

async function calibrate(options: CalibrateOptions): Promise<void> {
  const meaning = parseQualifiers(qualifierFields(options));
  if (!(meaning.delta > 0)) throw new FederationError('usage-invalid', 'the delta of a target is above 0', { field: '--delta', expected: 'a number in (0, 1)', got: String(meaning.delta) });
  if (options.mechanism === 'randomized-response') {
    throw new FederationError('usage-invalid', 'randomized response has no noise multiplier to calibrate', { field: '--mechanism', expected: 'gaussian, laplace or dpsgd', next: 'Use `fedstill privacy plan`, which finds the epsilon of one vote.' });
  }
  const accountant = pickAccountant(options, meaning.adjacency);
  // Events are checked before the search, so that the refusal says why.
  accountant.compose(mechanismEvent(options, 1));
  const noiseMultiplier = calibrateParameter({ accountant, event: (parameter) => mechanismEvent(options, parameter), epsilon: options.epsilon, delta: meaning.delta });
  const event = mechanismEvent(options, noiseMultiplier);
  const reached = accountant.compose(event).epsilon(meaning.delta as Delta);
  const result = { noiseMultiplier, ...meaning, target: options.epsilon, epsilon: reached, accountant: { name: accountant.name, version: accountant.version }, event };
  if (options.json) {
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  process.stdout.write(
    [
      `noise multiplier  ${formatUp(noiseMultiplier)}`,
      `epsilon <= ${formatUp(reached)} (target ${options.epsilon})`,
      ...renderQualifiers(meaning),
      `accountant    ${accountant.name} version ${accountant.version}`,
      '',
    ].join('\n'),
  );
}

async function plan(options: PlanOptions): Promise<void> {
  const { json, transferSize, ...rest } = options;
  const result = planFeasibility({ ...rest, rows: transferSize });
  process.stdout.write(json ? `${JSON.stringify(result)}\n` : renderPlan(result));
}

async function verify(file: string, options: { readonly json: boolean }): Promise<void> {
  const report = verifyGolden(parseGoldenFile(await readDocument(file)), { 'secagg-graph': graphChecker });
  process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : renderReport(report));
  if (report.failed > 0) process.exitCode = 1;
}

function renderReport(report: VerifyReport): string {
  const width = Math.max(...report.groups.map((group) => group.group.length));
  const lines = report.groups.map(({ group, passed, failed }) => `${failed === 0 ? 'ok  ' : 'FAIL'}  ${group.padEnd(width)}  ${passed} of ${passed + failed}`);
  for (const result of report.cases.filter((item) => !item.passed)) {
    lines.push('', `${result.id}:${result.problem === undefined ? '' : ` ${result.problem}`}`);
    for (const { quantity, rule, expected, got, tolerance } of result.comparisons.filter((comparison) => !comparison.passed)) {
      lines.push(`  ${quantity}: expected ${expected}, got ${got} (${rule}, tolerance ${tolerance})`);
    }
  }
  lines.push('', report.failed === 0 ? `All ${report.passed} cases agree.` : `${report.failed} of ${report.passed + report.failed} cases do not agree.`, '');
  return lines.join('\n');
}

function qualifierFields({ transferSize, ...options }: QualifierOptions): Record<string, unknown> {
  const { unit, adjacency, adversary, delta, releases } = options;
  return Object.fromEntries(Object.entries({ unit, adjacency, adversary, delta, releases, transferRows: transferSize }).filter(([, value]) => value !== undefined));
}

function mechanismEvent(options: MechanismOptions, noiseMultiplier: number): DpEvent {
  const count = options.steps ?? 1;
  switch (options.mechanism) {
    case 'gaussian':
      return { kind: 'selfComposed', event: { kind: 'gaussian', noiseMultiplier }, count };
    case 'laplace':
      return { kind: 'selfComposed', event: { kind: 'laplace', noiseMultiplier }, count };
    case 'dpsgd': {
      const samplingProbability = requireOption(options.samplingProbability, options, '--sampling-probability');
      return { kind: 'selfComposed', event: { kind: 'poissonSampled', samplingProbability, event: { kind: 'gaussian', noiseMultiplier } }, count };
    }
    case 'randomized-response': {
      const epsilon = requireOption(options.localEpsilon, options, '--local-epsilon');
      return { kind: 'selfComposed', event: { kind: 'randomizedResponse', epsilon, categories: requireOption(options.categories, options, '--categories') }, count };
    }
    default:
      throw new FederationError('usage-invalid', 'nothing to account for', { field: '--mechanism', expected: 'a file with events, or --mechanism', next: 'Give an events file, or --mechanism with its parameters.' });
  }
}

function requireOption(value: number | undefined, { mechanism }: MechanismOptions, option: string): number {
  if (value !== undefined) return value;
  // Randomized response has its own parameter.
  if (option === '--noise-multiplier' && (mechanism === 'randomized-response' || mechanism === undefined)) return 0;
  throw new FederationError('usage-invalid', `the ${mechanism ?? 'chosen'} mechanism needs another option`, { field: option, expected: 'a value', next: `Add ${option}.` });
}

function pickAccountant({ accountant, mechanism }: CalibrateOptions, relation: AccountedRelation): PrivacyAccountant {
  switch (accountant ?? (mechanism === 'gaussian' ? 'exact-gaussian' : 'pld')) {
    case 'exact-gaussian':
      return new GaussianAccountant(relation);
    case 'pld':
      return new PldAccountant(relation);
    case 'renyi':
      return new RdpAccountant(relation);
  }
}

/** YAML, of which JSON is a part. */
async function readDocument(file: string): Promise<unknown> {
  let text: string;
  try {
    const { size } = await stat(file);
    if (size > MAX_FILE_BYTES) throw new FederationError('data-invalid', 'the file is too large', { field: file, expected: `at most ${MAX_FILE_BYTES} bytes`, got: `${size} bytes` });
    text = await readFile(file, 'utf8');
  } catch (cause) {
    if (cause instanceof FederationError) throw cause;
    throw new FederationError('file-unreadable', 'the file can not be read', { field: file, expected: 'a readable file', got: (cause as NodeJS.ErrnoException).code ?? String(cause), next: 'Check the path.', cause });
  }
  try {
    return /^\s*[{[]/.test(text) ? (JSON.parse(text) as unknown) : parseYaml(text, { maxAliasCount: 0 });
  } catch (cause) {
    throw new FederationError('data-invalid', 'the file is neither YAML nor JSON', { field: file, expected: 'YAML or JSON', got: (cause as Error).message.split('\n')[0]!, next: 'Correct the file.', cause });
  }
}

function positiveInteger(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('expected a whole number of at least 1');
  return value;
}

function positiveNumber(text: string): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) throw new InvalidArgumentError('expected a number above 0');
  return value;
}

function nonNegativeNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && Number.isFinite(value))) throw new InvalidArgumentError('expected a number of at least 0');
  return value;
}

function numberFrom0To1(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 1)) throw new InvalidArgumentError('expected a number from 0 to 1');
  return value;
}
