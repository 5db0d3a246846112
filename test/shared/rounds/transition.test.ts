/** The round machine by example. Random trouble: test/faults. The DISCO numbers are issues of epfml/disco, found there the hard way. */
import { afterEach, describe, expect, it } from 'vitest';
import { secureStageNames, type StageName } from '../../../shared/protocol/messages.ts';
import { initialState, type FederationState, type RoundEffect, type RoundEvent } from '../../../shared/rounds/state.ts';
import { largestCohort, roundPolicyOf, type RoundPolicy } from '../../../shared/rounds/policy.ts';
import { connectedClients, judgeContribution, nextRoundFor, pendingClients, transition } from '../../../shared/rounds/transition.ts';
import { graphShape } from '../../../shared/secure-aggregation/share-graph.ts';
import type { ClientId, Instant, RoundId } from '../../../shared/types/ids.ts';
import { chiSquare, chiSquareLimit } from '../../support/chi-square.ts';
import { clientId, contributionOf, examplePolicy, RoundHarness, securePolicy, smoothWork, threeStages } from '../../faults/harness.ts';
import { checkReplay, checkRun } from '../../faults/invariants.ts';
import type { Work } from '../../faults/ops.ts';

let run: RoundHarness;
afterEach(() => {
  checkRun(run);
  checkReplay(run);
});

/** A federation whose first round is collecting, with clients 0 to `clients - 1` in its cohort. */
function collecting(policy: Partial<RoundPolicy> = {}, clients = 4, work: readonly Work[] = [smoothWork]): RoundHarness {
  run = new RoundHarness({ minClients: clients, ...policy }, work);
  for (let client = 0; client < clients; client++) run.connect(client);
  run.advance(1);
  expect(run.state.current).toMatchObject({ phase: 'collecting', round: 1 });
  return run;
}

const phase = () => run.state.current.phase;
const ids = (...clients: readonly number[]) => clients.map(clientId);
const asked = <T extends RoundEffect['type']>(type: T) => run.asked.filter((effect) => effect.type === type) as Extract<RoundEffect, { type: T }>[];
const waitsFor = () => (run.state.current.phase === 'collecting' ? pendingClients(run.state.current) : undefined);

describe('opening a round', () => {
  it('waits for minClients before the first round, and for a quorum later', () => {
    run = new RoundHarness({ minClients: 3, quorum: 2 });
    run.connect(0, 1);
    run.advance(60_000);
    expect(phase()).toBe('gathering');
    run.connect(2);
    expect(asked('open-round')).toEqual([{ type: 'open-round', round: 1, cohort: ids(0, 1, 2), previous: null }]);
    run.advance(1);
    run.leave(2);
    run.contributeAll();
    run.advance(1);
    expect(run.state.current).toMatchObject({ phase: 'opening', round: 2, cohort: ids(0, 1) });
  });

  it('arms the deadline and announces the round to its cohort', () => {
    collecting({ stageDeadlineMs: 10_000 });
    const at = run.clock.now();
    expect(run.performed.slice(-2)).toEqual([
      { type: 'announce', round: 1, clients: ids(0, 1, 2, 3) },
      { type: 'start-timer', timer: { kind: 'stage', round: 1, stage: 'contribution' }, at: at + 10_000 },
    ]);
  });

  it('names the announcement before it, so that rounds form a chain', () => {
    collecting();
    run.contributeAll();
    run.advance(1);
    expect(asked('open-round').at(-1)).toMatchObject({ round: 2, previous: 'transcript 1, attempt 1' });
  });

  it('waits between rounds for a lost client, and goes on without it after the grace time', () => {
    collecting({ reconnectGraceMs: 2_000 }, 3);
    run.contributeAll();
    run.disconnect(2);
    run.advance(1);
    expect(phase()).toBe('gathering');
    run.advance(1_998);
    expect(phase()).toBe('gathering');
    run.advance(1);
    expect(run.state.current).toMatchObject({ phase: 'opening', round: 2, cohort: ids(0, 1) });
  });

  it('goes on as soon as the lost client is back', () => {
    collecting({ reconnectGraceMs: 2_000 }, 3);
    run.contributeAll();
    run.disconnect(2);
    run.advance(500);
    run.connect(2);
    expect(run.state.current).toMatchObject({ phase: 'opening', round: 2, cohort: ids(0, 1, 2) });
  });

  it('takes a client that joins during a round into the next one', () => {
    collecting({}, 3);
    run.connect(3);
    expect(run.contribute(3)).toBe('not-in-cohort');
    run.contributeAll();
    run.advance(1);
    expect(run.state.current).toMatchObject({ phase: 'opening', cohort: ids(0, 1, 2, 3) });
  });
});

