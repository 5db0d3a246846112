/**
 * The rounds of a task as a pure function. No clock, no sockets, no randomness: time comes with the events, timers are asked
 * for as effects, and the cohort is drawn from a seed. A coordinator that replays its journal through `transition` is where it was.
 *
 * A round: gathering -> opening -> collecting (once a stage) -> aggregating -> gathering or finished.
 * - A stage closes when nobody is left to wait for, or at its deadline; below the quorum the round is aborted.
 * - A client that contributed and went away stays counted, and does not close the round for those still at work.
 * - A round number is used once. A failed round is repeated under a new number, with new keys, new noise, new charges.
 */
import { deriveSeed, SeededGenerator } from '../datasets/seeded-generator.ts';
import { FederationError, unreachable, type ProblemCode } from '../errors.ts';
import type { FinishReason, StageName } from '../protocol/messages.ts';
import type { ClientId, Digest, Instant, RoundId } from '../types/ids.ts';
import { countedStage, largestCohort, stageDeadlineMs, stageQuorum, type RoundPolicy } from './policy.ts';
import type { ClosedStage, FederationState, Member, RoundEffect, RoundEvent, RoundPhase, RoundTimer } from './state.ts';

export interface Step {
  readonly state: FederationState;
  readonly effects: readonly RoundEffect[];
}

type Collecting = Extract<RoundPhase, { phase: 'collecting' }>;

const after = (at: Instant, delayMs: number) => (at + delayMs) as Instant;
const unchanged = (state: FederationState): Step => ({ state, effects: [] });

/** Applies one event. Events that no longer mean anything (an old timer, a late report) change nothing. */
export function transition(state: FederationState, event: RoundEvent, policy: RoundPolicy): Step {
  if (state.current.phase === 'finished') return applyToFinished(state, event);
  switch (event.type) {
    case 'client-connected':
      return onConnected(state, event.client, event.at, policy);
    case 'client-disconnected':
      return onDisconnected(state, event.client, event.at, policy);
    case 'client-left':
      return onLeft(state, event.client, event.at, policy);
    case 'round-opened':
      return onOpened(state, event.round, event.transcript, event.at, policy);
    case 'contribution-stored':
      return onContribution(state, event, policy);
    case 'client-declined':
      return onDeclined(state, event.client, event.round, event.at, policy);
    case 'timer-fired':
      return onTimer(state, event.timer, event.at, policy);
    case 'round-aggregated':
      return onAggregated(state, event.round, event.accuracy, event.at, policy);
    case 'round-failed':
      return onFailed(state, event.round, event.code, event.at, policy);
    case 'restarted':
      return onRestarted(state, event.at, policy);
    default:
      return unreachable(event);
  }
}

/** Members still come and go after the end, so that each can be told of it. */
function applyToFinished(state: FederationState, event: RoundEvent): Step {
  switch (event.type) {
    case 'client-connected':
      return unchanged({ ...state, members: { ...state.members, [event.client]: { connected: true, since: event.at } } });
    case 'client-disconnected':
    case 'client-left':
      return unchanged({ ...state, members: withoutMember(state.members, event.client) });
    case 'restarted':
      return { state: { ...state, members: {} }, effects: state.current.phase === 'finished' ? [{ type: 'finish', reason: state.current.reason }] : [] };
    default:
      return unchanged(state);
  }
}

// --- members ---

function withoutMember(members: FederationState['members'], client: ClientId): FederationState['members'] {
  const others = { ...members };
  delete others[client];
  return others;
}

/** Counted, not listed: thousands of clients come one by one. */
export function connectedCount({ members }: FederationState): number {
  let count = 0;
  for (const client in members) if (members[client]!.connected) count++;
  return count;
}

/** Ids of the connected members, sorted: an order that does not depend on who came first. */
export function connectedClients(state: FederationState): ClientId[] {
  return Object.entries(state.members)
    .filter(([, member]) => member.connected)
    .map(([id]) => id as ClientId)
    .sort();
}

function onConnected(state: FederationState, client: ClientId, at: Instant, policy: RoundPolicy): Step {
  const joined: FederationState = { ...state, members: { ...state.members, [client]: { connected: true, since: at } } };
  const { current } = joined;
  if (current.phase === 'gathering') {
    // The wait begins with the first client, so that only journalled times decide: the initial state's is not one.
    const since = Object.keys(state.members).length === 0 ? at : current.since;
    return tryToOpen({ ...joined, current: { ...current, since } }, since, at, policy);
  }
  if (current.phase === 'collecting' && current.lost.includes(client)) {
    return unchanged({ ...joined, current: { ...current, lost: current.lost.filter((id) => id !== client) } });
  }
  return unchanged(joined);
}

