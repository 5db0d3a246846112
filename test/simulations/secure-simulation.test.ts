/** Whole simulated federations with trust mode `secure-aggregation`. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { loadScenarioData } from '../../simulations/load-scenario.ts';
import { metricsLines, runSimulation, type SimulationResult } from '../../simulations/run-simulation.ts';
import { parseScenario, type Scenario } from '../../simulations/scenario.ts';

vi.mock(import('../../shared/crypto/signature.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastSignatures(await original()));
vi.mock(import('../../shared/crypto/sealed-box.ts'), async (original) => (await import('../server/coordinator/fast-crypto.ts')).fastBoxes(await original()));

let engine: ComputeEngine;
beforeAll(async () => {
  engine = await selectEngine('tfjs');
});
afterAll(() => engine.dispose());

function scenarioOf({ seed = 1, mechanism = 'discreteGaussian, epsilon: 50', trustMode = 'secure-aggregation', network = '' } = {}): Scenario {
  return parseScenario(
    `
scenario: test
task:
  task: test
  seed: ${seed}
  data: { numClasses: 3, exampleShape: [8] }
  transferSet: { source: synthetic, size: 40, seed: 7 }
  evaluationSet: { source: synthetic, size: 60, seed: 8 }
  teacher: { kind: learner, model: softmax-regression, epochs: 2 }
  student: { model: softmax-regression, pretrainEpochs: 2, digestEpochs: 1, revisitEpochs: 1 }
  privacy: { trustMode: ${trustMode}, mechanism: ${mechanism} }
  schedule: { rounds: 2, minClients: 6, quorum: 5 }
clients:
  groups: [{ count: 6, model: softmax-regression }]
  data: { source: synthetic, size: 180, seed: 9 }
  testSet: { source: synthetic, size: 60, seed: 10 }
${network}
`,
    'test.yaml',
  );
}

async function simulate(scenario: Scenario): Promise<{ result: SimulationResult; events: RunEvent[]; metrics: string }> {
  const events: RunEvent[] = [];
  const result = await runSimulation({
    scenario,
    data: await loadScenarioData(scenario, '.'),
    engine,
    random: (party) => new InsecureSeededRandom(deriveSeed(scenario.task.seed, 'insecure', party)),
    events: { emit: (event) => events.push(event) },
  });
  return { result, events, metrics: metricsLines(result).map((line) => JSON.stringify(line)).join('\n') };
}

describe('a simulated federation with secure aggregation', () => {
  it('releases every round, and gives the same metrics and events again for the same seed', async () => {
    const first = await simulate(scenarioOf());
    expect(first.result.reason).toBe('rounds-done');
    expect(first.result.rounds.map(({ round, contributions }) => [round, contributions])).toEqual([[1, 6], [2, 6]]);
    for (const { summary, metrics } of first.result.clients) {
      expect(summary).toMatchObject({ contributedRounds: 2, rounds: 2 });
      // The statement's accountant: five shares of noise, though six were added.
      expect(summary!.epsilonSpent).toBeLessThanOrEqual(50);
      expect(metrics.filter(({ phase, contributed }) => phase === 'round' && contributed)).toHaveLength(2);
    }
    const second = await simulate(scenarioOf());
    expect(second.metrics).toBe(first.metrics);
    expect(second.events).toEqual(first.events);
    expect((await simulate(scenarioOf({ seed: 2 }))).metrics).not.toBe(first.metrics);
  });

  it('learns what one learns that sees every prediction: without noise the teacher is as good, but for the grid', async () => {
    const teacher = async (trustMode: string) => (await simulate(scenarioOf({ trustMode, mechanism: 'none' }))).result.rounds.map(({ teacherNll }) => teacherNll!);
    const [sealed, secure] = [await teacher('sealed'), await teacher('secure-aggregation')];
    secure.forEach((nll, i) => expect(Math.abs(nll - sealed[i]!)).toBeLessThan(1e-3));
  });

  it('comes through lost messages and broken connections', async () => {
    const { result } = await simulate(scenarioOf({ network: 'network: { lossRate: 0.01, breakRate: 0.02 }' }));
    expect(result.reason).toBe('rounds-done');
    for (const { contributions } of result.rounds) expect(contributions).toBeGreaterThanOrEqual(5);
    for (const { error } of result.clients) expect(error).toBeUndefined();
  });
});