describe('sampling a cohort', () => {
  /** The cohort of round 1 of a federation of `clients` with this seed, joined in this order. */
  function cohortOf(seed: number, clients: readonly number[], cohortSize: number): readonly ClientId[] {
    run = new RoundHarness({ seed, minClients: clients.length, cohortSize });
    run.connect(...clients);
    return asked('open-round')[0]!.cohort;
  }

  it('depends on the seed, the round and who is there, not on the order of joining', () => {
    const forward = cohortOf(7, [0, 1, 2, 3, 4, 5], 3);
    expect(forward).toHaveLength(3);
    expect(cohortOf(7, [5, 3, 1, 0, 2, 4], 3)).toEqual(forward);
    const others = Array.from({ length: 20 }, (_, seed) => cohortOf(seed, [0, 1, 2, 3, 4, 5], 3).join());
    expect(new Set(others).size).toBeGreaterThan(5);
  });

  it('draws another cohort for every round', () => {
    collecting({ cohortSize: 3, rounds: 20 }, 6);
    for (let round = 1; round < 20; round++) {
      run.contributeAll();
      run.advance(2);
    }
    expect(new Set(asked('open-round').map(({ cohort }) => cohort.join())).size).toBeGreaterThan(8);
  });

  it('takes everyone who is there when the cohort is larger', () => {
    expect(cohortOf(7, [0, 1, 2], 5)).toEqual(ids(0, 1, 2));
  });

  it('gives every cohort the same chance', () => {
    // 3 of 6: 20 cohorts, one draw for each of 2000 seeds. The seeds are fixed: this fails always or never.
    const draws = 2000;
    const counts = new Map<string, number>();
    for (let seed = 0; seed < draws; seed++) {
      const cohort = cohortOf(seed, [0, 1, 2, 3, 4, 5], 3).join();
      counts.set(cohort, (counts.get(cohort) ?? 0) + 1);
    }
    expect(counts.size).toBe(20);
    expect(chiSquare([...counts.values()], new Array<number>(20).fill(1 / 20), draws)).toBeLessThan(chiSquareLimit(19));
  });
});

describe('a contribution', () => {
  it('is counted once, however often it is sent', () => {
    collecting();
    expect(run.contribute(0)).toBe('accepted');
    const { state } = run;
    expect(run.contribute(0)).toBe('duplicate');
    expect(run.contribute(0)).toBe('duplicate');
    expect(run.state).toBe(state);
    for (const client of [1, 2, 3]) run.contribute(client);
    // The acknowledgement was lost and the round is being aggregated: still the same answer.
    expect(phase()).toBe('aggregating');
    expect(run.contribute(0)).toBe('duplicate');
    run.advance(1);
    expect(asked('close-round')).toMatchObject([{ outcome: 'released', contributions: 4 }]);
  });

  it('is a duplicate also after a restart', () => {
    collecting();
    run.contribute(0);
    run.crash();
    expect(run.contribute(0)).toBe('duplicate');
  });

  it('is not stored twice when two sessions store it at the same time', () => {
    collecting();
    expect(run.contribute(0, 'expected', 5)).toBe('accepted');
    expect(run.contribute(0, 'expected', 5)).toBe('accepted');
    run.advance(5);
    expect(run.state.current).toMatchObject({ received: [{ client: clientId(0) }] });
  });

  it('cannot be replaced by other bytes, while collecting or aggregating', () => {
    collecting();
    run.contribute(0);
    expect(run.contribute(0, 'conflicting')).toBe('contribution-conflict');
    for (const client of [1, 2, 3]) run.contribute(client);
    expect(run.contribute(0, 'conflicting')).toBe('contribution-conflict');
  });

  it('is refused with the reason when it is late, early, unasked for, or after the end', () => {
    collecting({ rounds: 2 });
    expect(run.contribute(0, 'future')).toBe('round-unknown');
    expect(run.contribute(0, 'otherStage')).toBe('stage-mismatch');
    expect(run.contribute(9)).toBe('not-in-cohort');
    run.contributeAll();
    run.advance(2);
    expect(run.contribute(0, 'stale')).toBe('round-closed');
    run.contributeAll();
    run.advance(1);
    expect(run.contribute(0, 'stale')).toBe('task-finished');
  });

  it('that arrives while the round is still being opened is refused: nobody was asked for it', () => {
    run = new RoundHarness({ minClients: 2 });
    run.connect(0, 1);
    expect(run.send(clientId(0), 1, 'contribution', contributionOf(clientId(0), 1, 'contribution'))).toBe('round-closed');
  });

  it('that became durable after its round had closed is not counted', () => {
    collecting({ quorum: 2 }, 3);
    run.contribute(0);
    run.contribute(1);
    expect(run.contribute(2, 'expected', 20_000)).toBe('accepted');
    run.advance(10_000);
    run.advance(20_000);
    expect(asked('aggregate')[0]?.survivors.map(({ client }) => client)).toEqual(ids(0, 1));
  });

  it('refusal says what to do next', () => {
    collecting();
    const late = { client: clientId(0), round: 9 as RoundId, stage: 'contribution' as const, digest: contributionOf(clientId(0), 9, 'contribution') };
    expect(() => judgeContribution(run.state, late)).toThrowError(expect.objectContaining({ code: 'round-unknown', got: '9', next: 'Wait for the next announcement.' }));
  });
});