function onDisconnected(state: FederationState, client: ClientId, at: Instant, policy: RoundPolicy): Step {
  if (state.members[client] === undefined) return unchanged(state);
  const members = { ...state.members, [client]: { connected: false, since: at } };
  return { state: { ...state, members }, effects: [{ type: 'start-timer', timer: { kind: 'grace', client }, at: after(at, policy.reconnectGraceMs) }] };
}

function onLeft(state: FederationState, client: ClientId, at: Instant, policy: RoundPolicy): Step {
  const left = { ...state, members: withoutMember(state.members, client) };
  const { current } = left;
  if (current.phase === 'collecting') return closeStageIfDone(markLost(left, current, client), at, policy);
  return current.phase === 'gathering' ? tryToOpen(left, current.since, at, policy) : unchanged(left);
}

function markLost(state: FederationState, current: Collecting, client: ClientId): FederationState {
  if (!current.expected.includes(client) || current.lost.includes(client)) return state;
  return { ...state, current: { ...current, lost: [...current.lost, client] } };
}

// --- opening a round ---

/**
 * Whoever was here before is waited for, for the grace time after the gathering began: with many clients, or two that take
 * turns, somebody is always away. The first round waits for `minClients`, later ones for a quorum, as long as it takes.
 */
function tryToOpen(state: FederationState, since: Instant, at: Instant, policy: RoundPolicy): Step {
  if (policy.maxReleases !== undefined && state.collected >= policy.maxReleases) return finish(state, 'budget-exhausted');
  const needed = state.nextRound === 1 ? policy.minClients : policy.quorum;
  if (connectedCount(state) < needed) return unchanged(state); // before sorting
  const connected = connectedClients(state);
  const someoneMayComeBack = at < after(since, policy.reconnectGraceMs) && Object.values(state.members).some((member: Member) => !member.connected);
  if (someoneMayComeBack) return unchanged(state);
  const cohort = sampleCohort(connected, policy, state.nextRound);
  const round = state.nextRound;
  return {
    state: { ...state, nextRound: (round + 1) as RoundId, current: { phase: 'opening', round, cohort } },
    effects: [{ type: 'open-round', round, cohort, previous: state.previous }],
  };
}

/** A uniformly random subset, drawn from the task's seed and the round; sorted. Gives no privacy amplification: the roster is known. */
function sampleCohort(connected: readonly ClientId[], policy: RoundPolicy, round: RoundId): ClientId[] {
  const size = largestCohort(policy, connected.length);
  if (size >= connected.length) return [...connected];
  const order = new SeededGenerator(deriveSeed(policy.seed, 'cohort', round)).permutation(connected.length);
  return Array.from(order.subarray(0, size), (index) => connected[index]!).sort();
}

function onOpened(state: FederationState, round: RoundId, transcript: Digest, at: Instant, policy: RoundPolicy): Step {
  const { current } = state;
  if (current.phase !== 'opening' || current.round !== round) return unchanged(state);
  const opened: FederationState = { ...state, previous: transcript };
  const { state: next, effects } = openStage(opened, { round, transcript, cohort: current.cohort, closed: [], stage: policy.stages[0]!, expected: current.cohort }, at, policy);
  return { state: next, effects: [{ type: 'announce', round, clients: current.cohort }, ...effects] };
}

function openStage(state: FederationState, stage: Pick<Collecting, 'round' | 'transcript' | 'cohort' | 'closed' | 'stage' | 'expected'>, at: Instant, policy: RoundPolicy): Step {
  const deadline = after(at, stageDeadlineMs(policy, stage.stage));
  const advertised = (stage.closed[0]?.received ?? stage.expected).length;
  const current: Collecting = { phase: 'collecting', ...stage, quorum: stageQuorum(policy, stage.stage, advertised), received: [], declined: [], lost: stage.expected.filter((client) => state.members[client] === undefined), deadline };
  const opened: Step = {
    state: { ...state, current },
    effects: [{ type: 'start-timer', timer: { kind: 'stage', round: stage.round, stage: stage.stage }, at: deadline }],
  };
  const closed = closeStageIfDone(opened.state, at, policy);
  return { state: closed.state, effects: [...opened.effects, ...closed.effects] };
}

// --- collecting ---

