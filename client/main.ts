/** `fedstill join`: options to a client, events to lines, signals to a clean stop. What goes wrong is thrown; the caller prints it and sets the exit status. */
import { readFile, stat } from 'node:fs/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import { enginePreferences, type EnginePreference } from '../shared/compute/select-engine.ts';
import { nearest } from '../shared/config/load.ts';
import { exitStatus, FederationError, type ProblemInit } from '../shared/errors.ts';
import { zooNames } from '../shared/models/catalog.ts';
import { parseView } from '../shared/datasets/views.ts';
import { readDataArgument } from '../shared/node/data-source.ts';
import { createJsonLogger, logLevels, type LogLevel } from '../shared/node/json-logger.ts';
import { formatBytes, formatCommand, printJson, printLine, readFailure } from '../shared/node/terminal.ts';
import type { EventSink, RunEvent } from '../shared/ports/event-sink.ts';
import { DEFAULT_MIN_HONEST, type ClientPolicy } from '../shared/privacy/client-policy.ts';
import type { MechanismName } from '../shared/privacy/release.ts';
import { renderStatement, type PrivacyStatement } from '../shared/privacy/statement.ts';
import type { SecureStageName } from '../shared/protocol/messages.ts';
import type { OutputKind } from '../shared/types/matrix.ts';
import type { Delta, Epsilon } from '../shared/types/units.ts';
import { createClient, type Client, type StudentModel } from './create-client.ts';
import type { ParticipantSummary } from './participant/participant.ts';
import type { StudentOverrides } from './participant/training.ts';

interface JoinOptions {
  readonly data: string;
  readonly model?: string;
  readonly modelOutput: OutputKind;
  readonly state: string;
  readonly name?: string;
  readonly token?: string;
  readonly tokenFile?: string;
  readonly testData?: string;
  readonly view?: string;
  readonly baseline: boolean;
  readonly personalize: boolean;
  readonly maxEpsilon?: number;
  readonly delta: number;
  readonly minCohort: number;
  readonly allow: readonly MechanismName[];
  readonly minHonest: number;
  readonly unit: 'client' | 'record';
  readonly maxRounds?: number;
  readonly pretrainEpochs?: number;
  readonly digestEpochs?: number;
  readonly revisitEpochs?: number;
  readonly batchSize?: number;
  readonly learningRate?: number;
  readonly seed?: number;
  readonly engine: EnginePreference;
  readonly ca?: string;
  readonly export?: string;
  readonly logLevel: LogLevel;
  readonly json: boolean;
}

const mechanismNames = ['gaussian', 'laplace', 'discreteGaussian', 'dpSgd', 'none'] as const satisfies readonly MechanismName[];
const defaultMaxEpsilon = 10;

/** A number option with its range; the message names both. */
function number(lowest: number, highest: number, { integer = false, open = false } = {}): (text: string) => number {
  return (text) => {
    const value = text === 'infinity' ? Infinity : Number(text);
    const isInside = (open ? value > lowest : value >= lowest) && value <= highest;
    if (text.trim() !== '' && isInside && (!integer || Number.isInteger(value) || value === Infinity)) return value;
    const kind = integer ? 'an integer' : 'a number';
    throw new InvalidArgumentError(highest === Infinity ? `Expected ${kind} ${open ? 'above' : 'of at least'} ${lowest}, or "infinity".` : `Expected ${kind} ${open ? 'above' : 'from'} ${lowest} ${open ? 'and at most' : 'to'} ${highest}.`);
  };
}
const epochs = number(0, 10_000, { integer: true });