describe('closing a round', () => {
  it('releases with k of n at the deadline', () => {
    collecting({ quorum: 2, stageDeadlineMs: 10_000 });
    run.contribute(3);
    run.contribute(1);
    run.advance(9_999);
    expect(phase()).toBe('collecting');
    run.advance(1);
    // Sorted: nothing downstream depends on who was faster.
    expect(asked('aggregate')).toMatchObject([{ round: 1, survivors: [{ client: clientId(1) }, { client: clientId(3) }] }]);
    expect(run.contribute(0)).toBe('round-closed');
  });

  it('aborts below the quorum at the deadline, counts what was sent, and goes on under a new number', () => {
    collecting({ quorum: 2, stageDeadlineMs: 10_000 });
    run.contribute(0);
    run.advance(10_000);
    expect(asked('close-round')).toEqual([{ type: 'close-round', round: 1, outcome: 'aborted', code: 'quorum-missed', contributions: 1, cohort: ids(0, 1, 2, 3), ended: { stage: 'contribution', quorum: 2 } }]);
    expect(run.state).toMatchObject({ collected: 1, released: 0, failedInRow: 1, current: { phase: 'opening', round: 2 } });
  });

  it('closes early when everybody has answered', () => {
    collecting();
    for (const client of [0, 1, 2]) run.contribute(client);
    expect(phase()).toBe('collecting');
    run.decline(3);
    expect(asked('aggregate')[0]?.survivors).toHaveLength(3);
  });

  it('aborts early when so many declined that the quorum is out of reach', () => {
    collecting({ quorum: 3 });
    run.decline(0);
    expect(phase()).toBe('collecting');
    run.decline(1);
    expect(asked('close-round')).toMatchObject([{ round: 1, outcome: 'aborted', code: 'quorum-missed' }]);
  });

  it('does not take back a contribution for a later decline, nor a decline for a later contribution', () => {
    collecting();
    run.contribute(0);
    run.decline(0);
    run.decline(1);
    expect(run.contribute(1)).toBe('declined');
    expect(run.state.current).toMatchObject({ received: [{ client: clientId(0) }], declined: ids(1) });
  });

  it('DISCO #1221: who submits and disconnects is counted, and does not close the round for those at work', () => {
    collecting({ quorum: 2, reconnectGraceMs: 100 }, 3);
    run.contribute(0);
    run.contribute(1);
    run.disconnect(0, 1);
    run.advance(101);
    run.leave(1);
    expect(waitsFor()).toEqual(ids(2));
    run.contribute(2);
    expect(asked('aggregate')[0]?.survivors.map(({ client }) => client)).toEqual(ids(0, 1, 2));
  });

  it('DISCO #171: ghosts do not block a round that has its quorum', () => {
    collecting({ quorum: 2, reconnectGraceMs: 100, stageDeadlineMs: 10_000 });
    run.disconnect(2, 3);
    run.contribute(0);
    run.contribute(1);
    expect(phase()).toBe('collecting');
    run.advance(100);
    expect(phase()).toBe('aggregating');
    run.advance(1);
    // And they are in no later cohort.
    expect(run.state.current).toMatchObject({ phase: 'opening', round: 2, cohort: ids(0, 1) });
  });

  it('DISCO #171: who left while the round was being opened does not block it', () => {
    run = new RoundHarness({ minClients: 3, quorum: 2 });
    run.connect(0, 1, 2);
    run.leave(2);
    run.advance(1);
    expect(waitsFor()).toEqual(ids(0, 1));
    run.contributeAll();
    expect(phase()).toBe('aggregating');
  });

  it('DISCO #171: a connection that breaks after its client has left makes no ghost', () => {
    collecting();
    run.leave(3);
    const { state } = run;
    run.record({ type: 'client-disconnected', client: clientId(3), at: run.clock.now() });
    expect(run.state).toBe(state);
  });

  it('DISCO #171: ghosts do not count towards minClients', () => {
    run = new RoundHarness({ minClients: 3, reconnectGraceMs: 100 });
    run.connect(0, 1);
    run.disconnect(0);
    run.connect(2);
    run.advance(1_000);
    expect(phase()).toBe('gathering');
    expect(connectedClients(run.state)).toEqual(ids(1, 2));
  });

  it('waits until the deadline for clients that are gone when the quorum needs them: they may come back', () => {
    collecting({ quorum: 2, reconnectGraceMs: 100, stageDeadlineMs: 10_000 }, 3);
    run.contribute(0);
    run.disconnect(1, 2);
    run.advance(5_000);
    expect(phase()).toBe('collecting');
    expect(waitsFor()).toEqual([]);
    run.connect(1);
    expect(waitsFor()).toEqual(ids(1));
    run.contribute(1);
    expect(phase()).toBe('aggregating');
  });

  it('a client whose grace time was interrupted has all of it again', () => {
    collecting({ quorum: 1, reconnectGraceMs: 100 }, 2);
    run.contribute(0);
    run.disconnect(1);
    run.advance(60);
    run.connect(1);
    run.disconnect(1);
    run.advance(60);
    // The first timer has fired: it is old.
    expect(phase()).toBe('collecting');
    run.advance(40);
    expect(phase()).toBe('aggregating');
  });

  it('repeats a failed round maxFailedRounds times, under new numbers, then ends', () => {
    collecting({ maxFailedRounds: 2, stageDeadlineMs: 100 });
    run.advance(1_000);
    expect(asked('close-round').map(({ round, outcome }) => [round, outcome])).toEqual([[1, 'aborted'], [2, 'aborted'], [3, 'aborted']]);
    expect(run.state.current).toEqual({ phase: 'finished', reason: 'quorum-missed' });
  });

  it('counts failed rounds in a row only', () => {
    collecting({ maxFailedRounds: 1, stageDeadlineMs: 100, rounds: 5 });
    for (let i = 0; i < 3; i++) {
      run.advance(102);
      expect(run.state.failedInRow).toBe(1);
      run.contributeAll();
      run.advance(2);
      expect(run.state.failedInRow).toBe(0);
    }
    // Each failed round was announced, so clients may have been charged for it.
    expect(run.state).toMatchObject({ released: 3, collected: 6 });
  });

  it.each([
    ['opening', [{ ...smoothWork, fails: true }], 0],
    ['aggregating', [smoothWork, { ...smoothWork, fails: true }], 1],
  ])('ends as failed when %s does not work', (_name, work, collected) => {
    run = new RoundHarness({ minClients: 2, maxFailedRounds: 0 }, work);
    run.connect(0, 1);
    run.advance(1);
    run.contributeAll();
    run.advance(1);
    expect(run.state).toMatchObject({ released: 0, collected, current: { phase: 'finished', reason: 'failed' } });
    expect(asked('close-round')).toMatchObject([{ outcome: 'aborted', code: 'worker-failed' }]);
  });
});

