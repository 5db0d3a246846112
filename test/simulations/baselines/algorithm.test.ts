import { describe, expect, it } from 'vitest';
import { configIssues } from '../../../shared/config/load.ts';
import { parseScenario, type Scenario } from '../../../simulations/scenario.ts';

function scenarioOf(algorithm: string, { groups = '[{ count: 3, model: mlp-small }]', privacy = '' } = {}): Scenario {
  return parseScenario(
    `
scenario: test
task:
  task: test
  data: { numClasses: 3, exampleShape: [8] }
  transferSet: { source: synthetic, size: 60 }
  ${privacy}
${algorithm}
clients:
  groups: ${groups}
  data: { source: synthetic, size: 160 }
`,
    'test.yaml',
  );
}

function issuesOf(action: () => unknown) {
  try {
    action();
  } catch (error) {
    return configIssues(error);
  }
  return [];
}

describe('the algorithm of a scenario', () => {
  it('is the federation when nothing is said', () => {
    expect(scenarioOf('').algorithm).toEqual({ kind: 'federation' });
  });

  it('has the defaults of its paper', () => {
    expect(scenarioOf('algorithm: { kind: fedKt }').algorithm).toEqual({ kind: 'fedKt', partitions: 2, teachers: 5, teacherEpochs: 100, studentEpochs: 100, finalEpochs: 100, consistentVoting: true, weightDecay: 1e-5 });
    expect(scenarioOf('algorithm: { kind: fedAvg }').algorithm).toEqual({ kind: 'fedAvg', localEpochs: 5, weightDecay: 0 });
    expect(scenarioOf('algorithm: { kind: fedDf }').algorithm).toMatchObject({ localEpochs: 40, distillationSteps: 10_000, distillationBatchSize: 128, distillationLearningRate: 0.001 });
    expect(scenarioOf('algorithm: { kind: pate }').algorithm).toMatchObject({ teachers: 250 });
  });

  it('is named with all names when it does not exist, with the line of the mistake', () => {
    const [issue] = issuesOf(() => scenarioOf('algorithm: { kind: fedAverage }'));
    expect(issue).toMatchObject({ path: 'algorithm.kind', line: 8, got: expect.stringContaining('fedAverage') });
    expect(`${issue!.expected} ${issue!.hint}`).toContain('fedAvg');
  });

  it('has no keys of another algorithm', () => {
    const [issue] = issuesOf(() => scenarioOf('algorithm: { kind: fedAvg, teachers: 5 }'));
    expect(issue).toMatchObject({ path: 'algorithm.teachers', line: 8 });
  });

  it('claims no privacy when it is a baseline', () => {
    const privacy = 'privacy: { mechanism: gaussian, epsilon: 4 }';
    expect(issuesOf(() => scenarioOf('algorithm: { kind: fedKt }', { privacy }))).toMatchObject([{ path: 'task.privacy.mechanism', expected: 'none with the algorithm fedKt', got: 'gaussian' }]);
    expect(scenarioOf('', { privacy }).task.privacy.epsilon).toBe(4);
  });

  it('averages weights of one architecture only', () => {
    const groups = '[{ count: 2, model: mlp-small }, { count: 1, model: mlp-large }]';
    for (const kind of ['fedAvg', 'fedDf']) expect(issuesOf(() => scenarioOf(`algorithm: { kind: ${kind} }`, { groups }))).toMatchObject([{ path: 'clients.groups', got: 'mlp-small, mlp-large' }]);
    for (const kind of ['centralized', 'fedKt', 'pate']) {
      expect(issuesOf(() => scenarioOf(`algorithm: { kind: ${kind} }`, { groups }))).toMatchObject([{ path: 'algorithm.model' }]);
      expect(scenarioOf(`algorithm: { kind: ${kind}, model: mlp-small }`, { groups }).algorithm.kind).toBe(kind);
    }
    expect(scenarioOf('algorithm: { kind: localOnly }', { groups }).algorithm.kind).toBe('localOnly');
  });

  it('shows examples to baselines as they are', () => {
    const groups = '[{ count: 2, model: mlp-small }, { count: 1, model: mlp-small, view: [{ kind: crop, columns: [0, 4] }] }]';
    expect(issuesOf(() => scenarioOf('algorithm: { kind: fedKt }', { groups }))).toMatchObject([{ path: 'clients.groups[1].view', expected: 'none with the algorithm fedKt' }]);
    expect(scenarioOf('', { groups }).clients.groups).toHaveLength(2);
  });
});