export function joinCommand(): Command {
  return new Command('join')
    .description('take part in a federation with data that stays on this machine')
    .argument('<URL>', 'join URL, as `fedstill serve` prints it')
    .requiredOption('--data <source>', 'your private, labelled data: mnist, folder with IDX files, FILE.csv#LABELCOLUMN, FILE.yaml that describes them (docs/data.md), synthetic:SIZE:SEED')
    .option('--model <name or folder>', `your student: ${zooNames().join(', ')}; or a folder with a saved TF.js LayersModel (default: what the task suggests)`)
    .addOption(new Option('--model-output <kind>', 'what the last layer of a saved model gives').choices(['logits', 'probabilities']).default('logits'))
    .option('--state <folder>', 'identity, privacy ledger and progress; keep it, or your budget is forgotten', './fedstill-client')
    .option('--name <text>', 'put in front of every line; never sent')
    .option('--token <text>', 'join token (other users of this machine can see it here: prefer --token-file, or FEDSTILL_JOIN_TOKEN)')
    .option('--token-file <file>', 'file with the join token on one line')
    .option('--test-data <source>', 'labelled data on which your student is measured, for you alone')
    .option('--view <view>', 'how your student sees every example: crop:rows=0-14, crop:columns=0-1024, downsample:2, gradient, or several joined by + (docs/data.md); never sent')
    .option('--baseline', 'also train a student without the federation, to compare with (needs --test-data to be of use)', false)
    .option('--personalize', 'train once more on your data at the end: better on data like yours, worse on classes that you lack', false)
    .option('--max-epsilon <number>', `most privacy loss over everything that this state folder ever sends: epsilon, replace-one; or "infinity" (default: ${defaultMaxEpsilon}; infinity with --allow none)`, number(0, Infinity, { open: true }))
    .option('--delta <number>', 'delta of that epsilon', number(0, 0.5, { open: true }), 1e-5)
    .option('--min-cohort <clients>', 'fewest clients in a round', number(1, 1e9, { integer: true }), 2)
    .addOption(new Option('--allow <mechanisms...>', 'privacy mechanisms that you accept; dpSgd = noise in the training of your student instead of its predictions; none = your predictions are sent without noise').choices([...mechanismNames]).default(['gaussian', 'laplace', 'discreteGaussian']))
    .option('--min-honest <clients>', 'under secure aggregation: fewest clients that are sure to be in a sum and to be honest', number(1, 1e9, { integer: true }), DEFAULT_MIN_HONEST)
    .addOption(new Option('--unit <unit>', 'what must be protected: everything of yours together (client), or at least each of your records').choices(['client', 'record']).default('record'))
    .option('--max-rounds <rounds>', 'most rounds of one task (default: no limit)', number(1, Infinity, { integer: true }))
    .option('--pretrain-epochs <epochs>', 'passes over your data before the first round (default: the task\'s)', epochs)
    .option('--digest-epochs <epochs>', 'passes over the soft labels in each round (default: the task\'s)', epochs)
    .option('--revisit-epochs <epochs>', 'passes over your data in each round (default: the task\'s)', epochs)
    .option('--batch-size <examples>', 'examples in a training step (default: the task\'s)', number(1, 65_536, { integer: true }))
    .option('--learning-rate <number>', 'step size of the optimizer (default: the task\'s)', number(0, 10, { open: true }))
    .option('--seed <integer>', 'seed of weights and shuffles, never of noise (default: from the task and your id)', number(0, 0xffff_ffff, { integer: true }))
    .addOption(new Option('--engine <name>', 'what computes').choices([...enginePreferences]).default('auto'))
    .option('--ca <file>', 'PEM file with the certificate authority to trust, for https')
    .option('--export <folder>', 'write the trained student there as a TF.js LayersModel')
    .addOption(new Option('--log-level <level>', 'what to log on standard error').choices([...logLevels]).default('warn'))
    .option('--json', 'one JSON object a line on standard output', false)
    .addHelpText('after', '\nExit status: 0 the task is done, 2 bad input, 3 your privacy policy or budget refuses the task, 4 coordinator or quorum failed, 130 Ctrl-C.')
    .action(join);
}

async function join(url: string, options: JoinOptions): Promise<void> {
  const client = await openClient(url, options).catch((error: unknown) => {
    throw withRemedy(error, options);
  });
  const stop = new AbortController();
  const release = onSignals((signal) => {
    process.exitCode = signal === 'SIGINT' ? 130 : 143;
    stop.abort(new Stopped());
  });
  try {
    report({ event: 'starting', clientId: client.clientId, state: client.stateDirectory, engine: client.engine.name, engineReason: client.engine.reason }, options);
    const summary = await client.run(stop.signal);
    if (options.export !== undefined && (await client.exportStudent(options.export))) report({ event: 'exported', folder: options.export }, options);
    printPrivacy(client.statement(), options);
    printSummary(summary, options);
    if (summary.reason === 'quorum-missed' || summary.reason === 'failed') process.exitCode = exitStatus.peer;
  } catch (error) {
    if (!(error instanceof Stopped)) throw withRemedy(error, options);
    const command = formatCommand(['fedstill', ...withoutSecrets(process.argv.slice(2))]);
    if (options.json) printJson({ event: 'stopped', resume: command });
    else process.stderr.write(`Stopped. What was done is kept in ${client.stateDirectory}. To go on, run the same command again:\n  ${command}\n`);
  } finally {
    release();
    await client.close();
  }
}