describe('coming back', () => {
  it('DISCO #1220: a client that comes back in mid-round is told a round that takes its contribution', () => {
    collecting({ rounds: 3 });
    run.disconnect(3);
    run.contribute(0);
    run.advance(2_000);
    expect(run.state.current).toMatchObject({ lost: ids(3) });
    run.connect(3);
    expect(nextRoundFor(run.state, clientId(3), run.policy)).toBe(1);
    expect(run.contribute(3)).toBe('accepted');
    // Having contributed, the next that it may work on is the next one: never one below, which would refuse it for ever.
    expect(nextRoundFor(run.state, clientId(3), run.policy)).toBe(2);
  });

  it('DISCO #1220: a client that missed rounds is told the number of the next one, and that one takes it', () => {
    collecting({ rounds: 5, reconnectGraceMs: 10 });
    run.leave(3);
    for (let i = 0; i < 2; i++) {
      run.contributeAll();
      run.advance(2);
    }
    expect(run.round).toBe(3);
    run.connect(3);
    expect(nextRoundFor(run.state, clientId(3), run.policy)).toBe(4);
    run.contributeAll();
    run.advance(2);
    expect(nextRoundFor(run.state, clientId(3), run.policy)).toBe(4);
    expect(run.contribute(3)).toBe('accepted');
  });

  it('a client of the cohort that comes back while the round is being opened is told that round', () => {
    run = new RoundHarness({ minClients: 2 });
    run.connect(0, 1);
    run.disconnect(1);
    run.connect(1);
    expect(nextRoundFor(run.state, clientId(1), run.policy)).toBe(1);
    expect(nextRoundFor(run.state, clientId(5), run.policy)).toBe(2);
    run.advance(1);
    expect(run.contribute(1)).toBe('accepted');
  });

  it('DISCO #1222: the first round recovers, whether it was being opened or had begun', () => {
    run = new RoundHarness({ minClients: 3, reconnectGraceMs: 2_000 });
    run.connect(0, 1, 2);
    expect(phase()).toBe('opening');
    run.crash(5_000);
    expect(run.performed.at(-1)).toEqual({ type: 'open-round', round: 1, cohort: ids(0, 1, 2), previous: null });
    run.connect(0, 1, 2);
    run.advance(1);
    run.contribute(0);
    run.crash(5_000);
    run.connect(0, 1, 2);
    expect(ids(0, 1, 2).map((client) => nextRoundFor(run.state, client, run.policy))).toEqual([2, 1, 1]);
    run.contributeAll();
    run.advance(1);
    expect(run.state).toMatchObject({ released: 1, nextRound: 3, current: { phase: 'opening', round: 2 } });
  });

  it('DISCO #1222: a failed first round is repeated with those who are there, not with minClients', () => {
    collecting({ minClients: 3, quorum: 2, stageDeadlineMs: 100, reconnectGraceMs: 10 }, 3);
    run.leave(2);
    run.advance(100);
    expect(run.state.current).toMatchObject({ phase: 'opening', round: 2, cohort: ids(0, 1) });
  });
});

