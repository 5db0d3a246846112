/** From a scenario to its outcome, and from outcomes to tables. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeEngine } from '../../../shared/compute/engine.ts';
import { selectEngine } from '../../../shared/compute/select-engine.ts';
import { deriveSeed } from '../../../shared/datasets/seeded-generator.ts';
import { noEvents } from '../../../shared/ports/event-sink.ts';
import { PointResultSchema, parseResults, type PointResult } from '../../../simulations/experiment/result.ts';
import { resultsCsv } from '../../../simulations/experiment/results-csv.ts';
import { remarks, renderSummary } from '../../../simulations/experiment/summary-table.ts';
import { summarizeResults } from '../../../simulations/experiment/summary.ts';
import { InsecureSeededRandom } from '../../../simulations/insecure-seeded-random.ts';
import { loadScenarioData } from '../../../simulations/load-scenario.ts';
import { OutcomeSchema, type Outcome } from '../../../simulations/outcome.ts';
import { runScenario } from '../../../simulations/run-scenario.ts';
import { parseScenario } from '../../../simulations/scenario.ts';
import { tinyScenario } from './tiny-scenario.ts';

let engine: ComputeEngine;
const outcomes: Record<string, Outcome> = {};

async function outcomeOf(privacy: string): Promise<Outcome> {
  const scenario = parseScenario(tinyScenario.replace('  schedule:', `  ${privacy}\n  schedule:`), 'tiny.yaml');
  const random = (party: string) => new InsecureSeededRandom(deriveSeed(scenario.task.seed, 'insecure', party));
  return runScenario({ scenario, data: await loadScenarioData(scenario, '.'), engine, random, events: noEvents });
}

beforeAll(async () => {
  engine = await selectEngine('tfjs');
  outcomes['plain'] = await outcomeOf('');
  outcomes['noised'] = await outcomeOf('privacy: { mechanism: gaussian, epsilon: 50 }');
  outcomes['summed'] = await outcomeOf('privacy: { trustMode: secure-aggregation, mechanism: discreteGaussian, epsilon: 50 }');
});
afterAll(() => engine.dispose());

describe('the outcome of a federation', () => {
  it('has every number of its shape, and is the same when it was written and read', () => {
    for (const outcome of Object.values(outcomes)) {
      expect(OutcomeSchema.parse(outcome)).toEqual(outcome);
      expect(JSON.stringify(OutcomeSchema.parse(JSON.parse(JSON.stringify(OutcomeSchema.parse(outcome)))))).toBe(JSON.stringify(OutcomeSchema.parse(outcome)));
    }
  });

  it('measures the coordinator\'s model on the test set: the bins hold all of it, and give its accuracy and calibration error', () => {
    const { final, clients, rounds, bytesUp, reason } = outcomes['plain']!;
    expect(reason).toBe('rounds-done');
    const bins = final!.reliability;
    expect(bins).toHaveLength(15);
    expect(bins.reduce((sum, { count }) => sum + count, 0)).toBe(60);
    expect(bins.reduce((sum, { count, accuracy }) => sum + count * (accuracy ?? 0), 0) / 60).toBeCloseTo(final!.accuracy!, 12);
    expect(bins.reduce((sum, { count, accuracy, meanConfidence }) => sum + (count / 60) * Math.abs((accuracy ?? 0) - (meanConfidence ?? 0)), 0)).toBeCloseTo(final!.calibrationError!, 12);
    expect(final!.nll).toBeGreaterThan(0);
    expect(clients.map(({ name, privateRecords, error }) => [name, privateRecords, error])).toEqual([1, 2, 3, 4].map((n) => [`client-${n}`, 40, null]));
    expect(rounds.map(({ round, contributions }) => [round, contributions])).toEqual([[0, 0], [1, 4], [2, 4]]);
    for (const [i, line] of rounds.entries()) {
      expect(line.meanClientAccuracy).not.toBeNull();
      expect(line.accuracy === null).toBe(i === 0);
      expect(line.bytesUp).toBeGreaterThanOrEqual(i === 0 ? 0 : rounds[i - 1]!.bytesUp);
    }
    expect(bytesUp).toBeGreaterThanOrEqual(rounds.at(-1)!.bytesUp);
  });

  it('states what real noise would give, and claims nothing without noise', () => {
    expect(outcomes['plain']!.statement).toMatchObject({ claim: 'none', releases: 2, rowsPerClient: 120 });
    expect(outcomes['noised']!.statement).toMatchObject({ claim: 'differentialPrivacy', mechanism: 'gaussian', releases: 2 });
    expect(outcomes['summed']!.statement).toMatchObject({ claim: 'differentialPrivacy', mechanism: 'discreteGaussian' });
  });
});

const line = (index: number, name: string, settings: PointResult['settings'], seed: number): PointResult => ({ format: 'fedstill-result/1', point: '0'.repeat(16), index, seed, case: name, settings, outcome: outcomes[name]! });

function results(): PointResult[] {
  const settings = (mechanism: string, temperature: number) => ({ 'task.privacy.mechanism': mechanism, 'task.distillation.temperature': temperature });
  return [
    line(0, 'plain', settings('none', 1), 1),
    line(1, 'plain', settings('none', 1), 2),
    line(2, 'noised', settings('gaussian', 3), 1),
    line(3, 'summed', settings('discreteGaussian', 3), 1),
    { format: 'fedstill-result/1', point: '1'.repeat(16), index: 4, seed: 2, case: 'summed', settings: settings('discreteGaussian', 3), error: { code: 'worker-failed', message: 'twice, "at once"\nand again' } },
  ];
}

describe('tables of results', () => {
  it('have a row for each point in a CSV that any reader parses, where an epsilon has its adversary and all else that it means beside it', () => {
    const csv = resultsCsv(results());
    const rows = parseCsv(csv);
    const [head, ...body] = rows;
    expect(body).toHaveLength(5);
    for (const row of body) expect(row).toHaveLength(head!.length);
    const cell = (row: number, column: string) => body[row]![head!.indexOf(column)]!;
    expect(cell(4, 'error')).toBe('worker-failed: twice, "at once"\nand again');
    expect(cell(0, 'finalAccuracy')).toBe(String(outcomes['plain']!.final!.accuracy));
    expect(cell(0, 'epsilonAgainstAnybody')).toBe('');
    expect(Number(cell(2, 'epsilonAgainstAnybody'))).toBeLessThanOrEqual(50);
    expect(['delta', 'unit', 'adjacency', 'accountant', 'releases', 'transferExamplesPerClient'].map((column) => cell(2, column))).toEqual(['0.00001', 'client', 'replaceOne', expect.stringMatching(/ \d+$/), '2', '120']);
    expect(Number(cell(3, 'epsilonAgainstCoordinator'))).toBeLessThan(Number(cell(3, 'epsilonAgainstParticipants')));
  });

  it('have a row for each setting in a summary, in which no epsilon stands alone', () => {
    const summary = summarizeResults(results());
    expect(summary.map((row) => [row.case, row.seeds, row.failed])).toEqual([['plain', 2, 0], ['noised', 1, 0], ['summed', 1, 1]]);
    // Two seeds with one outcome: no spread.
    expect(summary[0]!.finalAccuracy).toMatchObject({ count: 2, mean: outcomes['plain']!.final!.accuracy, stddev: 0 });
    const text = renderSummary(summary);
    const noteOf = (letter: string) => text.split('\n').find((note) => note.startsWith(`[${letter}]`))!;
    expect(text).toMatch(/^noised .*≤ [\d.]+ \[b\]$/m);
    expect(text).toMatch(/^summed .*≤ [\d.]+ \(coordinator\), ≤ [\d.]+ \(participants\) \[c\]$/m);
    expect(noteOf('a')).toContain('no differential privacy');
    for (const letter of ['b', 'c']) for (const part of ['delta', '2 releases', '60 transfer examples', 'unit client', 'adjacency replace-one', 'accountant', 'adversary']) expect(noteOf(letter)).toContain(part);
    // Known from the label of the case, so no column, but said.
    expect(text).toContain('summed: task.privacy.mechanism = discreteGaussian, task.distillation.temperature = 3.');
  });

  it('come with what a mean does not say: points and clients that failed, and rounds that were not to be', () => {
    const early = { ...outcomes['plain']!, reason: 'quorum-missed', clients: outcomes['plain']!.clients.map((client, i) => (i === 1 ? { ...client, error: { code: 'disconnected', message: 'gone' } } : client)) };
    const all = results().map((result, i) => (i === 1 ? { ...result, outcome: early } : result));
    expect(remarks(results().slice(0, 4))).toEqual([]);
    expect(remarks(all)).toEqual([
      'Ended early: point 1 (plain, seed 2): quorum-missed; it counts in the means.',
      '1 client failed: point 1 (plain, seed 2): client-2 (disconnected)',
      'Failed: point 4 (summed, seed 2): twice, "at once" and again (worker-failed)',
    ]);
  });

  it('are read back from a file of lines', () => {
    const lines = results().map((result) => PointResultSchema.parse(result));
    expect(parseResults(lines.map((result) => `${JSON.stringify(result)}\n`).join(''))).toEqual(lines);
    expect(() => parseResults('{"format":"fedstill-result/2"}\n')).toThrow();
  });
});

/** RFC 4180, independent of the code under test. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [[]];
  let cell = '';
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const character = text[i]!;
    if (quoted && character === '"' && text[i + 1] === '"') cell += text[++i]!;
    else if (character === '"') quoted = !quoted;
    else if (!quoted && (character === ',' || character === '\n')) {
      rows.at(-1)!.push(cell);
      cell = '';
      if (character === '\n') rows.push([]);
    } else cell += character;
  }
  return rows.slice(0, -1);
}