async function openClient(url: string, options: JoinOptions): Promise<Client> {
  return createClient({
    joinUrl: url,
    stateDirectory: options.state,
    data: await readDataArgument(options.data),
    ...(options.testData === undefined ? {} : { testData: await readDataArgument(options.testData) }),
    ...present('view', options.view === undefined ? undefined : parseView(options.view)),
    baseDirectory: process.cwd(),
    model: await parseModel(options),
    policy: policyOf(options),
    engine: options.engine,
    ...present('joinToken', await readToken(options)),
    ...present('ca', options.ca === undefined ? undefined : await readText(options.ca, '--ca')),
    overrides: overridesOf(options),
    ...present('seed', options.seed),
    trackLocalOnly: options.baseline,
    personalize: options.personalize,
    logger: createJsonLogger({ level: options.logLevel }),
    events: eventPrinter(options),
  });
}

/** The user has stopped the client. */
class Stopped extends Error {}

/** Calls `stop` at the first signal; the second one ends the process at once. */
function onSignals(stop: (signal: 'SIGINT' | 'SIGTERM') => void): () => void {
  let isStopping = false;
  const handle = (signal: 'SIGINT' | 'SIGTERM') => {
    if (isStopping) process.exit(signal === 'SIGINT' ? 130 : 143);
    isStopping = true;
    stop(signal);
  };
  const onInterrupt = () => handle('SIGINT');
  const onTerminate = () => handle('SIGTERM');
  process.on('SIGINT', onInterrupt).on('SIGTERM', onTerminate);
  return () => void process.off('SIGINT', onInterrupt).off('SIGTERM', onTerminate);
}

// --- options ---

function present<K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> {
  return value === undefined ? {} : ({ [key]: value } as Record<K, V>);
}

async function parseModel({ model, modelOutput }: JoinOptions): Promise<StudentModel> {
  if (model === undefined || (zooNames() as readonly string[]).includes(model)) return { kind: 'zoo', name: model };
  const isThere = await stat(model).then(
    () => true,
    () => false,
  );
  if (isThere) return { kind: 'folder', path: model, outputKind: modelOutput };
  const near = nearest(model, zooNames());
  throw new FederationError('model-invalid', `"${model}" is neither a model of the zoo nor a folder.`, {
    field: '--model',
    expected: `${zooNames().join(', ')}, or a folder with model.json`,
    got: model,
    next: `${near === undefined ? '' : `Did you mean ${near}? `}Run "fedstill doctor" to see what the zoo has.`,
  });
}

function policyOf({ allow, maxEpsilon, delta, minCohort, maxRounds, minHonest, unit }: JoinOptions): ClientPolicy {
  const allowsNone = allow.includes('none');
  return {
    maxEpsilon: (maxEpsilon ?? (allowsNone ? Infinity : defaultMaxEpsilon)) as Epsilon,
    delta: delta as Delta,
    minCohort,
    allowedMechanisms: allow,
    // Who accepts no noise gives the coordinator everything that `clear` would.
    allowClear: allowsNone,
    maxRounds: maxRounds ?? Infinity,
    minHonest,
    unit,
  };
}

function overridesOf({ pretrainEpochs, digestEpochs, revisitEpochs, batchSize, learningRate }: JoinOptions): StudentOverrides {
  return { ...present('pretrainEpochs', pretrainEpochs), ...present('digestEpochs', digestEpochs), ...present('revisitEpochs', revisitEpochs), ...present('batchSize', batchSize), ...present('learningRate', learningRate) };
}

async function readToken({ token, tokenFile }: JoinOptions): Promise<string | undefined> {
  if (token !== undefined && tokenFile !== undefined) {
    throw new FederationError('usage-invalid', 'The join token is given twice.', { field: '--token', expected: 'one of --token and --token-file', got: 'both', next: 'Leave one of them out.' });
  }
  const text = tokenFile === undefined ? (token ?? process.env['FEDSTILL_JOIN_TOKEN']) : await readText(tokenFile, '--token-file');
  const trimmed = text?.trim();
  return trimmed === '' ? undefined : trimmed;
}

async function readText(path: string, field: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new FederationError('file-unreadable', `The file ${path} cannot be read.`, { field, expected: 'a file that can be read', got: readFailure(cause), next: 'Check the path and its permissions.', cause });
  }
}

/** The token is not repeated on a screen. */
function withoutSecrets(args: readonly string[]): string[] {
  return args.map((arg, i) => (args[i - 1] === '--token' ? 'TOKEN' : arg.startsWith('--token=') ? '--token=TOKEN' : arg));
}

