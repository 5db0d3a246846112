/**
 * What must hold whatever happens. Stated over what the harness accepted and what the machine asked for, not over how the
 * machine keeps its books. docs/round-states.md lists them under the same names.
 */
import assert from 'node:assert/strict';
import type { FederationError } from '../../shared/errors.ts';
import type { FederationState, RoundEffect, RoundEvent } from '../../shared/rounds/state.ts';
import type { StageName } from '../../shared/protocol/messages.ts';
import { judgeContribution, nextRoundFor } from '../../shared/rounds/transition.ts';
import type { ClientId, RoundId } from '../../shared/types/ids.ts';
import { clientId, contributionOf, maxClients, stageKey, type RoundHarness } from './harness.ts';

type Of<T extends { type: string }, K extends T['type']> = Extract<T, { type: K }>;
const only = <K extends RoundEffect['type']>(effects: readonly RoundEffect[], type: K) => effects.filter((effect) => effect.type === type) as Of<RoundEffect, K>[];

/** Around one event. */
export function checkStep(run: RoundHarness, before: FederationState, event: RoundEvent, effects: readonly RoundEffect[]): void {
  const after = run.state;
  assert.ok(after.nextRound >= before.nextRound, 'round numbers rise');
  assert.ok(after.collected >= before.collected && after.released >= before.released, 'counts rise');
  if (before.current.phase === 'finished') assert.deepEqual(after.current, before.current, 'a finished task stays finished');
  stageClosesForAReason(run, before, event);
  nobodyIsWaitedForTooLong(run, before, event);
  survivorsAreWhoWasAccepted(run, effects);
  closedStagesStayClosed(run, effects);
}

/** A stage ends at its deadline, by a failure, or when no connected client is still at work (DISCO #1221). */
function stageClosesForAReason(run: RoundHarness, before: FederationState, event: RoundEvent): void {
  const { current } = before;
  const now = run.state.current;
  if (current.phase !== 'collecting' || (now.phase === 'collecting' && now.round === current.round && now.stage === current.stage)) return;
  if (event.type === 'round-failed' || (event.type === 'timer-fired' && event.at >= current.deadline)) return;
  const key = stageKey(current.round, current.stage);
  const declined = (client: ClientId) => run.declined.has(`${key} ${client}`) || (event.type === 'client-declined' && event.client === client);
  const possible = current.expected.filter((client) => !declined(client)).length;
  if (possible < run.neededIn(current.round, current.stage)) return;
  for (const client of current.expected) {
    const atWork = before.members[client]?.connected === true && !(event.type === 'client-left' && event.client === client);
    assert.ok(!atWork || declined(client) || run.accepted.get(key)?.has(client) === true, `stage ${key} was closed by ${event.type} while ${client} was at work`);
  }
}

/** Clients that come and go cannot keep a round from opening for longer than the grace time. */
function nobodyIsWaitedForTooLong({ state, policy }: RoundHarness, { current, nextRound }: FederationState, event: RoundEvent): void {
  if (current.phase !== 'gathering' || state.current.phase !== 'gathering' || event.type !== 'client-connected' || event.at < current.since + policy.reconnectGraceMs) return;
  const here = Object.values(state.members).filter(({ connected }) => connected).length;
  assert.ok(here < (nextRound === 1 ? policy.minClients : policy.quorum), 'enough clients are here and the grace time is over, but no round is opened');
}

/**
 * No client counted twice; survivors are exactly those accepted in the stage that counts, in the cohort, and accepted in every stage before it; never below the
 * quorum. In secure aggregation that stage is `maskedInput`: who is lost after it is in the sum all the same.
 */
