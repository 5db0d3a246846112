/** `fedstill serve`: options to a coordinator on a port, events to lines, signals to a clean stop. What goes wrong is thrown; the caller prints it and sets the exit status. */
import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { enginePreferences } from '../shared/compute/select-engine.ts';
import { parseTaskConfig } from '../shared/config/load.ts';
import { exitStatus, FederationError } from '../shared/errors.ts';
import { createJsonLogger, logLevels } from '../shared/node/json-logger.ts';
import { readRunManifest, writeRunManifest } from '../shared/node/run-folder.ts';
import { systemClock } from '../shared/node/system-clock.ts';
import { formatCommand, printJson, printLine, readFailure } from '../shared/node/terminal.ts';
import { sleep } from '../shared/ports/clock.ts';
import type { RunEvent } from '../shared/ports/event-sink.ts';
import { formatJoinUrl } from '../shared/protocol/identity.ts';
import type { FinishReason } from '../shared/protocol/messages.ts';
import { ProgressLines, resultLines, startBlock } from './console.ts';
import { openRun, type OpenRun } from './coordinator/open-run.ts';
import { createServer, type FederationServer } from './create-server.ts';
import { defaultServerLimits } from './server-limits.ts';

const port = z.int().min(0).max(65_535);
const atLeastOne = z.int().min(1);

/** Options as the command line gives them, and as a run folder keeps them for `fedstill resume`. */
const ServeOptionsSchema = z.strictObject({
  /** Default: the task that the run folder holds. */
  task: z.string().optional(),
  /** Default: `runs/TASK`. */
  run: z.string().optional(),
  port: port.default(7070),
  host: z.string().min(1).default('127.0.0.1'),
  tlsCert: z.string().optional(),
  tlsKey: z.string().optional(),
  publicUrl: z.string().optional(),
  engine: z.enum(enginePreferences).default('auto'),
  /** Seconds that a finished coordinator stays for clients to fetch the last soft labels. */
  linger: z.number().min(0).default(60),
  maxConnections: atLeastOne.default(defaultServerLimits.maxConnections),
  maxConnectionsPerAddress: atLeastOne.default(defaultServerLimits.maxConnectionsPerAddress),
  maxRequestsPerMinute: atLeastOne.default(defaultServerLimits.maxRequestsPerMinute),
  logLevel: z.enum(logLevels).default('warn'),
  json: z.boolean().default(false),
});
type ServeOptions = z.infer<typeof ServeOptionsSchema>;

export function serveCommand(): Command {
  const defaults = ServeOptionsSchema.parse({});
  return new Command('serve')
    .description('run the coordinator of a task')
    .requiredOption('--task <file>', 'task file (YAML), see docs/task.md')
    .option('--port <port>', 'TCP port; 0 takes a free one', integer(0, 65_535), defaults.port)
    .option('--host <address>', 'address to listen on; 0.0.0.0 for all networks', defaults.host)
    .option('--run <folder>', 'run folder: identity, journal, models, report (default: "runs/TASK")')
    .option('--tls-cert <file>', 'PEM certificate chain: serve https')
    .option('--tls-key <file>', 'PEM key of the certificate')
    .option('--public-url <url>', 'what clients see instead of host and port, e.g. https://fed.example.org:7070')
    .addOption(new Option('--engine <name>', 'what computes').choices([...enginePreferences]).default(defaults.engine))
    .option('--linger <seconds>', 'how long to stay at the end for clients to fetch the last soft labels', integer(0, 86_400), defaults.linger)
    .option('--max-connections <sockets>', 'sockets at once', integer(1, 1_000_000), defaults.maxConnections)
    .option('--max-connections-per-address <sockets>', 'sockets at once from one address', integer(1, 1_000_000), defaults.maxConnectionsPerAddress)
    .option('--max-requests-per-minute <requests>', 'HTTP requests from one address in a minute', integer(1, 1e9), defaults.maxRequestsPerMinute)
    .addOption(new Option('--log-level <level>', 'what to log on standard error').choices([...logLevels]).default(defaults.logLevel))
    .option('--json', 'one JSON object a line on standard output', false)
    .addHelpText('after', '\nExit status: 0 the task is done, 2 bad input, 3 the privacy budget is used up, 4 quorum missed or rounds failed, 130 Ctrl-C (go on with `fedstill resume`).')
    .action((options: Record<string, unknown>) => serve(options));
}