describe('a restart', () => {
  it('while gathering waits again for those who were there', () => {
    run = new RoundHarness({ minClients: 2, reconnectGraceMs: 2_000 });
    run.connect(0);
    run.advance(60_000);
    run.crash(60_000);
    run.connect(1, 2);
    expect(phase()).toBe('gathering');
    run.connect(0);
    expect(run.state.current).toMatchObject({ phase: 'opening', cohort: ids(0, 1, 2) });
  });

  it('while collecting keeps what was accepted and moves the deadline only as far as clients need to come back', () => {
    collecting({ stageDeadlineMs: 10_000, reconnectGraceMs: 2_000 });
    const opened = run.clock.now();
    run.contribute(0);
    run.advance(1_000);
    run.crash(1_000);
    expect(run.state.current).toMatchObject({ received: [{ client: clientId(0) }], deadline: opened + 10_000 });
    run.crash(60_000);
    expect(run.state.current).toMatchObject({ phase: 'collecting', deadline: run.clock.now() + 2_000 });
    run.advance(1_000);
    run.connect(0, 1, 2, 3);
    run.contributeAll();
    expect(asked('aggregate')[0]?.survivors).toHaveLength(4);
  });

  it('while collecting ends at the new deadline when nobody comes back', () => {
    collecting({ stageDeadlineMs: 10_000, reconnectGraceMs: 2_000 });
    run.contribute(0);
    run.crash(60_000);
    run.advance(2_000);
    expect(run.state).toMatchObject({ collected: 1, failedInRow: 1, members: {}, current: { phase: 'gathering' } });
    run.advance(1_000_000);
    expect(run.clock.pending).toBe(0);
  });

  it('while aggregating aggregates the same survivors again', () => {
    collecting({ quorum: 2 }, 3, [smoothWork, { ...smoothWork, delayMs: 5_000 }]);
    run.contributeAll();
    run.crash();
    const [first, second] = asked('aggregate');
    expect(second).toEqual(first);
    run.advance(5_000);
    expect(asked('close-round')).toMatchObject([{ outcome: 'released', contributions: 3 }]);
  });

  it('after the end tells it again, and changes nothing', () => {
    collecting({ rounds: 1 });
    run.contributeAll();
    run.advance(1);
    run.crash();
    expect(run.performed.filter(({ type }) => type === 'finish')).toHaveLength(2);
    expect(run.clock.pending).toBe(0);
    run.connect(0);
    expect(run.state).toMatchObject({ released: 1, current: { phase: 'finished', reason: 'rounds-done' } });
  });

  it('between journalling and acting loses nothing: the work is asked for again', () => {
    run = new RoundHarness({ minClients: 2 });
    run.connect(0);
    run.crashAtNextEvent({ at: 'afterJournal', effects: 0 });
    run.connect(1);
    expect(run.performed.filter(({ type }) => type === 'open-round')).toHaveLength(1);
    expect(asked('open-round')).toHaveLength(2);
  });

  it('before journalling leaves the message unaccepted, and it can be sent again', () => {
    collecting();
    run.crashAtNextEvent({ at: 'beforeJournal' });
    expect(run.contribute(0)).toBe('no answer');
    run.connect(0);
    expect(run.contribute(0)).toBe('accepted');
  });

  it('ignores the reports of work and the timers of before', () => {
    collecting({ rounds: 2 });
    run.contributeAll();
    run.advance(1);
    for (const report of ['round-opened', 'round-aggregated', 'round-failed'] as const) {
      const { state } = run;
      run.apply({ op: 'strayReport', report, roundOffset: -1 });
      expect(run.state).toBe(state);
    }
    run.advance(1);
    const { state } = run;
    run.apply({ op: 'strayStageTimer', roundOffset: -1, stage: 0 });
    expect(run.state).toBe(state);
  });
});