/** What to answer to a message of this client, before anything is stored. Pure, and the same after a restart. */
export function judgeContribution(state: FederationState, message: { readonly client: ClientId; readonly round: RoundId; readonly stage: StageName; readonly digest: Digest }): { readonly verdict: 'accept' | 'duplicate' } {
  const { current } = state;
  const refuse = (code: ProblemCode, why: string, next: string) => new FederationError(code, why, { field: 'round', got: String(message.round), next });
  if (current.phase === 'finished') throw refuse('task-finished', 'The task is finished; no round takes contributions.', 'Leave.');
  if (message.round >= state.nextRound) throw refuse('round-unknown', `Round ${message.round} was not announced.`, 'Wait for the next announcement.');
  const inProgress = (current.phase === 'collecting' || current.phase === 'aggregating') && current.round === message.round;
  if (inProgress) {
    const accepted = receivedIn(current, message.stage).find((contribution) => contribution.client === message.client);
    if (accepted?.digest === message.digest) return { verdict: 'duplicate' };
    if (accepted !== undefined) throw refuse('contribution-conflict', `Another ${message.stage} of this client to round ${message.round} was accepted already.`, 'Send the same bytes, or wait for the next round.');
  }
  if (!inProgress || current.phase !== 'collecting') throw refuse('round-closed', `Round ${message.round} takes no more contributions.`, 'Wait for the next announcement.');
  if (!current.cohort.includes(message.client)) throw refuse('not-in-cohort', `This client was not asked for a contribution to round ${message.round}.`, 'Wait for an announcement.');
  if (current.stage !== message.stage || !current.expected.includes(message.client)) {
    throw new FederationError('stage-mismatch', `Round ${message.round} is in stage ${current.stage}.`, { field: 'stage', expected: current.stage, got: message.stage, next: 'Wait for the next announcement.' });
  }
  if (current.declined.includes(message.client)) throw refuse('declined', `This client declined round ${message.round}.`, 'Wait for the next announcement.');
  return { verdict: 'accept' };
}

/** What was accepted in a stage of the round in progress, in the one that is open or in one before it. */
function receivedIn(current: Extract<RoundPhase, { phase: 'collecting' | 'aggregating' }>, stage: StageName): ClosedStage['received'] {
  if (current.phase === 'collecting' && current.stage === stage) return current.received;
  return current.closed.find((closed) => closed.stage === stage)?.received ?? [];
}

function onContribution(state: FederationState, event: Extract<RoundEvent, { type: 'contribution-stored' }>, policy: RoundPolicy): Step {
  const { current } = state;
  if (current.phase !== 'collecting' || current.round !== event.round || current.stage !== event.stage) return unchanged(state);
  if (!current.expected.includes(event.client) || current.declined.includes(event.client) || current.received.some(({ client }) => client === event.client)) return unchanged(state);
  const received = [...current.received, { client: event.client, digest: event.digest }];
  const lost = current.lost.filter((client) => client !== event.client);
  return closeStageIfDone({ ...state, current: { ...current, received, lost } }, event.at, policy);
}

function onDeclined(state: FederationState, client: ClientId, round: RoundId, at: Instant, policy: RoundPolicy): Step {
  const { current } = state;
  if (current.phase !== 'collecting' || current.round !== round || !current.expected.includes(client)) return unchanged(state);
  if (current.declined.includes(client) || current.received.some((contribution) => contribution.client === client)) return unchanged(state);
  return closeStageIfDone({ ...state, current: { ...current, declined: [...current.declined, client] } }, at, policy);
}

/** Who the stage still waits for. */
export function pendingClients(current: Collecting): ClientId[] {
  const done = new Set<ClientId>([...current.received.map(({ client }) => client), ...current.declined, ...current.lost]);
  return current.expected.filter((client) => !done.has(client));
}

function closeStageIfDone(state: FederationState, at: Instant, policy: RoundPolicy): Step {
  const { current } = state;
  if (current.phase !== 'collecting') return unchanged(state);
  // A lost client may still come back before the deadline, so only declining makes a quorum impossible for good.
  const possible = current.expected.length - current.declined.length;
  if (possible < current.quorum) return abort(state, 'quorum-missed', at, policy);
  // Cheap first: in a round of thousands most messages find others missing.
  if (current.received.length + current.declined.length + current.lost.length < current.expected.length || pendingClients(current).length > 0) return unchanged(state);
  return current.received.length >= current.quorum ? closeStage(state, current, at, policy) : unchanged(state);
}

