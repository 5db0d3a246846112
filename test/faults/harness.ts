/**
 * A coordinator without sockets, disk or keys: it journals events, applies them, performs the effects on a manual clock, and
 * dies where it is told to. What it accepted is recorded apart from the machine's state, so that the two can be compared.
 */
import { FederationError, unreachable, type ProblemCode } from '../../shared/errors.ts';
import { secureStageNames, type StageName } from '../../shared/protocol/messages.ts';
import type { RoundPolicy } from '../../shared/rounds/policy.ts';
import { initialState, type FederationState, type RoundEffect, type RoundEvent, type RoundTimer } from '../../shared/rounds/state.ts';
import { judgeContribution, pendingForClient, transition } from '../../shared/rounds/transition.ts';
import type { ClientId, Digest, Instant, RoundId } from '../../shared/types/ids.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { checkStep } from './invariants.ts';
import type { ContributionKind, CrashPoint, Op, Work } from './ops.ts';

/** Clients that random operations name. */
export const maxClients = 6;

export const clientId = (index: number) => `client-${String(index).padStart(2, '0')}` as ClientId;

/** A client's only contribution to a stage of a round: no two clients, rounds or stages share one. */
export const contributionOf = (client: ClientId, round: number, stage: StageName, variant = '') => `${client} ${round} ${stage}${variant}` as Digest;

/** Several stages with one quorum: whatever the machine does with a list of stages, it does with this one. */
export const threeStages: readonly StageName[] = ['advertiseKeys', 'maskedInput', 'unmask'];

export const examplePolicy: RoundPolicy = {
  seed: 7,
  stages: ['contribution'],
  rounds: 3,
  minClients: 3,
  cohortSize: undefined,
  quorum: 2,
  stageDeadlineMs: 10_000,
  secureAggregation: undefined,
  reconnectGraceMs: 2_000,
  maxFailedRounds: 2,
  maxReleases: undefined,
  convergencePatience: 0,
  convergenceDelta: 0,
};

/** Rounds of secure aggregation: no client works with the coordinator, so the largest cohort has 2 * quorum - 1 clients. */
export const securePolicy: Partial<RoundPolicy> = { stages: secureStageNames, quorum: 3, secureAggregation: { maxCorrupt: 0, stageDeadlineMs: 1_000 } };

export const smoothWork: Work = { delayMs: 1, fails: false, accuracy: null };

/** Key of a stage of a round, and of a timer. */
export const stageKey = (round: number, stage: StageName) => `${round}/${stage}`;
export const timerKey = (timer: RoundTimer) => (timer.kind === 'stage' ? `stage ${stageKey(timer.round, timer.stage)}` : `grace ${timer.client}`);

export type Answer = 'accepted' | 'duplicate' | ProblemCode | 'no answer';

export class RoundHarness {
  readonly policy: RoundPolicy;
  readonly clock = new ManualClock();
  readonly startedAt: Instant;
  /** One JSON text per event: what survives a crash. */
  readonly journal: string[] = [];
  /** Every effect that the machine asked for, performed or not. */
  readonly asked: RoundEffect[] = [];
  readonly performed: RoundEffect[] = [];
  /** Accepted contributions by stage key: digests by client. Kept by this harness from the answers it gave. */
  readonly accepted = new Map<string, Map<ClientId, Digest>>();
  /** What the machine said of each stage that is over, by stage key. */
  readonly closedStages = new Map<string, string>();
  /** Stage keys and clients that declined: `round/stage client`. */
  readonly declined = new Set<string>();
  /** Timers and work in progress that this process still has, by key. */
  readonly armed = new Map<string, number>();
  readonly working = new Map<string, number>();
  crashes = 0;
  state: FederationState;
  readonly #work: readonly Work[];
  #workDone = 0;
  #crashAtNextEvent: { readonly point: CrashPoint; readonly downtimeMs: number } | undefined;

  constructor(policy: Partial<RoundPolicy> = {}, work: readonly Work[] = [smoothWork]) {
    this.policy = { ...examplePolicy, ...policy };
    this.#work = work;
    this.startedAt = this.clock.now();
    this.state = initialState(this.startedAt);
  }

  // --- what clients do ---

  connect(...clients: readonly number[]): void {
    for (const client of clients) this.record({ type: 'client-connected', client: clientId(client), at: this.clock.now() });
  }

  /** Does nothing for a client that has no connection. */
  disconnect(...clients: readonly number[]): void {
    for (const client of clients) {
      if (this.isConnected(client)) this.record({ type: 'client-disconnected', client: clientId(client), at: this.clock.now() });
    }
  }

  leave(...clients: readonly number[]): void {
    for (const client of clients) this.record({ type: 'client-left', client: clientId(client), at: this.clock.now() });
  }

