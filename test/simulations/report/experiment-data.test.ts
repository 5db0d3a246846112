import { describe, expect, it } from 'vitest';
import type { PointResult } from '../../../simulations/experiment/result.ts';
import {
  bytesPerClient,
  clientAccuracy,
  countsOf,
  countsSentence,
  finalAccuracy,
  kindOfEpsilon,
  missingSeeds,
  overSeeds,
  qualifierNotes,
  qualifierParts,
  settingsOf,
  valueText,
  whyNoGuarantee,
  type Experiment,
} from '../../../simulations/report/experiment-data.ts';
import { gridExperiment, sampleExperiment, sampleOutcome } from './sample-experiment.ts';

const settings = settingsOf([sampleExperiment]);
const labelled = (label: string) => settings.find((setting) => setting.label === label)!;

describe('settings', () => {
  it('are points that differ in their seed alone, in the order of the sweep', () => {
    expect(settings.map(({ label, points, failures }) => [label, points.map(({ seed }) => seed), failures.length])).toEqual([
      ['no noise', [1, 2, 3], 0],
      ['local noise, epsilon 1', [1, 2], 1],
      ['local noise, epsilon 4', [1, 2, 3], 0],
      ['local noise, epsilon 16', [1, 2, 3], 0],
      ['votes of records, epsilon 1', [1, 2, 3], 0],
      ['votes of records, epsilon 4', [1, 2, 3], 0],
      ['votes of records, epsilon 16', [1, 2, 3], 0],
      ['private training, epsilon 1', [1, 2, 3], 0],
      ['private training, epsilon 4', [1, 2, 3], 0],
      ['private training, epsilon 16', [1, 2, 3], 0],
      ['centralized', [1, 2, 3], 0],
      ['local only', [1, 2, 3], 0],
    ]);
    expect(settings.map(({ number }) => number)).toEqual(settings.map((_, i) => i + 1));
  });

  it('do not depend on the order of lines', () => {
    expect(settingsOf([{ ...sampleExperiment, results: sampleExperiment.results.toReversed() }])).toEqual(settings);
  });

  it('are named by what varies within their case, without what a case or the whole sweep fixes', () => {
    const [first] = settingsOf([gridExperiment]);
    expect(first!.label).toBe('temperature 1, partition dirichlet alpha 0.1');
    expect(first!.values.map(([path]) => path)).toContain('task.student.model');
    // Beside another experiment: with its name only where labels alone would not tell them apart.
    expect(settingsOf([gridExperiment, sampleExperiment])[0]!.label).toBe('temperature 1, partition dirichlet alpha 0.1');
    expect(settingsOf([gridExperiment, { ...gridExperiment, name: 'other' }]).map(({ label }) => label)).toContain('other, temperature 1, partition dirichlet alpha 0.1');
  });

  it('tell paths of one name apart by as much of them as it takes', () => {
    const point = (index: number, a: number, b: number): PointResult => ({ ...gridExperiment.results[index]!, case: null, index, seed: 1, settings: { 'task.teacher.epochs': a, 'task.privacy.sampleAndAggregate.epochs': b } });
    const found = settingsOf([{ ...gridExperiment, results: [point(0, 1, 1), point(1, 1, 2), point(2, 2, 1)] }]);
    expect(found.map(({ label }) => label)).toEqual(['teacher.epochs 1, sampleAndAggregate.epochs 1', 'teacher.epochs 1, sampleAndAggregate.epochs 2', 'teacher.epochs 2, sampleAndAggregate.epochs 1']);
  });

  it('share a line over epsilon when they differ in nothing else', () => {
    expect(new Set(settings.filter(({ case: label }) => label === 'local noise').map(({ series }) => series))).toEqual(new Set(['local noise']));
    // Cases too, when nothing but epsilon tells them apart.
    const results = sampleExperiment.results.flatMap((result) => (result.case === 'votes of records' || result.case === 'private training' ? [{ ...result, case: `${result.case}, target ${JSON.stringify(result.settings['task.privacy.epsilon'])}` }] : []));
    const cases = settingsOf([{ ...sampleExperiment, results }]);
    expect(cases.map(({ label, series }) => [label, series])).toEqual(['votes of records', 'private training'].flatMap((name) => [1, 4, 16].map((epsilon) => [`${name}, target ${epsilon}`, `${name}, target`])));
  });
});

it.each<[unknown, string]>([
  [{ kind: 'dirichlet', alpha: 0.1 }, 'dirichlet alpha 0.1'],
  [{ source: 'mnist', size: 100 }, 'mnist size 100'],
  [[28, 28, 1], '28×28×1'],
  ['a', 'a'],
  [1e-5, '0.00001'],
  [false, 'false'],
  [[{ count: 5 }], '[{"count":5}]'],
])('a value of a setting on one line: %j', (value, text) => {
  expect(valueText(value)).toBe(text);
});