function closeStage(state: FederationState, current: Collecting, at: Instant, policy: RoundPolicy): Step {
  const { round, transcript, cohort } = current;
  const next = policy.stages[policy.stages.indexOf(current.stage) + 1];
  // Sorted, so that nothing downstream depends on the order of arrival.
  const received = [...current.received].sort((a, b) => (a.client < b.client ? -1 : 1));
  const closed = [...current.closed, { stage: current.stage, received }];
  if (next !== undefined) {
    const expected = received.map(({ client }) => client);
    const opened = openStage(state, { round, transcript, cohort, closed, stage: next, expected }, at, policy);
    return { state: opened.state, effects: [{ type: 'open-stage', round, stage: next, clients: expected, closed }, ...opened.effects] };
  }
  const survivors = closed.find(({ stage }) => stage === countedStage(policy))!.received;
  return { state: { ...state, collected: state.collected + 1, current: { phase: 'aggregating', round, transcript, cohort, closed, survivors } }, effects: [{ type: 'aggregate', round, survivors, closed }] };
}

// --- timers ---

function onTimer(state: FederationState, timer: RoundTimer, at: Instant, policy: RoundPolicy): Step {
  const { current } = state;
  switch (timer.kind) {
    case 'stage':
      if (current.phase !== 'collecting' || current.round !== timer.round || current.stage !== timer.stage) return unchanged(state);
      if (at < current.deadline) return startAgain(state, timer, current.deadline);
      return current.received.length >= current.quorum ? closeStage(state, current, at, policy) : abort(state, 'quorum-missed', at, policy);
    case 'grace':
      return onGraceOver(state, timer.client, at, policy);
    default:
      return unreachable(timer);
  }
}

/** A timer that fires early (the wall clock was set back, or the timer is a millisecond off) is the only one there is: the wait must still end. */
function startAgain(state: FederationState, timer: RoundTimer, at: Instant): Step {
  return { state, effects: [{ type: 'start-timer', timer, at }] };
}

/** The grace time of a lost client is over: it is no longer waited for, until it comes back. */
function onGraceOver(state: FederationState, client: ClientId, at: Instant, policy: RoundPolicy): Step {
  const member = state.members[client];
  if (member?.connected === true) return unchanged(state);
  const backBy = member === undefined ? at : after(member.since, policy.reconnectGraceMs);
  if (at < backBy) return startAgain(state, { kind: 'grace', client }, backBy);
  const { current } = state;
  const gone: FederationState = { ...state, members: withoutMember(state.members, client) };
  if (current.phase === 'collecting') return closeStageIfDone(markLost(gone, current, client), at, policy);
  return current.phase === 'gathering' ? tryToOpen(gone, current.since, at, policy) : unchanged(gone);
}

// --- closing a round ---

function gather(state: FederationState, at: Instant, policy: RoundPolicy): Step {
  return tryToOpen({ ...state, current: { phase: 'gathering', since: at } }, at, at, policy);
}

function onAggregated(state: FederationState, round: RoundId, accuracy: number | null, at: Instant, policy: RoundPolicy): Step {
  const { current } = state;
  if (current.phase !== 'aggregating' || current.round !== round) return unchanged(state);
  const gained = accuracy !== null && (state.best === null || accuracy >= state.best + policy.convergenceDelta);
  const released: FederationState = {
    ...state,
    released: state.released + 1,
    failedInRow: 0,
    best: gained ? accuracy : state.best,
    roundsWithoutGain: gained || accuracy === null ? 0 : state.roundsWithoutGain + 1,
  };
  const closed: RoundEffect = { type: 'close-round', round, outcome: 'released', code: null, contributions: current.survivors.length, cohort: current.cohort, ended: undefined };
  const converged = policy.convergencePatience > 0 && released.roundsWithoutGain >= policy.convergencePatience;
  const next = released.released >= policy.rounds ? finish(released, 'rounds-done') : converged ? finish(released, 'converged') : gather(released, at, policy);
  return { state: next.state, effects: [closed, ...next.effects] };
}

function onFailed(state: FederationState, round: RoundId, code: ProblemCode, at: Instant, policy: RoundPolicy): Step {
  const { current } = state;
  if (!('round' in current) || current.round !== round) return unchanged(state);
  return abort(state, code, at, policy);
}