/** A refusal names the option that would change it. */
function withRemedy(error: unknown, { allow, token, tokenFile, state }: JoinOptions): unknown {
  if (!(error instanceof FederationError)) return error;
  const { code, field, expected, got } = error;
  const changed = (changes: ProblemInit) => new FederationError(code, error.message, { ...present('field', field), ...present('expected', expected), ...present('got', got), ...present('next', error.next), ...changes, cause: error });
  if (code === 'token-refused') {
    const isGiven = token !== undefined || tokenFile !== undefined || (process.env['FEDSTILL_JOIN_TOKEN'] ?? '') !== '';
    return changed({ field: tokenFile === undefined ? '--token' : '--token-file', expected: 'the join token of this task', got: isGiven ? 'another text' : 'nothing', next: 'Ask the coordinator\'s operator for the token, and name a file that holds it: --token-file FILE' });
  }
  if (code === 'fingerprint-mismatch') return changed({ field: 'URL' });
  if (field === 'view') return changed({ field: '--view' });
  if (code === 'state-locked') return changed({ next: `${error.next ?? ''} Each client needs a state folder of its own: --state (now ${state}).` });
  if (error.fault !== 'refused') return error;
  const remedies: Readonly<Record<string, readonly [option: string, remedy: string]>> = {
    allowedMechanisms: ['--allow', `If you accept that, add: --allow ${[...allow, got ?? 'none'].join(' ')}`],
    allowClear: ['--allow', 'If you accept that, add: --allow none'],
    minHonest: ['--min-honest', `If you accept that, add: --min-honest ${/\d+/.exec(got ?? '')?.[0] ?? 1}`],
    unit: ['--unit', 'If you accept that, leave out --unit client'],
    minCohort: ['--min-cohort', `If you accept that, add: --min-cohort ${/\d+/.exec(got ?? '')?.[0] ?? 1}`],
    maxRounds: ['--max-rounds', 'If you accept more, raise --max-rounds'],
    maxEpsilon: ['--max-epsilon', got === 'Infinity' ? 'If you accept that, add: --max-epsilon infinity' : 'If you accept a higher privacy loss, raise --max-epsilon'],
  };
  const [option, remedy] = remedies[field ?? ''] ?? [];
  return option === undefined ? error : changed({ field: option, next: `${remedy}. Otherwise stay out of this task.` });
}

// --- lines ---

type Output = Pick<JoinOptions, 'json' | 'name'>;

function report(event: RunEvent, { json, name }: Output): void {
  if (json) {
    printJson({ ...(name === undefined ? {} : { name }), ...event });
    return;
  }
  const line = lineFor(event);
  if (line !== undefined) printLine(name === undefined ? line : `${name}: ${line}`);
}

function eventPrinter(output: Output): EventSink {
  return { emit: (event) => report(event, output) };
}

const plural = (count: unknown, noun: string) => `${Number(count)} ${noun}${count === 1 ? '' : 's'}`;
const percent = (share: unknown) => (typeof share === 'number' ? `${(100 * share).toFixed(2)} %` : undefined);
const accuracyOf = (share: unknown) => (percent(share) === undefined ? '' : `, test accuracy ${percent(share)}`);

/** How much of the privacy budget is gone, rounded up. No epsilon: a line has no room for what it means, the statement has. */
function budgetUsed(spent: unknown, limit: unknown): string {
  if (typeof spent !== 'number' || spent === Infinity) return 'without differential privacy';
  if (typeof limit !== 'number' || limit === Infinity) return 'no limit on privacy loss set';
  return `${Math.ceil((1000 * spent) / limit) / 10} % of your privacy budget used`;
}

/** What a client has just done in a round of secure aggregation. */
const stageLines: Record<SecureStageName, string> = {
  advertiseKeys: 'keys sent, stage 1 of 5',
  shareKeys: 'shares of its secrets sent to the other clients, stage 2 of 5',
  maskedInput: 'masked predictions sent, stage 3 of 5',
  consistencyCheck: 'the list of clients in the sum confirmed, stage 4 of 5',
  unmask: 'helped to open the sum, stage 5 of 5',
};