describe('the end of a task', () => {
  /** Runs rounds whose teacher has these accuracies; returns why and after how many releases the task ended. */
  function runWith(policy: Partial<RoundPolicy>, accuracies: readonly (number | null)[]) {
    collecting(policy, 4, accuracies.flatMap((accuracy) => [smoothWork, { ...smoothWork, accuracy }]));
    for (let i = 0; i < accuracies.length; i++) {
      run.contributeAll();
      run.advance(2);
    }
    const { current, released } = run.state;
    return { reason: current.phase === 'finished' ? current.reason : undefined, released };
  }

  it('comes after `rounds` releases', () => {
    expect(runWith({ rounds: 3 }, [null, null, null, null])).toEqual({ reason: 'rounds-done', released: 3 });
  });

  it('comes after `convergencePatience` rounds without a gain of `convergenceDelta`', () => {
    const policy = { rounds: 10, convergencePatience: 2, convergenceDelta: 0.05 };
    expect(runWith(policy, [0.5, 0.6, 0.62, 0.64, 0.9])).toEqual({ reason: 'converged', released: 4 });
    // Small rises add up to a gain over the best before them.
    expect(runWith(policy, [0.5, 0.53, 0.56, 0.58, 0.62])).toEqual({ reason: undefined, released: 5 });
    expect(runWith({ ...policy, convergencePatience: 0 }, [0.5, 0.5, 0.5, 0.5])).toEqual({ reason: undefined, released: 4 });
    expect(runWith(policy, [null, null, null, null])).toEqual({ reason: undefined, released: 4 });
  });

  it('is rounds-done, not converged, when both are true', () => {
    expect(runWith({ rounds: 3, convergencePatience: 2, convergenceDelta: 0.05 }, [0.5, 0.5, 0.5])).toEqual({ reason: 'rounds-done', released: 3 });
  });

  it('comes when the budget is used up: failed rounds that collected anything count', () => {
    collecting({ rounds: 3, maxReleases: 3, stageDeadlineMs: 100, maxFailedRounds: 5 });
    run.contribute(0);
    run.advance(102);
    for (let i = 0; i < 2; i++) {
      run.contributeAll();
      run.advance(2);
    }
    expect(run.state).toMatchObject({ released: 2, collected: 3, current: { phase: 'finished', reason: 'budget-exhausted' } });
  });

  it('comes for announced rounds to which nothing arrived: something may have been sent, and charged', () => {
    collecting({ rounds: 2, maxReleases: 2, stageDeadlineMs: 100, maxFailedRounds: 5 });
    run.advance(102);
    run.contributeAll();
    run.advance(2);
    expect(run.state).toMatchObject({ released: 1, collected: 2, current: { reason: 'budget-exhausted' } });
  });

  it('still lets clients come and go, so that each can be told', () => {
    runWith({ rounds: 1 }, [null]);
    run.connect(5);
    expect(connectedClients(run.state)).toEqual(ids(0, 1, 2, 3, 5));
    run.disconnect(5);
    run.leave(0);
    expect(connectedClients(run.state)).toEqual(ids(1, 2, 3));
  });
});

describe('stages', () => {
  it('go one after the other, each asking the survivors of the one before', () => {
    collecting({ stages: threeStages, quorum: 2, stageDeadlineMs: 100 });
    for (const client of [0, 1, 2]) run.contribute(client);
    run.advance(100);
    expect(asked('open-stage')).toEqual([{ type: 'open-stage', round: 1, stage: 'maskedInput', clients: ids(0, 1, 2), closed: [{ stage: 'advertiseKeys', received: ids(0, 1, 2).map((client) => ({ client, digest: contributionOf(client, 1, 'advertiseKeys') })) }] }]);
    expect(run.contribute(3)).toBe('stage-mismatch');
    run.contributeAll();
    expect(run.state.current).toMatchObject({ phase: 'collecting', stage: 'unmask', expected: ids(0, 1, 2) });
    run.contribute(1);
    run.contribute(2);
    // The timers of the earlier stages mean nothing any more; this stage has its own.
    const timers = asked('start-timer').length;
    run.apply({ op: 'strayStageTimer', roundOffset: 0, stage: 0 });
    expect(asked('start-timer')).toHaveLength(timers);
    run.advance(99);
    expect(phase()).toBe('collecting');
    run.advance(1);
    expect(asked('aggregate')).toMatchObject([{ survivors: [{ client: clientId(1), digest: contributionOf(clientId(1), 1, threeStages[2]!) }, { client: clientId(2) }] }]);
    expect(run.state.collected).toBe(1);
  });

  it('abort below the quorum in any of them', () => {
    collecting({ stages: threeStages, quorum: 3, stageDeadlineMs: 100 });
    run.contributeAll();
    run.contribute(0);
    run.contribute(1);
    run.advance(100);
    expect(asked('close-round')).toMatchObject([{ round: 1, outcome: 'aborted', code: 'quorum-missed', contributions: 2 }]);
    expect(run.state.collected).toBe(1);
  });

  it('do not wait for who was lost in an earlier one', () => {
    collecting({ stages: threeStages, quorum: 2, reconnectGraceMs: 100 }, 3);
    run.contributeAll();
    run.disconnect(2);
    run.advance(100);
    run.contribute(0);
    run.contribute(1);
    expect(run.state.current).toMatchObject({ stage: 'unmask', expected: ids(0, 1) });
  });
});