function abort(state: FederationState, code: ProblemCode, at: Instant, policy: RoundPolicy): Step {
  const { current } = state;
  if (current.phase === 'gathering' || current.phase === 'finished') return unchanged(state);
  const contributions = current.phase === 'collecting' ? current.received.length : current.phase === 'aggregating' ? current.survivors.length : 0;
  const ended = endOf(current, policy);
  const failed: FederationState = { ...abandon(state), failedInRow: state.failedInRow + 1 };
  const closed: RoundEffect = { type: 'close-round', round: current.round, outcome: 'aborted', code, contributions, cohort: current.cohort, ended };
  const next = failed.failedInRow > policy.maxFailedRounds ? finish(failed, code === 'quorum-missed' ? 'quorum-missed' : 'failed') : gather(failed, at, policy);
  return { state: next.state, effects: [closed, ...next.effects] };
}

function endOf(current: RoundPhase, policy: RoundPolicy): Extract<RoundEffect, { type: 'close-round' }>['ended'] {
  if (current.phase === 'collecting') return { stage: current.stage, quorum: current.quorum };
  if (current.phase !== 'aggregating') return undefined;
  const stage = policy.stages.at(-1)!;
  return { stage, quorum: stageQuorum(policy, stage, current.closed[0]!.received.length) };
}

/** Counts a round that was announced and comes to nothing: a client may have sent, and been charged, without anything having arrived. */
function abandon(state: FederationState): FederationState {
  return state.current.phase === 'collecting' ? { ...state, collected: state.collected + 1 } : state;
}

function finish(state: FederationState, reason: FinishReason): Step {
  return { state: { ...state, current: { phase: 'finished', reason } }, effects: [{ type: 'finish', reason }] };
}

// --- restart ---

/**
 * Nobody is connected to a process that has just started. The round goes on where it was; its deadline is moved only as far
 * as clients need to come back.
 */
function onRestarted(state: FederationState, at: Instant, policy: RoundPolicy): Step {
  const members = Object.fromEntries(Object.keys(state.members).map((client) => [client, { connected: false, since: at }]));
  const backBy = after(at, policy.reconnectGraceMs);
  const { current } = state;
  const restarted: FederationState = { ...state, members, current: resumed(current, at, backBy) };
  return { state: restarted, effects: resumeEffects(restarted, backBy, policy) };
}

function resumed(current: RoundPhase, at: Instant, backBy: Instant): RoundPhase {
  if (current.phase === 'gathering') return { ...current, since: at };
  return current.phase === 'collecting' && current.deadline < backBy ? { ...current, deadline: backBy } : current;
}

/** The effects that may not have run, or whose timers are gone: all of them may run again. */
function resumeEffects(state: FederationState, backBy: Instant, policy: RoundPolicy): RoundEffect[] {
  const { current } = state;
  const graces = Object.keys(state.members).map((client): RoundEffect => ({ type: 'start-timer', timer: { kind: 'grace', client: client as ClientId }, at: backBy }));
  switch (current.phase) {
    case 'gathering':
      return graces;
    case 'opening':
      return [...graces, { type: 'open-round', round: current.round, cohort: current.cohort, previous: state.previous }];
    case 'collecting': {
      const { round, stage, expected, closed } = current;
      // Who comes back is given the announcement, which opens the first stage; a later stage is opened again.
      const opened: RoundEffect[] = stage === policy.stages[0] ? [] : [{ type: 'open-stage', round, stage, clients: expected, closed }];
      return [...graces, ...opened, { type: 'start-timer', timer: { kind: 'stage', round, stage }, at: current.deadline }];
    }
    case 'aggregating':
      return [...graces, { type: 'aggregate', round: current.round, survivors: current.survivors, closed: current.closed }];
    case 'finished':
      return [{ type: 'finish', reason: current.reason }];
    default:
      return unreachable(current);
  }
}

/** The lowest round number that this client may still contribute to: in the stage that is open, or in a later one. */
export function nextRoundFor(state: FederationState, client: ClientId, policy: RoundPolicy): RoundId {
  const { current } = state;
  if (current.phase === 'opening' && current.cohort.includes(client)) return current.round;
  if (current.phase === 'collecting') {
    const isLast = current.stage === policy.stages.at(-1);
    if (pendingForClient(current, client) || (!isLast && current.received.some((contribution) => contribution.client === client))) return current.round;
  }
  return state.nextRound;
}

/** Whether the stage in progress still takes a message of this client. */
export function pendingForClient(current: RoundPhase, client: ClientId): boolean {
  return current.phase === 'collecting' && current.expected.includes(client) && !current.declined.includes(client) && !current.received.some((contribution) => contribution.client === client);
}