/** One line for a person, or none for an event that is not worth one. */
function lineFor(event: RunEvent): string | undefined {
  const field = (name: string) => String(event[name]);
  switch (event.event) {
    case 'starting':
      return `client ${field('clientId')}, engine ${field('engine')}, state in ${field('state')}`;
    case 'task-verified':
      return `task ${field('task')}: ${field('rounds')} rounds, trust mode ${field('trustMode')}, mechanism ${field('mechanism')}`;
    case 'budget-short':
      return `your budget does not last to the end of this task: after all rounds ${budgetUsed(event['epsilonAtEnd'], event['maxEpsilon'])}; later rounds will be declined`;
    case 'joined':
      return `joined; next round ${field('nextRound')}`;
    case 'pretrained':
      return `pretrained ${plural(event['epochs'], 'epoch')} on ${field('examples')} private examples in ${Number(event['seconds']).toFixed(1)} s${accuracyOf(event['testAccuracy'])}`;
    case 'student-diverged':
      return `training your student (${field('step')}, round ${field('round')}) failed and was thrown away; it stays as it was. The federation is not told. ${field('reason')} Lower the learning rate, and check that your data are scaled to about [0, 1].`;
    case 'shards-trained':
      return `trained ${plural(event['trained'], 'model')} of ${field('shards')} shards of your examples in ${Number(event['seconds']).toFixed(1)} s: these predict for the federation, your student does not`;
    case 'records-vote':
      return `${plural(event['voting'], 'record')} of yours vote${event['voting'] === 1 ? 's' : ''} once in each round${event['silent'] === 0 ? '' : `; ${field('silent')} behind the first ${field('maxRecords')} do not`}; your student is for you alone`;
    case 'contributed': {
      const distilled = event['distilled'] === 0 ? '' : `distilled ${field('distilled')} soft labels, `;
      const trained = event['epochs'] === 0 ? '' : `trained ${plural(event['epochs'], 'epoch')}, `;
      const localOnly = percent(event['localOnlyTestAccuracy']);
      return `round ${field('round')}: ${distilled}${trained}sent ${formatBytes(Number(event['bytes']))}, ${budgetUsed(event['epsilonSpent'], event['maxEpsilon'])}${accuracyOf(event['testAccuracy'])}${localOnly === undefined ? '' : ` (local only ${localOnly})`}`;
    }
    case 'stage':
      return `round ${field('round')}: ${stageLines[field('stage') as SecureStageName] ?? field('stage')}`;
    case 'charged':
      return `round ${field('round')}: charged to your ledger before the predictions leave; ${budgetUsed(event['epsilonSpent'], event['maxEpsilon'])}`;
    case 'round-refused':
      return `round ${field('round')}: refused: ${field('reason')}`;
    case 'announcement-refused':
    case 'declined':
      return `${event.event === 'declined' ? `round ${field('round')}: declined` : 'announcement refused'}: ${field('reason')}`;
    case 'round-missed':
      return `round ${field('round')}: closed before this client was ready`;
    case 'round-closed':
      return event['outcome'] === 'aborted' ? `round ${field('round')}: aborted with ${field('contributions')} contributions` : undefined;
    case 'reconnecting':
      return `no connection (${field('reason')}); trying again in ${(Number(event['delayMs']) / 1000).toFixed(1)} s`;
    case 'last-labels-missed':
      return `the last soft labels could not be fetched: ${field('reason')}`;
    case 'task-finished':
      return `task finished: ${field('reason')} after ${field('rounds')} rounds`;
    case 'exported':
      return `student written to ${field('folder')}`;
    default:
      return undefined;
  }
}

/** The privacy statement, before the summary: what everything that this client ever sent has cost, and what that means. */
function printPrivacy(statement: PrivacyStatement | undefined, { json, name }: Output): void {
  if (statement === undefined) return;
  if (json) printJson({ ...(name === undefined ? {} : { name }), event: 'privacy-statement', statement });
  else for (const line of renderStatement(statement).trimEnd().split('\n')) printLine(name === undefined ? line : `${name}: ${line}`);
}

function printSummary(summary: ParticipantSummary, { json, name }: Output): void {
  if (json) {
    printJson({ ...(name === undefined ? {} : { name }), event: 'summary', ...summary });
    return;
  }
  const prefix = name === undefined ? '' : `${name}: `;
  const accuracies = [
    ['after pretraining', percent(summary.pretrainedAccuracy)],
    ['local only', percent(summary.localOnlyAccuracy)],
    ['at the end', percent(summary.finalAccuracy)],
  ].flatMap(([label, value]) => (value === undefined ? [] : [`${label} ${value}`]));
  printLine(`${prefix}contributed to ${summary.contributedRounds} of ${summary.rounds} rounds; sent ${formatBytes(summary.bytesUp)}, received ${formatBytes(summary.bytesDown)}`);
  if (accuracies.length > 0) printLine(`${prefix}test accuracy: ${accuracies.join(', ')}`);
}