  isConnected(client: number): boolean {
    return this.state.members[clientId(client)]?.connected === true;
  }

  /** Sends a contribution; `stored` after it is durable (0: at once). */
  contribute(client: number, kind: ContributionKind = 'expected', storeDelayMs?: number): Answer {
    const { round, stage } = this.#target(kind);
    const id = clientId(client);
    const digest = contributionOf(id, round, stage, kind === 'conflicting' ? ' other bytes' : '');
    return this.send(id, round, stage, digest, storeDelayMs);
  }

  send(client: ClientId, round: number, stage: StageName, digest: Digest, storeDelayMs?: number): Answer {
    const message = { client, round: round as RoundId, stage, digest };
    const answer = this.#judge(message);
    if (answer !== 'accepted') return answer;
    if (storeDelayMs !== undefined) {
      this.clock.schedule(storeDelayMs, () => this.#store(message));
      return 'accepted';
    }
    return this.#store(message) ? 'accepted' : 'no answer';
  }

  decline(client: number, round: number = this.round): void {
    const { current } = this.state;
    const id = clientId(client);
    const counted = current.phase === 'collecting' && current.round === round && current.expected.includes(id) && this.accepted.get(stageKey(round, current.stage))?.has(id) !== true;
    const journalled = this.record({ type: 'client-declined', client: id, round: round as RoundId, at: this.clock.now() });
    if (counted && journalled) this.declined.add(`${stageKey(round, current.stage)} ${id}`);
  }

  /** Fewest messages for this stage, from what was accepted in the first one: docs/secure-aggregation.md, "Parameters", complete graph. */
  neededIn(round: number, stage: StageName): number {
    const { quorum, secureAggregation, stages } = this.policy;
    if (secureAggregation === undefined || !['consistencyCheck', 'unmask'].includes(stage)) return quorum;
    const advertised = this.accepted.get(stageKey(round, stages[0]!))!.size;
    return Math.max(2, Math.floor((advertised + secureAggregation.maxCorrupt) / 2) + 1);
  }

  // --- what the process does ---

  advance(ms: number): void {
    this.clock.advance(ms);
  }

  /** Kills the process and starts it again: timers, work and connections are lost, the journal is not. */
  crash(downtimeMs = 0): void {
    this.crashes++;
    this.clock.clear();
    this.armed.clear();
    this.working.clear();
    this.clock.advance(downtimeMs);
    this.state = this.replay();
    this.record({ type: 'restarted', at: this.clock.now() });
  }

  /** The state that the journal alone gives to a process started at this time. */
  replay(startedAt: Instant = this.clock.now()): FederationState {
    return this.journal.reduce((state, line) => transition(state, JSON.parse(line) as RoundEvent, this.policy).state, initialState(startedAt));
  }

  /** Journals and applies an event and performs its effects; false when the process died before the event was durable. */
  record(event: RoundEvent): boolean {
    const crash = this.#crashAtNextEvent;
    this.#crashAtNextEvent = undefined;
    if (crash?.point.at === 'beforeJournal') {
      this.crash(crash.downtimeMs);
      return false;
    }
    this.journal.push(JSON.stringify(event));
    const before = this.state;
    const step = transition(before, event, this.policy);
    this.state = step.state;
    this.asked.push(...step.effects);
    checkStep(this, before, event, step.effects);
    const performed = crash === undefined ? step.effects : step.effects.slice(0, crash.point.effects);
    for (const effect of performed) this.#perform(effect);
    if (crash !== undefined) this.crash(crash.downtimeMs);
    return true;
  }

  crashAtNextEvent(point: CrashPoint, downtimeMs = 0): void {
    this.#crashAtNextEvent = { point, downtimeMs };
  }

  /** The round in progress, or the next one. */
  get round(): number {
    const { current } = this.state;
    return 'round' in current ? current.round : this.state.nextRound;
  }

  apply(op: Op): void {
    const at = this.clock.now();
    switch (op.op) {
      case 'connect':
        return this.connect(op.client);
      case 'disconnect':
        return this.disconnect(op.client);
      case 'leave':
        return this.leave(op.client);
      case 'contribute':
        return void this.contribute(op.client, op.kind);
      case 'contributeSlowly':
        return void this.contribute(op.client, 'expected', op.delayMs);
      case 'connectAll':
        return this.connectAll();
      case 'contributeAll':
        return this.contributeAll();
      case 'decline':
        return this.decline(op.client, this.round + op.roundOffset);
      case 'advance':
        return this.advance(op.ms);
      case 'setWall':
        return this.clock.setWall(op.byMs);
      case 'crash':
        if (op.twice) this.crashAtNextEvent({ at: 'afterJournal', effects: 0 }, op.downtimeMs);
        return this.crash(op.downtimeMs);
      case 'crashAtNextEvent':
        return this.crashAtNextEvent(op.point, op.downtimeMs);
      case 'strayStageTimer': {
        const stage = this.policy.stages[op.stage % this.policy.stages.length]!;
        return void this.record({ type: 'timer-fired', timer: { kind: 'stage', round: (this.round + op.roundOffset) as RoundId, stage }, at });
      }
      case 'strayGraceTimer':
        return void this.record({ type: 'timer-fired', timer: { kind: 'grace', client: clientId(op.client) }, at });
      case 'strayReport':
        return void this.record(this.#report(op.report, (this.round + op.roundOffset) as RoundId, at));
      default:
        return unreachable(op);
    }
  }

  /** Every client without a connection gets one. */
  connectAll(): void {
    for (let client = 0; client < maxClients; client++) if (!this.isConnected(client)) this.connect(client);
  }

  /** Every connected client sends what the stage waits for. */
  contributeAll(): void {
    const { current } = this.state;
    if (current.phase !== 'collecting') return;
    for (const client of current.expected) {
      if (this.state.members[client]?.connected === true && pendingForClient(this.state.current, client)) {
        this.send(client, current.round, current.stage, contributionOf(client, current.round, current.stage));
      }
    }
  }

  #target(kind: ContributionKind): { round: number; stage: StageName } {
    const { current } = this.state;
    const stage = current.phase === 'collecting' ? current.stage : this.policy.stages.at(-1)!;
    switch (kind) {
      case 'expected':
      case 'conflicting':
        return { round: this.round, stage };
      case 'stale':
        return { round: this.round - 1, stage };
      case 'future':
        return { round: this.state.nextRound, stage };
      case 'otherStage':
        return { round: this.round, stage: this.policy.stages.find((other) => other !== stage) ?? 'unmask' };
      default:
        return unreachable(kind);
    }
  }

  #judge(message: { client: ClientId; round: RoundId; stage: StageName; digest: Digest }): Answer {
    try {
      return judgeContribution(this.state, message).verdict === 'accept' ? 'accepted' : 'duplicate';
    } catch (error) {
      if (error instanceof FederationError && error.fault === 'peer') return error.code;
      throw error;
    }
  }