function survivorsAreWhoWasAccepted(run: RoundHarness, effects: readonly RoundEffect[]): void {
  const { stages, quorum, secureAggregation } = run.policy;
  const counted = secureAggregation === undefined ? stages.at(-1)! : 'maskedInput';
  for (const { round, survivors } of only(effects, 'aggregate')) {
    const clients = survivors.map(({ client }) => client);
    assert.equal(new Set(clients).size, clients.length, `round ${round} counts a client twice`);
    assert.ok(clients.length >= quorum, `round ${round} is aggregated below the quorum`);
    const cohort = only(run.asked, 'open-round').find((effect) => effect.round === round)!.cohort;
    assert.ok(clients.every((client) => cohort.includes(client)), `round ${round} counts a client from outside the cohort`);
    const accepted = (stage: StageName) => run.accepted.get(stageKey(round, stage)) ?? new Map<ClientId, unknown>();
    assert.deepEqual(Object.fromEntries(survivors.map(({ client, digest }) => [client, digest])), Object.fromEntries(accepted(counted)), `round ${round} counts other contributions than were accepted`);
    stages.forEach((stage, i) => {
      assert.ok(accepted(stage).size >= run.neededIn(round, stage), `round ${round} went on from ${stage} with too few`);
      if (i <= stages.indexOf(counted)) assert.ok(clients.every((client) => accepted(stage).has(client)), `round ${round} counts a client that missed ${stage}`);
      if (i > 0) assert.ok([...accepted(stage).keys()].every((client) => accepted(stages[i - 1]!).has(client)), `round ${round} took ${stage} from a client that missed the stage before`);
    });
  }
}

/** A stage that is over stays as it was for ever, whatever else is lost: so there is one roster, one set of survivors, one sum. */
function closedStagesStayClosed(run: RoundHarness, effects: readonly RoundEffect[]): void {
  for (const effect of effects) {
    if (effect.type !== 'open-stage' && effect.type !== 'aggregate') continue;
    const before = run.policy.stages.slice(0, effect.type === 'open-stage' ? run.policy.stages.indexOf(effect.stage) : undefined);
    assert.deepEqual(effect.closed.map(({ stage }) => stage), before, 'what a stage follows from are all stages before it');
    for (const { stage, received } of effect.closed) {
      const key = stageKey(effect.round, stage);
      const text = JSON.stringify(received);
      assert.equal(text, run.closedStages.get(key) ?? text, `stage ${key} was closed twice, differently`);
      run.closedStages.set(key, text);
      assert.deepEqual(Object.fromEntries(received.map(({ client, digest }) => [client, digest])), Object.fromEntries(run.accepted.get(key)!), `stage ${key} was closed with other messages than were accepted`);
    }
    if (effect.type === 'open-stage') assert.deepEqual(effect.clients, effect.closed.at(-1)!.received.map(({ client }) => client), 'a stage asks those of the stage before');
  }
}

/** After every operation. */
export function checkRun(run: RoundHarness): void {
  stateIsWellFormed(run);
  roundsAreUsedOnce(run);
  countsAreRight(run);
  everyWaitEnds(run);
  for (let i = 0; i <= maxClients; i++) nextRoundIsTrue(run, clientId(i));
  assert.deepEqual(JSON.parse(JSON.stringify(run.state)), run.state, 'the state survives JSON');
}

/** The journal alone gives the live state. Costs a replay: at crashes and at the end. */
export function checkReplay(run: RoundHarness): void {
  assert.deepEqual(run.replay(run.startedAt), run.state, 'replaying the journal gives the live state');
  if (run.journal.some((line) => line.includes('client-connected'))) assert.deepEqual(run.replay(), run.state, 'when the journal is replayed does not matter');
}

function stateIsWellFormed({ state, policy }: RoundHarness): void {
  const { current } = state;
  if ('round' in current) assert.ok(current.round < state.nextRound, 'the next round is above the one in progress');
  if (current.phase !== 'collecting') return;
  const received = current.received.map(({ client }) => client);
  for (const list of [received, current.declined, current.lost]) {
    assert.equal(new Set(list).size, list.length, 'a client is listed twice');
    assert.ok(list.every((client) => current.expected.includes(client)), 'only clients that were asked are listed');
  }
  assert.ok(current.expected.every((client) => current.cohort.includes(client)), 'only the cohort is asked');
  assert.ok(!received.some((client) => current.declined.includes(client)), 'who declined did not contribute');
  assert.ok(policy.stages.includes(current.stage));
}

