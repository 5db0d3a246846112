import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeEngine } from '../../shared/compute/engine.ts';
import { selectEngine } from '../../shared/compute/select-engine.ts';
import { openWorkerPool } from '../../shared/compute/worker-pool.ts';
import { deriveSeed } from '../../shared/datasets/seeded-generator.ts';
import type { RunEvent } from '../../shared/ports/event-sink.ts';
import { InsecureSeededRandom } from '../../simulations/insecure-seeded-random.ts';
import { loadScenarioData } from '../../simulations/load-scenario.ts';
import { metricsLines, runSimulation, type SimulationResult } from '../../simulations/run-simulation.ts';
import { parseScenario, type Scenario } from '../../simulations/scenario.ts';

let engine: ComputeEngine;
beforeAll(async () => {
  engine = await selectEngine('tfjs');
});
afterAll(() => engine.dispose());

/** Four clients on synthetic data; `changes` are YAML lines below the task's keys. */
function scenarioOf({ seed = 1, privacy = '', schedule = '', network = '', clients = 4 } = {}): Scenario {
  return parseScenario(
    `
scenario: test
task:
  task: test
  seed: ${seed}
  data: { numClasses: 3, exampleShape: [8] }
  transferSet: { source: synthetic, size: 60, seed: 7 }
  evaluationSet: { source: synthetic, size: 60, seed: 8 }
  teacher: { kind: learner, model: softmax-regression, epochs: 2 }
  student: { model: softmax-regression, pretrainEpochs: 1, digestEpochs: 1, revisitEpochs: 1 }
  ${privacy}
  schedule: { rounds: 3, minClients: ${clients}, quorum: 2 ${schedule} }
clients:
  groups: [{ count: ${clients - 1}, model: softmax-regression }, { count: 1, model: mlp-small, stepMs: 50 }]
  data: { source: synthetic, size: 160, seed: 9 }
  testSet: { source: synthetic, size: 60, seed: 10 }
${network}
`,
    'test.yaml',
  );
}

async function simulate(scenario: Scenario, on: ComputeEngine = engine): Promise<{ result: SimulationResult; events: RunEvent[]; metrics: string }> {
  const events: RunEvent[] = [];
  const result = await runSimulation({
    scenario,
    data: await loadScenarioData(scenario, '.'),
    engine: on,
    random: (party) => new InsecureSeededRandom(deriveSeed(scenario.task.seed, 'insecure', party)),
    events: { emit: (event) => events.push(event) },
  });
  return { result, events, metrics: metricsLines(result).map((line) => JSON.stringify(line)).join('\n') };
}

describe('a simulated federation', () => {
  it('releases every planned round with the contributions of all clients', async () => {
    const { result } = await simulate(scenarioOf());
    expect(result.reason).toBe('rounds-done');
    expect(result.rounds.map(({ round, contributions }) => [round, contributions])).toEqual([
      [1, 4],
      [2, 4],
      [3, 4],
    ]);
    for (const { summary, error, privateRecords } of result.clients) {
      expect(error).toBeUndefined();
      expect(summary).toMatchObject({ rounds: 3, contributedRounds: 3, reason: 'rounds-done' });
      expect(privateRecords).toBe(40);
    }
  });

  it('gives the same metrics and events bit for bit for the same seed, and others for another', async () => {
    const first = await simulate(scenarioOf());
    const second = await simulate(scenarioOf());
    const other = await simulate(scenarioOf({ seed: 2 }));
    expect(second.metrics).toBe(first.metrics);
    expect(second.events).toEqual(first.events);
    expect(other.metrics).not.toBe(first.metrics);
  });

  it('gives the same metrics and events bit for bit with one worker, with two, and without any', { timeout: 60_000 }, async () => {
    // Unlike devices and links: clients train at times of their own.
    const scenario = scenarioOf({ network: 'network: { bytesPerSecond: 30000, breakRate: 0.02 }', schedule: ', reconnectGraceSeconds: 600' });
    const expected = await simulate(scenario);
    expect(expected.result.reason).toBe('rounds-done');
    for (const workers of [1, 2]) {
      const pool = await openWorkerPool({ workers, engine: 'tfjs' });
      try {
        const { metrics, events } = await simulate(scenario, pool);
        expect(metrics).toBe(expected.metrics);
        expect(events).toEqual(expected.events);
        expect(pool.statistics().workers.every(({ calls }) => calls > 0)).toBe(true);
      } finally {
        await pool.dispose();
      }
    }
  });

  it('is repeatable with seeded noise, and accounts for it', async () => {
    const noisy = scenarioOf({ privacy: 'privacy: { mechanism: gaussian, epsilon: 100 }' });
    const first = await simulate(noisy);
    const second = await simulate(noisy);
    expect(second.metrics).toBe(first.metrics);
    for (const { summary } of first.result.clients) {
      expect(summary?.epsilonSpent).toBeGreaterThan(90);
      expect(summary?.epsilonSpent).toBeLessThanOrEqual(100);
    }
  });

  it('survives connections that break all the time', async () => {
    const { result, events } = await simulate(scenarioOf({ network: 'network: { breakRate: 0.05 }', schedule: ', reconnectGraceSeconds: 600' }));
    expect(events.filter((event) => event.event === 'reconnecting').length).toBeGreaterThan(0);
    expect(result.reason).toBe('rounds-done');
    expect(result.rounds.every(({ contributions }) => contributions >= 2)).toBe(true);
  });

  it('survives lost messages', async () => {
    const { result } = await simulate(scenarioOf({ network: 'network: { lossRate: 0.05 }', schedule: ', reconnectGraceSeconds: 600' }));
    expect(result.reason).toBe('rounds-done');
  });

  it('costs no real time to wait: a slow device takes virtual hours', async () => {
    const scenario = scenarioOf();
    const slow: Scenario = { ...scenario, task: { ...scenario.task, schedule: { ...scenario.task.schedule, roundDeadlineSeconds: 86_400 } }, clients: { ...scenario.clients, groups: scenario.clients.groups.map((group) => ({ ...group, stepMs: 60_000 })) } };
    const { result } = await simulate(slow);
    expect(result.reason).toBe('rounds-done');
    expect(result.virtualMs).toBeGreaterThan(10 * 60_000);
  });

  it('ends with quorum-missed when no round ever has enough contributions', async () => {
    // Deadlines of a millisecond: nobody ever makes it, so every round fails without having collected anything.
    const scenario = scenarioOf({ schedule: ', roundDeadlineSeconds: 0.001, maxFailedRounds: 2' });
    const { result } = await simulate(scenario);
    expect(result.reason).toBe('quorum-missed');
    expect(result.rounds).toEqual([]);
  });
});

describe('a scenario file', () => {
  it('that waits for more clients than it has is refused with the key', () => {
    expect(() => scenarioOf({ clients: 4, schedule: ', cohortSize: 3' })).not.toThrow();
    expect(() => parseScenario('scenario: x\n', 'x.yaml')).toThrow(/task/);
  });
});