  /** Counts the contribution as accepted when, at the moment it is durable, it is one that the answer promised to count. */
  #store(message: { client: ClientId; round: RoundId; stage: StageName; digest: Digest }): boolean {
    const counts = this.#judge(message) === 'accepted';
    const key = stageKey(message.round, message.stage);
    // Entered first, so that the checks of this very step see it; taken back when the process died before the journal had it.
    const stage = this.accepted.get(key) ?? new Map<ClientId, Digest>();
    if (counts) this.accepted.set(key, stage.set(message.client, message.digest));
    const journalled = this.record({ type: 'contribution-stored', ...message, at: this.clock.now() });
    if (counts && !journalled) stage.delete(message.client);
    return journalled;
  }

  #perform(effect: RoundEffect): void {
    this.performed.push(effect);
    switch (effect.type) {
      case 'start-timer': {
        const done = begin(this.armed, timerKey(effect.timer));
        this.clock.schedule(effect.at - this.clock.now(), () => {
          done();
          this.record({ type: 'timer-fired', timer: effect.timer, at: this.clock.now() });
        });
        return;
      }
      case 'open-round':
        return this.#doWork(`open ${effect.round}`, effect.round, 'round-opened');
      case 'aggregate':
        return this.#doWork(`aggregate ${effect.round}`, effect.round, 'round-aggregated');
      default:
        return;
    }
  }

  #doWork(key: string, round: RoundId, report: 'round-opened' | 'round-aggregated'): void {
    const work = this.#work[this.#workDone++ % this.#work.length]!;
    const done = begin(this.working, key);
    this.clock.schedule(work.delayMs, () => {
      done();
      this.record(this.#report(work.fails ? 'round-failed' : report, round, this.clock.now(), work.accuracy));
    });
  }

  #report(type: 'round-opened' | 'round-aggregated' | 'round-failed', round: RoundId, at: Instant, accuracy: number | null = null): RoundEvent {
    switch (type) {
      case 'round-opened':
        return { type, round, transcript: `transcript ${round}, attempt ${this.#workDone}` as Digest, at };
      case 'round-aggregated':
        return { type, round, accuracy, at };
      case 'round-failed':
        return { type, round, code: 'worker-failed', at };
      default:
        return unreachable(type);
    }
  }
}

function begin(counts: Map<string, number>, key: string): () => void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
  return () => counts.set(key, counts.get(key)! - 1);
}