/** A round number has one cohort, one survivor set (also when its work is done twice) and one end. */
function roundsAreUsedOnce(run: RoundHarness): void {
  const cohorts = new Map<RoundId, string>();
  let highest = 0;
  for (const { round, cohort, previous } of only(run.asked, 'open-round')) {
    const opened = JSON.stringify([cohort, previous]);
    if (cohorts.has(round)) assert.equal(opened, cohorts.get(round), `round ${round} is opened twice, differently`);
    else assert.ok(round > highest, `round ${round} is opened after round ${highest}`);
    cohorts.set(round, opened);
    highest = Math.max(highest, round);
  }
  assert.equal(run.state.nextRound, highest + 1);
  const survivors = new Map<RoundId, string>();
  for (const effect of only(run.asked, 'aggregate')) {
    const set = JSON.stringify(effect.survivors);
    assert.equal(set, survivors.get(effect.round) ?? set, `round ${effect.round} has two survivor sets`);
    survivors.set(effect.round, set);
  }
  const closed = only(run.asked, 'close-round').map(({ round }) => round);
  assert.equal(new Set(closed).size, closed.length, 'a round is closed twice');
  assert.deepEqual(closed, [...closed].sort((a, b) => a - b), 'rounds close in order');
}

function countsAreRight({ asked, accepted, state, policy }: RoundHarness): void {
  const released = only(asked, 'close-round').filter(({ outcome }) => outcome === 'released');
  assert.equal(state.released, released.length, 'releases are counted');
  assert.ok(released.every(({ contributions }) => contributions >= policy.quorum), 'nothing is released below the quorum');
  assert.ok(state.released <= policy.rounds, 'no more rounds are released than the policy has');
  const { current } = state;
  const inProgress = current.phase === 'collecting' ? current.round : undefined;
  const announced = new Set(only(asked, 'announce').map(({ round }) => round));
  const contributed = new Set([...accepted].filter(([, clients]) => clients.size > 0).map(([key]) => Number.parseInt(key, 10)));
  assert.ok([...contributed].every((round) => announced.has(round as RoundId)), 'only announced rounds collect contributions');
  const over = [...announced].filter((round) => round !== inProgress).length;
  assert.equal(state.collected, over, 'every announced round is charged, and no other');
  if (policy.maxReleases !== undefined) assert.ok(announced.size <= policy.maxReleases, 'no more rounds are announced than the budget allows');
}

/** Whatever the machine waits for, this process has a timer or a piece of work that will end the wait. */
function everyWaitEnds({ state, armed, working, policy }: RoundHarness): void {
  const { current } = state;
  if (current.phase === 'gathering') assert.ok(state.collected < (policy.maxReleases ?? Infinity), 'nobody is waited for when there is nothing left to release');
  const has = (counts: ReadonlyMap<string, number>, key: string) => assert.ok((counts.get(key) ?? 0) > 0, `${current.phase} waits for "${key}", which will never come`);
  if (current.phase === 'finished') return;
  if (current.phase === 'opening') has(working, `open ${current.round}`);
  if (current.phase === 'aggregating') has(working, `aggregate ${current.round}`);
  if (current.phase === 'collecting') has(armed, `stage ${stageKey(current.round, current.stage)}`);
  const members = Object.entries(state.members);
  for (const [client, { connected }] of members) if (!connected) has(armed, `grace ${client}`);
  if (current.phase === 'gathering' && members.length > 0 && members.every(([, { connected }]) => connected)) {
    assert.ok(members.length < (state.nextRound === 1 ? policy.minClients : policy.quorum), 'everybody is here and no round is opened');
  }
}

/** What a client is told on (re)connecting is the lowest round that will still take its contribution (DISCO #1220). */
function nextRoundIsTrue({ state, policy }: RoundHarness, client: ClientId): void {
  const told = nextRoundFor(state, client, policy);
  const { current } = state;
  const answer = (round: number) => {
    const stage = current.phase === 'collecting' ? current.stage : policy.stages[0]!;
    try {
      return judgeContribution(state, { client, round: round as RoundId, stage, digest: contributionOf(client, round, stage, ' never sent') }).verdict;
    } catch (error) {
      return (error as FederationError).code;
    }
  };
  for (let round = 1; round < told; round++) assert.notEqual(answer(round), 'accept', `${client} is told ${told} but round ${round} would take its contribution`);
  if (current.phase === 'collecting' && told === current.round) {
    // Who has sent its message of this stage is asked again in the next one, if there is one.
    const waits = current.received.some((contribution) => contribution.client === client) && current.stage !== policy.stages.at(-1);
    assert.equal(answer(told), waits ? 'contribution-conflict' : 'accept', `${client} is told ${told}, which refuses it`);
  }
  else assert.ok(told === state.nextRound || (current.phase === 'opening' && told === current.round), `${client} is told ${told}`);
}