describe('the stages of secure aggregation', () => {
  /** A round of five clients, of which three must survive: 3 shares open a secret. Every stage after the first waits for a second. */
  const secure = (policy: Partial<RoundPolicy> = {}) => collecting({ ...securePolicy, stageDeadlineMs: 10_000, reconnectGraceMs: 100, ...policy }, 5);
  /** These clients answer the open stage; the others miss its deadline. */
  const answer = (...clients: readonly number[]) => {
    for (const client of clients) run.contribute(client);
    const { current } = run.state;
    if (current.phase === 'collecting') run.advance(current.deadline - run.clock.now());
  };
  const open = () => (run.state.current.phase === 'collecting' ? run.state.current : undefined);

  it('lose clients one by one, and the sum is of those who sent their masked input', () => {
    secure();
    run.contributeAll();
    expect(open()).toMatchObject({ stage: 'shareKeys', quorum: 3, expected: ids(0, 1, 2, 3, 4), deadline: run.clock.now() + 1_000 });
    answer(0, 1, 2, 3);
    expect(open()).toMatchObject({ stage: 'maskedInput', quorum: 3 });
    run.contributeAll();
    expect(open()).toMatchObject({ stage: 'consistencyCheck', quorum: 3 });
    answer(1, 2, 3);
    expect(open()).toMatchObject({ stage: 'unmask', quorum: 3, expected: ids(1, 2, 3) });
    run.contributeAll();
    const survivors = ids(0, 1, 2, 3).map((client) => ({ client, digest: contributionOf(client, 1, 'maskedInput') }));
    expect(asked('aggregate')).toMatchObject([{ survivors, closed: secureStageNames.map((stage) => ({ stage })) }]);
    run.advance(1);
    expect(asked('close-round')).toMatchObject([{ outcome: 'released', contributions: 4, ended: undefined }]);
  });

  it.each([
    ['advertiseKeys', 0, 3],
    ['shareKeys', 1, 3],
    ['maskedInput', 2, 3],
    ['consistencyCheck', 3, 3],
    ['unmask', 4, 3],
  ] as const)('end a round whose %s has one message too few, and say which stage it was and how many it needed', (stage, before, quorum) => {
    secure();
    for (let i = 0; i < before; i++) run.contributeAll();
    answer(0, 4);
    expect(asked('close-round')).toEqual([{ type: 'close-round', round: 1, outcome: 'aborted', code: 'quorum-missed', contributions: 2, cohort: ids(0, 1, 2, 3, 4), ended: { stage, quorum } }]);
    expect(asked('aggregate')).toEqual([]);
    expect(run.state.collected).toBe(1);
  });

  it('count the threshold from who advertised, not from who was asked', () => {
    secure({ quorum: 4, minClients: 5, secureAggregation: { maxCorrupt: 2, stageDeadlineMs: 1_000 } });
    run.contributeAll();
    run.contributeAll();
    run.contributeAll();
    expect(open()).toMatchObject({ stage: 'consistencyCheck', quorum: 4 }); // floor((5 + 2) / 2) + 1
    run.advance(10_000);
    run.connectAll();
    answer(0, 1, 2, 3);
    run.contributeAll();
    run.contributeAll();
    expect(open()).toMatchObject({ stage: 'consistencyCheck', quorum: 4 }); // floor((4 + 2) / 2) + 1
  });

  it('take no more clients than can agree on one set of survivors', () => {
    run = new RoundHarness({ ...securePolicy, minClients: 6 });
    run.connect(0, 1, 2, 3, 4, 5);
    expect(asked('open-round')[0]!.cohort).toHaveLength(5);
    const policy = { ...run.policy, quorum: 4 };
    expect([3, 7, 9].map((available) => largestCohort(policy, available))).toEqual([3, 7, 7]);
    expect([5, 9].map((available) => largestCohort({ ...policy, secureAggregation: { maxCorrupt: 2, stageDeadlineMs: 1 } }, available))).toEqual([5, 5]);
    expect(largestCohort({ ...policy, cohortSize: 5 }, 9)).toBe(5);
    // Above 255 a ring that is safe must exist, too: no more dropouts than it can bear.
    const ring = largestCohort({ ...policy, quorum: 400, secureAggregation: { maxCorrupt: 10, stageDeadlineMs: 1 } }, 700);
    expect(ring).toBeGreaterThan(400);
    expect(() => graphShape({ clients: ring, minSurvivors: 400, maxCorrupt: 10 })).not.toThrow();
    expect(() => graphShape({ clients: ring + 1, minSurvivors: 400, maxCorrupt: 10 })).toThrow();
  });

  it('answer a message of an earlier stage as the duplicate that it is, also after a restart and while aggregating', () => {
    secure();
    run.contributeAll();
    run.contributeAll();
    const resend = (stage: StageName, variant = '') => run.send(clientId(2), 1, stage, contributionOf(clientId(2), 1, stage, variant));
    expect(open()?.stage).toBe('maskedInput');
    expect([resend('advertiseKeys'), resend('shareKeys'), resend('shareKeys', ' other')]).toEqual(['duplicate', 'duplicate', 'contribution-conflict']);
    expect(resend('unmask')).toBe('stage-mismatch');
    run.crash();
    expect(resend('shareKeys')).toBe('duplicate');
    run.connect(0, 1, 2, 3, 4);
    for (let i = 0; i < 3; i++) run.contributeAll();
    expect(phase()).toBe('aggregating');
    expect([resend('maskedInput'), resend('unmask'), resend('unmask', ' other')]).toEqual(['duplicate', 'duplicate', 'contribution-conflict']);
  });

  it('keep the round for a client that waits for the next stage, and not for one that missed a stage', () => {
    secure();
    const next = (client: number) => nextRoundFor(run.state, clientId(client), run.policy);
    run.contribute(0);
    expect([next(0), next(1), next(5)]).toEqual([1, 1, 2]);
    answer(1, 2, 3);
    expect([next(0), next(4)]).toEqual([1, 2]);
    for (let i = 0; i < 3; i++) run.contributeAll();
    run.contribute(0);
    expect([next(0), next(1)]).toEqual([2, 1]); // unmask is the last
  });

  it('never have a second set of survivors, wherever the process dies', () => {
    // The masked input of the last client is journalled and nothing of what follows is done.
    secure();
    run.contributeAll();
    run.contributeAll();
    for (const client of [0, 1, 2, 3]) run.contribute(client);
    run.crashAtNextEvent({ at: 'afterJournal', effects: 0 });
    run.contribute(4);
    const [before, after] = asked('open-stage').filter(({ stage }) => stage === 'consistencyCheck');
    expect(after).toEqual(before);
    // And when the deadline decides: the late client's message is refused for ever.
    secure();
    run.contributeAll();
    run.contributeAll();
    run.crashAtNextEvent({ at: 'afterJournal', effects: 0 });
    answer(0, 1, 2, 3);
    run.connect(0, 1, 2, 3, 4);
    expect(run.contribute(4, 'expected')).toBe('stage-mismatch');
    expect(run.send(clientId(4), 1, 'maskedInput', contributionOf(clientId(4), 1, 'maskedInput'))).toBe('stage-mismatch');
    expect(open()?.closed.at(-1)?.received).toHaveLength(4);
  });
});