describe('statistics', () => {
  it('are mean and sample standard deviation (n - 1) over seeds', () => {
    const values = [0.5, 0.75, 0.625].map((accuracy) => ({ ...sampleOutcome({ accuracy, statement: null, bytes: 0 }, 1), final: { accuracy, nll: null, calibrationError: null, reliability: [] } }));
    const results = values.map((outcome, i): PointResult => ({ format: 'fedstill-result/1', point: '0'.repeat(16), index: i, seed: i, case: null, settings: {}, outcome }));
    const [setting] = settingsOf([{ ...gridExperiment, results }]);
    expect(overSeeds(setting!, finalAccuracy)).toEqual({ count: 3, mean: 0.625, stddev: 0.125 });
  });

  it('leave out what was not measured, and say how many values are left', () => {
    expect(overSeeds(labelled('local only'), finalAccuracy)).toEqual({ count: 0, mean: null, stddev: null });
    expect(overSeeds(labelled('centralized'), clientAccuracy).count).toBe(0);
    expect(overSeeds(labelled('centralized'), bytesPerClient).count).toBe(0);
    expect(overSeeds(labelled('local noise, epsilon 1'), finalAccuracy).count).toBe(2);
  });

  it('count clients, records, test examples and seeds', () => {
    expect(countsOf(settings)).toEqual({ clients: '8 clients', records: '2,000 private records', testExamples: '1,000 test examples', seeds: 'seeds 1, 2, 3' });
    expect(countsSentence(settings)).toBe('12 settings; 8 clients, 2,000 private records, 1,000 test examples; seeds 1, 2, 3.');
  });
});

describe('guarantees', () => {
  it('are those of all releases, replace-one, against the coordinator, with everything that gives epsilon a meaning', () => {
    const { guarantee } = labelled('votes of records, epsilon 4');
    expect(guarantee).toMatchObject({ unit: 'record', adjacency: 'replaceOne', adversary: 'the coordinator with up to 1 corrupt client', delta: 1e-5, releases: 4, rowsPerRelease: 200, rowsPerClient: 800 });
    const { statement } = labelled('votes of records, epsilon 4').points[0]!.outcome;
    const stated = statement!.claim === 'none' ? undefined : statement!.guarantees.find(({ scope, adjacency, adversary }) => scope === 'lifetime' && adjacency === 'replaceOne' && adversary === 'coordinator');
    expect(guarantee!.epsilon).toBe(stated!.epsilon);
    const words = qualifierParts(guarantee!).join('; ');
    for (const part of ['unit record', 'adjacency replace-one-record', 'adversary the coordinator', '1e−5', 'accountant renyi version 1', '4 releases', '200 transfer rows each (800 in all)']) expect(words).toContain(part);
  });

  it('are the weakest of the seeds', () => {
    const one = labelled('votes of records, epsilon 1').points[0]!;
    const four = labelled('votes of records, epsilon 4').points[1]!;
    const mixed: Experiment = { ...sampleExperiment, results: [one, { ...four, case: one.case, settings: one.settings }] };
    expect(settingsOf([mixed])[0]!.guarantee!.epsilon).toBe(labelled('votes of records, epsilon 4').guarantee!.epsilon);
  });

  it('are none without a claim, also when only one seed lacks it', () => {
    expect(labelled('no noise').guarantee).toBeNull();
    expect(whyNoGuarantee(labelled('no noise'))).toContain('without noise');
    expect(whyNoGuarantee(labelled('centralized'))).toBe('a baseline: claims nothing');
    const [first, second] = labelled('local noise, epsilon 4').points;
    const mixed: Experiment = { ...sampleExperiment, results: [first!, { ...second!, outcome: { ...second!.outcome, statement: null } }] };
    expect(settingsOf([mixed])[0]!.guarantee).toBeNull();
  });

  it('are explained once for those that mean the same, and never mixed', () => {
    expect(qualifierNotes(settings.filter(({ case: label }) => label === 'local noise'))).toHaveLength(1);
    const notes = qualifierNotes(settings);
    expect(notes.map((note) => note.split(':')[0])).toEqual(['ε of local noise', 'ε of votes of records', 'ε of private training']);
    expect(new Set(settings.flatMap(({ guarantee }) => (guarantee === null ? [] : [kindOfEpsilon(guarantee)]))).size).toBe(3);
    expect(qualifierNotes(settings.filter(({ guarantee }) => guarantee === null))).toEqual([]);
  });
});

it('a seed that others of the experiment have is missed; one that failed is not', () => {
  expect(missingSeeds(settings)).toEqual([]);
  const without = settingsOf([{ ...sampleExperiment, results: sampleExperiment.results.filter(({ index }) => index !== 4 && index !== 7) }, gridExperiment]);
  expect(missingSeeds(without).map(({ setting, seeds }) => [setting.number, seeds])).toEqual([[2, [2]], [3, [2]]]);
});
