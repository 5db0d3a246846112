import { describe, expect, it } from 'vitest';
import { Progress } from '../../simulations/progress.ts';

describe('the progress of a simulation', () => {
  it('tells round, clients done, epsilon spent and time left, a line every few seconds', () => {
    const lines: string[] = [];
    let now = 0;
    const progress = new Progress({ rounds: 3, now: () => now, say: (line) => lines.push(line) });
    const see = (atSeconds: number, party: string, event: string, fields = {}) => {
      now = 1000 * atSeconds;
      progress.see({ event, party, at: 0, ...fields });
    };
    see(1, 'coordinator', 'client-joined');
    see(6, 'coordinator', 'client-joined');
    see(7, 'coordinator', 'round-opened', { round: 1, cohort: 2 });
    see(12, 'client-1', 'round-announced');
    see(13, 'client-1', 'charged', { epsilonSpent: 1.25 });
    see(18, 'coordinator', 'contribution', { round: 1, stage: 'maskedInput', contributions: 1 });
    see(27, 'coordinator', 'round-aggregated', { round: 1 });
    see(28, 'coordinator', 'round-opened', { round: 2, cohort: 2 });
    see(33, 'coordinator', 'contribution', { round: 2, stage: 'advertiseKeys', contributions: 2 });
    expect(lines).toEqual([
      '2 clients have joined',
      'round 1 (0 of 3 released), 2 clients train',
      'round 1 (0 of 3 released), 1 of 2 clients have sent masked inputs, epsilon 1.25 spent',
      'round 1 (1 of 3 released), 1 of 2 clients have sent masked inputs, epsilon 1.25 spent, about 20 s left',
      'round 2 (1 of 3 released), 2 of 2 clients have trained, epsilon 1.25 spent, about 35 s left',
    ]);
  });
});
