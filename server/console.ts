/** What `fedstill serve` says to a person: one block at the start, one line a round, and what to do at the end. Pure: events in, text out. */
import type { TaskConfig } from '../shared/config/task-config.ts';
import { unreachable } from '../shared/errors.ts';
import type { RunEvent } from '../shared/ports/event-sink.ts';
import type { FinishReason } from '../shared/protocol/messages.ts';
import { formatCommand } from '../shared/node/terminal.ts';

export interface StartFacts {
  readonly config: TaskConfig;
  readonly fingerprint: string;
  /** Where the server listens, e.g. `http://127.0.0.1:7070`. */
  readonly origin: string;
  readonly joinUrl: string;
  readonly runDirectory: string;
  readonly tokenFile: string | undefined;
  /** Only this machine can reach it. */
  readonly isLocal: boolean;
}

/** The block that a coordinator starts with. */
export function startBlock(facts: StartFacts): string {
  const { config, tokenFile } = facts;
  const { schedule, privacy } = config;
  const join = formatCommand(['fedstill', 'join', facts.joinUrl, '--data', 'YOUR-DATA', ...(tokenFile === undefined ? [] : ['--token-file', 'TOKEN-FILE'])]);
  const rows: [string, string][] = [
    ['task', `${config.task}: ${count(schedule.rounds, 'round')}, starts with ${count(schedule.minClients, 'client')}, quorum ${schedule.quorum}`],
    ['fingerprint', facts.fingerprint],
    ['listening', `${facts.origin}${facts.isLocal ? ' (this machine only; --host 0.0.0.0 for others)' : ''}`],
    ['clients run', join],
    ...(privacy.mechanism === 'dpSgd' ? ([['', 'adding --allow dpSgd if they accept that the noise is in the training of their model']] as [string, string][]) : []),
    ...(privacy.mechanism === 'none' ? ([['', 'adding --allow none if they accept that their predictions are sent without noise']] as [string, string][]) : []),
    ...(tokenFile === undefined ? [] : ([['join token', `in ${tokenFile}: give it to each client over a private channel`]] as [string, string][])),
    ['trust mode', `${privacy.trustMode}: ${trustModeMeaning(config)}`],
    ['noise', noiseMeaning(config)],
    ['run folder', `${facts.runDirectory} (health and metrics: ${facts.origin}/readyz, /metrics)`],
  ];
  const width = Math.max(...rows.map(([label]) => label.length));
  return rows.map(([label, text]) => `${label.padEnd(width)}  ${text}`).join('\n');
}

/** What a finished run leaves that somebody wants. */
export function resultLines({ teacher }: TaskConfig, runDirectory: string): string[] {
  return [...(teacher.kind === 'consensus' ? [] : [`teacher model:     ${runDirectory}/models/teacher (TF.js LayersModel)`]), `privacy statement: ${runDirectory}/privacy.txt`];
}

function trustModeMeaning({ privacy, schedule }: TaskConfig): string {
  const mode = privacy.trustMode;
  switch (mode) {
    case 'sealed':
      return 'only this coordinator can open contributions, and it sees each client\'s predictions one by one, ' + (privacy.mechanism === 'none' ? 'WITHOUT NOISE' : 'with the noise below');
    case 'clear':
      return 'this coordinator sees each client\'s predictions; a baseline that claims NO PRIVACY';
    case 'secure-aggregation':
      return `this coordinator sees only sums over ${schedule.quorum} clients or more, ${privacy.secureAggregation.maxCorrupt === 0 ? 'while none of them works with it' : `while at most ${privacy.secureAggregation.maxCorrupt} of them ${privacy.secureAggregation.maxCorrupt === 1 ? 'works' : 'work'} with it`}; whoever runs it must not also be the one who decides who may join`;
    default:
      return unreachable(mode);
  }
}

function noiseMeaning({ privacy, schedule }: TaskConfig): string {
  const { mechanism, epsilon, delta, secureAggregation } = privacy;
  if (mechanism === 'none') return `none: ${privacy.trustMode === 'secure-aggregation' ? 'sums hide who predicted what, and ' : ''}no differential privacy is claimed`;
  const bound = epsilon === undefined ? '' : `epsilon ${epsilon} at delta ${delta} `;
  const unit = privacy.unit === 'record' ? 'one record of a client' : 'everything of one client';
  const guarantee = `${bound}for ${unit} (replace-one) over ${count(schedule.rounds, 'round')}`;
  if (mechanism === 'dpSgd') return `dpSgd, in every training step on private records; predictions leave as they are: ${guarantee}`;
  if (mechanism !== 'discreteGaussian') return `${mechanism}, added by each client: ${guarantee}`;
  const honest = schedule.quorum - secureAggregation.maxCorrupt;
  return `${mechanism}, a share of it added by each client, ${honest} of them for certain in every sum: ${guarantee}, computationally, and only for what the trust mode protects`;
}