describe('the state', () => {
  it('starts with nobody and round 1', () => {
    run = new RoundHarness();
    expect(initialState(5 as Instant)).toEqual({ members: {}, nextRound: 1, previous: null, released: 0, collected: 0, failedInRow: 0, best: null, roundsWithoutGain: 0, current: { phase: 'gathering', since: 5 } });
  });

  it('follows from the journal alone: when the process that replays it was started does not matter', () => {
    run = new RoundHarness({ minClients: 3, quorum: 2, reconnectGraceMs: 2_000 });
    run.advance(5_000);
    run.connect(0);
    run.advance(1_500);
    run.disconnect(0);
    run.connect(1, 2);
    run.advance(1_000);
    run.connect(3);
    expect(phase()).toBe('opening');
    const later = run.journal.reduce((state, line) => transition(state, JSON.parse(line) as RoundEvent, run.policy).state, initialState((run.startedAt + 1e9) as Instant));
    expect(later).toEqual(run.state);
  });

  it('is never changed in place', () => {
    run = new RoundHarness({ minClients: 2, stages: threeStages });
    const freeze = (value: object): void => {
      for (const inner of Object.values(value)) if (typeof inner === 'object' && inner !== null) freeze(inner as object);
      Object.freeze(value);
    };
    const replayed = (lines: readonly string[]) =>
      lines.reduce<FederationState>((state, line) => {
        freeze(state);
        return transition(state, JSON.parse(line) as RoundEvent, run.policy).state;
      }, initialState(run.startedAt));
    run.connect(0, 1, 2);
    run.advance(1);
    run.contribute(0);
    run.disconnect(1);
    run.advance(2_000);
    run.decline(2);
    run.crash();
    run.advance(50_000);
    expect(replayed(run.journal)).toEqual(run.state);
  });
});

describe('the policy of a task', () => {
  it('allows as many charged rounds as the noise was calibrated for', () => {
    run = new RoundHarness();
    const schedule = { rounds: 5, minClients: 3, cohortSize: undefined, quorum: 2, roundDeadlineSeconds: 60, reconnectGraceSeconds: 30, maxFailedRounds: 3, convergencePatience: 0, convergenceDelta: 0.001 };
    const config = (mechanism: string) => ({ seed: 7, schedule, privacy: { mechanism } }) as unknown as Parameters<typeof roundPolicyOf>[0];
    expect(roundPolicyOf(config('gaussian'))).toEqual({ ...examplePolicy, rounds: 5, stageDeadlineMs: 60_000, reconnectGraceMs: 30_000, maxFailedRounds: 3, maxReleases: 5, convergenceDelta: 0.001 });
    expect(roundPolicyOf(config('none')).maxReleases).toBeUndefined();
    const secure = { seed: 7, schedule, privacy: { trustMode: 'secure-aggregation', mechanism: 'none', secureAggregation: { maxCorrupt: 1, stageDeadlineSeconds: 5 } } } as unknown as Parameters<typeof roundPolicyOf>[0];
    expect(roundPolicyOf(secure)).toMatchObject({ stages: secureStageNames, secureAggregation: { maxCorrupt: 1, stageDeadlineMs: 5_000 } });
  });
});
