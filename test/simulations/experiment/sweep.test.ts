import { describe, expect, it } from 'vitest';
import { configIssues } from '../../../shared/config/load.ts';
import { parseSweep, type Sweep } from '../../../simulations/experiment/sweep.ts';

function issuesOf(text: string) {
  try {
    parseSweep(text, 'sweep.yaml');
    return [];
  } catch (error) {
    return configIssues(error).map(({ path, line, expected, got, hint }) => ({ path, line, expected, got, hint }));
  }
}

const start = 'experiment: x\nscenario: base.yaml\n';

describe('a sweep file', () => {
  it('needs only a name and a scenario', () => {
    expect(parseSweep(start, 'sweep.yaml')).toEqual({ experiment: 'x', scenario: 'base.yaml', seeds: [1], vary: {} } satisfies Sweep);
  });

  it('reports every mistake at once, with its line and the nearest path', () => {
    const issues = issuesOf(`experiment: No spaces
scenario: base.yaml
seeds: [1, 2, 1]
vary:
  grid:
    task.privcy.epsilon: [1]
    epsilon: [1]
    task.seed: [1, 2]
    clients.groups[0].count: [4, 5, 4]
  random:
    samples: 3
    ranges:
      task.student.l2: { from: 0, to: 1, scale: log }
      network.latncyMs: { from: 3, to: 4 }
      network.latencyMs: { from: 3, to: 1 }
      task.distillation.alpha: { from: 1 }
  grd: {}
`);
    expect(issues).toEqual([
      expect.objectContaining({ path: 'experiment', line: 1, expected: '1 to 64 characters of a-z, 0-9, - and _' }),
      expect.objectContaining({ path: 'seeds[2]', line: 3, expected: 'every value once', got: '1' }),
      expect.objectContaining({ path: 'vary.grid.task.privcy.epsilon', line: 6, got: '`task.privcy.epsilon`', hint: 'did you mean `task.privacy.epsilon`?' }),
      expect.objectContaining({ path: 'vary.grid.epsilon', line: 7, hint: 'did you mean `task.privacy.epsilon`?' }),
      expect.objectContaining({ path: 'vary.grid.task.seed', line: 8, hint: 'list the seeds in `seeds`' }),
      expect.objectContaining({ path: 'vary.grid.clients.groups[0].count[2]', line: 9, expected: 'every value once' }),
      expect.objectContaining({ path: 'vary.random.ranges.task.student.l2.from', line: 13, expected: 'more than 0, because the scale is log' }),
      expect.objectContaining({ path: 'vary.random.ranges.network.latncyMs', line: 14, hint: 'did you mean `network.latencyMs`?' }),
      expect.objectContaining({ path: 'vary.random.ranges.network.latencyMs.to', line: 15, expected: 'more than `from` (3)' }),
      expect.objectContaining({ path: 'vary.random.ranges.task.distillation.alpha', line: 16, expected: '`from` and `to`, or `among`' }),
      expect.objectContaining({ path: 'vary.grd', line: 17, hint: 'did you mean `grid`?' }),
    ]);
  });

  it('refuses two settings of one key, also where one lies inside the other or is written differently', () => {
    const issues = issuesOf(`${start}vary:
  cases: [{ label: a, set: { task.privacy.mechanism: none, task.student: {} } }, { label: a, set: {} }]
  grid: { task.privacy.mechanism: [none], clients.groups.0.count: [1] }
  random: { samples: 1, ranges: { 'clients.groups[0]': { among: [1] }, task.student.l2: { from: 0, to: 1 } } }
`);
    expect(issues.map(({ path, expected }) => [path, expected])).toEqual([
      ['vary.cases[0].set.task.privacy.mechanism', 'a path that is not also set by vary.grid (`task.privacy.mechanism`)'],
      ['vary.cases[0].set.task.student', 'a path that is not also set by vary.random.ranges (`task.student.l2`)'],
      ['vary.cases[1]', 'every value once'],
      ['vary.random.ranges.clients.groups[0]', 'a path that is not also set by vary.grid (`clients.groups.0.count`)'],
    ]);
  });

  it('refuses a sweep that is too large to be meant', () => {
    const values = JSON.stringify(Array.from({ length: 200 }, (_, i) => i));
    expect(issuesOf(`${start}seeds: [1, 2]\nvary: { grid: { task.student.digestEpochs: ${values}, task.student.revisitEpochs: ${values} } }\n`)).toEqual([expect.objectContaining({ path: 'vary', expected: 'at most 10000 points; these are 80000' })]);
  });
});