/** Serves a task to its end, or until a signal. `options`: those of `fedstill serve`, by their names in camel case. */
export async function serve(given: Readonly<Record<string, unknown>>): Promise<void> {
  const options = parseOptions(given);
  const logger = createJsonLogger({ level: options.logLevel });
  // Also where the run folder is named: mistakes in the file are told before anything is made.
  const taskName = options.task === undefined && options.run !== undefined ? undefined : await readTaskName(options.task);
  const runDirectory = options.run ?? join('runs', taskName!);
  const { task: _task, run: _run, json: _json, ...kept } = options;
  const serveOptions = Object.fromEntries(Object.entries(kept).filter((entry): entry is [string, string | number] => entry[1] !== undefined));

  const stop = new AbortController();
  const signals = onSignals(() => stop.abort());
  let run: OpenRun | undefined;
  let server: FederationServer | undefined;
  let reason: FinishReason | undefined;
  try {
    // The lines need the task's schedule, which is known once the run is open; nothing is said before.
    let say: (event: RunEvent) => void = () => undefined;
    run = await openRun({ taskFile: options.task, runDirectory, engine: options.engine, logger, onEvent: (event) => say(event), serveOptions });
    say = eventPrinter(options.json, run.config.schedule.rounds);
    const { coordinator } = run;
    const { tlsCert, tlsKey, maxConnections, maxConnectionsPerAddress, maxRequestsPerMinute } = options;
    server = createServer({
      endpoint: coordinator,
      status: () => coordinator.status(),
      clock: systemClock,
      logger,
      fingerprint: coordinator.fingerprint,
      limits: { maxConnections, maxConnectionsPerAddress, maxRequestsPerMinute },
      ...(tlsCert === undefined || tlsKey === undefined ? {} : { tls: { certFile: tlsCert, keyFile: tlsKey } }),
    });
    const { origin, port: bound } = await server.listen({ host: options.host, port: options.port });
    if (options.port === 0) await rememberPort(runDirectory, bound);
    printStart(run, runDirectory, origin, options);
    await coordinator.start();

    reason = await Promise.race([coordinator.finished, aborted(stop.signal)]);
    if (reason === undefined) return;
    await run.conclude(reason);
    process.exitCode = exitStatusFor(reason);
    if (!options.json) for (const line of resultLines(run.config, runDirectory)) printLine(line);
    await untilEveryoneHasLeft(run, options.linger, stop.signal);
  } finally {
    await run?.coordinator.close();
    await server?.close();
    await run?.close();
    signals.release();
    const signal = signals.received();
    if (signal !== undefined && reason === undefined) {
      process.exitCode = signal === 'SIGINT' ? 130 : 143;
      printStopped(runDirectory, options.json);
    }
  }
}

// --- options ---

function parseOptions(given: Readonly<Record<string, unknown>>): ServeOptions {
  const parsed = ServeOptionsSchema.safeParse(given);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new FederationError('usage-invalid', 'An option of serve cannot be used.', { field: issue!.path.join('.'), expected: issue!.message, next: 'Run: fedstill serve --help' });
  }
  const options = parsed.data;
  if ((options.tlsCert === undefined) !== (options.tlsKey === undefined)) {
    throw new FederationError('usage-invalid', 'TLS needs a certificate and its key.', { field: options.tlsCert === undefined ? '--tls-cert' : '--tls-key', expected: 'both --tls-cert and --tls-key', got: 'one of them', next: 'Name both files, or neither.' });
  }
  return {
    ...options,
    ...(options.tlsCert === undefined ? {} : { tlsCert: resolve(options.tlsCert) }),
    ...(options.tlsKey === undefined ? {} : { tlsKey: resolve(options.tlsKey) }),
    ...(options.publicUrl === undefined ? {} : { publicUrl: parseOrigin(options.publicUrl) }),
  };
}

function parseOrigin(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && /^https?:$/.test(url.protocol) && url.pathname === '/' && url.search === '' && url.hash === '' && url.username === '') return url.origin;
  throw new FederationError('usage-invalid', 'The public URL cannot be used.', { field: '--public-url', expected: 'http(s)://HOST or http(s)://HOST:PORT, without a path', got: text, next: 'Leave the path out: the join URL is made from it.' });
}

function integer(lowest: number, highest: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^[0-9]+$/.test(text) && value >= lowest && value <= highest) return value;
    throw new InvalidArgumentError(`Expected an integer from ${lowest} to ${highest}.`);
  };
}

async function readTaskName(taskFile: string | undefined): Promise<string> {
  if (taskFile === undefined) throw new FederationError('usage-invalid', 'There is neither a task nor a run.', { field: '--task', expected: 'a task file', got: 'nothing', next: 'Run: fedstill serve --task task.yaml' });
  let text: string;
  try {
    text = await readFile(taskFile, 'utf8');
  } catch (cause) {
    throw new FederationError('file-unreadable', `The task file ${taskFile} cannot be read.`, { field: '--task', expected: 'a readable YAML file', got: readFailure(cause), next: 'Check the path; docs/task.md has an example of such a file.', cause });
  }
  return parseTaskConfig(text, taskFile).task;
}