/** Turns events into lines; keeps what belongs to one round together. */
export class ProgressLines {
  readonly #rounds: number;
  #released = 0;
  #aggregated: RunEvent | undefined;
  #isFinished = false;

  /** `rounds`: planned. */
  constructor(rounds: number) {
    this.#rounds = rounds;
  }

  /** A line for a person, or none for an event that is not worth one. */
  lineFor(event: RunEvent): string | undefined {
    const number = (field: string) => Number(event[field]);
    switch (event.event) {
      case 'task-opened':
        return `waiting for ${count(number('minClients'), 'client')} (0/${number('minClients')})`;
      case 'restarted':
        this.#released = number('released');
        return `going on after ${this.#released}/${this.#rounds} rounds`;
      case 'waiting': {
        const missing = number('needed') - number('connected');
        return missing > 0 ? `waiting for ${missing} more ${missing === 1 ? 'client' : 'clients'} (${number('connected')}/${number('needed')})` : undefined;
      }
      case 'client-lost':
        return this.#isFinished ? undefined : `client ${String(event['client'])} lost its connection`;
      case 'round-aggregated':
        this.#aggregated = event;
        return undefined;
      case 'round-released':
        this.#released += 1;
        return this.#releasedLine(event);
      case 'share-suspects':
        return `round ${number('round')}: secret shares did not fit; the sum was made without them. Sent by ${(event['clients'] as readonly string[]).join(', ')}, who lied or were lied to`;
      case 'round-aborted':
        if (typeof event['stage'] === 'string' && event['stage'] !== 'contribution') {
          return `round ${number('round')}: aborted in stage ${event['stage']} with ${number('contributions')} of ${number('cohort')} clients, ${number('needed')} needed${typeof event['code'] === 'string' ? ` (${event['code']})` : ''}`;
        }
        return `round ${number('round')}: aborted with ${number('contributions')} of ${number('cohort')} contributions${typeof event['code'] === 'string' ? ` (${event['code']})` : ''}`;
      case 'finished':
        this.#isFinished = true;
        return `finished: ${reasonMeaning(event['reason'] as FinishReason)}; ${count(number('released'), 'round')} released`;
      default:
        return undefined;
    }
  }

  #releasedLine(event: RunEvent): string {
    const measured = this.#aggregated?.['round'] === event['round'] ? this.#aggregated : undefined;
    const round = Number(event['round']);
    // Numbers of failed rounds are not used again.
    const name = round === this.#released ? `round ${round}/${this.#rounds}` : `round ${round} (${this.#released}/${this.#rounds} released)`;
    const parts = [`${Number(event['contributions'])} of ${Number(event['cohort'])} contributions`];
    const consensus = percent(measured?.['consensusAccuracy']);
    const teacher = percent(measured?.['teacherAccuracy']);
    if (consensus !== undefined) parts.push(`consensus accuracy ${consensus}`);
    if (teacher !== undefined) parts.push(`teacher ${teacher}`);
    if (typeof measured?.['seconds'] === 'number') parts.push(`${measured['seconds'].toFixed(1)} s`);
    return `${name}: ${parts.join(', ')}`;
  }
}

export function reasonMeaning(reason: FinishReason): string {
  switch (reason) {
    case 'rounds-done':
      return 'all rounds done';
    case 'converged':
      return 'the accuracy no longer rises';
    case 'budget-exhausted':
      return 'the privacy budget is used up';
    case 'quorum-missed':
      return 'too few clients contributed, too many times';
    case 'failed':
      return 'rounds failed too many times';
    default:
      return unreachable(reason);
  }
}

function count(number: number, thing: string): string {
  return `${number} ${thing}${number === 1 ? '' : 's'}`;
}

function percent(share: unknown): string | undefined {
  return typeof share === 'number' ? `${(100 * share).toFixed(1)} %` : undefined;
}
