/** Failures that random trouble found, shrunk and kept: each with its story. New ones are added, none is removed. */
import { describe, expect, it } from 'vitest';
import type { RoundPolicy } from '../../shared/rounds/policy.ts';
import { clientId, RoundHarness, smoothWork, threeStages } from './harness.ts';
import { checkReplay, checkRun } from './invariants.ts';
import type { Op, Work } from './ops.ts';

const smallest: Partial<RoundPolicy> = { rounds: 1, minClients: 1, quorum: 1, maxFailedRounds: 0, stageDeadlineMs: 100, reconnectGraceMs: 50 };

function reproduce(policy: Partial<RoundPolicy>, ops: readonly Op[], work: readonly Work[] = [smoothWork]): RoundHarness {
  const run = new RoundHarness({ ...smallest, ...policy }, work);
  for (const op of ops) {
    run.apply(op);
    checkRun(run);
  }
  checkReplay(run);
  return run;
}

describe('reproductions', () => {
  // Timers run on elapsed time, deadlines are wall-clock times. After NTP had set the clock back, the stage's only timer fired
  // "early", was taken for an old one and ignored: the round waited for ever. An early timer is now started again.
  it('a clock that is set back does not leave a stage without its timer', () => {
    const run = reproduce({}, [{ op: 'connect', client: 0 }, { op: 'advance', ms: 1 }, { op: 'setWall', byMs: -1 }, { op: 'advance', ms: 100 }]);
    expect(run.state.current.phase).toBe('collecting');
    run.advance(1);
    expect(run.state.current).toEqual({ phase: 'finished', reason: 'quorum-missed' });
  });

  it('a clock that is set back does not leave a lost client without its timer', () => {
    const run = reproduce({ quorum: 2, minClients: 2 }, [{ op: 'connect', client: 0 }, { op: 'disconnect', client: 0 }, { op: 'setWall', byMs: -1 }, { op: 'advance', ms: 50 }]);
    expect(run.state.members).toHaveProperty(clientId(0));
    run.advance(1);
    expect(run.state.members).toEqual({});
  });

  // With several stages, `received` starts empty in each: a round that failed in its second stage was not counted as collected,
  // though every client had been charged in the first. The budget would have allowed one round too many.
  it('a round that fails in a later stage has still collected contributions', () => {
    const run = reproduce({ stages: threeStages }, [{ op: 'connect', client: 0 }, { op: 'advance', ms: 1 }, { op: 'contribute', client: 0, kind: 'expected' }, { op: 'advance', ms: 100 }]);
    expect(run.state).toMatchObject({ collected: 1, released: 0, current: { phase: 'finished' } });
  });

  // A round opened only at a moment at which nobody was away. Of many clients somebody always is; two that take turns in dropping
  // their connection could do it on purpose. Now nobody is waited for longer than the grace time.
  it('two clients that take turns in being away do not keep the first round from opening', () => {
    const run = reproduce({ minClients: 3, quorum: 2 }, [
      { op: 'connect', client: 2 },
      { op: 'disconnect', client: 2 },
      { op: 'connect', client: 0 },
      { op: 'connect', client: 1 },
      { op: 'connect', client: 3 },
      { op: 'advance', ms: 30 },
      { op: 'disconnect', client: 3 },
      { op: 'connect', client: 2 },
      { op: 'advance', ms: 30 },
      { op: 'disconnect', client: 2 },
      { op: 'connect', client: 3 },
    ]);
    expect(run.asked.some(({ type }) => type === 'open-round')).toBe(true);
  });

  // The budget was only looked at once enough clients were there for another round, so a task with nothing left to release waited
  // for clients, for ever when they had left.
  it('a task whose budget is used up ends at once, also when nobody is there any more', () => {
    const run = reproduce({ quorum: 2, minClients: 2, maxReleases: 1, maxFailedRounds: 9 }, [
      { op: 'connect', client: 0 },
      { op: 'connect', client: 1 },
      { op: 'advance', ms: 1 },
      { op: 'contribute', client: 0, kind: 'expected' },
      { op: 'leave', client: 0 },
      { op: 'leave', client: 1 },
      { op: 'advance', ms: 100 },
    ]);
    expect(run.state.current).toEqual({ phase: 'finished', reason: 'budget-exhausted' });
  });

  // A process that died between journalling the last message of a stage and opening the next one asked nobody for the next
  // stage after its restart: the announcement that clients get on joining only opens the first.
  it('a crash on the way to the next stage does not lose the question', () => {
    const run = reproduce({ stages: threeStages }, [
      { op: 'connect', client: 0 },
      { op: 'advance', ms: 1 },
      { op: 'crashAtNextEvent', point: { at: 'afterJournal', effects: 0 }, downtimeMs: 10 },
      { op: 'contribute', client: 0, kind: 'expected' },
    ]);
    expect(run.performed).toContainEqual(expect.objectContaining({ type: 'open-stage', round: 1, stage: threeStages[1], clients: [clientId(0)] }));
  });
});