// --- the run ---

/** A run that is resumed has the same join URL, also when any port would have done. */
async function rememberPort(runDirectory: string, bound: number): Promise<void> {
  const manifest = await readRunManifest(runDirectory);
  if (manifest?.kind === 'serve') await writeRunManifest(runDirectory, { ...manifest, options: { ...manifest.options, port: bound } });
}

/** `undefined` when aborted. */
function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}

/** Clients fetch the last soft labels, distil, and leave; those that lost their connection at the end come back for that. */
async function untilEveryoneHasLeft({ coordinator }: OpenRun, lingerSeconds: number, signal: AbortSignal): Promise<void> {
  const end = systemClock.now() + lingerSeconds * 1000;
  while (!signal.aborted && coordinator.attendance > 0 && systemClock.now() < end) await sleep(systemClock, 100, signal).catch(() => undefined);
}

function exitStatusFor(reason: FinishReason): number {
  if (reason === 'rounds-done' || reason === 'converged') return 0;
  return reason === 'budget-exhausted' ? exitStatus.refused : exitStatus.peer;
}

/** Calls `stop` at the first signal; the second one ends the process at once. */
function onSignals(stop: () => void) {
  let received: 'SIGINT' | 'SIGTERM' | undefined;
  const handle = (signal: 'SIGINT' | 'SIGTERM') => {
    if (received !== undefined) process.exit(signal === 'SIGINT' ? 130 : 143);
    received = signal;
    stop();
  };
  const onInterrupt = () => handle('SIGINT');
  const onTerminate = () => handle('SIGTERM');
  process.on('SIGINT', onInterrupt).on('SIGTERM', onTerminate);
  return {
    received: () => received,
    release: () => void process.off('SIGINT', onInterrupt).off('SIGTERM', onTerminate),
  };
}

// --- lines ---

function printStart(run: OpenRun, runDirectory: string, origin: string, options: ServeOptions): void {
  const { coordinator, config, tokenFile } = run;
  const { fingerprint } = coordinator;
  const joinUrl = formatJoinUrl({ origin: options.publicUrl ?? reachableOrigin(origin, options.host), coordinatorFingerprint: fingerprint });
  if (options.json) {
    printJson({ event: 'listening', task: config.task, fingerprint, origin, joinUrl, trustMode: config.privacy.trustMode, mechanism: config.privacy.mechanism, secureAggregation: secureAggregationFacts(config), run: runDirectory, tokenFile });
    return;
  }
  const isLocal = options.publicUrl === undefined && /^(127\.|localhost$|::1$)/.test(options.host);
  printLine(`${startBlock({ config, fingerprint, origin, joinUrl, runDirectory, tokenFile, isLocal })}\n`);
}

/** Left out in other trust modes. */
function secureAggregationFacts({ privacy, schedule }: OpenRun['config']): { readonly minSurvivors: number; readonly maxCorrupt: number; readonly honestNoiseShares: number } | undefined {
  if (privacy.trustMode !== 'secure-aggregation') return undefined;
  const { maxCorrupt } = privacy.secureAggregation;
  return { minSurvivors: schedule.quorum, maxCorrupt, honestNoiseShares: privacy.mechanism === 'none' ? 0 : schedule.quorum - maxCorrupt };
}

/** For a server on all networks: an address of this machine that others can use. */
function reachableOrigin(origin: string, host: string): string {
  if (host !== '0.0.0.0' && host !== '::') return origin;
  const address = Object.values(networkInterfaces()).flat().find((candidate) => candidate !== undefined && !candidate.internal && candidate.family === 'IPv4');
  if (address === undefined) return origin;
  const url = new URL(origin);
  url.hostname = address.address;
  return url.origin;
}

function eventPrinter(json: boolean, rounds: number): (event: RunEvent) => void {
  if (json) return (event) => printJson(event);
  const lines = new ProgressLines(rounds);
  return (event) => {
    const line = lines.lineFor(event);
    if (line !== undefined) printLine(line);
  };
}

function printStopped(runDirectory: string, json: boolean): void {
  const command = formatCommand(['fedstill', 'resume', runDirectory]);
  if (json) printJson({ event: 'stopped', resume: command });
  else printLine(`Stopped. Everything is kept in ${runDirectory}. To go on:\n  ${command}`);
}
