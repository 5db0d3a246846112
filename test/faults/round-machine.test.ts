/** Random trouble against the round machine: docs/round-states.md lists what is checked and why. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { secureStageNames } from '../../shared/protocol/messages.ts';
import { arbitraryOps, arbitraryPolicy, arbitraryWork } from './arbitraries.ts';
import { maxClients, RoundHarness, smoothWork, threeStages } from './harness.ts';
import { checkReplay, checkRun } from './invariants.ts';
import type { Op } from './ops.ts';

const everyone = Array.from({ length: maxClients }, (_, i) => i);

function apply(run: RoundHarness, ops: readonly Op[]): void {
  for (const op of ops) {
    const { crashes } = run;
    run.apply(op);
    checkRun(run);
    if (run.crashes > crashes) checkReplay(run);
  }
  checkReplay(run);
}

/** The trouble is over: everybody comes back and works. Ends when the task does, or fails. */
function drain(run: RoundHarness): void {
  const turns = 4 * (run.policy.rounds + run.policy.maxFailedRounds + 2) * (run.policy.maxFailedRounds + 1) * run.policy.stages.length + 200;
  for (let turn = 0; turn < turns && run.state.current.phase !== 'finished'; turn++) {
    run.connectAll();
    run.contributeAll();
    checkRun(run);
    run.advance(500);
  }
  checkRun(run);
  assert.equal(run.state.current.phase, 'finished', 'the task ends once everybody works');
}

/** `FAULT_RUNS=20000 npx vitest run test/faults` for a soak. */
const numRuns = Number(process.env['FAULT_RUNS'] ?? 500);

/** What one run reached, by the names of effects, outcomes and reasons. */
function reached(run: RoundHarness): Set<string> {
  const names = run.asked.map((effect) => (effect.type === 'close-round' ? effect.outcome : effect.type === 'finish' ? effect.reason : effect.type));
  return new Set<string>(run.crashes > 0 ? [...names, 'crash'] : names);
}

describe.each([
  ['one stage', ['contribution'] as const, false],
  ['three stages', threeStages, false],
  ['the five stages of secure aggregation', secureStageNames, true],
] as const)('the round machine with %s', (_name, stages, isSecure) => {
  it('keeps every invariant through connects, crashes, lies and lateness, and ends once the trouble does', () => {
    const inTrouble: string[] = [];
    const inTheEnd: string[] = [];
    fc.assert(
      fc.property(arbitraryPolicy(stages, isSecure), arbitraryWork, arbitraryOps(stages.length), (policy, work, ops) => {
        const run = new RoundHarness(policy, work);
        apply(run, ops);
        inTrouble.push(...reached(run));
        drain(run);
        checkReplay(run);
        inTheEnd.push(...reached(run));
      }),
      { numRuns },
    );
    // A change of the generators must not quietly empty the test.
    const share = (names: readonly string[], name: string) => names.filter((other) => other === name).length / numRuns;
    for (const name of ['aggregate', 'released', 'aborted', 'crash', ...(stages.length > 1 ? ['open-stage'] : [])]) expect.soft(share(inTrouble, name), name).toBeGreaterThan(0.03);
    for (const name of ['rounds-done', 'converged', 'budget-exhausted', 'quorum-missed', 'failed']) expect.soft(share(inTheEnd, name), name).toBeGreaterThan(0);
    if (process.env['FAULT_RUNS']) console.log({ stages: stages.length, shares: Object.fromEntries([...new Set(inTheEnd)].map((name) => [name, [share(inTrouble, name), share(inTheEnd, name)]])) });
  });

  it('waits without spinning while there are too few clients, before the first round and after it', () => {
    fc.assert(
      fc.property(arbitraryPolicy(stages, isSecure), fc.boolean(), (policy, afterOne) => {
        fc.pre(policy.quorum > 1);
        const run = new RoundHarness(policy, [smoothWork]);
        if (afterOne) {
          run.connect(...everyone);
          run.advance(1);
          run.leave(...everyone.slice(policy.quorum - 1));
        } else {
          run.connect(...everyone.slice(0, policy.minClients - 1));
        }
        run.advance(10 * policy.stageDeadlineMs);
        const { length } = run.journal;
        run.advance(1_000_000);
        checkRun(run);
        expect(run.journal).toHaveLength(length);
        expect(run.clock.pending).toBe(0);
        expect(['gathering', 'finished']).toContain(run.state.current.phase);
        expect(run.asked.filter(({ type }) => type === 'aggregate')).toEqual([]);
      }),
    );
  });
});
